"""
One life of two nodes in virtual time, from one seed: the real links, journals
and packets over a faulty channel, with crashes, power cuts, restores from
backups, and old files that are put back.

The oracle is end to end and lives in the journals: a program on each node notes
in the transaction that sends a message that it was sent, in the one that
consumes it that it was received, and what it was told to be uncertain.
"""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from attrs import field, frozen

from hoft.interfaces import LinkState
from hoft.testing.channel import Faults, FaultyChannel
from hoft.testing.clock import HeapClock
from hoft.transports.memory import MemoryFolder
from tests.torture.life import Doom, Violation, repeatable
from tests.torture.node import Node
from tests.torture.tracing import Trace

MEMORY = Path("/dev/shm")
"""Where a folder is in memory, where the system has that."""

POWER_WINDOW = 1.0
"""Seconds before a power cut in which it is known what is on the disk."""


@frozen
class Plan:
    """What happens in a life."""

    seed: int
    messages: int = 200
    together: int = 1
    """How many of them a program commits at once, at most."""
    faults: Faults = field(factory=Faults)
    crashes: int = 0
    restores: int = 0
    power_cuts: int = 0
    wipes: int = 0
    clones: int = 0
    """How often a copy of a running node is started beside it."""
    both: int = 0
    """How often both nodes are restored, one after the other."""
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
        together=random.choice((1, 4, 16, 64)) * max(1, messages // 200),
        faults=faults,
        crashes=random.choice((0, 1, 2, 3, 5, 8)),
        restores=random.choice((0, 0, 0, 1, 2)),
        power_cuts=random.choice((0, 0, 0, 1, 2)),
        replays=random.choice((0.0, 0.0, 0.0, 0.1)),
        disk=random.choice((0.001, 0.004, 0.3)),
        commit=random.choice((0.0002, 0.0002, 0.05, 0.5)),
        seconds=min(messages * 0.3, random.choice((20.0, 60.0))),
        wipes=random.choice((0,) * 9 + (1,)),
        clones=random.choice((0,) * 5 + (1,)),
        both=random.choice((0,) * 9 + (1,)),
    )


def live(plan: Plan, trace: Trace | None = None) -> World:
    """
    Live through a plan in a temporary folder, in memory where the system has one.

    @param trace: where what happens is written.
    @raise Violation: a promise was broken.
    """
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder, uncollected():
        world = World(plan, Path(folder), trace)
        world.run()
        return world


@contextmanager
def uncollected() -> Iterator[None]:
    """
    Garbage is collected afterwards: to look for it takes a fifth of a life, and a life makes little.
    That of the life before, too, which whoever lived it held until then.
    """
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        gc.collect()


class World:
    """
    A life of two nodes, near and far.

    @ivar failures: what went wrong in a way that is no part of the plan.
    @ivar trace: a digest of all that crossed, equal for equal seeds.
    @ivar shared: messages that two copies of a node held before either had numbered them.
    @ivar rolled_back: nodes that were restored, wiped or copied.
    @ivar lost_state: these, and nodes whose power has failed.
    @ivar repeated: how often a program was given, in a later life, what it had dealt with at once.
    @ivar arrived: by node, the messages that ever came there, though perhaps no further than that.
    @ivar crossed: names and contents of all files so far, by recipient, if the plan has replays.
    """

    def __init__(self, plan: Plan, folder: Path, trace: Trace | None = None) -> None:
        self.plan = plan
        self.folder = folder
        self.random = Random(plan.seed)
        self.clock = HeapClock()
        self.channel = FaultyChannel(Random(f"{plan.seed} channel"), plan.faults)
        self.carrier_folder = MemoryFolder(self.clock, self._deliver)
        self.second_folder = MemoryFolder(self.clock, self._deliver_from_second)
        self.calm = False
        self.failures: list[object] = []
        self.rollbacks = 0
        self.restores = 0
        self.repeated = 0
        self.alarms = 0
        self.files = 0
        self.shared: set[int] = set()
        self.rolled_back: set[UUID] = set()
        self.lost_state: set[UUID] = set()
        self.arrived: defaultdict[UUID, set[int]] = defaultdict(set)
        self._acted: Counter[tuple[UUID, int]] = Counter()
        self._readable = trace
        self.crossed: dict[UUID, list[tuple[str, bytes]]] = {}
        self._countdowns: list[tuple[int, Callable[[], None]]] = []
        self._trace = blake2b(digest_size=16)
        self.near, self.far = Node.new(self, "near"), Node.new(self, "far")
        self.near.peer, self.far.peer = self.far, self.near
        self.clone: Node | None = None
        self.cloned = False

    def nodes(self) -> tuple[Node, ...]:
        """Both, and perhaps the copy of one."""
        return (self.near, self.far) if self.clone is None else (self.near, self.far, self.clone)

    def entropy(self, count: int) -> bytes:
        """Random bytes, the same for the same seed."""
        return self.random.randbytes(count)

    def note(self, event: str) -> None:
        """Something happens."""
        if self._readable is not None:
            self._readable.event(self.clock.seconds(), event)

    def act(self, node: Node, message: int) -> None:
        """C{node} has acted on a message for good; this is known beyond its journal."""
        self._acted[node.uuid, message] += 1
        if (
            self._acted[node.uuid, message] > 1
            and not {node.uuid} & self.rolled_back | {message} & self.shared
        ):
            raise Violation(f"{node.name} acts on message {message} again")

    # --- the carrier

    def _deliver(
        self, sender: UUID, recipient: UUID, name: str, data: bytes
    ) -> Iterable[tuple[float, bytes]]:
        self.files += 1
        self._trace.update(f"{self.clock.seconds():.6f} {name} {len(data)}".encode())
        self._trace.update(data)
        if self.plan.replays:
            self.crossed.setdefault(recipient, []).append((name, data))
        arrivals = list(self.channel(sender, recipient, name, data))
        if self._readable is not None:
            self._readable.packet(self.clock.seconds(), self._named(recipient), data, arrivals)
        for node in self.nodes():
            if node.doomed is Doom.READING and node.uuid == recipient and arrivals:
                node.doomed = None
                wait = arrivals[0][0] + self.random.random() * (0.05 + self.plan.commit)
                self.clock.callLater(wait, node.crash_and_start)
            elif node.doomed is Doom.SPEAKING and node.uuid == sender and node.is_at_work():
                node.doomed = None
                self.clock.callLater(0, node.crash_and_start)
        if any(node.uuid == recipient and node.inbound is self.second_folder for node in self.nodes()):
            # The carrier brings everything to both machines.
            for wait, content in arrivals:
                self.clock.callLater(
                    wait * 2 * self.random.random(), self.second_folder.put, recipient, name, content
                )
        return arrivals

    def _deliver_from_second(
        self, sender: UUID, recipient: UUID, name: str, data: bytes
    ) -> Iterable[tuple[float, bytes]]:
        for wait, arrived in self._deliver(sender, recipient, name, data):
            self.clock.callLater(wait, self.carrier_folder.put, recipient, name, arrived)
        return ()

    def _named(self, recipient: UUID) -> Node:
        return self.near if recipient == self.near.uuid else self.far

    def replay(self, node: Node) -> None:
        """Some of the files that were ever sent to C{node} appear again, in any order."""
        crossed = self.crossed.get(node.uuid, [])
        for name, data in self.random.sample(crossed, int(len(crossed) * self.plan.replays)):
            wait = self.random.expovariate(0.5)
            self.clock.callLater(wait, node.inbound.put, node.uuid, name, data)

    @property
    def trace(self) -> str:
        """See the class."""
        return self._trace.hexdigest()

    # --- what happens

    def run(self) -> None:
        """
        Live through the plan, then let calm return and everything be delivered.

        @raise Violation: a promise was broken.
        """
        self.arrange()
        self.advance(self.plan.seconds + 12)
        self.settle()

    def settle(self) -> None:
        """
        Calm returns: everything must be delivered.

        @raise Violation: a promise was broken.
        """
        self.note("calm returns")
        self.channel.faults = Faults()
        self.calm = True
        self._countdowns.clear()
        for node in self.nodes():
            node.doomed = None
            node.start()
        if self.clone is not None:
            for node in (self.clone, self.clone.peer.peer):
                self.burst(node, self.clock.seconds())  # who says nothing is not noticed
        self._until_quiet()
        while self._alarm():
            self._until_quiet()
        for node in self.nodes():
            if node.uuid in self.lost_state:
                # These links have no heartbeat: who has nothing to say does not hear of it.
                node.peer.ask()
        self._until_quiet()
        self.advance(60)
        self._judge()
        for node in self.nodes():
            node.crash()

    def arrange(self) -> None:
        """Ask the clock for all that the plan has in it."""
        plan, random, later = self.plan, self.random, self.clock.callLater
        nodes = (self.near, self.far)
        for node in nodes:
            later(random.random(), node.start)
        messages = [(at + 1, min(int(random.lognormvariate(6, 2)), 65000)) for at in range(plan.messages)]
        while messages:
            count = random.randint(1, plan.together)
            later(1 + random.random() * plan.seconds, self._send, random.choice(nodes), messages[:count])
            del messages[:count]
        for _ in range(plan.crashes):
            at = 1 + random.random() * plan.seconds
            for node in random.choice(((self.near,), (self.far,), nodes)):
                if random.random() < 0.6:
                    later(at, node.doom, random.choice(list(Doom)))
                    continue
                later(at, self.soon, node.crash)
                later(at + 0.1 + random.expovariate(1.0), node.start)
        for _ in range(plan.power_cuts):
            node, at = random.choice(nodes), 1 + random.random() * plan.seconds
            later(at, node.threaten)
            later(at + POWER_WINDOW, self.soon, node.cut_power)
            later(at + POWER_WINDOW + 0.1 + random.choice((0.0, 1.0)), node.start)
            self.burst(node, at + POWER_WINDOW + 0.1)
        for _ in range(plan.restores):
            self._restore(random.choice(nodes), 2 + random.random() * plan.seconds)
        for _ in range(plan.both):
            at = 2 + random.random() * plan.seconds
            for node in nodes:
                self._restore(node, at + random.choice((0.0, 0.0, random.random() * 3)))
        for _ in range(plan.wipes):
            node, at = random.choice(nodes), 2 + random.random() * plan.seconds
            later(at, node.wipe)
            later(at + random.choice((0.01, 1.0, 5.0)), node.start)
            self.burst(node, at)
        for _ in range(plan.clones):
            later(2 + random.random() * plan.seconds, self.start_clone, random.choice(nodes))

    def _restore(self, node: Node, at: float) -> None:
        random, later = self.random, self.clock.callLater
        later(at * random.random(), self._back_up, node)
        later(at, node.restore, random.random() < 0.2)
        later(at + random.choice((0.01, 1.0, 5.0)), node.start)
        self.burst(node, at)

    def start_clone(self, node: Node) -> None:
        """A copy is started beside C{node}; perhaps one of the two ends before anybody has noticed."""
        self.note(f"a copy of {node.name} is started beside it")
        self.cloned = True
        self.clone = clone = node.clone(f"{node.name}-clone")
        self.shared |= clone.unsent()
        self.restores += 1
        self.rolled_back.add(node.uuid)
        self.lost_state.add(node.uuid)
        clone.start()
        self.burst(clone, self.clock.seconds())
        if self.random.random() < 0.3:
            ends = self.random.choice((node, clone))
            self.clock.callLater(self.random.random() * 20, lambda: None if self.calm else self._end(ends))

    def _alarm(self) -> bool:
        """Whether there was one; if so, one of the two is stopped, and the other side started again."""
        stopped = [node for node in (self.near, self.far) if self._link_state(node) is LinkState.STOPPED]
        if stopped and not self.cloned:
            raise Violation("a clone was seen where there is none")
        if self.clone is not None:
            if not stopped:
                raise Violation(f"two processes of one node, and nobody has noticed: {self._state()}")
            self._end(self.random.choice((self.clone, self.clone.peer.peer)))
        for node in stopped:
            self.alarms += 1
            node.crash()
            node.start()
        return bool(stopped)

    def _end(self, node: Node) -> None:
        """One of two copies is stopped for good; the other is the node from now on."""
        clone = self.clone
        if clone is None:
            return
        self.note(f"{node.name} ends for good")
        node.crash()
        self.clone = None
        if node is not clone:
            node.gone = True  # whatever else was planned for it
            clone.peer.peer = clone
            if self.near is node:
                self.near = clone
            else:
                self.far = clone

    def soon(self, function: Callable[[], None], within: int = 30) -> None:
        """After some more events, so that it falls into the middle of something."""
        self._countdowns.append((self.random.randrange(within), function))

    def burst(self, node: Node, at: float) -> None:
        """Messages immediately after a restore, before anything is known of the peer."""
        for burst in range(5):
            message = self.plan.messages + 1 + self.random.getrandbits(40)
            self.clock.callLater(
                max(0.0, at + 0.02 + burst / 50 - self.clock.seconds()), self._send, node, [(message, 100)]
            )

    def _send(self, node: Node, messages: Sequence[tuple[int, int]]) -> None:
        if node.life is not None:
            node.life.send(messages)

    def _back_up(self, node: Node) -> None:
        if node.folder.exists():
            node.back_up()

    def advance(self, seconds: float) -> None:
        """
        Let time pass.

        @raise Violation: a promise was broken, or something failed.
        """
        until = self.clock.seconds() + seconds
        while self.clock.step(until):
            if self._countdowns:
                due = [function for steps, function in self._countdowns if not steps]
                self._countdowns = [(steps - 1, function) for steps, function in self._countdowns if steps]
                for function in due:
                    function()
        if self.failures:
            raise Violation(str(self.failures[0]))

    # --- what must hold

    def _until_quiet(self) -> None:
        for _ in range(400):
            self.advance(60)
            if self._quiet():
                return
        raise Violation(f"not quiet after {self.clock.seconds():.0f} s: {self._state()}")

    def _link_state(self, node: Node) -> LinkState | None:
        return node.life.link.state if node.life is not None and node.life.link is not None else None

    def _quiet(self) -> bool:
        if LinkState.STOPPED in map(self._link_state, (self.near, self.far)):
            return True
        links = [node.life.link for node in (self.near, self.far) if node.life is not None]
        return self.clone is None and all(
            link is not None and not link.engine.sender.records and link.engine.synchronised for link in links
        )

    def _state(self) -> str:
        lines = []
        for node in self.nodes():
            link = node.life.link if node.life else None
            if link is not None:
                lines.append(f"{node.name}: {link.state} {len(link.engine.sender.records)} {link.counters}")
        return "; ".join(lines)

    def _ask(self, node: Node, sql: str) -> list[Any]:
        assert node.life is not None
        answers: list[list[Any]] = []
        asked = node.life.journal.transact(lambda t: t.execute(sql).fetchall())
        asked.addCallbacks(answers.append, self.failures.append)
        self.advance(1)
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
            if sender.uuid not in self.lost_state:
                # Where others would be uncertain, these are sent again.
                dropped = [m for m in sent if repeatable(m) and m not in self.arrived[receiver.uuid]]
                if dropped:
                    raise Violation(f"{sender.name} was to send these again, if need be: {dropped[:10]}")
            left = self._ask(receiver, "SELECT count(*) FROM inbox")[0][0]
            if left:
                raise Violation(f"{receiver.name}: {left} records were never handed up")
            if not self.restores and (received - set(sent) or any(sent.values())):
                raise Violation("something was invented, or called uncertain, without a restore")
