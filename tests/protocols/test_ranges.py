"""Ranges hold what a set of integers would."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.ranges import RangeSet

SPANS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), max_size=30)


def numbers(ranges: object) -> set[int]:
    return {number for start, end in ranges for number in range(start, end + 1)}  # type: ignore[attr-defined]  # any iterable of pairs


class RangeSetTests(SynchronousTestCase):
    """Each test compares with a plain set."""

    @settings(derandomize=True, deadline=None)
    @given(SPANS)
    def test_adding_says_what_is_new(self, spans: list[tuple[int, int]]) -> None:
        """C{add} returns exactly what was not in before; the ranges stay apart and in order."""
        ranges, plain = RangeSet(), set[int]()
        for start, length in spans:
            span = set(range(start, start + length + 1))
            self.assertEqual(numbers(ranges.add(start, start + length)), span - plain)
            plain |= span
            self.assertEqual(numbers(ranges), plain)
        pairs = list(ranges)
        self.assertTrue(all(end + 1 < start for (_, end), (start, _) in pairwise(pairs)))
        self.assertEqual(len(ranges), len(pairs))

    @settings(derandomize=True, deadline=None)
    @given(SPANS, st.lists(st.integers(0, 75), max_size=20))
    def test_taking_out(self, spans: list[tuple[int, int]], out: list[int]) -> None:
        """C{discard} takes out one number, or none; C{in} agrees throughout."""
        ranges = RangeSet((start, start + length) for start, length in spans)
        plain = numbers(ranges)
        for number in out:
            ranges.discard(number)
            plain.discard(number)
        self.assertEqual(numbers(ranges), plain)
        self.assertEqual({number for number in range(80) if number in ranges}, plain)

    def test_prefix(self) -> None:
        """The gapless beginning counts from 1."""
        self.assertEqual(RangeSet().prefix(), 0)
        self.assertEqual(RangeSet([(2, 9)]).prefix(), 0)
        self.assertEqual(RangeSet([(1, 9), (11, 12)]).prefix(), 9)
        self.assertEqual(RangeSet([(0, 4)]).prefix(), 4)

    def test_above(self) -> None:
        """The lowest ranges above a number, not more than asked for."""
        ranges = RangeSet([(1, 3), (5, 6), (9, 9), (12, 20)])
        self.assertEqual(ranges.above(3, 2), ((5, 6), (9, 9)))
        self.assertEqual(ranges.above(12, 5), ())

    def test_wide_ranges_cost_nothing(self) -> None:
        """A peer that speaks of 2 to the 64 numbers takes no more room than one."""
        ranges = RangeSet([(1, 10)])
        self.assertEqual(ranges.add(5, 1 << 64), [(11, 1 << 64)])
        self.assertEqual(len(ranges), 1)
