"""
The way to the peer: what is known of it, and how much may be under way on it; pure.

It outlives logs.  What RFC 9002 (section 7) calls a congestion window is here what two round trips
bring, as far as the carrier has room for so much.
"""

from __future__ import annotations

from attrs import evolve

from hoft.protocols.estimates import Estimates
from hoft.protocols.flight import Flight
from hoft.protocols.pacing import CarrierCost, Limits, Pace
from hoft.protocols.sizing import PacketSizes
from hoft.protocols.timing import RoundTrips

IN_FLIGHT_BYTES = 64 << 20
"""Under way at most, or twice what the carrier brings in a round trip, whichever is more."""

OVERTAKING = 4 << 20
"""Beyond that, for what does not wait behind what is under way in bulk."""

LEAST_ROOM = 64 << 10
"""So many bytes may be under way wherever files can be written at all."""

ROOM_GROWS = 1.005
"""By how much more of what had found no room is tried with each file that arrives."""

RESERVED_FILES = 8
"""Of those that a carrier lets lie there, for probes and files without records."""


class Path:
    """
    Of one link.

    @ivar round_trips: how long to wait for receipts.
    @ivar sizes: how large packets are to be.
    @ivar cost: what a file costs the carrier.
    @ivar pace: when the next may be written, as far as carrier and user are concerned.
    @ivar retransmitted: records that were put in a further packet, by cause.
    @ivar lost_packets: how many counted as lost.
    @ivar spurious_packets: how many of these arrived after all.
    @ivar spurious_bytes: payload that was sent again because of these.
    @ivar cut_packets: how many arrived with frames missing.
    """

    def __init__(
        self,
        round_trips: RoundTrips,
        sizes: PacketSizes | None = None,
        cost: CarrierCost | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.round_trips = round_trips
        self.sizes = PacketSizes() if sizes is None else sizes
        self.cost = CarrierCost() if cost is None else cost
        self.pace = Pace(Limits() if limits is None else limits, self.cost)
        self.retransmitted = {"lost": 0, "cut": 0, "probe": 0, "early": 0}
        self.lost_packets = 0
        self.spurious_packets = 0
        self.spurious_bytes = 0
        self.cut_packets = 0
        self._room = float("inf")

    def estimates(self) -> Estimates | None:
        """What is worth keeping for the next process; None before anything is known."""
        trips, cost = self.round_trips, self.cost.cost
        if trips.smoothed is None:
            return None
        return Estimates(
            smoothed=trips.smoothed,
            variation=trips.variation,
            slowest=trips.slowest,
            per_file=cost.per_file,
            per_byte=cost.per_byte,
            packet_size=self.sizes.current,
        )

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

    def most_bytes(self) -> float:
        """How many bytes may be under way."""
        most = self.pace.limits.bytes_in_transit or max(
            IN_FLIGHT_BYTES, 2 * self.round_trips.in_a_round_trip()
        )
        return min(most, self._room)

    def overtaking_bytes(self) -> float:
        """How many more for what overtakes."""
        return min(OVERTAKING, self._room / 4)

    def no_room(self, flight: Flight, written: int) -> bool:
        """
        The carrier has none for a further packet: half of what lies there from now on, and more
        again with each file that arrives.

        @param written: bytes of it that there was room for.
        @return: whether that makes a difference.
        """
        before = self.most_bytes()
        self._room = max(min((flight.flying_bytes + written) / 2, before / 2), LEAST_ROOM)
        return self._room < before

    def arrived(self) -> None:
        """A file has."""
        self._room *= ROOM_GROWS

    def paced_until(self, flight: Flight) -> float:
        """(clock) Nothing but probes is to be written before."""
        pace = self.pace
        if flight.flying:
            return max(pace.not_before, pace.allowed_at)
        # A carrier without files has no need to be waited for.
        waits = float("-inf")
        if flight.sendings and self.round_trips.smoothed is not None:
            # Those without records are under way as well, but nobody misses their receipts.
            last = next(reversed(flight.sendings.values()))
            if not last.received:
                waits = min(pace.not_before, last.at + 2 * self.round_trips.smoothed)
        return max(waits, pace.allowed_at)
