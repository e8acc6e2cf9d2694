"""
Counters that several threads raise and the status display reads, with examples of what they count.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock


class Tally:
    """
    Numbers since the start, by name.

    @param clock: monotonic seconds.
    @param names: all there are, so that displays show them from the start.
    """

    def __init__(self, clock: Callable[[], float], *names: str) -> None:
        self._lock = Lock()
        self._clock = clock
        self._examples: dict[str, tuple[str, float]] = {}
        self._numbers = dict.fromkeys(names, 0)

    def add(self, name: str, amount: int = 1) -> None:
        """Count; from any thread."""
        with self._lock:
            self._numbers[name] += amount

    def note(self, name: str, example: str) -> None:
        """Count one, and keep in mind what it was; from any thread."""
        with self._lock:
            self._numbers[name] += 1
            self._examples[name] = (example, self._clock())

    def examples(self) -> dict[str, tuple[str, float]]:
        """The last of what was noted, by counter, and how many seconds ago that was."""
        now = self._clock()
        with self._lock:
            return {name: (example, now - at) for name, (example, at) in self._examples.items()}

    def snapshot(self) -> dict[str, int]:
        """All of them, as they are now."""
        with self._lock:
            return dict(self._numbers)
