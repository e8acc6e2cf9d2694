"""
Which of the records that wait go into the next packet, and in what order; pure.

The head of a file survives best.  So what goes first is a little of what is
urgent, then what has to go again, then the rest by urgency (RFC 9218), where equals
take turns: deficit round robin (Shreedhar and Varghese, 1995) between the I{flows}
that the layer above tells apart, so that a large body holds up no small one.
Flows with little to send go before those with much (RFC 8290 section 3.1), and where there is
much, every other packet is theirs alone: a short file is written, read and taken in sooner.
However much is urgent, each lower urgency gets a sixteenth of every packet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final

from attrs import define, field

from hoft.protocols.layout import DEFAULT_STRIDE, RECORD_HEAD, capacity
from hoft.protocols.sealing import FRAME_OVERHEAD

URGENCIES: Final = 8
URGENT: Final = 2
"""This urgency and what is below it goes to the head of a file."""

HEAD_BYTES: Final = 16 << 10
"""So much of what is urgent goes before what has to go again."""

QUANTUM: Final = 64 << 10
"""What a flow may send in its turn, bytes."""

SPARSE: Final = 32 << 10
"""Bytes, less than one record of a body: a flow of which no more waits goes before those with more."""

APART: Final = 256 << 10
"""Where more than this waits, bytes, the sparse flows get packets of their own."""

SHORT: Final = 64 << 10
"""Of about so many bytes."""

SHARE: Final = 16
"""Each urgency below the first gets one part of so many of each packet."""

HEAD_ROOM: Final = 2304
"""Bytes kept free for header, sealed key and control frame: most controls are shorter by far."""


@define(eq=False)
class OutgoingRecord:
    """A record of ours that the peer has not acknowledged."""

    id: int
    number: int
    size: int
    urgency: int
    flow: int = 0
    """Records of equal urgency take turns by this."""
    queued: bool = False
    settled: bool = False
    repeated: bool = False
    """It is in several packets of which each may still arrive: L{hoft.protocols.repeating}."""
    earlier: bool = False
    """An earlier process of ours may have sent it: in which file it arrived nobody knows."""
    packets: list[int] = field(factory=list)
    """In which it was sent, the latest last."""


class Frames:
    """
    The record frames of one packet as it is filled.

    @ivar frames: so far, each with at least one record.
    @ivar size: bytes of payload in them.
    """

    def __init__(self, most: int, stride: int = DEFAULT_STRIDE) -> None:
        """@param most: about how long the file may get, bytes; one record always fits."""
        self.frames: list[list[OutgoingRecord]] = []
        self.size = 0
        self._capacity = capacity(stride)
        self._left = most - HEAD_ROOM - FRAME_OVERHEAD
        self._free = 0

    def add(self, record: OutgoingRecord) -> bool:
        """Put it in, unless the packet is full."""
        size = record.size + RECORD_HEAD
        if size <= self._free:
            if size > self._left:
                return False
            self.frames[-1].append(record)
            self._free -= size
        else:
            # The last frame is no longer the last: it takes its whole stride.
            size += FRAME_OVERHEAD
            if self.frames:
                if self._free + size > self._left:
                    return False
                self._left -= self._free
            self.frames.append([record])
            self._free = self._capacity - size + FRAME_OVERHEAD
        self._left -= size
        self.size += record.size
        return True


class _Flow:
    __slots__ = ("key", "may", "records", "sparse", "waiting")

    def __init__(self, key: int) -> None:
        self.key = key
        self.records: deque[OutgoingRecord] = deque()
        self.may = 0
        """Bytes that it may send before it is the next one's turn."""
        self.waiting = 0
        """Bytes, as long as it is sparse."""
        self.sparse = True


class _Level:
    """All that waits of one urgency, for the first time."""

    __slots__ = ("_flows", "_sparse", "owed", "turns")

    def __init__(self) -> None:
        self.turns: deque[_Flow] = deque()
        """The flows with much to send."""
        self.owed = 0
        """Bytes it may send though more urgent records wait."""
        self._flows: dict[int, _Flow] = {}
        self._sparse: deque[_Flow] = deque()

    def __bool__(self) -> bool:
        return bool(self._flows)

    def add(self, record: OutgoingRecord) -> None:
        flow = self._flows.get(record.flow)
        if flow is None:
            flow = self._flows[record.flow] = _Flow(record.flow)
            self._sparse.append(flow)
        flow.records.append(record)
        if flow.sparse:
            flow.waiting += record.size
            if flow.waiting > SPARSE:
                flow.sparse = False  # until nothing of it waits
                self.turns.append(flow)

    def next_sparse(self) -> OutgoingRecord | None:
        """Whose turn it is of those with little to send."""
        sparse = self._sparse
        while sparse:
            flow = sparse[0]
            records = flow.records
            if flow.sparse:
                while records and not records[0].queued:
                    flow.waiting -= records.popleft().size  # settled meanwhile
                if records:
                    return records[0]
                del self._flows[flow.key]
            sparse.popleft()
        return None

    def next(self) -> OutgoingRecord | None:
        """Whose turn it is."""
        record = self.next_sparse()
        if record is not None:
            return record
        turns = self.turns
        while turns:
            flow = turns[0]
            records = flow.records
            while records and not records[0].queued:
                records.popleft()  # settled meanwhile
            if not records:
                del self._flows[flow.key]
                turns.popleft()
                continue
            record = records[0]
            if flow.may < record.size and len(turns) > 1:
                flow.may += QUANTUM  # and no record is longer
            return record
        return None

    def taken(self) -> None:
        """What L{next} or L{next_sparse} named is in a packet."""
        if self._sparse:
            flow = self._sparse[0]
            record = flow.records.popleft()
            record.queued = False
            flow.waiting -= record.size
            if not flow.records:
                del self._flows[flow.key]
                self._sparse.popleft()
            return
        flow = self.turns[0]
        record = flow.records.popleft()
        record.queued = False
        if not flow.records:
            del self._flows[flow.key]
            self.turns.popleft()
        elif len(self.turns) > 1:
            flow.may -= record.size
            if flow.may < flow.records[0].size:
                self.turns.rotate(-1)


class SendQueue:
    """
    Records that wait to be sent: those that are C{queued}.

    @ivar bytes: of their payload.
    """

    def __init__(self) -> None:
        self._levels = [_Level() for _ in range(URGENCIES)]
        self._again: list[tuple[int, int, OutgoingRecord]] = []
        self._count = 0
        self.bytes = 0
        self._was_short = False

    def __len__(self) -> int:
        return self._count

    def add(self, record: OutgoingRecord) -> None:
        """One that was never sent."""
        if not record.queued:
            record.queued = True
            self._count += 1
            self.bytes += record.size
            self._levels[record.urgency].add(record)

    def add_again(self, record: OutgoingRecord) -> bool:
        """One that has to go once more; whether it did not wait already."""
        if record.queued:
            return False
        record.queued = True
        self._count += 1
        self.bytes += record.size
        heappush(self._again, (record.urgency, record.number, record))
        return True

    def discard(self, record: OutgoingRecord) -> None:
        """Take it out, where it is in."""
        if record.queued:
            record.queued = False
            self._count -= 1
            self.bytes -= record.size

    def resize(self, record: OutgoingRecord, size: int) -> None:
        """It has become so long; what waits for the first time goes behind all that does."""
        if record.queued:
            self.bytes += size - record.size
        record.size = size

    def _next_again(self) -> OutgoingRecord | None:
        again = self._again
        while again:
            record = again[0][2]
            if record.queued:
                return record
            heappop(again)
        return None

    @property
    def overtaking(self) -> bool:
        """Something waits that is to go before the much that does."""
        if self.bytes <= APART or not any(level.turns for level in self._levels):
            return False
        return any(level.next_sparse() is not None for level in self._levels)

    def fill(self, frames: Frames, most: int, short: bool = False) -> bool:
        """
        Take what goes into the next packet.

        @param most: the packet's size, which shares are of.
        @param short: a packet for what is sparse alone costs little, so that every other one may be.
        @return: whether it is one of those.
        """
        if short and not self._was_short and self.overtaking:
            self.fill_short(frames)
            return True
        self._was_short = False
        self._fill(frames, most)
        self._taken(frames)
        return False

    def fill_short(self, frames: Frames) -> None:
        """Take what is L{overtaking}."""
        self._was_short = True
        for level in self._levels:
            while frames.size < SHORT and (record := level.next_sparse()) is not None and frames.add(record):
                level.taken()
        self._taken(frames)

    def _taken(self, frames: Frames) -> None:
        self._count -= sum(map(len, frames.frames))
        self.bytes -= frames.size

    def _fill(self, frames: Frames, most: int) -> None:
        waiting = [level for level in self._levels if level]
        if waiting:
            self._take_urgent(frames)
        while (record := self._next_again()) is not None and frames.add(record):
            heappop(self._again)
            record.queued = False
        if len(waiting) > 1:
            self._take_owed(frames, waiting[1:], most // SHARE)
        for level in waiting:
            while (record := level.next()) is not None:
                if not frames.add(record):
                    return
                level.taken()

    def _take_urgent(self, frames: Frames) -> None:
        left = HEAD_BYTES
        for level in self._levels[: URGENT + 1]:
            while (record := level.next()) is not None and record.size <= left and frames.add(record):
                level.taken()
                left -= record.size

    def _take_owed(self, frames: Frames, lower: Sequence[_Level], share: int) -> None:
        for level in lower:
            level.owed = min(level.owed + share, 2 * max(QUANTUM, share))
            while (record := level.next()) is not None and record.size <= level.owed and frames.add(record):
                level.taken()
                level.owed -= record.size
