"""Work on the reactor thread that may be long, in pieces between which others have their turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator, SchedulerStopped, TaskStopped
from twisted.python.failure import Failure

T = TypeVar("T")

SLICE = 0.004
"""Seconds of the reactor's time that are taken in one go."""


class _Slice:
    """Says when a turn has taken long enough."""

    def __init__(self) -> None:
        self._end = time.monotonic() + SLICE

    def __call__(self) -> bool:
        return time.monotonic() >= self._end


class Slices:
    """What one owner has done so."""

    def __init__(self, reactor: Any) -> None:
        self._cooperator = Cooperator(
            terminationPredicateFactory=_Slice, scheduler=lambda turn: reactor.callLater(0, turn)
        )

    def run(self, steps: Iterator[object], result: T) -> Deferred[T]:
        """
        @param steps: each short.
        @return: fires with C{result} when there are no more, or fails as one of them did; cancelling
            it leaves off.
        """
        done: Deferred[T] = Deferred(lambda _: task.stop())
        task = self._cooperator.cooperate(steps)

        def failed(failure: Failure) -> None:
            if not failure.check(TaskStopped, SchedulerStopped):  # nobody waits any more
                done.errback(failure)

        task.whenDone().addCallbacks(lambda _: done.callback(result), failed)
        return done

    def gather(self, makers: Iterable[Callable[[], T]]) -> Deferred[list[T]]:
        """
        @param makers: all of them are called, in order.
        @return: fires with what they make.
        """
        found: list[T] = []

        def steps() -> Iterator[None]:
            for make in makers:
                found.append(make())
                yield

        return self.run(steps(), found)

    def stop(self) -> None:
        """Leave off; nobody is told."""
        self._cooperator.stop()
