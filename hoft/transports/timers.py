"""
Timers by name, of which each runs once at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timers:
    """
    What is to be called later.

    @param reactor: whose C{callLater} is used.
    """

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
