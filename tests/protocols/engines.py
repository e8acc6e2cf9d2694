"""
Two engines joined directly, without disk, files or seals: what the rules of the
log do can be watched packet by packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from random import Random

from attrs import define, field, frozen

from hoft.protocols.control import Control
from hoft.protocols.packets import Header
from hoft.protocols.queueing import OutgoingRecord
from hoft.protocols.ranges import RangeSet
from hoft.protocols.replication import Heard, LogState, PacketPlan, Replication
from hoft.protocols.settings import Settings
from hoft.protocols.synchronisation import Judgement, random64
from hoft.protocols.timing import TimingSettings

SETTINGS = Settings(timing=TimingSettings(first=1.0, ack_shortest=0.005))


@frozen
class Letter:
    """A packet on its way: what its header and control say, and its records by frame."""

    header: Header
    control: Control
    frames: tuple[tuple[tuple[int, int], ...], ...]
    """Record number and content."""


@define
class Disk:
    """What a journal holds of one link."""

    incarnation: int
    clock: int = 0
    synchronised_boot: int = 0
    peer_incarnation: int = 0
    peer_clock: int = 0
    peer_boot: int = 0
    boots: set[int] = field(factory=set)
    retired: set[int] = field(factory=set)
    next_number: int = 1
    received: RangeSet = field(factory=RangeSet)
    outbox: dict[int, tuple[int | None, int]] = field(factory=dict)
    """By id: number and content."""
    next_id: int = 1
    sent: set[int] = field(factory=set)
    """Contents that were sent and are not known to be uncertain."""
    delivered: list[int] = field(factory=list)


class Side:
    """
    A node: its engine and its disk.

    @ivar rolled_back: how often the layer above would have been told.
    @ivar settings: of engines that are started from now on.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name = name
        self.uuid = name.encode().ljust(16, b"-")
        self.chance = Random(f"{name} {seed}")
        self.now = 0.0
        self.disk = Disk(self.word())
        self.rolled_back = 0
        self.settings = SETTINGS
        self.engine: Replication | None = None
        self.peer: Side

    def word(self) -> int:
        return random64(self.chance.randbytes)

    # --- life

    def start(self) -> Replication:
        """A process starts."""
        disk = self.disk
        self.boot = self.word()
        disk.boots.add(self.boot)
        self.last_id_at_start = disk.next_id - 1
        self.engine = Replication(
            self.settings,
            incarnation=disk.incarnation,
            boot=self.boot,
            log=LogState(
                clock=disk.clock,
                peer_incarnation=disk.peer_incarnation,
                peer_clock=disk.peer_clock,
                peer_boot=disk.peer_boot,
                retired=sorted(disk.retired),
                boots=sorted(disk.boots),
                received=RangeSet(disk.received),
            ),
            entropy=self.chance.randbytes,
            now=self.now,
        )
        return self.engine

    def crash(self) -> None:
        """The process is gone."""
        self.engine = None

    def backup(self) -> Disk:
        """A copy of the disk."""
        return deepcopy(self.disk)

    def restore(self, copy: Disk) -> None:
        """The process is killed, and an earlier copy put in place of the disk."""
        self.crash()
        self.disk = deepcopy(copy)

    # --- what the layer above asks

    def send(self, content: int) -> None:
        disk, engine = self.disk, self.engine
        assert engine is not None
        number = None
        if disk.synchronised_boot == self.boot:
            number, disk.next_number = disk.next_number, disk.next_number + 1
            disk.clock += 1
        id, disk.next_id = disk.next_id, disk.next_id + 1
        disk.outbox[id] = (number, content)
        disk.sent.add(content)
        if number is not None:
            engine.queue(OutgoingRecord(id, number, 100, 3))

    # --- what goes out

    def letters(self) -> list[Letter]:
        """All that the engine wants to write now."""
        letters: list[Letter] = []
        assert self.engine is not None
        while True:
            if self.engine.wants_sync(self.now):
                receiver = self.engine.receiver
                receiver.durable(receiver.to_sync(), self.now)
            self.engine.tick(self.now)
            plan = self.engine.next_packet(self.disk.clock, self.now)
            if plan is None:
                return letters
            letters.append(self._letter(plan))

    def _letter(self, plan: PacketPlan) -> Letter:
        assert self.engine is not None
        header = Header(
            suite=1,
            key_id=0,
            stride=65536,
            sender=self.uuid,
            recipient=self.peer.uuid,
            incarnation=plan.incarnation,
            boot=self.boot,
            recipient_incarnation=plan.recipient_incarnation,
            challenge=plan.challenge,
            echo=plan.echo,
            number=plan.number,
            frames=len(plan.frames),
            control_length=100,
            length=1000,
        )
        self.engine.sending(plan, 1000, self.now)
        self.engine.sender.named(plan.number, f"{self.name}-{plan.number}")
        frames = tuple(
            tuple((record.number, self.disk.outbox[record.id][1]) for record in frame)
            for frame in plan.frames
        )
        return Letter(header, Control.decode(plan.control.encode()), frames)

    # --- what arrives

    def receive(self, letter: Letter, missing: Iterable[int] = ()) -> Judgement:
        """
        Read a packet, but for the frames that are C{missing}.

        @return: the last judgement; nothing was accepted unless it is C{CURRENT}.
        """
        engine = self.engine
        assert engine is not None
        heard = self._hear(letter)
        if heard.judgement is not Judgement.CURRENT:
            return heard.judgement
        lost = sorted(missing)
        for index, frame in enumerate(letter.frames, 1):
            if index not in lost:
                self._accept(dict(frame), letter.control.clock)
        engine.packet_read(letter.header, lost, self.now)
        return Judgement.CURRENT

    def _hear(self, letter: Letter) -> Heard:
        engine = self.engine
        assert engine is not None
        heard = engine.hear(letter.header, letter.control, self.now)
        if heard.judgement is Judgement.ADOPT:
            self._adopt(heard.sighting.incarnation, heard.sighting.boot, heard.sighting.clock)
            records = [
                OutgoingRecord(id, number or 0, 100, 3) for id, (number, _) in self.disk.outbox.items()
            ]
            engine.adopt(heard.sighting, records, self.now)
            return self._hear(letter)
        if heard.judgement is Judgement.MINT:
            self._mint()
            engine.reincarnate(self.disk.incarnation, self.disk.clock, self.now)
            return self._hear(letter)
        if heard.acknowledged is not None:
            for record in heard.acknowledged.records:
                del self.disk.outbox[record.id]
            if heard.acknowledged.records:
                self.disk.peer_clock = max(self.disk.peer_clock, letter.control.clock)
        return heard

    def _accept(self, records: dict[int, int], clock: int) -> None:
        engine, disk = self.engine, self.disk
        assert engine is not None
        new = engine.receiver.accept(records)
        if not new:
            engine.receiver.owe(self.now)
            return
        for number in new:
            disk.received.add(number)
            disk.delivered.append(records[number])
        disk.clock += 1
        disk.peer_clock = max(disk.peer_clock, clock)
        engine.receiver.committed(sorted(new), self.now)

    # --- what the journal does

    def _adopt(self, incarnation: int, boot: int, clock: int) -> None:
        disk = self.disk
        if disk.peer_incarnation != incarnation:
            if disk.peer_incarnation:
                disk.retired.add(disk.peer_incarnation)
                self._begin(lambda id, number: number is not None)
            disk.peer_incarnation = incarnation
            disk.peer_clock = 0
        disk.synchronised_boot = self.boot
        disk.peer_boot = boot
        disk.clock += 1
        disk.peer_clock = max(disk.peer_clock, clock)
        for id, (number, content) in disk.outbox.items():
            if number is None:
                disk.outbox[id] = (disk.next_number, content)
                disk.next_number += 1

    def _mint(self) -> None:
        self.disk.incarnation = self.word()
        self._begin(lambda id, number: number is not None or id <= self.last_id_at_start)

    def _begin(self, suspect: Callable[[int, int | None], bool]) -> None:
        disk = self.disk
        self.rolled_back += 1
        disk.outbox = {id: row for id, row in disk.outbox.items() if not suspect(id, row[0])}
        disk.sent = {content for _, content in disk.outbox.values()}
        disk.next_number = 1
        disk.received = RangeSet()
        disk.synchronised_boot = 0


def pair(seed: int = 0) -> tuple[Side, Side]:
    """Two nodes that know each other's names, started."""
    near, far = Side("near", seed), Side("far", seed)
    near.peer, far.peer = far, near
    near.start()
    far.start()
    return near, far


def pass_time(near: Side, far: Side, seconds: float) -> None:
    """For both."""
    near.now += seconds
    far.now += seconds


def settle(near: Side, far: Side, rounds: int = 40, step: float = 1.0) -> list[Letter]:
    """
    Deliver everything at once, both ways, until there is nothing to send and
    nothing was said for a while.

    @return: all that crossed.
    """
    crossed: list[Letter] = []
    quiet = 0
    for _ in range(rounds):
        here, there = near.letters(), far.letters()
        for letter in here:
            far.receive(letter)
        for letter in there:
            near.receive(letter)
        crossed += here + there
        quiet = 0 if here or there else quiet + 1
        if quiet > 3 and not near.disk.outbox and not far.disk.outbox:
            break
        pass_time(near, far, step)
    return crossed


def synchronised(seed: int = 0) -> tuple[Side, Side]:
    """Two nodes that have found each other."""
    near, far = pair(seed)
    settle(near, far)
    return near, far
