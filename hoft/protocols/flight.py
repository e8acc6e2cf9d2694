"""
The packets of ours that are under way: which have arrived, and which count as lost; pure.

A packet I{flies} from when it is written until its receipt comes, a record that was in
no other packet is acknowledged, or it counts as lost.  Lost is one that is older
than the timeout while one sent no earlier has arrived.  One that has I{arrived} waits
for its receipt, if that has not come, and for a disk; not for the carrier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define

from hoft.protocols.queueing import OutgoingRecord
from hoft.protocols.timing import RoundTrips

REMEMBERED_PACKETS = 4000
"""So many of the last packets can still be known by their receipts."""

SETTLING = 10.0
"""Seconds, besides four timeouts, until records that have arrived are sent again for want of an ack."""


@define(eq=False)
class Packet:
    """A packet of this boot with unacknowledged records in it."""

    number: int
    sent: float
    size: int
    frames: Sequence[Sequence[OutgoingRecord]]
    left: int
    name: str = ""
    reported: float = 0.0
    """When something of it was last heard."""


@define(eq=False)
class Sending:
    """What is known of a packet that was sent, also when all in it is acknowledged."""

    at: float
    size: int
    frames: int
    arrived: int
    """Bytes of other packets that had arrived by then."""
    alone: bool
    """Nothing was left waiting when it was made."""
    received: bool = False
    spaced: bool = False
    lost: bool = False
    again: int = 0
    """Bytes of payload that were sent again for that."""


class Flight:
    """
    The packets of one link that are under way.

    @ivar packets: all with unacknowledged records, by number.
    @ivar flying: those of which nothing is known, in the order in which they were sent.
    @ivar flying_bytes: their size together.
    @ivar sendings: the last packets, by number.
    """

    def __init__(self, round_trips: RoundTrips) -> None:
        self._round_trips = round_trips
        self.packets: dict[int, Packet] = {}
        self.flying: dict[int, Packet] = {}
        self.flying_bytes = 0
        self.sendings: dict[int, Sending] = {}
        # In the order in which they get overdue.
        self._arrived: dict[int, Packet] = {}
        self._arrived_sent = float("-inf")

    def remember(self, number: int, sending: Sending) -> None:
        """A packet, with or without records, is about to be written."""
        self.sendings[number] = sending
        if len(self.sendings) > REMEMBERED_PACKETS:
            del self.sendings[next(iter(self.sendings))]

    def take_off(self, packet: Packet) -> None:
        """One with records is about to be written."""
        self.packets[packet.number] = self.flying[packet.number] = packet
        self.flying_bytes += packet.size

    def overtakes(self, sent: float) -> None:
        """A packet that was sent at that time has arrived."""
        self._arrived_sent = max(self._arrived_sent, sent)

    def arrived(self, packet: Packet, now: float) -> None:
        """It is known to have arrived, or a further part of it."""
        packet.reported = now
        self._land(packet)
        self._arrived.pop(packet.number, None)
        self._arrived[packet.number] = packet

    def forget(self, packet: Packet) -> None:
        """Nothing in it is of interest any more."""
        self._land(packet)
        self._arrived.pop(packet.number, None)
        self.packets.pop(packet.number, None)

    def _land(self, packet: Packet) -> None:
        if self.flying.pop(packet.number, None) is not None:
            self.flying_bytes -= packet.size

    def lost(self, now: float) -> Iterator[Packet]:
        """Those that count as lost by now, each once."""
        while (due := self._next_overtaken()) is not None and due <= now:
            packet = next(iter(self.flying.values()))
            self._land(packet)
            yield packet

    def unsettled(self, now: float) -> Iterator[Packet]:
        """Those that have arrived, each once, in which something still is not acknowledged."""
        while (due := self._next_unsettled()) is not None and due <= now:
            yield self._arrived.pop(next(iter(self._arrived)))

    def _next_overtaken(self) -> float | None:
        if self._round_trips.smoothed is None:
            return None  # no verdict without a measure
        packet = next(iter(self.flying.values()), None)
        if packet is None or packet.sent > self._arrived_sent:
            return None
        return packet.sent + self._round_trips.timeout(packet.size)

    def _next_unsettled(self) -> float | None:
        packet = next(iter(self._arrived.values()), None)
        return None if packet is None else packet.reported + SETTLING + 4 * self._round_trips.timeout()

    def next_due(self) -> float | None:
        """When L{lost} or L{unsettled} may next find something, or None."""
        times = (self._next_overtaken(), self._next_unsettled())
        return min((time for time in times if time is not None), default=None)

    def delay(self, seconds: float) -> None:
        """So much time has passed that does not count."""
        self._arrived_sent += seconds
        for packet in self.packets.values():
            packet.sent += seconds
            packet.reported += seconds
        for sending in self.sendings.values():
            sending.at += seconds
