"""
Time that passes whatever happens to the wall clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFromThreads

TICK = 0.5
"""Seconds between ticks."""


class Ticker:
    """
    Calls a function on the reactor thread every L{TICK} seconds of the monotonic
    clock.  C{callLater} runs by the wall clock: set back by a year, it waits a year.
    """

    def __init__(self, reactor: IReactorFromThreads, function: Callable[[], None]) -> None:
        self._stop = threading.Event()

        def run() -> None:
            while not self._stop.wait(TICK):
                reactor.callFromThread(function)

        threading.Thread(target=run, name="tick", daemon=True).start()

    def stop(self) -> None:
        """No call is begun any more."""
        self._stop.set()
