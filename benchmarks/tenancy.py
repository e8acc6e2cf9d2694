"""
What peers cost that say nothing: C{python -m benchmarks.tenancy [--peers N] [--seconds S]}.

One node with so many peers, none of which is there: how long it takes to start, its
memory, and what it takes of a processor while nothing happens.  Greetings get rarer
with time, up to one in 15 minutes for each peer, so the figures fall.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from benchmarks.processes import cpu_seconds
from hoft.config import Config, Peer
from hoft.identity import IDENTITY_FILE, Identity
from hoft.node import makeNode

ROUNDS = 6


@frozen
class Usage:
    """Of this process so far: seconds of the clock and of processors, MiB of memory."""

    clock: float
    processors: float
    resident: float

    @classmethod
    def now(cls) -> Usage:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(time.monotonic(), cpu_seconds("self"), pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20))


async def run(reactor: Any, folder: Path, peers: int, seconds: float) -> None:
    """Start the node, watch it, stop it."""
    (folder / "exchange").mkdir()
    (folder / "state").mkdir(mode=0o700)
    Identity.generate(os.urandom).save(folder / "state" / IDENTITY_FILE)
    names = [f"peer-{number}" for number in range(peers)]
    cards = [Identity.generate(Random(name).randbytes).card(name) for name in names]
    known = tuple(Peer(name, card) for name, card in zip(names, cards, strict=True))
    before = Usage.now()
    config = Config("node", folder / "state", f"folder:{folder}/exchange", listen=(), peers=known)
    node = makeNode(config, reactor)
    await node.startService()
    last = Usage.now()
    took, cost = last.clock - before.clock, last.processors - before.processors
    print(f"start: {took:.1f} s, {cost:.1f} s of a processor, {last.resident - before.resident:.0f} MiB")
    for _ in range(ROUNDS):
        await deferLater(reactor, seconds, lambda: None)
        now = Usage.now()
        share = (now.processors - last.processors) / (now.clock - last.clock)
        files = sum(1 for _ in (folder / "exchange").rglob("*.hoft"))
        print(
            f"after {now.clock - before.clock:4.0f} s: {share:6.2%} of a processor,"
            f" {now.resident:.0f} MiB, {files} files lie in the exchange",
            flush=True,
        )
        last = Usage.now()  # to count the files costs more than the node
    await node.stopService()


def main(reactor: Any, *arguments: str) -> Deferred[None]:
    parser = argparse.ArgumentParser(description="What peers cost that say nothing.")
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0, help=f"of each of {ROUNDS} rounds")
    options = parser.parse_args(arguments)

    async def measure() -> None:
        with tempfile.TemporaryDirectory(prefix="hoft-tenancy-") as folder:
            await run(reactor, Path(folder), options.peers, options.seconds)

    return Deferred.fromCoroutine(measure())


if __name__ == "__main__":
    react(main, sys.argv[1:])
