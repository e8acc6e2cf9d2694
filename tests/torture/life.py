"""
One life of a node of L{tests.torture.lifetime}, from its start to its crash: the real journal, link
and packets, and a program above them that notes what it is promised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import lru_cache, partial
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from hoft.interfaces import (
    Arrival,
    CommitResult,
    IArrivalReceiver,
    ILink,
    Incoming,
    ITransaction,
    Outgoing,
)
from hoft.protocols import log
from hoft.protocols.journal import Journal
from hoft.protocols.keyring import Keyring
from hoft.protocols.link import Link
from hoft.protocols.link_log import ALONE_AFTER
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.router import LinkRouter
from hoft.protocols.schema import Schema
from hoft.protocols.sealing import BoxSuite
from hoft.protocols.settings import Settings
from hoft.protocols.timing import TimingSettings
from hoft.testing.worker import InlineWorker

if TYPE_CHECKING:
    from tests.torture.node import Node

T = TypeVar("T")

CHANNEL = 1


def repeatable(message: int) -> bool:
    """Whether its sender says that its receiver may be given it twice (C{Outgoing.again})."""
    return message % 5 == 0


def arrival(message: int) -> Arrival:
    """What becomes of a message when it comes."""
    # Neighbours alike: then there are packets with nothing in them that is stored first.
    return (Arrival.STORE, Arrival.AT_ONCE, Arrival.STORE, Arrival.DONE)[message // 8 % 4]


def urgency(message: int) -> int:
    """Of a message."""
    return message % 4 + 2


PROGRAM = Schema(
    "program",
    (
        (
            "CREATE TABLE sent (message INTEGER PRIMARY KEY, outbox INTEGER, uncertain INTEGER DEFAULT 0)",
            "CREATE TABLE received (message INTEGER PRIMARY KEY)",
        ),
    ),
)
"""What a program notes: its messages' ids in the outbox, which it was told are uncertain, which came."""


class Violation(AssertionError):
    """The log broke its promise."""


@lru_cache(maxsize=1024)
def content(seed: int, message: int, size: int) -> bytes:
    """The payload of a message: its number, then bytes that follow from it."""
    head = message.to_bytes(8, "big") + size.to_bytes(4, "big")
    return head + Random(f"{seed} {message}").randbytes(size)


class Disk(InlineWorker):
    """Where a journal waits for the disk; tells the node when all that it has is there."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.world.clock, node.world.plan.disk)
        self._node = node

    def call(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """See L{InlineWorker.call}."""

        def synced() -> T:
            result = function(*arguments)
            self._node.synced()
            return result

        return super().call(synced)


class Doom(Enum):
    """What a node is to be killed over."""

    READING = auto()
    """The next file that arrives: perhaps between its reading, its commit and what is said of it."""
    SPEAKING = auto()
    """
    The next file that it writes during a commit, or while its program has something in hand: what
    that says must be true without it.
    """
    ARRIVING = auto()
    """The next record that its program deals with before it is committed: just before that, or after."""


@implementer(IArrivalReceiver)
class Life:
    """
    A node from one start to its crash.

    @ivar given: the messages that its program was given, each once.
    @ivar waiting: ids of records that were handed up, and that it has not looked at yet.
    """

    def __init__(self, node: Node) -> None:
        world = node.world
        self.node = node
        self.over = False
        self.given: set[int] = set()
        self.waiting: set[int] = set()
        delays = (world.plan.commit, 0.0005, 0.0002, 0.0002)
        self.workers = [*(InlineWorker(world.clock, delay) for delay in delays), Disk(node)]
        journal, write, opening, read, sync = self.workers
        self.journal = Journal(
            node.folder,
            journal,
            sync,
            [log.SCHEMA, PROGRAM],
            clock=world.clock.seconds,
            next_turn=partial(world.clock.callLater, 0),
            entropy=world.entropy,
            read_worker=read,
            reserve=0,
            segment_size=1 << 20,
        )
        self.boot = world.random.getrandbits(64) or 1
        self.write = write
        self.opening = opening
        self.link: Link | None = None
        self.started = Deferred.fromCoroutine(self._start())
        self.started.addErrback(world.failures.append)

    async def _start(self) -> None:
        world, node = self.node.world, self.node
        await self.journal.open()
        parts = NodeParts(
            node=node.uuid,
            boot=self.boot,
            journal=self.journal,
            writing=self.write,
            reactor=world.clock,
            clock=world.clock.seconds,
            entropy=world.entropy,
            wall_clock=world.clock.seconds,
            outboxes_at_start=await self.journal.transact(log.last_outbox_ids),
        )
        peer = node.peer
        carrier = node.inbound.carrier(node.uuid, self.boot, world.clock.seconds)
        router = LinkRouter(parts, self.opening, carrier.wake)
        if node.told:
            node.told = False
            await router.begin_anew("the operator has said so")
        suite = BoxSuite(bytes(node.key), bytes(peer.key.public_key))
        settings = Settings(packet_size=1 << 18, timing=TimingSettings(first=2.0))
        link = Link(parts, peer.uuid, peer.name, Keyring([suite]), self, settings)
        await link.open()
        if self.over:
            return
        self.link, self.carrier, self.router = link, carrier, router
        router.add(link)
        await carrier.start(router)
        link.makeConnection(carrier.transport(peer.uuid))

    def crash(self) -> None:
        """The process is gone."""
        self.over = True
        for worker in self.workers:
            worker.crash()
        if self.link is not None:
            self.link.close()
            self.carrier.stop()
        self.journal.abandon()

    def send(self, messages: Sequence[tuple[int, int]]) -> None:
        """
        The program on this node sends messages, in one commit.

        @param messages: their numbers and sizes.
        """
        if self.link is None:
            return
        world = self.node.world
        numbers = [message for message, _ in messages]
        world.note(f"{self.node.name} sends messages {numbers}")
        outgoing = [
            Outgoing(
                content(world.plan.seed, message, size), CHANNEL, urgency(message), again=repeatable(message)
            )
            for message, size in messages
        ]

        def note(transaction: ITransaction) -> None:
            for message in numbers:
                transaction.execute("INSERT INTO sent (message) VALUES (?)", (message,))

        def named(transaction: ITransaction, outbox: Sequence[int]) -> None:
            for id, message in zip(outbox, numbers, strict=True):
                transaction.execute("UPDATE sent SET outbox = ? WHERE message = ?", (id, message))

        def noted(outbox: Sequence[int]) -> None:
            assert self.link is not None
            self.link.commit(also=lambda t: named(t, outbox)).addErrback(world.failures.append)

        done = self.link.commit(outgoing, also=note)
        done.addCallback(lambda result: noted(result.sent)).addErrback(world.failures.append)

    # --- IArrivalReceiver

    def recordArriving(self, link: ILink, record: Incoming) -> Arrival:
        """See L{IArrivalReceiver}."""
        assert record.payload is not None
        message, node = self._number(record.payload), self.node
        node.world.arrived[node.uuid].add(message)
        becomes = arrival(message)
        if becomes is not Arrival.STORE and node.doomed is Doom.ARRIVING:
            node.doomed = None
            # Before it is committed, or before what may have been said of it too soon is made good.
            random = node.world.random
            wait = random.random() * random.choice((2 * (ALONE_AFTER + node.world.plan.commit), 0.5))
            node.world.clock.callLater(wait, node.crash_and_start)
        if becomes is Arrival.DONE:
            self._give(message)
            # That it came may be lost, and then it comes again: so this may be done twice.
            link.commit(
                also=lambda t: t.execute("INSERT OR IGNORE INTO received VALUES (?)", (message,))
            ).addErrback(node.world.failures.append)
        return becomes

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        """See L{IRecordReceiver}."""
        world = self.node.world
        # Some at once, some later, so that crashes find them in the inbox.
        wait = world.random.choice((0.0, 0.0, 0.5))
        for record in records:
            if record.payload is None:
                reading: Deferred[Any] = link.read([record.id])
                reading.addCallback(itemgetter(0)).addCallback(partial(self._take, link, record.id))
                reading.addErrback(world.failures.append)
            else:
                if wait:
                    self.waiting.add(record.id)
                    world.clock.callLater(wait, self._take, link, record.id, record.payload)
                else:
                    self._take(link, record.id, record.payload)

    def _broken(self, promise: str) -> None:
        """Ends this world soon; it is called from within the link, which would go on after an exception."""
        self.node.world.failures.append(Violation(promise))

    def _number(self, payload: bytes) -> int:
        """Of the message with this payload."""
        message = int.from_bytes(payload[:8], "big")
        if payload != content(self.node.world.plan.seed, message, int.from_bytes(payload[8:12], "big")):
            self._broken(f"message {message} arrived damaged")
        return message

    def _give(self, message: int) -> None:
        """The program is given a message."""
        node = self.node
        if message in self.given and not node.may_double(message):
            self._broken(f"{node.name} is given message {message} twice in one life")
        self.given.add(message)
        if arrival(message) is not Arrival.STORE:
            node.world.repeated += message in node.dealt_with
            node.dealt_with.add(message)

    def _take(self, link: ILink, id: int, payload: bytes) -> None:
        if self.over:
            return
        self.waiting.discard(id)
        message = self._number(payload)
        self._give(message)

        def note(transaction: ITransaction) -> bool:
            held = transaction.execute("SELECT 1 FROM inbox WHERE id = ?", (id,)).fetchone()
            if held is None:  # a rollback has taken it back
                return False
            added = transaction.execute("INSERT OR IGNORE INTO received VALUES (?)", (message,))
            if not added.rowcount and not node.may_double(message):
                raise Violation(f"{node.name} is handed message {message} again")
            return bool(added.rowcount)

        def acted(result: CommitResult[bool]) -> None:
            if result.value and durable:
                world.act(node, message)

        world, node = self.node.world, self.node
        # What is done before it is on the disk may be done again after a power cut.
        durable = message % 2 == 0
        done = link.commit(consume=[id], also=note, durable=durable)
        done.addCallback(acted).addErrback(world.failures.append)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        """See L{IRecordReceiver}."""

    def linkChanged(self, link: ILink) -> None:
        """See L{IRecordReceiver}."""

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> None:
        """See L{IRecordReceiver}."""
        world, node = self.node.world, self.node
        world.rollbacks += 1
        if world.random.random() < 0.3 and not world.calm:
            # Perhaps before what follows from it is committed.
            world.soon(node.crash_and_start, within=6)

        def note(transaction: ITransaction) -> None:
            certain = set(resent)
            for message, outbox in transaction.execute("SELECT message, outbox FROM sent").fetchall():
                if outbox not in certain:
                    transaction.execute("UPDATE sent SET uncertain = 1 WHERE message = ?", (message,))

        link.commit(also=note).addErrback(self.node.world.failures.append)
