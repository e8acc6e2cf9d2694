"""
A model of a node for L{tests.torture.searching}: the real rules of
L{hoft.protocols.synchronisation}, and a log of a few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from hoft.protocols.synchronisation import Judgement, Sighting, Synchronisation

CONTAINERS = tuple(
    name
    for name, value in vars(
        Synchronisation(
            incarnation=1,
            boot=1,
            clock=0,
            peer_incarnation=0,
            peer_clock=0,
            peer_boot=0,
            retired=(),
            boots=(),
            entropy=bytes,
        )
    ).items()
    if isinstance(value, (set, dict))
)
"""Attributes of the rules that are changed in place."""


class Broken(AssertionError):
    """A promise was broken."""


class Disk(NamedTuple):
    """What a journal holds of the link."""

    incarnation: int
    clock: int = 0
    boot: int = 0
    """That of ours in which the peer was last adopted."""
    peer_incarnation: int = 0
    peer_clock: int = 0
    retired: frozenset[int] = frozenset()
    boots: frozenset[int] = frozenset()
    """Ours so far."""
    peer_boot: int = 0
    outbox: tuple[tuple[int, int], ...] = ()
    """Number, 0 where it has none, and content."""
    next_number: int = 1
    received: frozenset[tuple[int, int]] = frozenset()
    """Number and content."""
    delivered: frozenset[int] = frozenset()
    """Contents that were handed up, in all logs."""
    certain: frozenset[int] = frozenset()
    """Contents that were sent, unless the layer above was told that they are uncertain."""


class Packet(NamedTuple):
    """All that is on the wire."""

    node: int
    seen: Sighting
    acknowledged: frozenset[int]
    records: tuple[tuple[int, int], ...]


class Process:
    """A node from a start to its end."""

    def __init__(self, node: int, boot: int, disk: Disk) -> None:
        self.node = node
        self.boot = boot
        self.disk = disk = disk._replace(boots=disk.boots | {boot})
        self.at_start = frozenset(content for _, content in disk.outbox)
        self.packets = 0
        self.said: Packet | None = None
        self._key: int | None = None
        challenges = count(1)
        self.sync = Synchronisation(
            incarnation=disk.incarnation,
            boot=boot,
            clock=disk.clock,
            peer_incarnation=disk.peer_incarnation,
            peer_clock=disk.peer_clock,
            peer_boot=disk.peer_boot,
            retired=disk.retired,
            boots=disk.boots,
            entropy=lambda _: (boot * 1000 + next(challenges)).to_bytes(8, "big"),
        )

    def copy(self) -> Process:
        """To go on differently from here."""
        new: Process = object.__new__(Process)
        new.__dict__.update(self.__dict__)
        new._key = None
        sync: Synchronisation = object.__new__(Synchronisation)
        rules = sync.__dict__ = self.sync.__dict__.copy()
        for name in CONTAINERS:
            rules[name] = rules[name].copy()
        # Challenges are named by what is there already: equal pasts make equal states.
        boot, used = self.boot, self.sync.challenge - self.boot * 1000
        challenges = count(used + 1)
        sync._entropy = lambda _: (boot * 1000 + next(challenges)).to_bytes(8, "big")
        new.sync = sync
        return new

    def key(self) -> object:
        """Equal for equal states."""
        if self._key is None:
            rules = [
                tuple(sorted(value.items() if isinstance(value, dict) else value))
                if isinstance(value, (set, dict))
                else value
                for name, value in self.sync.__dict__.items()
                if name != "_entropy"
            ]
            self._key = hash((self.node, self.disk, self.at_start, *rules))
        return self._key

    def forget_key(self) -> None:
        """It changes."""
        self._key = None

    # --- the log

    def send(self, content: int) -> None:
        """A message is committed; it gets a number where the link is synchronised."""
        disk, number = self.disk, 0
        if disk.boot == self.boot:
            number = disk.next_number
            disk = disk._replace(clock=disk.clock + 1, next_number=number + 1)
        self.disk = disk._replace(outbox=(*disk.outbox, (number, content)), certain=disk.certain | {content})

    def mint(self) -> None:
        """As the log does."""
        disk, at_start = self.disk, self.at_start
        self.disk = self._begin(disk, lambda number, content: number != 0 or content in at_start)._replace(
            incarnation=disk.incarnation * 10 + self.boot % 1000 % 9 + 1
        )
        self.sync.reincarnate(self.disk.incarnation, self.disk.clock)

    def _begin(self, disk: Disk, suspect: Callable[[int, int], bool]) -> Disk:
        kept = tuple(row for row in disk.outbox if not suspect(*row))
        return disk._replace(
            boot=0,
            outbox=kept,
            next_number=1,
            received=frozenset(),
            certain=frozenset(content for _, content in kept),
        )

    def _adopt(self, seen: Sighting) -> None:
        disk = self.disk
        if disk.peer_incarnation != seen.incarnation:
            if disk.peer_incarnation:
                disk = disk._replace(retired=disk.retired | {disk.peer_incarnation})
                disk = self._begin(disk, lambda number, content: number != 0)
            disk = disk._replace(peer_incarnation=seen.incarnation, peer_clock=0)
        if disk.peer_boot not in (0, seen.boot):
            disk = disk._replace(boots=disk.boots | {disk.peer_boot})
        outbox, number = [], disk.next_number
        for given, content in disk.outbox:
            outbox.append((given or number, content))
            number += not given
        self.disk = disk._replace(
            boot=self.boot,
            peer_boot=seen.boot,
            clock=disk.clock + 1,
            peer_clock=max(disk.peer_clock, seen.clock),
            outbox=tuple(outbox),
            next_number=number,
        )
        self.sync.adopt(seen)

    def receive(self, packet: Packet, may_double: frozenset[int]) -> Judgement:
        """What becomes of a packet."""
        judgement = self.sync.judge(packet.seen)
        if judgement is Judgement.ADOPT:
            self._adopt(packet.seen)
            judgement = self.sync.judge(packet.seen)
        elif judgement is Judgement.MINT:
            self.mint()
            return self.receive(packet, may_double)
        if judgement is not Judgement.CURRENT:
            return judgement
        disk = self.disk
        settled = tuple(row for row in disk.outbox if row[0] in packet.acknowledged)
        if settled:
            disk = disk._replace(
                outbox=tuple(row for row in disk.outbox if row not in settled),
                peer_clock=max(disk.peer_clock, packet.seen.clock),
            )
        known = {number for number, _ in disk.received}
        new = frozenset(row for row in packet.records if row[0] not in known)
        if new:
            contents = frozenset(content for _, content in new)
            twice = (contents & disk.delivered) - may_double
            if twice:
                raise Broken(f"node {self.node} is handed {set(twice)} again")
            disk = disk._replace(
                received=disk.received | new,
                delivered=disk.delivered | contents,
                clock=disk.clock + 1,
                peer_clock=max(disk.peer_clock, packet.seen.clock),
            )
        self.disk = disk
        return judgement

    def speak(self) -> Iterator[Packet]:
        """All that it has to say now, once."""
        sync, disk = self.sync, self.disk
        while not sync.stopped:
            owes = sync.owes_answer()
            echo, retired = sync.next_echo()
            adopted = sync.adopted is not None
            packet = Packet(
                self.node,
                Sighting(
                    incarnation=sync.incarnation,
                    boot=self.boot,
                    recipient_incarnation=sync.peer_incarnation,
                    challenge=sync.challenge,
                    echo=echo,
                    number=self.packets + 1,
                    clock=disk.clock,
                    peer_clock=sync.peer_clock,
                    retired=retired,
                    recipient_boot=sync.peer_boot,
                ),
                frozenset(number for number, _ in disk.received) if adopted else frozenset(),
                disk.outbox if adopted and not sync.in_doubt else (),
            )
            if self.said is None or not _same(packet, self.said):
                self.packets += 1
                self.said = packet
                yield packet
            if not owes:
                return


def _same(one: Packet, other: Packet) -> bool:
    a, b = one.seen, other.seen
    return one[2:] == other[2:] and (
        (a.incarnation, a.recipient_incarnation, a.challenge, a.echo, a.clock, a.peer_clock, a.retired)
        == (b.incarnation, b.recipient_incarnation, b.challenge, b.echo, b.clock, b.peer_clock, b.retired)
        and a.recipient_boot == b.recipient_boot
    )
