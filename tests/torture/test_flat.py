"""However many messages cross, nothing in two nodes that carry them grows."""

from __future__ import annotations

import gc
import os
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from shutil import rmtree
from typing import Any

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from hoft.config import Config, Peer
from hoft.identity import IDENTITY_FILE, Identity
from hoft.interfaces import IMessage, IMessageLink, IMessageReceiver, OutgoingMessage
from hoft.node import Node, makeNode
from tests.torture.figures import SOAK

MESSAGES = 10_000 * SOAK if SOAK > 1 else 5_000
"""With the 100 of C{make soak}: a million."""

BATCH = 100
AHEAD = 5_000
"""Messages that are sent and not consumed."""

SAMPLES = 10

GROWTH = 1_000 if MESSAGES < 100_000 else 6_000
"""
Objects of one type that may have come since the second sample: a sender remembers its
last 4000 packets, and what grew with each message would be far more.
"""


@frozen
class Sample:
    """
    What there is at some moment.

    @ivar resident: MiB of memory.
    @ivar objects: by their type, those that the garbage collector knows of.
    @ivar state: KiB in the state folders.
    @ivar files: in the exchange.
    """

    resident: float
    objects: Counter[str]
    state: int
    files: int


@implementer(IMessageReceiver)
class Counting:
    """Consumes what comes, all of one turn of the reactor at once."""

    def __init__(self) -> None:
        self.consumed = 0
        self._batch: list[IMessage] = []

    def messageReceived(self, link: IMessageLink, message: IMessage) -> None:
        self._batch.append(message)
        if len(self._batch) == 1:
            deferLater(reactor, 0, self._consume, link)

    def _consume(self, link: IMessageLink) -> Deferred[None]:
        batch, self._batch = self._batch, []

        def done(_: object) -> None:
            self.consumed += len(batch)

        return link.commit(consume=batch).addCallback(done)

    def linkChanged(self, link: IMessageLink) -> None:
        pass

    def peerRolledBack(self, link: IMessageLink) -> None:
        pass


class FlatTests(TestCase):
    timeout = 7200

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]  # trial waits for it
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.addCleanup(rmtree, self.folder)
        (self.folder / "exchange").mkdir()
        names = ("near", "far")
        identities = {name: Identity.generate(Random(name).randbytes) for name in names}
        self.program = Counting()
        self.nodes: list[Node] = []
        for name, other in zip(names, reversed(names), strict=True):
            state = self.folder / name
            state.mkdir(mode=0o700)
            identities[name].save(state / IDENTITY_FILE)
            peers = (Peer(other, identities[other].card(other)),)
            config = Config(name, state, f"folder:{self.folder}/exchange", listen=(), peers=peers)
            self.nodes.append(makeNode(config, reactor, self.program))
        self.addCleanup(lambda: gatherResults([node.stopService() for node in self.nodes]))
        return gatherResults([node.startService() for node in self.nodes])

    def sample(self) -> Sample:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return Sample(
            resident=pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20),
            objects=Counter(type(one).__qualname__ for one in gc.get_objects()),
            state=sum(path.stat().st_size for path in files if "exchange" not in path.parts) >> 10,
            files=sum("exchange" in path.parts for path in files),
        )

    async def calm(self) -> None:
        """All that was sent is consumed, and that has been heard."""
        near = self.nodes[0].links["far"]
        while near.backlog() or self.program.consumed < self.sent:
            await deferLater(reactor, 0.02, lambda: None)

    def test_flat(self) -> Deferred[None]:
        async def live() -> None:
            link = self.nodes[0].link("far")
            self.sent = 0
            samples: list[Sample] = []
            while self.sent < MESSAGES:
                payloads = [b"%d" % (self.sent + number) for number in range(BATCH)]
                await link.commit([OutgoingMessage(payload) for payload in payloads])
                self.sent += BATCH
                while self.sent - self.program.consumed > AHEAD:
                    await deferLater(reactor, 0.002, lambda: None)
                if self.sent % (MESSAGES // SAMPLES) == 0:
                    await self.calm()
                    samples.append(self.sample())
            early, late = samples[1], samples[-1]
            told = "\n".join(f"{one.resident:.1f} MiB, {one.state} KiB, {one.files} files" for one in samples)
            self.assertLess(late.resident - early.resident, 16, told)
            self.assertLess(late.state, 40_000, told)
            self.assertLess(late.files, 40, told)
            grown = {name: more for name, more in (late.objects - early.objects).items() if more > GROWTH}
            self.assertEqual(grown, {}, told)

        return Deferred.fromCoroutine(live())
