"""
A thread that does blocking work in order, and hands results back in batches.

Crossing from a thread into the reactor costs about 7 us each time and a system
call, so results that are ready together cross together.  And while the reactor's
thread is busy, another one waits for the interpreter at each of its steps (for up to
5 ms: C{sys.setswitchinterval}), so whoever needs a short job done can let the reactor stand
still for it (L{Worker.join}).  Unlike the threads of Twisted's pool, a worker's thread
is a daemon: one that hangs on a dead network mount does not keep the process from
exiting.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import WorkerStopped
from hoft.interfaces import IWorker

T = TypeVar("T")

PATIENCE = 0.002
"""
Seconds for which L{Worker.join} lets the reactor stand still: what is waited for takes some tenths of that,
and several times as long if both threads want the interpreter meanwhile.
"""

SLOW = 0.1
"""Seconds for which nobody waits for a thread that took longer than that."""

_Job = tuple[Callable[..., Any], tuple[Any, ...], "Deferred[Any]"]


@implementer(IWorker)
class Worker:
    """
    One daemon thread, started by the first call.

    @param reactor: where results are delivered.
    @param name: the thread's name, for those who look at a running node.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._results: deque[tuple[Deferred[Any], Any]] = deque()
        self._delivering = False
        self._unfired = 0
        self._joined = False
        self._idle: SimpleQueue[None] = SimpleQueue()
        self._slow_until = -math.inf
        self._thread: Thread | None = None
        self._stopped = False
        self._stopping: list[Deferred[None]] = []

    def call(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """
        Run C{function(*arguments)} on the thread, after everything given before
        it.  What it raises arrives as a Failure with the traceback of the thread.

        @raise WorkerStopped: (as failure) L{stop} was called before.
        """
        if self._stopped:
            return fail(WorkerStopped(f"{self._name} has been stopped"))
        if self._thread is None:
            self._start()
        deferred: Deferred[T] = Deferred()
        self._unfired += 1
        self._jobs.put((function, arguments, deferred))
        return deferred

    def join(self, fire: bool = True) -> None:
        """See L{IWorker.join}."""
        if self._unfired and monotonic() >= self._slow_until:
            self._wait()
        if fire:
            self._deliver()
        elif self._results:
            self._deliver_soon()

    def _wait(self) -> None:
        while not self._idle.empty():  # of a thread that was late, and then not waited for
            self._idle.get_nowait()
        self._joined = True
        if len(self._results) < self._unfired:
            try:
                self._idle.get(timeout=PATIENCE)
            except Empty:
                self._slow_until = monotonic() + SLOW
        # Lowered before the last look at the results: one that comes later wakes the reactor.
        self._joined = False

    def stop(self) -> Deferred[None]:
        """Finish what was given, then end the thread; fires after the last result."""
        deferred: Deferred[None] = Deferred()
        if self._thread is None or (self._stopped and not self._stopping):
            self._stopped = True
            deferred.callback(None)
            return deferred
        self._stopping.append(deferred)
        if not self._stopped:
            self._stopped = True
            self._jobs.put(None)
        return deferred

    def _start(self) -> None:
        self._thread = Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        """The thread's life."""
        get = self._jobs.get
        while True:
            job = get()
            if job is None:
                self._reactor.callFromThread(self._finish)
                return
            function, arguments, deferred = job
            try:
                result = function(*arguments)
            except BaseException:  # whatever it is, the caller waits for an answer
                result = Failure()
            self._results.append((deferred, result))
            if not self._joined:
                self._deliver_soon()
            elif self._jobs.empty():
                self._idle.put(None)
            # Nothing of a finished job, a payload perhaps, may live on while we wait.
            del job, function, arguments, deferred, result

    def _deliver_soon(self) -> None:
        if not self._delivering:
            self._delivering = True
            self._reactor.callFromThread(self._deliver)

    def _deliver(self) -> None:
        """On the reactor thread: fire for all that is ready."""
        # Lowered first: a result that comes after the last look raises it again.
        self._delivering = False
        results = self._results
        while results:
            deferred, result = results.popleft()
            self._unfired -= 1
            deferred.callback(result)

    def _finish(self) -> None:
        """On the reactor thread: the thread has done its last job."""
        self._deliver()
        waiting, self._stopping = self._stopping, []
        for deferred in waiting:
            deferred.callback(None)
