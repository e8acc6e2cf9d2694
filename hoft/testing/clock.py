"""
Virtual time, fast enough for lifetimes of a protocol.

L{twisted.internet.task.Clock} sorts its calls at each step, which costs more
than the protocol once a thousand of them wait; this one keeps a heap.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IDelayedCall)
class _HeapCall:
    __slots__ = ("_clock", "arguments", "called", "cancelled", "function", "keywords", "time")

    def __init__(
        self,
        clock: HeapClock,
        time: float,
        function: Callable[..., object],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        self._clock = clock
        self.time = time
        self.function = function
        self.arguments = arguments
        self.keywords = keywords
        self.cancelled = False
        self.called = False

    def getTime(self) -> float:
        return self.time

    def _check(self) -> None:
        if self.cancelled:
            raise AlreadyCancelled
        if self.called:
            raise AlreadyCalled

    def cancel(self) -> None:
        self._check()
        self.cancelled = True
        self.function = _forgotten
        self.arguments = ()

    def reset(self, secondsFromNow: float) -> None:
        self._check()
        self._move(self._clock.seconds() + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        self._check()
        self._move(self.time + secondsLater)

    def _move(self, time: float) -> None:
        # The old place in the heap is passed over, since its time no longer fits.
        self.time = time
        self._clock.push(self)

    def active(self) -> bool:
        return not (self.cancelled or self.called)


def _forgotten() -> None:
    """What a cancelled call would do."""


@implementer(IReactorTime)
class HeapClock:
    """
    An L{IReactorTime} whose time passes only in L{step} and L{advance}; calls of
    the same time are made in the order in which they were asked for.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._heap: list[tuple[float, int, _HeapCall]] = []
        self._count = 0

    def seconds(self) -> float:
        """Virtual seconds."""
        return self._now

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """See L{IReactorTime.callLater}."""
        time = self._now + delay
        call = _HeapCall(self, time, callable, args, kw)
        self._count += 1
        heappush(self._heap, (time, self._count, call))
        return call

    def push(self, call: _HeapCall) -> None:
        """Put a call into the heap (again) at its time."""
        self._count += 1
        heappush(self._heap, (call.time, self._count, call))

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """See L{IReactorTime.getDelayedCalls}."""
        return list({call for time, _, call in self._heap if call.active() and call.time == time})

    def step(self, until: float = float("inf")) -> bool:
        """
        Make the next call that is due by C{until}, moving time to it.

        @return: false, with time moved to C{until} if that is finite, if there is none.
        """
        heap = self._heap
        while heap and heap[0][0] <= until:
            time, _, call = heappop(heap)
            if call.cancelled or call.called or call.time != time:
                continue
            if time > self._now:
                self._now = time
            call.called = True
            call.function(*call.arguments, **call.keywords)
            return True
        if until != float("inf"):
            self._now = max(self._now, until)
        return False

    def advance(self, seconds: float) -> None:
        """Let C{seconds} pass."""
        until = self._now + seconds
        while self.step(until):
            pass
