"""
L{IWorker} in virtual time, for simulations: no thread, the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import WorkerStopped
from hoft.interfaces import IWorker
from hoft.worker import PATIENCE

T = TypeVar("T")


@implementer(IWorker)
class InlineWorker:
    """
    Does each call C{delay} seconds after it was given, and fires its result in
    an event of its own: a crash may fall between the two.

    @param clock: the simulation's clock.
    @param delay: seconds, of that clock.
    """

    def __init__(self, clock: IReactorTime, delay: float = 0.0) -> None:
        self._clock = clock
        self._delay = delay
        self._jobs: deque[tuple[Callable[..., Any], tuple[Any, ...], Deferred[Any], IDelayedCall]] = deque()
        self._results: deque[tuple[Deferred[Any], Any]] = deque()
        self._stopped = False
        self._crashed = False

    def call(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """
        Run C{function(*arguments)} later, after everything given before it.

        @raise WorkerStopped: (as failure) L{stop} was called before.
        """
        if self._stopped:
            return fail(WorkerStopped("this worker has been stopped"))
        return self._give(function, *arguments)

    def join(self, fire: bool = True) -> None:
        """Do all at once, as no time passes within an event; nothing where that would take too long."""
        if self._delay >= PATIENCE:
            return
        for *_, due in self._jobs:
            due.cancel()
        while self._jobs:
            if self._do() and not fire:
                self._clock.callLater(0, self._deliver)
        while fire and self._results:
            self._deliver()

    def stop(self) -> Deferred[None]:
        """Refuse further calls; fires after the last result."""
        self._stopped = True
        return self._give(lambda: None)

    def crash(self) -> None:
        """
        The process died: nothing given before or after runs or fires any more.
        What was done but not fired stays done, and nobody is told.
        """
        self._crashed = True
        self._jobs.clear()
        self._results.clear()

    @property
    def busy(self) -> bool:
        """Whether something that was given is not done yet."""
        return bool(self._jobs)

    def _give(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        deferred: Deferred[T] = Deferred()
        if not self._crashed:
            due = self._clock.callLater(self._delay, self._work)
            self._jobs.append((function, arguments, deferred, due))
        return deferred

    def _work(self) -> None:
        if self._jobs and self._do():
            self._clock.callLater(0, self._deliver)

    def _do(self) -> bool:
        """The first job; whether there is still somebody to be told of it."""
        function, arguments, deferred, _ = self._jobs.popleft()
        try:
            result = function(*arguments)
        except BaseException:  # as in a thread: the caller waits for an answer
            result = Failure()
        if self._crashed:
            return False  # the call itself ended the life that was to hear of it
        self._results.append((deferred, result))
        return True

    def _deliver(self) -> None:
        if self._results:
            deferred, result = self._results.popleft()
            deferred.callback(result)
