"""
Bulk makes way where something small has to overtake it; pure.

What waits in a log overtakes at once.  But over a fast carrier bulk goes as quickly as the nodes
can deal with it, and then whatever is small waits for their processors, in each step it takes.  So
for a while after something has overtaken, bulk goes out in shorter files, and no faster than
leaves a part of a processor free.  Most carriers never bring so much.
"""

from __future__ import annotations

from typing import Final

RECENT: Final = 0.5
"""Seconds for which bulk makes way after something has overtaken it."""

FILE: Final = 512 << 10
"""Bytes of a file at most, meanwhile."""

RATE: Final = 32 << 20
"""And bytes a second: a third of what two nodes bring on two processors of a small machine."""


class Yielding:
    """
    When bulk may go on.

    @ivar until: (clock) nothing but what overtakes is to be written before.
    """

    def __init__(self) -> None:
        self.until = float("-inf")
        self._recent_until = float("-inf")

    def overtaken(self, now: float) -> None:
        """Something is about to be written before the bulk that waits."""
        self._recent_until = now + RECENT

    def most(self, most: int, now: float) -> int:
        """How long a file may get, of C{most} bytes otherwise."""
        return min(most, FILE) if now < self._recent_until else most

    def sent(self, size: int, now: float) -> None:
        """A file of bulk is about to be written."""
        if now < self._recent_until:
            self.until = now + size / RATE
