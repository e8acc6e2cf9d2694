"""
Timers of a reactor, of the kinds that are needed in more than one place.

All methods are called on the reactor thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime


def turn(reactor: IReactorFromThreads) -> Deferred[None]:
    """Fires in the next turn of the reactor, whatever becomes of the clock."""
    next_turn: Deferred[None] = Deferred()
    reactor.callFromThread(next_turn.callback, None)
    return next_turn


class Soon:
    """Something that is done in a moment, once for all who ask for it until then."""

    def __init__(self, reactor: IReactorTime, delay: float, function: Callable[[], None]) -> None:
        """@param delay: seconds from when it is first asked for; 0: in the next turn of the reactor."""
        self._reactor = reactor
        self._delay = delay
        self._function = function
        self._call: IDelayedCall | None = None

    @property
    def pending(self) -> bool:
        """It was asked for, and is not done yet."""
        return self._call is not None

    def ask(self) -> None:
        """It is to be done."""
        if self._call is None:
            self._call = self._reactor.callLater(self._delay, self._due)

    def _due(self) -> None:
        self._call = None
        self._function()

    def cancel(self) -> None:
        """It need not be done, unless it is asked for again."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def now(self) -> None:
        """Do it at once, if it was asked for."""
        if self._call is not None:
            self.cancel()
            self._function()


class Alarm:
    """
    One timer that is set anew all the time.

    @ivar due: (clock) when it is to ring; infinite for never.
    """

    def __init__(self, reactor: IReactorTime, ring: Callable[[], None]) -> None:
        self.due = -math.inf
        self._reactor = reactor
        self._ring = ring
        self._call: IDelayedCall | None = None
        self._at = 0.0

    def set(self, due: float, now: float) -> None:
        """Ring when C{due} has come."""
        self.due = due
        if due == math.inf:
            return
        if self._call is not None:
            if self._at <= due:
                return  # it rings too early, and is set anew then: cheaper than moving it each time
            self.cancel()
        self._at = due
        self._call = self._reactor.callLater(max(0.0, due - now), self._rang)

    def _rang(self) -> None:
        self._call = None
        self._ring()

    def cancel(self) -> None:
        """Do not ring."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()


class Timers:
    """What is to be called later, by names of which each runs once at a time."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._running: dict[str, IDelayedCall] = {}
        self._stopped = False

    def __contains__(self, name: str) -> bool:
        return name in self._running

    def set(self, name: str, delay: float, function: Callable[[], None]) -> None:
        """Call C{function} once after C{delay} seconds, unless it will be called earlier anyway."""

        def ring() -> None:
            del self._running[name]
            function()

        if self._stopped:
            return
        running = self._running.get(name)
        if running is not None:
            if running.getTime() <= self._reactor.seconds() + delay:
                return
            running.cancel()
        self._running[name] = self._reactor.callLater(delay, ring)

    def cancel(self, name: str) -> None:
        """Do not call it, if it was to be called."""
        running = self._running.pop(name, None)
        if running is not None:
            running.cancel()

    def stop(self) -> None:
        """Call nothing any more."""
        self._stopped = True
        for name in list(self._running):
            self.cancel(name)
