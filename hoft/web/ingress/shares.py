"""Whose that is of which an ingress has only so much; pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Shares(Generic[T]):
    """
    Bytes of one kind, or places, by whose they are: a peer, or a caller (L{None} is who need not say
    who it is).

    @ivar total: of all.
    """

    def __init__(self) -> None:
        self.total = 0
        self._of: dict[T, int] = {}

    def take(self, whose: T, more: int) -> None:
        """It has so many more; fewer, if that is negative."""
        self.total += more
        has = self._of.get(whose, 0) + more
        if has:
            self._of[whose] = has
        else:
            self._of.pop(whose, None)

    def of(self, whose: T) -> int:
        """What it has."""
        return self._of.get(whose, 0)

    def largest(self) -> T:
        """
        Who has the most.

        @raise ValueError: nobody has anything.
        """
        return max(self._of, key=lambda whose: self._of[whose])
