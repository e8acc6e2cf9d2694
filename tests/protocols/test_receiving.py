"""What is new, and what the peer is told, when and how often."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.control import MAX_RANGES, MAX_RECEIPTS, Control
from hoft.protocols.ranges import RangeSet
from hoft.protocols.receiving import (
    ACK_AT_ONCE_BYTES,
    ACK_AT_ONCE_PACKETS,
    RECEIPT_REPEATS,
    REMEMBERED_PACKETS,
    WINDOW,
    Receiver,
)
from hoft.protocols.timing import RoundTrips, TimingSettings
from tests.effort import steps

BOOT = 0xB1


class Bench:
    """A receiver, and a journal that does what it is told at once."""

    def __init__(self, *received: tuple[int, int], round_trip: float = 2.0) -> None:
        trips = RoundTrips(TimingSettings(ack_shortest=0.005))
        trips.sample(round_trip)
        self.delay = trips.ack_delay()
        self.receiver = Receiver(trips, RangeSet(received))
        self.now = 128.0

    def arrive(self, number: int, *records: int, missing: Sequence[int] = (), size: int = 100) -> set[int]:
        """A packet is read: its records are committed; which were new."""
        new = self.receiver.accept(records)
        if new:
            self.receiver.committed(sorted(new), self.now)
        self.receiver.read(BOOT, number, 3, missing, size, self.now)
        return new

    def sync(self) -> None:
        self.receiver.durable(self.receiver.to_sync(), self.now)

    def answer(self) -> Control:
        """What a packet that is written now says."""
        ack, ranges, receipts = self.receiver.state(self.now)
        self.receiver.answered()
        return Control(ack=ack, sack=ranges, receipts=receipts)

    def due(self) -> float | None:
        """Seconds until an answer is due."""
        at = self.receiver.next_answer()
        return None if at is None else max(at - self.now, 0.0)


class StageTests(SynchronousTestCase):
    """Pending, committed, durable."""

    def test_new_once(self) -> None:
        """A number is new once, whichever stage it has reached."""
        bench = Bench()
        self.assertEqual(bench.receiver.accept([1, 3, 3]), {1, 3})
        self.assertEqual(bench.receiver.accept([1, 2, 3]), {2})
        bench.receiver.committed([1, 2, 3], bench.now)
        self.assertEqual(bench.receiver.accept([2]), set())
        bench.sync()
        self.assertEqual(bench.receiver.accept([1, 2, 3]), set())
        self.assertEqual(bench.receiver.duplicates, 7)

    def test_acknowledged_when_durable(self) -> None:
        """Neither what the journal was given, nor what it has committed, but what survives a power cut."""
        bench = Bench()
        bench.receiver.accept([1])
        self.assertEqual(bench.answer().ack, 0)
        bench.receiver.committed([1], bench.now)
        self.assertEqual(bench.answer().ack, 0)
        bench.sync()
        self.assertEqual(bench.answer().ack, 1)

    def test_committed_during_the_sync(self) -> None:
        """What was committed after the sync began is not part of it."""
        bench = Bench()
        bench.arrive(1, 1)
        count = bench.receiver.to_sync()
        bench.arrive(2, 2)
        bench.receiver.durable(count, bench.now)
        self.assertEqual(bench.answer().ack, 1)
        self.assertEqual(bench.due(), bench.delay / 2)
        bench.sync()
        self.assertEqual(bench.answer().ack, 2)

    def test_refused(self) -> None:
        """What the journal had no room for is as if it had not come, and may come again."""
        bench = Bench()
        bench.receiver.accept([1, 2])
        bench.receiver.refused([2])
        self.assertEqual(bench.receiver.accept([1, 2]), {2})

    def test_from_the_journal(self) -> None:
        """What an earlier process received is acknowledged at once, and is a duplicate."""
        bench = Bench((1, 5), (8, 9))
        control = bench.answer()
        self.assertEqual((control.ack, control.sack), (5, ((8, 9),)))
        self.assertEqual(bench.receiver.accept([5, 6, 8]), {6})

    def test_gaps(self) -> None:
        """The lowest ranges above the first gap, as many as a control holds."""
        bench = Bench()
        numbers = range(1, 2 * MAX_RANGES + 21, 2)
        bench.receiver.accept(numbers)
        bench.receiver.committed(numbers, bench.now)
        bench.sync()
        control = bench.answer()
        self.assertEqual(control.ack, 1)
        self.assertEqual(control.sack, tuple((number, number) for number in numbers[1 : MAX_RANGES + 1]))

    def test_beyond_the_limit(self) -> None:
        """Numbers too far ahead are dropped, and counted; the limit moves with what is durable."""
        bench = Bench()
        self.assertEqual(bench.receiver.limit, WINDOW)
        self.assertEqual(bench.receiver.accept([WINDOW, WINDOW + 1, 1 << 63]), {WINDOW})
        self.assertEqual(bench.receiver.over_limit, 2)
        bench.arrive(1, 1, 2)
        self.assertEqual(bench.receiver.limit, WINDOW)
        bench.sync()
        self.assertEqual(bench.receiver.limit, WINDOW + 2)

    def test_a_new_log(self) -> None:
        """It knows no numbers, and goes on counting."""
        bench = Bench()
        bench.arrive(1, 1)
        bench.arrive(2, 1)
        new = bench.receiver.successor()
        self.assertEqual(new.accept([1]), {1})
        self.assertEqual(new.duplicates, 1)


class AnswerTests(SynchronousTestCase):
    """When the peer is answered."""

    def test_nothing_is_owed(self) -> None:
        """At first, and once it was answered."""
        bench = Bench()
        self.assertIsNone(bench.due())
        bench.arrive(1, 1)
        bench.sync()
        bench.answer()
        self.assertIsNone(bench.due())

    def test_within_the_delay(self) -> None:
        """From the first packet on, however many follow."""
        bench = Bench()
        for number in range(1, 10):
            bench.arrive(number, number)
            bench.now += bench.delay / 40
        self.assertAlmostEqual(bench.due() or 0, bench.delay * 11 / 40)
        bench.sync()
        self.assertAlmostEqual(bench.due() or 0, bench.delay * 31 / 40)

    def test_many_packets(self) -> None:
        """After 64 of them: at once."""
        bench = Bench()
        for number in range(1, ACK_AT_ONCE_PACKETS):
            bench.arrive(number, number)
        self.assertEqual(bench.due(), bench.delay / 2)
        bench.arrive(ACK_AT_ONCE_PACKETS, ACK_AT_ONCE_PACKETS)
        self.assertEqual(bench.due(), 0.0)

    def test_many_bytes(self) -> None:
        """After 8 MiB: at once."""
        bench = Bench()
        bench.arrive(1, 1, size=ACK_AT_ONCE_BYTES - 1)
        self.assertEqual(bench.due(), bench.delay / 2)
        bench.arrive(2, 2, size=1)
        self.assertEqual(bench.due(), 0.0)

    def test_counted_anew(self) -> None:
        """An answer on the back of other records counts: the next 64 packets are waited for again."""
        bench = Bench()
        for number in range(1, ACK_AT_ONCE_PACKETS):
            bench.arrive(number, number)
        bench.answer()
        bench.arrive(ACK_AT_ONCE_PACKETS, ACK_AT_ONCE_PACKETS)
        self.assertEqual(bench.due(), bench.delay / 2)

    def test_duplicates(self) -> None:
        """They are answered, since the ack may be lost; but no faster for being many."""
        bench = Bench()
        bench.arrive(1, 1)
        bench.sync()
        bench.answer()
        answers = 0
        end = bench.now + 10 * bench.delay
        while bench.now < end:
            bench.receiver.accept([1])
            bench.receiver.owe(bench.now)
            if bench.due() == 0.0:
                answers += 1
                bench.answer()
            bench.now += bench.delay / 100
        self.assertGreater(answers, 7)
        self.assertLessEqual(answers, 10)

    def test_waits_for_the_disk(self) -> None:
        """An answer waits until what is committed is durable."""
        bench = Bench()
        bench.arrive(1, 1)
        self.assertFalse(bench.receiver.wants_sync(bench.now))
        bench.now += bench.delay / 2
        self.assertTrue(bench.receiver.wants_sync(bench.now))
        bench.now += bench.delay
        bench.sync()
        self.assertFalse(bench.receiver.wants_sync(bench.now))
        self.assertLess(bench.due() or 0, 0.0001)

    def test_goes_along(self) -> None:
        """It is durable before it is due, so that it goes along; what came since is owed."""
        bench = Bench()
        bench.arrive(1, 1)
        bench.now += bench.delay / 2
        bench.sync()
        self.assertAlmostEqual(bench.due() or 0, bench.delay / 2)
        bench.now += bench.delay / 4
        self.assertEqual(bench.answer().ack, 1)
        self.assertIsNone(bench.due())
        bench.arrive(2, 2)
        bench.now += bench.delay / 2
        bench.sync()
        bench.arrive(3, 3)
        self.assertEqual(bench.answer().ack, 2)
        self.assertAlmostEqual(bench.due() or 0, bench.delay / 2)

    def test_still_owed(self) -> None:
        """A packet that happens to go before the sync does not take what is not durable off the list."""
        bench = Bench()
        bench.arrive(1, 1)
        bench.answer()
        self.assertEqual(bench.due(), bench.delay / 2)

    def test_asked(self) -> None:
        """A probe is answered although there is nothing new."""
        bench = Bench()
        bench.receiver.owe(bench.now)
        self.assertEqual(bench.due(), bench.delay)


class ReceiptTests(SynchronousTestCase):
    """What is said of packets."""

    def test_three_times(self) -> None:
        """Each packet's in three of our packets at most, with how long it was held."""
        bench = Bench()
        bench.arrive(7, 1, missing=[2, 3])
        for repeat in range(RECEIPT_REPEATS):
            [receipt] = bench.answer().receipts
            self.assertEqual((receipt.boot, receipt.number, receipt.frames), (BOOT, 7, 3))
            self.assertEqual(receipt.missing, ((2, 3),))
            self.assertEqual(receipt.hold, 500 * repeat)
            bench.now += 0.5
        self.assertEqual(bench.answer().receipts, ())

    def test_the_newest_first(self) -> None:
        """A burst does not keep fresh ones waiting; the others follow as there is room."""
        bench = Bench()
        count = 2 * MAX_RECEIPTS
        for number in range(1, count + 1):
            bench.arrive(number, number)
        said = [
            [receipt.number for receipt in bench.answer().receipts] for _ in range(2 * RECEIPT_REPEATS + 1)
        ]
        self.assertEqual(said[0], [*range(count, count - MAX_RECEIPTS, -1)])
        self.assertEqual(said[RECEIPT_REPEATS], [*range(MAX_RECEIPTS, 0, -1)])
        self.assertEqual(said[-1], [])

    def test_read_twice(self) -> None:
        """Of a file that came twice the later reading is reported, once."""
        bench = Bench()
        bench.arrive(1, 1, missing=[3])
        bench.arrive(1, 1)
        [receipt] = bench.answer().receipts
        self.assertEqual(receipt.missing, ())

    def test_another_boot(self) -> None:
        """Packets of a boot that is gone need no receipts."""
        bench = Bench()
        bench.arrive(1, 1)
        bench.receiver.read(0xB2, 1, 3, [], 100, bench.now)
        [receipt] = bench.answer().receipts
        self.assertEqual(receipt.boot, 0xB2)

    def test_bounded(self) -> None:
        """Packets that nobody hears of take no room, however many, and cost an answer nothing."""

        def read(packets: int) -> Bench:
            bench = Bench()
            for number in range(packets):
                bench.receiver.read(BOOT, number, 100, [*range(1, 100, 2)], 100, bench.now)
            return bench

        few, many = read(REMEMBERED_PACKETS), read(10 * REMEMBERED_PACKETS)
        self.assertLess(steps(many.answer), 1.01 * steps(few.answer))
        self.assertLess(len(many.receiver._read), REMEMBERED_PACKETS + 1)
