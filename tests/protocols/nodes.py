"""Two nodes with real links, journals and packets, in virtual time, over a folder in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from nacl.public import PrivateKey
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.python.monkey import MonkeyPatcher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hoft.errors import CarrierError
from hoft.interfaces import (
    IFileTransport,
    IFileWriter,
    ILink,
    Incoming,
    IRecordReceiver,
    LinkState,
    Outgoing,
    Verdict,
)
from hoft.protocols import log
from hoft.protocols.compression import Compressor
from hoft.protocols.journal import Journal
from hoft.protocols.keyring import Keyring
from hoft.protocols.link import Link
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.router import LinkRouter
from hoft.protocols.schema import Schema
from hoft.protocols.sealing import BoxSuite
from hoft.protocols.settings import Settings
from hoft.protocols.timing import TimingSettings
from hoft.testing.clock import HeapClock
from hoft.testing.worker import InlineWorker
from hoft.transports.memory import MemoryFolder, unchanged
from hoft.worker import PATIENCE

T = TypeVar("T")
SETTINGS = Settings(timing=TimingSettings(first=2.0, ack_shortest=0.005))


def refuse(test: SynchronousTestCase, journal: Journal, error: Exception) -> MonkeyPatcher:
    """The journal takes nothing more, until that is restored."""
    refusing: MonkeyPatcher = test.patch(journal, "transact_together", lambda *_, **__: fail(error))
    return refusing


@implementer(IRecordReceiver)
class Program:
    """
    The layer above.

    @ivar keep: leave what arrives in the inbox; otherwise it is consumed at once.
    """

    def __init__(self) -> None:
        self.keep = False
        self.received: list[Incoming] = []
        self.acknowledged: list[int] = []
        self.states: list[LinkState] = []
        self.rollbacks: list[list[int]] = []
        self.on_rollback: Callable[[ILink], Deferred[None] | None] = lambda link: None

    @property
    def payloads(self) -> list[bytes | None]:
        return [record.payload for record in self.received]

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        self.received += records
        if not self.keep:
            link.commit(consume=[record.id for record in records])

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        self.acknowledged += ids

    def linkChanged(self, link: ILink) -> None:
        self.states.append(link.state)

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> Deferred[None] | None:
        self.rollbacks.append(list(resent))
        return self.on_rollback(link)


@implementer(IFileTransport)
class FailingTransport:
    """A transport whose writers fail for as long as C{broken}."""

    def __init__(self, transport: IFileTransport) -> None:
        self._transport = transport
        self.broken = False
        self.tries: list[float] = []
        self.clock: Callable[[], float] = lambda: 0.0
        self.removed: list[str] = []
        self.max_file: int | None = None
        self.max_files: int | None = None

    def create(self) -> IFileWriter:
        self.tries.append(self.clock())
        if self.broken:
            raise CarrierError("no space")
        return self._transport.create()

    def remove(self, names: Sequence[str]) -> None:
        self.removed += names
        self._transport.remove(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Node:
    """A node, across crashes."""

    schemas: tuple[Schema, ...] = (log.SCHEMA,)

    def __init__(self, pair: Pair, name: str) -> None:
        self.pair = pair
        self.name = name
        self.uuid = UUID(bytes=pair.random.randbytes(16))
        self.key = PrivateKey(pair.random.randbytes(32))
        self.folder = pair.path / name
        self.folder.mkdir(mode=0o700)
        self.program = Program()
        self.running = False
        self.peer: Node

    def start(self) -> None:
        """A process starts, up to the link being open and connected."""
        pair = self.pair
        # So slow that nobody waits for the journal: things may happen while it commits.
        self.workers = [InlineWorker(pair.clock, delay) for delay in (PATIENCE, 0.002, 0.0002, 0.0002)]
        worker, sync, self.write, self.opening = self.workers
        self.journal = Journal(
            self.folder,
            worker,
            sync,
            self.schemas,
            clock=pair.clock.seconds,
            next_turn=partial(pair.clock.callLater, 0),
            entropy=pair.random.randbytes,
            reserve=0,
            segment_size=1 << 20,
        )
        pair.result(self.journal.open())
        self.parts = NodeParts(
            node=self.uuid,
            boot=pair.random.getrandbits(64) or 1,
            journal=self.journal,
            writing=self.write,
            reactor=pair.clock,
            clock=pair.clock.seconds,
            entropy=pair.random.randbytes,
            wall_clock=pair.clock.seconds,
            outboxes_at_start=pair.result(self.journal.transact(log.last_outbox_ids)),
            compressor=Compressor(),
        )
        self.carrier = pair.folder.carrier(self.uuid, self.parts.boot, pair.clock.seconds)
        self.router = LinkRouter(self.parts, self.opening, self.carrier.wake)
        self.running = True
        self.open_link()
        self.carrier.start(self.router)

    def open_link(self) -> None:
        """The link alone, as when a peer is added to a running node."""
        pair, peer = self.pair, self.peer
        suite = BoxSuite(bytes(self.key), bytes(peer.key.public_key))
        self.link = Link(self.parts, peer.uuid, peer.name, Keyring([suite]), self.receiver(), pair.settings)
        pair.result(self.link.open())
        self.opened()
        self.router.add(self.link)
        self.transport = FailingTransport(self.carrier.transport(peer.uuid))
        self.transport.clock = pair.clock.seconds
        self.transport.max_file, self.transport.max_files = pair.max_file, pair.max_files
        self.link.makeConnection(self.transport)

    def receiver(self) -> IRecordReceiver:
        """The layer above the link."""
        return self.program

    def opened(self) -> None:
        """The link is open, and brings nothing yet."""

    def crash(self) -> None:
        """The process is gone, what is written and committed stays."""
        self.running = False
        for worker in self.workers:
            worker.crash()
        self.link.close()
        self.carrier.stop()
        self.journal.abandon()
        self.program = Program()

    def send(self, *payloads: bytes, durable: bool = False) -> list[int]:
        """Queue them and wait for the commit; their ids."""
        outgoing = [Outgoing(payload, 1) for payload in payloads]
        return list(self.pair.result(self.link.commit(outgoing, durable=durable)).sent)

    def rows(self, table: str) -> int:
        """How many there are in the journal."""
        count = self.journal.transact(lambda t: t.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        return int(self.pair.result(count))


class Pair:
    """
    Two nodes, near and far.

    @ivar deliver: what becomes of each file; see L{MemoryFolder}.
    @ivar settings: of links that are opened from now on.
    @ivar max_file: what their carrier says of itself; so C{max_files}.
    @ivar crossed: all files ever published: sender, name, content.
    """

    def __init__(self, case: SynchronousTestCase, seed: int = 1, kind: type[Node] = Node) -> None:
        self.path = Path(case.mktemp())
        self.path.mkdir()
        self.random = Random(seed)
        self.clock = HeapClock()
        self.deliver = unchanged
        self.settings = SETTINGS
        self.max_file: int | None = None
        self.max_files: int | None = None
        self.crossed: list[tuple[UUID, str, bytes]] = []
        self.folder = MemoryFolder(self.clock, self._deliver)
        self.near, self.far = kind(self, "near"), kind(self, "far")
        self.near.peer, self.far.peer = self.far, self.near
        case.addCleanup(self.stop)

    def _deliver(
        self, sender: UUID, recipient: UUID, name: str, data: bytes
    ) -> Iterable[tuple[float, bytes]]:
        self.crossed.append((sender, name, data))
        return self.deliver(sender, recipient, name, data)

    def start(self) -> None:
        """Both start and find each other."""
        self.near.start()
        self.far.start()
        self.advance(10)

    def stop(self) -> None:
        for node in (self.near, self.far):
            if node.running:
                node.crash()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def result(self, deferred: Deferred[T]) -> T:
        """Let time pass, a little, until it fires; raise what it failed with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        while not results and self.clock.step(self.clock.seconds() + 5):
            pass
        [result] = results
        if isinstance(result, Failure):
            result.raiseException()
        return result  # type: ignore[no-any-return]  # it went through a list of anything

    def give(self, node: Node, name: str, data: bytes, settled: bool = True) -> Verdict:
        """Hand a file to a node's router, past its carrier."""
        return self.result(node.router.fileReceived(name, 0, data, settled))


def lost(sender: UUID, recipient: UUID, name: str, data: bytes) -> Iterable[tuple[float, bytes]]:
    """A carrier that loses everything."""
    return ()
