"""
The sending half of a link: what goes into the next packet, and what must go again; pure.

A *record* is settled only by an acknowledgement.  *Packets* are how records
travel: each goes out once under its own number; what it carried goes again in
later packets when a receipt says that frames did not arrive, or when it counts
as lost.  Lost is a packet that is older than the timeout while one sent no
earlier has arrived; in total silence nothing is lost, but a probe is sent.
A receipt settles nothing, but what it says has arrived no longer counts as lost:
its acknowledgement waits for a disk, not for the carrier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from attrs import define, field, frozen

from hoft.protocols.ranges import RangeSet
from hoft.protocols.timing import RoundTrips

IN_FLIGHT_BYTES = 64 << 20
IN_FLIGHT_PACKETS = 1000
INITIAL_LIMIT = 1024
"""The highest record number that may be sent before the peer has stated a limit."""

REMEMBERED_PACKETS = 4 * IN_FLIGHT_PACKETS
"""So many of the last packets can still be known by their receipts."""

PROBE_FILES = 4
"""Unanswered probes that may lie in the folder."""

SETTLING = 10.0
"""Seconds, besides four timeouts, until records that have arrived are sent again for want of an ack."""


@define
class OutgoingRecord:
    """A record of ours that the peer has not acknowledged."""

    id: int
    number: int
    size: int
    urgency: int
    queued: bool = False
    packets: list[int] = field(factory=list)


@define
class Packet:
    """A packet of this boot with unacknowledged records in it."""

    number: int
    sent: float
    size: int
    frames: Sequence[Sequence[int]]
    left: int
    probe: bool
    name: str = ""
    reported: float = 0.0


@define
class _Sent:
    """A packet whose receipt has not come."""

    at: float
    size: int
    arrived: int
    """Bytes that had arrived by then."""
    lost: bool = False


@frozen
class Acknowledged:
    """What an acknowledgement settled."""

    records: Sequence[OutgoingRecord]
    files: Sequence[str]
    """Names of our files that carry nothing unacknowledged any more."""


class Sender:
    """
    The unacknowledged records of one link.

    A packet is I{flying} from when it is written until its receipt comes, all of
    it is acknowledged or it counts as lost; after a receipt it is I{arrived},
    and what is in it is about to be acknowledged.

    @ivar retransmitted: records that were put in a further packet, by cause.
    @ivar lost_packets: how many counted as lost.
    @ivar spurious_packets: how many of these arrived after all.
    @ivar cut_packets: how many arrived with frames missing.
    """

    def __init__(self, round_trips: RoundTrips) -> None:
        self._round_trips = round_trips
        self._records: dict[int, OutgoingRecord] = {}
        self._highest = 0
        self._ready: list[tuple[int, bool, int]] = []
        self._blocked: list[int] = []
        self._packets: dict[int, Packet] = {}
        # Both in the order in which their packets get overdue.
        self._flying: dict[int, Packet] = {}
        self._arrived: dict[int, Packet] = {}
        self._flying_bytes = 0
        self._sent: dict[int, _Sent] = {}
        self._arrived_bytes = 0
        self._arrived_sent = float("-inf")
        self._probes: list[int] = []
        self._acked = RangeSet()
        self._limit = INITIAL_LIMIT
        self._heard_at = float("-inf")
        self._probed_at = float("-inf")
        self._unanswered = 0
        self._suspended_at: float | None = None
        self._resumed_at = float("-inf")
        self._given_up = False
        self.retransmitted = {"lost": 0, "cut": 0, "probe": 0}
        self.lost_packets = 0
        self.spurious_packets = 0
        self.cut_packets = 0

    def successor(self) -> Sender:
        """The sender of a new log, which goes on counting."""
        new = Sender(self._round_trips)
        new.retransmitted = self.retransmitted
        new.lost_packets = self.lost_packets
        new.spurious_packets = self.spurious_packets
        new.cut_packets = self.cut_packets
        return new

    def give_up(self) -> list[str]:
        """The log is replaced: names of our files, which are of no use any more."""
        self._given_up = True
        return [packet.name for packet in self._packets.values() if packet.name]

    def queue(self, record: OutgoingRecord) -> None:
        """A committed record waits to be sent (also again, after a restart)."""
        self._records[record.number] = record
        self._highest = max(self._highest, record.number)
        self._make_ready(record, again=False)

    def has(self, number: int) -> bool:
        """Whether that record was given to L{queue}, acknowledged or not."""
        return number in self._records or number in self._acked

    def _make_ready(self, record: OutgoingRecord, again: bool) -> None:
        if not record.queued:
            record.queued = True
            heappush(self._ready, (record.urgency, not again, record.number))

    def raise_limit(self, limit: int) -> None:
        """The peer accepts record numbers up to C{limit}; the maximum of all statements holds."""
        self._limit = max(self._limit, limit)
        while self._blocked and self._blocked[0] <= self._limit:
            record = self._records.get(heappop(self._blocked))
            if record is not None:
                record.queued = False
                self._make_ready(record, again=False)

    def take(self, most: int) -> list[OutgoingRecord]:
        """
        The records for the next packet, in order: urgent ones first, and of
        those what was sent before first.  Empty where nothing may be sent now.

        @param most: payload bytes; at least one record is taken.
        """
        if self._flying_bytes >= IN_FLIGHT_BYTES or len(self._flying) >= IN_FLIGHT_PACKETS:
            return []
        taken: list[OutgoingRecord] = []
        room = most
        while self._ready:
            number = self._ready[0][2]
            record = self._records.get(number)
            if record is None or not record.queued:
                heappop(self._ready)
                continue
            if number > self._limit:
                heappop(self._ready)
                heappush(self._blocked, number)
                continue
            if taken and record.size > room:
                break
            heappop(self._ready)
            record.queued = False
            room -= record.size
            taken.append(record)
        return taken

    def sent(
        self, number: int, frames: Sequence[Sequence[int]], size: int, now: float, probe: bool = False
    ) -> None:
        """Packet C{number} of C{size} bytes is about to be written, with these records by frame."""
        if not self._flying:
            self._heard_at = max(self._heard_at, now)
        left = 0
        for frame in frames:
            for record_number in frame:
                record = self._records.get(record_number)
                if record is not None:
                    record.packets.append(number)
                    left += 1
        if not left:
            return
        self._sent[number] = _Sent(now, size, self._arrived_bytes)
        while len(self._sent) > REMEMBERED_PACKETS:
            del self._sent[next(iter(self._sent))]
        packet = Packet(number, now, size, frames, left, probe)
        self._packets[number] = self._flying[number] = packet
        self._flying_bytes += size
        if probe:
            self._probes.append(number)

    def named(self, number: int, name: str) -> list[str]:
        """
        Packet C{number} lies in the folder under C{name}.

        @return: names of our files that are of no use any more: this one if all of it
            is acknowledged already; and of the probes that nobody answers all but the newest.
        """
        packet = self._packets.get(number)
        if packet is None or self._given_up:
            return [name]
        packet.name = name
        useless = []
        while len(self._probes) > PROBE_FILES:
            probe = self._packets.get(self._probes.pop(0))
            # The newest has what is in them, for as long as it is the oldest that waits.
            if probe is not None and probe.number in self._flying:
                self._send_again(probe, range(len(probe.frames)))
                self._forget(probe)
                if probe.name:
                    useless.append(probe.name)
        return useless

    def not_written(self, number: int) -> None:
        """Packet C{number} never reached the folder: its records go again."""
        packet = self._packets.get(number)
        self._sent.pop(number, None)
        if packet is not None:
            self._send_again(packet, range(len(packet.frames)))
            self._forget(packet)

    def _land(self, packet: Packet) -> None:
        if self._flying.pop(packet.number, None) is not None:
            self._flying_bytes -= packet.size

    def _forget(self, packet: Packet) -> None:
        self._land(packet)
        self._arrived.pop(packet.number, None)
        self._packets.pop(packet.number, None)

    def _send_again(self, packet: Packet, frames: Iterable[int]) -> int:
        count = 0
        for frame in frames:
            for number in packet.frames[frame]:
                record = self._records.get(number)
                # What has gone in a later packet since is that packet's affair.
                if record is not None and record.packets[-1] == packet.number and not record.queued:
                    self._make_ready(record, again=True)
                    count += 1
        return count

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
                    self._settle(record, files)
        if records:
            self._heard(now)
        return Acknowledged(records, files)

    def _numbers(self, first: int, last: int) -> list[int]:
        """Which of our records these are, whichever way is shorter."""
        if last - first < len(self._records):
            return [number for number in range(first, last + 1) if number in self._records]
        return [number for number in self._records if first <= number <= last]

    def _settle(self, record: OutgoingRecord, files: list[str]) -> None:
        for at in record.packets:
            packet = self._packets.get(at)
            if packet is None:
                continue
            if len(record.packets) == 1:  # else nobody knows in which of them it arrived
                self._arrived_sent = max(self._arrived_sent, packet.sent)
            packet.left -= 1
            if not packet.left:
                self._forget(packet)
                if packet.name:
                    files.append(packet.name)

    def _heard(self, now: float) -> None:
        self._heard_at = now
        self._unanswered = 0

    def receipt(self, number: int, missing: Sequence[tuple[int, int]], hold: float, now: float) -> None:
        """
        The peer has read packet C{number}.

        @param missing: ranges of frames (1 is the first with records) that were not intact.
        @param hold: seconds between its reading and this answer.
        """
        sent = self._sent.pop(number, None)
        if sent is None:
            return
        # That a packet was cut its reader knew only once the file had settled.
        if not missing and self._unanswered < 2 and sent.at > self._resumed_at:
            self._round_trips.sample(now - sent.at - hold, hold)
        self._arrived_bytes += sent.size
        if now - hold > sent.at:
            self._round_trips.rate((self._arrived_bytes - sent.arrived) / (now - hold - sent.at))
        if sent.lost:
            self.spurious_packets += 1
            self._round_trips.spurious()
        self._arrived_sent = max(self._arrived_sent, sent.at)
        self._heard(now)
        packet = self._packets.get(number)
        if packet is None:
            return
        packet.reported = now
        self._land(packet)
        self._arrived[number] = packet
        cut = [frame for start, end in missing for frame in range(start - 1, min(end, len(packet.frames)))]
        if cut:
            self.cut_packets += 1
            self.retransmitted["cut"] += self._send_again(packet, cut)

    def lose_overdue(self, now: float) -> None:
        """
        Queue again what is in packets that count as lost by now: those that are
        older than the timeout while one sent no earlier has arrived, in the order
        in which they were sent.
        """
        if self._round_trips.smoothed is None:
            return
        while (due := self._next_overtaken()) is not None and due <= now:
            packet = next(iter(self._flying.values()))
            self._land(packet)
            sent = self._sent.get(packet.number)
            if sent is not None:
                sent.lost = True
            again = self._send_again(packet, range(len(packet.frames)))
            if again:
                self.retransmitted["lost"] += again
                self.lost_packets += 1
        while (due := self._next_unsettled()) is not None and due <= now:
            packet = self._arrived.pop(next(iter(self._arrived)))
            self.retransmitted["lost"] += self._send_again(packet, range(len(packet.frames)))

    def _next_overtaken(self) -> float | None:
        packet = next(iter(self._flying.values()), None)
        if packet is None or packet.sent > self._arrived_sent:
            return None
        return packet.sent + self._round_trips.timeout(packet.size)

    def _next_unsettled(self) -> float | None:
        # It has arrived, and its acknowledgement waits for no more than a disk.
        packet = next(iter(self._arrived.values()), None)
        return None if packet is None else packet.reported + SETTLING + 4 * self._round_trips.timeout()

    def next_loss(self) -> float | None:
        """When L{lose_overdue} may next find something, or None."""
        if self._round_trips.smoothed is None:
            return None
        times = (self._next_overtaken(), self._next_unsettled())
        return min((time for time in times if time is not None), default=None)

    def next_probe(self) -> float | None:
        """When to probe unless something is heard, or None where nothing waits."""
        if not self._records:
            return None
        return max(self._heard_at, self._probed_at) + self._round_trips.probe_after(self._unanswered)

    def probe(self, most: int, now: float) -> list[OutgoingRecord]:
        """
        The oldest records of which nothing is heard, to be sent once more as a probe;
        none if all have arrived or may not be sent, and the probe but asks for an answer.

        @param most: payload bytes; at least one record is taken where there is one.
        """
        self._probed_at = now
        self._unanswered += 1
        taken: list[OutgoingRecord] = []
        for packet in self._flying.values():
            records = [self._records.get(number) for frame in packet.frames for number in frame]
            for record in records:
                if record is None or record.queued:
                    continue
                if taken and record.size > most:
                    break
                most -= record.size
                taken.append(record)
            break
        self.retransmitted["probe"] += len(taken)
        return taken

    def silence(self, now: float) -> float:
        """Seconds for which an answer has been waited for; 0 where none is."""
        return now - self._heard_at if self._flying else 0.0

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
        self._arrived_sent += down
        for packet in self._packets.values():
            packet.sent += down
            packet.reported += down
        for sent in self._sent.values():
            sent.at += down

    def unacknowledged(self) -> int:
        """How many records are queued or under way."""
        return len(self._records)
