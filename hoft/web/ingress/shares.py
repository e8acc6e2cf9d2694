"""Whose the bytes are that an ingress holds for its callers; pure."""

from __future__ import annotations


class Shares:
    """
    Bytes of one kind, by caller: L{None} is who need not say who it is.

    @ivar total: of all.
    """

    def __init__(self) -> None:
        self.total = 0
        self._of: dict[str | None, int] = {}

    def take(self, caller: str | None, size: int) -> None:
        """It has so many more; fewer, if that is negative."""
        self.total += size
        has = self._of.get(caller, 0) + size
        if has:
            self._of[caller] = has
        else:
            self._of.pop(caller, None)

    def of(self, caller: str | None) -> int:
        """What it has."""
        return self._of.get(caller, 0)

    def largest(self) -> str | None:
        """
        Who has the most.

        @raise ValueError: nobody has anything.
        """
        return max(self._of, key=lambda caller: self._of[caller])
