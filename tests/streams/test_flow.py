"""Nobody is overrun: credit, paused protocols, producers, full journals; and what hostile peers get."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IPullProducer, IPushProducer
from zope.interface import implementer

from hoft.errors import JournalFull
from hoft.interfaces import CommitResult, Outgoing
from hoft.streams import committing, multiplexer
from hoft.streams.committing import COMMIT_BYTES
from hoft.streams.failures import StreamRefused, StreamReset
from hoft.streams.feeding import BUFFER
from hoft.streams.halves import MAX_WINDOW, Hold, Receiving, Sending
from hoft.streams.multiplexer import HOLD
from hoft.streams.parts import INITIAL, MAX_DATA, MIN_COST, STREAMS, Kind, Part, encode
from hoft.streams.stream import Stream
from hoft.testing.harness import pattern
from tests.streams.ends import Ends, HalfListener


@implementer(IPushProducer)
class Pushing:
    """Counts how often it is told what."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


@implementer(IPullProducer)
class Pulled:
    """Gives a piece each time it is asked, and ends after the last."""

    def __init__(self, stream: Stream, pieces: list[bytes]) -> None:
        self.stream = stream
        self.pieces = pieces

    def resumeProducing(self) -> None:
        self.stream.write(self.pieces.pop(0))
        if not self.pieces:
            self.stream.unregisterProducer()

    def stopProducing(self) -> None:
        self.pieces.clear()


class CreditTests(Ends):
    def test_who_does_not_read_gets_no_more_than_the_first_window(self) -> None:
        near, far = self.talk()
        far.transport.pauseProducing()
        data = pattern(3_000_000)
        near.transport.write(data)
        self.pump()
        lying = sum(len(part.body) for part in self.sent(self.near_link) if part.kind is Kind.DATA)
        self.assertTrue(INITIAL - MIN_COST < lying <= INITIAL, lying)
        far.transport.resumeProducing()
        self.pump()
        self.assertEqual(bytes(far.received), data)

    def test_the_window_grows_with_what_is_read_and_no_further_than_it_may(self) -> None:
        windows = Hold(10 * INITIAL)
        receiving = Receiving(Hold(0), windows)
        granted, at = INITIAL, 0
        for _ in range(500):
            receiving.add(1, at, bytes(MAX_DATA))
            at += MAX_DATA
            receiving.take(1)
            granted = receiving.grant() or granted
            self.assertLess(granted - at, 11 * INITIAL + 1)
        self.assertGreater(granted - at, 5 * INITIAL)
        receiving.stop()
        self.assertEqual(windows.used, 0)

    def test_tiny_parts_are_not_for_free(self) -> None:
        receiving = Receiving(Hold(1 << 20), Hold(0))
        for at in range(INITIAL // MIN_COST):
            receiving.add(at, at, b"x")
        with self.assertRaisesRegex(Exception, "granted"):
            receiving.add(0, 1 << 20, b"x")

    def test_what_cannot_be_handed_on_is_in_memory_only_as_far_as_there_is_room(self) -> None:
        self.near.streams.hold.limit = 0
        self.far.streams.hold.limit = 100_000
        near, far = self.talk()
        far.transport.pauseProducing()
        data = pattern(2_000_000)
        near.transport.write(data)
        self.pump()
        self.assertGreater(self.far_link.unconsumed(), 3)
        self.assertLessEqual(self.far.streams.hold.used, 100_000)
        far.transport.resumeProducing()
        self.pump()
        self.assertEqual(bytes(far.received), data)
        self.assertEqual(self.far.streams.hold.used, 0)
        self.assertGreater(HOLD, 100_000)

    def test_a_peer_that_promises_the_moon_is_not_believed(self) -> None:
        sending = Sending()
        sending.credit(1 << 63)
        sending.write(bytes(MAX_WINDOW + (1 << 20)))
        cut = sum(len(piece) for _, piece in sending.cut(1 << 40))
        self.assertEqual(cut, MAX_WINDOW)


class ProducerTests(Ends):
    def test_a_producer_is_paused_while_what_it_wrote_waits(self) -> None:
        near, far = self.talk()
        far.transport.pauseProducing()
        producer = Pushing()
        near.transport.registerProducer(producer, True)
        near.transport.write(bytes(INITIAL + BUFFER))
        self.assertEqual(producer.told, ["pause"])
        self.pump()
        self.assertEqual(producer.told, ["pause"])
        far.transport.resumeProducing()
        self.pump()
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_a_producer_that_is_pulled_gives_all_it_has_and_then_the_stream_closes(self) -> None:
        near, far = self.talk()
        pieces = [pattern(100_000, seed) for seed in range(20)]
        near.transport.registerProducer(Pulled(near.transport, list(pieces)), False)
        near.transport.loseConnection()
        self.pump()
        self.assertEqual(bytes(far.received), b"".join(pieces))
        self.assertIsNotNone(far.lost)
        self.assertNothingLeft()

    def test_a_producer_stops_when_nobody_listens_any_more(self) -> None:
        for close in ("loseConnection", "abortConnection"):
            near, far = self.talk()
            producer = Pushing()
            near.transport.registerProducer(producer, True)
            getattr(far.transport, close)()
            self.pump()
            self.assertEqual(producer.told, ["stop"])
            near.transport.loseConnection()
            self.pump()
            late = Pushing()
            near.transport.registerProducer(late, True)
            self.assertEqual(late.told, ["stop"])
        self.assertNothingLeft()

    def test_a_half_is_closed_once_its_producer_is_done(self) -> None:
        near, far = self.talk()
        near.transport.registerProducer(Pushing(), True)
        near.transport.loseWriteConnection()
        near.transport.write(b"the rest")
        self.pump()
        self.assertEqual((bytes(far.received), far.ends), (b"the rest", []))
        near.transport.unregisterProducer()
        self.pump()
        self.assertEqual(far.ends, ["read"])


class JournalTests(Ends):
    def test_a_journal_without_room_holds_streams_up_and_loses_nothing(self) -> None:
        near, far = self.talk()
        self.near_link.full = True
        data = pattern(500_000)
        near.transport.write(data[:100_000])
        far.transport.write(b"comes all the same")
        self.pump()
        near.transport.write(data[100_000:])
        for _ in range(3):
            self.clock.advance(1)
            self.near.streams.tick()
            self.pump()
        self.assertEqual(bytes(near.received), b"comes all the same")
        self.assertEqual((self.near_link.unconsumed(), len(far.received)), (0, 0))
        self.near_link.full = False
        self.near.streams.tick()
        self.pump()
        self.assertEqual(bytes(far.received), data)

    def test_nor_one_that_is_too_full_even_to_let_go_of_what_came(self) -> None:
        near, far = self.talk()
        self.near_link.full = True
        commit = self.near_link.commit

        def refuse(*arguments: Any) -> Deferred[CommitResult[Any]]:
            return fail(JournalFull("no room")) if self.near_link.full else commit(*arguments)

        self.patch(self.near_link, "commit", refuse)
        near.transport.write(b"question")
        far.transport.write(b"comes all the same")
        for _ in range(3):
            self.pump()
            self.clock.advance(1)
            self.near.streams.tick()
        self.assertEqual((bytes(near.received), near.ends), (b"comes all the same", []))
        self.assertGreater(self.near_link.unconsumed(), 0)
        self.near_link.full = False
        self.near.streams.tick()
        self.pump()
        self.assertEqual((bytes(far.received), self.near_link.unconsumed()), (b"question", 0))

    def test_what_waits_for_the_peer_is_bounded_and_control_passes_it(self) -> None:
        self.patch(committing, "BACKLOG", 100_000)
        near, far = self.talk()
        self.near_link.open = False
        data = pattern(COMMIT_BYTES * 3)
        near.transport.write(data)
        other = HalfListener()
        stream = self.near.streams.open("it", 60.0)
        stream.attach(other)
        self.pump()
        self.assertLessEqual(self.near_link.backlog(), 100_000 + COMMIT_BYTES + MAX_DATA)
        self.assertIn(Kind.OPEN, [part.kind for part in self.sent(self.near_link)[-2:]])
        self.near_link.heal()
        self.pump()
        self.assertEqual(bytes(far.received), data)

    def test_control_that_came_while_the_journal_was_busy_does_not_wait_for_the_peer(self) -> None:
        self.patch(committing, "BACKLOG", 100_000)
        near, _ = self.talk()
        self.near_link.open = False
        near.transport.write(pattern(COMMIT_BYTES))
        self.pump()
        for _ in range(committing.COMMITS + 1):
            self.near.streams.open("it", 60.0)
            self.near.streams.tick()
        self.pump()
        opened = [part.kind for part in self.sent(self.near_link)].count(Kind.OPEN)
        self.assertEqual(opened, 1 + committing.COMMITS + 1)


class HostileTests(Ends):
    def give(self, *parts: Part) -> None:
        """What near, taken over, commits."""
        self.near_link.commit([Outgoing(encode(part), STREAMS) for part in parts])
        self.pump()

    def part(self, kind: Kind, number: int, offset: int = 0, body: bytes = b"") -> Part:
        return Part(kind, False, self.near.streams.epoch, self.far.streams.epoch, number, offset, body)

    def test_what_contradicts_itself_resets_that_stream_alone(self) -> None:
        good, there = self.talk()
        mine = HalfListener()
        self.far.services["it"] = lambda: mine
        for wrong in (
            [self.part(Kind.DATA, 0, 0, b"abc"), self.part(Kind.DATA, 0, 0, b"abc")],
            [self.part(Kind.DATA, 0, 2, b"cde"), self.part(Kind.DATA, 0, 0, b"abc")],
            [self.part(Kind.DATA, 0, 9, b"abc"), self.part(Kind.END, 0, 10)],
            [self.part(Kind.END, 0, 9), self.part(Kind.END, 0, 10)],
            [self.part(Kind.END, 0, 9), self.part(Kind.DATA, 0, 9, b"x")],
            [self.part(Kind.DATA, 0, at * MAX_DATA + 1, bytes(MAX_DATA)) for at in range(6)],
            [self.part(Kind.OPEN, 0, body=b"it")],
        ):
            mine = HalfListener()
            stream = self.near.streams.open("it", 60.0)
            accepted = stream.when_accepted()
            self.pump()
            self.successResultOf(accepted)
            before = self.far.counts["malformed_parts"]
            self.give(*(evolve(part, stream=stream.number) for part in wrong))
            self.assertEqual(self.far.counts["malformed_parts"], before + 1, wrong)
            assert mine.lost is not None
            mine.lost.trap(StreamReset)
        good.transport.write(b"unharmed")
        self.pump()
        self.assertEqual(bytes(there.received), b"unharmed")
        good.transport.abortConnection()
        self.pump()
        self.assertNothingLeft()

    def test_what_is_no_part_is_counted_and_dropped(self) -> None:
        self.near_link.commit([Outgoing(b"rubbish", STREAMS), Outgoing(b"", STREAMS)])
        self.pump()
        self.assertEqual(self.far.counts["malformed_parts"], 2)
        self.assertEqual(self.far_link.unconsumed(), 0)

    def test_there_are_only_so_many_streams(self) -> None:
        self.patch(multiplexer, "MAX_STREAMS", 5)
        self.far.services["it"] = HalfListener
        for number in range(1, 8):
            self.give(self.part(Kind.OPEN, number, body=b"it"))
        self.assertEqual(self.far.counts["refused"], 2)
        self.assertEqual(self.far.streams.open_streams, 5)
        for _ in range(5):
            self.near.streams.open("it", 60.0)
        with self.assertRaises(StreamRefused):
            self.near.streams.open("it", 60.0)

    def test_data_of_streams_that_were_never_opened_is_bounded(self) -> None:
        self.patch(multiplexer, "MAX_STREAMS", 5)
        for number in range(1, 40):
            self.give(self.part(Kind.DATA, number, body=b"x"))
        self.assertLessEqual(self.far.streams.open_streams, 10)

    def test_gaps_between_numbers_are_not_remembered_for_ever(self) -> None:
        self.patch(multiplexer, "MAX_STREAMS", 5)
        for number in range(1, 200, 2):
            self.give(self.part(Kind.RESET, number))
        self.assertLessEqual(len(self.far.streams._past), 10)
