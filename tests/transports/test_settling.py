"""
When a file counts as truncated.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.transports.settling import (
    LONGEST_SETTLE,
    SETTLE,
    ZERO_TAIL,
    Settling,
    without_zero_tail,
)


class SettlingTests(SynchronousTestCase):
    """How long a file must be unchanged."""

    def test_polls(self) -> None:
        """Two polls, unless its writer was seen to be done; a quarter of a second at least."""
        self.assertEqual(Settling(2.0).wait(closed=False), 2.0)
        self.assertEqual(Settling(2.0).wait(closed=True), SETTLE)
        self.assertEqual(Settling(0.1).wait(closed=False), SETTLE)

    def test_slowGrowth(self) -> None:
        """Where files grow in slow steps it takes four of the slower steps, closed or not."""
        settling = Settling(0.1)
        for _ in range(20):
            settling.grew(1.5)
        self.assertEqual(settling.wait(closed=True), 6.0)
        settling.grew(1000.0)
        settling.grew(1000.0)
        self.assertEqual(settling.wait(closed=False), LONGEST_SETTLE)

    def test_rareGaps(self) -> None:
        """One slow step among many quick ones is no reason, nor are the first few."""
        settling = Settling(0.1)
        for _ in range(3):
            settling.grew(10.0)
        self.assertEqual(settling.wait(closed=True), SETTLE)
        for _ in range(200):
            settling.grew(0.01)
        settling.grew(10.0)
        self.assertEqual(settling.wait(closed=True), SETTLE)

    def test_zeroTail(self) -> None:
        """Sixteen zeros are a reserved tail, fifteen may be data."""
        for zeros in range(ZERO_TAIL):
            self.assertEqual(without_zero_tail(b"a" + bytes(zeros)), b"a" + bytes(zeros))
        for zeros in (ZERO_TAIL, ZERO_TAIL + 1, 5000):
            self.assertEqual(without_zero_tail(b"a" + bytes(zeros)), b"a")
        self.assertEqual(without_zero_tail(bytes(100)), b"")
