"""
One life of two nodes in virtual time, from one seed: the real links, journals
and packets over a faulty channel, with crashes, power cuts, restores from
backups, and old files that are put back.

The oracle is end to end and lives in the journals: a program on each node notes
in the transaction that sends a message that it was sent, in the one that
consumes it that it was received, and what it was told to be uncertain.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import UUID

from attrs import field, frozen
from nacl.public import PrivateKey
from twisted.internet.defer import Deferred
from zope.interface import implementer

from hoft.interfaces import ILink, Incoming, IRecordReceiver, ITransaction, Outgoing
from hoft.protocols import log
from hoft.protocols.journal import Journal
from hoft.protocols.keyring import Keyring
from hoft.protocols.link import Link
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.replication import Settings
from hoft.protocols.router import LinkRouter
from hoft.protocols.schema import Schema
from hoft.protocols.sealing import BoxSuite
from hoft.protocols.timing import TimingSettings
from hoft.testing.channel import Faults, FaultyChannel
from hoft.testing.clock import HeapClock
from hoft.testing.worker import InlineWorker
from hoft.transports.memory import MemoryFolder

T = TypeVar("T")

CHANNEL = 1
CALM = Faults()
POWER_WINDOW = 1.0
"""Seconds before a power cut in which it is known what is on the disk."""

PROGRAM = Schema(
    "program",
    (
        (
            "CREATE TABLE sent (message INTEGER PRIMARY KEY, outbox INTEGER, uncertain INTEGER DEFAULT 0)",
            "CREATE TABLE received (message INTEGER PRIMARY KEY)",
        ),
    ),
)


@frozen
class Plan:
    """What happens in a life."""

    seed: int
    messages: int = 200
    faults: Faults = field(factory=Faults)
    crashes: int = 0
    restores: int = 0
    power_cuts: int = 0
    replays: float = 0.0
    """The part of all earlier files that is put back after each start of a process."""
    disk: float = 0.004
    """Seconds for which the disk is waited for."""
    commit: float = 0.0002
    """Seconds that a commit takes."""
    seconds: float = 60.0
    """How long messages are sent and nodes crash, before calm returns."""


def plan_of(seed: int, messages: int) -> Plan:
    """The life that a seed stands for: somewhere between calm and all faults at once."""
    random = Random(f"plan {seed}")
    chance = random.random
    faults = Faults(
        lose=chance() * 0.3,
        truncate=chance() * 0.5,
        duplicate=chance() * 0.2,
        flip=chance() * 0.05,
        grow=chance() * 0.1,
        zeros=chance() * 0.1,
        delay=random.choice((0.01, 0.05, 0.5, 3.0)),
        spread=chance() * 1.5,
    )
    return Plan(
        seed,
        messages,
        faults,
        crashes=random.choice((0, 1, 2, 3, 5, 8)),
        restores=random.choice((0, 0, 0, 1, 2)),
        power_cuts=random.choice((0, 0, 0, 1, 2)),
        replays=random.choice((0.0, 0.0, 0.0, 0.1)),
        disk=random.choice((0.001, 0.004, 0.3)),
        commit=random.choice((0.0002, 0.0002, 0.05, 0.5)),
        seconds=messages * 0.3,
    )


class Violation(AssertionError):
    """The log broke its promise."""


def live(plan: Plan) -> World:
    """
    Live through a plan in a temporary folder, in memory where the system has one.

    @raise Violation: a promise was broken.
    """
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        world = World(plan, Path(folder))
        world.run()
        return world


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


@implementer(IRecordReceiver)
class Life:
    """A node from one start to its crash."""

    def __init__(self, node: Node) -> None:
        world = node.world
        self.node = node
        self.over = False
        delays = (world.plan.commit, 0.0005, 0.0002, 0.0002)
        self.workers = [*(InlineWorker(world.clock, delay) for delay in delays), Disk(node)]
        journal, write, opening, read, sync = self.workers
        self.journal = Journal(
            node.folder,
            journal,
            sync,
            [log.SCHEMA, PROGRAM],
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
            settings=Settings(packet_size=1 << 18, timing=TimingSettings(first=2.0)),
            outboxes_at_start=await self.journal.transact(log.last_outbox_ids),
        )
        peer = node.peer
        carrier = world.carrier_folder.carrier(node.uuid, self.boot, world.clock.seconds)
        router = LinkRouter(parts, self.opening, carrier.wake)
        suite = BoxSuite(bytes(node.key), bytes(peer.key.public_key))
        link = Link(parts, peer.uuid, peer.name, Keyring([suite]), self)
        await link.open()
        if self.over:
            return
        self.link, self.carrier = link, carrier
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

    def send(self, message: int, size: int) -> None:
        """The program on this node sends a message."""
        if self.link is None:
            return
        world = self.node.world
        outgoing = Outgoing(content(world.plan.seed, message, size), CHANNEL, message % 4 + 2)

        def note(transaction: ITransaction) -> None:
            transaction.execute("INSERT INTO sent (message) VALUES (?)", (message,))

        def noted(outbox: int) -> None:
            assert self.link is not None
            self.link.commit(
                also=lambda t: t.execute("UPDATE sent SET outbox = ? WHERE message = ?", (outbox, message))
            ).addErrback(world.failures.append)

        done = self.link.commit([outgoing], also=note)
        done.addCallbacks(lambda result: noted(result.sent[0]), world.failures.append)

    # --- IRecordReceiver

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        """See L{IRecordReceiver}."""
        for record in records:
            if record.payload is None:
                link.read([record.id]).addCallbacks(
                    lambda payloads, id=record.id: self._take(link, id, payloads[0]),
                    self.node.world.failures.append,
                )
            else:
                # Some at once, some later, so that crashes find them in the inbox.
                wait = self.node.world.random.choice((0.0, 0.0, 0.5))
                self.node.world.clock.callLater(wait, self._take, link, record.id, record.payload)

    def _take(self, link: ILink, id: int, payload: bytes) -> None:
        if self.over:
            return
        message = int.from_bytes(payload[:8], "big")
        if payload != content(self.node.world.plan.seed, message, int.from_bytes(payload[8:12], "big")):
            raise Violation(f"message {message} arrived damaged")

        def note(transaction: ITransaction) -> None:
            held = transaction.execute("SELECT 1 FROM inbox WHERE id = ?", (id,)).fetchone()
            if held is not None:  # else a rollback has taken it back
                transaction.execute("INSERT INTO received VALUES (?)", (message,))

        link.commit(consume=[id], also=note).addErrback(self.node.world.failures.append)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        """See L{IRecordReceiver}."""

    def linkChanged(self, link: ILink) -> None:
        """See L{IRecordReceiver}."""

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> None:
        """See L{IRecordReceiver}."""
        world, node = self.node.world, self.node
        world.rollbacks += 1
        if world.random.random() < 0.3 and world.channel.faults is not CALM:
            # Perhaps before what follows from it is committed.
            world.soon(node.crash_and_start, within=6)

        def note(transaction: ITransaction) -> None:
            certain = set(resent)
            for message, outbox in transaction.execute("SELECT message, outbox FROM sent").fetchall():
                if outbox not in certain:
                    transaction.execute("UPDATE sent SET uncertain = 1 WHERE message = ?", (message,))

        link.commit(also=note).addErrback(self.node.world.failures.append)


class Node:
    """A node across its lives, crashes, backups and restores."""

    def __init__(self, world: World, name: str) -> None:
        random = world.random
        self.world = world
        self.name = name
        self.uuid = UUID(bytes=random.randbytes(16))
        self.key = PrivateKey(random.randbytes(32))
        self.folder = world.folder / name
        self.folder.mkdir(mode=0o700)
        self.backups: list[Path] = []
        self.on_disk: Path | None = None
        self.doomed = False
        self.peer: Node
        self.life: Life | None = None

    def start(self) -> None:
        """A process starts."""
        if self.life is None:
            self.life = Life(self)
            self.world.replay(self)

    def crash(self) -> None:
        """It is killed."""
        if self.life is not None:
            self.life.crash()
            self.life = None

    def doom(self) -> None:
        """It is to be killed over the next file that arrives."""
        self.doomed = True

    def crash_and_start(self) -> None:
        """It is killed, and started again a second later."""
        self.crash()
        self.world.clock.callLater(1.0, self.start)

    def back_up(self) -> None:
        """Somebody copies the state folder of the running node."""
        target = self.world.folder / f"{self.name}-{len(self.backups)}"
        shutil.copytree(self.folder, target)
        self.backups.append(target)

    def restore(self) -> None:
        """The node is killed and an earlier copy put in the place of its state."""
        if self.backups:
            self.crash()
            self._put(self.world.random.choice(self.backups))

    def _put(self, copy: Path) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)
        self.world.restores += 1

    def threaten(self) -> None:
        """The power is about to fail: note from now on what is on the disk."""
        self.on_disk = self.world.folder / f"{self.name}-disk"
        self.synced()

    def synced(self) -> None:
        """All that was committed by now is on the disk."""
        if self.on_disk is not None:
            shutil.rmtree(self.on_disk, ignore_errors=True)
            shutil.copytree(self.folder, self.on_disk)

    def cut_power(self) -> None:
        """The machine is gone, and with it what was not on the disk yet."""
        self.crash()
        if self.on_disk is not None:
            self._put(self.on_disk)
            shutil.rmtree(self.on_disk)
            self.on_disk = None


class World:
    """
    A life of two nodes, near and far.

    @ivar failures: what went wrong in a way that is no part of the plan.
    @ivar trace: a digest of all that crossed, equal for equal seeds.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.random = Random(plan.seed)
        self.clock = HeapClock()
        self.channel = FaultyChannel(Random(f"{plan.seed} channel"), plan.faults)
        self.carrier_folder = MemoryFolder(self.clock, self._deliver)
        self.failures: list[object] = []
        self.rollbacks = 0
        self.restores = 0
        self.files = 0
        self._crossed: dict[UUID, list[tuple[str, bytes]]] = {}
        self._countdowns: list[tuple[int, Callable[[], None]]] = []
        self._trace = blake2b(digest_size=16)
        self.near, self.far = Node(self, "near"), Node(self, "far")
        self.near.peer, self.far.peer = self.far, self.near

    def entropy(self, count: int) -> bytes:
        """Random bytes, the same for the same seed."""
        return self.random.randbytes(count)

    def _deliver(self, sender: UUID, recipient: UUID, name: str, data: bytes) -> list[tuple[float, bytes]]:
        self.files += 1
        self._trace.update(f"{self.clock.seconds():.6f} {name} {len(data)}".encode())
        self._trace.update(data)
        if self.plan.replays:
            self._crossed.setdefault(recipient, []).append((name, data))
        arrivals = list(self.channel(sender, recipient, name, data))
        for node in (self.near, self.far):
            if node.doomed and node.uuid == recipient and arrivals:
                # Perhaps between its reading, its commit and what is said of it.
                node.doomed = False
                wait = arrivals[0][0] + self.random.random() * (0.05 + self.plan.commit)
                self.clock.callLater(wait, node.crash_and_start)
        return arrivals

    def replay(self, node: Node) -> None:
        """Some of the files that were ever sent to C{node} appear again, in any order."""
        crossed = self._crossed.get(node.uuid, [])
        for name, data in self.random.sample(crossed, int(len(crossed) * self.plan.replays)):
            wait = self.random.expovariate(0.5)
            self.clock.callLater(wait, self.carrier_folder.put, node.uuid, name, data)

    @property
    def trace(self) -> str:
        """See the class."""
        return self._trace.hexdigest()

    def run(self) -> None:
        """
        Live through the plan, then let calm return and everything be delivered.

        @raise Violation: a promise was broken.
        """
        plan, random, later = self.plan, self.random, self.clock.callLater
        nodes = (self.near, self.far)
        for node in nodes:
            later(random.random(), node.start)
        for message in range(1, plan.messages + 1):
            size = min(int(random.lognormvariate(6, 2)), 65000)
            later(1 + random.random() * plan.seconds, self._send, random.choice(nodes), message, size)
        for _ in range(plan.crashes):
            at = 1 + random.random() * plan.seconds
            for node in random.choice(((self.near,), (self.far,), nodes)):
                if random.random() < 0.5:
                    later(at, node.doom)
                    continue
                later(at, self.soon, node.crash)
                later(at + 0.1 + random.expovariate(1.0), node.start)
        for _ in range(plan.power_cuts):
            node, at = random.choice(nodes), 1 + random.random() * plan.seconds
            later(at, node.threaten)
            later(at + POWER_WINDOW, self.soon, node.cut_power)
            later(at + POWER_WINDOW + 0.1 + random.choice((0.0, 1.0)), node.start)
            self._burst(node, at + POWER_WINDOW + 0.1)
        for _ in range(plan.restores):
            node, at = random.choice(nodes), 2 + random.random() * plan.seconds
            later(at * random.random(), self._back_up, node)
            later(at, node.restore)
            later(at + random.choice((0.01, 1.0, 5.0)), node.start)
            self._burst(node, at)
        self._advance(plan.seconds + 12)
        self.channel.faults = CALM
        for node in nodes:
            node.doomed = False
            node.start()
        for _ in range(400):
            self._advance(60)
            if self._quiet():
                break
        else:
            raise Violation(f"not quiet after {self.clock.seconds():.0f} s: {self._state()}")
        self._advance(60)
        self._judge()
        for node in nodes:
            node.crash()

    def soon(self, function: Callable[[], None], within: int = 30) -> None:
        """After some more events, so that it falls into the middle of something."""
        self._countdowns.append((self.random.randrange(within), function))

    def _burst(self, node: Node, at: float) -> None:
        """Messages immediately after a restore, before anything is known of the peer."""
        for burst in range(5):
            message = self.plan.messages + 1 + self.random.getrandbits(40)
            self.clock.callLater(at + 0.02 + burst / 50, self._send, node, message, 100)

    def _send(self, node: Node, message: int, size: int) -> None:
        if node.life is not None:
            node.life.send(message, size)

    def _back_up(self, node: Node) -> None:
        if node.folder.exists():
            node.back_up()

    def _advance(self, seconds: float) -> None:
        until = self.clock.seconds() + seconds
        while self.clock.step(until):
            if self._countdowns:
                due = [function for steps, function in self._countdowns if not steps]
                self._countdowns = [(steps - 1, function) for steps, function in self._countdowns if steps]
                for function in due:
                    function()
        if self.failures:
            raise Violation(str(self.failures[0]))

    def _quiet(self) -> bool:
        lives = [node.life for node in (self.near, self.far)]
        links = [life.link for life in lives if life is not None]
        return all(link is not None and not link.engine.sender.unacknowledged() for link in links)

    def _state(self) -> str:
        lines = []
        for node in (self.near, self.far):
            link = node.life.link if node.life else None
            if link is not None:
                lines.append(
                    f"{node.name}: {link.state} {link.engine.sender.unacknowledged()} {link.counters}"
                )
        return "; ".join(lines)

    def _ask(self, node: Node, sql: str) -> list[Any]:
        assert node.life is not None
        answers: list[list[Any]] = []
        asked = node.life.journal.transact(lambda t: t.execute(sql).fetchall())
        asked.addCallbacks(answers.append, self.failures.append)
        self._advance(1)
        return answers[0]

    def _judge(self) -> None:
        """Every message that is not said to be uncertain was received, once; all others at most once."""
        for sender, receiver in ((self.near, self.far), (self.far, self.near)):
            sent: dict[int, int] = dict(self._ask(sender, "SELECT message, uncertain FROM sent"))
            received = {message for (message,) in self._ask(receiver, "SELECT message FROM received")}
            certain = [message for message, uncertain in sent.items() if not uncertain]
            missing = [message for message in certain if message not in received]
            if missing:
                raise Violation(f"{sender.name} to {receiver.name}: lost in silence: {missing[:10]}")
            left = self._ask(receiver, "SELECT count(*) FROM inbox")[0][0]
            if left:
                raise Violation(f"{receiver.name}: {left} records were never handed up")
            if not self.restores and (received - set(sent) or any(sent.values())):
                raise Violation("something was invented, or called uncertain, without a restore")


if __name__ == "__main__":  # python -m tests.torture.lifetime SEED [MESSAGES]
    import sys

    replayed = live(plan_of(int(sys.argv[1]), int((sys.argv[2:] or ["200"])[0])))
    print(f"{replayed.files} files, {dict(replayed.channel.counts)}, trace {replayed.trace}")
