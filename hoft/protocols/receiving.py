"""
The receiving half of a link: what is new, and what the peer is to be told; pure.

A record number passes through four stages: *pending* (given to the journal),
*committed* (handed up; survives a crash of the process), *durable* (survives a
power cut) and with that *acknowledged*.  A number in any of them is a
duplicate when it arrives again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, frozen

from hoft.protocols.control import MAX_RANGES, MAX_RECEIPTS, Ranges, Receipt, select_receipts
from hoft.protocols.ranges import RangeSet
from hoft.protocols.timing import RoundTrips

WINDOW = 32768
"""How many record numbers above the last gapless one are accepted."""
ACK_AT_ONCE_PACKETS = 64
ACK_AT_ONCE_BYTES = 8 << 20
RECEIPT_REPEATS = 3
REMEMBERED_PACKETS = 4 * MAX_RECEIPTS
"""So many of the packets read last may still get a receipt."""


@define
class _PacketRead:
    frames: int
    missing: Sequence[int]
    at: float
    repeats: int = RECEIPT_REPEATS


@frozen
class _Due:
    """When an answer goes out at the latest, and when what it says is made durable."""

    at: float
    sync_at: float


class Receiver:
    """
    The peer's record numbers as far as they are known here.

    @ivar duplicates: records that arrived again.
    @ivar over_limit: records beyond the limit, which were dropped.
    @ivar full: the journal had no room for records when it was last asked; see L{room}.
    """

    def __init__(self, round_trips: RoundTrips, received: RangeSet) -> None:
        """@param received: what the journal held as received at the start."""
        self._round_trips = round_trips
        self._known = received
        self._acknowledged = RangeSet(received)
        self._committed: list[int] = []
        # Of the boot that was read last, by number, the latest read at the end.
        self._read: dict[int, _PacketRead] = {}
        self._boot = 0
        self._due: _Due | None = None
        self._next_due: _Due | None = None
        """Of what is not in the answer that is ready."""
        self._answer_ready = False
        self._packets_owed = 0
        self._bytes_owed = 0
        self.duplicates = 0
        self.over_limit = 0
        self.full = False

    def successor(self) -> Receiver:
        """The receiver of a new log, which goes on counting."""
        new = Receiver(self._round_trips, RangeSet())
        new.duplicates = self.duplicates
        new.over_limit = self.over_limit
        new.full = self.full
        return new

    @property
    def limit(self) -> int:
        """The highest record number we accept."""
        return self._acknowledged.prefix() + WINDOW

    def accept(self, numbers: Iterable[int]) -> set[int]:
        """Which of these are new and within the limit; they are pending from now on."""
        new: set[int] = set()
        limit = self.limit
        for number in numbers:
            if number > limit:
                self.over_limit += 1
            elif number in self._known:
                self.duplicates += 1
            else:
                self._known.add(number)
                new.add(number)
        return new

    def committed(self, numbers: Iterable[int], now: float) -> None:
        """The journal has these: the peer is to hear so once they are durable."""
        self._committed.extend(numbers)
        self.owe(now)

    def refused(self, numbers: Iterable[int]) -> None:
        """The journal could not take these: they are as if they had not arrived."""
        for number in numbers:
            self._known.discard(number)

    def room(self, there_is: bool, now: float) -> None:
        """The journal has taken records, or had no room for them: the peer is to hear of a change."""
        if self.full is there_is:
            self.full = not there_is
            self.owe(now)

    def to_sync(self) -> int:
        """How many committed numbers wait for being durable; pass it to L{durable} after a sync."""
        return len(self._committed)

    def durable(self, count: int, now: float) -> None:
        """The first C{count} of the committed numbers would survive a power cut."""
        self._acknowledged.update(self._committed[:count])
        del self._committed[:count]
        self._answer_ready = True
        if self._committed:
            self.owe(now)

    def read(
        self, boot: int, number: int, frames: int, missing: Sequence[int], size: int, now: float
    ) -> None:
        """
        A packet was read to its end, as far as there is one.  One without record
        frames gets a receipt too, but only on what is sent anyway: there would be no end of it.
        """
        if boot != self._boot:
            self._boot = boot
            self._read.clear()
        self._read.pop(number, None)
        self._read[number] = _PacketRead(frames, missing, now)
        while len(self._read) > REMEMBERED_PACKETS:
            del self._read[next(iter(self._read))]
        if frames:
            self._packets_owed += 1
            self._bytes_owed += size
            self.owe(now)

    def owe(self, now: float) -> None:
        """The peer is to be answered, within the acknowledgement delay."""
        at_once = self._packets_owed >= ACK_AT_ONCE_PACKETS or self._bytes_owed >= ACK_AT_ONCE_BYTES
        delay = 0.0 if at_once else self._round_trips.ack_delay()
        due = _Due(now + delay, now + delay / 2)
        if self._answer_ready and self._next_due is None:
            self._next_due = due
        if self._due is None or due.at < self._due.at:
            self._due = due

    def next_answer(self) -> float | None:
        """When an answer is due (in the past: at once), or is to be made durable; None where none is owed."""
        if self._due is None:
            return None
        return self._due.sync_at if self._committed and not self._answer_ready else self._due.at

    def wants_sync(self, now: float) -> bool:
        """
        Whether L{to_sync} numbers should be made durable.  That is some time before the answer is
        due, so that it may go with what is sent in between: most answers need no file of their own.
        """
        if self._due is None or self._answer_ready:
            return False
        return bool(self._committed) and now >= self._due.sync_at

    def state(self, now: float) -> tuple[int, Ranges, tuple[Receipt, ...]]:
        """
        What the next control frame says: everything up to here, these ranges
        above it, these packets.  Each receipt is given out at most three times.
        """
        ack = self._acknowledged.prefix()
        # The newest first, so that a burst cannot keep fresh ones waiting.
        receipts = select_receipts(
            Receipt.of(self._boot, number, read.frames, read.missing, int((now - read.at) * 1000))
            for number, read in reversed(self._read.items())
        )
        for receipt in receipts:
            read = self._read[receipt.number]
            read.repeats -= 1
            if not read.repeats:
                del self._read[receipt.number]
        return ack, self._acknowledged.above(ack, MAX_RANGES), receipts

    def answered(self) -> None:
        """A packet with this state goes out: nothing is owed but what is not durable yet."""
        if not self._committed:
            self._due = None
        elif self._answer_ready:
            self._due = self._next_due
        self._answer_ready = False
        self._next_due = None
        self._packets_owed = 0
        self._bytes_owed = 0
