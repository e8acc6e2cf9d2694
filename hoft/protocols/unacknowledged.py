"""
The records of ours that the peer has not acknowledged, and which of them may be sent; pure.

The peer says up to which number it takes records (flow control, as in RFC 9000 section 4).
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from hoft.protocols.layout import SPARED
from hoft.protocols.queueing import OutgoingRecord, SendQueue
from hoft.protocols.ranges import RangeSet

INITIAL_LIMIT = 1024
"""The highest record number that may be sent before the peer has stated a limit."""


class Unacknowledged:
    """
    Of one log; those that may be sent, and were not, are in the queue.

    @ivar by_number: all of them; read only.
    """

    def __init__(self, queue: SendQueue) -> None:
        self.by_number: dict[int, OutgoingRecord] = {}
        self._queue = queue
        self._highest = 0
        self._limit = INITIAL_LIMIT
        self._blocked: list[tuple[int, OutgoingRecord]] = []
        self._withheld: set[int] = set()
        self._small: dict[int, OutgoingRecord] = {}
        self._acked = RangeSet()

    def __len__(self) -> int:
        return len(self.by_number)

    @property
    def blocked(self) -> int:
        """How many of these wait until the peer accepts their numbers."""
        return len(self._blocked)

    def add(self, record: OutgoingRecord) -> None:
        """A committed record waits to be sent (also again, after a restart)."""
        number = record.number
        self._withheld.discard(number)
        self.by_number[number] = record
        self._highest = max(self._highest, number)
        if record.size <= SPARED:
            self._small[number] = record
        if number > self._limit:
            heappush(self._blocked, (number, record))
        else:
            self._queue.add(record)

    def known(self, number: int) -> bool:
        """Whether that record was given to L{add}, acknowledged or not."""
        return number in self.by_number or number in self._acked

    def raise_limit(self, limit: int) -> None:
        """The peer accepts record numbers up to C{limit}; the maximum of all statements holds."""
        self._limit = max(self._limit, limit)
        while self._blocked and self._blocked[0][0] <= self._limit:
            number, record = heappop(self._blocked)
            if not record.settled and not record.packets and number not in self._withheld:
                self._queue.add(record)

    def withhold(self, number: int) -> bool:
        """
        Do not send a record until it is given to L{add} again.

        @return: false if it was sent already, or is not known.
        """
        record = self.by_number.get(number)
        if record is None or record.packets or number in self._withheld:
            return False
        self._queue.discard(record)
        self._withheld.add(number)
        return True

    def hollow(self, number: int) -> None:
        """What goes under that number from now on is a record of nothing."""
        record = self.by_number.get(number)
        if record is not None:
            self._queue.resize(record, 0)
            self._small[number] = record

    def small(self) -> Iterable[OutgoingRecord]:
        """Those in the queue for which a full peer has room."""
        return (record for record in self._small.values() if record.queued)

    def acknowledge(self, ack: int, ranges: Iterable[tuple[int, int]]) -> list[OutgoingRecord]:
        """
        The peer has committed every record up to C{ack} and those in C{ranges}.
        What it says of numbers that were never given to L{add} is passed over.

        @return: those of which that is news.
        """
        settled: list[OutgoingRecord] = []
        for start, end in ((1, ack), *ranges):
            end = min(end, self._highest)
            for first, last in self._acked.add(start, end) if start <= end else ():
                for number in self._numbers(first, last):
                    record = self.by_number.pop(number)
                    record.settled = True
                    self._queue.discard(record)
                    if record.size <= SPARED:
                        self._small.pop(number, None)
                    settled.append(record)
        return settled

    def _numbers(self, first: int, last: int) -> list[int]:
        """Which of our records these are, whichever way is shorter."""
        if last - first < len(self.by_number):
            return [number for number in range(first, last + 1) if number in self.by_number]
        return [number for number in self.by_number if first <= number <= last]
