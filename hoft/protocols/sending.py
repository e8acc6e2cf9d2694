"""
The sending half of a link: what goes into the next packet, and what must go again; pure.

A *record* is settled only by an acknowledgement.  *Packets* are how records
travel: each goes out once under its own number; what it carried goes again in
later packets when a receipt says that frames did not arrive, or when it counts
as lost.  Lost is a packet that is older than the timeout while one sent no
earlier has arrived; in total silence nothing is lost, but a probe is sent.
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
    name: str = ""
    in_flight: bool = True
    reported: bool = False


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
    """

    def __init__(self, round_trips: RoundTrips) -> None:
        self._round_trips = round_trips
        self._records: dict[int, OutgoingRecord] = {}
        self._ready: list[tuple[int, bool, int]] = []
        self._blocked: list[int] = []
        self._packets: dict[int, Packet] = {}
        self._sent_packets: dict[int, tuple[float, int]] = {}
        self._acked = RangeSet()
        self._limit = INITIAL_LIMIT
        self._in_flight_bytes = 0
        self._in_flight = 0
        self._arrived_sent = float("-inf")
        self._quiet_since = 0.0
        self._unanswered = 0
        self.backlog = 0
        self.retransmitted = {"lost": 0, "cut": 0, "probe": 0}
        self.lost_packets = 0
        self.cut_packets = 0

    def queue(self, record: OutgoingRecord) -> None:
        """A committed record waits to be sent (also again, after a restart)."""
        self._records[record.number] = record
        self.backlog += record.size
        self._make_ready(record, again=False)

    def _make_ready(self, record: OutgoingRecord, again: bool) -> None:
        if not record.queued:
            record.queued = True
            heappush(self._ready, (record.urgency, not again, record.number))

    def raise_limit(self, limit: int) -> None:
        """The peer accepts record numbers up to C{limit}; the maximum of all statements holds."""
        if limit <= self._limit:
            return
        self._limit = limit
        blocked, self._blocked = self._blocked, []
        for number in blocked:
            record = self._records.get(number)
            if record is not None:
                record.queued = False
                self._make_ready(record, again=False)

    def take(self, most: int) -> list[OutgoingRecord]:
        """
        The records for the next packet, in order: urgent ones first, and of
        those what was sent before first.  Empty where nothing may be sent now.

        @param most: payload bytes; at least one record is taken.
        """
        if self._in_flight_bytes >= IN_FLIGHT_BYTES or self._in_flight >= IN_FLIGHT_PACKETS:
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
                self._blocked.append(number)
                continue
            if taken and record.size > room:
                break
            heappop(self._ready)
            record.queued = False
            room -= record.size
            taken.append(record)
        return taken

    def put_back(self, numbers: Iterable[int]) -> None:
        """These were taken, but their packet could not be written."""
        for number in numbers:
            record = self._records.get(number)
            if record is not None:
                self._make_ready(record, again=True)

    def sent(self, number: int, frames: Sequence[Sequence[int]], size: int, now: float) -> None:
        """Packet C{number} of C{size} bytes is about to be written, with these records by frame."""
        if not self._in_flight:
            self._quiet_since = now
        self._sent_packets[number] = (now, size)
        while len(self._sent_packets) > 4 * IN_FLIGHT_PACKETS:
            del self._sent_packets[next(iter(self._sent_packets))]
        left = 0
        for frame in frames:
            for record_number in frame:
                record = self._records.get(record_number)
                if record is not None:
                    record.packets.append(number)
                    left += 1
        if left:
            self._packets[number] = Packet(number, now, size, frames, left)
            self._in_flight += 1
            self._in_flight_bytes += size

    def named(self, number: int, name: str) -> bool:
        """Packet C{number} lies in the folder under C{name}; false if all of it is acknowledged already."""
        packet = self._packets.get(number)
        if packet is None:
            return False
        packet.name = name
        return True

    def not_written(self, number: int) -> None:
        """Packet C{number} never reached the folder: its records go again."""
        packet = self._packets.get(number)
        self._sent_packets.pop(number, None)
        if packet is not None:
            self._land(packet)
            self._send_again(packet, range(len(packet.frames)))

    def _land(self, packet: Packet) -> None:
        if packet.in_flight:
            packet.in_flight = False
            self._in_flight -= 1
            self._in_flight_bytes -= packet.size

    def _send_again(self, packet: Packet, frames: Iterable[int]) -> int:
        count = 0
        for frame in frames:
            for number in packet.frames[frame]:
                record = self._records.get(number)
                if record is not None and record.packets[-1] == packet.number and not record.queued:
                    self._make_ready(record, again=True)
                    count += 1
        return count

    def acknowledge(self, ack: int, ranges: Iterable[tuple[int, int]], now: float) -> Acknowledged:
        """The peer has committed every record up to C{ack} and those in C{ranges}."""
        records: list[OutgoingRecord] = []
        files: list[str] = []
        news = self._acked.add(1, ack) if ack else []
        for start, end in ranges:
            news += self._acked.add(start, end)
        for start, end in news:
            for number in range(start, end + 1):
                record = self._records.pop(number, None)
                if record is None:
                    continue
                records.append(record)
                self.backlog -= record.size
                if len(record.packets) == 1 and record.packets[0] in self._packets:
                    self._arrived_sent = max(self._arrived_sent, self._packets[record.packets[0]].sent)
                for packet_number in record.packets:
                    packet = self._packets.get(packet_number)
                    if packet is None:
                        continue
                    packet.left -= 1
                    if not packet.left:
                        del self._packets[packet_number]
                        self._land(packet)
                        if packet.name:
                            files.append(packet.name)
        if records:
            self._heard(now)
        return Acknowledged(records, files)

    def _heard(self, now: float) -> None:
        self._quiet_since = now
        self._unanswered = 0

    def receipt(self, number: int, missing: Iterable[tuple[int, int]], hold: float, now: float) -> None:
        """
        The peer has read packet C{number}.

        @param missing: ranges of frames (1 is the first with records) that were not intact.
        @param hold: seconds between its reading and this answer.
        """
        known = self._sent_packets.pop(number, None)
        if known is None:
            return
        sent, _ = known
        if self._unanswered < 2:
            self._round_trips.sample(now - sent - hold)
        self._arrived_sent = max(self._arrived_sent, sent)
        self._heard(now)
        packet = self._packets.get(number)
        if packet is None or packet.reported:
            return
        packet.reported = True
        cut = [frame for start, end in missing for frame in range(start - 1, min(end, len(packet.frames)))]
        if cut:
            self.cut_packets += 1
            self._land(packet)
            self.retransmitted["cut"] += self._send_again(packet, cut)

    def lose_overdue(self, now: float) -> None:
        """Queue again what is in packets that count as lost by now."""
        if self._round_trips.smoothed is None:
            return
        timeout = self._round_trips.timeout()
        for packet in self._packets.values():
            if packet.sent + timeout > now:
                break
            if not packet.in_flight or packet.sent > self._arrived_sent:
                continue
            self._land(packet)
            again = self._send_again(packet, range(len(packet.frames)))
            if again:
                self.retransmitted["lost"] += again
                self.lost_packets += 1

    def waiting(self) -> bool:
        """Whether only the peer's answer can move something on."""
        return bool(self._in_flight or self._blocked)

    def next_loss(self) -> float | None:
        """When L{lose_overdue} may next find something, or None."""
        if self._round_trips.smoothed is None:
            return None
        for packet in self._packets.values():
            if packet.in_flight and packet.sent <= self._arrived_sent:
                return packet.sent + self._round_trips.timeout()
        return None

    def next_probe(self) -> float | None:
        """When to probe unless something is heard, or None where nothing waits."""
        if not self.waiting():
            return None
        return self._quiet_since + self._round_trips.probe_after(self._unanswered)

    def probe(self, most: int, now: float) -> list[OutgoingRecord]:
        """
        The oldest unacknowledged records, to be sent once more as a probe.

        @param most: payload bytes; at least one record is taken where there is one.
        """
        self._quiet_since = now
        self._unanswered += 1
        taken: list[OutgoingRecord] = []
        for record in self._records.values():
            if not record.packets or (taken and record.size > most):
                break
            most -= record.size
            taken.append(record)
        self.retransmitted["probe"] += len(taken)
        return taken

    def silence(self, now: float) -> float:
        """Seconds for which an answer has been waited for; 0 where none is."""
        return now - self._quiet_since if self._in_flight else 0.0

    def resume(self, now: float) -> None:
        """The carrier works again: silence is counted from now on."""
        self._quiet_since = now

    def oldest(self) -> OutgoingRecord | None:
        """The oldest unacknowledged record."""
        return next(iter(self._records.values()), None)

    def unacknowledged(self) -> int:
        """How many records are queued or under way."""
        return len(self._records)
