"""
The engine of one link: packets in, records and packets out; pure.

It holds no payload and does no I/O.  Its user (L{hoft.protocols.link.Link})

- gives it what an authenticated packet says (L{Replication.hear}) and the
  record numbers in it (L{hoft.protocols.receiving.Receiver.accept}), and commits what is new;
- asks for the next packet to write (L{Replication.next_packet}) whenever the
  writer is free, and says how the writing went;
- calls L{Replication.tick} at L{Replication.deadline}.

C{now} is monotonic seconds throughout.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import frozen

from hoft.protocols.control import Control
from hoft.protocols.estimates import Estimates
from hoft.protocols.greeting import Greeting, Heartbeat
from hoft.protocols.pacing import CarrierCost, Cost
from hoft.protocols.packets import Header
from hoft.protocols.path import Path
from hoft.protocols.queueing import OutgoingRecord
from hoft.protocols.ranges import RangeSet
from hoft.protocols.receiving import Receiver
from hoft.protocols.sending import Acknowledged, Sender
from hoft.protocols.settings import Settings
from hoft.protocols.sizing import START, PacketSizes
from hoft.protocols.synchronisation import Judgement, Sighting, Synchronisation
from hoft.protocols.timing import RoundTrips

PROBE_BYTES = 60 << 10

SLOW = 0.1
"""Seconds: where round trips take longer, files without records get receipts too."""


@frozen
class LogState:
    """What the journal holds of a link when the process starts."""

    clock: int
    peer_incarnation: int
    peer_clock: int
    peer_boot: int
    retired: Sequence[int]
    boots: Sequence[int]
    """This node's, so far."""
    received: RangeSet
    estimates: Estimates | None = None


@frozen
class Heard:
    """What a packet's control frame brought about."""

    judgement: Judgement
    sighting: Sighting
    acknowledged: Acknowledged | None = None


@frozen
class PacketPlan:
    """A packet to be written: the variable header fields, its control, and its records by frame."""

    number: int
    incarnation: int
    recipient_incarnation: int
    challenge: int
    echo: int
    control: Control
    frames: Sequence[Sequence[OutgoingRecord]]


class Replication:
    """
    One link's protocol state.

    @ivar path: what is known of the way to the peer; read its counters.
    @ivar sender: the outgoing half of the present log.
    @ivar receiver: the incoming half; read its counters.
    @ivar settings: how it behaves.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        incarnation: int,
        boot: int,
        log: LogState,
        entropy: Callable[[int], bytes],
        now: float,
        packet_numbers: Iterator[int] | None = None,
    ) -> None:
        """
        @param boot: this process start, 64 random bits that were never used before.
        @param packet_numbers: ascending, none used before in this boot; from 1 if not given.
        """
        self.settings = settings
        self.boot = boot
        known = log.estimates
        self.round_trips = RoundTrips(settings.timing, known)
        self.path = Path(
            self.round_trips,
            PacketSizes(settings.largest_packet, START if known is None else known.packet_size),
            CarrierCost(None if known is None else Cost(known.per_file, known.per_byte)),
            settings.limits,
        )
        self.sender = Sender(self.path)
        self.receiver = Receiver(self.round_trips, log.received)
        self.synchronisation = Synchronisation(
            incarnation=incarnation,
            boot=boot,
            clock=log.clock,
            peer_incarnation=log.peer_incarnation,
            peer_clock=log.peer_clock,
            peer_boot=log.peer_boot,
            retired=log.retired,
            boots=log.boots,
            entropy=entropy,
        )
        self._packet_numbers = itertools.count(1) if packet_numbers is None else packet_numbers
        self._newest = 0
        self._greeting = Greeting(settings, self.round_trips, entropy, now)
        self._heartbeat = Heartbeat(settings, self.round_trips, now)
        self._probe_due = False
        self._stranger_at = now

    def reconfigure(self, settings: Settings) -> None:
        """Behave so from now on; L{Path.restrict} is to be called again."""
        self.settings = settings
        self.path.reconfigure(settings.largest_packet, settings.limits)
        self._greeting.settings = self._heartbeat.settings = settings

    @property
    def last_heard(self) -> float | None:
        """(clock) When a packet of the peer's counted last; None: not in this boot."""
        return self._heartbeat.last_heard

    @property
    def synchronised(self) -> bool:
        """Whether the peer is known in this boot, so that records may flow."""
        sync = self.synchronisation
        return sync.adopted is not None and not sync.in_doubt and not sync.stopped

    # --- what arrives

    def hear(self, header: Header, control: Control, now: float) -> Heard:
        """
        A packet's control frame has authenticated.

        C{CURRENT}: go on with its records.  C{ADOPT} and C{MINT}: commit that,
        call L{adopt} or L{reincarnate}, then hear the packet again.  C{VOID}:
        nothing in it counts.  C{CLONE}: the link has stopped for good.
        """
        seen = Sighting(
            incarnation=header.incarnation,
            boot=header.boot,
            recipient_incarnation=header.recipient_incarnation,
            challenge=header.challenge,
            echo=header.echo,
            number=header.number,
            clock=control.clock,
            peer_clock=control.peer_clock,
            recipient_boot=control.peer_boot,
            retired=control.retired,
        )
        was_in_doubt = self.synchronisation.in_doubt
        judgement = self.synchronisation.judge(seen)
        if self.synchronisation.in_doubt and not was_in_doubt:
            self._greeting.begin_anew(now)
        self._greeting.met(now)
        if judgement is not Judgement.CURRENT:
            return Heard(judgement, seen)
        self._heartbeat.heard(now)
        self.sender.records.raise_limit(control.limit)
        if header.number >= self._newest:
            self._newest = header.number
            self.sender.peer_full = control.full
        if control.receipts and control.receipts[0].boot == self.boot:
            self.sender.receipts(control.receipts, now)
        acknowledged = self.sender.acknowledge(control.ack, control.sack, now)
        if control.probe:
            self.receiver.owe(now)
        return Heard(judgement, seen, acknowledged)

    def silence(self, now: float) -> float:
        """
        Seconds for which the peer owes us a sign of life: since the oldest
        unanswered packet or heartbeat; 0 where it owes none.
        """
        waiting = self.sender.silence(now)
        return max(waiting, self._heartbeat.silence(now)) if self._heartbeat.unanswered else waiting

    def is_current(self, header: Header) -> bool:
        """Whether a packet that was C{CURRENT} when it began to arrive still counts."""
        sync = self.synchronisation
        return (
            (header.incarnation, header.boot) == sync.adopted
            and not sync.in_doubt
            and (header.recipient_incarnation == sync.incarnation)
        )

    def adopt(self, seen: Sighting, records: Iterable[OutgoingRecord], now: float) -> bool:
        """
        The adoption is committed.

        @param records: what the log then holds to be sent.
        @return: whether this began a new log, so that everything before is uncertain.
        """
        new = self.synchronisation.is_new_log(seen)
        first = self.synchronisation.adopted is None
        self.synchronisation.adopt(seen)
        self._newest = 0
        self._heartbeat.heard(now)
        self._greeting.answered(now)
        if new or first:
            self.sender = Sender(self.path)
        for record in records:
            # Of a log that goes on only those are news whose commit is yet to be told.
            if not self.sender.records.known(record.number):
                self.sender.records.add(record)
        if new:
            self.receiver = self.receiver.successor()
        self.receiver.owe(now)
        return new

    def reincarnate(self, incarnation: int, clock: int, now: float) -> None:
        """The journal has a new incarnation and every log is empty: begin anew."""
        self.synchronisation.reincarnate(incarnation, clock)
        self.sender = Sender(self.path)
        self.receiver = self.receiver.successor()
        self._greeting.reincarnated(now)

    def packet_read(self, header: Header, missing: Sequence[int], now: float) -> None:
        """
        All of a current packet that will ever come was read.

        @param missing: the record frames, from 1, that were not intact.
        """
        smoothed = self.round_trips.smoothed
        if header.frames or (smoothed is not None and smoothed >= SLOW):
            self.receiver.read(header.boot, header.number, header.frames, missing, header.length, now)

    # --- what goes out

    def queue(self, record: OutgoingRecord) -> None:
        """The journal has numbered one more record of ours."""
        self.sender.records.add(record)

    def next_packet(self, clock: int, now: float) -> PacketPlan | None:
        """
        What to write now, or None.

        @param clock: the link's clock after the last commit.
        """
        if self.synchronisation.stopped:
            return None
        if not self.synchronised:
            due = now >= self._greeting.due
            if not due and not self._may_answer_stranger(now):
                return None
            if due:
                self._greeting.sent(now)
            return self._plan((), True, clock, now)
        sender = self.sender
        sender.lose_overdue(now)
        frames = sender.take(now, stride=self.settings.stride).frames
        probe = False
        if not frames and self._probe_due:
            frames = sender.probe(PROBE_BYTES, now, self.settings.stride).frames
            probe = True
        self._probe_due = False
        heartbeat = self._heartbeat.due
        if not frames and heartbeat is not None and now >= heartbeat:
            self._heartbeat.sent(now)
            probe = True
        answer = self.receiver.next_answer()
        answer_due = answer is not None and now >= answer and not self.receiver.wants_sync(now)
        answer_due = answer_due and now >= sender.paced_until()
        if not frames and not probe and not answer_due and not self._may_answer_stranger(now):
            return None
        return self._plan(frames, probe, clock, now)

    def _may_answer_stranger(self, now: float) -> bool:
        # Replayed files cannot make us write faster than this.
        return self.synchronisation.owes_answer() and now >= self._stranger_at

    def _plan(
        self, frames: Sequence[Sequence[OutgoingRecord]], probe: bool, clock: int, now: float
    ) -> PacketPlan:
        sync = self.synchronisation
        if sync.owes_answer():
            self._stranger_at = now + self.round_trips.ack_delay()
        echo, retired = sync.next_echo()
        adopted = sync.adopted is not None
        ack, sack, receipts = self.receiver.state(now) if adopted else (0, (), ())
        control = Control(
            ack=ack,
            sack=sack,
            limit=self.receiver.limit if adopted else 0,
            receipts=receipts,
            clock=clock,
            peer_clock=sync.peer_clock,
            peer_boot=sync.peer_boot,
            retired=retired,
            probe=probe,
            full=self.receiver.full,
        )
        if adopted:
            self.receiver.answered()
        return PacketPlan(
            number=next(self._packet_numbers),
            incarnation=sync.incarnation,
            recipient_incarnation=sync.peer_incarnation,
            challenge=sync.challenge,
            echo=echo,
            control=control,
            frames=frames,
        )

    def sending(self, plan: PacketPlan, size: int, now: float) -> None:
        """C{plan} is about to be written as a file of C{size} bytes."""
        self.path.pace.sent(size, now, self.round_trips.smoothed)
        self.sender.sent(plan.number, plan.frames, size, now, plan.control.probe)
        if not self.synchronised:
            self._greeting.written(now)

    # --- time

    def deadline(self) -> float | None:
        """When L{tick} and then L{next_packet} are to be called even if nothing happens."""
        if self.synchronisation.stopped:
            return None
        stranger = self._stranger_at if self.synchronisation.owes_answer() else None
        if not self.synchronised:
            return self._greeting.due if stranger is None else min(stranger, self._greeting.due)
        answer = self.receiver.next_answer()
        if answer is not None:
            answer = max(answer, self.sender.paced_until())
        times = [stranger, answer, *self._own_deadlines()]
        return min((time for time in times if time is not None), default=None)

    def deadline_without_answer(self) -> float | None:
        """L{deadline}, but for the answer that waits for a sync."""
        return min((time for time in self._own_deadlines() if time is not None), default=None)

    def _own_deadlines(self) -> list[float | None]:
        sender = self.sender
        return [sender.next_sending(), sender.next_probe(), sender.next_loss(), self._heartbeat.due]

    def wants_sync(self, now: float) -> bool:
        """Whether an answer is due that should first be made durable (L{Receiver.to_sync})."""
        return self.receiver.wants_sync(now)

    def tick(self, now: float) -> None:
        """Time has passed: note what that means.  Call L{next_packet} afterwards."""
        if not self.synchronised:
            return
        self.sender.lose_overdue(now)
        probe = self.sender.next_probe()
        if probe is not None and now >= probe:
            self._probe_due = True

    def greet(self, now: float) -> None:
        """Something waits for the peer: unless it was greeted, do so."""
        if not self._greeting.begun:
            self._greeting.hurry(now)

    def ask(self, now: float) -> None:
        """Ask the peer for a sign of life with the next packet; call L{next_packet} afterwards."""
        if self.synchronised:
            self._probe_due = True
        else:
            self._greeting.hurry(now)

    def not_written(self, now: float) -> None:
        """A packet could not be written: whatever it was to answer is owed again."""
        if self.synchronised:
            self.receiver.owe(now)

    def suspend(self, now: float) -> None:
        """The carrier is down: nothing counts as lost, and nobody as silent."""
        self.sender.suspend(now)

    def resume(self, now: float) -> None:
        """The carrier works again after it was down."""
        self.sender.resume(now)
        self._greeting.resume(now)
