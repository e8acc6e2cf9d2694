"""
The journal's figures: C{python -m benchmarks.journal [FOLDER] [--json FILE]}.

Commits a second in both grades, alone and with 100 callers; payloads stored,
read and discarded, in segments and, in the same run, within SQLite; where a
segment gets cheaper than a row; how long a read waits while the disk is synced.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import react

from hoft.protocols.journal import Journal, Location, Schema, Transaction
from hoft.worker import Worker

TABLES = Schema("bench", (("CREATE TABLE record (number INTEGER PRIMARY KEY, place BLOB NOT NULL)",),))


class Bench:
    def __init__(self, reactor: Any, folder: Path) -> None:
        self.reactor = reactor
        self.folder = folder
        self.figures: dict[str, float] = {}
        self.number = 0

    def note(self, what: str, figure: float, unit: str) -> None:
        self.figures[f"{what} [{unit}]"] = round(figure, 2)
        print(f"{what:60} {figure:10.1f} {unit}", flush=True)

    @inlineCallbacks
    def journal(self, work: Callable[[Journal], Deferred[Any]], **options: Any) -> Any:
        """Run C{work(journal)} with a journal of its own, with a thread for reading unless told."""
        base = Path(tempfile.mkdtemp(dir=self.folder))
        workers = [Worker(self.reactor, name) for name in ("journal", "sync", "read")]
        try:
            options.setdefault("read_worker", workers[2])
            journal = Journal(
                base / "state",
                workers[0],
                workers[1],
                [TABLES],
                clock=time.monotonic,
                next_turn=self.reactor.callFromThread,
                entropy=os.urandom,
                **options,
            )
            start = time.perf_counter()
            yield journal.open()
            self.opened = time.perf_counter() - start
            yield work(journal)
            yield journal.close()
        finally:
            yield gatherResults([worker.stop() for worker in workers])
            shutil.rmtree(base)

    def store(self, payload: bytes, count: int = 1) -> Callable[[Transaction], list[tuple[int, Location]]]:
        def operation(transaction: Transaction) -> list[tuple[int, Location]]:
            stored = []
            for _ in range(count):
                self.number += 1
                place = transaction.store(payload)
                transaction.execute("INSERT INTO record VALUES (?, ?)", (self.number, bytes(place)))
                stored.append((self.number, place))
            return stored

        return operation

    def discard(self, stored: list[tuple[int, Location]]) -> Callable[[Transaction], None]:
        def operation(transaction: Transaction) -> None:
            for number, place in stored:
                transaction.discard(place)
                transaction.execute("DELETE FROM record WHERE number = ?", (number,))

        return operation

    @inlineCallbacks
    def commits(self, journal: Journal) -> Any:
        payload = random.Random(1).randbytes(300)

        @inlineCallbacks
        def caller(count: int, durable: bool) -> Any:
            for _ in range(count):
                yield journal.transact(self.store(payload), durable)

        for durable in (False, True):
            for callers in (1, 100):
                count = (2000 if durable else 10000) // (1 if callers == 1 else 10)
                start = time.perf_counter()
                yield gatherResults([caller(count, durable) for _ in range(callers)])
                rate = count * callers / (time.perf_counter() - start)
                self.note(f"{'durable' if durable else 'ordered'} commits, {callers} at once", rate, "ops/s")

    def payloads(self, size: int, together: int, megabytes: int) -> Callable[[Journal], Deferred[Any]]:
        payload = random.Random(2).randbytes(size)
        rounds = max(1, megabytes * 1_000_000 // (size * together * 4))

        @inlineCallbacks
        def stream(journal: Journal) -> Any:
            for _ in range(rounds):
                stored = yield journal.transact(self.store(payload, together))
                yield journal.load([place for _, place in stored])
                yield journal.transact(self.discard(stored))

        @inlineCallbacks
        def work(journal: Journal) -> Any:
            start = time.perf_counter()
            yield gatherResults([stream(journal) for _ in range(4)])
            self.rate = rounds * together * 4 * size / (time.perf_counter() - start)

        return work

    @inlineCallbacks
    def compare(self, size: int, together: int, megabytes: int) -> Any:
        """The same payloads in segments, and in SQLite."""
        rates = []
        for what, threshold in (("in segments", 0), ("in SQLite", 1 << 30)):
            yield self.journal(self.payloads(size, together, megabytes), inline=threshold)
            rates.append(self.rate)
            self.note(f"{size} byte payloads stored, read, discarded {what}", self.rate / 1e6, "MB/s")
        self.note(f"{size} byte payloads, segments against SQLite", rates[0] / rates[1], "x")

    def reads(self, where: str) -> Callable[[Journal], Deferred[Any]]:
        @inlineCallbacks
        def work(journal: Journal) -> Any:
            """How long a read takes while durable commits keep the sync thread busy."""
            stored = yield journal.transact(self.store(bytes(65536), 100))
            busy = True

            @inlineCallbacks
            def write() -> Any:
                while busy:
                    yield journal.transact(self.store(bytes(65536)), durable=True)

            writers = [write() for _ in range(4)]
            times = []
            for number in range(300):
                start = time.perf_counter()
                yield journal.load([stored[number % 100][1]])
                times.append(time.perf_counter() - start)
            self.note(f"a read while syncing, on {where}, median", sorted(times)[150] * 1e6, "us")
            busy = False
            yield gatherResults(writers)

        return work

    @inlineCallbacks
    def run(self) -> Any:
        yield self.journal(self.commits)
        yield self.journal(lambda journal: gatherResults([]))
        self.note("open a new journal", self.opened * 1e3, "ms")
        yield self.compare(65000, 4, 400)
        for size, together in ((1000, 64), (2000, 32), (4000, 16), (8000, 8), (16000, 4)):
            yield self.compare(size, together, 60)
        yield self.journal(self.reads("a thread of its own"))
        yield self.journal(self.reads("the sync thread"), read_worker=None)


def main(reactor: Any, *arguments: str) -> Deferred[Any]:
    parser = argparse.ArgumentParser(description="The journal's figures.")
    parser.add_argument("folder", nargs="?", type=Path, help="where to work; a temporary folder if not given")
    parser.add_argument("--json", type=Path, help="where to keep the raw figures")
    options = parser.parse_args(arguments)
    bench = Bench(reactor, options.folder)

    def keep(_: object) -> None:
        if options.json:
            options.json.write_text(json.dumps(bench.figures, indent=1) + "\n")

    done: Deferred[Any] = bench.run()
    return done.addCallback(keep)


if __name__ == "__main__":
    react(main, sys.argv[1:])
