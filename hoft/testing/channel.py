"""
A faulty channel: what careless carriers do to files, from one seed.

Give L{FaultyChannel} to L{hoft.transports.memory.MemoryFolder} as C{deliver}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from uuid import UUID

from attrs import frozen


@frozen
class Faults:
    """Probabilities are for each file, 0 to 1; times in seconds."""

    lose: float = 0.0
    truncate: float = 0.0
    duplicate: float = 0.0
    flip: float = 0.0
    """One bit is flipped."""
    grow: float = 0.0
    """The file is seen half-written first."""
    zeros: float = 0.0
    """The file is seen at its full length, not yet filled, first."""
    delay: float = 0.05
    """Median of a lognormal."""
    spread: float = 0.5
    """Standard deviation of the delay's logarithm: from about 1 on, files overtake each other."""


class FaultyChannel:
    """
    Decides what becomes of each file.

    @ivar faults: may be replaced at any time.
    @ivar counts: what was done so far, by fault.
    """

    def __init__(self, random: Random, faults: Faults) -> None:
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self._random = random

    def __call__(
        self, sender: UUID, recipient: UUID, name: str, data: bytes
    ) -> Iterator[tuple[float, bytes]]:
        """See L{hoft.transports.memory.Deliver}."""
        chance, faults = self._random.random, self.faults
        self.counts["files"] += 1
        if chance() < faults.lose:
            self.counts["lost"] += 1
            return
        if chance() < faults.flip and data:
            self.counts["flipped"] += 1
            at = self._random.randrange(len(data))
            flipped = data[at] ^ (1 << self._random.randrange(8))
            data = data[:at] + bytes([flipped]) + data[at + 1 :]
        delay = self._delay()
        if chance() < faults.truncate:
            self.counts["cut"] += 1
            yield delay, data[: self._part(data)]
            return
        if chance() < faults.grow:
            self.counts["grown"] += 1
            yield delay, data[: self._part(data)]
            delay += self._random.random()
        elif chance() < faults.zeros:
            self.counts["zeros"] += 1
            written = self._part(data)
            yield delay, data[:written] + bytes(len(data) - written)
            delay += self._random.random()
        yield delay, data
        if chance() < faults.duplicate:
            self.counts["duplicated"] += 1
            yield delay + self._delay() + self._random.expovariate(1 / 30), data

    def _part(self, data: bytes) -> int:
        """Some length below its own, where it has one."""
        return self._random.randrange(len(data)) if data else 0

    def _delay(self) -> float:
        return self.faults.delay * self._random.lognormvariate(0.0, self.faults.spread)
