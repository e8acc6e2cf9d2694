"""
The two directions of one end of a stream: what is sent, and what is received; pure.

DATA is placed by its offset, so its records may come in any order.  What is in memory
is bounded: of what cannot be handed on yet, the bytes are kept only as far as a
L{Hold} has room, and of all else only the ids of the records, out of which the bytes
are read again when it is their turn.

B{Credit.}  Neither side sends DATA beyond what the other has granted, in terms of
L{cost}: L{INITIAL} at first, then what the highest CREDIT says.  The receiver grants what
it has handed on and a I{window}, which doubles with what was handed on: a stream
that nobody reads holds little, one that is read fast enough fills a slow carrier.
"""

from __future__ import annotations

from attrs import define, frozen

from hoft.errors import RecordError
from hoft.streams.parts import INITIAL, MAX_DATA, MIN_COST, cost

MAX_WINDOW = 64 << 20
"""The most that a window becomes."""


@define
class Hold:
    """
    Room that several share.

    @ivar limit: how much there is.
    @ivar used: how much of it is taken.
    """

    limit: int
    used: int = 0

    def take(self, size: int) -> bool:
        """Take so much, if it is there."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Give so much back."""
        self.used -= size


class Sending:
    """
    What goes to the peer.

    @ivar total: bytes cut so far.
    @ivar ending: no more will be written.
    @ivar over: nothing more goes out: the end was given out, or nobody wants it.
    """

    def __init__(self) -> None:
        self.total = 0
        self.ending = False
        self.over = False
        self._held = bytearray()
        self._spent = 0
        self._allowed = INITIAL

    @property
    def held(self) -> int:
        """Bytes that were written and not cut yet."""
        return len(self._held)

    @property
    def ready(self) -> bool:
        """L{cut} or L{end} would give something."""
        if self.over:
            return False
        if self._held:
            return self._allowed - self._spent >= MIN_COST
        return self.ending

    def write(self, data: bytes) -> None:
        """Take bytes to be sent."""
        if not self.ending and not self.over:
            self._held += data

    def cut(self, most: int) -> list[tuple[int, bytes]]:
        """
        As much as may go now, for DATA.

        @param most: bytes; the last piece may go beyond.
        @return: offsets and bytes.
        """
        pieces = []
        start = 0
        while most > 0 and start < len(self._held) and not self.over:
            size = min(len(self._held) - start, MAX_DATA, self._allowed - self._spent)
            if self._allowed - self._spent < MIN_COST:
                break
            pieces.append((self.total, bytes(self._held[start : start + size])))
            self._spent += cost(size)
            self.total += size
            start += size
            most -= size
        del self._held[:start]
        return pieces

    def end(self) -> bool:
        """Whether it is now that END must go out; once."""
        if self.over or not self.ending or self._held:
            return False
        self.over = True
        return True

    def credit(self, total: int) -> None:
        """The peer takes so much in all."""
        # Whatever it says, the window that a process here counts on has its bound.
        self._allowed = max(self._allowed, min(total, self._spent + MAX_WINDOW))

    def stop(self) -> None:
        """The peer takes nothing more."""
        self.over = True
        self._held.clear()


@frozen
class Taken:
    """
    The next DATA in order.

    @ivar body: C{None} where it is to be read out of its record.
    """

    record: int
    size: int
    body: bytes | None


class Receiving:
    """
    What comes from the peer.

    @ivar taken: bytes that L{take} gave out.
    @ivar unwanted: what comes is let go of.
    """

    def __init__(self, hold: Hold, windows: Hold) -> None:
        """
        @param hold: for bytes that cannot be handed on yet.
        @param windows: for what the window is beyond L{INITIAL}.
        """
        self.taken = 0
        self.unwanted = False
        self._hold = hold
        self._windows = windows
        self._parked: dict[int, Taken] = {}
        """By offset."""
        self._end: int | None = None
        self._highest = 0
        self._bytes = 0
        """Of all DATA that came."""
        self._came = 0
        """L{cost} of all DATA that came."""
        self._handed = 0
        """L{cost} of what was given out."""
        self._window = INITIAL
        self._granted = INITIAL

    @property
    def over(self) -> bool:
        """Nothing more will be given out."""
        return self.unwanted or self.taken == self._end

    def add(self, record: int, offset: int, body: bytes) -> bool:
        """
        DATA has come.

        @return: C{False} if nobody wants it: let go of the record.
        @raise RecordError: it contradicts what came before, or was not granted.
        """
        end = offset + len(body)
        self._came += cost(len(body))
        if self._came > self._granted:
            raise RecordError("more than was granted")
        if offset < self.taken or offset in self._parked:
            raise RecordError(f"DATA at {offset} came twice")
        self._highest = max(self._highest, end)
        self._bytes += len(body)
        if self._bytes > self._highest:  # shows once there is no gap left that hides it
            raise RecordError(f"DATA at {offset} overlaps others")
        if self._end is not None and self._highest > self._end:
            raise RecordError(f"DATA up to {end} where the end is {self._end}")
        if self.unwanted:
            return False
        kept = self._hold.take(len(body))
        self._parked[offset] = Taken(record, len(body), body if kept else None)
        return True

    def end(self, total: int) -> None:
        """
        The peer sends so many bytes in all.

        @raise RecordError: it has said something else, or sent more.
        """
        if total < self._highest or self._end not in (None, total):
            raise RecordError(f"the end is {total} where it was {self._end}, or {self._highest} bytes came")
        self._end = total

    def take(self, most: int) -> list[Taken]:
        """
        The next in order.

        @param most: bytes; the last may go beyond.
        """
        found = []
        while most > 0 and (next := self._parked.pop(self.taken, None)) is not None:
            if next.body is not None:
                self._hold.give(next.size)
            self.taken += next.size
            self._handed += cost(next.size)
            most -= next.size
            found.append(next)
        return found

    def grant(self) -> int | None:
        """What CREDIT must say now, if there is a need for one."""
        if self._end is not None or self.unwanted:
            return None
        wider = min(MAX_WINDOW, self._handed)
        if wider > self._window and self._windows.take(wider - self._window):
            self._window = wider
        if self._handed + self._window - self._granted < self._window // 4:
            return None
        self._granted = self._handed + self._window
        return self._granted

    def stop(self) -> list[int]:
        """
        Nothing more is wanted.

        @return: records of what was not given out.
        """
        self.unwanted = True
        parked, self._parked = self._parked, {}
        self._hold.give(sum(one.size for one in parked.values() if one.body is not None))
        self._windows.give(self._window - INITIAL)
        self._window = INITIAL
        return [one.record for one in parked.values()]
