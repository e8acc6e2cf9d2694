"""The tables of the log, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hoft.interfaces import Incoming, ITransaction, Outgoing
from hoft.protocols import log, log_writing
from hoft.protocols.log_writing import Accept, Accepted, Acknowledge, Commit, Committed, Step
from tests.protocols.journals import InlineJournal

PEER, OTHER = b"p" * 16, b"o" * 16
BOOT, LATER_BOOT, THEIR_BOOT = 0xB1, 0xB2, 0xB9
THEM, THEM_ANEW = 0xE1, 0xE2


class LogTests(SynchronousTestCase):
    """One link's rows."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(mode=0o700)
        self.made = InlineJournal(folder, [log.SCHEMA])
        self.made.result(self.made.journal.open())
        self.addCleanup(self.made.crash)
        self.link = self.opened().link

    def opened(self, peer: bytes = PEER, boot: int = BOOT) -> log.Opened:
        return self.made.do(lambda t: log.open_log(t, peer, boot))

    def write(self, *steps: Step, boot: int = BOOT) -> list[Any]:
        return self.made.do(lambda t: log_writing.write(t, self.link, boot, steps))

    def enqueue(self, *payloads: bytes, boot: int = BOOT) -> Committed:
        [committed] = self.write(Commit([Outgoing(payload, 1) for payload in payloads], (), None), boot=boot)
        assert isinstance(committed, Committed)
        return committed

    def adopt(self, incarnation: int = THEM, boot: int = BOOT, clock: int = 5) -> log.Adopted:
        return self.made.do(lambda t: log.adopt(t, self.link, boot, incarnation, THEIR_BOOT, clock))

    def accepting(self, generation: int, payloads: Mapping[int, bytes], clock: int = 9) -> Accept:
        """Of records with these numbers, which get the next ids."""
        rows = self.made.do(
            lambda t: t.execute("SELECT last_inbox FROM link WHERE id = ?", (self.link,)).fetchall()
        )
        first = (rows[0][0] or log.ids_of(self.link)[0]) + 1
        records = [Incoming(first + at, 1, len(one), one) for at, one in enumerate(payloads.values())]
        return Accept(generation, clock, list(payloads), records, records[-1].id)

    def accept(self, generation: int, *numbers: int, clock: int = 9) -> Accepted | None:
        [accepted] = self.write(self.accepting(generation, {n: b"payload %d" % n for n in numbers}, clock))
        assert accepted is None or isinstance(accepted, Accepted)
        return accepted

    def raise_clock(self, boot: int = BOOT) -> int:
        return self.enqueue(boot=boot).clock

    def test_boots(self) -> None:
        """Those of ours are kept, the latest, and the one of the peer that was adopted last."""
        self.assertEqual((self.opened().state.peer_boot, self.opened().state.boots), (0, [BOOT]))
        self.adopt()
        for boot in range(1000, 1000 + log.BOOTS):
            self.opened(boot=boot)
        opened = self.opened(PEER)
        self.assertEqual(opened.state.peer_boot, THEIR_BOOT)
        self.assertEqual(opened.state.boots, [*range(1001, 1000 + log.BOOTS), BOOT])

    def test_empty(self) -> None:
        """A link that is new."""
        opened = self.opened()
        self.assertEqual((opened.generation, opened.state.clock, opened.state.peer_incarnation), (0, 0, 0))
        self.assertEqual((list(opened.outbox), list(opened.inbox), list(opened.state.received)), ([], [], []))
        self.assertFalse(opened.rolled_back)
        self.assertNotEqual(self.opened(OTHER).link, self.link)

    def test_numbers(self) -> None:
        """None before the peer is adopted; then from 1, in order, without a gap."""
        first = self.enqueue(b"a", b"b")
        self.assertEqual([queued.number for queued in first.records], [None, None])
        adopted = self.adopt()
        self.assertEqual([queued.number for queued in adopted.outbox], [1, 2])
        self.assertEqual(adopted.last, first.records[-1].id)
        self.assertEqual([queued.number for queued in self.enqueue(b"c", b"d").records], [3, 4])

    def test_numbers_after_a_restart(self) -> None:
        """A boot numbers nothing before it has adopted the peer itself; numbers go on."""
        self.adopt()
        self.enqueue(b"a")
        self.assertEqual([queued.number for queued in self.enqueue(b"b", boot=LATER_BOOT).records], [None])
        adopted = self.adopt(boot=LATER_BOOT)
        self.assertEqual([queued.number for queued in adopted.outbox], [1, 2])
        self.assertEqual((adopted.generation, list(adopted.dropped)), (1, []))

    def test_the_clock(self) -> None:
        """It stands still until the link is synchronised in this boot, then goes up with each commit."""
        self.assertEqual([self.raise_clock(), self.raise_clock()], [0, 0])
        self.assertEqual(self.adopt().clock, 1)
        self.assertEqual([self.raise_clock(), self.raise_clock()], [2, 3])
        self.assertEqual(self.raise_clock(LATER_BOOT), 3)
        accepted = self.accept(1, 1)
        assert accepted is not None
        self.assertEqual(accepted.clock, 4)
        self.assertEqual(self.opened().state.clock, 4)

    def test_received(self) -> None:
        """Records and their numbers, in one step; consumed ones stay known."""
        self.adopt()
        accepted = self.accept(1, 1, 2, 5)
        assert accepted is not None
        self.write(Commit((), [accepted.records[1].id, 999], None))
        opened = self.opened()
        self.assertEqual(list(opened.state.received), [(1, 2), (5, 5)])
        self.assertEqual([held.id for held in opened.inbox], [accepted.records[0].id, accepted.records[2].id])
        self.assertEqual(opened.state.peer_clock, 9)

    def test_of_a_log_that_is_over(self) -> None:
        """What was begun for an earlier log has no effect."""
        self.adopt()
        old = self.enqueue(b"a")
        self.adopt(THEM_ANEW)
        self.enqueue(b"b")
        self.assertIsNone(self.accept(1, 1))
        self.write(Acknowledge(old.generation, 99, old.records))
        opened = self.opened()
        self.assertEqual((list(opened.state.received), list(opened.inbox)), ([], []))
        self.assertEqual((len(opened.outbox), opened.state.peer_clock), (1, 5))

    def test_acknowledged(self) -> None:
        """The records are gone, with their payloads; what the peer's clock was is kept."""
        self.adopt()
        queued = self.enqueue(b"x" * 50_000, b"b").records
        self.write(Acknowledge(1, 30, queued[:1]))
        opened = self.opened()
        self.assertEqual([one.id for one in opened.outbox], [queued[1].id])
        self.assertEqual(opened.state.peer_clock, 30)
        self.write(Acknowledge(1, 20, queued[1:]))
        self.assertEqual(self.opened().state.peer_clock, 30)
        live = self.made.do(lambda t: t.execute("SELECT sum(live) FROM segment").fetchone()[0])
        self.assertFalse(live)

    def test_a_new_incarnation_of_the_peer(self) -> None:
        """What had numbers is dropped, what had none is sent; the report is due until it was made."""
        self.adopt()
        numbered = self.enqueue(b"a").records[0]
        fresh = self.enqueue(b"b", boot=LATER_BOOT).records[0]
        self.accept(1, 1, 2)
        adopted = self.adopt(THEM_ANEW, LATER_BOOT, clock=2)
        self.assertEqual(list(adopted.dropped), [numbered.id])
        self.assertEqual([(queued.id, queued.number) for queued in adopted.outbox], [(fresh.id, 1)])
        opened = self.opened()
        self.assertEqual(
            (opened.generation, opened.state.peer_incarnation, opened.state.peer_clock), (2, THEM_ANEW, 2)
        )
        self.assertEqual((list(opened.state.retired), list(opened.state.received)), ([THEM], []))
        self.assertEqual(len(opened.inbox), 2)
        self.assertTrue(opened.rolled_back)
        self.made.do(lambda t: log.rollback_told(t, self.link))
        self.assertFalse(self.opened().rolled_back)

    def test_many_steps_at_once(self) -> None:
        """In their order, and with the same effect as one after the other."""
        self.adopt()
        large = b"x" * 50_000
        payloads = {number: large if number == 3 else b"small" for number in range(1, 71)}
        [accepted] = self.write(self.accepting(1, payloads))
        held = [one.id for one in accepted.records]
        queued = self.enqueue(b"a", large).records

        def seen(transaction: ITransaction) -> int:
            [(left,)] = transaction.execute("SELECT count(*) FROM inbox")
            return int(left)

        first, nothing, second = self.write(
            Commit([Outgoing(b"c", 1), Outgoing(b"d", 1, 0)], held[:3], seen),
            Acknowledge(1, 11, queued),
            Commit([Outgoing(b"e", 1)], held[3:], seen),
        )
        self.assertEqual((first.value, nothing, second.value), (70, None, 67))
        self.assertEqual([one.number for one in (*first.records, *second.records)], [3, 4, 5])
        self.assertEqual(second.clock, first.clock + 1)
        opened = self.opened()
        self.assertEqual(list(opened.outbox), [*first.records, *second.records])
        self.assertEqual((list(opened.inbox), list(opened.state.received)), ([], [(1, 70)]))
        self.assertEqual((opened.state.clock, opened.state.peer_clock), (second.clock, 11))
        self.assertFalse(self.made.do(lambda t: t.execute("SELECT sum(live) FROM segment").fetchone()[0]))

    def test_consumed_with_its_arrival(self) -> None:
        """In one transaction: it is known, and nothing else remains of it, nor of its payload."""
        self.adopt()
        accept = self.accepting(1, {1: b"x" * 50_000, 2: b"small", 3: b"stays"})
        large, small, stays = [record.id for record in accept.records]
        self.write(accept, Commit((), [large, small], None))
        opened = self.opened()
        self.assertEqual(([one.id for one in opened.inbox], list(opened.state.received)), ([stays], [(1, 3)]))
        self.assertFalse(self.made.do(lambda t: t.execute("SELECT sum(live) FROM segment").fetchone()[0]))

    def test_ids_are_never_used_again(self) -> None:
        """Not even where all that had some are gone, or the log has begun anew; and links have their own."""
        self.adopt()
        other = self.opened(OTHER).link
        ids = [one.id for one in self.enqueue(b"a", b"b").records]
        self.write(Acknowledge(1, 9, self.opened().outbox))
        ids += [one.id for one in self.enqueue(b"c").records]
        self.adopt(THEM_ANEW)
        ids += [one.id for one in self.enqueue(b"d").records]
        commit = Commit([Outgoing(b"e", 1)], (), None)
        [committed] = self.made.do(lambda t: log_writing.write(t, other, BOOT, [commit]))
        assert isinstance(committed, Committed)
        ids += [one.id for one in committed.records]
        self.assertEqual(len(set(ids)), 5)
        self.assertEqual(ids[:4], sorted(ids[:4]))

    def test_first_contact_is_no_rollback(self) -> None:
        """There was nothing to be uncertain of."""
        self.adopt()
        self.assertFalse(self.opened().rolled_back)

    def test_beginning_all_anew(self) -> None:
        """
        We were restored: every log begins anew.  Dropped is what had a number, what
        was there already when the process started, and what lay in the inbox; the
        clock goes on, so that it stays above what any peer knows of this life.
        """
        other = self.opened(OTHER).link
        old = Commit([Outgoing(b"old", 1)], (), None)
        self.made.do(lambda t: log_writing.write(t, other, BOOT, [old]))
        self.adopt()
        self.enqueue(b"numbered")
        self.accept(1, 1)
        start = self.made.do(log.last_outbox_ids)
        fresh = self.enqueue(b"fresh", boot=LATER_BOOT).records[0]
        incarnation = self.made.journal.incarnation
        begun = self.made.do(lambda t: log.begin_all_logs(t, start))
        self.assertNotEqual(self.made.journal.incarnation, incarnation)
        self.assertEqual([queued.id for queued in begun[PEER].outbox], [fresh.id])
        self.assertEqual(list(begun[OTHER].outbox), [])
        self.assertEqual(len(begun[OTHER].dropped), 1)
        opened = self.opened()
        self.assertEqual((list(opened.inbox), list(opened.state.received)), ([], []))
        self.assertTrue(opened.rolled_back and self.opened(OTHER).rolled_back)
        self.assertEqual((opened.generation, opened.state.clock), (2, 3))
        self.assertEqual([queued.number for queued in self.enqueue(b"more").records], [None])
