"""
Counters that several threads raise and the status display reads.
"""

from __future__ import annotations

from threading import Lock


class Tally:
    """
    Numbers since the start, by name.

    @param names: all there are, so that displays show them from the start.
    """

    def __init__(self, *names: str) -> None:
        self._lock = Lock()
        self._numbers = dict.fromkeys(names, 0)

    def add(self, name: str, amount: int = 1) -> None:
        """Count; from any thread."""
        with self._lock:
            self._numbers[name] += amount

    def snapshot(self) -> dict[str, int]:
        """All of them, as they are now."""
        with self._lock:
            return dict(self._numbers)
