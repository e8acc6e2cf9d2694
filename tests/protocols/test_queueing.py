"""What goes into the next packet, and who waits for whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.layout import MAX_RECORD, packet_length, plan_frames
from hoft.protocols.queueing import (
    HEAD_BYTES,
    HEAD_ROOM,
    QUANTUM,
    SHARE,
    SPARSE,
    URGENT,
    Frames,
    OutgoingRecord,
    SendQueue,
)
from tests.effort import steps

PACKET = 1 << 20


class Bench:
    """A queue, and the packets that are filled from it."""

    def __init__(self) -> None:
        self.queue = SendQueue()
        self.last = 0

    def add(self, count: int = 1, size: int = 1000, urgency: int = 3, flow: int = 0) -> list[int]:
        numbers = [*range(self.last + 1, self.last + 1 + count)]
        self.last += count
        for number in numbers:
            self.queue.add(OutgoingRecord(number, number, size, urgency, flow))
        return numbers

    def take(self, most: int = PACKET, short: bool = False) -> list[OutgoingRecord]:
        frames = Frames(most)
        self.queue.fill(frames, most, short)
        return [record for frame in frames.frames for record in frame]


def numbers(records: Iterable[OutgoingRecord]) -> list[int]:
    return [record.number for record in records]


class FramesTests(SynchronousTestCase):
    """How much a packet holds."""

    def test_as_the_layout_has_it(self) -> None:
        """Records are put into frames as the receiver's arithmetic expects."""
        sizes = [100, 60_000, 5_000, 5_000, MAX_RECORD, 0, 40_000, 40_000, 1]
        frames = Frames(PACKET)
        for number, size in enumerate(sizes, 1):
            self.assertTrue(frames.add(OutgoingRecord(number, number, size, 3)))
        self.assertEqual([len(frame) for frame in frames.frames], plan_frames(sizes))
        self.assertEqual(frames.size, sum(sizes))

    def test_never_longer(self) -> None:
        """The file, its header and control too, stays within what was asked for; and comes near it."""
        for size in (0, 1, 500, 3000, 40_000, MAX_RECORD):
            frames = Frames(PACKET)
            number = 0
            while frames.add(OutgoingRecord(number, number, size, 3)):
                number += 1
            sizes = [[record.size for record in frame] for frame in frames.frames]
            length = packet_length(HEAD_ROOM - 256, sizes, 1)
            self.assertLessEqual(length, PACKET)
            self.assertGreater(length, PACKET - 2 * 65536)

    def test_one_always_fits(self) -> None:
        """Or it would never be sent."""
        frames = Frames(10)
        self.assertTrue(frames.add(OutgoingRecord(1, 1, MAX_RECORD, 3)))
        self.assertFalse(frames.add(OutgoingRecord(2, 2, 0, 3)))


class OrderTests(SynchronousTestCase):
    """The head of a file survives best."""

    def test_order_in_a_packet(self) -> None:
        """A little of what is urgent, what has to go again, then by urgency."""
        bench = Bench()
        bulk = bench.add(3, urgency=5)
        usual = bench.add(3)
        again = OutgoingRecord(100, 100, 1000, 6)
        bench.queue.add_again(again)
        urgent = bench.add(30, urgency=1)
        head = HEAD_BYTES // 1000
        taken = numbers(bench.take())
        self.assertEqual(taken[:head], urgent[:head])
        self.assertEqual(taken[head], 100)
        self.assertEqual(set(taken[head + 1 :]), {*urgent[head:], *usual, *bulk})
        self.assertEqual(len(bench.queue), 0)

    def test_again_by_urgency(self) -> None:
        """Then by number, whatever was cut first."""
        bench = Bench()
        for number, urgency in ((4, 3), (2, 3), (9, 0), (3, 7)):
            bench.queue.add_again(OutgoingRecord(number, number, 100, urgency))
        self.assertEqual(numbers(bench.take()), [9, 2, 4, 3])

    def test_settled_meanwhile(self) -> None:
        """What was taken out is not sent, wherever it stood."""
        bench = Bench()
        records = [OutgoingRecord(number, number, 100, 3, flow=number % 2) for number in range(1, 7)]
        for record in records[:4]:
            bench.queue.add(record)
        for record in records[4:]:
            bench.queue.add_again(record)
        for record in (records[0], records[3], records[4]):
            bench.queue.discard(record)
            bench.queue.discard(record)
        self.assertEqual(len(bench.queue), 3)
        self.assertEqual(sorted(numbers(bench.take())), [2, 3, 6])
        self.assertEqual(len(bench.queue), 0)

    def test_once(self) -> None:
        """A record that waits already does not wait twice."""
        bench = Bench()
        record = OutgoingRecord(1, 1, 100, 3)
        bench.queue.add(record)
        self.assertFalse(bench.queue.add_again(record))
        self.assertEqual(numbers(bench.take()), [1])
        self.assertTrue(bench.queue.add_again(record))
        self.assertEqual(numbers(bench.take()), [1])


class TurnTests(SynchronousTestCase):
    """Equals take turns."""

    def test_a_small_one_behind_a_large_body(self) -> None:
        """It goes with the next packet, though a body of gigabytes was there first."""
        bench = Bench()
        bench.add(1000, size=MAX_RECORD, flow=1)
        bench.take()
        [small] = bench.add(1, size=500, flow=2)
        self.assertIn(small, numbers(bench.take()))

    def test_equal_shares(self) -> None:
        """Of bytes, whatever the size of their records."""
        bench = Bench()
        sizes = {1: MAX_RECORD, 2: 30_000, 3: 999}
        for flow, size in sizes.items():
            bench.add(20 * PACKET // size, size=size, flow=flow)
        share: Counter[int] = Counter()
        for _ in range(12):
            for record in bench.take():
                share[record.flow] += record.size
        for flow in sizes:
            self.assertLess(abs(share[flow] / share.total() - 1 / 3), 0.02)

    def test_order_within(self) -> None:
        """What belongs together keeps its order."""
        bench = Bench()
        mine = {flow: [] for flow in range(5)}  # type: dict[int, list[int]]
        for _ in range(40):
            for flow in mine:
                mine[flow] += bench.add(size=9000, flow=flow)
        taken: list[OutgoingRecord] = []
        while len(bench.queue):
            taken += bench.take()
        for flow in mine:
            self.assertEqual([record.number for record in taken if record.flow == flow], mine[flow])

    def test_a_flow_of_which_nothing_is_left_is_passed_over(self) -> None:
        bench = Bench()
        gone = OutgoingRecord(100, 100, MAX_RECORD, 3, 2)
        bench.queue.add(gone)
        mine = bench.add(3, size=MAX_RECORD, flow=1)
        bench.queue.discard(gone)
        self.assertEqual(numbers(bench.take()), mine)
        self.assertEqual(len(bench.queue), 0)

    def test_a_flow_that_was_away(self) -> None:
        """It has no more to claim than others when it comes back."""
        bench = Bench()
        bench.add(1000, size=MAX_RECORD, flow=1)
        for _ in range(5):
            bench.add(1, size=10, flow=2)
            bench.take()
        bench.add(100, size=MAX_RECORD, flow=2)
        taken = Counter(record.flow for record in bench.take())
        self.assertLessEqual(abs(taken[1] - taken[2]), 2 * QUANTUM // MAX_RECORD)


class SparseTests(SynchronousTestCase):
    """Who has little to send, among those with much."""

    def setUp(self) -> None:
        self.bench = Bench()
        for flow in range(1, 11):
            self.bench.add(100, size=MAX_RECORD, flow=flow)

    def test_first(self) -> None:
        """It goes before them, in the order in which it came."""
        small = [*self.bench.add(3, flow=20), *self.bench.add(3, flow=21)]
        self.assertEqual(numbers(self.bench.take())[:6], small)

    def test_alone(self) -> None:
        """Where short packets cost nothing, in one of its own; they have the next."""
        small = self.bench.add(3, flow=20)
        self.assertTrue(self.bench.queue.overtaking)
        self.assertEqual(numbers(self.bench.take(short=True)), small)
        self.assertFalse(self.bench.queue.overtaking)
        self.assertGreater(len(self.bench.take(short=True)), 10)

    def test_that_does_not_end(self) -> None:
        """However many there are, every other packet is the others'."""
        sizes = []
        for flow in range(100, 120):
            self.bench.add(10, size=3000, flow=flow)
            sizes.append(max(record.size for record in self.bench.take(short=True)))
        self.assertEqual(sizes, [3000, MAX_RECORD] * 10)

    def test_together(self) -> None:
        """Where little waits in all, it goes in one packet."""
        bench = Bench()
        bench.add(3, size=MAX_RECORD, flow=1)
        small = bench.add(flow=2)
        self.assertEqual(numbers(bench.take(short=True)), [*small, 1, 2, 3])

    def test_urgent_among_them(self) -> None:
        """First what is urgent."""
        usual, urgent = self.bench.add(flow=20), self.bench.add(urgency=1, flow=21)
        self.assertEqual(numbers(self.bench.take(short=True)), urgent + usual)

    def test_more_and_more(self) -> None:
        """A flow of which more and more waits is one of the others, and keeps its order."""
        mine = self.bench.add(SPARSE // 1000, flow=20)
        self.assertTrue(self.bench.queue.overtaking)
        mine += self.bench.add(100, flow=20)
        self.assertFalse(self.bench.queue.overtaking)
        taken: list[OutgoingRecord] = []
        while len(self.bench.queue):
            taken += self.bench.take(short=True)
        self.assertEqual([record.number for record in taken if record.flow == 20], mine)

    def test_settled(self) -> None:
        """What was taken out overtakes nobody."""
        record = OutgoingRecord(5000, 5000, 100, 3, flow=20)
        self.bench.queue.add(record)
        self.bench.queue.discard(record)
        self.assertFalse(self.bench.queue.overtaking)


class StarvationTests(SynchronousTestCase):
    """However much is urgent."""

    def _shares(self, *urgencies: int, size: int = 20_000) -> Counter[int]:
        """Parts of bytes, where there is always more of each."""
        bench = Bench()
        for urgency in urgencies:
            bench.add(3000, size=size, urgency=urgency)
        share: Counter[int] = Counter()
        for _ in range(32):
            for record in bench.take():
                share[record.urgency] += record.size
        return share

    def test_urgency_counts(self) -> None:
        """What is more urgent gets nearly all."""
        share = self._shares(2, 6)
        self.assertGreater(share[2] / share.total(), 0.9)

    def test_nobody_starves(self) -> None:
        """Each lower urgency gets its sixteenth."""
        share = self._shares(0, 3, 7)
        for urgency in (3, 7):
            self.assertLess(abs(share[urgency] / share.total() - 1 / SHARE), 0.02)

    def test_in_packets_of_one_record(self) -> None:
        """Now and then a packet is its own."""
        bench = Bench()
        bench.add(200, size=MAX_RECORD, urgency=URGENT + 1)
        [low] = bench.add(1, size=MAX_RECORD, urgency=7)
        packets = 0
        while low not in numbers(bench.take(65536)):
            packets += 1
        self.assertLessEqual(packets, SHARE)


class CostTests(SynchronousTestCase):
    """What a long queue costs."""

    def test_the_number_of_flows(self) -> None:
        """A record among ten thousand flows takes about the steps that it takes among ten."""

        def work(flows: int) -> int:
            bench = Bench()
            for flow in range(flows):
                bench.add(1, flow=flow)

            def rounds() -> None:
                for at in range(100):
                    bench.add(5, flow=at % flows)
                    bench.take(9000)

            return steps(rounds)

        few, many = work(10), work(10_000)
        self.assertLess(many, 1.5 * few)
