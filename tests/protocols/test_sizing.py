"""How large packets become."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.pacing import Cost
from hoft.protocols.sizing import PROBE, SMALLEST, START, PacketSizes

MIB = 1 << 20


def live(
    part: Callable[[int], float], *, cost: Cost | None = None, packets: int = 2000, largest: int = 500_000_000
) -> tuple[PacketSizes, float]:
    """
    So many full packets over a carrier of which C{part(length)} arrives.

    @return: what was learned; the part of all bytes that arrived in the second half.
    """
    sizes = PacketSizes(largest)
    sent = arrived = 0.0
    for number in range(packets):
        length = sizes.next()
        came = part(length)
        sizes.sent(length)
        sizes.arrived(length, came, Cost() if cost is None else cost)
        if number > packets // 2:
            sent += length
            arrived += came * length
    return sizes, arrived / sent


class SizeTests(SynchronousTestCase):
    """What is best, from what arrived."""

    def test_begins(self) -> None:
        """With a mebibyte, or what is allowed."""
        self.assertEqual(PacketSizes().next(), START)
        self.assertEqual(PacketSizes(largest=300_000).next(), 300_000)
        self.assertEqual(PacketSizes(largest=100).next(), 100)
        self.assertEqual(PacketSizes().reason(), "the size to begin with")

    def test_nothing_to_gain(self) -> None:
        """Where all arrives and a file costs next to nothing, a mebibyte is as good as more."""
        sizes, _ = live(lambda length: 1.0)
        self.assertEqual(sizes.current, START)

    def test_a_carrier_that_passes_no_more_than(self) -> None:
        """Nine tenths of what is written arrive, though larger ones are tried now and then."""
        for most in (64 << 10, 300_000, MIB, 3 * MIB):
            sizes, part = live(lambda length, most=most: min(most / length, 1.0))  # type: ignore[misc]  # a default binds it
            self.assertLessEqual(sizes.current, most)
            self.assertGreater(part, 0.9)

    def test_a_carrier_that_drops_more_than(self) -> None:
        """The same where the large ones do not arrive at all."""
        sizes, part = live(lambda length: float(length <= 300_000))
        self.assertEqual(sizes.current, 256 << 10)
        self.assertGreater(part, 0.85)
        self.assertIn("256 KiB", sizes.reason())

    def test_files_that_cost(self) -> None:
        """Where each file takes long, they become large; up to what is allowed."""
        sizes, _ = live(lambda length: 1.0, cost=Cost(0.5, 1e-6))
        self.assertGreater(sizes.current, START)
        large, _ = live(lambda length: 1.0, cost=Cost(60.0, 1e-8))
        self.assertEqual(large.current, 500_000_000)
        capped, _ = live(lambda length: 1.0, cost=Cost(60.0, 1e-8), largest=10 * MIB)
        self.assertEqual(capped.current, 10 * MIB)

    def test_hazard(self) -> None:
        """Where each byte may be the last, what a file costs weighs against what is lost with a long one."""

        def settled(cost: Cost) -> int:
            chance = Random(1)
            sizes, _ = live(lambda n: min(chance.expovariate(1 / (6 * MIB)) / n, 1.0), cost=cost)
            return sizes.current

        cheap, dear = settled(Cost()), settled(Cost(0.5, 1e-7))
        self.assertLess(cheap, 2 * MIB)
        self.assertGreater(dear, 2 * cheap)

    def test_chance_alone(self) -> None:
        """Where length makes no difference it does not shrink to where all is overhead."""
        for seed in range(5):
            chance = Random(seed).random
            sizes, _ = live(lambda length, chance=chance: chance() if chance() < 0.5 else 1.0)  # type: ignore[misc]  # a default binds it
            self.assertGreaterEqual(sizes.current, 4 * SMALLEST)

    def test_changes_its_mind(self) -> None:
        """A carrier that gets better is found out."""
        sizes, _ = live(lambda length: min(100_000 / length, 1.0))
        for _ in range(2000):
            length = sizes.next()
            sizes.sent(length)
            sizes.arrived(length, 1.0, Cost(0.05, 1e-8))
        self.assertGreaterEqual(sizes.current, START)

    def test_probes(self) -> None:
        """One full packet in twelve is of another size; small ones do not count."""
        sizes = PacketSizes()
        tried = []
        for _ in range(4 * PROBE):
            tried.append(sizes.next())
            sizes.sent(1000)
            sizes.sent(tried[-1])
        self.assertEqual(tried.count(START), 4 * (PROBE - 1))
        self.assertEqual(set(tried), {START // 2, START, 2 * START})

    def test_lost_and_found(self) -> None:
        """A packet that counted as lost and arrives after all has passed."""
        sizes = PacketSizes()
        for _ in range(100):
            sizes.arrived(START, 0.0, Cost())
            sizes.arrived_after_all(START, 1.0)
        self.assertEqual(sizes.current, START)
