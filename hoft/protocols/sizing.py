"""
How large packets should be, from what became of those that were sent; pure.

A carrier that cuts or drops files may do so the more the longer they are; one that
takes its time for each file wants few.  The size that is used is the one, among powers of
two, that brings most per second: M{phi(P) P / (t + (P + h) / B)}, with M{phi} the part that
arrived of packets of about that size, M{t} and M{B} what a file and a byte cost the carrier.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

from hoft.protocols.pacing import Cost

SMALLEST: Final = 64 << 10
START: Final = 1 << 20
LARGEST: Final = 500_000_000
"""Unless the user says otherwise: mirrors are known to cut what is above a gigabyte."""

KEPT: Final = 0.985
"""How much of what was learned is left after each packet."""
PRIOR: Final = 2.0
"""A size that was not tried counts as so many packets that fared like those of the size in use."""
PROBE: Final = 12
"""One of so many full packets is of a neighbouring size."""
SMALLER: Final = 1.03
"""A smaller size must be so much better."""
LARGER: Final = 1.05
"""And a larger one: where both bring the same, the larger writes more in vain."""
HOPELESS: Final = 0.05
"""Where no more than this arrives, any smaller size is better."""

OVERHEAD: Final = 700
"""Bytes of a packet that are not records, about."""


class PacketSizes:
    """
    The size of the packets of one link.

    @ivar current: bytes of a file, about.
    """

    def __init__(self, largest: int = LARGEST, current: int = START) -> None:
        """
        @param largest: no file is to be longer, bytes.
        @param current: the size to begin with.
        """
        self._sizes = [max(min(SMALLEST, largest), 1)]
        while self._sizes[-1] < largest:
            self._sizes.append(min(2 * self._sizes[-1], largest))
        self._tried = [0.0] * len(self._sizes)
        self._passed = [0.0] * len(self._sizes)
        self._squared = [0.0] * len(self._sizes)
        self._at = self._bucket(current)
        self._weight = 1.0
        self._full = 0

    def _bucket(self, length: int) -> int:
        for at, size in enumerate(self._sizes):
            if length <= size:
                return at
        return len(self._sizes) - 1

    @property
    def largest(self) -> int:
        """No file is to be longer."""
        return self._sizes[-1]

    @property
    def current(self) -> int:
        """Bytes of a file, about."""
        return self._sizes[self._at]

    def next(self) -> int:
        """How long the next packet may get, where so much waits."""
        at = self._at
        if self._full % PROBE == PROBE - 1:
            at += 1 if self._full // PROBE % 2 else -1
        return self._sizes[min(max(at, 0), len(self._sizes) - 1)]

    def sent(self, length: int) -> None:
        """A packet of C{length} was made: probes are counted by those that are full."""
        if 2 * length > self.next():
            self._full += 1

    def arrived(self, length: int, part: float, cost: Cost) -> None:
        """
        What became of a packet is known.

        @param part: how much of its records came, 0 to 1.
        @param cost: the carrier's.
        """
        self._weight /= KEPT  # what is new counts more, instead of all that is old less
        if abs(self._note(length, part, 1.0) - self._at) <= 1:
            self._choose(cost)

    def arrived_after_all(self, length: int, part: float) -> None:
        """One that had counted as lost."""
        self._note(length, part, 0.0)

    def _note(self, length: int, part: float, packets: float) -> int:
        at = self._bucket(length)
        self._tried[at] += packets * self._weight
        self._passed[at] += part * self._weight
        self._squared[at] += part * part * self._weight
        if self._weight > 1e12:
            for known in (self._tried, self._passed, self._squared):
                known[:] = [value / self._weight for value in known]
            self._weight = 1.0
        return at

    def survival(self, at: int) -> float:
        """The part of packets of a size that arrives."""
        return self._survival(at)[0]

    def _survival(self, at: int) -> tuple[float, float]:
        """And the standard error of that."""
        prior = 1.0 if at == self._at else self._survival(self._at)[0]
        weight = PRIOR * self._weight
        tried = self._tried[at] + weight
        part = (self._passed[at] + prior * weight) / tried
        variance = (self._squared[at] + prior * prior * weight) / tried - part * part
        return min(part, 1.0), sqrt(max(variance, 0.0) * self._weight / tried)

    def _choose(self, cost: Cost) -> None:
        at = self._at
        worth = self._worth(at, cost)
        if at and (self.survival(at) < HOPELESS or self._worth(at - 1, cost) > SMALLER * worth):
            self._at -= 1
        elif at + 1 < len(self._sizes) and self._worth(at + 1, cost) > LARGER * worth:
            self._at += 1

    def _worth(self, at: int, cost: Cost) -> float:
        size = self._sizes[at]
        part, error = self._survival(at)
        if at != self._at:
            part -= 2 * error  # else whichever was lucky for a while would be taken
        return part * size / cost.of(size + OVERHEAD)

    def reason(self) -> str:
        """Why this size, for people."""
        near = [at for at in (self._at - 1, self._at, self._at + 1) if 0 <= at < len(self._sizes)]
        if not any(self._tried[at] for at in near):
            return "the size to begin with"
        told = ", ".join(
            f"{self.survival(at):.0%} of {_shown(self._sizes[at])}"
            for at in near
            if self._tried[at] > self._weight / 10
        )
        return f"arrived of what was sent: {told}"


def _shown(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
