"""
Room on the disk for responses that are still coming.

They lie in the journal, beside all that others need.  So the far side is let send as
much as there is room for (L{Room.offer}), and where little is left whichever holds the
most of it is given up, before the journal is full and nobody can call any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from hoft.web.crossing.exchange import WINDOW
from hoft.web.http.problems import Problem, no_space

LOW: Final = 16 << 20
"""Bytes of the disk that responses leave alone: twice what the journal keeps back for itself."""

STEP: Final = 1 << 20
"""Bytes below which a response is not large, and room not worth telling of."""

PAUSE: Final = 0.5
"""Seconds until what was given up has left the disk."""

ENDLESS: Final = 1 << 62


class Coming(Protocol):
    """A response that comes in parts."""

    @property
    def held(self) -> int:
        """Bytes of it that lie in the journal."""

    def offer(self) -> None:
        """There may be room for more of it: let the far side know."""

    def fail(self, problem: Problem) -> None:
        """Give it up, and L{Room.leave}."""


class Room:
    """Of one node.  On the reactor thread."""

    def __init__(self, free: Callable[[], int] = lambda: ENDLESS) -> None:
        """@param free: bytes free on the journal's disk; called often; may raise L{OSError}."""
        self._free = free
        self._coming: dict[Coming, None] = {}
        self._not_before = float("-inf")

    @property
    def left(self) -> int:
        """Bytes that responses may take."""
        try:
            return max(0, self._free() - LOW)
        except OSError:
            return ENDLESS  # nobody knows; what is wrong with the disk is told by the journal

    @property
    def short(self) -> bool:
        """There is none for what is large, or is to be kept."""
        return self.left < 2 * STEP

    def come(self, one: Coming) -> None:
        """The first part of it is here."""
        self._coming[one] = None

    def leave(self, one: Coming) -> None:
        """All of it is, or it was given up."""
        self._coming.pop(one, None)

    def offer(self, offered: int, accepted: int, most: int, least: int = 0) -> int | None:
        """
        How much the far side is to be let send, if it is time to tell it; all are totals
        of L{data_cost<hoft.web.crossing.exchange.data_cost>}.

        @param offered: it knows of that.
        @param accepted: that has come.
        @param most: not more, and C{least}: so much in any case.
        """
        starving = offered - accepted < STEP
        if most - offered < (STEP if starving else WINDOW // 4):
            return None
        share = self.left // max(1, len(self._coming))
        total = min(most, max(least, accepted + share))
        return total if total - offered >= (STEP if starving else WINDOW // 4) else None

    def tick(self, now: float) -> None:
        """
        Give up one response where room is short; let the others come where there is some.

        @param now: monotonic seconds.
        """
        if not self._coming:
            return
        if self.short:
            largest = max(self._coming, key=lambda one: one.held)
            if largest.held > 2 * STEP and now >= self._not_before:
                self._not_before = now + PAUSE
                largest.fail(no_room())
        for one in list(self._coming):
            one.offer()


def no_room() -> Problem:
    """The disk has none for another response."""
    return no_space("the disk of this node has no room for the response", 60)
