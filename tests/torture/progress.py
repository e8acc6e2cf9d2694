"""What hours of work look like from outside."""

from __future__ import annotations

import sys
import time

from tests.torture.figures import SOAK

EVERY = 30.0
"""Seconds between two lines."""


class Progress:
    """
    A line on standard error now and then: how many of how many, how fast, what was found.
    C{make test} is too short for it, and says nothing.
    """

    def __init__(self, what: str, of: int) -> None:
        self._what = what
        self._of = of
        self._done = 0
        self._begun = self._told = time.monotonic()

    def step(self, found: object, done: int = 1) -> None:
        """
        So many more are done.

        @param found: what is to be said of them so far.
        """
        self._done += done
        now = time.monotonic()
        if SOAK > 1 and (now >= self._told + EVERY or self._done >= self._of):
            self._told = now
            rate = self._done / max(now - self._begun, 0.001)
            self.say(f"{self._done:,} of {self._of:,}, {rate:.3g} a second; {found}")

    def say(self, text: str) -> None:
        """At once, whatever the time."""
        print(f"\n{time.strftime('%H:%M:%S')} {self._what}: {text}", file=sys.stderr, flush=True)
