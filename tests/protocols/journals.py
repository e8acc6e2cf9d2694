"""What the journal's tests share: a table, a journal in virtual time, a child that works until killed."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.journal import Journal, Location, Schema, Transaction
from hoft.testing.worker import InlineWorker
from hoft.worker import Worker

T = TypeVar("T")

NOTES = Schema(
    "notes",
    (
        (
            "CREATE TABLE note (number INTEGER PRIMARY KEY, place BLOB NOT NULL, durable INTEGER)",
            "CREATE TABLE tally (count INTEGER NOT NULL)",
            "INSERT INTO tally VALUES (0)",
        ),
    ),
)


def count(transaction: Transaction) -> int:
    """A small operation: how many times it was committed, this one included."""
    [(counted,)] = transaction.execute("UPDATE tally SET count = count + 1 RETURNING count").fetchall()
    return int(counted)


def counts(transaction: Transaction, asked: Sequence[None]) -> list[int]:
    """L{count} for each."""
    return [count(transaction) for _ in asked]


class CountingWorker(InlineWorker):
    """Counts what it is given."""

    calls = 0

    def call(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        self.calls += 1
        return super().call(function, *arguments)


class InlineJournal:
    """A journal in virtual time, with the clock and the workers that drive it."""

    def __init__(
        self,
        folder: Path,
        schemas: Sequence[Schema] = (NOTES,),
        *,
        sync_delay: float = 0.0,
        reserve: int = 0,
        segment_size: int = 1 << 16,
    ) -> None:
        self.clock = Clock()
        self.worker = CountingWorker(self.clock)
        self.sync_worker = CountingWorker(self.clock, sync_delay)
        self.journal = Journal(
            folder,
            self.worker,
            self.sync_worker,
            schemas,
            clock=self.clock.seconds,
            next_turn=partial(self.clock.callLater, 0),
            entropy=random.Random(str(folder)).randbytes,
            reserve=reserve,
            segment_size=segment_size,
        )

    def result(self, deferred: Deferred[T]) -> T:
        """Let time pass until it fires; raise what it failed with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        for _ in range(100):
            if results:
                break
            self.clock.advance(0.1)
        [result] = results
        if isinstance(result, Failure):
            result.raiseException()
        return result  # type: ignore[no-any-return]  # it went through a list of anything

    def do(self, operation: Callable[[Transaction], T], durable: bool = False) -> T:
        return self.result(self.journal.transact(operation, durable))

    def crash(self) -> None:
        self.worker.crash()
        self.sync_worker.crash()
        self.journal.abandon()


class JournalCase(SynchronousTestCase):
    """A journal in virtual time, in a folder of its own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.journals: list[InlineJournal] = []

    def tearDown(self) -> None:
        for inline in self.journals:
            inline.crash()

    def opened(self, **options: Any) -> InlineJournal:
        inline = InlineJournal(self.folder, **options)
        self.journals.append(inline)
        inline.result(inline.journal.open())
        return inline

    def reopened(self, inline: InlineJournal, **options: Any) -> InlineJournal:
        inline.crash()
        return self.opened(**options)


def write(number: int, payload: bytes, durable: bool = False) -> Callable[[Transaction], Location]:
    """An operation that stores a note."""

    def operation(transaction: Transaction) -> Location:
        place = transaction.store(payload)
        transaction.execute(
            "INSERT INTO note (number, place, durable) VALUES (?, ?, ?)", (number, bytes(place), durable)
        )
        return place

    return operation


def erase(number: int) -> Callable[[Transaction], None]:
    """An operation that lets go of a note."""

    def operation(transaction: Transaction) -> None:
        [(place,)] = transaction.execute("SELECT place FROM note WHERE number = ?", (number,))
        transaction.discard(Location.parse(place))
        transaction.execute("DELETE FROM note WHERE number = ?", (number,))

    return operation


def notes(transaction: Transaction) -> dict[int, Location]:
    """An operation: where each note is."""
    rows = transaction.execute("SELECT number, place FROM note ORDER BY number")
    return {number: Location.parse(place) for number, place in rows}


def payload_of(number: int) -> bytes:
    """What note C{number} of L{work} says: mostly small, sometimes large."""
    chance = random.Random(number)
    return chance.randbytes(chance.choice([10, 500, 5000, 20000]))


def work(folder: str, first: int, last: int, together: int, checkpoint: int) -> None:
    """
    In a child process: write notes from C{first} on, erase each again 40 later,
    and tell on stdout what was answered, one line each: C{+number} written,
    C{*number} written durably, C{-number} erased.

    @param together: how many at once.
    @param checkpoint: pages after which SQLite's log is to begin anew; 0 for what is usual.
    """
    reactor: Any = installed_reactor
    journal = Journal(
        Path(folder),
        Worker(reactor, "journal"),
        Worker(reactor, "sync"),
        [NOTES],
        clock=time.monotonic,
        next_turn=reactor.callFromThread,
        entropy=random.Random(first).randbytes,
        reserve=0,
        segment_size=1 << 16,
    )
    number = first

    def tell(_: object, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        next_note()

    def next_note() -> None:
        nonlocal number
        if number >= last:
            if reactor.running and number == last:
                reactor.callLater(0.05, reactor.stop)
            number += 1
            return
        mine, number = number, number + 1
        durable = mine % 3 == 0
        journal.transact(write(mine, payload_of(mine), durable), durable).addCallback(
            tell, f"{'*' if durable else '+'}{mine}"
        ).addErrback(fatal)
        if mine - 40 >= first:
            journal.transact(erase(mine - 40)).addCallback(erased, f"-{mine - 40}").addErrback(fatal)

    def erased(_: object, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def fatal(failure: Failure) -> None:
        sys.stdout.write(f"!{failure!r}\n")
        failure.printTraceback(sys.stderr)
        reactor.stop()

    def begin(_: object) -> None:
        if checkpoint:
            journal.transact(lambda t: t.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}").fetchall())
        sys.stdout.write("open\n")
        sys.stdout.flush()
        for _unused in range(together):
            next_note()

    def start() -> None:
        journal.open().addCallback(begin).addErrback(fatal)

    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    work(sys.argv[1], *map(int, sys.argv[2:6]))
