"""How long the next file waits."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.pacing import FIRST_FILES, FLOOR, HEADROOM, KNOWN, CarrierCost, Cost, Limits, Pace


def taking_turns(
    cost: CarrierCost, per_file: float, per_byte: float = 0.0, *, files: int = 100, jitter: float = 0.0
) -> None:
    """Two files at a time are given to a carrier that takes one after the other."""
    chance = Random(5)
    for _ in range(files):
        length = chance.choice((500, 60_000, 1_000_000))
        gap = per_file + length * per_byte + chance.uniform(-jitter, jitter)
        cost.spaced(0.1 * gap, gap, 3 * gap, length)


class CostTests(SynchronousTestCase):
    """What is learned from the spacing of arrivals."""

    def test_nothing_known(self) -> None:
        """Nothing is waited for; for comparing sizes a file costs a little."""
        self.assertEqual(CarrierCost().cost.wait(1 << 20), 0.0)
        self.assertGreater(Cost().of(0), 0.0)

    def test_per_file(self) -> None:
        """Half a second each."""
        cost = CarrierCost()
        taking_turns(cost, 0.5, jitter=0.1)
        self.assertLess(abs(cost.cost.wait(100) - 0.5), 0.05)

    def test_per_file_and_byte(self) -> None:
        """They are told apart where lengths differ."""
        cost = CarrierCost()
        taking_turns(cost, 0.5, 1e-6, jitter=0.02)
        self.assertLess(abs(cost.cost.per_file - 0.5), 0.05)
        self.assertLess(abs(cost.cost.per_byte - 1e-6), 1e-7)

    def test_a_local_folder(self) -> None:
        """A file a millisecond, or a hundred megabytes a second: nobody waits."""
        cost = CarrierCost()
        taking_turns(cost, 0.001, 1e-8)
        self.assertEqual(cost.cost.wait(1 << 20), 0.0)

    def test_a_busy_machine(self) -> None:
        """Bulk at 25 MB/s keeps 40 ms between files of a mebibyte: that is no cost of files."""
        cost = CarrierCost()
        for _ in range(100):
            cost.spaced(0.01, 0.04, 0.5, 1 << 20, 0.001)
        self.assertEqual(cost.cost, Cost())

    def test_side_by_side(self) -> None:
        """Files that travel by themselves arrive in any order, sometimes together: nobody waits."""
        chance = Random(3)
        cost = CarrierCost()
        files = [(0.2 * at, 0.2 * at + chance.lognormvariate(1.0, 0.7)) for at in range(1000)]
        files.sort(key=lambda file: file[1])
        waits = []
        for (sent, arrived), (next_sent, next_arrived) in pairwise(files):
            cost.spaced(next_sent - sent, next_arrived - arrived, 6.0, 1000)
            waits.append(cost.cost.wait(1000))
        self.assertLess(sum(waits) / len(waits), 0.02)

    def test_sent_as_slowly(self) -> None:
        """Files that arrive as far apart as they were sent, for want of others, say nothing."""
        cost = CarrierCost()
        for _ in range(100):
            cost.spaced(10.0, 10.1, 30.0, 1000)
            cost.spaced(10.0, 25.0, 3.0, 1000)  # the second was sent when the first had arrived
        self.assertEqual(cost.cost, Cost())

    def test_gets_quicker(self) -> None:
        """Those that come closer than was thought possible correct it."""
        cost = CarrierCost()
        taking_turns(cost, 0.5)
        taking_turns(cost, 0.1)
        self.assertLess(abs(cost.cost.wait(100) - 0.1), 0.02)

    def test_pauses(self) -> None:
        """A carrier that rests now and then is not slower for that."""
        cost = CarrierCost()
        for at in range(100):
            cost.spaced(0.01, 30.0 if at % 10 == 0 else 0.5, 40.0, 1000)
        self.assertLess(abs(cost.cost.wait(1000) - 0.5), 0.05)


class PaceTests(SynchronousTestCase):
    """When the next may be written."""

    def _files(self, pace: Pace, seconds: float, length: int = 1000) -> list[float]:
        """When files are written, if there are always some."""
        now, times = 0.0, []
        while now < seconds:
            if now >= max(pace.not_before, pace.allowed_at):
                times.append(now)
                pace.sent(length, now, None)
            now += 0.01
        return times

    def test_at_once(self) -> None:
        """Where nothing costs and nothing is limited."""
        pace = Pace(Limits(), CarrierCost())
        self.assertEqual(len(self._files(pace, 1.0)), 100)

    def test_what_a_file_costs(self) -> None:
        """One each time; a tenth is left over."""
        pace = Pace(Limits(), CarrierCost(Cost(0.5)))
        times = self._files(pace, 220.0)
        self.assertLess(abs(len(times) - 220 / (0.5 * HEADROOM)), 6)
        # Now and then one goes early, to see whether the carrier got quicker.
        gaps = [late - early for early, late in pairwise(times)]
        self.assertLess(min(gaps[2:]), 0.3)

    def test_after_a_pause(self) -> None:
        """Two at most go at once: what was not used is not saved up."""
        pace = Pace(Limits(), CarrierCost(Cost(0.5)))
        pace.sent(100, 0.0, None)
        for _ in range(2):
            self.assertLessEqual(pace.not_before, 1000.0)
            pace.sent(100, 1000.0, None)
        self.assertGreater(pace.not_before, 1000.0)

    def test_bytes_per_second(self) -> None:
        """What the user allows."""
        pace = Pace(Limits(bytes_per_second=10_000), CarrierCost())
        self.assertLess(abs(len(self._files(pace, 20.0)) - 200), 3)

    def test_a_slow_round_trip(self) -> None:
        """Where an answer takes a minute small files are half a second apart; large ones are not held."""
        pace = Pace(Limits(), CarrierCost())
        pace.sent(1000, 0.0, 64.0)
        pace.sent(1000, 0.0, 64.0)
        self.assertAlmostEqual(pace.not_before, 0.5)
        full = Pace(Limits(), CarrierCost())
        full.sent(1 << 20, 0.0, 64.0)
        self.assertEqual(full.not_before, float("-inf"))

    def test_found_out_late(self) -> None:
        """What the carrier was given before its cost was known, it is left to deal with."""
        cost = CarrierCost()
        pace = Pace(Limits(), cost)
        before, cost.cost = cost.cost, Cost(0.5)
        pace.judged(before, 20, 2.0, 100.0)
        self.assertEqual(pace.not_before, 108.0)
        pace.judged(cost.cost, 20, 2.0, 200.0)
        self.assertEqual(pace.not_before, 108.0)

    def test_thought_too_dear(self) -> None:
        """When that turns out nothing is owed for it any more."""
        cost = CarrierCost(Cost(100.0))
        pace = Pace(Limits(), cost)
        for _ in range(5):
            pace.sent(1000, 0.0, None)
        before, cost.cost = cost.cost, Cost()
        pace.judged(before, 5, 2.0, 10.0)
        self.assertEqual(pace.not_before, 10.0)

    def test_a_slow_start(self) -> None:
        """A few files, then one more for each that has arrived; after that what the user allows."""
        cost = CarrierCost()
        pace = Pace(Limits(files_in_transit=500), cost)
        self.assertEqual(pace.files(), FIRST_FILES)
        cost.receipts = 10
        self.assertEqual(pace.files(), FIRST_FILES + 10)
        cost.receipts = KNOWN
        self.assertEqual(pace.files(), 500)
        self.assertEqual(Pace(Limits(files_in_transit=3), CarrierCost()).files(), 3)

    def test_little_costs(self) -> None:
        """Waits below the floor are none."""
        self.assertEqual(Cost(FLOOR / 2).wait(1000), 0.0)
        self.assertEqual(Cost(0.0, 1e-9).wait(1 << 20), 0.0)
        self.assertGreater(Cost(0.0, 1e-6).wait(1 << 20), 1.0)
