"""
Puts the numbered parts of one message back into order, whatever order records come in.

What is in memory is bounded: the bodies of at most so many bytes of parts are held,
of all others only the ids of their records, about 10 bytes each once no earlier one
is missing.  Pure.
"""

from __future__ import annotations

from array import array

from attrs import frozen

from hoft.errors import RecordError
from hoft.web.crossing.exchange import (
    MAX_EARLY,
    NUMBERED,
    End,
    Kind,
    Part,
    Side,
    data_cost,
    decode_end,
    decode_message,
)
from hoft.web.http.heads import MAX_HEAD


@frozen
class Taken:
    """
    The next part in order.

    @ivar record: id of the record that brought it, for C{consume}.
    @ivar number: of the part.
    @ivar part: the part, or C{None} where it is to be fetched with
        L{hoft.interfaces.ILink.read} and given to L{hoft.web.crossing.exchange.decode_part}.
    """

    record: int
    number: int
    part: Part | None


class Reassembler:
    """
    One message (request or response) of one exchange, on the side that receives it.

    @ivar accepted: the L{data_cost} of all DATA up to the first missing part.  A receiver
        that keeps bodies in its journal grants this plus the window, and holds this
        against its quota.
    @ivar received: body bytes up to the first missing part.
    @ivar head_complete: every piece of the head has come.
    @ivar complete: so has END, and everything before it.
    @ivar whole: it came as a MESSAGE.
    @ivar hold: bytes of part bodies to keep in memory; the part that L{take} would give
        next is kept in any case.
    """

    def __init__(self, side: Side, hold: int = 1 << 20) -> None:
        """
        @param side: who sends this message.
        @param hold: sets C{hold}.
        """
        self.side = side
        self.accepted = 0
        self.received = 0
        self.head_complete = False
        self.complete = False
        self.whole = False
        self.hold = hold
        self._held = 0
        self._parts: dict[int, Part] = {}
        self._early: dict[int, _Early] = {}
        self._ids = array("q")
        self._sizes = array("H")
        self._base = 0
        """Number of the part that C{_ids[0]} is for."""
        self._taken = 0
        self._next = 0
        self._end: int | None = None
        """Number of the END."""
        self._said: End | None = None
        self._head = 0
        self._last = Kind.HEAD

    @property
    def waiting(self) -> int:
        """How many parts L{take} could give now."""
        return self._next - self._taken

    @property
    def in_order(self) -> array[int]:
        """The records of all parts up to the first missing one, and more as they come, until one is taken."""
        return self._ids

    @property
    def held(self) -> int:
        """Bytes of bodies in memory."""
        return self._held

    def add(self, record: int, part: Part) -> bool:
        """
        A part has come.

        @param record: id of its record.
        @return: C{False} if that part was here already (a restored peer sends its
            requests again): nothing changes, its record may be consumed.
        @raise RecordError: it contradicts the others; give the exchange up.
        """
        number = part.number
        if part.kind not in NUMBERED or part.side is not self.side:
            raise RecordError(f"{part.kind.name} from {part.side.name} in a message from {self.side.name}")
        if part.kind is Kind.MESSAGE:
            return self._add_whole(record, part)
        if self.whole:
            raise RecordError(f"{part.kind.name} as part {number} beside a MESSAGE")
        if self._end is not None and (number > self._end or (part.kind is Kind.END) != (number == self._end)):
            raise RecordError(f"{part.kind.name} as part {number} where the end is {self._end}")
        if number < self._next or number in self._early:
            if part.kind is Kind.END and self._said != decode_end(part):
                raise RecordError("two ends that differ")
            return False
        if part.kind is Kind.END and self._early and max(self._early) > number:
            raise RecordError(f"the end as part {number} before others")
        if number - self._next > MAX_EARLY:
            raise RecordError(f"part {number} while {self._next} is missing")
        if part.kind is Kind.END:
            self._end = number
            self._said = decode_end(part)
        self._early[number] = (record, part.kind, part.more, len(part.body))
        if number == self._taken or self._held + len(part.body) <= self.hold:
            self._parts[number] = part
            self._held += len(part.body)
        while (early := self._early.pop(self._next, None)) is not None:
            self._advance(early)
        return True

    def _add_whole(self, record: int, part: Part) -> bool:
        if self.whole:
            return False
        if self._next or self._early:
            raise RecordError("a MESSAGE beside parts of one")
        self.whole = self.head_complete = self.complete = True
        self.received = len(decode_message(part)[1])
        self.accepted = data_cost(self.received)
        self._parts[0] = part
        self._held = len(part.body)
        self._ids.append(record)
        self._sizes.append(self._held)
        self._next = 1
        return True

    def take(self, most: int = 1 << 20) -> list[Taken]:
        """
        The next parts in order, each once.

        @param most: bytes of bodies, of those in memory and those to be fetched: one
            part is given if there is one, more only while they stay below this.
        """
        taken: list[Taken] = []
        while self._taken < self._next:
            at = self._taken - self._base
            most -= self._sizes[at]
            if taken and most < 0:
                break
            part = self._parts.pop(self._taken, None)
            if part is not None:
                self._held -= len(part.body)
            taken.append(Taken(self._ids[at], self._taken, part))
            self._taken += 1
        self._trim()
        return taken

    def drain(self) -> list[int]:
        """
        Give the message up: the records of all parts that were not taken, to be
        consumed.  Nothing may be added afterwards.
        """
        ids = list(self._ids[self._taken - self._base :]) + [early[0] for early in self._early.values()]
        self._early.clear()
        self._parts.clear()
        self._held = 0
        self._taken = self._next
        self._trim()
        return ids

    def _advance(self, early: _Early) -> None:
        """The next part in order is here: check that it may follow the last one."""
        record, kind, more, size = early
        number, last = self._next, self._last
        if kind is not Kind.HEAD and not self.head_complete:
            raise RecordError(f"{kind.name} as part {number} before the head is complete")
        if kind not in _AFTER[last] or (kind is Kind.HEAD and self.head_complete):
            raise RecordError(f"{kind.name} as part {number} after {last.name}")
        if kind is Kind.HEAD:
            self._head += size
            if self._head > MAX_HEAD:
                raise RecordError(f"a head of {self._head} bytes and more")
            self.head_complete = not more
        elif kind is Kind.DATA:
            self.received += size
            self.accepted += data_cost(size)
        elif kind is Kind.END:
            if self._said is None or self.received != self._said.total:
                raise RecordError(f"{self.received} bytes came, but the end says {self._said}")
            self.complete = True
        self._last = kind
        self._ids.append(record)
        self._sizes.append(size)
        self._next += 1

    def _trim(self) -> None:
        """Let go of the ids of what was taken, but not so often that it costs."""
        gone = self._taken - self._base
        if gone > 1024 or self._taken == self._next:
            del self._ids[:gone]
            del self._sizes[:gone]
            self._base = self._taken


_Early = tuple[int, Kind, bool, int]
"""Record id, kind, more, size of a part that came before an earlier one."""

_AFTER = {
    Kind.HEAD: frozenset((Kind.HEAD, Kind.DATA, Kind.TRAILERS, Kind.END)),
    Kind.DATA: frozenset((Kind.DATA, Kind.TRAILERS, Kind.END)),
    Kind.TRAILERS: frozenset((Kind.END,)),
    Kind.END: frozenset[Kind](),
}
