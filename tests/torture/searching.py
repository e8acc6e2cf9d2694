"""
All that may happen to two nodes, searched: restarts, restores, wipes and clones.

The nodes are those of L{tests.torture.restarts}.  A packet shows all that its
sender has to say, and whatever was ever sent may be delivered at any time, as
often as the search likes, or never.  So there is no carrier, no timer and no
chance in it, and what L{search} has not found within its bounds is not there;
L{walk} goes farther, and not everywhere.

After each step some things must hold (L{Broken}); and from each state calm may
return: then everything must come to rest, with nothing lost in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import NamedTuple

from hoft.protocols.synchronisation import Judgement
from tests.torture.restarts import Broken, Disk, Packet, Process

NODES = (0, 1)
CLONE = 2
"""The place of a second process of one of the nodes."""

CALM = 60
"""Deliveries, each way, in which calm must bring everything to rest."""


class Budget(NamedTuple):
    """How often each may still happen."""

    sends: int = 0
    crashes: int = 0
    copies: int = 0
    restores: int = 0
    wipes: int = 0
    clones: int = 0
    ends: int = 0
    """How often one of two that run side by side ends before anybody has noticed."""
    told: int = 0
    """Of the restores, after how many C{hoft restored} is run."""


class World:
    """Two nodes, perhaps a clone of one, and every packet there ever was."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.starts = 0
        self.contents = 0
        self.packets: tuple[Packet, ...] = ()
        self.said: frozenset[int] = frozenset()
        self.processes: dict[int, Process] = {}
        self.owned: set[int] = set()
        self.copies: dict[int, Disk] = {}
        self.acted: frozenset[int] = frozenset()
        """Contents that any process was ever handed."""
        self.rolled_back: frozenset[int] = frozenset()
        """Nodes that were."""
        self.cloned = False
        self.shared: frozenset[int] = frozenset()
        """What two processes hold that neither has given a number: both may send it."""
        for node in NODES:
            self.start(node, node, Disk(node + 1))

    def copy(self) -> World:
        """To go on differently from here."""
        new: World = object.__new__(World)
        new.__dict__.update(self.__dict__)
        new.processes = dict(self.processes)  # each is copied before it changes, see _own
        new.owned, self.owned = set(), set()
        new.copies = dict(self.copies)
        return new

    def key(self) -> object:
        """Equal for equal states."""
        return hash(
            (
                self.budget,
                self.said,
                tuple(process.key() for process in self.processes.values()),
                tuple(self.copies.items()),
            )
        )

    # --- what may happen

    def start(self, place: int, node: int, disk: Disk) -> None:
        """A process starts."""
        self.starts += 1
        self.owned.add(place)
        self.processes[place] = Process(node, (node + 1) * 100 + self.starts, disk)
        self._speak(place)

    def deliver(self, packet: Packet, place: int) -> Judgement:
        """Any packet there ever was."""
        process = self._own(place)
        before = process.disk
        judgement = process.receive(packet, self.shared)
        self._check(place, before)
        self._speak(place)
        return judgement

    def _own(self, place: int) -> Process:
        process = self.processes[place]
        if place not in self.owned:
            self.owned.add(place)
            process = self.processes[place] = process.copy()
        process.forget_key()
        return process

    def _speak(self, place: int) -> None:
        said = tuple(self.processes[place].speak())
        if said:
            self.packets += said
            self.said |= {hash(packet) for packet in said}

    def _check(self, place: int, before: Disk) -> None:
        process = self.processes[place]
        new = process.disk.delivered - before.delivered
        if new & self.acted and process.node not in self.rolled_back:
            raise Broken(
                f"{set(new & self.acted)} is acted on twice, and no copy was in play at the receiver"
            )
        self.acted |= new
        gone = {content for _, content in before.outbox} - {content for _, content in process.disk.outbox}
        lost = (gone & process.disk.certain) - self.acted
        if lost and not self.cloned:  # what clones say is mixed up until they are noticed
            raise Broken(f"{lost} count as delivered, and nobody was ever handed them")

    def steps(self) -> Iterator[tuple[str, Callable[[], World]]]:
        """Whatever may happen next: what it is called, and what then is."""
        budget, after = self.budget, self._after
        for place, process in self.processes.items():
            if not process.sync.stopped:
                for packet in self.packets:
                    if packet.node != process.node:
                        yield f"to {place}: {packet}", after(World.deliver, packet, place)
            if budget.sends:
                yield f"send at {place}", after(World.send, place, sends=1)
        for node in NODES:
            disk = self.processes[node].disk
            if budget.crashes:
                yield f"restart {node}", after(World.start, node, node, disk, crashes=1)
            if budget.copies and node not in self.copies:
                yield f"copy {node}", after(World.back_up, node, copies=1)
            if budget.restores and node in self.copies:
                yield f"restore {node}", after(World.restore, node, restores=1)
                if budget.told:
                    yield f"restore {node}, say so", after(World.restore, node, True, restores=1, told=1)
            if budget.wipes:
                yield f"wipe {node}", after(World.wipe, node, wipes=1)
            if budget.clones and CLONE not in self.processes:
                for copy in {disk, self.copies.get(node, disk)}:
                    yield f"clone {node} at {copy.clock}", after(World.clone, node, copy, clones=1)

        if budget.ends and CLONE in self.processes:
            yield "the clone ends", after(World.end, CLONE, ends=1)
            yield "the original ends", after(World.end, self.processes[CLONE].node, ends=1)

    def _after(self, action: Callable[..., object], *arguments: object, **costs: int) -> Callable[[], World]:
        def then() -> World:
            world = self.copy()
            if costs:
                spent = {name: getattr(self.budget, name) - cost for name, cost in costs.items()}
                world.budget = self.budget._replace(**spent)
            action(world, *arguments)
            return world

        return then

    def back_up(self, node: int) -> None:
        """Somebody copies the state folder."""
        self.copies[node] = self.processes[node].disk

    def send(self, place: int) -> None:
        """A program sends something that it never sent before."""
        self.contents += 1
        process = self._own(place)
        process.send(self.contents)
        self._speak(place)

    def restore(self, node: int, told: bool = False) -> None:
        """An earlier copy takes the place of what is there."""
        self.rolled_back |= {node}
        self.start(node, node, self.copies[node])
        if told:
            self.processes[node].mint()
            self._speak(node)

    def wipe(self, node: int) -> None:
        """Nothing takes the place of what is there."""
        self.rolled_back |= {node}
        self.start(node, node, Disk(self.processes[node].disk.incarnation * 100 + 50 + self.starts))

    def clone(self, node: int, disk: Disk) -> None:
        """A copy is started beside the running one."""
        self.rolled_back |= {node}
        self.cloned = True
        self.shared |= {content for number, content in disk.outbox if not number}
        self.start(CLONE, node, disk)

    def end(self, place: int) -> None:
        """One of the two is gone."""
        clone = self.processes.pop(CLONE)
        if place != CLONE:
            self.processes[place] = clone
            self.owned.discard(place)

    # --- calm

    def rest(self) -> None:
        """
        Calm returns: everything new is delivered.  Of two that run side by side
        one is stopped, once that was noticed; either choice is tried.

        @raise Broken: it does not come to rest, or something was lost in silence.
        """
        self._exchange()
        stopped = [place for place in NODES if self.processes[place].sync.stopped]
        if stopped and not self.cloned:
            raise Broken("a clone is seen where there is none")
        if CLONE in self.processes:
            if not stopped:
                raise Broken("two processes of one node, and nobody has noticed")
            for place in (self.processes[CLONE].node, CLONE):
                after = self.copy()
                after.end(place)
                after.rest()
        elif stopped:
            for place in stopped:
                self.start(place, place, self.processes[place].disk)
            self._exchange()
            self._judge()
        else:
            self._judge()

    def _exchange(self) -> None:
        heard = dict.fromkeys(self.processes, len(self.packets))
        for place in self.processes:
            # All others hear it now, whatever they have heard before.
            process = self._own(place)
            process.said = None
            self._speak(place)
        for _ in range(CALM):
            quiet = True
            for place in self.processes:
                process = self.processes[place]
                news, heard[place] = self.packets[heard[place] :], len(self.packets)
                for packet in news:
                    if packet.node != process.node and not process.sync.stopped:
                        quiet = False
                        self.deliver(packet, place)
            if quiet:
                return
        raise Broken("no rest")

    def _judge(self) -> None:
        for node, other in (NODES, reversed(NODES)):
            process, peer = self.processes[node], self.processes[other]
            sync = process.sync
            if sync.adopted != (peer.disk.incarnation, peer.boot) or sync.in_doubt:
                raise Broken(f"{node} does not know {other}")
            lost = process.disk.certain - peer.disk.delivered
            if lost:
                raise Broken(f"{lost} from {node} are lost in silence")
            if process.disk.outbox:
                raise Broken(f"{node} still waits for {process.disk.outbox}")


def found(budget: Budget) -> World:
    """Two nodes that have found each other, with what is left lying since forgotten."""
    world = World(budget)
    world.rest()
    world.packets = ()
    for process in world.processes.values():
        process.said = None
    for place in world.processes:
        world._speak(place)
    return world


Path = tuple[()] | tuple["Path", str]


class Searched(NamedTuple):
    """How far a search has come."""

    states: int
    depth: int
    broken: str = ""
    path: tuple[str, ...] = ()


def search(start: World, states: int, rests: int = 1) -> Searched:
    """
    Breadth first, until something is broken or so many states were seen.

    @param rests: calm returns from each so many-th of them.
    """
    seen = {start.key()}
    level: list[tuple[World, Path]] = [(start, ())]
    for depth in count():
        following: list[tuple[World, Path]] = []
        for world, path in level:
            for step, then in world.steps():
                try:
                    after = then()
                    key = after.key()
                    if key in seen:
                        continue
                    seen.add(key)
                    if len(seen) % rests == 0:
                        after.copy().rest()
                except Broken as broken:
                    return Searched(len(seen), depth, str(broken), _flat((path, step)))
                if len(seen) >= states:
                    return Searched(len(seen), depth)
                following.append((after, (path, step)))
        level = following
        if not level:
            return Searched(len(seen), depth)
    raise AssertionError


def walk(start: World, random: Random, length: int) -> Searched:
    """One way through, at random, and rest at its end; new packets are preferred to old ones."""
    world = start
    path: list[str] = []
    try:
        for _ in range(length):
            deliveries = [one for one in world.steps() if one[0].startswith("to ")]
            others = [one for one in world.steps() if not one[0].startswith("to ")]
            if others and random.random() < 0.3:
                step, then = random.choice(others)
            elif deliveries:
                back = int(random.expovariate(0.3))
                step, then = deliveries[-1 - back] if back < len(deliveries) else random.choice(deliveries)
            else:
                break
            path.append(step)
            world = then()
        path.append("calm")
        world.copy().rest()
    except Broken as broken:
        return Searched(1, len(path), str(broken), tuple(path))
    return Searched(1, len(path))


def _flat(path: Path) -> tuple[str, ...]:
    steps: list[str] = []
    while path:
        path, step = path
        steps.append(step)
    return tuple(reversed(steps))
