"""Messages over a link: there once, as they were, whatever crashes; and never too many."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any, cast
from uuid import UUID

from twisted.internet.defer import Deferred, fail
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import (
    JournalFull,
    LinkClosed,
    MessageConsumed,
    MessageExpired,
    MessageTooLarge,
    MessageUncertain,
    PayloadDamaged,
    PayloadLost,
    RecordDamaged,
)
from hoft.interfaces import (
    MAX_MESSAGE,
    MAX_READ,
    MAX_WHOLE,
    CommittedMessages,
    IMessage,
    LinkState,
    Outgoing,
    OutgoingMessage,
)
from hoft.messages import incoming, outgoing
from hoft.messages.pieces import (
    MESSAGES,
    MIN_COST,
    PIECE,
    WINDOW,
    encode_credit,
    encode_piece,
    encode_withdrawal,
)
from hoft.recurring import EVERY
from hoft.testing.channel import Faults, FaultyChannel
from hoft.transports.memory import unchanged
from tests.messages.programs import MessageNode, MessagePair, note
from tests.protocols.nodes import lost, refuse
from tests.protocols.test_damage import damage

LARGE = 3_000_000
"""Bytes of a message that takes several commits."""

ID = b"i" * 16


class MessageCase(SynchronousTestCase):
    """With two nodes that have found each other."""

    def setUp(self) -> None:
        self.pair = MessagePair(self)
        self.near, self.far = self.pair.near, self.pair.far
        self.pair.start()

    def restart(self, node: MessageNode, keep: bool = False) -> None:
        """It is killed, and starts again."""
        node.crash()
        node.heard.keep = keep
        node.start()

    def lose_state(self, node: MessageNode) -> None:
        """It is killed, and starts again with nothing."""
        node.crash()
        for path in sorted(node.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        node.start()

    def read(self, message: IMessage) -> bytes:
        """All of it."""

        async def collect() -> bytes:
            return b"".join([piece async for piece in message.pieces(100_000)])

        return self.pair.result(Deferred.fromCoroutine(collect()))

    def plant(self, *records: bytes) -> None:
        """Near sends these on the channel of messages, past all that is right."""
        done: Deferred[Any] = self.near.link.commit([Outgoing(record, MESSAGES) for record in records])
        self.pair.result(done)
        self.pair.advance(5)


class DeliveryTests(MessageCase):
    def test_there_and_back(self) -> None:
        sent = self.near.tell(b"one", b"two")
        answer = self.far.tell(b"three")
        self.pair.advance(5)
        self.assertEqual(self.far.heard.payloads, [b"one", b"two"])
        self.assertEqual(self.near.heard.payloads, [b"three"])
        ids = [self.successResultOf(one) for one in sent]
        self.assertEqual(ids, [message.id for message in self.far.heard.messages])
        self.assertIsInstance(self.successResultOf(answer[0]), UUID)
        for node in (self.near, self.far):
            self.assertEqual((node.rows("inbox"), node.rows("outbox")), (0, 0))

    def test_delivered_means_committed_there(self) -> None:
        self.pair.deliver = lost
        [sent] = self.near.tell(b"x")
        self.pair.advance(5)
        self.assertNoResult(sent)
        self.pair.deliver = unchanged
        self.far.heard.keep = True
        told: list[UUID] = []
        sent.addCallback(told.append)
        while not told:
            self.assertTrue(self.pair.clock.step())
        self.assertEqual(self.far.rows("inbox"), 1)

    def test_sizes(self) -> None:
        sizes = (0, 1, PIECE, PIECE + 1, MAX_WHOLE)
        payloads = [Random(size).randbytes(size) for size in sizes]
        for payload in payloads:
            self.near.tell(payload)
        self.pair.advance(20)
        self.assertEqual(by_size(self.far.heard.payloads), payloads)
        for message in self.far.heard.messages:
            self.assertEqual(message.size, len(message.payload or b""))

    def test_a_large_one_is_read_in_parts(self) -> None:
        self.far.heard.keep = True
        payload = Random(1).randbytes(LARGE)
        [sent] = self.near.tell(payload)
        self.pair.advance(20)
        self.successResultOf(sent)
        [message] = self.far.heard.messages
        self.assertEqual((message.payload, message.size), (None, LARGE))
        self.assertEqual(self.read(message), payload)
        for offset, size in ((0, 1), (PIECE - 1, 2), (LARGE - 1, 100), (LARGE, 5), (0, MAX_READ)):
            part = self.pair.result(message.read(offset, size))
            self.assertEqual(part, payload[offset : offset + size], (offset, size))
        self.failureResultOf(message.read(0, MAX_READ + 1), ValueError)
        self.pair.result(message.consume())
        self.failureResultOf(message.read(), PayloadLost)
        self.assertEqual(self.far.rows("inbox"), 0)

    def test_over_a_careless_carrier(self) -> None:
        faults = Faults(lose=0.2, truncate=0.3, duplicate=0.2, flip=0.05, delay=0.1, spread=1.0)
        self.pair.deliver = FaultyChannel(Random(5), faults)
        sizes = (10, 400_000, 0, 70_000, 300, 900_000)
        payloads = [Random(size).randbytes(size) for size in sizes]
        sent = self.near.tell(*payloads)
        self.pair.advance(600)
        for one in sent:
            self.successResultOf(one)
        self.assertEqual(
            sorted(self.far.heard.payloads, key=lambda one: len(one or b"")), sorted(payloads, key=len)
        )

    def test_urgent_ones_go_first(self) -> None:
        self.pair.deliver = lost
        self.near.crash()
        self.near.start()
        self.near.messenger.send(b"later", urgency=5)
        self.near.messenger.send(b"soon", urgency=1)
        self.pair.deliver = unchanged
        self.pair.advance(30)
        self.assertEqual(self.far.heard.payloads, [b"soon", b"later"])

    def test_several_at_once(self) -> None:
        """All messages of a commit are delivered, also if they take several commits of the journal."""
        messages = [
            OutgoingMessage(Random(size).randbytes(size)) for size in (900_000, 10, 1_000_000, 800_000)
        ]
        committing: Deferred[CommittedMessages[None]] = self.near.messenger.commit(messages)
        done = self.pair.result(committing)
        delivered = [sent.delivered() for sent in done.sent]
        self.pair.advance(30)
        self.assertEqual([self.successResultOf(one) for one in delivered], [sent.id for sent in done.sent])
        self.assertEqual({*self.far.heard.payloads}, {message.payload for message in messages})
        self.assertEqual(self.successResultOf(done.sent[0].delivered()), done.sent[0].id)

    def test_too_large(self) -> None:
        self.failureResultOf(self.near.messenger.send(bytes(MAX_MESSAGE + 1)), MessageTooLarge)
        half = OutgoingMessage(bytes(WINDOW // 2))
        small = OutgoingMessage(b"")
        self.failureResultOf(self.near.messenger.commit([half, half, small]), MessageTooLarge)

    def test_after_the_link_is_closed(self) -> None:
        self.pair.deliver = lost
        [sent] = self.near.tell(b"x")
        self.pair.advance(1)
        messenger = self.near.messenger
        self.near.link.close()
        self.near.messages.detach(self.near.link)
        self.failureResultOf(sent, LinkClosed)
        self.failureResultOf(messenger.send(b"y"), LinkClosed)

    def test_the_state_of_the_link(self) -> None:
        self.assertIs(self.near.messenger.state, LinkState.UP)
        self.assertEqual(self.near.heard.states, [LinkState.UP])
        self.assertEqual((self.near.messenger.name, self.near.messenger.peer), ("far", self.far.uuid))


class ConsumingTests(MessageCase):
    def test_a_message_comes_again_until_it_is_consumed(self) -> None:
        self.far.heard.keep = True
        payload = Random(2).randbytes(LARGE)
        self.near.tell(b"small", payload)
        self.pair.advance(20)
        ids = {message.id for message in self.far.heard.messages}
        self.restart(self.far, keep=True)
        self.pair.advance(20)
        self.assertEqual({message.id for message in self.far.heard.messages}, ids)
        self.assertEqual({*self.far.heard.payloads}, {b"small", None})
        for message in self.far.heard.messages:
            self.assertEqual(self.read(message), b"small" if message.payload else payload)
            self.pair.result(message.consume())
        self.restart(self.far)
        self.pair.advance(20)
        self.assertEqual((self.far.heard.messages, self.far.rows("inbox")), ([], 0))

    def test_what_is_done_in_the_same_commit_is_done_once(self) -> None:
        """A program that is killed again and again, at each moment."""
        self.far.heard.keep = True
        self.near.tell(b"pay 100")
        self.pair.advance(5)
        for steps in range(1, 12):
            for message in self.far.heard.messages:
                message.consume(note("paid"))
            for _ in range(steps):
                self.pair.clock.step()
            self.restart(self.far, keep=True)
            self.pair.advance(20)
        self.assertEqual(self.far.notes(), ["paid"])
        self.assertEqual(self.far.heard.messages, [])

    def test_an_answer_is_sent_in_the_same_commit(self) -> None:
        self.far.heard.keep = True
        self.near.tell(b"question")
        self.pair.advance(5)
        [question] = self.far.heard.messages

        def broken(transaction: object) -> None:
            raise ZeroDivisionError

        answer = [OutgoingMessage(b"answer")]
        failing = self.far.messenger.commit(answer, [question], broken)
        self.assertRaises(ZeroDivisionError, self.pair.result, failing)
        self.pair.advance(5)
        self.assertEqual((self.near.heard.payloads, self.far.rows("inbox")), ([], 1))
        done = self.pair.result(self.far.messenger.commit(answer, [question], lambda t: 7, durable=True))
        self.pair.advance(5)
        self.assertEqual((done.value, self.near.heard.payloads, self.far.rows("inbox")), (7, [b"answer"], 0))

    def test_nothing_is_consumed_twice(self) -> None:
        self.far.heard.keep = True
        self.near.tell(b"x")
        self.pair.advance(5)
        [message] = self.far.heard.messages
        self.failureResultOf(self.far.messenger.commit(consume=[message, message]), MessageConsumed)
        first = message.consume(note("once"))
        self.failureResultOf(message.consume(note("twice")), MessageConsumed)
        self.pair.result(first)
        self.assertEqual(self.far.notes(), ["once"])

    def test_a_program_that_fails_keeps_the_message(self) -> None:
        self.far.heard.error = ZeroDivisionError()
        self.near.tell(b"one", b"two")
        self.pair.advance(5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(self.far.heard.payloads, [b"one", b"two"])
        self.assertEqual(self.far.messages.counters()["failed"], 2)
        self.restart(self.far)
        self.pair.advance(20)
        self.assertEqual(self.far.heard.payloads, [b"one", b"two"])

    def test_without_a_program_they_wait(self) -> None:
        self.far.crash()
        self.far.mind = None
        self.far.start()
        [sent] = self.near.tell(b"x")
        self.pair.advance(20)
        self.successResultOf(sent)
        self.assertEqual(self.far.messages.counters()["waiting_for_program"], 1)
        self.restart(self.far)
        self.pair.advance(20)
        self.assertEqual(self.far.heard.payloads, [b"x"])

    def test_a_program_has_only_so_much_in_hand(self) -> None:
        self.patch(incoming, "IN_HAND", 3)
        self.patch(incoming, "IN_HAND_BYTES", 300)
        self.far.heard.keep = True
        payloads = [b"%d" % number for number in range(5)] + [b"x" * 299, b"y", b"z" * (MAX_WHOLE + 1)]
        self.near.tell(*payloads)
        self.pair.advance(10)
        heard = self.far.heard
        seen = 0
        while len(heard.messages) > seen:
            in_hand = heard.messages[seen:]
            self.assertLessEqual(len(in_hand), 3)
            self.assertLessEqual(sum(len(message.payload or b"") for message in in_hand), 300)
            seen += 1
            self.pair.result(in_hand[0].consume())
            self.pair.advance(1)
        self.assertEqual({*heard.payloads}, {*payloads[:-1], None})

    def test_one_that_is_gone_is_no_obstacle_to_others(self) -> None:
        """As when our journal was restored while messages waited for the program."""
        self.patch(incoming, "IN_HAND", 1)
        self.far.heard.keep = True
        self.near.tell(b"first", b"gone", b"last")
        self.pair.advance(5)
        [first] = self.far.heard.messages
        rows = self.far.journal.transact(lambda t: t.execute("SELECT id FROM inbox ORDER BY id").fetchall())
        _, gone, _ = self.pair.result(rows)
        self.pair.result(self.far.link.commit(consume=gone))
        self.pair.result(first.consume())
        self.pair.advance(5)
        self.assertEqual(self.far.heard.payloads, [b"first", b"last"])
        self.assertEqual(self.far.messages.counters()["waiting_for_program"], 1)


class CreditTests(MessageCase):
    """How much may wait at a peer, or on the way there; with a window of 1 MiB."""

    def setUp(self) -> None:
        for module in (incoming, outgoing):
            self.patch(module, "WINDOW", 1 << 20)
        self.patch(incoming, "CREDIT_STEP", 1 << 18)
        super().setUp()
        self.far.heard.keep = True

    def fill(self, size: int = 1 << 20) -> None:
        """Use up all that near may send."""
        for _ in range(size >> 18):
            self.pair.result(self.near.messenger.commit([OutgoingMessage(bytes(1 << 18))]))

    def blocked(self, payload: bytes = b"") -> Deferred[CommittedMessages[None]]:
        """A commit that has to wait."""
        waiting: Deferred[CommittedMessages[None]] = self.near.messenger.commit([OutgoingMessage(payload)])
        self.pair.advance(60)
        self.assertNoResult(waiting)
        return waiting

    def consume(self) -> None:
        """Far consumes what was sent."""
        self.pair.advance(10)
        for message in self.far.heard.messages:
            self.pair.result(message.consume())
        self.far.heard.messages.clear()
        self.pair.advance(10)

    def test_beyond_the_window_commits_wait_until_some_was_consumed(self) -> None:
        self.fill()
        waiting = [self.blocked(b"%d" % number) for number in range(3)]
        self.assertEqual(len(self.far.heard.messages), 4)
        self.assertEqual(self.near.messages.counters()["waiting_for_peers"], 3)
        self.consume()
        for one in waiting:
            self.successResultOf(one)
        self.assertEqual(self.far.heard.payloads[-3:], [b"0", b"1", b"2"])

    def test_it_is_counted_across_restarts_of_both(self) -> None:
        for _ in range(3):
            self.fill(768 << 10)
            self.restart(self.near)
            waiting = self.blocked(bytes(300_000))
            self.restart(self.far, keep=True)
            self.pair.advance(60)
            self.assertNoResult(waiting)
            self.consume()
            self.successResultOf(waiting)
            self.restart(self.near)
            self.pair.advance(60)
            self.consume()

    def test_a_receiver_that_dies_before_it_has_told_the_sender_tells_it_when_it_starts(self) -> None:
        self.fill()
        waiting = self.blocked()
        self.patch(self.far.messenger._incoming, "grant", lambda: None)
        self.consume()
        self.assertNoResult(waiting)
        self.restart(self.far)
        self.pair.advance(10)
        self.successResultOf(waiting)

    def test_all_that_is_let_go_of_can_be_used_again(self) -> None:
        """Whatever was consumed, withdrawn, or never got into the journal."""

        def fail(transaction: object) -> None:
            raise ZeroDivisionError

        for _ in range(5):
            self.fill(768 << 10)
            self.consume()
            failing = self.near.messenger.commit([OutgoingMessage(bytes(700_000))], (), fail)
            self.assertRaises(ZeroDivisionError, self.pair.result, failing)

    def test_what_is_consumed_while_the_peer_is_being_told_is_told_as_well(self) -> None:
        self.fill()
        self.pair.advance(10)
        for message in self.far.heard.messages:
            message.consume()
        self.pair.advance(10)
        self.pair.result(self.near.messenger.commit([OutgoingMessage(bytes(768 << 10))]))

    def test_small_messages_are_not_free(self) -> None:
        self.pair.deliver = lost
        self.pair.result(self.near.messenger.commit([OutgoingMessage(b"")] * ((1 << 20) // MIN_COST)))
        self.blocked()

    def test_a_peer_that_does_not_keep_to_it(self) -> None:
        """What is beyond the bound is dropped and counted."""
        records = [encode_piece(b"%16d" % number, bytes(64 << 20), 0) for number in range(9)]
        self.plant(*records)
        self.assertEqual(self.far.messages.counters()["malformed"], 1)
        self.assertEqual(self.far.rows("inbox"), 8)

    def test_consuming_works_while_sending_waits(self) -> None:
        self.near.heard.keep = True
        self.far.tell(b"x")
        self.fill()
        blocked = self.blocked()
        [message] = self.near.heard.messages
        self.pair.result(message.consume())
        self.assertNoResult(blocked)

    def test_credit_without_end_does_not_make_our_journal_grow(self) -> None:
        done: Deferred[Any] = self.far.link.commit([Outgoing(b"\x03" + b"\xff" * 8, MESSAGES)])
        self.pair.result(done)
        self.pair.advance(5)
        self.fill()
        self.blocked()


class ExpiryTests(MessageCase):
    """Messages that are worth nothing after some time."""

    def wait(self, seconds: float) -> None:
        """Time passes, with the ticks of a node."""
        for _ in range(round(2 * seconds)):
            self.pair.advance(0.5)
            self.near.messages.tick()

    def stop_near(self) -> None:
        """Nothing is sent any more, as while the carrier is down."""
        self.near.link.carrier_down()

    def test_what_was_not_sent_in_time_never_is(self) -> None:
        self.stop_near()
        payload = bytes(300_000)
        late = [self.near.messenger.send(one, expires=5) for one in (b"small", payload)]
        kept = self.near.messenger.send(b"kept", expires=60)
        self.wait(4)
        for one in late:
            self.assertNoResult(one)
        self.wait(2)
        for one in late:
            self.failureResultOf(one, MessageExpired)
        self.near.link.carrier_up()
        self.wait(30)
        self.successResultOf(kept)
        self.assertEqual(self.far.heard.payloads, [b"kept"])
        self.assertEqual((self.far.rows("inbox"), self.near.rows("outbox")), (0, 0))
        self.assertEqual(self.near.messages.counters()["expired"], 2)
        self.wait(60)
        self.assertEqual(self.near.messenger._outgoing._expiring, [])

    def test_what_the_journal_has_lost_does_not_become_whole(self) -> None:
        """Its program is told, if it still runs; the other side lets go of it, and all others arrive."""
        self.stop_near()
        told = self.near.messenger.send(bytes(300_000))
        self.wait(1)
        [first, *_] = self.near.messenger._outgoing._records
        queued = self.near.link._records.outbox.unsent(first)
        assert queued is not None and queued.number is not None
        self.near.link._damage.unsendable(RecordDamaged(queued.number, PayloadDamaged("a test")))
        self.wait(1)
        self.failureResultOf(told, MessageUncertain)
        payload = bytes(range(1, 201)) * 1500
        self.near.messenger.send(payload)
        self.near.messenger.send(b"kept")
        self.wait(1)
        self.near.crash()
        damage(self.near, payload[-1000:])
        self.near.start()
        self.wait(60)
        self.assertEqual(self.far.heard.payloads, [b"kept"])
        self.assertEqual((self.far.rows("inbox"), self.near.rows("outbox")), (0, 0))
        self.assertEqual(self.near.messages.counters()["uncertain"], 0)

    def test_credit_comes_back(self) -> None:
        self.stop_near()
        self.near.messenger._outgoing._allowed = 1 << 20
        for _ in range(3):
            sent = self.near.messenger.send(bytes(1_000_000), expires=5)
            self.wait(7)
            self.failureResultOf(sent, MessageExpired)
        self.assertEqual(self.near.messenger._outgoing._spent, 0)
        self.restart(self.near)
        self.assertEqual(self.near.messenger._outgoing._spent, 0)

    def test_what_is_under_way_goes_on(self) -> None:
        self.pair.deliver = lost
        sent = self.near.messenger.send(b"on its way", expires=5)
        self.wait(10)
        self.assertNoResult(sent)
        self.pair.deliver = unchanged
        self.wait(60)
        self.successResultOf(sent)
        self.assertEqual(self.far.heard.payloads, [b"on its way"])

    def test_what_was_sent_in_part_is_withdrawn(self) -> None:
        sent = self.near.messenger.send(bytes(20 << 20), expires=1)
        while not self.near.link.counters["records_acknowledged"]:
            self.assertTrue(self.pair.clock.step())
        self.stop_near()
        self.wait(3)
        self.failureResultOf(sent, MessageExpired)
        self.near.link.carrier_up()
        self.wait(60)
        self.assertEqual((self.far.heard.messages, self.far.rows("inbox")), ([], 0))
        self.assertEqual(self.far.messages.counters()["withdrawn"], 1)
        self.assertEqual(len(self.far.messenger._incoming._gathering), 0)

    def test_before_there_is_room_for_it(self) -> None:
        self.far.heard.keep = True
        self.patch(outgoing, "WINDOW", 1 << 20)
        self.near.messenger._outgoing._allowed = 1 << 20
        first = self.near.messenger.send(bytes(1 << 20))
        late = self.near.messenger.send(b"late", expires=5)
        patient = self.near.messenger.send(b"patient", expires=500)
        self.wait(10)
        self.successResultOf(first)
        self.failureResultOf(late, MessageExpired)
        self.assertNoResult(patient)

    def test_those_that_were_delivered_are_forgotten(self) -> None:
        for _ in range(15):
            for _ in range(100):
                self.near.messenger.send(b"x", expires=1e6)
            self.pair.advance(1)
        self.assertLess(len(self.near.messenger._outgoing._expiring), 1200)


class UnfinishedTests(MessageCase):
    """Messages of which not all gets into the journal."""

    def test_a_sender_that_is_killed_in_the_midst(self) -> None:
        """What has come of it is let go of, with its credit."""
        self.near.messenger.send(bytes(LARGE))
        while not self.near.rows("message_unfinished"):
            self.assertTrue(self.pair.clock.step())
        self.near.crash()
        self.near.start()
        self.pair.advance(30)
        self.assertEqual(self.far.heard.messages, [])
        self.assertEqual(self.far.messages.counters()["withdrawn"], 1)
        self.assertEqual(self.far.messenger._incoming._released, LARGE)
        for node, table in ((self.far, "inbox"), (self.near, "outbox"), (self.near, "message_unfinished")):
            self.assertEqual(node.rows(table), 0, table)
        self.assertEqual(len(self.far.messenger._incoming._gathering), 0)

    def test_pieces_that_come_after_the_withdrawal(self) -> None:
        payload = bytes(2 * PIECE)
        self.plant(encode_piece(ID, payload, 0), encode_withdrawal(ID, len(payload)))
        self.assertEqual(self.far.rows("inbox"), 0)
        self.restart(self.far)
        self.pair.advance(20)
        self.plant(encode_piece(ID, payload, 1))
        self.assertEqual((self.far.rows("inbox"), self.far.heard.messages), (0, []))

    def test_what_is_whole_is_not_withdrawn(self) -> None:
        self.far.heard.keep = True
        self.plant(encode_piece(ID, b"x", 0), encode_withdrawal(ID, 1))
        [message] = self.far.heard.messages
        self.pair.result(message.consume())
        self.assertEqual(self.far.rows("inbox"), 0)

    def test_a_journal_that_gets_full_in_the_midst(self) -> None:
        commit = self.near.link.commit
        commits = 0

        def full(*arguments: Any, **named: Any) -> Deferred[Any]:
            nonlocal commits
            commits += 1
            if commits in (2, 3):

                def refuse(transaction: object) -> None:
                    raise JournalFull("no room")

                return commit(also=refuse)
            return commit(*arguments, **named)

        self.patch(self.near.link, "commit", full)
        self.assertRaises(JournalFull, self.pair.result, self.near.messenger.send(bytes(LARGE)))
        self.pair.advance(10)
        self.assertEqual(self.far.messages.counters()["withdrawn"], 0)
        self.near.messages.tick()
        self.pair.advance(10)
        self.assertEqual(self.far.messages.counters()["withdrawn"], 1)
        self.assertEqual((self.far.rows("inbox"), self.near.rows("message_unfinished")), (0, 0))


class FullTests(MessageCase):
    """A journal that is too full even to let go of something: that is done once there is room."""

    def flow(self) -> Any:
        """What far's journal has of credit: what was released, and what may be sent."""
        reading = self.far.journal.transact(
            lambda t: t.execute("SELECT released, allowed FROM message_flow").fetchall()
        )
        return self.pair.result(reading)

    def plant_while_full(self) -> None:
        """Two pieces of one message and its withdrawal, something malformed, and credit."""
        full = self.patch(self.far.link, "commit", lambda *_, **__: fail(JournalFull("no room")))
        pieces = [encode_piece(ID, bytes(3 * PIECE), number) for number in range(2)]
        self.plant(*pieces, b"nonsense", encode_withdrawal(ID, 3 * PIECE), encode_credit(WINDOW))
        self.assertEqual(self.far.rows("inbox"), 5)
        full.restore()

    def test_what_is_of_no_use(self) -> None:
        self.plant_while_full()
        self.far.messages.tick()
        self.pair.advance(1)
        self.assertEqual((self.far.rows("inbox"), self.far.rows("message_withdrawn")), (0, 1))
        self.assertEqual(self.flow(), [(3 * PIECE, WINDOW)])

    def test_of_a_log_that_has_begun_anew_meanwhile(self) -> None:
        """Its credit does not count in the next one."""
        self.plant_while_full()
        self.far.messenger.rolled_back([])
        self.far.messages.tick()
        self.pair.advance(1)
        self.assertEqual(self.far.rows("inbox"), 0)
        self.assertEqual(self.flow(), [(0, 0)])

    def test_what_has_expired(self) -> None:
        self.near.link.carrier_down()
        full = self.patch(self.near.link, "cancel", lambda ids: fail(JournalFull("no room")))
        late = self.near.messenger.send(b"late", expires=1)
        for _ in range(4):
            self.pair.advance(1)
            self.near.messages.tick()
        self.assertNoResult(late)
        full.restore()
        self.pair.advance(2)
        self.near.messages.tick()
        self.pair.advance(1)
        self.failureResultOf(late, MessageExpired)
        self.assertEqual(self.near.link.backlog(), 0)


class HostileTests(MessageCase):
    """An authenticated peer that does not keep to the rules."""

    def test_what_is_no_message_is_counted_and_let_go_of(self) -> None:
        """And does not fill the log."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        total = 2 * PIECE
        self.plant(
            b"",
            b"\x09nonsense",
            encode_piece(ID, bytes(total), 0),
            encode_piece(ID, bytes(total), 0),
            encode_piece(ID, bytes(total + 1), 1),
            b"\x03" + bytes(7),
        )
        self.assertEqual(self.far.messages.counters()["malformed"], 5)
        self.assertEqual(self.far.rows("inbox"), 1)
        self.pair.advance(EVERY)
        self.far.messages.tick()
        said = [line for event in events if "no message" in (line := formatEvent(event))]
        self.assertEqual(len(said), 2)
        self.assertTrue(said[1].endswith("; so were 3 other records since the last that was named"), said[1])
        self.near.tell(b"fine")
        self.pair.advance(5)
        self.assertEqual(self.far.heard.payloads, [b"fine"])


class RollbackTests(MessageCase):
    """One side was restored or lost its state."""

    def test_of_the_receiver(self) -> None:
        """What was under way is uncertain; what was not sent yet is sent."""
        self.pair.deliver = lost
        [uncertain] = self.near.tell(b"under way")
        self.pair.advance(1)
        self.pair.deliver = unchanged
        self.lose_state(self.far)
        self.pair.advance(60)
        self.failureResultOf(uncertain, MessageUncertain)
        self.assertEqual((self.near.heard.rollbacks, self.far.heard.rollbacks), (1, 0))
        [sent] = self.near.tell(b"after")
        self.pair.advance(5)
        self.successResultOf(sent)
        self.assertEqual(self.far.heard.payloads, [b"after"])
        self.assertEqual(self.near.messages.counters()["uncertain"], 1)

    def test_what_was_not_numbered_goes_on(self) -> None:
        self.near.crash()
        self.near.start()
        sent = self.near.tell(b"small", Random(3).randbytes(LARGE))
        self.lose_state(self.far)
        self.pair.advance(60)
        for one in sent:
            self.successResultOf(one)
        self.assertEqual(len(self.far.heard.messages), 2)

    def test_in_the_midst_of_a_large_one(self) -> None:
        """It is uncertain, and nothing of it stays at the peer."""
        tried = 0
        for steps in range(3, 27, 4):
            sending = self.near.messenger.send(bytes(10 << 20))
            for _ in range(steps):
                self.pair.clock.step()
            self.lose_state(self.far)
            self.pair.advance(200)
            results: list[Any] = []
            sending.addBoth(results.append)
            if not isinstance(results[0], UUID):
                self.assertTrue(results[0].check(MessageUncertain), results[0])
                tried += 1
                self.assertEqual(self.far.heard.messages, [])
            self.assertEqual((self.far.rows("inbox"), len(self.far.messenger._incoming._gathering)), (0, 0))
            self.assertEqual(self.near.rows("message_unfinished"), 0)
        self.assertGreater(tried, 2)

    def test_of_the_sender(self) -> None:
        """What is whole stays, what is not goes, and the credit begins anew on both sides."""
        self.near.tell(b"consumed")
        self.pair.advance(5)
        self.far.heard.messages.clear()
        self.far.heard.keep = True
        self.plant(encode_piece(b"b" * 16, bytes(2 * PIECE), 0))
        self.near.tell(b"whole")
        self.pair.advance(5)
        self.assertEqual(self.far.rows("inbox"), 2)
        self.lose_state(self.near)
        self.pair.advance(60)
        self.assertEqual((self.far.heard.rollbacks, self.far.rows("inbox")), (1, 1))
        for message in self.far.heard.messages:
            self.pair.result(message.consume())
        self.assertEqual(self.far.messenger._incoming._released, 0)
        self.restart(self.far, keep=True)
        self.near.tell(b"more")
        self.pair.advance(20)
        [message] = self.far.heard.messages
        self.pair.result(message.consume())
        self.assertEqual(self.far.messenger._incoming._released, MIN_COST)

    def test_what_is_found_at_the_start_is_of_the_earlier_log(self) -> None:
        """Although it is handed up after the program was told that the log begins anew."""
        self.far.heard.keep = True
        self.plant(encode_piece(b"b" * 16, bytes(2 * PIECE), 0))
        self.near.tell(b"whole")
        self.pair.advance(5)
        self.restart(self.far)
        self.lose_state(self.near)
        self.pair.advance(60)
        self.assertEqual((self.far.heard.rollbacks, self.far.heard.payloads), (1, [b"whole"]))
        self.assertEqual((self.far.rows("inbox"), self.far.messenger._incoming._released), (0, 0))

    def test_it_is_noted_once_there_is_room(self) -> None:
        """Until then nothing is handed up, for nobody would know of which log it is."""
        self.far.link.carrier_down()
        self.lose_state(self.near)
        full = refuse(self, self.far.journal, JournalFull("no room"))
        self.far.messenger.rolled_back([])
        full.restore()
        self.far.link.carrier_up()
        self.near.tell(b"more")
        self.pair.advance(20)
        self.assertEqual(self.far.heard.payloads, [])
        self.far.messages.tick()
        self.pair.advance(1)
        self.assertEqual(self.far.heard.payloads, [b"more"])

    def test_what_the_program_sends_in_answer(self) -> None:
        self.near.heard.greeting = b"where were we?"
        self.lose_state(self.far)
        self.pair.advance(60)
        self.assertEqual(self.far.heard.payloads, [b"where were we?"])


def by_size(payloads: Iterable[bytes | None]) -> list[bytes]:
    """Those that were handed up whole: messages may overtake each other."""
    return sorted((payload for payload in payloads if payload is not None), key=len)
