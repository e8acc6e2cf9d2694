"""A link: commits, reports, crashes, carriers that fail and journals that are full."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import (
    JournalError,
    JournalFull,
    LinkClosed,
    PayloadDamaged,
    PayloadLost,
    RecordDamaged,
)
from hoft.interfaces import Delivery, ILink, ITransaction, LinkState, Outgoing
from hoft.protocols.layout import SPARED
from hoft.protocols.link_state import DOWN_AFTER
from hoft.protocols.pacing import Limits
from hoft.protocols.packets import Header
from hoft.protocols.publishing import CONTROL_FILES, RETRY_LONGEST
from hoft.protocols.sending import PROBE_FILES
from hoft.transports.memory import unchanged
from tests.protocols.nodes import SETTINGS, Pair, lost, refuse


class LinkTestCase(SynchronousTestCase):
    """With two nodes that have found each other."""

    def setUp(self) -> None:
        self.pair = Pair(self)
        self.near, self.far = self.pair.near, self.pair.far
        self.pair.start()


class CommitTests(LinkTestCase):
    """What the layer above asks for."""

    def test_there(self) -> None:
        """A committed record arrives, is handed up once, and its acknowledgement is reported."""
        ids = self.near.send(b"one", b"two")
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [b"one", b"two"])
        self.assertEqual(self.near.program.acknowledged, ids)
        self.assertEqual(self.near.link.backlog(), 0)
        self.assertEqual((self.near.rows("outbox"), self.far.rows("inbox")), (0, 0))

    def test_in_order(self) -> None:
        """Commits take effect in the order of the calls, and so do records of the same urgency."""
        done: list[int] = []
        for number in range(20):
            committed: Deferred[Any] = self.near.link.commit([Outgoing(b"%d" % number, 1)])
            committed.addCallback(lambda _, which: done.append(which), number)
        self.pair.advance(5)
        self.assertEqual(done, [*range(20)])
        self.assertEqual(self.far.program.payloads, [b"%d" % number for number in range(20)])

    def test_also(self) -> None:
        """What the layer above writes is in the same transaction: all or nothing."""

        def broken(transaction: ITransaction) -> None:
            transaction.execute("CREATE TABLE mine (number)")
            raise ZeroDivisionError

        failing = self.near.link.commit([Outgoing(b"never", 1)], also=broken)
        self.assertRaises(ZeroDivisionError, self.pair.result, failing)
        done = self.pair.result(self.near.link.commit([Outgoing(b"now", 1)], also=lambda t: 7))
        self.assertEqual(done.value, 7)
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [b"now"])
        self.assertEqual(self.near.link.backlog(), 0)
        tables = self.near.journal.transact(lambda t: t.execute("SELECT name FROM sqlite_master").fetchall())
        self.assertNotIn(("mine",), self.pair.result(tables))

    def test_durable(self) -> None:
        """A durable commit is told, and sent, once the disk has it; an ordered one may go before."""
        order: list[str] = []
        for grade in ("durable", "ordered"):
            committed: Deferred[Any] = self.near.link.commit([Outgoing(b"x", 1)], durable=grade == "durable")
            committed.addCallback(lambda _, which: order.append(which), grade)
        self.pair.advance(5)
        self.assertEqual(order, ["ordered", "durable"])
        self.assertEqual(self.far.program.payloads, [b"x", b"x"])

    def test_read(self) -> None:
        """What is in the inbox can be read until it is consumed, and then not."""
        self.far.program.keep = True
        self.near.send(b"small", b"l" * 50_000)
        self.pair.advance(5)
        ids = [record.id for record in self.far.program.received]
        self.assertEqual(self.pair.result(self.far.link.read(ids)), [b"small", b"l" * 50_000])
        self.pair.result(self.far.link.commit(consume=ids[:1]))
        self.assertRaises(PayloadLost, self.pair.result, self.far.link.read(ids))
        self.assertEqual(self.pair.result(self.far.link.read(ids[1:])), [b"l" * 50_000])

    def test_backlog(self) -> None:
        """Bytes count from the call of commit on, until acknowledged."""
        self.pair.deliver = lost
        self.near.link.commit([Outgoing(b"x" * 1000, 1)])
        self.assertEqual(self.near.link.backlog(), 1000)
        self.pair.advance(1)
        self.assertEqual(self.near.link.backlog(), 1000)

    def test_delivery(self) -> None:
        """How far a record has come: in our journal, in a file, with the peer."""
        self.near.link.carrier_down()
        [id] = self.near.send(b"x")
        self.assertIs(self.near.link.delivery(id), Delivery.QUEUED)
        self.pair.deliver = lost
        self.near.link.carrier_up()
        self.pair.advance(0.1)
        self.assertIs(self.near.link.delivery(id), Delivery.SENT)
        self.pair.deliver = unchanged
        self.pair.advance(60)
        self.assertIs(self.near.link.delivery(id), Delivery.ACKNOWLEDGED)

    def test_closed(self) -> None:
        """After close nothing is taken."""
        self.near.link.close()
        self.assertRaises(LinkClosed, self.pair.result, self.near.link.commit([Outgoing(b"x", 1)]))

    def test_before_the_peer_is_known(self) -> None:
        """Records wait for synchronisation, without numbers, and follow it in order."""
        self.pair.stop()
        self.near.start()
        self.near.send(b"one")
        self.near.send(b"two")
        self.pair.advance(60)
        self.assertEqual(self.near.link.state, LinkState.UNKNOWN)
        self.far.start()
        self.pair.advance(60)
        self.assertEqual(self.far.program.payloads, [b"one", b"two"])

    def test_one_peer_of_many(self) -> None:
        """It is greeted when something is committed for it, and at a start for which something waits."""
        self.near.crash()
        self.far.crash()
        self.pair.settings = evolve(SETTINGS, hello_spread=10_000.0)
        self.near.start()
        self.pair.advance(3)
        self.assertEqual(self.near.transport.tries, [])
        self.near.send(b"one")
        self.pair.advance(3)
        self.assertEqual(len(self.near.transport.tries), 1)
        self.near.crash()
        self.near.start()
        self.pair.advance(3)
        self.assertEqual(len(self.near.transport.tries), 1)
        self.far.start()
        self.pair.advance(20)
        self.assertEqual(self.far.program.payloads, [b"one"])


class HandedOverTests(LinkTestCase):
    """Durable commits that are told after an adoption has taken their records over."""

    def test_once(self) -> None:
        """The record is sent once, acknowledged once, and nothing of it remains."""
        slow: list[Deferred[None]] = []
        call = self.near.workers[1].call

        def sync(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
            waiting: Deferred[Any] = Deferred()
            call(function, *arguments).addCallback(lambda result: slow.append(waiting))
            return waiting

        self.near.workers[1].call = sync  # type: ignore[method-assign]  # a disk that takes its time
        committed: Deferred[Any] = self.near.link.commit([Outgoing(b"once", 1)], durable=True)
        self.pair.advance(0.1)
        self.far.crash()
        self.far.start()
        self.pair.advance(30)
        self.assertEqual(self.far.program.payloads, [b"once"])
        self.assertNoResult(committed)
        for _ in range(10):
            while slow:
                slow.pop(0).callback(None)
            self.pair.advance(1)
        ids = list(self.successResultOf(committed).sent)
        self.pair.advance(300)
        self.assertEqual(self.near.program.acknowledged, ids)
        self.assertEqual(self.near.link.backlog(), 0)
        self.assertEqual(len(self.near.link.engine.sender.records), 0)
        self.assertEqual(len(self.near.link._records.outbox), 0)


class CrashTests(LinkTestCase):
    """What a crash leaves is taken up again."""

    def test_of_the_sender(self) -> None:
        """What was committed and not acknowledged is sent again under its number."""
        self.pair.deliver = lost
        self.near.send(b"one", b"l" * 50_000)
        self.pair.advance(1)
        self.near.crash()
        self.pair.deliver = unchanged
        self.near.start()
        self.pair.advance(120)
        self.assertEqual(self.far.program.payloads, [b"one", b"l" * 50_000])
        self.assertEqual(self.far.link.engine.receiver.duplicates, 0)

    def test_of_the_receiver(self) -> None:
        """What was not consumed is handed up again, without its payload, and only once synchronised."""
        self.far.program.keep = True
        self.near.send(b"one", b"l" * 50_000)
        self.pair.advance(5)
        ids = [record.id for record in self.far.program.received]
        self.far.crash()
        self.near.crash()
        self.far.start()
        self.pair.advance(30)
        self.assertEqual(self.far.program.received, [])
        self.near.start()
        self.pair.advance(30)
        self.assertEqual([record.id for record in self.far.program.received], ids)
        self.assertEqual(self.far.program.payloads, [None, None])
        self.assertEqual([record.size for record in self.far.program.received], [3, 50_000])

    def test_consumed_before_it_is_handed_up(self) -> None:
        """A program that knows of a record by what it has written itself may consume it first."""
        self.far.program.keep = True
        self.near.send(b"one", b"two")
        self.pair.advance(5)
        ids = [record.id for record in self.far.program.received]
        self.far.crash()
        self.near.crash()
        self.far.start()
        self.pair.result(self.far.link.commit(consume=ids[:1]))
        self.near.start()
        self.pair.advance(30)
        self.assertEqual([record.id for record in self.far.program.received], ids[1:])

    def test_nothing_twice(self) -> None:
        """The ack is lost, both crash: what was handed up and consumed is a duplicate for ever."""
        self.near.send(b"one")
        self.pair.clock.step()
        while not self.far.program.received:
            self.pair.clock.step()
        self.pair.advance(0.003)
        self.far.crash()
        self.near.crash()
        self.far.start()
        self.near.start()
        self.pair.advance(60)
        self.assertEqual(self.far.program.received, [])
        self.assertEqual(self.near.rows("outbox"), 0)

    def test_opened_again(self) -> None:
        """A link that is closed and opened in one process goes on, its packets' numbers too."""
        self.near.send(b"one")
        self.pair.advance(5)
        self.near.link.close()
        self.near.router.remove(self.far.uuid)
        before = len(self.pair.crossed)
        self.near.open_link()
        self.near.send(b"two")
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [b"one", b"two"])
        mine = [
            Header.decode(data[:108]).number
            for sender, _, data in self.pair.crossed
            if sender == self.near.uuid
        ]
        self.assertEqual(mine, [*range(1, len(mine) + 1)])
        self.assertLess(len(self.pair.crossed) - before, 10)

    def test_opened_again_and_used_at_once(self) -> None:
        """What is committed before the peer is known again is no past that the peer could know more of."""
        self.near.send(b"one")
        self.pair.advance(5)
        self.near.link.close()
        self.near.router.remove(self.far.uuid)
        incarnation = self.near.journal.incarnation
        self.patch(self.near, "opened", lambda: self.near.send(b"two"))
        self.near.open_link()
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [b"one", b"two"])
        self.assertEqual(self.near.journal.incarnation, incarnation)
        self.assertEqual([node.link.counters["rollbacks"] for node in (self.near, self.far)], [0, 0])


class RollbackTests(LinkTestCase):
    """What the layer above is told of restores."""

    def _restore_far(self) -> None:
        """Far's state is lost altogether."""
        self.far.crash()
        for path in sorted(self.far.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        self.far.start()

    def test_told(self) -> None:
        """With the records that are sent all the same; the others' fate is unknown."""
        self.pair.deliver = lost
        [dropped] = self.near.send(b"under way")
        self.pair.advance(1)
        self.near.crash()
        self.near.start()
        [kept] = self.near.send(b"not numbered yet")
        self.pair.deliver = unchanged
        self._restore_far()
        self.pair.advance(60)
        self.assertEqual(self.near.program.rollbacks, [[kept]])
        self.assertNotIn(dropped, self.near.program.acknowledged)
        self.assertEqual(self.far.program.payloads, [b"not numbered yet"])
        self.assertEqual(self.far.program.rollbacks, [])
        self.assertEqual(self.near.link.counters["rollbacks"], 1)
        self.assertEqual(self.near.link.backlog(), 0)

    def test_what_may_come_twice_is_sent_again(self) -> None:
        """Under way when the peer loses its state, it crosses in the new log, and is named as sent."""
        for arrives in (False, True):
            with self.subTest(arrives=arrives):
                # Either it never came, or what says so is lost with the life in which it came.
                self.pair.deliver = lost
                if arrives:
                    self.pair.deliver = lambda sender, recipient, name, data: (
                        [(0.0, data)] if recipient == self.far.uuid else ()
                    )
                sent: Deferred[Any] = self.near.link.commit(
                    [Outgoing(b"for good", 1), Outgoing(b"again", 1, compress_from=0, again=True)]
                )
                [_, kept] = self.pair.result(sent).sent
                self.pair.advance(1)
                self.assertEqual(b"again" in self.far.program.payloads, arrives)
                self.pair.deliver = unchanged
                self._restore_far()
                self.pair.advance(60)
                self.assertEqual(self.near.program.rollbacks[-1], [kept])
                self.assertEqual(self.far.program.payloads, [b"again"])
                self.assertEqual(self.near.program.acknowledged, [kept])
                self.assertEqual(self.near.link.backlog(), 0)
                self.near.program.acknowledged.clear()

    def test_not_if_it_was_we_who_were_restored(self) -> None:
        """What waited in the older copy may be long done, and done otherwise since."""
        self.pair.deliver = lost
        self.pair.result(self.near.link.commit([Outgoing(b"again", 1, again=True)]))
        self.pair.advance(0.1)
        self.pair.deliver = unchanged
        self.pair.result(self.near.router.begin_anew("a test"))
        self.pair.advance(60)
        self.assertEqual(self.near.program.rollbacks, [[]])
        self.assertEqual(self.far.program.payloads, [])

    def test_told_again(self) -> None:
        """A crash before what the program made of it was committed: it is told again, then no more."""
        near = self.near
        told: list[bool] = []
        near.program.on_rollback = lambda link: told.append(True)
        self._restore_far()
        while not told:
            self.pair.clock.step()
        near.crash()
        near.start()
        self.assertEqual(len(near.program.rollbacks), 1)
        self.pair.advance(1)
        near.crash()
        near.start()
        self.assertEqual(near.program.rollbacks, [])

    def test_told_again_until_all_that_follows_was_asked_for(self) -> None:
        """Whoever has much to commit takes its time, also with one report after the other."""
        near, busy = self.near, [Deferred[None](), Deferred[None]()]
        answers = iter(busy)
        near.program.on_rollback = lambda link: next(answers)
        for _ in busy:
            self._restore_far()
            self.pair.advance(60)
        busy[0].callback(None)
        self.pair.advance(1)
        near.crash()
        near.program.on_rollback = lambda link: None
        near.start()
        self.assertEqual(len(near.program.rollbacks), 1)

    def test_committed_with_the_report(self) -> None:
        """What is asked for within the call is in the journal before the report counts as made."""

        def note(link: ILink) -> None:
            link.commit(also=lambda t: t.execute("CREATE TABLE noted (number)"))

        near = self.near
        near.program.on_rollback = note
        self._restore_far()
        self.pair.advance(60)
        near.crash()
        near.start()
        self.assertEqual(near.program.rollbacks, [])
        self.assertEqual(near.rows("noted"), 0)

    def test_files_of_the_old_log(self) -> None:
        """Our files that nobody needs any more are removed."""
        self.pair.deliver = lost
        self.near.send(b"under way")
        self.pair.advance(1)
        names = [name for sender, name, _ in self.pair.crossed if sender == self.near.uuid]
        self.pair.deliver = unchanged
        self._restore_far()
        self.pair.advance(60)
        self.assertIn(names[-1], self.near.transport.removed)


class CarrierTests(LinkTestCase):
    """A carrier that fails."""

    def test_write_failures(self) -> None:
        """The link is down, tries again after ever longer waits up to ten seconds, and loses nothing."""
        self.near.transport.broken = True
        self.near.transport.tries.clear()
        self.near.send(b"one", b"two")
        self.pair.advance(3600)
        self.assertEqual(self.near.link.state, LinkState.DOWN)
        tries = self.near.transport.tries
        waits = [later - earlier for earlier, later in pairwise(tries)]
        self.assertLess(waits[0], 0.6)
        self.assertLess(max(waits), RETRY_LONGEST + 0.1)
        self.assertLess(len(tries), 370)
        self.near.transport.broken = False
        self.pair.advance(RETRY_LONGEST + 5)
        self.assertEqual(self.far.program.payloads, [b"one", b"two"])
        self.assertEqual(self.near.link.state, LinkState.UP)
        self.flushLoggedErrors()

    def test_an_answer_that_was_not_written(self) -> None:
        """The acknowledgement is owed again, without the peer having to ask."""
        self.far.transport.broken = True
        self.near.send(b"one")
        self.pair.advance(0.05)
        self.far.transport.broken = False
        self.pair.deliver = lambda sender, recipient, name, data: (
            () if sender == self.near.uuid else unchanged(sender, recipient, name, data)
        )
        self.pair.advance(1)
        self.assertEqual(len(self.near.program.acknowledged), 1)

    def test_down(self) -> None:
        """While the carrier says it is down nothing is written; then everything is."""
        self.near.router.carrierDown("unmounted")
        before = len(self.near.transport.tries)
        self.near.send(b"one")
        self.pair.advance(600)
        self.near.link.tick()
        self.assertEqual(len(self.near.transport.tries), before)
        self.assertEqual(self.near.link.state, LinkState.DOWN)
        self.near.router.carrierUp()
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [b"one"])
        self.assertEqual(self.near.link.state, LinkState.UP)

    def test_control_only_files(self) -> None:
        """They do not pile up where nobody reads: four at most lie there."""
        self.far.crash()
        self.near.crash()
        self.near.start()
        inbox = self.pair.folder.inbox(self.far.uuid)
        inbox.clear()
        self.pair.advance(100_000)
        self.assertLessEqual(len(inbox), CONTROL_FILES)
        self.assertGreater(len(self.near.transport.removed), 50)

    def test_late(self) -> None:
        """A peer that does not answer what it was sent is late, and stays so until it does."""
        self.pair.deliver = lost
        self.near.send(b"one")
        self.pair.advance(20)
        self.assertEqual(self.near.link.state, LinkState.UP)
        for _ in range(20):
            self.pair.advance(30)
            self.near.link.tick()
        self.assertEqual(self.near.link.state, LinkState.LATE)
        self.assertEqual(self.near.program.states.count(LinkState.LATE), 1)

    def test_nothing_left_lying(self) -> None:
        """After a quiet hour all files of either side are gone, and no call is pending for long."""
        for number in range(50):
            self.near.send(b"x" * number * 100)
            self.far.send(b"y" * number)
        self.pair.advance(3600)
        self.assertLessEqual(len(self.pair.folder.inbox(self.far.uuid)), 0)
        self.assertLessEqual(len(self.pair.folder.inbox(self.near.uuid)), 0)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_earlier_processes(self) -> None:
        """What an earlier process wrote is cleared away once the peer knows this one, and not before."""
        self.far.crash()
        self.near.crash()
        old = f"{self.near.uuid}--{self.far.uuid}--{1:016x}-{1:016x}.hoft"
        self.near.start()
        self.pair.folder.inbox(self.far.uuid)[old] = b"its reader is not told of it"
        self.pair.advance(100)
        self.assertIn(old, self.pair.folder.inbox(self.far.uuid))
        self.pair.deliver = lambda sender, *file: (
            lost(sender, *file) if sender == self.near.uuid else unchanged(sender, *file)
        )
        self.pair.folder.inbox(self.far.uuid).clear()
        self.far.start()
        self.pair.folder.inbox(self.far.uuid)[old] = b"its reader is not told of it"
        self.pair.advance(100)
        self.assertIn(old, self.pair.folder.inbox(self.far.uuid))
        self.pair.deliver = unchanged
        self.pair.advance(1000)
        self.assertNotIn(old, self.pair.folder.inbox(self.far.uuid))


class CarrierLimitTests(SynchronousTestCase):
    """What the carrier or the user allows."""

    def _sent(self, pair: Pair, count: int, size: int = 60_000) -> list[int]:
        """The lengths of near's files for so many records."""
        before = len(pair.crossed)
        pair.near.send(*[bytes(size)] * count)
        pair.advance(20)
        return [len(data) for sender, _, data in pair.crossed[before:] if sender == pair.near.uuid]

    def test_short_files(self) -> None:
        """No file is longer than the carrier passes."""
        pair = Pair(self)
        pair.max_file = 200_000
        pair.start()
        lengths = self._sent(pair, 40)
        self.assertLessEqual(max(lengths), 200_000)
        self.assertGreater(max(lengths), 120_000)
        self.assertEqual(len(pair.far.program.payloads), 40)

    def test_few_files(self) -> None:
        """No more of ours lie there than the carrier bears, though none is read."""
        pair = Pair(self)
        pair.max_files = 12
        pair.start()
        pair.deliver = lost
        for _ in range(30):
            pair.near.send(b"one")
            pair.advance(1)
        self.assertLessEqual(pair.near.link.status()["files_in_transit"], 12)

    def test_slowly(self) -> None:
        """No more bytes a second than the user allows."""
        pair = Pair(self)
        pair.settings = evolve(SETTINGS, limits=Limits(bytes_per_second=100_000))
        pair.start()
        self.assertLess(sum(self._sent(pair, 100)), 20 * 100_000 + 2 * 100_000)
        pair.advance(100)
        self.assertEqual(len(pair.far.program.payloads), 100)

    def test_padding(self) -> None:
        """A carrier that loses the end of every file takes nothing that matters."""
        pair = Pair(self)
        pair.settings = evolve(SETTINGS, padding=100)
        pair.start()
        pair.deliver = lambda sender, recipient, name, data: [(0.0, data[:-90])]
        self._sent(pair, 10)
        self.assertEqual(len(pair.far.program.payloads), 10)
        self.assertEqual(pair.far.link.counters["packets_cut"], 0)

    def test_something_else_from_now_on(self) -> None:
        """What the user allows another time counts at once; what the carrier passes goes on to count."""
        pair = Pair(self)
        pair.max_file, pair.max_files = 200_000, 12
        pair.settings = evolve(SETTINGS, limits=Limits(bytes_per_second=100))
        pair.start()
        for node in (pair.near, pair.far):
            node.link.reconfigure(evolve(SETTINGS, padding=100))
        pair.deliver = lambda sender, recipient, name, data: [(0.0, data[:-90])]
        lengths = self._sent(pair, 40)
        self.assertEqual(len(pair.far.program.payloads), 40)
        self.assertEqual(pair.far.link.counters["packets_cut"], 0)
        self.assertGreater(max(lengths), 120_000)
        self.assertLessEqual(max(lengths), 200_000)
        pair.deliver = lost
        pair.near.send(*[b"one"] * 30)
        pair.advance(30)
        self.assertLessEqual(pair.near.link.status()["files_in_transit"], 12)

    def test_slower_from_now_on(self) -> None:
        """What waits goes out at the pace that is allowed now."""
        pair = Pair(self)
        pair.start()
        pair.near.link.reconfigure(evolve(SETTINGS, limits=Limits(bytes_per_second=100_000)))
        self.assertLess(sum(self._sent(pair, 50)), 20 * 100_000 + 2 * 100_000)

    def test_a_heartbeat_from_now_on(self) -> None:
        """A peer that has been silent for longer than that is asked at once."""
        pair = Pair(self)
        pair.start()
        pair.advance(1000)
        before = len(pair.crossed)
        pair.near.link.reconfigure(evolve(SETTINGS, heartbeat=30.0))
        pair.advance(1)
        self.assertGreater(len(pair.crossed), before)


class EstimatesTests(LinkTestCase):
    """What was learned of the carrier."""

    def test_kept(self) -> None:
        """The next process begins with it."""
        self.pair.deliver = lambda sender, recipient, name, data: [(2.0, data)]
        for _ in range(100):
            self.near.send(b"one")
            self.pair.advance(10)
        before = self.near.link.status()
        self.assertGreater(before["round_trip"], 3.9)
        self.near.crash()
        self.near.start()
        after = self.near.link.status()
        self.assertAlmostEqual(after["round_trip"], before["round_trip"], places=2)
        self.assertGreater(after["timeout"], before["round_trip"])
        self.assertEqual(after["packet_size"], before["packet_size"])


class StateTests(LinkTestCase):
    """How well the peer is heard."""

    def test_late_then_down(self) -> None:
        """An answer that is owed for half a minute makes it late, for an hour down; then it is up at once."""
        self.pair.deliver, deliver = lost, self.pair.deliver
        self.near.send(b"one")
        self.pair.advance(60)
        self.assertIs(self.near.link.state, LinkState.LATE)
        self.pair.advance(DOWN_AFTER)
        self.assertIs(self.near.link.state, LinkState.DOWN)
        self.assertGreater(self.near.link.status()["oldest_unacknowledged"], DOWN_AFTER)
        self.pair.deliver = deliver
        self.pair.advance(900)
        self.assertIs(self.near.link.state, LinkState.UP)
        self.assertIsNone(self.near.link.status()["oldest_unacknowledged"])
        self.assertEqual(self.near.program.states[-3:], [LinkState.LATE, LinkState.DOWN, LinkState.UP])


class JournalTests(LinkTestCase):
    """A journal that is full or broken."""

    def test_full(self) -> None:
        """The records' file stays for later, acknowledgements are heard, and at last there is room again."""
        self.far.send(b"before")
        far_id = self.far.send(b"mine")
        self.pair.advance(1)
        full = refuse(self, self.far.journal, JournalFull("no room"))
        self.near.send(b"one")
        self.pair.advance(30)
        self.assertEqual(self.far.program.payloads, [])
        self.assertEqual(self.near.program.acknowledged, [])
        self.assertGreater(self.far.carrier.counters()["files_deferred"], 0)
        full.restore()
        self.pair.advance(300)
        self.assertEqual(self.far.program.payloads, [b"one"])
        self.assertEqual(len(self.near.program.acknowledged), 1)
        self.assertEqual(self.far.program.acknowledged[-1:], far_id)

    def test_the_peer_is_told(self) -> None:
        """It sends records no more, but asks now and then; once there is room it goes on at once."""
        full = refuse(self, self.far.journal, JournalFull("no room"))
        self.near.send(b"one")
        self.pair.advance(5)
        self.assertTrue(self.near.link.status()["peer_full"])
        before = self.near.link.status()["packets_written"]
        self.near.send(*[b"more" * 20] * 50)
        self.pair.advance(60)
        self.assertLess(self.near.link.status()["packets_written"] - before, 60)
        self.assertLessEqual(self.near.link.engine.sender.files_in_transit(), 1 + PROBE_FILES)
        full.restore()
        self.far.carrier.wake()
        self.pair.advance(2)
        self.assertFalse(self.near.link.status()["peer_full"])
        self.assertEqual(len(self.far.program.payloads), 51)

    def test_what_makes_room_gets_through(self) -> None:
        """
        As long as half of what is kept back is there; and what is taken so is no sign of room.  That shows
        by what needs some, though nothing else is under way.
        """
        database = self.far.journal._database
        self.patch(database, "_full", True)
        self.patch(database._state, "keep_reserve", lambda: False)
        self.near.send(b"large" * 100)
        self.pair.advance(5)
        cancel, later = b"c" * SPARED, [b"l" * (SPARED + 1)] * 3
        self.near.send(*later, cancel)
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [cancel])
        self.assertTrue(self.near.link.status()["peer_full"])
        self.patch(database._state, "spares", lambda: False)
        self.near.send(b"second")
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [cancel])
        self.patch(database, "_full", False)
        self.pair.advance(120)
        self.assertEqual(len(self.far.program.payloads), 6)
        self.assertFalse(self.near.link.status()["peer_full"])

    def test_a_full_peer_is_tried_with_what_waits(self) -> None:
        """Though nothing is under way: what was is taken back, or was small."""
        database = self.far.journal._database
        state = self.patch(database._state, "keep_reserve", lambda: False)
        self.patch(database, "_full", True)
        self.near.send(b"large" * 100)
        self.pair.advance(5)
        [record] = self.near.link.engine.sender.records.by_number.values()
        self.near.link._damage.unsendable(RecordDamaged(record.number, PayloadDamaged("a test")))
        self.pair.advance(600)
        self.assertEqual(len(self.near.link.engine.sender.records), 0)
        self.assertTrue(self.near.link.status()["peer_full"])
        state.restore()
        self.patch(database, "_full", False)
        self.near.send(b"next" * 100)
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [b"next" * 100])

    def test_two_that_are_full(self) -> None:
        """Each still hears what the other has acknowledged, so that both get rid of it."""
        lose, self.pair.deliver = self.pair.deliver, lost
        self.far.send(b"mine")
        self.near.send(b"its")
        self.pair.advance(1)
        self.pair.deliver = lose
        while not (self.near.program.payloads and self.far.program.payloads):
            self.pair.clock.step()
        for node in (self.near, self.far):
            self.patch(node.journal._database, "has_room", lambda size: False)
        self.pair.advance(60)
        self.assertEqual((self.near.rows("outbox"), self.far.rows("outbox")), (0, 0))

    def test_too_full_to_note_what_is_acknowledged(self) -> None:
        """That is what makes room: it leaves the journal, and is told of, once there is any at all."""
        ids = self.near.send(b"one", b"two")
        full = refuse(self, self.near.journal, JournalFull("no room"))
        self.pair.advance(30)
        self.assertEqual(self.far.program.payloads, [b"one", b"two"])
        self.assertEqual(self.near.program.acknowledged, [])
        full.restore()
        self.pair.advance(3)
        self.assertEqual(self.near.program.acknowledged, ids)
        self.assertEqual(self.near.rows("outbox"), 0)

    def test_commits_are_refused(self) -> None:
        """The caller is told; nothing is counted as waiting."""
        refuse(self, self.far.journal, JournalFull("no room"))
        self.assertRaises(JournalFull, self.pair.result, self.far.link.commit([Outgoing(b"x", 1)]))
        self.assertEqual(self.far.link.backlog(), 0)

    def test_broken(self) -> None:
        """A journal that refuses everything at once: neither a loop nor a storm, whatever comes in."""
        self.near.send(b"one")
        self.pair.advance(0.02)
        broken = refuse(self, self.far.journal, JournalError("broken"))
        self.near.send(b"two")
        self.near.crash()
        self.near.start()  # a boot that far cannot adopt
        self.near.send(b"three")
        self.pair.advance(120)
        self.assertLess(len(self.flushLoggedErrors(JournalError)), 300)
        broken.restore()
        self.pair.advance(300)
        self.assertEqual(self.far.program.payloads, [b"one", b"two", b"three"])
        self.assertEqual(self.near.rows("outbox"), 0)


class LongLifeTests(LinkTestCase):
    """What many records leave behind: nothing."""

    def test_flat(self) -> None:
        """After ten times as many records, nothing that a link holds has grown."""

        def held() -> dict[str, int]:
            found = {}
            for node in (self.near, self.far):
                parts = {"link": node.link, "router": node.router, "sender": node.link.engine.sender}
                parts["receiver"] = node.link.engine.receiver
                for part, object in parts.items():
                    for name, value in vars(object).items():
                        if hasattr(value, "__len__"):
                            found[f"{node.name} {part} {name}"] = len(value)
            return found

        def exchange(count: int) -> dict[str, int]:
            for _ in range(count):
                for node in (self.near, self.far):
                    node.link.commit([Outgoing(b"x" * 20, 1)] * 10)
                self.pair.advance(0.05)
            self.pair.advance(600)
            return held()

        first, later = exchange(30), exchange(300)
        self.assertEqual(first, later)
        for node in (self.near, self.far):
            self.assertEqual((node.rows("outbox"), node.rows("inbox"), node.rows("retired")), (0, 0, 0))
