"""
The sending half of a link: what goes into the next packet, and what must go again; pure.

A I{record} is settled only by an acknowledgement.  I{Packets} are how records
travel: each goes out once under its own number; what it carried goes again in
later packets when a receipt says that frames did not arrive, or when it counts
as lost (L{hoft.protocols.flight}).  In total silence nothing is lost, but a probe is sent.
A receipt settles nothing, but what it says has arrived no longer counts as lost:
its acknowledgement waits for a disk, not for the carrier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush

from attrs import evolve, frozen

from hoft.protocols.control import Receipt
from hoft.protocols.flight import Flight, Packet, Sending
from hoft.protocols.layout import DEFAULT_STRIDE, SPARED
from hoft.protocols.pacing import CarrierCost, Limits, Pace
from hoft.protocols.queueing import APART, SHORT, Frames, OutgoingRecord, SendQueue
from hoft.protocols.ranges import RangeSet
from hoft.protocols.repeating import Repetition
from hoft.protocols.sizing import PacketSizes
from hoft.protocols.timing import RoundTrips
from hoft.protocols.yielding import Yielding

IN_FLIGHT_BYTES = 64 << 20
"""Under way at most, or twice what the carrier brings in a round trip, whichever is more."""

OVERTAKING = 4 << 20
"""Beyond that, for what does not wait behind what is under way in bulk."""

LEAST_ROOM = 64 << 10
"""So many bytes may be under way wherever files can be written at all."""

ROOM_GROWS = 1.005
"""By how much more of what had found no room is tried with each file that arrives."""

PACKETS_AT_ONCE = 4
"""A packet is small enough that so many may be under way."""

INITIAL_LIMIT = 1024
"""The highest record number that may be sent before the peer has stated a limit."""

PROBE_FILES = 4
"""Unanswered probes that may lie in the folder."""

RESERVED_FILES = 8
"""Of those that a carrier lets lie there, for probes and files without records."""


@frozen
class Acknowledged:
    """What an acknowledgement settled."""

    records: Sequence[OutgoingRecord]
    files: Sequence[str]
    """Names of our files that carry nothing unacknowledged any more."""


class Sender:
    """
    The unacknowledged records of one link.

    @ivar retransmitted: records that were put in a further packet, by cause.
    @ivar lost_packets: how many counted as lost.
    @ivar spurious_packets: how many of these arrived after all.
    @ivar spurious_bytes: payload that was sent again because of these.
    @ivar cut_packets: how many arrived with frames missing.
    @ivar peer_full: the peer has no room: only probes go, so that it can say when it has, and
        what is small enough to be taken all the same.
    @ivar sizes: how large packets are to be; it outlives logs, as do C{cost} and C{pace}.
    """

    def __init__(
        self,
        round_trips: RoundTrips,
        sizes: PacketSizes | None = None,
        cost: CarrierCost | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.sizes = PacketSizes() if sizes is None else sizes
        self.cost = CarrierCost() if cost is None else cost
        self.pace = Pace(Limits() if limits is None else limits, self.cost)
        self._round_trips = round_trips
        self._records: dict[int, OutgoingRecord] = {}
        self._highest = 0
        self._queue = SendQueue()
        self._blocked: list[tuple[int, OutgoingRecord]] = []
        self._withheld: set[int] = set()
        self._small: dict[int, OutgoingRecord] = {}
        self._flight = Flight(round_trips)
        self._room = float("inf")
        self._arrived_bytes = 0
        self._probes: list[int] = []
        self._repetition = Repetition()
        self._yielding = Yielding()
        self._acked = RangeSet()
        self._limit = INITIAL_LIMIT
        self._heard_at = float("-inf")
        self._probed_at = float("-inf")
        self._unanswered = 0
        self._suspended_at: float | None = None
        self._resumed_at = float("-inf")
        self._given_up = False
        self.peer_full = False
        self.retransmitted = {"lost": 0, "cut": 0, "probe": 0, "early": 0}
        self.lost_packets = 0
        self.spurious_packets = 0
        self.spurious_bytes = 0
        self.cut_packets = 0

    def successor(self) -> Sender:
        """The sender of a new log, which goes on counting."""
        new = Sender(self._round_trips, self.sizes, self.cost)
        new.pace = self.pace
        new._room = self._room
        new.retransmitted = self.retransmitted
        new.lost_packets = self.lost_packets
        new.spurious_packets = self.spurious_packets
        new.spurious_bytes = self.spurious_bytes
        new.cut_packets = self.cut_packets
        return new

    def reconfigure(self, largest: int, limits: Limits) -> None:
        """
        The user allows something else from now on.

        @param largest: bytes of a file.
        """
        if largest != self.sizes.largest:
            self.sizes = PacketSizes(largest, self.sizes.current)
        self.pace.limits = limits
        self.pace.allowed_at = float("-inf")

    def restrict(self, largest: int | None, files: int | None) -> None:
        """
        The carrier passes no more than this.

        @param largest: bytes of a file.
        @param files: how many may lie there.
        """
        if largest is not None and largest < self.sizes.largest:
            self.sizes = PacketSizes(largest, self.sizes.current)
        if files is not None:
            limits = self.pace.limits
            most = min(max(files - RESERVED_FILES, 1), limits.files_in_transit)
            self.pace.limits = evolve(limits, files_in_transit=most)

    def give_up(self) -> list[str]:
        """The log is replaced: names of our files, which are of no use any more."""
        self._given_up = True
        return [packet.name for packet in self._flight.packets.values() if packet.name]

    # --- what is to be sent

    def queue(self, record: OutgoingRecord) -> None:
        """A committed record waits to be sent (also again, after a restart)."""
        number = record.number
        self._withheld.discard(number)
        self._records[number] = record
        self._highest = max(self._highest, number)
        if record.size <= SPARED:
            self._small[number] = record
        if number > self._limit:
            heappush(self._blocked, (number, record))
        else:
            self._queue.add(record)

    def has(self, number: int) -> bool:
        """Whether that record was given to L{queue}, acknowledged or not."""
        return number in self._records or number in self._acked

    def raise_limit(self, limit: int) -> None:
        """The peer accepts record numbers up to C{limit}; the maximum of all statements holds."""
        self._limit = max(self._limit, limit)
        while self._blocked and self._blocked[0][0] <= self._limit:
            number, record = heappop(self._blocked)
            if not record.settled and not record.packets and number not in self._withheld:
                self._queue.add(record)

    def withhold(self, number: int) -> bool:
        """
        Do not send a record until it is given to L{queue} again.

        @return: false if it was sent already, or is not known.
        """
        record = self._records.get(number)
        if record is None or record.packets or number in self._withheld:
            return False
        self._queue.discard(record)
        self._withheld.add(number)
        return True

    def next_sending(self) -> float | None:
        """When something is to be sent; None: there is nothing, or no room among what is under way."""
        flight = self._flight
        if self.peer_full:
            # Among what is under way there is room for a few, since all of that is waiting for the peer.
            crowded = len(flight.flying) >= self.pace.files() + PROBE_FILES
            return None if crowded or next(self._next_small(), None) is None else self.paced_until()
        if not len(self._queue) or len(flight.flying) >= self.pace.files():
            return None
        beyond = flight.flying_bytes - self.most_bytes()
        if beyond < min(OVERTAKING, self._room / 4) and self._queue.overtaking:
            return self.paced_until()
        return max(self.paced_until(), self._yielding.until) if beyond < 0 else None

    def _next_small(self) -> Iterator[OutgoingRecord]:
        return (record for record in self._small.values() if record.queued)

    def most_bytes(self) -> float:
        """How many bytes may be under way."""
        most = self.pace.limits.bytes_in_transit or max(
            IN_FLIGHT_BYTES, 2 * self._round_trips.in_a_round_trip()
        )
        return min(most, self._room)

    def no_room(self, written: int) -> bool:
        """
        The carrier has none for the packet that was last taken: half of what lies there from now
        on, and more again with each file that arrives.

        @param written: bytes of it that there was room for.
        @return: whether that makes a difference.
        """
        before = self.most_bytes()
        self._room = max(min((self._flight.flying_bytes + written) / 2, before / 2), LEAST_ROOM)
        return self._room < before

    def take(self, now: float, most: int | None = None, stride: int = DEFAULT_STRIDE) -> Frames:
        """
        The records for the next packet, by frame, in their order.  None where nothing may be sent now.

        @param most: bytes of the packet, about; at least one record is taken.  By
            default what is best, and no more than leaves room for others under way.
        """
        at = self.next_sending()
        if at is None or now < at:
            return Frames(0, stride)
        if self.peer_full:
            frames = Frames(SHORT, stride)
            for record in self._next_small():
                if not frames.add(record):
                    break
                self._queue.discard(record)
            return frames
        yielding = self._yielding
        if most is None:
            most = int(min(self.sizes.next(), self.most_bytes() / PACKETS_AT_ONCE))
            most = yielding.most(most, now)
        frames = Frames(most, stride)
        if self._flight.flying_bytes < self.most_bytes() and now >= yielding.until:
            # Where each file costs a wait, further ones are not worth it.
            overtakes = self._queue.fill(frames, most, short=not self.cost.cost.wait(SHORT))
        else:
            self._queue.fill_short(frames)
            overtakes = True
        if overtakes:
            yielding.overtaken(now)
        if self._repetition.lossy:
            self.retransmitted["early"] += self._repetition.add_to(frames)
        return frames

    def hollow(self, number: int) -> None:
        """What goes under that number from now on is a record of nothing."""
        record = self._records.get(number)
        if record is not None:
            self._queue.resize(record, 0)
            self._small[number] = record

    # --- what becomes of packets

    def sent(
        self,
        number: int,
        frames: Sequence[Sequence[OutgoingRecord]],
        size: int,
        now: float,
        probe: bool = False,
    ) -> None:
        """Packet C{number} of C{size} bytes is about to be written, with these records by frame."""
        flight = self._flight
        if not flight.flying:
            self._heard_at = max(self._heard_at, now)
        left = 0
        for frame in frames:
            for record in frame:
                if not record.settled:
                    record.packets.append(number)
                    left += 1
        sending = Sending(now, size, len(frames), self._arrived_bytes, not len(self._queue))
        flight.remember(number, sending)
        if not left:
            return
        self.sizes.sent(size)
        if size > APART:
            self._yielding.sent(size, now)
        if self._repetition.lossy:
            self._repetition.sent(frames, size)
        flight.take_off(Packet(number, now, size, frames, left, probe))
        if probe:
            self._probes.append(number)

    def named(self, number: int, name: str) -> list[str]:
        """
        Packet C{number} lies in the folder under C{name}.

        @return: names of our files that are of no use any more: this one if all of it
            is acknowledged already; and of the probes that nobody answers all but the newest.
        """
        packet = self._flight.packets.get(number)
        if packet is None or self._given_up:
            return [name]
        packet.name = name
        useless = []
        while len(self._probes) > PROBE_FILES:
            probe = self._flight.packets.get(self._probes.pop(0))
            # The newest has what is in them, for as long as it is the oldest that waits.
            if probe is not None and probe.number in self._flight.flying:
                self._send_again(probe, range(len(probe.frames)))
                self._flight.forget(probe)
                if probe.name:
                    useless.append(probe.name)
        return useless

    def not_written(self, number: int) -> None:
        """Packet C{number} never reached the folder: its records go again."""
        packet = self._flight.packets.get(number)
        self._flight.sendings.pop(number, None)
        if packet is not None:
            self._send_again(packet, range(len(packet.frames)))
            self._flight.forget(packet)

    def _send_again(self, packet: Packet, frames: Iterable[int]) -> list[OutgoingRecord]:
        return [
            record
            for frame in frames
            for record in packet.frames[frame]
            # What has gone in a later packet since, for good reason, is that packet's affair.
            if not record.settled
            and (record.packets[-1] == packet.number or record.repeated)
            and self._queue.add_again(record)
        ]

    # --- what the peer says

    def acknowledge(self, ack: int, ranges: Iterable[tuple[int, int]], now: float) -> Acknowledged:
        """
        The peer has committed every record up to C{ack} and those in C{ranges}.
        What it says of numbers that were never given to L{queue} is passed over.
        """
        records: list[OutgoingRecord] = []
        files: list[str] = []
        for start, end in ((1, ack), *ranges):
            end = min(end, self._highest)
            for first, last in self._acked.add(start, end) if start <= end else ():
                for number in self._numbers(first, last):
                    record = self._records.pop(number)
                    records.append(record)
                    self._settle(record, files, now)
        if records:
            self._heard(now)
        return Acknowledged(records, files)

    def _numbers(self, first: int, last: int) -> list[int]:
        """Which of our records these are, whichever way is shorter."""
        if last - first < len(self._records):
            return [number for number in range(first, last + 1) if number in self._records]
        return [number for number in self._records if first <= number <= last]

    def _settle(self, record: OutgoingRecord, files: list[str], now: float) -> None:
        record.settled = True
        self._queue.discard(record)
        if record.size <= SPARED:
            self._small.pop(record.number, None)
        flight = self._flight
        for at in record.packets:
            packet = flight.packets.get(at)
            if packet is None:
                continue
            packet.left -= 1
            # Else nobody knows in which of them it arrived.
            if len(record.packets) == 1 and not record.earlier:
                flight.overtakes(packet.sent)
                if packet.left:
                    flight.arrived(packet, now)
            if not packet.left:
                flight.forget(packet)
                if packet.name:
                    files.append(packet.name)

    def _heard(self, now: float) -> None:
        self._heard_at = now
        self._unanswered = 0

    def receipts(self, receipts: Sequence[Receipt], now: float) -> None:
        """The peer has read these packets of ours; what is said again counts once."""
        cost = self.cost.cost
        self.cost.told(receipts, self._flight.sendings, now, self._round_trips.lowest)
        for receipt in receipts:
            self.receipt(receipt.number, receipt.missing, receipt.hold / 1000, now)
        if self.cost.cost is not cost:
            self.pace.judged(cost, len(self._flight.flying), self._round_trips.lowest, now)

    def receipt(self, number: int, missing: Sequence[tuple[int, int]], hold: float, now: float) -> None:
        """
        The peer has read packet C{number}.

        @param missing: ranges of frames (1 is the first with records) that were not intact.
        @param hold: seconds between its reading and this answer.
        """
        sending = self._flight.sendings.get(number)
        if sending is None or sending.received:
            return
        sending.received = True
        self.cost.receipts += 1
        if not sending.frames:
            # The peer kept it until it had something to send: that is not how it answers others.
            if not self._records:
                self._round_trips.sample(now - sending.at - hold)
            return
        self._measure(sending, missing, hold, now)
        self._flight.overtakes(sending.at)
        self._heard(now)
        self._room *= ROOM_GROWS
        packet = self._flight.packets.get(number)
        if packet is None:
            return
        self._flight.arrived(packet, now)
        cut = [frame for start, end in missing for frame in range(start - 1, min(end, len(packet.frames)))]
        if cut:
            self.cut_packets += 1
            self.retransmitted["cut"] += len(self._send_again(packet, cut))

    def _measure(self, sending: Sending, missing: Sequence[tuple[int, int]], hold: float, now: float) -> None:
        trips = self._round_trips
        # That a packet was cut its reader knew only once the file had settled.
        if not missing and sending.at > self._resumed_at:
            seconds = now - sending.at - hold
            if self._unanswered < 2:
                trips.sample(seconds, hold)
            else:
                # What was sent before or in a long silence tells how long that was.  But if
                # the carrier has become slow it looks like one: so learn that step by step.
                trips.sample(min(seconds, 2 * trips.timeout(sending.size)))
                self._resumed_at = now
        self._arrived_bytes += sending.size
        if now - hold > sending.at:
            speed = (self._arrived_bytes - sending.arrived) / (now - hold - sending.at)
            trips.rate(speed, busy=not sending.alone)
        absent = sum(min(end, sending.frames) - start + 1 for start, end in missing)
        part = 1 - max(min(absent / sending.frames, 1.0), 0.0) if missing else 1.0
        self._repetition.judged(not missing)
        if not sending.lost:
            self.sizes.arrived(sending.size, part, self.cost.cost)
        elif part:
            self.spurious_packets += 1
            self.spurious_bytes += int(sending.again * part)
            trips.spurious()
            self.sizes.arrived_after_all(sending.size, part)

    # --- time

    def lose_overdue(self, now: float) -> None:
        """
        Queue again what is in packets that count as lost by now: those that are
        older than the timeout while one sent no earlier has arrived, in the order
        in which they were sent.
        """
        for packet in self._flight.lost(now):
            again = self._send_again(packet, range(len(packet.frames)))
            sending = self._flight.sendings.get(packet.number)
            if sending is not None:
                sending.lost = True
                sending.again = sum(record.size for record in again)
                if not self.peer_full:  # else it may lie there for want of room
                    self._repetition.judged(False)
                    self.sizes.arrived(packet.size, 0.0, self.cost.cost)
            if again:
                self.retransmitted["lost"] += len(again)
                self.lost_packets += 1
        for packet in self._flight.unsettled(now):
            self.retransmitted["lost"] += len(self._send_again(packet, range(len(packet.frames))))

    def next_loss(self) -> float | None:
        """When L{lose_overdue} may next find something, or None."""
        return self._flight.next_due()

    def next_probe(self) -> float | None:
        """When to probe unless something is heard, or None where nothing waits."""
        if not self._records:
            return None
        oldest = next(iter(self._flight.flying.values()), None)
        size = 0 if oldest is None else oldest.size
        return max(self._heard_at, self._probed_at) + self._round_trips.probe_after(self._unanswered, size)

    def probe(self, most: int, now: float, stride: int = DEFAULT_STRIDE) -> Frames:
        """
        The oldest records of which nothing is heard, to be sent once more as a probe;
        none if all have arrived or may not be sent, and the probe but asks for an answer.

        @param most: payload bytes; at least one record is taken where there is one.
        """
        self._probed_at = now
        self._unanswered += 1
        frames = Frames(most, stride)
        for packet in self._flight.flying.values():
            for frame in packet.frames:
                for record in frame:
                    if not (record.settled or record.queued or frames.add(record)):
                        break
            break
        self.retransmitted["probe"] += sum(map(len, frames.frames))
        if self.peer_full and not frames.frames:
            # Whether it has room again shows only in what needs some.
            self._queue.fill(frames, most)
        return frames

    def silence(self, now: float) -> float:
        """Seconds for which an answer has been waited for; 0 where none is."""
        return now - self._heard_at if self._flight.flying else 0.0

    def suspend(self, now: float) -> None:
        """The carrier is down: no time passes for what is under way."""
        if self._suspended_at is None:
            self._suspended_at = now

    def resume(self, now: float) -> None:
        """It works again."""
        if self._suspended_at is None:
            return
        down, self._suspended_at = now - self._suspended_at, None
        self._resumed_at = now
        self._heard_at = now
        self._flight.delay(down)

    # --- for status displays

    def paced_until(self) -> float:
        """(clock) Nothing but probes is to be written before."""
        flight, pace = self._flight, self.pace
        if flight.flying:
            return max(pace.not_before, pace.allowed_at)
        # A carrier without files has no need to be waited for.
        waits = float("-inf")
        if flight.sendings and self._round_trips.smoothed is not None:
            # Those without records are under way as well, but nobody misses their receipts.
            last = next(reversed(flight.sendings.values()))
            if not last.received:
                waits = min(pace.not_before, last.at + 2 * self._round_trips.smoothed)
        return max(waits, pace.allowed_at)

    def unacknowledged(self) -> int:
        """How many records are queued or under way."""
        return len(self._records)

    def held(self) -> int:
        """How many of these wait until the peer accepts their numbers."""
        return len(self._blocked)

    def files_in_transit(self) -> int:
        """How many files were written and are not known to have arrived."""
        return len(self._flight.flying)

    def bytes_in_transit(self) -> int:
        """Their bytes."""
        return self._flight.flying_bytes
