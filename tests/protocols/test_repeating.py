"""Small records go again before they are missed, where files get lost; elsewhere none does."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.queueing import Frames, OutgoingRecord
from hoft.protocols.repeating import LOSSY, MEMORY, PART, REMEMBERED, SMALL, TIMES, Repetition
from hoft.testing.channel import Faults
from hoft.testing.simulation import MAX_RECORD, Simulation

MIB = 1 << 20


def sent(number: int, size: int = 1000) -> OutgoingRecord:
    """A record that has just been put into its first packet."""
    return OutgoingRecord(number, number, size, 3, packets=[number])


class RepetitionTests(SynchronousTestCase):
    """What goes again, and what does not."""

    def setUp(self) -> None:
        self.repetition = Repetition()

    def again(self, most: int = MIB) -> list[int]:
        """Numbers of what the next file has of it."""
        frames = Frames(most)
        count = self.repetition.add_to(frames)
        numbers = [record.number for frame in frames.frames for record in frame]
        self.assertEqual(len(numbers), count)
        return numbers

    def test_twice(self) -> None:
        """The oldest first, in each of the next files, and no more often."""
        records = [sent(number) for number in range(5)]
        self.repetition.sent([records], MIB)
        for _ in range(TIMES):
            self.assertEqual(self.again(), [0, 1, 2, 3, 4])
        self.assertEqual(self.again(), [])
        self.assertTrue(all(record.repeated for record in records))

    def test_what_is_known(self) -> None:
        """What has arrived, or goes again for being missed, is no affair of this."""
        records = [sent(number) for number in range(4)]
        self.repetition.sent([records], MIB)
        records[0].settled = records[2].queued = True
        self.assertEqual(self.again(), [1, 3])
        records[3].settled = True
        self.assertEqual(self.again(), [1])

    def test_what_is_not_small(self) -> None:
        """Nor what was sent before."""
        old = OutgoingRecord(3, 3, 100, 3, packets=[1, 2])
        self.repetition.sent([[sent(1, SMALL + 1), sent(2, SMALL), old]], MIB)
        self.assertEqual(self.again(), [2])

    def test_a_small_part(self) -> None:
        """However much is small, repetitions are a small part of what is written."""
        written = repeated = 0
        for number in range(200):
            record = sent(number, 1000)
            self.repetition.sent([[record]], 5000)
            written += 5000
            repeated += 1000 * len(self.again())
        self.assertLessEqual(repeated, PART * written)
        self.assertGreater(repeated, PART * written / 2)

    def test_room(self) -> None:
        """A file that is full stays as it is; what is left waits for the next."""
        self.repetition.sent([[sent(number, 10_000) for number in range(3)]], MIB)
        self.assertEqual(self.again(most=23_000), [0, 1])

    def test_bounded(self) -> None:
        """The latest are remembered."""
        for number in range(2 * REMEMBERED):
            self.repetition.sent([[sent(number, 1)]], MIB)
        self.assertEqual(self.again(), [*range(REMEMBERED, 2 * REMEMBERED)])

    def test_lossy(self) -> None:
        """One file that is lost says nothing; several of the last ones do, for a while."""
        repetition = self.repetition
        repetition.judged(False)
        self.assertFalse(repetition.lossy)
        repetition.judged(False)
        self.assertTrue(repetition.lossy)
        for _ in range(MEMORY):
            repetition.judged(True)
        self.assertFalse(repetition.lossy)
        for number in range(1000):
            repetition.judged(number % int(0.5 / LOSSY) > 0)
        self.assertTrue(repetition.lossy)


class CarrierTests(SynchronousTestCase):
    """What it brings."""

    def beside_bulk(self, faults: Faults) -> Simulation:
        """A small record each half second."""
        simulation = Simulation(faults, settle=0.5)
        near = simulation.near
        for flow in range(100):
            while len(near.engine.sender.records) * MAX_RECORD < 16 * MIB:
                near.send(*[MAX_RECORD] * 50, urgency=5)
            near.send(1000, flow=flow)
            simulation.run(0.5)
        return simulation

    def test_where_files_get_lost(self) -> None:
        """Hardly any small record waits to be missed."""
        simulation = self.beside_bulk(Faults(lose=0.3, delay=0.5, bandwidth=5 * MIB))
        delays = sorted(simulation.near.delays[3])
        self.assertGreater(len(delays), 90)
        self.assertLess(delays[len(delays) * 9 // 10], 3.0)

    def test_where_none_does(self) -> None:
        """Nothing goes twice."""
        simulation = self.beside_bulk(Faults())
        self.assertEqual(simulation.near.engine.sender.path.retransmitted["early"], 0)
