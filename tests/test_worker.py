"""A thread that works in order and answers in batches."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from queue import Empty
from random import Random
from typing import Any, cast

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from hoft import worker as worker_module
from hoft.errors import WorkerStopped
from hoft.interfaces import IWorker
from hoft.testing.worker import InlineWorker
from hoft.worker import PATIENCE, Worker

reactor = cast(Any, installed_reactor)  # what is installed has no static type


def note(result: object, what: list[int], number: int) -> None:
    """Callback: result number C{number} fired."""
    what.append(number)


def fail_plainly() -> None:
    raise ValueError("on purpose")


def slowly(number: int) -> int:
    time.sleep(1.5 * PATIENCE)
    return number


class Waits:
    """What a worker is joined by, when nothing is ever done: how long it was waited for each time."""

    def __init__(self, waits: list[float]) -> None:
        self._waits = waits

    def empty(self) -> bool:
        return True

    def get(self, timeout: float) -> None:
        self._waits.append(timeout)
        raise Empty

    def put(self, _: None) -> None:
        """Too late."""


class CountingReactor:
    """The real reactor, counting how often a thread wakes it."""

    def __init__(self) -> None:
        self.wakes = 0

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        self.wakes += 1
        reactor.callFromThread(function, *arguments)


class WorkerTests(TestCase):
    def worker(self) -> Worker:
        worker = Worker(reactor, "test worker")
        self.addCleanup(worker.stop)
        return worker

    def test_interface(self) -> None:
        verifyObject(IWorker, self.worker())

    def test_who_joins_it_is_answered_before_anything_else(self) -> None:
        worker = self.worker()
        fired: list[int] = []
        worker.call(int, 1).addCallback(fired.append)
        worker.call(int, 2).addCallback(fired.append)
        for _ in range(1000):  # a busy machine may take longer than anybody waits
            worker.join()
            if len(fired) == 2:
                break
            time.sleep(0.01)
        self.assertEqual(fired, [1, 2])

    @inlineCallbacks
    def test_who_joins_it_may_be_answered_later(self) -> Any:
        worker = self.worker()
        done: list[int] = []
        answer = worker.call(done.append, 1)
        fired: list[object] = []
        answer.addCallback(fired.append)
        worker.join(fire=False)
        self.assertEqual(fired, [])
        yield answer
        self.assertEqual(done, [1])

    @inlineCallbacks
    def test_a_slow_one_is_not_waited_for(self) -> Any:
        """Nor is the reactor held up again soon after it was for nothing."""
        worker = self.worker()
        going_on = threading.Event()
        waits: list[float] = []
        self.patch(worker, "_idle", Waits(waits))
        answers: list[Deferred[Any]] = [worker.call(going_on.wait), worker.call(int, 1)]
        for _ in range(5):
            worker.join()
        self.assertEqual(waits, [PATIENCE])
        going_on.set()
        self.assertEqual((yield gatherResults(answers)), [True, 1])

    def test_joining_one_that_was_given_nothing(self) -> None:
        worker = self.worker()
        self.patch(worker, "_idle", Waits([]))
        worker.join()
        worker.join(fire=False)

    @inlineCallbacks
    def test_no_answer_is_lost_however_it_is_joined(self) -> Any:
        worker = self.worker()
        chance = Random(1)
        self.patch(worker_module, "SLOW", 0.0)
        answers: list[Deferred[int]] = []
        for number in range(3000):
            answers.append(worker.call(slowly if chance.random() < 0.01 else abs, number))
            if chance.random() < 0.5:
                worker.join(fire=chance.random() < 0.5)
        self.assertEqual((yield gatherResults(answers)), list(range(3000)))

    @inlineCallbacks
    def test_works_off_the_reactor_thread_and_answers_on_it(self) -> Any:
        worker = self.worker()
        names: list[str] = []

        def fired(ran_on: str) -> None:
            names.extend([ran_on, threading.current_thread().name])

        yield worker.call(lambda: threading.current_thread().name).addCallback(fired)
        self.assertEqual(names, ["test worker", threading.current_thread().name])

    @inlineCallbacks
    def test_order(self) -> Any:
        """Calls run, and their results fire, in the order they were given; so do failures among them."""
        worker = self.worker()
        ran: list[int] = []
        fired: list[int] = []
        waiting = []
        for number in range(1000):
            call = worker.call(fail_plainly) if number % 100 == 7 else worker.call(ran.append, number)
            waiting.append(call.addBoth(note, fired, number))
        yield gatherResults(waiting)
        self.assertEqual(ran, [number for number in range(1000) if number % 100 != 7])
        self.assertEqual(fired, list(range(1000)))

    @inlineCallbacks
    def test_results_cross_in_batches(self) -> Any:
        """What is ready together wakes the reactor once."""
        counting = CountingReactor()
        worker = Worker(cast(Any, counting), "test worker")
        gate = threading.Event()
        calls: list[Deferred[Any]] = [worker.call(gate.wait)]
        calls += [worker.call(int) for _ in range(500)]
        gate.set()
        # The reactor thread is kept from its loop until all 501 are ready.
        ready = threading.Event()
        calls.append(worker.call(ready.set))
        ready.wait(10)
        yield gatherResults(calls)
        self.assertLessEqual(counting.wakes, 3)
        yield worker.stop()

    @inlineCallbacks
    def test_failure_keeps_its_traceback(self) -> Any:
        seen: list[Failure] = []
        yield self.worker().call(fail_plainly).addErrback(seen.append)
        self.assertTrue(seen[0].check(ValueError))
        self.assertIn("fail_plainly", seen[0].getTraceback())

    @inlineCallbacks
    def test_survives_system_exit(self) -> Any:
        """Even what is no Exception answers its caller, and the thread goes on."""
        worker = self.worker()
        yield self.assertFailure(worker.call(sys.exit, 3), SystemExit)
        self.assertEqual((yield worker.call(int, "7")), 7)

    @inlineCallbacks
    def test_stop_finishes_what_was_given(self) -> Any:
        worker = self.worker()
        done: list[int] = []
        for number in range(20):
            worker.call(lambda: time.sleep(0.001)).addCallback(note, done, number)
        first, second = worker.stop(), worker.stop()
        yield first
        self.assertEqual(done, list(range(20)))
        yield second
        yield worker.stop()
        yield self.assertFailure(worker.call(int), WorkerStopped)

    @inlineCallbacks
    def test_stop_unused(self) -> Any:
        worker = self.worker()
        yield worker.stop()
        yield self.assertFailure(worker.call(int), WorkerStopped)

    @inlineCallbacks
    def test_keeps_no_finished_payload_alive(self) -> Any:
        """An idle worker holds nothing of its last call."""

        class Payload:
            pass

        gone = threading.Event()
        payload = Payload()
        weakref.finalize(payload, gone.set)
        worker = self.worker()
        yield worker.call(lambda payload: None, payload)
        del payload
        self.assertTrue(gone.wait(5))

    def test_hung_thread_does_not_keep_the_process(self) -> None:
        script = (
            "import threading\n"
            "from twisted.internet import reactor\n"
            "from hoft.worker import Worker\n"
            "worker = Worker(reactor, 'hung')\n"
            "worker.call(threading.Event().wait)\n"
            "reactor.callLater(0.05, reactor.stop)\n"
            "reactor.run()\n"
            "print('left')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False
        )
        self.assertEqual((done.returncode, done.stdout), (0, "left\n"), done.stderr)


class InlineWorkerTests(SynchronousTestCase):
    def test_interface(self) -> None:
        verifyObject(IWorker, InlineWorker(Clock()))

    def test_runs_after_the_delay_in_order(self) -> None:
        clock = Clock()
        worker = InlineWorker(clock, 0.5)
        ran: list[int] = []
        fired: list[int] = []
        for number in range(5):
            worker.call(ran.append, number).addCallback(note, fired, number)
        clock.advance(0.4)
        self.assertEqual(ran, [])
        clock.advance(0.1)
        clock.advance(0)
        self.assertEqual((ran, fired), ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]))

    def test_failure(self) -> None:
        clock = Clock()
        call = InlineWorker(clock).call(fail_plainly)
        clock.pump([0, 0])
        self.failureResultOf(call, ValueError)

    def test_crash(self) -> None:
        """Nothing given before a crash runs, and nobody hears of what ran."""
        clock = Clock()
        worker = InlineWorker(clock, 1.0)
        ran: list[int] = []
        first = worker.call(ran.append, 1)
        clock.advance(0.5)
        second = worker.call(ran.append, 2)
        clock.callLater(0.5, worker.crash)  # after the first has run, before it fires
        clock.pump([0.5, 0, 1, 0])
        third = worker.call(ran.append, 3)
        clock.pump([1, 0])
        self.assertEqual(ran, [1])
        for call in (first, second, third):
            self.assertNoResult(call)

    def test_stop(self) -> None:
        clock = Clock()
        worker = InlineWorker(clock)
        ran: list[int] = []
        worker.call(ran.append, 1)
        stopped = worker.stop()
        self.failureResultOf(worker.call(ran.append, 2), WorkerStopped)
        clock.pump([0, 0])
        self.successResultOf(stopped)
        self.assertEqual(ran, [1])
