"""The durable log: two grades of commit, and what holds when things break."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface.verify import verifyClass

from hoft.errors import JournalError, JournalInUse, PayloadLost
from hoft.interfaces import ITransaction
from hoft.protocols import database
from hoft.protocols.journal import BATCH, EARLY, GROUP, Journal, Schema, Transaction
from hoft.protocols.segments import INLINE, Segments
from hoft.worker import Worker

from .journals import NOTES, InlineJournal, JournalCase, count, counts, erase, notes, payload_of, write

ROOT = Path(__file__).parent.parent.parent


class OwnerTests(JournalCase):
    def test_it_is_of_the_node_that_was_named_first(self) -> None:
        """Another one does not start with it, and it is as it was; who names none may look."""
        ours, theirs = UUID(int=1), UUID(int=2)
        inline = self.opened()
        inline.result(inline.journal.close())
        for node, opens in ((ours, True), (theirs, False), (None, True), (ours, True)):
            inline = InlineJournal(self.folder)
            opening = inline.journal.open(node)
            if opens:
                inline.result(opening)
                inline.result(inline.journal.close())
            else:
                with self.assertRaises(JournalError) as raised:
                    inline.result(opening)
                self.assertIn(str(ours), str(raised.exception))


class CommitTests(JournalCase):
    def test_interface(self) -> None:
        verifyClass(ITransaction, Transaction)

    def test_group(self) -> None:
        """What is given in one turn of the reactor is one commit, up to a bound."""
        inline = self.opened()
        self.assertEqual(self.committed(inline, 1), 1, "one that is alone does not wait")
        self.assertEqual(self.committed(inline, EARLY * BATCH), EARLY, "many do not, either")
        asked = [inline.journal.transact(count) for _ in range(GROUP + 1)]
        before = inline.worker.calls
        first = EARLY * BATCH + 2
        self.assertEqual([inline.result(one) for one in asked], list(range(first, first + GROUP + 1)))
        self.assertEqual(inline.worker.calls - before, 2)

    def committed(self, inline: InlineJournal, operations: int) -> int:
        """In how many commits so many operations are told of, before the turn is over."""
        before = inline.worker.calls
        for asked in [inline.journal.transact(count) for _ in range(operations)]:
            self.successResultOf(asked)
        return inline.worker.calls - before

    def test_what_is_asked_for_right_before_another_shares_its_commit(self) -> None:
        """Although the journal has nothing else to do."""
        inline = self.opened()
        before = inline.worker.calls
        first = inline.journal.transact_together(counts, None, more=True)
        self.assertNoResult(first)
        second = inline.journal.transact_together(counts, None)
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (1, 2))
        self.assertEqual(inline.worker.calls - before, 1)

    def test_what_follows_from_a_commit_waits_for_the_next_turn(self) -> None:
        """All of a commit are told before what they ask for is done, so that none goes round for ever."""
        inline = self.opened()
        told: list[int] = []

        def again(counted: int) -> None:
            told.append(counted)
            if len(told) < 10 * EARLY * BATCH:
                inline.journal.transact(count).addCallback(again)

        for _ in range(BATCH + 1):
            inline.journal.transact(count).addCallback(again)
        self.assertLessEqual(len(told), 1 + EARLY * BATCH)
        inline.clock.pump([0.0] * 100)
        self.assertEqual(told, list(range(1, len(told) + 1)))
        self.assertGreater(len(told), 10 * EARLY * BATCH)

    def test_one_failure_harms_no_other(self) -> None:
        """An operation that raises is undone alone, and its caller gets the traceback."""
        inline = self.opened()

        def stumble(transaction: Transaction) -> None:
            write(2, bytes(9000))(transaction)
            transaction.execute("DELETE FROM note WHERE number = 1")
            raise ZeroDivisionError("on purpose")

        first = inline.journal.transact(write(1, b"a" * 9000))
        second = inline.journal.transact(stumble)
        third = inline.journal.transact(write(3, b"c" * 9000))
        inline.result(first)
        inline.result(third)
        failure = self.failureResultOf(second, ZeroDivisionError)
        self.assertIn("stumble", failure.getTraceback())
        inline = self.reopened(inline)
        places = inline.do(notes)
        self.assertEqual(list(places), [1, 3])
        self.assertEqual(
            inline.result(inline.journal.load([places[3], places[1]])), [b"c" * 9000, b"a" * 9000]
        )

    def test_mistakes_in_sql_reach_their_caller(self) -> None:
        inline = self.opened()
        self.assertRaises(sqlite3.OperationalError, inline.do, lambda t: t.execute("SELECT nonsense"))
        inline.do(write(1, b""))
        self.assertRaises(sqlite3.IntegrityError, inline.do, write(1, b""))
        self.assertEqual(list(inline.do(notes)), [1])

    def test_a_failed_commit_fails_all_of_it(self) -> None:
        """When SQLite refuses the commit itself, nobody is told yes, and the journal goes on."""
        deferred_check = Schema(
            "checked",
            (
                (
                    "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
                    "CREATE TABLE child (parent INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
                ),
            ),
        )
        inline = self.opened(schemas=[NOTES, deferred_check])
        inline.do(count)
        innocent = inline.journal.transact(write(1, bytes(9000)))
        small = inline.journal.transact(count)
        guilty = inline.journal.transact(lambda t: t.execute("INSERT INTO child VALUES (7)"))
        for deferred in (innocent, small, guilty):
            self.assertRaises(sqlite3.IntegrityError, inline.result, cast("Deferred[Any]", deferred))
        self.assertEqual(inline.do(notes), {})
        inline.do(write(1, b"x" * 9000))
        self.assertEqual(inline.do(count), 2)
        self.assertEqual(inline.journal.segments.read(inline.do(notes)[1]), b"x" * 9000)

    def test_order(self) -> None:
        """Operations run as given; results of one grade fire in that order."""
        inline = self.opened(sync_delay=0.01)
        ran: list[int] = []
        fired: dict[bool, list[int]] = {False: [], True: []}

        def run(number: int, transaction: Transaction) -> int:
            ran.append(number)
            return number

        def told(number: int, durable: bool) -> None:
            fired[durable].append(number)

        chance = random.Random(3)
        waiting = []
        for number in range(2000):
            durable = chance.random() < 0.3
            asked = inline.journal.transact(partial(run, number), durable)
            waiting.append(asked.addCallback(told, durable))
            if chance.random() < 0.02:
                inline.clock.advance(0.005)
        inline.result(gatherResults(waiting))
        self.assertEqual(ran, list(range(2000)))
        self.assertEqual(sorted(fired[False] + fired[True]), ran)
        self.assertEqual(fired[False], sorted(fired[False]))
        self.assertEqual(fired[True], sorted(fired[True]))

    def test_incarnation(self) -> None:
        """It outlives a crash, and a failed operation mints nothing."""
        inline = self.opened()
        first = inline.journal.incarnation
        self.assertNotEqual(first, 0)

        def in_vain(transaction: Transaction) -> None:
            transaction.mint_incarnation()
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, inline.do, in_vain)
        self.assertEqual(inline.journal.incarnation, first)
        inline = self.reopened(inline)
        self.assertEqual(inline.journal.incarnation, first)
        second = inline.do(Transaction.mint_incarnation)
        self.assertNotEqual(second, first)
        self.assertEqual(inline.journal.incarnation, second)
        self.assertEqual(self.reopened(inline).journal.incarnation, second)

    def test_payloads(self) -> None:
        """Small or large, they come back from any thread, within and after the transaction."""
        inline = self.opened()
        payloads = [bytes([size % 256]) * size for size in (0, 1, INLINE - 1, INLINE, 65536, 200000)]

        def operation(transaction: Transaction) -> list[bytes]:
            return [transaction.load(write(len(p), p)(transaction)) for p in payloads]

        self.assertEqual(inline.do(operation), payloads)
        inline = self.reopened(inline)
        places = list(inline.do(notes).values())
        self.assertEqual(inline.result(inline.journal.load(places)), payloads)
        self.assertEqual([inline.journal.segments.read(place) for place in places], payloads)
        for payload in payloads:
            inline.do(erase(len(payload)))
        for number in range(20):  # moves on to further segments
            inline.do(write(number, bytes(30000)))
            inline.do(erase(number))
        self.assertRaises(PayloadLost, inline.result, inline.journal.load(places[-1:]))
        self.assertLessEqual(len(list((self.folder / "segments").iterdir())), 2)

    def test_settings(self) -> None:
        """SQLite is set as its users rely on, in a new journal and in one that is opened again."""
        inline = self.opened()
        wanted = {"journal_mode": "wal", "locking_mode": "exclusive", "synchronous": 1, "foreign_keys": 1}
        wanted |= {
            "page_size": database.PAGE,
            "auto_vacuum": 2,
            "journal_size_limit": 2 * database.CHECKPOINT,
        }
        for _ in range(2):
            found = {name: inline.do(lambda t: t.execute(f"PRAGMA {name}").fetchone()[0]) for name in wanted}  # noqa: B023  # done before the next turn
            self.assertEqual(found, wanted)
            inline = self.reopened(inline)

    def test_log_is_bounded(self) -> None:
        """SQLite's log is used anew, however much is committed."""
        inline = self.opened()
        for number in range(1500):
            inline.do(write(number % 100, bytes(4000)))
            inline.do(erase(number % 100))
        self.assertLess((self.folder / "journal.sqlite-wal").stat().st_size, 3 * database.CHECKPOINT)
        self.assertLess((self.folder / "journal.sqlite").stat().st_size, 1 << 20)


class DurabilityTests(JournalCase):
    def test_only_durable_ones_wait_for_the_disk(self) -> None:
        """And one sync serves all that were committed before it began."""
        inline = self.opened(sync_delay=5)
        synced: list[int] = []
        real = os.fdatasync

        def sync(descriptor: int) -> None:
            synced.append(descriptor)
            real(descriptor)

        self.patch(os, "fdatasync", sync)
        first = inline.journal.transact(write(1, b"first"), durable=True)
        inline.clock.pump([0, 0, 0, 1])
        self.assertNoResult(first)
        ordered = inline.journal.transact(write(2, b"second"))
        inline.clock.pump([0, 0, 0, 1])
        self.successResultOf(ordered)
        later = [inline.journal.transact(write(number, b""), durable=True) for number in range(3, 9)]
        inline.clock.pump([0, 0, 0, 1])
        self.assertEqual(synced, [])
        inline.clock.pump([2, 0, 0])
        self.successResultOf(first)
        self.assertEqual(len(synced), 1)
        for deferred in later:
            self.assertNoResult(deferred)
        inline.clock.pump([5, 0, 0])
        for deferred in later:
            self.successResultOf(deferred)
        self.assertEqual(len(synced), 2)

    def test_failed_sync(self) -> None:
        """The disk failed: nobody is told yes from then on, until the journal is opened again."""
        inline = self.opened()
        inline.do(write(1, b"before"), durable=True)

        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fdatasync", fail)
        durable = inline.journal.transact(write(2, b""), durable=True)
        ordered = inline.journal.transact(write(3, b""))
        inline.result(ordered)
        self.assertRaises(JournalError, inline.result, durable)
        self.assertRaises(JournalError, inline.do, write(4, b""))
        self.assertRaises(JournalError, inline.do, write(5, b""), True)

    def test_segments_are_synced_before_a_durable_answer(self) -> None:
        """The log and every segment with new payloads, by the file, and their folder if one is new."""
        inline = self.opened()
        synced: list[str] = []

        def note(real: Any) -> Any:
            def sync(descriptor: int) -> None:
                synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
                real(descriptor)

            return sync

        if not os.path.exists("/proc/self/fd"):
            raise SkipTest("needs /proc to tell files by descriptor")
        self.patch(os, "fdatasync", note(os.fdatasync))
        self.patch(os, "fsync", note(os.fsync))
        inline.do(write(1, bytes(30000)))
        inline.do(write(2, bytes(30000)))
        self.assertEqual(synced, [])
        inline.do(write(3, bytes(30000)), durable=True)
        self.assertEqual(
            synced,
            ["000000000001.segment", "000000000002.segment", "segments", "journal.sqlite-wal"],
        )
        synced.clear()
        inline.do(write(4, b"small"), durable=True)
        self.assertEqual(synced, ["journal.sqlite-wal"])

    def test_no_segment_goes_before_the_disk_knows(self) -> None:
        """A power cut may bring back rows that were deleted; their payloads must still be there."""
        inline = self.opened(sync_delay=5)
        for number in range(4):
            inline.do(write(number, bytes(40000)))
        inline.journal.transact(erase(0))
        inline.clock.pump([0, 0, 0, 1])
        files = sorted(path.name for path in (self.folder / "segments").iterdir())
        self.assertEqual(len(files), 4)
        inline.clock.pump([5, 0])
        self.assertEqual(sorted(path.name for path in (self.folder / "segments").iterdir()), files[1:])

    def test_payloads_lost_in_a_power_cut(self) -> None:
        """They are found at the next start, and stay reported until a new incarnation is minted."""
        inline = self.opened()
        inline.do(write(1, b"safe" * 2000), durable=True)
        inline.do(write(2, b"lost" * 2000))
        inline.crash()
        [segment] = (self.folder / "segments").iterdir()
        os.truncate(segment, segment.stat().st_size - 4096)
        self.patch(database, "kernel_boot", lambda: "another run of the kernel")
        for _ in range(2):
            inline = self.opened()
            self.assertEqual(inline.journal.lost, 1)
            inline.crash()
        inline = self.opened()
        places = inline.do(notes)
        self.assertEqual(inline.journal.segments.read(places[1]), b"safe" * 2000)
        self.assertRaises(PayloadLost, inline.journal.segments.read, places[2])
        inline.do(erase(2))
        inline.do(Transaction.mint_incarnation)
        inline = self.reopened(inline)
        self.assertEqual(inline.journal.lost, 0)
        inline.result(inline.journal.close())

    def test_a_segment_that_is_gone_or_too_short_is_found_at_any_start(self) -> None:
        """Whoever took it, and however the last process ended."""
        inline = self.opened()
        inline.do(write(1, bytes(9000)))
        inline = self.reopened(inline)
        self.assertEqual(inline.journal.lost, 0)
        inline.result(inline.journal.close())
        [segment] = (self.folder / "segments").iterdir()
        os.truncate(segment, 9000)
        inline = self.opened()
        self.assertEqual(inline.journal.lost, 1)
        inline.result(inline.journal.close())
        segment.unlink()
        inline = self.opened()
        self.assertEqual(inline.journal.lost, 1)
        inline.do(erase(1))
        inline.do(Transaction.mint_incarnation)
        self.assertEqual(self.reopened(inline).journal.lost, 0)

    def test_all_is_looked_at_only_after_a_power_cut(self) -> None:
        """A crash of the process loses nothing: no need to read all payloads at each start."""
        inline = self.opened()
        inline.do(write(1, bytes(9000)))
        inline.crash()
        self.patch(Segments, "verify", lambda segments: self.fail("read everything"))
        inline = self.opened()
        inline.result(inline.journal.close())
        self.patch(database, "kernel_boot", lambda: "another run of the kernel")
        self.opened()


class ThreadTests(TestCase):
    """The same with real threads."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        reactor = cast(Any, installed_reactor)
        self.workers = [Worker(reactor, name) for name in ("journal", "sync", "read")]
        self.journal = Journal(
            self.folder,
            self.workers[0],
            self.workers[1],
            [NOTES],
            clock=time.monotonic,
            next_turn=reactor.callFromThread,
            entropy=os.urandom,
            read_worker=self.workers[2],
            segment_size=1 << 16,
        )
        for worker in self.workers:
            self.addCleanup(worker.stop)
        self.addCleanup(self.journal.close)

    @inlineCallbacks
    def test_many_at_once(self) -> Any:
        """Writers, readers and erasers together: each sees its own."""
        yield self.journal.open()

        @inlineCallbacks
        def one(number: int) -> Any:
            for round_ in range(10):
                name = number * 100 + round_
                place = yield self.journal.transact(write(name, payload_of(name)), durable=number % 5 == 0)
                [payload] = yield self.journal.load([place])
                self.assertEqual(payload, payload_of(name))
                if round_ != 9:
                    yield self.journal.transact(erase(name))

        yield gatherResults([one(number) for number in range(40)], consumeErrors=True)
        places = yield self.journal.transact(notes)
        self.assertEqual(list(places), [number * 100 + 9 for number in range(40)])

    @inlineCallbacks
    def test_a_slow_disk_holds_up_nobody_else(self) -> Any:
        """While a sync hangs, ordered commits and reads go on."""
        yield self.journal.open()
        place = yield self.journal.transact(write(1, bytes(9000)))
        gate = threading.Event()
        self.addCleanup(gate.set)
        real = os.fdatasync

        def sync(descriptor: int) -> None:
            gate.wait()
            real(descriptor)

        self.patch(os, "fdatasync", sync)
        durable = self.journal.transact(write(2, b""), durable=True)
        yield self.journal.transact(write(3, b""))
        self.assertEqual((yield self.journal.load([place])), [bytes(9000)])
        self.assertFalse(durable.called)
        gate.set()
        yield durable


class ProcessTests(TestCase):
    """What only other processes can show."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()

    def child(self, first: int, last: int, together: int) -> subprocess.Popen[str]:
        arguments = [self.folder, first, last, together, 0]
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.protocols.journals", *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        assert child.stdout is not None
        self.addCleanup(child.stdout.close)
        return child

    def test_second_process_refused(self) -> None:
        """Soon, and naming the first; once that is dead, however it died, the next gets in."""
        child = self.child(0, 1 << 30, 1)
        assert child.stdout is not None
        self.assertEqual(child.stdout.readline(), "open\n")
        inline = InlineJournal(self.folder)
        waits: list[float] = []
        sleep = self.patch(time, "sleep", waits.append)
        refused = self.assertRaises(JournalInUse, inline.result, inline.journal.open())
        sleep.restore()
        self.assertLess(sum(waits), 1)
        self.assertIn(f"process {child.pid}", str(refused))
        child.kill()
        child.wait()
        inline.result(inline.journal.open())
        inline.crash()

    def test_killed_at_any_moment(self) -> None:
        """
        8 times (HOFT_SOAK x 8): what was answered is there, what was erased is
        not, and nothing is there without all that was asked for before it.
        """
        chance = random.Random(20)
        first = 0
        for _ in range(8 * int(os.environ.get("HOFT_SOAK", "1"))):
            child = self.child(first, first + 100_000, chance.choice([1, 5, 50]))
            assert child.stdout is not None
            self.assertEqual(child.stdout.readline(), "open\n")
            time.sleep(chance.uniform(0, 0.1))
            child.kill()
            lines = child.stdout.read().split("\n")[:-1]  # the last may be cut
            child.wait()
            self.assertNotIn("!", {line[:1] for line in lines})
            written = {int(line[1:]) for line in lines if line[0] in "+*"}
            erased = {int(line[1:]) for line in lines if line[0] == "-"}
            inline = InlineJournal(self.folder)
            inline.result(inline.journal.open())
            places = {number: place for number, place in inline.do(notes).items() if number >= first}
            last = max(places, default=first - 1)
            # An erasure may be committed and not answered: it is asked for right after its note + 40.
            missing = written - places.keys() - erased
            self.assertTrue(all(number + 40 <= last for number in missing), missing)
            self.assertEqual(erased & places.keys(), set())
            oldest = min(places, default=first)
            self.assertEqual(list(places), list(range(oldest, last + 1)))
            for number, place in places.items():
                self.assertEqual(inline.journal.segments.read(place), payload_of(number))
            self.assertEqual(inline.journal.segments.verify(), 0)
            for number in places:
                inline.do(erase(number))
            self.assertLessEqual(len(list((self.folder / "segments").iterdir())), 1)
            inline.crash()
            first = last + 100_000
