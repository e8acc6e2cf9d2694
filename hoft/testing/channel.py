"""
A faulty channel: what careless carriers do to files, from one seed.

Give L{FaultyChannel} to L{hoft.transports.memory.MemoryFolder} as C{deliver}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from random import Random
from uuid import UUID

from attrs import frozen


@frozen
class Faults:
    """
    What a carrier does.  Probabilities are for each file, 0 to 1; times in seconds,
    lengths in bytes.

    A carrier takes one file after the other, each way by itself, where
    C{per_file}, C{bandwidth} or C{every} is set; otherwise all at once.
    """

    lose: float = 0.0
    truncate: float = 0.0
    """The file ends anywhere, each length being as likely as any other."""
    hazard: float = 0.0
    """How many bytes pass on average before a file is cut; 0: however many."""
    ceiling: int = 0
    """Whatever is longer is cut to this length; 0: nothing is."""
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
    per_file: float = 0.0
    """Each file takes so long, and the next must wait."""
    bandwidth: float = 0.0
    """And for each so many bytes a second more; 0: no time."""
    every: float = 0.0
    """The carrier looks for files at multiples of this only, and takes all that lie there."""


class FaultyChannel:
    """
    Decides what becomes of each file.

    @ivar faults: may be replaced at any time.
    @ivar counts: what was done so far, by fault.
    """

    def __init__(self, random: Random, faults: Faults, clock: Callable[[], float] = lambda: 0.0) -> None:
        """@param clock: seconds; needed where files take turns."""
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self._random = random
        self._clock = clock
        self._free: dict[Hashable, float] = {}
        """By way: when the carrier has dealt with all that it was given."""

    def __call__(
        self, sender: UUID, recipient: UUID, name: str, data: bytes
    ) -> Iterator[tuple[float, bytes]]:
        """See L{hoft.transports.memory.Deliver}."""
        chance, faults = self._random.random, self.faults
        self.counts["files"] += 1
        turn = self._turn((sender, recipient), len(data))
        if chance() < faults.lose:
            self.counts["lost"] += 1
            return
        if chance() < faults.flip and data:
            self.counts["flipped"] += 1
            at = self._random.randrange(len(data))
            flipped = data[at] ^ (1 << self._random.randrange(8))
            data = data[:at] + bytes([flipped]) + data[at + 1 :]
        delay = turn + self._delay()
        kept = self._kept(len(data))
        if kept < len(data):
            self.counts["cut"] += 1
            yield delay, data[:kept]
            return
        if chance() < faults.grow:
            self.counts["grown"] += 1
            yield delay, data[: self._part(len(data))]
            delay += self._random.random()
        elif chance() < faults.zeros:
            self.counts["zeros"] += 1
            written = self._part(len(data))
            yield delay, data[:written] + bytes(len(data) - written)
            delay += self._random.random()
        yield delay, data
        if chance() < faults.duplicate:
            self.counts["duplicated"] += 1
            yield delay + self._delay() + self._random.expovariate(1 / 30), data

    def passage(self, way: Hashable, length: int) -> tuple[float, int] | None:
        """
        For models without bytes: a file of C{length} is given to the carrier.

        @param way: from whom to whom.
        @return: after how many seconds it arrives, and how many of its bytes; None: it does not.
        """
        self.counts["files"] += 1
        self.counts["bytes"] += length
        turn = self._turn(way, length)
        if self._random.random() < self.faults.lose:
            self.counts["lost"] += 1
            return None
        delay = turn + self._delay()
        kept = self._kept(length)
        self.counts["cut"] += kept < length
        self.counts["bytes_kept"] += kept
        return delay, kept

    def _turn(self, way: Hashable, length: int) -> float:
        """In how many seconds the carrier has dealt with the file."""
        faults = self.faults
        cost = faults.per_file + (length / faults.bandwidth if faults.bandwidth else 0.0)
        if not cost and not faults.every:
            return 0.0
        now = self._clock()
        seen = -(-now // faults.every) * faults.every if faults.every else now
        done = self._free[way] = max(seen, self._free.get(way, 0.0)) + cost
        return done - now

    def _kept(self, length: int) -> int:
        """How much of a file passes."""
        faults = self.faults
        kept = length
        if self._random.random() < faults.truncate:
            kept = self._part(length)
        if faults.hazard:
            kept = min(kept, int(self._random.expovariate(1 / faults.hazard)))
        return min(kept, faults.ceiling) if faults.ceiling else kept

    def _part(self, length: int) -> int:
        """Some length below this, where there is one."""
        return self._random.randrange(length) if length else 0

    def _delay(self) -> float:
        return self.faults.delay * self._random.lognormvariate(0.0, self.faults.spread)
