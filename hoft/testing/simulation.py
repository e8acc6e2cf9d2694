"""
Two engines and a carrier between them, in virtual time: what the rules of the log
make of a carrier's faults and costs.

There is no disk, no cipher and no byte here, only lengths, so that a life of many
thousand files takes seconds.  The engines are those that are at work in a node.
"""

from __future__ import annotations

from random import Random

from attrs import define, frozen
from twisted.internet.interfaces import IDelayedCall

from hoft.protocols.control import Control
from hoft.protocols.packets import MAX_RECORD, Header, packet_length
from hoft.protocols.queueing import OutgoingRecord
from hoft.protocols.ranges import RangeSet
from hoft.protocols.replication import LogState, PacketPlan, Replication
from hoft.protocols.settings import Settings
from hoft.protocols.synchronisation import Judgement, random64
from hoft.testing.channel import Faults, FaultyChannel
from hoft.testing.clock import HeapClock

__all__ = ["MAX_RECORD", "Party", "Simulation"]

WRITE_FILE = 0.0002
"""Seconds that a file takes to be written, and for each byte:"""
WRITE_BYTE = 1 / (300 << 20)

SUITE = 1


@frozen
class _Letter:
    """A packet on its way."""

    header: Header
    control: Control
    frames: tuple[tuple[int, ...], ...]
    """Record numbers."""


@define
class Counts:
    """What one party has done."""

    files: int = 0
    written: int = 0
    """Bytes of all its files."""
    files_with_records: int = 0
    delivered: int = 0
    """Records of its peer that it has received, each once."""
    useful: int = 0
    """Their bytes."""


class Party:
    """
    One of the two.

    @ivar counts: so far.
    @ivar settle: seconds after which a file that ends early is known to be cut.
    @ivar full: whether its journal has no room for records.
    @ivar delays: of its records by urgency, from commit to arrival at the peer, seconds.
    """

    def __init__(self, simulation: Simulation, name: str, settings: Settings) -> None:
        self.name = name
        self.counts = Counts()
        self.full = False
        self.delays: dict[int, list[float]] = {}
        self.peer: Party
        self._simulation = simulation
        self._uuid = name.encode().ljust(16, b"-")
        self._settings = settings
        self._born: dict[int, tuple[float, int, int]] = {}
        self._next = 1
        self._waiting: list[OutgoingRecord] = []
        self._received = RangeSet()
        self._writing = False
        self._alarm: IDelayedCall | None = None
        chance = Random(f"{simulation.seed} {name}")
        self.engine = Replication(
            settings,
            incarnation=random64(chance.randbytes),
            boot=random64(chance.randbytes),
            log=LogState(
                clock=0,
                peer_incarnation=0,
                peer_clock=0,
                peer_boot=0,
                retired=(),
                boots=(),
                received=RangeSet(),
            ),
            entropy=chance.randbytes,
            now=simulation.clock.seconds(),
        )

    def send(self, *sizes: int, urgency: int = 3, flow: int = 0) -> list[int]:
        """Commit records of these sizes; their numbers."""
        now = self._simulation.clock.seconds()
        numbers = []
        for size in sizes:
            number, self._next = self._next, self._next + 1
            self._born[number] = (now, size, urgency)
            record = OutgoingRecord(number, number, size, urgency, flow)
            if self.engine.synchronised:
                self.engine.queue(record)
            else:
                self._waiting.append(record)
            numbers.append(number)
        self.pump()
        return numbers

    # --- what goes out

    def pump(self) -> None:
        """As a link does it: write what is due, and wake when the next thing will be."""
        now = self._simulation.clock.seconds()
        engine = self.engine
        if engine.wants_sync(now):
            engine.receiver.durable(engine.receiver.to_sync(), now)
        if not self._writing:
            plan = engine.next_packet(int(engine.synchronised), now)  # the clock stands still before
            if plan is not None:
                self._write(plan, now)
        deadline = engine.deadline()
        if deadline is None or self._writing:
            return
        if self._alarm is not None:
            if self._alarm.getTime() <= deadline:
                return  # it is set anew then
            self._alarm.cancel()
        self._alarm = self._simulation.clock.callLater(max(deadline - now, 0.0005), self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self.engine.tick(self._simulation.clock.seconds())
        self.pump()

    def _write(self, plan: PacketPlan, now: float) -> None:
        control = plan.control.encode()
        sizes = [[record.size for record in frame] for frame in plan.frames]
        length = packet_length(len(control), sizes, SUITE, self._settings.stride)
        self._writing = True
        self.engine.sending(plan, length, now)
        self.counts.files += 1
        self.counts.files_with_records += bool(plan.frames)
        self.counts.written += length
        header = Header(
            suite=SUITE,
            key_id=0,
            stride=self._settings.stride,
            sender=self._uuid,
            recipient=self.peer._uuid,
            incarnation=plan.incarnation,
            boot=self.engine.boot,
            recipient_incarnation=plan.recipient_incarnation,
            challenge=plan.challenge,
            echo=plan.echo,
            number=plan.number,
            frames=len(plan.frames),
            control_length=len(control) + 16,
            length=length,
        )
        frames = tuple(tuple(record.number for record in frame) for frame in plan.frames)
        letter = _Letter(header, plan.control, frames)
        self._simulation.clock.callLater(WRITE_FILE + length * WRITE_BYTE, self._written, letter)

    def _written(self, letter: _Letter) -> None:
        self._writing = False
        simulation, header = self._simulation, letter.header
        self.engine.sender.named(header.number, str(header.number))
        if not simulation.outage:
            channel = simulation.channel if self is simulation.near else simulation.answers
            passage = channel.passage(self.name, header.length)
            if passage is not None:
                simulation.clock.callLater(passage[0], self.peer._arrive, letter, passage[1])
        self.pump()

    # --- what arrives

    def _arrive(self, letter: _Letter, kept: int) -> None:
        header = letter.header
        now = self._simulation.clock.seconds()
        if self._hear(letter, kept, now) is not Judgement.CURRENT:
            return
        end = header.prefix + header.control_length
        intact = []
        for index, frame in enumerate(letter.frames, 1):
            end += header.frame_length(index)
            if end > kept:
                break
            intact.append(frame)
        missing = range(len(intact) + 1, header.frames + 1)
        if not self.full or not letter.frames:
            self._accept([number for frame in intact for number in frame], now)
            wait = self._simulation.settle if missing else 0.0
            self._simulation.clock.callLater(wait, self._read, header, missing)
        self.pump()

    def _hear(self, letter: _Letter, kept: int, now: float) -> Judgement:
        engine = self.engine
        if kept < letter.header.prefix + letter.header.control_length:
            return Judgement.VOID
        heard = engine.hear(letter.header, letter.control, now)
        if heard.judgement is Judgement.ADOPT:
            waiting, self._waiting = self._waiting, []
            engine.adopt(heard.sighting, waiting, now)
            heard = engine.hear(letter.header, letter.control, now)
        if heard.judgement is not Judgement.CURRENT:
            self.pump()
        return heard.judgement

    def _accept(self, numbers: list[int], now: float) -> None:
        receiver = self.engine.receiver
        new = sorted(receiver.accept(numbers))
        for number in new:
            born, size, urgency = self.peer._born.pop(number)
            self.counts.delivered += 1
            self.counts.useful += size
            self.peer.delays.setdefault(urgency, []).append(now - born)
        if new:
            receiver.committed(new, now)
        elif numbers:
            receiver.owe(now)

    def _read(self, header: Header, missing: range) -> None:
        self.engine.packet_read(header, missing, self._simulation.clock.seconds())
        self.pump()


class Simulation:
    """
    Two parties, C{near} and C{far}, that have found each other.

    @ivar outage: while it is true every file is lost.
    """

    def __init__(
        self,
        faults: Faults,
        *,
        seed: int = 1,
        settings: Settings | None = None,
        settle: float = 0.25,
        answers: Faults | None = None,
    ) -> None:
        """
        @param settle: seconds after which a file that ends early is known to be cut.
        @param answers: what becomes of far's files, if not the same.
        """
        self.seed = seed
        self.settle = settle
        self.outage = False
        self.clock = HeapClock()
        self.channel = self.answers = self._channel(Faults())
        settings = Settings() if settings is None else settings
        self.near, self.far = Party(self, "near", settings), Party(self, "far", settings)
        self.near.peer, self.far.peer = self.far, self.near
        for party in (self.near, self.far):
            party.pump()
        while not (self.near.engine.synchronised and self.far.engine.synchronised):
            self.clock.advance(0.1)
        self.channel.faults = faults
        self.answers = self.channel if answers is None else self._channel(answers)
        for party in (self.near, self.far):
            party.counts = Counts()

    def _channel(self, faults: Faults) -> FaultyChannel:
        return FaultyChannel(Random(self.seed), faults, self.clock.seconds)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def drain(self, most: float = 1e7) -> float:
        """
        Until near has nothing unacknowledged.

        @return: how many seconds that took.
        @raise AssertionError: more than C{most}.
        """
        begun = self.clock.seconds()
        while self.near.engine.sender.records:
            if not self.clock.step(begun + most):
                raise AssertionError(f"not drained after {most} s")
        return self.clock.seconds() - begun

    def transfer(self, total: int, *, size: int = MAX_RECORD, waiting: int = 256 << 20) -> float:
        """
        Near sends C{total} bytes in records of C{size}, never more than C{waiting} ahead.

        @return: useful bytes by bytes written.
        """
        left = total
        while left > 0:
            while left > 0 and len(self.near.engine.sender.records) * size < waiting:
                self.near.send(size)
                left -= size
            if not self.clock.step():
                raise AssertionError("nothing happens any more")
        self.drain()
        return self.efficiency()

    def efficiency(self) -> float:
        """Bytes of near's records that far has received, by bytes that near has written."""
        return self.far.counts.useful / self.near.counts.written
