"""Each fault does what it says, as often as it says, and again for the same seed."""

from __future__ import annotations

from random import Random
from statistics import median
from typing import Any
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from hoft.testing.channel import Faults, FaultyChannel

NEAR, FAR = UUID(int=1), UUID(int=2)
DATA = bytes(range(1, 201))


def deliveries(seed: int = 1, **faults: Any) -> tuple[FaultyChannel, list[list[tuple[float, bytes]]]]:
    """What becomes of 400 files."""
    channel = FaultyChannel(Random(seed), Faults(**faults))
    return channel, [list(channel(NEAR, FAR, f"{number}", DATA)) for number in range(400)]


class ChannelTests(SynchronousTestCase):
    """One file after the other."""

    def assertRate(self, count: int, rate: float, of: int = 400) -> None:
        self.assertLess(abs(count - rate * of), 4 * (of * rate * (1 - rate)) ** 0.5 + 1)

    def test_none(self) -> None:
        """Every file arrives once, whole, after its delay."""
        channel, files = deliveries()
        self.assertTrue(all(len(file) == 1 and file[0][1] == DATA for file in files))
        self.assertTrue(0.045 < median(file[0][0] for file in files) < 0.055)
        self.assertEqual(channel.counts, {"files": 400})

    def test_lose(self) -> None:
        """It never arrives."""
        channel, files = deliveries(lose=0.3)
        self.assertRate(sum(not file for file in files), 0.3)
        self.assertEqual(channel.counts["lost"], sum(not file for file in files))

    def test_truncate(self) -> None:
        """It arrives cut, at any length below its own, and never whole."""
        channel, files = deliveries(truncate=0.5)
        cut = [file[0][1] for file in files if file[0][1] != DATA]
        self.assertRate(len(cut), 0.5)
        self.assertEqual(channel.counts["cut"], len(cut))
        self.assertTrue(all(DATA.startswith(data) for data in cut))
        self.assertTrue(80 < median(map(len, cut)) < 120)

    def test_duplicate(self) -> None:
        """It comes again, later."""
        channel, files = deliveries(duplicate=0.2)
        twice = [file for file in files if len(file) == 2]
        self.assertRate(len(twice), 0.2)
        self.assertEqual(channel.counts["duplicated"], len(twice))
        self.assertTrue(all(first < second and a == b == DATA for (first, a), (second, b) in twice))

    def test_flip(self) -> None:
        """One bit."""
        _, files = deliveries(flip=0.25)
        flipped = [file[0][1] for file in files if file[0][1] != DATA]
        self.assertRate(len(flipped), 0.25)
        for data in flipped:
            self.assertEqual(sum((a ^ b).bit_count() for a, b in zip(data, DATA, strict=True)), 1)

    def test_grow(self) -> None:
        """Half of it first, the whole later."""
        _, files = deliveries(grow=0.3)
        grown = [file for file in files if len(file) == 2]
        self.assertRate(len(grown), 0.3)
        for (first, part), (second, whole) in grown:
            self.assertTrue(first < second and whole == DATA and DATA.startswith(part) and part != DATA)

    def test_zeros(self) -> None:
        """At its full length from the start, filled later."""
        _, files = deliveries(zeros=0.3)
        filled = [file for file in files if len(file) == 2]
        self.assertRate(len(filled), 0.3)
        for (first, part), (second, whole) in filled:
            self.assertTrue(first < second and whole == DATA and len(part) == len(DATA))
            self.assertTrue(DATA.startswith(part.rstrip(b"\0")))

    def test_order(self) -> None:
        """With a wide spread files overtake each other; with none they do not."""
        for spread, overtaking in ((0.0, False), (1.0, True)):
            _, files = deliveries(spread=spread)
            delays = [file[0][0] for file in files]
            self.assertEqual(max(delays) > 2 * min(delays), overtaking)

    def test_one_seed(self) -> None:
        """The same seed has the same faults, another one has others."""
        everything = {"lose": 0.2, "truncate": 0.3, "duplicate": 0.2, "flip": 0.2, "grow": 0.2, "zeros": 0.2}
        self.assertEqual(deliveries(5, **everything)[1], deliveries(5, **everything)[1])
        self.assertNotEqual(deliveries(5, **everything)[1], deliveries(6, **everything)[1])

    def test_calm(self) -> None:
        """Faults may be replaced at any time."""
        channel, _ = deliveries(lose=1.0)
        channel.faults = Faults()
        self.assertEqual(len(list(channel(NEAR, FAR, "x", DATA))), 1)

    def test_empty_files(self) -> None:
        """There is nothing to cut in them, nor to flip."""
        channel = FaultyChannel(Random(1), Faults(truncate=1.0, flip=1.0))
        self.assertEqual([data for _, data in channel(NEAR, FAR, "x", b"")], [b""])
        channel.faults = Faults(grow=1.0)
        self.assertEqual([data for _, data in channel(NEAR, FAR, "x", b"")][-1], b"")
