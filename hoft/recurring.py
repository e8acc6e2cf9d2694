"""
What may come any number of times, in the log: what is news, and of the rest how much there was; pure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from attrs import define

K = TypeVar("K", bound=Hashable)

EVERY = 60.0
"""Seconds from one line on something of a kind to the next."""


@define
class _Kind:
    due: float
    more: int = 0
    last: str = ""


class Recurring(Generic[K]):
    """
    Of each kind the first is told at once; of those that follow, how many there were, each L{EVERY}
    seconds until none has come for so long.  The kinds are for the user to bound.
    """

    def __init__(self, tell: Callable[[K, str, int], None]) -> None:
        """
        @param tell: has the log say of a kind what came, and how many more than was said before that
            was the last of; 0: that it came is all.
        """
        self._tell = tell
        self._kinds: dict[K, _Kind] = {}
        """In the order in which they are due."""

    def came(self, kind: K, what: str, now: float) -> None:
        """Once more; C{now} is monotonic seconds."""
        known = self._kinds.get(kind)
        if known is None:
            self._kinds[kind] = _Kind(now + EVERY)
            self._tell(kind, what, 0)
        else:
            known.more += 1
            known.last = what

    def look(self, now: float) -> None:
        """To be called now and then: tell what is due.  Costs next to nothing where that is nothing."""
        while self._kinds:
            kind, known = next(iter(self._kinds.items()))
            if now < known.due:
                break
            del self._kinds[kind]
            if known.more:
                self._kinds[kind] = _Kind(now + EVERY)
                self._tell(kind, known.last, known.more)
