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

from collections.abc import Iterable, Sequence

from attrs import frozen

from hoft.protocols.control import Receipt
from hoft.protocols.flight import Flight, Packet, Sending
from hoft.protocols.layout import DEFAULT_STRIDE
from hoft.protocols.path import Path
from hoft.protocols.probe_timeout import ProbeTimeout
from hoft.protocols.queueing import APART, SHORT, Frames, OutgoingRecord, SendQueue
from hoft.protocols.repeating import Repetition
from hoft.protocols.unacknowledged import Unacknowledged
from hoft.protocols.yielding import Yielding

PACKETS_AT_ONCE = 4
"""A packet is small enough that so many may be under way."""

PROBE_FILES = 4
"""Unanswered probes that may lie in the folder."""

CROWD = 4
"""So many short files that nothing is known of are many: what can be had with the next one is waited for."""

COMPANY = 24
"""Records that wait for no further ones."""

GATHER = 0.005
"""Seconds that others wait for, since the last file."""


@frozen
class Acknowledged:
    """What an acknowledgement settled."""

    records: Sequence[OutgoingRecord]
    files: Sequence[str]
    """Names of our files that carry nothing unacknowledged any more."""


class Sender:
    """
    The outgoing half of one log.

    @ivar records: that the peer has not acknowledged.
    @ivar path: where packets go.
    @ivar peer_full: the peer has no room: only probes go, so that it can say when it has, and
        what is small enough to be taken all the same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.peer_full = False
        self._queue = SendQueue()
        self.records = Unacknowledged(self._queue)
        self._flight = Flight(path.round_trips)
        self._timeout = ProbeTimeout(path.round_trips)
        self._arrived_bytes = 0
        self._probes: list[int] = []
        self._repetition = Repetition()
        self._yielding = Yielding()
        self._suspended_at: float | None = None
        self._resumed_at = float("-inf")
        self._given_up = False

    def give_up(self) -> list[str]:
        """The log is replaced: names of our files, which are of no use any more."""
        self._given_up = True
        return [packet.name for packet in self._flight.packets.values() if packet.name]

    # --- what is to be sent

    def next_sending(self) -> float | None:
        """When something is to be sent; None: there is nothing, or no room among what is under way."""
        flight, path = self._flight, self.path
        if self.peer_full:
            # Among what is under way there is room for a few, since all of that is waiting for the peer.
            crowded = len(flight.flying) >= path.pace.files() + PROBE_FILES
            nothing = crowded or next(iter(self.records.small()), None) is None
            return None if nothing else path.paced_until(flight)
        if not len(self._queue) or len(flight.flying) >= path.pace.files():
            return None
        beyond = flight.flying_bytes - path.most_bytes()
        if beyond < path.overtaking_bytes() and self._queue.overtaking:
            return path.paced_until(flight)
        if beyond >= 0:
            return None
        return max(path.paced_until(flight), self._yielding.until, self._gathering_until())

    def _gathering_until(self) -> float:
        """(clock) As RFC 896 has it, but not without end: what is little waits while little is under way."""
        flight = self._flight
        if (
            len(flight.flying) < CROWD
            or len(self._queue) >= COMPANY
            or flight.flying_bytes + self._queue.bytes > APART
        ):
            return float("-inf")
        return next(reversed(flight.flying.values())).sent + GATHER

    def paced_until(self) -> float:
        """(clock) Nothing but probes is to be written before."""
        return self.path.paced_until(self._flight)

    def no_room(self, written: int) -> bool:
        """See L{Path.no_room}, of the packet that was last taken."""
        return self.path.no_room(self._flight, written)

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
            for record in self.records.small():
                if not frames.add(record):
                    break
                self._queue.discard(record)
            return frames
        yielding = self._yielding
        if most is None:
            most = int(min(self.path.sizes.next(), self.path.most_bytes() / PACKETS_AT_ONCE))
            most = yielding.most(most, now)
        frames = Frames(most, stride)
        if self._flight.flying_bytes < self.path.most_bytes() and now >= yielding.until:
            # Where each file costs a wait, further ones are not worth it.
            overtakes = self._queue.fill(frames, most, short=not self.path.cost.cost.wait(SHORT))
        else:
            self._queue.fill_short(frames)
            overtakes = True
        if overtakes:
            yielding.overtaken(now)
        if self._repetition.lossy:
            self.path.retransmitted["early"] += self._repetition.add_to(frames)
        return frames

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
            self._timeout.wait(now)
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
        self.path.sizes.sent(size)
        if size > APART:
            self._yielding.sent(size, now)
        if self._repetition.lossy:
            self._repetition.sent(frames, size)
        flight.take_off(Packet(number, now, size, frames, left))
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
        """See L{Unacknowledged.acknowledge}."""
        files: list[str] = []
        records = self.records.acknowledge(ack, ranges)
        for record in records:
            self._settle(record, files, now)
        if records:
            self._timeout.heard(now)
        return Acknowledged(records, files)

    def _settle(self, record: OutgoingRecord, files: list[str], now: float) -> None:
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

    def receipts(self, receipts: Sequence[Receipt], now: float) -> None:
        """The peer has read these packets of ours; what is said again counts once."""
        path = self.path
        cost = path.cost.cost
        path.cost.told(receipts, self._flight.sendings, now, path.round_trips.lowest)
        for receipt in receipts:
            self.receipt(receipt.number, receipt.missing, receipt.hold / 1000, now)
        if path.cost.cost is not cost:
            path.pace.judged(cost, len(self._flight.flying), path.round_trips.lowest, now)

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
        self.path.cost.receipts += 1
        if not sending.frames:
            # The peer kept it until it had something to send: that is not how it answers others.
            if not self.records.by_number:
                self.path.round_trips.sample(now - sending.at - hold)
            return
        self._measure(sending, missing, hold, now)
        self._flight.overtakes(sending.at)
        self._timeout.heard(now)
        self.path.arrived()
        packet = self._flight.packets.get(number)
        if packet is None:
            return
        self._flight.arrived(packet, now)
        cut = [frame for start, end in missing for frame in range(start - 1, min(end, len(packet.frames)))]
        if cut:
            self.path.cut_packets += 1
            self.path.retransmitted["cut"] += len(self._send_again(packet, cut))

    def _measure(self, sending: Sending, missing: Sequence[tuple[int, int]], hold: float, now: float) -> None:
        path = self.path
        trips = path.round_trips
        # That a packet was cut its reader knew only once the file had settled.
        if not missing and sending.at > self._resumed_at:
            seconds = now - sending.at - hold
            if self._timeout.unanswered < 2:
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
            path.sizes.arrived(sending.size, part, path.cost.cost)
        elif part:
            path.spurious_packets += 1
            path.spurious_bytes += int(sending.again * part)
            trips.spurious()
            path.sizes.arrived_after_all(sending.size, part)

    # --- time

    def lose_overdue(self, now: float) -> None:
        """
        Queue again what is in packets that count as lost by now: those that are
        older than the timeout while one sent no earlier has arrived, in the order
        in which they were sent.
        """
        path = self.path
        for packet in self._flight.lost(now):
            again = self._send_again(packet, range(len(packet.frames)))
            sending = self._flight.sendings.get(packet.number)
            if sending is not None:
                sending.lost = True
                sending.again = sum(record.size for record in again)
                if not self.peer_full:  # else it may lie there for want of room
                    self._repetition.judged(False)
                    path.sizes.arrived(packet.size, 0.0, path.cost.cost)
            if again:
                path.retransmitted["lost"] += len(again)
                path.lost_packets += 1
        for packet in self._flight.unsettled(now):
            path.retransmitted["lost"] += len(self._send_again(packet, range(len(packet.frames))))

    def next_loss(self) -> float | None:
        """When L{lose_overdue} may next find something, or None."""
        return self._flight.next_due()

    def next_probe(self) -> float | None:
        """When to probe unless something is heard, or None where nothing waits."""
        if not self.records.by_number:
            return None
        oldest = next(iter(self._flight.flying.values()), None)
        size = 0 if oldest is None else oldest.size
        return self._timeout.due(size)

    def probe(self, most: int, now: float, stride: int = DEFAULT_STRIDE) -> Frames:
        """
        The oldest records of which nothing is heard, to be sent once more as a probe;
        none if all have arrived or may not be sent, and the probe but asks for an answer.

        @param most: payload bytes; at least one record is taken where there is one.
        """
        self._timeout.probed(now)
        frames = Frames(most, stride)
        for packet in self._flight.flying.values():
            for frame in packet.frames:
                for record in frame:
                    if not (record.settled or record.queued or frames.add(record)):
                        break
            break
        self.path.retransmitted["probe"] += sum(map(len, frames.frames))
        if self.peer_full and not frames.frames:
            # Whether it has room again shows only in what needs some.
            self._queue.fill(frames, most)
        return frames

    def silence(self, now: float) -> float:
        """Seconds for which an answer has been waited for; 0 where none is."""
        return self._timeout.silence(now) if self._flight.flying else 0.0

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
        self._timeout.resume(now)
        self._flight.delay(down)

    # --- for status displays

    def files_in_transit(self) -> int:
        """How many files were written and are not known to have arrived."""
        return len(self._flight.flying)

    def bytes_in_transit(self) -> int:
        """Their bytes."""
        return self._flight.flying_bytes
