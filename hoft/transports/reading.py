"""
One look at one file of the inbox, and what is remembered of it between looks.

A file is opened anew for every piece: a handle that is held keeps showing old
content on SMB, sshfs and 9p, and keeps a folder from being unmounted.
"""

from __future__ import annotations

import os
from enum import Enum

from attrs import define, frozen

from hoft.errors import CarrierError
from hoft.interfaces import MAX_PIECE, PREFIX
from hoft.transports import armour
from hoft.transports.directories import Root, close, open_regular, subfolder
from hoft.transports.scanning import Condemned, Entry
from hoft.transports.settling import ZERO_TAIL, Settling, without_zero_tail

SHORT = 1 << 17
"""A file of no more bytes need not wait for longer ones."""

BEYOND = 1 << 15
"""Bytes that are asked for beyond what a file is said to have."""

MAX_FILE = 500_000_000 + (1 << 20)
"""The largest file that is read: the largest packet, and slack for what pads it."""


class TooLarge(CarrierError):
    """
    A file larger than any packet can be.

    @ivar size: in bytes.
    @ivar modified: when it was changed, as the file system says.
    """

    def __init__(self, name: str, size: int, modified: int) -> None:
        self.size = size
        self.modified = modified
        super().__init__(f"{name}: {size} bytes")


class State(Enum):
    """Where a file of the inbox stands."""

    READY = "ready"
    """It waits for its turn."""
    ACTIVE = "active"
    """It is being read, or its receiver is thinking."""
    IDLE = "idle"
    """It is looked at again when it is due."""
    DELETING = "deleting"
    GONE = "gone"


@define(eq=False)
class InboundFile:
    """
    What is known of a file; everything here belongs to the reactor thread.

    @ivar offset: up to where it was handed over.
    @ivar text: if it is armoured: up to where, in the file, it was handed over.
    @ivar prefix: its first bytes as far as they were handed over.
    @ivar size: when last looked at; -1 before.
    @ivar modified: as the file system says, a hint.
    @ivar changed: when it was last seen to change, on the carrier's clock.
    @ivar closing: its writer was seen to close or rename it since the last look.
    @ivar closed: and it did not change since.
    @ivar caught_up: all that had arrived when last looked at was handed over.
    @ivar whole: it settled with a tail of zeros; their beginning is handed over too.
    @ivar settled: the receiver was told that no more will come.
    @ivar told: the receiver has seen pieces of it and keeps state for it.
    @ivar finished: nothing is wanted of it any more but that it goes away.
    @ivar later: the receiver wants it again from 0.
    @ivar poked: something happened to it while it was active.
    @ivar delay: how long it was left alone the last time.
    @ivar ticket: the appointment for the next look; older ones are void.
    """

    entry: Entry
    state: State = State.READY
    offset: int = 0
    text: int = 0
    prefix: bytes = b""
    size: int = -1
    modified: int = -1
    changed: float = 0.0
    closing: bool = False
    closed: bool = False
    caught_up: bool = False
    whole: bool = False
    settled: bool = False
    told: bool = False
    finished: bool = False
    later: bool = False
    poked: bool = False
    delay: float = 0.0
    ticket: int = 0

    @property
    def name(self) -> str:
        """The base name."""
        return self.entry.text

    def restart(self) -> None:
        """Hand it over again from 0."""
        self.offset = self.text = 0
        self.prefix = b""
        self.caught_up = self.whole = self.settled = False

    def condemned(self) -> Condemned:
        """What to delete, as it was when last looked at."""
        return Condemned(self.entry, self.size, self.modified)


@frozen
class Look:
    """
    What one look at a file found.

    @ivar offset: where C{data} belongs: where it stopped before, or 0 if this
        is not the file it was.
    @ivar text: if it is armoured, where C{data} ends in the file.
    @ivar prefix: the file's first bytes, as far as they were handed over
        including C{data}.
    @ivar held: there are zeros or part of a line at the end, which were left out.
    @ivar at_end: C{data} ends where what has arrived ends.
    """

    size: int
    modified: int
    offset: int
    data: bytes
    prefix: bytes
    held: bool
    at_end: bool
    text: int = 0


class Inbox:
    """
    Where files are read; its methods block.

    @param own: our subfolder.
    """

    def __init__(self, root: Root, own: str) -> None:
        self._root = root
        self._own = own

    def look(self, entry: Entry, offset: int, prefix: bytes, whole: bool, text: int = 0) -> Look:
        """
        Read what comes next, at most L{MAX_PIECE} bytes.

        @param offset: where the last look stopped.
        @param prefix: what the file began with then.
        @param whole: it has settled: of zeros at the end, the first L{ZERO_TAIL}
            count as arrived.  They may belong to what comes before them; the
            others are no data, and a hole in a file costs nobody anything.
        @param text: see L{Look.text}, of the last look.
        @raise FileNotFoundError: it is gone.
        @raise NotAFile: something else has taken its place.
        @raise TooLarge: no packet is so large.
        @raise CarrierDown: there is no inbox.
        @raise OSError: not now.
        """
        with self._root.opened() as root:
            if entry.flat:
                file = open_regular(root, entry.text)
            else:
                with subfolder(root, self._own) as own:
                    file = open_regular(own, entry.text)
        try:
            return _look(file, entry.text, offset, prefix, whole, text)
        finally:
            close(file)

    def is_short(self, entry: Entry) -> bool:
        """
        Whether there is no more of a file than L{SHORT}, as the file system says.

        @raise CarrierDown: there is no inbox.
        @raise OSError: not now, or it is gone.
        """
        with self._root.opened() as root:
            if entry.flat:
                status = os.stat(entry.text, dir_fd=root, follow_symlinks=False)
            else:
                with subfolder(root, self._own) as own:
                    status = os.stat(entry.text, dir_fd=own, follow_symlinks=False)
        return status.st_size <= SHORT


def _look(file: int, name: str, offset: int, prefix: bytes, whole: bool, text: int) -> Look:
    status = os.fstat(file)
    size = status.st_size
    if size > MAX_FILE:
        raise TooLarge(name, size, status.st_mtime_ns)
    at = text or offset
    if at:
        seen = prefix[:at]
        if size < at or os.pread(file, len(seen), 0) != seen:
            at, offset, text, prefix, whole = 0, 0, 0, b"", False
    # The size is only a hint, but room for a whole piece costs more than a short file does.
    data = os.pread(file, min(MAX_PIECE, max(0, size - at) + BEYOND), at)
    at_end = not data or at + len(data) >= size
    held = False
    if data.endswith(bytes(ZERO_TAIL)):
        if at_end or _ends_in_zeros(file, size):
            arrived = without_zero_tail(data)
            held = not whole
            data, at_end = data[: len(arrived) + ZERO_TAIL] if whole else arrived, True
        else:
            # They may have been a gap that was filled before the end of the file was.
            data = os.pread(file, len(data), at)
    armoured = True if text else armour.begins(data) if not offset else False
    if armoured is None:
        held = not whole
        data = data if whole else b""
    # C{prefix} may hold what was read and not handed over.
    if not armoured:
        prefix = (prefix[:at] + data)[:PREFIX] if at < PREFIX else prefix
        return Look(size, status.st_mtime_ns, offset, data, prefix, held, at_end)
    some = armour.portion(data, MAX_PIECE)
    if len(some) < len(data):
        data, at_end, held = some, False, False
    decoded, used = armour.take_off(data, first=not text, last=at_end and whole, more=not at_end)
    if not decoded and not at_end:
        decoded = b"\0"  # so much text without a line in it: let the receiver say what that is worth
    prefix = (prefix[:at] + data[:used])[:PREFIX] if at < PREFIX else prefix
    held |= at_end and used < len(data)
    return Look(size, status.st_mtime_ns, offset, decoded, prefix, held, at_end, at + used)


def _ends_in_zeros(file: int, size: int) -> bool:
    """
    Whether the file's last bytes are zeros.  What lies between is not looked
    at: data beyond a gap waits for the gap to fill, or for the file to settle.
    """
    return os.pread(file, ZERO_TAIL, size - ZERO_TAIL) == bytes(ZERO_TAIL)


class Step(Enum):
    """What to do after a look."""

    HAND_OVER = "hand over"
    HAND_OVER_SETTLED = "hand over, settled"
    LOOK_AGAIN = "look again"
    WAIT = "wait"


def judge(file: InboundFile, look: Look, settling: Settling, now: float) -> Step:
    """Take what a look found into C{file}, and say what follows from it."""
    first = file.size < 0
    restarted = look.offset < file.offset
    moved = (look.size, look.modified) != (file.size, file.modified)
    grew = moved or restarted or (file.caught_up and bool(look.data))
    file.size, file.modified = look.size, look.modified
    closing, file.closing = file.closing, False
    if grew:
        if not first:
            settling.grew(now - file.changed)
        file.changed = now
        file.closed = closing
        file.settled = False
        file.delay = 0.0
        if file.whole and not first:
            file.restart()  # the zeros that were handed over may be data now
            return Step.LOOK_AGAIN
    elif closing:
        file.closed = True
    if restarted:
        file.restart()
    file.prefix = look.prefix
    file.caught_up = look.at_end
    if look.at_end and not file.settled and now - file.changed >= settling.wait(file.closed):
        if look.held:
            file.whole, file.caught_up = True, False
            return Step.LOOK_AGAIN
        file.settled = True
        return Step.HAND_OVER_SETTLED
    return Step.HAND_OVER if look.data else Step.WAIT
