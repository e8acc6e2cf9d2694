"""Bulk makes way for what overtakes it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.layout import MAX_RECORD
from hoft.protocols.path import Path
from hoft.protocols.queueing import OutgoingRecord
from hoft.protocols.sending import Sender
from hoft.protocols.sizing import PacketSizes
from hoft.protocols.timing import RoundTrips, TimingSettings
from hoft.protocols.yielding import FILE, RATE, RECENT

BULK, SMALL = 1, 2
"""Flows."""

LARGE = 4 << 20
"""Bytes of a file where nothing has to make way."""

TOOK = 0.002
"""Seconds for writing a file."""


class YieldingTests(SynchronousTestCase):
    """A thousand large records, and now and then a small one."""

    def setUp(self) -> None:
        trips = RoundTrips(TimingSettings())
        trips.sample(0.01)
        self.sender = Sender(Path(trips, PacketSizes(current=LARGE)))
        self.sender.path.cost.receipts = 1000
        self.sender.records.raise_limit(10**6)
        self.now = 100.0
        self.numbers = 0
        self.packets = 0
        for _ in range(1000):
            self.queue(MAX_RECORD, BULK)

    def queue(self, size: int, flow: int) -> None:
        self.numbers += 1
        self.sender.records.add(OutgoingRecord(self.numbers, self.numbers, size, 3, flow))

    def small(self) -> None:
        self.queue(500, SMALL)

    def write(self) -> int:
        """What may go out now; how many bytes."""
        frames = self.sender.take(self.now)
        if frames.frames:
            self.packets += 1
            self.sender.sent(self.packets, frames.frames, frames.size, self.now)
            self.now += TOOK
        return frames.size

    def test_alone(self) -> None:
        """Bulk by itself goes out without a pause, in files as long as is best."""
        for _ in range(3):
            self.assertGreater(self.write(), LARGE - 2 * MAX_RECORD)

    def test_overtaken(self) -> None:
        """Then it goes in short files, with pauses in which what is small goes on."""
        self.small()
        self.assertEqual(self.write(), 500)
        self.assertLessEqual(self.write(), FILE)
        self.assertEqual(self.write(), 0)
        self.small()
        self.assertEqual(self.write(), 500)
        self.now += FILE / RATE
        self.assertGreater(self.write(), 500)

    def test_when_it_goes_on(self) -> None:
        """The end of the pause is known beforehand; where something small waits, that is now."""
        self.small()
        self.write()
        begun, size = self.now, self.write()
        resumes = self.sender.next_sending()
        assert resumes is not None
        self.assertAlmostEqual(resumes, begun + size / RATE)
        self.small()
        sends = self.sender.next_sending()
        assert sends is not None
        self.assertLessEqual(sends, self.now)

    def test_how_fast(self) -> None:
        """As long as something overtakes it goes on, no faster than is good for that."""
        begun, bulk = self.now, 0
        while self.now < begun + 1:
            self.small()
            size = self.write()
            bulk += size if size > 500 else 0
            self.now += TOOK
        self.assertGreater(bulk, RATE / 2)
        self.assertLess(bulk, RATE + FILE)

    def test_no_longer_overtaken(self) -> None:
        """Soon after the last time it goes as before."""
        self.small()
        self.write()
        self.now += RECENT
        self.assertGreater(self.write(), LARGE - 2 * MAX_RECORD)
        self.assertGreater(self.write(), 0)
