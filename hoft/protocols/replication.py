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
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from attrs import field, frozen

from hoft.protocols.control import Control
from hoft.protocols.estimates import Estimates
from hoft.protocols.pacing import CarrierCost, Cost, Limits
from hoft.protocols.packets import Header
from hoft.protocols.path import Path
from hoft.protocols.queueing import OutgoingRecord
from hoft.protocols.ranges import RangeSet
from hoft.protocols.receiving import Receiver
from hoft.protocols.sending import Acknowledged, Sender
from hoft.protocols.sizing import LARGEST, SMALLEST, START, PacketSizes
from hoft.protocols.synchronisation import Judgement, Sighting, Synchronisation, random64
from hoft.protocols.timing import RoundTrips, TimingSettings

PROBE_BYTES = 60 << 10

HELLOS_EVERY = 2.0
"""Seconds from one time to the next at which a node with many peers greets some."""

SLOW = 0.1
"""Seconds: where round trips take longer, files without records get receipts too."""


@frozen
class Settings:
    """How a link behaves; sizes in bytes, times in seconds."""

    packet_size: int = LARGEST
    """No file is to be longer, but for the sake of a single record."""
    stride: int = 65536
    timing: TimingSettings = field(factory=TimingSettings)
    hello_first: float = 1.0
    """Until synchronised: the wait before the greeting is repeated, longer each time."""
    hello_spread: float = 0.0
    """
    Of a node with many peers: the first greeting of each comes within so long, and is repeated
    after that, twice that, and so on, for as long as the peer was not heard of in this boot.
    """
    heartbeat: float = 0.0
    """After so long a silence the peer is asked whether it is there; 0 is never."""
    limits: Limits = field(factory=Limits)
    """What the user allows."""
    padding: int = 0
    """Bytes after the end of each packet, for carriers that lose a few there."""
    compress: bool = True
    """Whether records that ask for it are compressed, where the suite lets that be."""


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


def _largest(settings: Settings) -> int:
    """The largest size of a packet."""
    largest, allowed = settings.packet_size, int(settings.limits.bytes_per_second)
    # Else one file would use up the allowance for long, whatever comes after it.
    return min(largest, max(allowed, SMALLEST)) if allowed else largest


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
            PacketSizes(_largest(settings), START if known is None else known.packet_size),
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
        self._entropy = entropy
        self._hello_at = self._first_hello(now)
        self._hellos = 0
        self._met = False
        self._probe_due = False
        self._stranger_at = now
        self._greeted_at: float | None = None
        self._unanswered_heartbeats = 0
        self._heartbeat_from = now
        self.last_heard: float | None = None

    def reconfigure(self, settings: Settings) -> None:
        """Behave so from now on; L{Path.restrict} is to be called again."""
        self.settings = settings
        self.path.reconfigure(_largest(settings), settings.limits)

    def estimates(self) -> Estimates | None:
        """What is worth keeping for the next process; None before anything is known."""
        trips = self.round_trips
        if trips.smoothed is None:
            return None
        cost = self.path.cost.cost
        return Estimates(
            smoothed=trips.smoothed,
            variation=trips.variation,
            slowest=trips.slowest,
            per_file=cost.per_file,
            per_byte=cost.per_byte,
            packet_size=self.path.sizes.current,
        )

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
            self._hello_at = now
            self._hellos = 0
        if not self._met:
            self._met = True
            self._hello_at = min(self._hello_at, now + self.settings.hello_first)
        if judgement is not Judgement.CURRENT:
            return Heard(judgement, seen)
        self._heard(now)
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

    def _first_hello(self, now: float) -> float:
        spread = self.settings.hello_spread
        if not spread:
            return now
        at = now + spread * random64(self._entropy) / (1 << 64)
        # Several together cost less than each at a time of its own.
        return math.ceil(at / HELLOS_EVERY) * HELLOS_EVERY

    def _next_hello(self) -> float:
        """Seconds until the peer is greeted again."""
        settings = self.settings
        wait = settings.hello_first * self.round_trips.backoff(self._hellos)
        if not self._met:
            wait = max(wait, settings.hello_spread * 2.0 ** min(self._hellos, 40))
        return min(wait, settings.timing.probe_longest)

    def _heard(self, now: float) -> None:
        self.last_heard = self._heartbeat_from = now
        self._unanswered_heartbeats = 0

    def _next_heartbeat(self) -> float | None:
        if not self.settings.heartbeat:
            return None
        longest = max(self.settings.timing.probe_longest, self.settings.heartbeat)
        backed_off = self.settings.heartbeat * self.round_trips.backoff(self._unanswered_heartbeats)
        return self._heartbeat_from + min(backed_off, longest)

    def silence(self, now: float) -> float:
        """
        Seconds for which the peer owes us a sign of life: since the oldest
        unanswered packet or heartbeat; 0 where it owes none.
        """
        waiting = self.sender.silence(now)
        if self._unanswered_heartbeats and self.last_heard is not None:
            waiting = max(waiting, now - self.last_heard - self.settings.heartbeat)
        return waiting

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
        self._heard(now)
        if self._greeted_at is not None:
            self.round_trips.answered_within(now - self._greeted_at)
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
        self._greeted_at = None
        self.sender = Sender(self.path)
        self.receiver = self.receiver.successor()
        self._hello_at = now
        self._hellos = 0

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
            if now < self._hello_at and not self._may_answer_stranger(now):
                return None
            if now >= self._hello_at:
                self._hello_at = now + self._next_hello()
                self._hellos += 1
            return self._plan((), True, clock, now)
        sender = self.sender
        sender.lose_overdue(now)
        frames = sender.take(now, stride=self.settings.stride).frames
        probe = False
        if not frames and self._probe_due:
            frames = sender.probe(PROBE_BYTES, now, self.settings.stride).frames
            probe = True
        self._probe_due = False
        heartbeat = self._next_heartbeat()
        if not frames and heartbeat is not None and now >= heartbeat:
            self._heartbeat_from = now
            self._unanswered_heartbeats += 1
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
        if not self.synchronised and self._greeted_at is None:
            self._greeted_at = now

    # --- time

    def deadline(self) -> float | None:
        """When L{tick} and then L{next_packet} are to be called even if nothing happens."""
        if self.synchronisation.stopped:
            return None
        stranger = self._stranger_at if self.synchronisation.owes_answer() else None
        if not self.synchronised:
            return self._hello_at if stranger is None else min(stranger, self._hello_at)
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
        return [sender.next_sending(), sender.next_probe(), sender.next_loss(), self._next_heartbeat()]

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
        if not self._hellos:
            self._hello_at = min(self._hello_at, now)

    def ask(self, now: float) -> None:
        """Ask the peer for a sign of life with the next packet; call L{next_packet} afterwards."""
        if self.synchronised:
            self._probe_due = True
        else:
            self._hello_at = min(self._hello_at, now)

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
        self._hello_at = now if self._met else self._first_hello(now)
