"""
When the next file may be written: not faster than the carrier takes files, nor than the
user allows; pure.

A carrier that takes files one after the other is found out by their spacing: of two that it
was given in quick succession the second arrives later than the first by what it costs.  Where
files travel side by side some arrive together, and nothing is held back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final

from attrs import frozen

from hoft.protocols.control import Receipt
from hoft.protocols.flight import Sending

FLOOR: Final = 0.02
"""Seconds a file: what costs less is not worth a wait."""

SLOW: Final = 8 << 20
"""Bytes a second: nor are bytes that travel faster."""

WINDOW: Final = 48
"""Spacings that are remembered."""
NEEDED: Final = 4
"""So many are wanted for a verdict."""
RENEW: Final = 4
"""After so many the verdict is made anew."""

STRETCHED: Final = 1.5
"""Files that arrive so much further apart than they were sent have waited for each other."""
COMPRESSED: Final = 0.5
"""And those that arrive so much closer show how quick the carrier can be."""
CROWDED: Final = 2.0
"""Where a round trip takes so many times the shortest, files are waiting for each other."""
QUICKER: Final = 0.7
"""As do those that are so much closer than was thought possible."""

STEADY: Final = 0.25
"""Of files that take turns the closest tenth is not so much closer than half of them; of others it is."""

PROBE: Final = 8
"""One of so many files goes early, and the next late: else a carrier that got faster was never noticed."""

HEADROOM: Final = 1.1
"""Files are so much further apart than they need be, so that what has piled up dissolves."""

DEARER: Final = 1.5
"""A carrier that got so much slower is left to deal with what it was given before."""

FRACTION: Final = 128
"""Where a round trip takes seconds, small files are at least so small a part of it apart."""
SMALL: Final = 256 << 10

FIRST_FILES: Final = 8
"""Files under way before anything is known; for each receipt one more."""
KNOWN: Final = 64
"""So many files under way, and it is known whether the carrier needs a wait: the limit of the user holds."""

TYPICAL_FILE: Final = 0.0002
TYPICAL_SPEED: Final = float(100 << 20)
"""What a carrier is taken to cost, at least, where sizes are compared."""


@frozen
class Cost:
    """What a carrier's files cost it; zeros where it shows none."""

    per_file: float = 0.0
    """Seconds."""
    per_byte: float = 0.0
    """Seconds."""

    def of(self, length: int) -> float:
        """Seconds for a file, never nothing: for comparing sizes."""
        return max(self.per_file, TYPICAL_FILE) + length * (self.per_byte or 1 / TYPICAL_SPEED)

    def wait(self, length: int) -> float:
        """Seconds from this file to the next, where that is worth it; else 0."""
        if self.per_file < FLOOR and self.per_byte * SLOW < 1:
            return 0.0
        return self.per_file + length * self.per_byte


class CarrierCost:
    """
    What a file costs the carrier, from the spacing of arrivals.

    @ivar cost: the verdict.
    @ivar receipts: how many packets are known to have arrived.
    """

    def __init__(self, cost: Cost | None = None) -> None:
        """@param cost: what is known from before."""
        self.cost = Cost() if cost is None else cost
        self.receipts = 0
        self._spacings: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._new = 0

    def told(
        self, receipts: Sequence[Receipt], sendings: Mapping[int, Sending], now: float, lowest: float | None
    ) -> None:
        """
        The peer has said together when it read these packets of ours.

        @param sendings: the last packets, by number.
        @param lowest: the shortest round trip, seconds.
        """
        before: tuple[Receipt, Sending] | None = None
        for receipt in sorted(receipts, key=attrgetter("number")):
            sending = sendings.get(receipt.number)
            if sending is None:
                continue
            # What was between two others has taken its time too, whether or not it came.
            if before is not None and not sending.spaced and before[0].number + 1 == receipt.number:
                sending.spaced = True
                earlier, first = before
                if not receipt.missing:  # else it was known only once it had settled
                    self.spaced(
                        sending.at - first.at,
                        (earlier.hold - receipt.hold) / 1000,
                        now - earlier.hold / 1000 - first.at,
                        sending.size,
                        lowest,
                    )
            before = None if receipt.missing else (receipt, sending)

    def spaced(
        self, sent: float, arrived: float, round_trip: float, length: int, lowest: float | None = None
    ) -> None:
        """
        Two files that arrived one after the other.

        @param sent: seconds from the first's sending to the second's; negative if that was first.
        @param arrived: seconds from the first's arrival to the second's, by the peer's clock.
        @param round_trip: seconds from the first's sending to its receipt.
        @param length: the second's bytes.
        @param lowest: the shortest round trip, seconds.
        """
        second = round_trip + arrived - sent
        queued = lowest is not None and second > CROWDED * lowest + FLOOR
        waited = 2 * sent < round_trip and (arrived > STRETCHED * sent or queued)
        if not (waited or arrived < QUICKER * self.cost.wait(length) or arrived < COMPRESSED * sent):
            return  # they came as they were sent
        self._spacings.append((arrived, length))
        self._new += 1
        if self._new >= RENEW and len(self._spacings) >= NEEDED:
            self._new = 0
            self._judge()

    def _judge(self) -> None:
        spacings = sorted(self._spacings)
        median = spacings[len(spacings) // 2][0]
        # Bytes that travel quickly enough are no reason to wait, however long a file.
        beyond = sorted(gap - length / SLOW for gap, length in spacings)
        if beyond[len(beyond) // 2] < FLOOR:
            self._doubt()
            return
        # What is far above the others was a pause.
        kept = [(gap, length) for gap, length in spacings if gap <= 4 * median]
        per_byte = _slope(kept)
        mean_length = sum(length for _, length in kept) / len(kept)
        even = sorted(gap - (length - mean_length) * per_byte for gap, length in kept)
        if even[len(even) // 10] < STEADY * even[len(even) // 2]:
            self._doubt()
        else:
            self.cost = Cost(max(sum(even) / len(even) - mean_length * per_byte, 0.0), per_byte)

    def _doubt(self) -> None:
        """The carrier seems to cost nothing.  Chance may make it seem so: hence step by step."""
        cost = self.cost
        if cost.per_file or cost.per_byte:
            half = Cost(cost.per_file / 2, cost.per_byte / 2)
            self.cost = half if half.wait(SMALL) else Cost()


def _slope(spacings: list[tuple[float, int]]) -> float:
    """The median slope between those that differ enough in length (Theil and Sen)."""
    slopes = [
        (gap - other_gap) / (length - other)
        for at, (gap, length) in enumerate(spacings)
        for other_gap, other in spacings[:at]
        if not 0.5 < length / other < 2
    ]
    return max(sorted(slopes)[len(slopes) // 2], 0.0) if len(slopes) >= NEEDED else 0.0


@frozen
class Limits:
    """What the user allows of a link; 0 is no limit."""

    bytes_per_second: float = 0.0
    files_in_transit: int = 1000
    """Written, and not known to have arrived."""
    bytes_in_transit: int = 0
    """0: what the carrier brings in two round trips, 64 MiB at least."""


class Pace:
    """
    When the next file may be written.

    @ivar not_before: (clock) when the carrier will have dealt with what it was given.
    @ivar allowed_at: (clock) when the user allows more.
    @ivar limits: what the user, or the carrier, allows.
    """

    def __init__(self, limits: Limits, cost: CarrierCost) -> None:
        self.not_before = float("-inf")
        self.allowed_at = float("-inf")
        self.limits = limits
        self._cost = cost
        self._files = 0

    def sent(self, length: int, now: float, round_trip: float | None) -> None:
        """
        A file of C{length} bytes is about to be written.

        @param round_trip: seconds, as far as that is known.
        """
        allowed = self.limits.bytes_per_second
        if allowed:
            self.allowed_at = max(self.allowed_at, now - length / allowed) + length / allowed
        wait = self._cost.cost.wait(length)
        if wait:
            self._files += 1
            # One goes early and the next late by as much.
            wait *= HEADROOM * {0: 0.5, 1: 1.5}.get(self._files % PROBE, 1.0)
        if round_trip is not None and length < SMALL and round_trip > FLOOR * FRACTION:
            wait = max(wait, round_trip / FRACTION)
        if wait:
            # Who was late may catch up by one file.
            self.not_before = max(self.not_before, now - wait) + wait

    def judged(self, before: Cost, under_way: int, lowest: float | None, now: float) -> None:
        """
        The verdict on the carrier may be another one than C{before}.

        @param under_way: how many files are.
        @param lowest: the shortest round trip, seconds.
        """
        per_file = self._cost.cost.per_file
        if per_file >= FLOOR and per_file > DEARER * before.per_file:
            waiting = under_way * per_file - (lowest or 0.0)
            self.not_before = max(self.not_before, now + waiting)
        elif DEARER * self._cost.cost.wait(SMALL) < before.wait(SMALL):
            # What was waited for on the old terms is not owed any more.
            self.not_before = min(self.not_before, now + self._cost.cost.wait(SMALL))

    def files(self) -> int:
        """How many may be under way."""
        known = FIRST_FILES + self._cost.receipts
        return min(self.limits.files_in_transit, known) if known < KNOWN else self.limits.files_in_transit
