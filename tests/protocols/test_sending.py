"""What goes into the next packet, and what must go again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.flight import REMEMBERED_PACKETS, SETTLING
from hoft.protocols.pacing import Cost, Limits
from hoft.protocols.path import IN_FLIGHT_BYTES, LEAST_ROOM, OVERTAKING, Path
from hoft.protocols.queueing import APART, HEAD_ROOM, Frames, OutgoingRecord
from hoft.protocols.sending import COMPANY, CROWD, GATHER, PROBE_FILES, Sender
from hoft.protocols.timing import RoundTrips, TimingSettings
from hoft.protocols.unacknowledged import INITIAL_LIMIT
from tests.effort import steps

PACKET = 1000
"""Payload bytes in a packet."""
IN_FLIGHT_PACKETS = Limits().files_in_transit


class Bench:
    """A sender at work, in packets of ten records of 100 bytes: in frames of two."""

    def __init__(self, *, first: float = 2.0, measured: float | None = 1.0) -> None:
        self.trips = RoundTrips(TimingSettings(first=first, ack_shortest=0.005))
        if measured is not None:
            for _ in range(100):
                self.trips.sample(measured)
        self.sender = Sender(Path(self.trips))
        self.sender.path.cost.receipts = 1000
        self.now = 100.0
        self.packets = 0

    def queue(self, *numbers: int, size: int = 100, urgency: int = 3) -> None:
        for number in numbers:
            self.sender.records.add(OutgoingRecord(1000 + number, number, size, urgency))

    def send(self, size: int = PACKET) -> list[int]:
        """Write one packet; the record numbers in it."""
        self.sender.lose_overdue(self.now)
        return self._write(self.sender.take(self.now, _room(size)), False)

    def probe(self) -> list[int]:
        return self._write(self.sender.probe(_room(PACKET), self.now), True)

    def _write(self, taken: Frames, probe: bool) -> list[int]:
        records = [record for frame in taken.frames for record in frame]
        if records or probe:
            self.packets += 1
            frames = [records[at : at + 2] for at in range(0, len(records), 2)]
            self.sender.sent(self.packets, frames, sum(r.size for r in records), self.now, probe)
            self.removed = self.sender.named(self.packets, f"file-{self.packets}")
        return [record.number for record in records]

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def ack(self, ack: int, *ranges: tuple[int, int]) -> list[int]:
        settled = self.sender.acknowledge(ack, ranges, self.now)
        self.files = list(settled.files)
        return [record.number for record in settled.records]

    def receipt(self, number: int, *missing: tuple[int, int], hold: float = 0.0) -> None:
        self.sender.receipt(number, missing, hold, self.now)


def _room(payload: int) -> int:
    """How long a packet of small records with so much payload is."""
    return HEAD_ROOM + payload * 120 // 100 + 32


class OrderTests(SynchronousTestCase):
    """Which records go first."""

    def test_in_the_order_queued(self) -> None:
        """As many as fit, in order."""
        bench = Bench()
        bench.queue(*range(1, 26))
        self.assertEqual(bench.send(), [*range(1, 11)])
        self.assertEqual(bench.send(), [*range(11, 21)])
        self.assertEqual(bench.send(), [*range(21, 26)])
        self.assertEqual(bench.send(), [])

    def test_urgent_first(self) -> None:
        """Urgency 0 before 7, whenever queued."""
        bench = Bench()
        bench.queue(1, urgency=7)
        bench.queue(2, urgency=3)
        bench.queue(3, urgency=0)
        self.assertEqual(bench.send(), [3, 2, 1])

    def test_again_before_new(self) -> None:
        """Of the same urgency, what was sent before goes first; urgent news goes before that."""
        bench = Bench()
        bench.queue(1, 2)
        bench.send()
        bench.queue(3, 4)
        bench.queue(5, urgency=1)
        bench.receipt(1, (1, 1))
        self.assertEqual(bench.send(), [5, 1, 2, 3, 4])

    def test_one_that_is_larger_than_a_packet(self) -> None:
        """It goes alone rather than never."""
        bench = Bench()
        bench.queue(1, size=5000)
        bench.queue(2)
        self.assertEqual(bench.send(), [1])
        self.assertEqual(bench.send(), [2])

    def test_beyond_the_limit(self) -> None:
        """Record numbers above the peer's limit wait for it; those below go on."""
        bench = Bench()
        bench.queue(INITIAL_LIMIT - 1, INITIAL_LIMIT, INITIAL_LIMIT + 1, INITIAL_LIMIT + 2)
        self.assertEqual(bench.send(), [INITIAL_LIMIT - 1, INITIAL_LIMIT])
        bench.sender.records.raise_limit(INITIAL_LIMIT + 1)
        self.assertEqual(bench.send(), [INITIAL_LIMIT + 1])
        bench.sender.records.raise_limit(5)  # an old packet
        bench.sender.records.raise_limit(INITIAL_LIMIT + 9)
        self.assertEqual(bench.send(), [INITIAL_LIMIT + 2])

    def test_bytes_in_flight(self) -> None:
        """Not more than a bound; an acknowledgement or a receipt makes room."""
        bench = Bench()
        size = IN_FLIGHT_BYTES // 4
        bench.queue(*range(1, 8), size=size)
        self.assertEqual([bench.send() for _ in range(5)], [[1], [2], [3], [4], []])
        bench.ack(1)
        self.assertEqual([bench.send(), bench.send()], [[5], []])
        bench.receipt(2)
        self.assertEqual([bench.send(), bench.send()], [[6], []])

    def test_no_room(self) -> None:
        """Less lies there, in shorter files; with what arrives that is forgotten."""
        bench = Bench()
        bench.sender.records.raise_limit(5000)
        bench.queue(*range(1, 200), size=60_000)
        self.assertGreater(len(bench.send(1 << 20)), 10)
        self.assertTrue(bench.sender.no_room(500_000))
        self.assertLess(bench.sender.path.most_bytes(), 900_000)
        bench.ack(100)
        taken = bench.sender.take(bench.now)
        self.assertLess(taken.size, 250_000)
        while bench.sender.no_room(0):
            pass
        self.assertEqual(bench.sender.path.most_bytes(), LEAST_ROOM)
        self.assertEqual(len(bench.send()), 1)
        for number in range(200, 2200):
            bench.ack(number - 1)
            bench.queue(number)
            bench.send()
            bench.receipt(bench.packets)
        self.assertEqual(bench.sender.path.most_bytes(), IN_FLIGHT_BYTES)

    def test_small_beyond_the_bytes_in_flight(self) -> None:
        """What is small among much does not wait for room, as long as that is not too much itself."""
        bench = Bench()
        size = IN_FLIGHT_BYTES // 4
        bench.queue(*range(1, 8), size=size)
        for number in range(1, 5):
            self.assertEqual(bench.send(), [number])
        small = 100
        sent = [0]
        while sent:
            small += 1
            bench.sender.records.add(OutgoingRecord(small, small, 10_000, 3, flow=small))
            sent = bench.send(20_000)
            self.assertIn(sent, ([small], []))
        self.assertLess(abs(bench.sender.bytes_in_transit() - IN_FLIGHT_BYTES - OVERTAKING), 20_000)

    def test_where_files_are_dear(self) -> None:
        """What is small has no file of its own, but goes first in those that are written."""
        bench = Bench()
        for dear in (False, True):
            bench.sender.path.cost.cost = Cost(per_file=0.5 if dear else 0.0)
            bench.queue(*range(1, 20), size=60_000)
            bench.sender.records.add(OutgoingRecord(100, 100, 100, 3, flow=5))
            sent = bench.send(300_000)
            self.assertEqual((sent[0], len(sent) > 1), (100, dear))
            bench = Bench()

    def test_packets_in_flight(self) -> None:
        """Nor more files than a folder bears."""
        bench = Bench()
        bench.queue(*range(1, IN_FLIGHT_PACKETS + 5))
        bench.sender.records.raise_limit(1 << 20)
        for number in range(1, IN_FLIGHT_PACKETS + 1):
            self.assertEqual(bench.send(100), [number])
            bench.wait(GATHER)
        self.assertEqual(bench.send(100), [])

    def test_few_wait_while_short_files_crowd(self) -> None:
        """Where several short ones are under way, the next is not sent at once for what little there is."""
        bench = Bench()
        for number in range(1, CROWD + 1):
            bench.queue(number)
            self.assertEqual(bench.send(), [number])
        bench.queue(CROWD + 1)
        self.assertEqual(bench.send(), [])
        self.assertEqual(bench.sender.next_sending(), bench.now + GATHER)
        bench.wait(GATHER)
        self.assertEqual(bench.send(), [CROWD + 1])
        bench.queue(CROWD + 2)
        bench.ack(2)
        self.assertEqual(bench.send(), [CROWD + 2], "less than a crowd is under way again")

    def test_many_or_long_do_not_wait(self) -> None:
        """Nobody waits for company who has enough of it, or whose file is long, or follows long ones."""
        for waiting, size, first in ((COMPANY, 100, 100), (5, APART // 4, 100), (1, 100, APART)):
            with self.subTest(waiting=waiting, size=size, first=first):
                bench = Bench()
                bench.sender.records.raise_limit(1 << 20)
                bench.queue(1, size=first)
                bench.send(2 * first)
                for number in range(2, CROWD + 1):
                    bench.queue(number)
                    bench.send()
                bench.queue(*range(10, 10 + waiting), size=size)
                self.assertNotEqual(bench.send(), [])


class AcknowledgementTests(SynchronousTestCase):
    """What settles a record, and what follows."""

    def test_settles_once(self) -> None:
        """Each record is reported once, however often and in whatever order it is acknowledged."""
        bench = Bench()
        bench.queue(*range(1, 6))
        bench.send()
        self.assertEqual(bench.ack(2, (4, 4)), [1, 2, 4])
        self.assertEqual(bench.ack(1), [])
        self.assertEqual(bench.ack(4), [3])
        self.assertEqual(len(bench.sender.records), 1)

    def test_files_of_no_more_use(self) -> None:
        """A file is named for removal once all in it is acknowledged, wherever it arrived."""
        bench = Bench()
        bench.queue(1, 2, 3)
        bench.send(200)
        bench.send(200)
        bench.ack(1)
        self.assertEqual(bench.files, [])
        bench.ack(3)
        self.assertEqual(bench.files, ["file-1", "file-2"])

    def test_acknowledged_before_it_was_named(self) -> None:
        """The peer may be quicker than our own writer hears of it: the name is handed back at once."""
        bench = Bench()
        bench.queue(1)
        bench.sender.sent(1, bench.sender.take(bench.now, PACKET).frames, 100, bench.now)
        bench.ack(1)
        self.assertEqual(bench.sender.named(1, "file-1"), ["file-1"])

    def test_of_numbers_never_sent(self) -> None:
        """What a peer claims to have of the future means nothing, and costs nothing."""
        bench = Bench()
        bench.queue(1)
        bench.send()
        steps(lambda: self.assertEqual(bench.ack((1 << 64) - 9, ((1 << 64) - 5, (1 << 64) - 1)), [1]), 1000)
        bench.queue(2)
        self.assertEqual(bench.send(), [2])
        self.assertEqual(bench.ack(2), [2])

    def test_a_long_history(self) -> None:
        """After a restart the first ack names a billion records that we do not have any more."""
        bench = Bench()
        bench.queue(10**9, 10**9 + 1)
        bench.sender.records.raise_limit(10**10)
        bench.send()
        steps(lambda: self.assertEqual(bench.ack(10**9), [10**9]), 1000)

    def test_a_new_log(self) -> None:
        """Names of the old log's files are given up, also one that comes later; counting goes on."""
        bench = Bench()
        bench.queue(1, 2)
        bench.send(100)
        bench.sender.sent(2, bench.sender.take(bench.now, PACKET).frames, 100, bench.now)
        bench.receipt(1, (1, 1))
        self.assertEqual(bench.sender.give_up(), ["file-1"])
        self.assertEqual(bench.sender.named(2, "file-2"), ["file-2"])
        new = Sender(bench.sender.path)
        self.assertEqual((new.path.cut_packets, new.path.retransmitted["cut"]), (1, 1))
        self.assertEqual(len(new.records), 0)


class ReceiptTests(SynchronousTestCase):
    """What the peer says of packets."""

    def test_cut(self) -> None:
        """The records of the missing frames go again, at once, and no others."""
        bench = Bench()
        bench.queue(*range(1, 9))
        bench.send()
        bench.receipt(1, (2, 2), (4, 4))
        self.assertEqual(bench.send(), [3, 4, 7, 8])
        self.assertEqual(bench.sender.path.retransmitted, {"lost": 0, "cut": 4, "probe": 0, "early": 0})
        self.assertEqual(bench.sender.path.cut_packets, 1)

    def test_once_for_each_packet(self) -> None:
        """Receipts are repeated; the first alone counts."""
        bench = Bench()
        bench.queue(1, 2)
        bench.send()
        bench.receipt(1, (1, 1))
        bench.send()
        bench.receipt(1, (1, 1))
        self.assertEqual(bench.send(), [])

    def test_cut_again(self) -> None:
        """What went again may be cut again."""
        bench = Bench()
        bench.queue(1, 2)
        for number in range(1, 30):
            self.assertEqual(bench.send(), [1, 2])
            bench.receipt(number, (1, 1))

    def test_already_on_its_way_again(self) -> None:
        """A receipt that comes after its records went in a later packet sends nothing again."""
        bench = Bench()
        bench.queue(1, 2)
        bench.send()
        bench.probe()
        bench.receipt(1, (1, 1))
        self.assertEqual(bench.send(), [])

    def test_settles_nothing(self) -> None:
        """Frames that arrived are still ours until acknowledged."""
        bench = Bench()
        bench.queue(1, 2)
        bench.send()
        bench.receipt(1)
        self.assertEqual(len(bench.sender.records), 2)
        self.assertEqual(bench.ack(2), [1, 2])
        self.assertEqual(bench.files, ["file-1"])

    def test_more_frames_than_there_were(self) -> None:
        """A receipt may lie."""
        bench = Bench()
        bench.queue(1, 2)
        bench.send()
        bench.receipt(1, (1, 1 << 60))
        bench.receipt(77, (1, 5))
        self.assertEqual(bench.send(), [1, 2])

    def test_samples(self) -> None:
        """They measure the way there and back, without the peer's holding time."""
        bench = Bench(measured=None)
        bench.queue(1)
        bench.send()
        bench.wait(3.0)
        bench.receipt(1, hold=2.0)
        self.assertEqual(bench.trips.smoothed, 1.0)

    def test_no_samples_of_cut_packets(self) -> None:
        """The reader waited for more before it knew."""
        bench = Bench(measured=None)
        bench.queue(1)
        bench.send()
        bench.wait(3.0)
        bench.receipt(1, (1, 1))
        self.assertIsNone(bench.trips.smoothed)

    def test_samples_across_silence(self) -> None:
        """
        After a long silence they measure an outage, not the carrier.  Or the carrier has become
        slow: so the first of them counts, for twice the timeout at most, and the others do not.
        """
        bench = Bench(measured=None)
        bench.queue(1, 2, 3)
        for _ in range(3):
            bench.send(100)
        before = bench.trips.timeout()
        for _ in range(3):
            bench.wait(6000.0)
            bench.probe()
        bench.receipt(1)
        self.assertEqual(bench.trips.smoothed, 2 * before)
        bench.receipt(2)
        bench.receipt(3)
        self.assertEqual(bench.trips.smoothed, 2 * before)

    def test_a_carrier_that_becomes_slow(self) -> None:
        """Ten times the round trip is learned within a few of them, though each looks like a silence."""
        bench = Bench(measured=0.1)
        bench.queue(*range(1, 8))
        for number in range(1, 8):
            sent = bench.now
            bench.send(100)
            packet = bench.packets
            while (due := bench.sender.next_probe() or 0.0) < sent + 1.0:
                bench.now = due
                bench.probe()
            bench.now = sent + 1.0
            bench.receipt(packet)
            bench.ack(number)
        self.assertGreater(bench.trips.timeout(), 1.0)

    def test_part_of_a_packet(self) -> None:
        """
        A record that was in no other packet is acknowledged: the packet has arrived, and if
        it was cut its receipt will say so, once it has settled.  Nothing is lost before.
        """
        bench = Bench()
        bench.queue(*range(1, 5))
        bench.send(200)
        bench.wait(0.1)
        bench.send(200)
        bench.receipt(2)
        bench.ack(1, (3, 4))
        bench.wait(3 * bench.trips.timeout())
        self.assertEqual(bench.send(), [])
        bench.receipt(1, (1, 1))
        self.assertEqual(bench.send(), [2])

    def test_packets_without_records(self) -> None:
        """Their receipts measure the way where there is nothing else, and prove nothing of records."""
        bench = Bench(measured=None)
        bench.sender.sent(1, [], 300, bench.now)
        bench.wait(0.5)
        bench.receipt(1)
        self.assertEqual(bench.trips.smoothed, 0.5)
        self.assertIsNone(bench.sender.next_loss())


class LossTests(SynchronousTestCase):
    """When a packet counts as lost."""

    def setUp(self) -> None:
        self.bench = Bench()
        self.timeout = self.bench.trips.timeout()
        self.bench.queue(1, 2)
        self.bench.send(100)

    def test_overtaken_and_overdue(self) -> None:
        """Older than the timeout, while one sent after it has arrived: its records go again."""
        self.bench.wait(0.1)
        self.bench.send(100)
        self.bench.receipt(2)
        due = 100.0 + self.bench.trips.timeout(100)
        self.assertEqual(self.bench.sender.next_loss(), due)
        self.bench.now = due - 0.01
        self.assertEqual(self.bench.send(), [])
        self.bench.now = due
        self.assertEqual(self.bench.send(), [1])
        self.assertEqual(self.bench.sender.path.retransmitted["lost"], 1)
        self.assertEqual(self.bench.sender.path.lost_packets, 1)

    def test_overtaken_by_an_acknowledgement(self) -> None:
        """An ack of a record that went in one packet alone proves that packet's arrival."""
        self.bench.wait(0.1)
        self.bench.send(100)
        self.bench.ack(0, (2, 2))
        self.bench.wait(self.timeout)
        self.assertEqual(self.bench.send(), [1])

    def test_overtaken_only(self) -> None:
        """Files overtake each other: that alone means nothing."""
        self.bench.wait(0.1)
        self.bench.send(100)
        self.bench.receipt(2)
        self.assertEqual(self.bench.send(), [])

    def test_overdue_only(self) -> None:
        """In total silence nothing is lost, however long it takes."""
        self.bench.wait(1e6)
        self.bench.send(100)
        self.assertIsNone(self.bench.sender.next_loss())
        self.assertEqual(self.bench.sender.path.retransmitted["lost"], 0)

    def test_no_verdict_before_the_first_sample(self) -> None:
        """Without a measure nothing counts as lost."""
        bench = Bench(measured=None)
        bench.queue(1, 2)
        bench.send(100)
        bench.wait(0.1)
        bench.send(100)
        bench.ack(0, (2, 2))
        bench.wait(1e4)
        self.assertEqual(bench.send(), [])
        self.assertIsNone(bench.sender.next_loss())

    def test_arrived_but_not_acknowledged(self) -> None:
        """
        A packet whose receipt has come waits for the peer's disk: it is not lost,
        though later ones arrive.  But if no ack comes for very long, its records
        go again after all.
        """
        self.bench.receipt(1)
        self.bench.wait(0.1)
        self.bench.send(100)
        self.bench.receipt(2)
        self.bench.ack(0, (2, 2))
        self.bench.wait(3 * self.timeout)
        self.assertEqual(self.bench.send(), [])
        due = 100.0 + SETTLING + 4 * self.bench.trips.timeout()
        self.assertEqual(self.bench.sender.next_loss(), due)
        self.bench.now = due
        self.assertEqual(self.bench.send(), [1])

    def test_arrived_before_anything_was_measured(self) -> None:
        """Also then what is not acknowledged goes again in the end."""
        bench = Bench(measured=None)
        bench.queue(1, 2)
        bench.send()
        bench.receipt(1, (1, 1))
        bench.send()
        bench.receipt(2, (1, 1))
        bench.ack(1)
        self.assertEqual(bench.send(), [2])
        bench.ack(1)
        bench.queue(3, 4)
        bench.send()
        bench.ack(1, (3, 3))
        self.assertIsNone(bench.trips.smoothed)
        bench.now = bench.sender.next_loss() or 0.0
        self.assertEqual(bench.send(), [4])

    def test_wrong_verdict(self) -> None:
        """A packet that counted as lost and arrives after all makes the next verdicts slower."""
        self.test_overtaken_and_overdue()
        before = self.bench.trips.timeout()
        self.bench.receipt(1)
        self.assertEqual(self.bench.sender.path.spurious_packets, 1)
        self.assertGreater(self.bench.trips.timeout(), before)

    def test_while_the_carrier_is_down(self) -> None:
        """No time passes for what is under way, and the wait is no sample."""
        self.bench.wait(0.1)
        self.bench.send(100)
        before = self.bench.trips.smoothed
        self.bench.sender.suspend(self.bench.now)
        self.bench.wait(1000.0)
        self.bench.sender.resume(self.bench.now)
        self.bench.receipt(2)
        self.assertEqual(self.bench.trips.smoothed, before)
        self.assertEqual(self.bench.send(), [])
        self.assertLess(self.bench.sender.silence(self.bench.now), 0.01)
        self.bench.wait(self.timeout)
        self.assertEqual(self.bench.send(), [1])

    def test_not_written(self) -> None:
        """A packet that never reached the folder: its records go in the next."""
        self.bench.sender.not_written(1)
        self.assertEqual(self.bench.send(100), [1])
        self.assertEqual(self.bench.send(100), [2])
        self.bench.ack(1)
        self.assertEqual(self.bench.files, ["file-2"])


class ProbeTests(SynchronousTestCase):
    """What is done in silence."""

    def test_one_probe_with_the_oldest(self) -> None:
        """After the timeout, and then ever less often."""
        bench = Bench()
        bench.queue(*range(1, 40))
        for _ in range(4):
            bench.send()
        waits = []
        for _ in range(20):
            due = bench.sender.next_probe()
            assert due is not None
            waits.append(due - bench.now)
            bench.now = due
            self.assertEqual(bench.probe(), [*range(1, 11)])
        self.assertAlmostEqual(waits[0], bench.trips.timeout())
        self.assertEqual(waits, sorted(waits))
        self.assertEqual(waits[-1], bench.trips.probe_after(19))
        self.assertEqual(bench.sender.path.retransmitted, {"lost": 0, "cut": 0, "probe": 200, "early": 0})

    def test_an_answer_ends_it(self) -> None:
        """The wait begins anew, at the timeout."""
        bench = Bench()
        bench.queue(1, 2, 3)
        bench.send(200)
        for _ in range(10):
            bench.wait(100.0)
            bench.probe()
        bench.ack(1)
        self.assertEqual(bench.sender.next_probe(), bench.now + bench.trips.timeout())

    def test_never_idle(self) -> None:
        """While anything is unacknowledged there is a time to probe; after that there is none."""
        bench = Bench()
        self.assertIsNone(bench.sender.next_probe())
        bench.queue(1, 2)
        bench.send()
        bench.receipt(1, (1, 1))
        bench.send()
        bench.receipt(2)
        self.assertIsNotNone(bench.sender.next_probe())
        bench.ack(2)
        self.assertIsNone(bench.sender.next_probe())

    def test_held_by_the_limit(self) -> None:
        """Nothing is under way, but something waits for the peer: ask it, with an empty probe."""
        bench = Bench()
        bench.queue(INITIAL_LIMIT + 1)
        self.assertEqual(bench.send(), [])
        self.assertIsNotNone(bench.sender.next_probe())
        self.assertEqual(bench.probe(), [])
        self.assertGreater(bench.sender.next_probe() or 0, bench.now)

    def test_what_has_arrived_is_not_probed(self) -> None:
        """If all that is under way has a receipt, the probe but asks."""
        bench = Bench()
        bench.queue(1)
        bench.send()
        bench.receipt(1)
        bench.wait(5.0)
        self.assertEqual(bench.probe(), [])

    def test_the_first_answer_finds_the_rest(self) -> None:
        """After an outage that took everything, the probe's arrival makes the older ones overtaken."""
        bench = Bench()
        bench.queue(*range(1, 31))
        for _ in range(3):
            bench.send()
        bench.wait(50.0)
        bench.probe()
        bench.wait(1.0)
        bench.receipt(4)
        self.assertEqual([bench.send(), bench.send()], [[*range(11, 21)], [*range(21, 31)]])

    def test_files_of_probes(self) -> None:
        """Unanswered probes do not pile up in the folder: the newest few remain."""
        bench = Bench()
        bench.queue(1)
        bench.send()
        removed = []
        for _ in range(20):
            bench.wait(1000.0)
            bench.probe()
            removed += bench.removed
        self.assertEqual(removed, [f"file-{number}" for number in range(2, 22 - PROBE_FILES)])
        bench.ack(1)
        self.assertEqual(
            bench.files, ["file-1", *(f"file-{number}" for number in range(22 - PROBE_FILES, 22))]
        )

    def test_silence(self) -> None:
        """How long the peer has owed an answer; probes do not shorten it."""
        bench = Bench()
        self.assertEqual(bench.sender.silence(bench.now), 0.0)
        bench.queue(1)
        bench.send()
        bench.wait(30.0)
        bench.probe()
        bench.wait(30.0)
        self.assertEqual(bench.sender.silence(bench.now), 60.0)
        bench.ack(1)
        self.assertEqual(bench.sender.silence(bench.now), 0.0)


class CostTests(SynchronousTestCase):
    """What a long life and a long queue cost."""

    def _rounds(self, queued: int) -> int:
        """Steps of ten rounds of 10 records, with so many waiting all the time."""
        bench = Bench()
        bench.queue(*range(1, queued + 1))
        bench.sender.records.raise_limit(1 << 40)
        for _ in range(59):
            bench.send()

        def work() -> None:
            for packet in range(60, 70):
                last = queued + 10 * (packet - 60)
                bench.queue(*range(last + 1, last + 11))
                self.assertEqual(len(bench.send()), 10)
                bench.sender.next_sending()
                bench.sender.next_loss()
                bench.sender.next_probe()
                bench.wait(0.001)
                bench.receipt(packet - 50)
                bench.ack(10 * (packet - 50))

        return steps(work)

    def test_the_length_of_the_queue(self) -> None:
        """A packet takes as many steps where ten thousand records wait as where a few hundred do."""
        few, many = self._rounds(700), self._rounds(10_000)
        self.assertLess(many, 1.5 * few)

    def _raised(self, blocked: int) -> int:
        """Steps until the limit was raised by 20, one at a time, with so many beyond it."""
        bench = Bench()
        bench.queue(*range(1, INITIAL_LIMIT + blocked + 1))
        bench.sender.records.raise_limit(INITIAL_LIMIT)
        bench.send(1 << 20)

        def work() -> None:
            for limit in range(INITIAL_LIMIT + 1, INITIAL_LIMIT + 21):
                bench.sender.records.raise_limit(limit)
                self.assertEqual(bench.send(100), [limit])
                bench.wait(GATHER)

        return steps(work)

    def test_blocked_by_the_limit(self) -> None:
        """Each that waits for the limit is moved once, not at each ack."""
        few, many = self._raised(30), self._raised(20_000)
        self.assertLess(many, 1.5 * few)

    def test_a_long_life(self) -> None:
        """Nothing grows: after a hundred thousand records, some cut, some lost, all is as after a few."""
        bench = Bench()
        bench.sender.records.raise_limit(1 << 40)
        number = 0
        for packet in range(1, 10_001):
            bench.queue(*range(number + 1, number + 11))
            number += 10
            bench.send(1 << 20)
            bench.wait(0.5)
            if packet % 7:
                bench.receipt(packet, *([(1, 1)] if packet % 5 == 0 else []))
            if packet % 50 == 0:
                bench.sender.lose_overdue(bench.now)
                bench.ack(number)
        bench.ack(number)
        sender = bench.sender
        held = {
            name: len(value)
            for part in (sender, sender.records, sender._flight)
            for name, value in vars(part).items()
            if hasattr(value, "__len__")
        }
        remembered = held.pop("sendings")
        self.assertLessEqual(remembered, REMEMBERED_PACKETS)
        self.assertLess(sum(held.values()), 200, str(held))
