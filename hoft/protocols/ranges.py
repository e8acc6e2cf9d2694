"""Sets of record numbers, kept as ranges; pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """
    A set of integers as ascending, disjoint, non-adjacent inclusive ranges.

    Membership and insertion cost O(log ranges) plus the move within a list;
    ranges are few where most of what is sent arrives.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __contains__(self, number: int) -> bool:
        if not self._ends or number > self._ends[-1]:
            return False
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number <= self._ends[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        """How many ranges there are (not how many numbers)."""
        return len(self._starts)

    def add(self, start: int, end: int | None = None) -> list[tuple[int, int]]:
        """
        Insert C{start} .. C{end} (inclusive; one number without C{end}).

        @return: the parts that were not in the set before, ascending.
        """
        end = start if end is None else end
        if self._ends and start == self._ends[-1] + 1:  # by far the most frequent
            self._ends[-1] = end
            return [(start, end)]
        # All ranges that touch or adjoin the new one.
        low = bisect_left(self._ends, start - 1)
        high = bisect_right(self._starts, end + 1)
        new: list[tuple[int, int]] = []
        free = start
        for at in range(low, high):
            if free < self._starts[at]:
                new.append((free, min(end, self._starts[at] - 1)))
            free = max(free, self._ends[at] + 1)
        if free <= end:
            new.append((free, end))
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]
        return new

    def update(self, numbers: Iterable[int]) -> None:
        """Insert all of these; fastest where they ascend without gaps."""
        start, end = 1, 0
        for number in numbers:
            if number != end + 1:
                if start <= end:
                    self.add(start, end)
                start = number
            end = number
        if start <= end:
            self.add(start, end)

    def discard(self, number: int) -> None:
        """Take one number out, where it is in."""
        at = bisect_right(self._starts, number) - 1
        if at < 0 or number > self._ends[at]:
            return
        start, end = self._starts[at], self._ends[at]
        parts = [(a, b) for a, b in ((start, number - 1), (number + 1, end)) if a <= b]
        self._starts[at : at + 1] = [a for a, _ in parts]
        self._ends[at : at + 1] = [b for _, b in parts]

    def prefix(self) -> int:
        """The highest n such that 1 .. n are all in the set; 0 if 1 is not."""
        return self._ends[0] if self._starts and self._starts[0] <= 1 else 0

    def above(self, number: int, most: int) -> tuple[tuple[int, int], ...]:
        """The lowest C{most} ranges that start above C{number}."""
        at = bisect_right(self._starts, number)
        return tuple(zip(self._starts[at : at + most], self._ends[at : at + most], strict=True))
