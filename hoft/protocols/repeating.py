"""
What is small, once more in later files, before anybody knows whether it arrived; pure.

Where files are lost or cut, what was in one waits for a timeout, or until the file has settled, and
then for another file.  A body of many records hardly notices; a call of one or two waits for that
alone.  So small records go again in the next files that are written anyway: behind all else in
them, where a frame has room that full records leave.  C{docs/decisions.rst} has what that brings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from hoft.protocols.queueing import Frames, OutgoingRecord

SMALL: Final = 16 << 10
"""Bytes of the longest record that is repeated."""

TIMES: Final = 2
"""How often a record is, at most."""

PART: Final = 0.02
"""Of the bytes that are written so many may be repetitions."""

LOSSY: Final = 0.02
"""Nothing is repeated where a smaller part of the files is lost or cut."""

MEMORY: Final = 64
"""About so many of the last files tell how many are."""

REMEMBERED: Final = 256
"""Records that are to be repeated, the latest."""


class Repetition:
    """
    Of one link.

    @ivar lossy: so many files are lost or cut that it pays; where not, only L{judged} is to be called.
    """

    def __init__(self) -> None:
        self.lossy = False
        self._lost = 0.0
        self._allowed = 0.0
        self._waiting: deque[tuple[OutgoingRecord, int]] = deque(maxlen=REMEMBERED)

    def judged(self, whole: bool) -> None:
        """A file has arrived whole, or not."""
        self._lost += ((not whole) - self._lost) / MEMORY
        self.lossy = self._lost >= LOSSY

    def sent(self, frames: Sequence[Sequence[OutgoingRecord]], size: int) -> None:
        """A file of C{size} bytes with these records is about to be written."""
        self._allowed = min(self._allowed + PART * size, TIMES * SMALL)
        for frame in frames:
            for record in frame:
                if record.size <= SMALL and len(record.packets) == 1 and not record.settled:
                    self._waiting.append((record, TIMES))

    def add_to(self, frames: Frames) -> int:
        """
        Put what is to be repeated into the file that is made now, as far as there is room.

        @return: how many records.
        """
        added = 0
        for _ in range(len(self._waiting)):
            record, times = self._waiting[0]
            known = record.settled or record.queued
            if not known and (record.size > self._allowed or not frames.add(record)):
                break
            self._waiting.popleft()
            if not known:
                added += 1
                record.repeated = True
                self._allowed -= record.size
                if times > 1:
                    self._waiting.append((record, times - 1))
        return added
