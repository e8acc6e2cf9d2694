"""The engine: what goes into packets, what their control frames do, and that nothing else plays a part."""

from __future__ import annotations

from random import Random

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.packets import MAX_RECORD
from hoft.protocols.queueing import OutgoingRecord
from hoft.protocols.sizing import START
from hoft.protocols.synchronisation import Judgement
from tests.protocols.engines import SETTINGS, Letter, Side, pair, pass_time, settle, synchronised


def flow(near: Side, far: Side) -> tuple[Letter, Letter]:
    """Near's one record goes to far, and far's answer back; both letters."""
    [there] = near.letters()
    far.receive(there)
    pass_time(near, far, 0.02)
    [back] = far.letters()
    near.receive(back)
    return there, back


class PlanTests(SynchronousTestCase):
    """What a packet holds."""

    def test_records_and_state_together(self) -> None:
        """Acknowledgements ride on records where there are some; alone where there are not."""
        near, far = synchronised()
        near.send(1)
        far.send(2)
        [there] = near.letters()
        far.receive(there)
        [back] = far.letters()
        self.assertEqual(back.frames, (((1, 2),),))
        self.assertEqual(back.control.receipts[0].number, there.header.number)
        pass_time(near, far, 0.02)
        [ack] = far.letters()
        self.assertEqual((ack.frames, ack.control.ack), ((), 1))

    def test_a_local_folder_needs_no_wait(self) -> None:
        """What is queued when a packet may be written goes at once."""
        near, _ = synchronised()
        near.send(1)
        self.assertEqual(len(near.letters()), 1)

    def test_size(self) -> None:
        """Packets of up to the size set, in frames of whole records."""
        near, _ = synchronised()
        assert near.engine is not None
        for number in range(1, 41):
            near.disk.outbox[number] = (number, number)
            near.engine.queue(OutgoingRecord(number, number, MAX_RECORD, 3))
        letters = near.letters()
        fit = START // MAX_RECORD - 1  # the file, with all that is around them, is to be as long
        self.assertEqual([len(letter.frames) for letter in letters], [fit, fit, 40 - 2 * fit])
        self.assertTrue(all(len(frame) == 1 for letter in letters for frame in letter.frames))

    def test_numbers(self) -> None:
        """Each packet has a number of its own, greetings too."""
        near, far = pair()
        crossed = settle(near, far)
        near.send(1)
        crossed += settle(near, far)
        numbers = [letter.header.number for letter in crossed if letter.header.sender == near.uuid]
        self.assertEqual(numbers, [*range(1, len(numbers) + 1)])

    def test_quiet(self) -> None:
        """When all is acknowledged nothing is written and no deadline is left."""
        near, far = synchronised()
        near.send(1)
        settle(near, far)
        pass_time(near, far, 1e5)
        self.assertEqual((near.letters(), far.letters()), ([], []))
        assert near.engine is not None and far.engine is not None
        self.assertIsNone(near.engine.deadline())
        self.assertIsNone(far.engine.deadline())

    def test_pure(self) -> None:
        """The same calls at the same times make the same packets."""

        def life(seed: int) -> list[Letter]:
            near, far = pair(seed)
            chance = Random(seed)
            crossed = []
            for content in range(30):
                chance.choice((near, far)).send(content)
                crossed += settle(near, far, rounds=chance.randrange(4), step=chance.random())
            return crossed

        self.assertEqual(life(3), life(3))
        self.assertNotEqual(life(3), life(4))


class HearTests(SynchronousTestCase):
    """What control frames do."""

    def test_round_trip(self) -> None:
        """A record goes, is acknowledged, and the way is measured without the time it was held."""
        near, far = synchronised()
        near.send(1)
        _, back = flow(near, far)
        self.assertEqual(back.control.ack, 1)
        assert near.engine is not None
        self.assertEqual(len(near.engine.sender.records), 0)
        self.assertEqual(near.disk.outbox, {})
        assert near.engine.round_trips.smoothed is not None
        self.assertLess(near.engine.round_trips.smoothed, 0.001)

    def test_old_control(self) -> None:
        """Controls in any order come to the same: acks and limits only ever grow."""
        near, far = synchronised()
        letters = []
        for content in range(6):
            near.send(content)
            [letter] = near.letters()
            far.receive(letter)
            pass_time(near, far, 0.02)
            letters += far.letters()
        assert near.engine is not None
        for letter in reversed(letters):
            near.receive(letter)
        self.assertEqual(len(near.engine.sender.records), 0)
        near.send(7)
        self.assertEqual([letter.frames for letter in near.letters()], [(((7, 7),),)])
        near.receive(evolve(letters[0], control=evolve(letters[0].control, limit=3)))
        near.send(8)
        self.assertEqual([letter.frames for letter in near.letters()], [(((8, 8),),)])

    def test_receipts_of_another_boot(self) -> None:
        """Packet numbers begin anew with each boot: receipts that name another one mean nothing."""
        near, far = synchronised()
        near.send(1)
        [letter] = near.letters()
        far.receive(letter, missing=[1])
        pass_time(near, far, 0.1)
        [back] = far.letters()
        others = tuple(evolve(receipt, boot=receipt.boot ^ 1) for receipt in back.control.receipts)
        near.receive(evolve(back, control=evolve(back.control, receipts=others)))
        self.assertEqual(near.letters(), [])
        near.receive(back)
        self.assertEqual([again.frames for again in near.letters()], [letter.frames])

    def test_salvage(self) -> None:
        """Of a cut packet the frames that are whole are delivered; the others go again, once."""
        near, far = synchronised()
        assert near.engine is not None
        for number in range(1, 11):
            near.disk.outbox[number] = (number, number)
            near.disk.next_number = number + 1
            near.disk.sent.add(number)
            near.engine.queue(OutgoingRecord(number, number, 60_000, 3))
        [letter] = near.letters()
        far.receive(letter, missing=[7, 9, 10])
        self.assertEqual(far.disk.delivered, [1, 2, 3, 4, 5, 6, 8])
        pass_time(near, far, 0.02)
        for back in far.letters():
            near.receive(back)
        [again] = near.letters()
        self.assertEqual([frame[0][0] for frame in again.frames], [7, 9, 10])
        far.receive(again)
        settle(near, far, step=0.02)
        self.assertEqual(sorted(far.disk.delivered), [*range(1, 11)])
        self.assertEqual(near.engine.sender.path.retransmitted, {"lost": 0, "cut": 3, "probe": 0, "early": 0})

    def test_a_probe_is_answered(self) -> None:
        """In silence the oldest goes again, asking; whatever was lost, the answer moves it on."""
        near, far = synchronised()
        near.send(1)
        near.letters()  # lost
        for _ in range(10):
            pass_time(near, far, 1.0)
            for letter in near.letters():
                self.assertTrue(letter.control.probe)
                far.receive(letter)
            for letter in far.letters():
                near.receive(letter)
        self.assertEqual(far.disk.delivered, [1])
        self.assertEqual(near.disk.outbox, {})

    def test_lost_acknowledgements(self) -> None:
        """If the answer is lost the duplicate is answered again."""
        near, far = synchronised()
        near.send(1)
        [letter] = near.letters()
        far.receive(letter)
        pass_time(near, far, 1.0)
        self.assertEqual(len(far.letters()), 1)  # lost
        settle(near, far)
        self.assertEqual(far.disk.delivered, [1])
        self.assertEqual(near.disk.outbox, {})

    def test_partial_adoption(self) -> None:
        """A packet that began to arrive before another boot was adopted does not count any more."""
        near, far = synchronised()
        near.send(1)
        [letter] = near.letters()
        assert far.engine is not None
        self.assertIs(far.engine.hear(letter.header, letter.control, far.now).judgement, Judgement.CURRENT)
        self.assertTrue(far.engine.is_current(letter.header))
        near.crash()
        near.start()
        [hello] = near.letters()
        far.receive(hello)
        self.assertFalse(far.engine.is_current(letter.header))
        settle(near, far)
        self.assertFalse(far.engine.is_current(letter.header))
        self.assertEqual(far.disk.delivered, [1])


class GreetingTests(SynchronousTestCase):
    """Until synchronised."""

    def test_repeated(self) -> None:
        """Ever less often, up to a quarter of an hour."""
        near, _ = pair()
        assert near.engine is not None
        times = []
        for _ in range(40):
            self.assertEqual(len(near.letters()), 1)
            self.assertEqual(near.letters(), [])
            deadline = near.engine.deadline()
            assert deadline is not None
            times.append(deadline - near.now)
            near.now = deadline
        self.assertEqual(times, sorted(times))
        self.assertEqual((times[0], times[-1]), (1.0, 900.0))

    def test_one_of_many(self) -> None:
        """
        Where there are many peers their first greetings are spread over a time, several
        together; and those who say nothing are greeted again after twice that.
        """
        firsts = []
        for seed in range(60):
            near, _ = self.crowded(60.0, seed)
            assert near.engine is not None
            first = near.engine.deadline()
            assert first is not None
            firsts.append(first)
            near.now = first
            self.assertEqual(len(near.letters()), 1)
            waits = []
            for _ in range(6):
                deadline = near.engine.deadline()
                assert deadline is not None
                waits.append(deadline - near.now)
                near.now = deadline
                self.assertEqual(len(near.letters()), 1)
            self.assertEqual(waits, [60.0, 120.0, 240.0, 480.0, 900.0, 900.0])
        self.assertLess(max(firsts), 63.0)
        self.assertTrue(20 < len(set(firsts)) <= 31, sorted(set(firsts)))

    def test_one_of_many_for_whom_something_waits(self) -> None:
        """It is greeted at once, but not again and again."""
        near, _ = self.crowded(60.0)
        assert near.engine is not None
        self.assertEqual(near.letters(), [])
        near.engine.greet(near.now)
        self.assertEqual(len(near.letters()), 1)
        near.engine.greet(near.now)
        self.assertEqual(near.letters(), [])

    def test_one_of_many_that_speaks(self) -> None:
        """It is answered, and from then on greeted as one of a few: answers get lost."""
        near, far = self.crowded(600.0)
        assert near.engine is not None
        [hello] = far.letters()
        near.receive(hello)
        self.assertEqual(len(near.letters()), 1)
        waits = []
        for _ in range(3):
            deadline = near.engine.deadline()
            assert deadline is not None
            waits.append(deadline - near.now)
            near.now = deadline
            self.assertEqual(len(near.letters()), 1)
        self.assertEqual(waits, [1.0, 1.0, 1.0])

    def test_one_of_many_that_comes_first(self) -> None:
        """Its own greeting wakes ours."""
        near, far = self.crowded(600.0)
        settle(near, far)
        assert near.engine is not None and far.engine is not None
        self.assertTrue(near.engine.synchronised and far.engine.synchronised)
        self.assertLess(near.now, 20.0)

    def crowded(self, spread: float, seed: int = 0) -> tuple[Side, Side]:
        """Near has many peers, and far is one of them."""
        near, far = pair(seed)
        near.settings = evolve(SETTINGS, hello_spread=spread)
        near.start()
        return near, far

    def test_a_crowd_of_strangers(self) -> None:
        """Old files, however many, are answered no faster than acknowledgements would be."""
        near, far = synchronised()
        assert far.engine is not None
        olds = []
        for _ in range(50):
            near.crash()
            near.start()
            olds += near.letters()
        settle(near, far)
        answers = 0
        for letter in olds * 10:
            far.receive(letter)
            answers += len(far.letters())
            far.now += 0.0001
        self.assertLessEqual(answers, 2 + 0.05 / far.engine.round_trips.ack_delay())

    def test_the_first_timeout(self) -> None:
        """How long the greeting's answer took bounds the first wait; it is no sample."""
        near, far = pair()
        near.letters()
        pass_time(near, far, 0.05)
        [hello] = far.letters()
        near.receive(hello)
        [answer] = near.letters()
        pass_time(near, far, 0.05)
        far.receive(answer)
        assert far.engine is not None
        self.assertIsNone(far.engine.round_trips.smoothed)
        self.assertLessEqual(far.engine.round_trips.timeout(), 0.2)


class CarrierTests(SynchronousTestCase):
    """While nothing can be written."""

    def test_not_written(self) -> None:
        """What the packet was to carry is owed again: records, and the answer."""
        near, far = synchronised()
        far.send(1)
        near.send(2)
        [letter] = far.letters()
        near.receive(letter)
        assert near.engine is not None
        [lost] = near.letters()
        self.assertTrue(lost.frames)
        near.engine.sender.not_written(lost.header.number)
        near.engine.not_written(near.now)
        pass_time(near, far, 0.1)
        again = near.letters()
        self.assertEqual([frame for letter in again for frame in letter.frames], [*lost.frames])
        self.assertEqual(max(letter.control.ack for letter in again), 1)

    def test_down(self) -> None:
        """Nothing counts as lost over it, and nobody as silent; a greeting follows at once."""
        near, far = synchronised()
        assert near.engine is not None
        near.send(1)
        near.letters()
        near.engine.suspend(near.now)
        pass_time(near, far, 10_000.0)
        near.engine.resume(near.now)
        self.assertEqual(near.engine.silence(near.now), 0.0)
        self.assertEqual(near.letters(), [])
        settle(near, far)
        self.assertEqual(far.disk.delivered, [1])


class HeartbeatTests(SynchronousTestCase):
    """On an idle link."""

    def setUp(self) -> None:
        self.near, self.far = synchronised()
        assert self.near.engine is not None
        self.near.engine.reconfigure(evolve(SETTINGS, heartbeat=30.0))

    def test_asks(self) -> None:
        """After so long a silence the peer is asked, and answers."""
        near, far = self.near, self.far
        assert near.engine is not None
        due = near.engine.deadline()
        assert due is not None and near.engine.last_heard is not None
        self.assertAlmostEqual(due - near.engine.last_heard, 30.0)
        pass_time(near, far, due - near.now - 0.1)
        self.assertEqual(near.letters(), [])
        pass_time(near, far, 0.2)
        [letter] = near.letters()
        self.assertTrue(letter.control.probe)
        far.receive(letter)
        pass_time(near, far, 0.1)
        [answer] = far.letters()
        near.receive(answer)
        self.assertEqual(near.engine.silence(near.now), 0.0)
        self.assertEqual(near.letters(), [])

    def test_unanswered(self) -> None:
        """It is noticed; and asked ever less often, up to a quarter of an hour."""
        near, far = self.near, self.far
        assert near.engine is not None
        asked = 0
        for _ in range(1000):
            pass_time(near, far, 30.0)
            asked += len(near.letters())
        self.assertGreater(near.engine.silence(near.now), 20_000)
        self.assertLess(asked, 60)
