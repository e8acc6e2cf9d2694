"""
Payloads in append-only files, beside the journal's database.

SQLite writes every page twice (log, then database) and sums it in between; a
plain append is several times as fast, so payloads from L{INLINE} bytes on go into
C{segments/<number>.segment}, files of about L{SEGMENT_SIZE}, and rows hold only a
L{Location}.  Smaller ones travel inside their Location, in the row itself.

A segment is a sequence of C{size u32 | XXH3 u64 | payload}.  Table C{segment}
says of each how many bytes of it are committed and how many payloads in it are
not discarded yet, and is written in the commit that changes either, so the files
follow from the committed rows alone:

 - data is written before the commit that refers to it; what a crash leaves behind
   the committed length is overwritten;
 - a file is deleted after the commit that discards its last payload is I{on disk}:
   otherwise a power cut could bring the rows back and not the file;
 - committed bytes are never overwritten, not even discarded ones, for the same
   reason;
 - a file without a row is a leftover, and deleted when the journal is opened.

An ordered commit does not wait for the disk, so after a power cut a row may be
there and its payload not: the checksum tells (L{Segments.verify}, and every read).
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from struct import Struct
from struct import error as StructError
from threading import Lock
from typing import Any

from attrs import field, frozen
from xxhash import xxh3_64_intdigest as checksum_of

from hoft.durable import sync_folder
from hoft.errors import JournalError, JournalFull, PayloadDamaged

SEGMENT_SIZE = 16 << 20
"""A segment takes no further payload once it would pass this many bytes."""

INLINE = 2048
"""
Payloads smaller than this stay in SQLite.  Segments are as fast from 1 KB on and
faster from 2 KB on (benchmarks/journal.py), and what is inline is in memory as
long as its Location is.
"""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What an operating system says when there is no room."""

_SEED = 0x686F6674
"""Where checksums start, so that a hole, which reads as zeros, is no sequence of empty payloads."""

_FRAME = Struct(">IQ")
_PLACE = Struct(">BQIIQ")
_IN_ROW = b"\x00"
_IN_SEGMENT = 1
IN_SEGMENT = "substr(location, 1, 1) = x'01'"
"""SQL, where column C{location} holds C{bytes} of L{Location}s: the payload is not in the row itself."""
_OPEN_FILES = 16


@frozen
class Location:
    """Where a payload is.  C{bytes(location)} goes into a row, L{parse} brings it back."""

    size: int
    """Bytes of payload."""
    inline: bytes | None = field(default=None, repr=False)
    """The payload itself, where it is small."""
    segment: int = 0
    offset: int = 0
    checksum: int = 0

    def __bytes__(self) -> bytes:
        if self.inline is not None:
            return _IN_ROW + self.inline
        return _PLACE.pack(_IN_SEGMENT, self.segment, self.offset, self.size, self.checksum)

    @classmethod
    def parse(cls, encoded: bytes) -> Location:
        """
        @raise JournalError: this is no location.
        """
        if encoded[:1] == _IN_ROW:
            return cls(len(encoded) - 1, encoded[1:])
        if len(encoded) != _PLACE.size or encoded[0] != _IN_SEGMENT:
            raise JournalError(f"the journal is damaged: a location of {len(encoded)} bytes makes no sense")
        _, segment, offset, size, checksum = _PLACE.unpack(encoded)
        return cls(size, None, segment, offset, checksum)


class _OpenFile:
    """A descriptor that closes when the last thread has let go of it."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path, flags: int) -> None:
        self.descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class _Segment:
    """What is known of one segment, with what the open transaction changes, and as last committed."""

    __slots__ = ("length", "live", "number", "saved_length", "saved_live")

    def __init__(self, number: int, length: int, live: int) -> None:
        self.number = number
        self.length = self.saved_length = length
        self.live = self.saved_live = live


class Segments:
    """
    All segments of one journal.

    Everything is called on the journal's thread, but for L{read} and L{read_all}
    (any thread) and L{sync} and L{remove} (the thread that syncs).

    @param folder: where they lie; made by L{open}.
    @param size: when to begin the next file, bytes.
    """

    def __init__(self, folder: Path, size: int = SEGMENT_SIZE) -> None:
        self._folder = folder
        self._size = size
        self._segments: dict[int, _Segment] = {}
        self._current: _Segment | None = None
        self._last = 0
        self._changed: set[_Segment] = set()
        self._undo: list[tuple[_Segment, int, int]] = []
        # Shared between threads:
        self._lock = Lock()
        self._files: OrderedDict[int, _OpenFile] = OrderedDict()
        self._dirty: set[int] = set()
        self._created = False

    # --- life ---

    def open(self, rows: Iterable[tuple[int, int, int]]) -> list[int]:
        """
        Bring the files into line with the committed rows of table C{segment}.

        @param rows: number, length, live of each.
        @return: segments to L{remove} once these rows are on disk.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._segments.clear()
        for number, length, live in rows:
            self._segments[number] = segment = _Segment(number, length, live)
            if live == 0:
                self._changed.add(segment)  # the next commit lets go of it, unless it is the current one
        there = [int(path.stem) for path in self._folder.glob("*.segment") if path.stem.isdecimal()]
        # No number is used again before its leftover is gone.
        self._last = max([*there, *self._segments], default=0)
        last = self._segments.get(max(self._segments, default=0))
        if last is not None and last.length < self._size and self._on_disk(last) >= last.length:
            os.truncate(self._path(last.number), last.length)
            self._current = last
        return [number for number in sorted(there) if number not in self._segments]

    def missing(self) -> int:
        """In how many segments committed payloads are not there, as their lengths alone tell."""
        return sum(one.live > 0 and self._on_disk(one) < one.length for one in self._segments.values())

    def accept(self) -> None:
        """In a transaction: what is L{missing} is known, and is not to be told again."""
        for segment in self._segments.values():
            there = self._on_disk(segment)
            if there < segment.length:
                self._undo.append((segment, segment.length, segment.live))
                segment.length = there
                self._changed.add(segment)

    def verify(self) -> int:
        """
        Read all there is: in how many segments committed payloads are missing or damaged.
        """
        bad = 0
        for segment in self._segments.values():
            try:
                with open(self._path(segment.number), "rb") as file:
                    while file.tell() < segment.length:
                        size, checksum = _FRAME.unpack(file.read(_FRAME.size))
                        fits = file.tell() + size <= segment.length
                        if not fits or checksum_of(file.read(size), _SEED) != checksum:
                            raise ValueError("damaged")
            except (OSError, ValueError, StructError):
                bad += 1
        return bad

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._files.clear()

    # --- in a transaction ---

    def append(self, payload: bytes) -> Location:
        """
        Write a payload of any size; it counts once committed.

        @raise JournalFull: no room; the segment is as it was.
        """
        size = len(payload)
        segment = self._current
        if segment is None or (segment.length and segment.length + _FRAME.size + size > self._size):
            segment = self._begin()
        checksum = checksum_of(payload, _SEED)
        start = segment.length
        file = self._file(segment.number)
        try:
            written = os.pwritev(file.descriptor, (_FRAME.pack(size, checksum), payload), start)
        except OSError as error:
            raise _told(error, "write a payload") from error
        if written != _FRAME.size + size:
            raise JournalFull(f"no room left in {self._folder}: {written} of {size} bytes were written")
        self._undo.append((segment, start, segment.live))
        segment.length = start + written
        segment.live += 1
        self._changed.add(segment)
        # After the write: had it come before, a sync in between would take the
        # mark, miss the data, and leave nothing for the next one.
        with self._lock:
            self._dirty.add(segment.number)
        return Location(size, None, segment.number, start + _FRAME.size, checksum)

    def discard(self, location: Location) -> None:
        """
        The payload is not needed any more, once this is committed.  Each
        location is discarded once.
        """
        if location.inline is not None:
            return
        segment = self._segments.get(location.segment)
        if segment is None or segment.live == 0:
            raise JournalError(f"{location} was discarded twice")
        self._undo.append((segment, segment.length, segment.live))
        segment.live -= 1
        self._changed.add(segment)

    def keep(self) -> None:
        """What one operation did stays."""
        self._undo.clear()

    def undo(self) -> None:
        """Take back what was done since L{keep}."""
        while self._undo:
            segment, length, live = self._undo.pop()
            segment.length = length
            segment.live = live

    def save(self, execute: Callable[[str, Sequence[Any]], object]) -> list[int]:
        """
        Before a commit: write what has changed into table C{segment}.

        @return: the segments that nothing refers to after this commit; to be
            given to L{remove} once that is on disk.
        """
        doomed = []
        for segment in self._changed:
            if segment.live == 0 and segment is not self._current:
                execute("DELETE FROM segment WHERE number = ?", (segment.number,))
                doomed.append(segment.number)
            elif (segment.length, segment.live) != (segment.saved_length, segment.saved_live):
                execute(
                    "INSERT INTO segment (number, length, live) VALUES (?1, ?2, ?3)"
                    " ON CONFLICT (number) DO UPDATE SET length = ?2, live = ?3",
                    (segment.number, segment.length, segment.live),
                )
        return doomed

    def committed(self, doomed: Sequence[int]) -> None:
        """What L{save} wrote is committed."""
        for segment in self._changed:
            segment.saved_length = segment.length
            segment.saved_live = segment.live
        self._changed.clear()
        for number in doomed:
            del self._segments[number]

    def rolled_back(self) -> None:
        """The transaction failed as a whole."""
        self._undo.clear()
        for segment in self._changed:
            segment.length = segment.saved_length
            segment.live = segment.saved_live
        # They stay marked as changed: an emptied one may still have to go.

    # --- any thread ---

    def read(self, location: Location) -> bytes:
        """
        Any thread; may block.

        @raise PayloadDamaged: it was discarded, is not what was stored, or on a bad sector.
        @raise JournalError: it cannot be read now.
        """
        if location.inline is not None:
            return location.inline
        try:
            # A name of its own: it must not close before the call is over.
            file = self._file(location.segment)
            payload = os.pread(file.descriptor, location.size, location.offset)
        except FileNotFoundError:
            raise PayloadDamaged(f"{location} is gone") from None
        except OSError as error:
            kind = PayloadDamaged if error.errno == errno.EIO else JournalError
            raise kind(f"cannot read {location} in {self._folder}: {error.strerror}") from error
        if len(payload) != location.size or checksum_of(payload, _SEED) != location.checksum:
            raise PayloadDamaged(f"{location} in {self._folder} is not what was stored", payload)
        return payload

    def read_all(self, locations: Iterable[Location]) -> list[bytes]:
        """Several at once, in the order asked."""
        return [self.read(location) for location in locations]

    def sync(self) -> None:
        """On the thread that syncs: bring to disk what was appended before this call."""
        with self._lock:
            dirty, self._dirty = self._dirty, set()
            created, self._created = self._created, False
        for number in dirty:
            try:
                file = self._file(number)
                os.fdatasync(file.descriptor)
            except FileNotFoundError:
                continue  # emptied and removed meanwhile
        if created:
            sync_folder(self._folder)

    def remove(self, numbers: Iterable[int]) -> None:
        """On the thread that syncs: the commit that let go of these segments is on disk."""
        for number in numbers:
            self._path(number).unlink(missing_ok=True)
            with self._lock:  # after: or a reader might open it once more in between, and keep it
                self._files.pop(number, None)

    # --- files ---

    def _on_disk(self, segment: _Segment) -> int:
        """How long its file is, bytes."""
        try:
            return self._path(segment.number).stat().st_size
        except FileNotFoundError:
            return 0

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012}.segment"

    def _begin(self) -> _Segment:
        if self._current is not None:
            self._changed.add(self._current)  # it may be empty by now
        number = self._last + 1
        try:
            file = _OpenFile(self._path(number), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        except OSError as error:
            raise _told(error, "begin a segment") from error
        self._last = number
        self._current = segment = self._segments[number] = _Segment(number, 0, 0)
        self._changed.add(segment)
        with self._lock:
            self._files[number] = file
            self._created = True
        return segment

    def _file(self, number: int) -> _OpenFile:
        with self._lock:
            file = self._files.get(number)
            if file is None:
                file = self._files[number] = _OpenFile(self._path(number), os.O_RDWR)
                if len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(number)
            return file


def _told(error: OSError, doing: str) -> JournalError:
    kind = JournalFull if error.errno in FULL else JournalError
    return kind(f"cannot {doing}: {error.strerror}")
