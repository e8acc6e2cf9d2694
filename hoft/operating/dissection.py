"""
A packet file, taken apart for people; pure.

What is read is read by L{PacketReader}, as a node does it; nothing here knows the
layout twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from attrs import asdict, define, field, frozen

from hoft.errors import PacketError, PacketReason
from hoft.protocols.control import Control
from hoft.protocols.packets import (
    HEADER_SIZE,
    BadFrame,
    ControlFrame,
    Event,
    Header,
    PacketReader,
    RecordFrame,
)
from hoft.protocols.sealing import Suite

Candidates = Callable[[Header], Sequence[Suite]]
"""From a header, of which nothing is proven, to the suites that its packet may have been sealed with."""


@frozen
class Frame:
    """One frame of records, as far as it is there."""

    index: int
    offset: int
    """In the file."""
    length: int
    records: tuple[tuple[int, int, int], ...] = ()
    """Number, channel and bytes of payload of each."""
    bad: PacketReason | None = None
    """Why it is of no use."""


@define
class Dissection:
    """What a file is."""

    size: int = 0
    """Bytes of the file."""
    zeros: int = 0
    """Of these, zeros at its end."""
    error: PacketError | None = None
    """Why it is no packet, or none that can be opened."""
    header: Header | None = None
    suite: Suite | None = None
    """By which it was opened; C{None} if it was not."""
    control: Control | None = None
    control_error: PacketError | None = None
    frames: list[Frame] = field(factory=list)
    """Those of which all bytes are there, if it could be opened."""
    complete: bool = False
    """END has authenticated."""
    spans: list[tuple[int, int, int]] = field(factory=list)
    """Index, offset and length of each frame that the header announces, with control and END."""

    @property
    def cut(self) -> bool:
        """Whether bytes are missing that the header announces."""
        return self.header is None or self.size < self.header.length

    @property
    def padding(self) -> int:
        """Bytes behind the packet's end."""
        return 0 if self.header is None else max(0, self.size - self.header.length)

    @property
    def bad(self) -> list[int]:
        """Frames that are there and of no use."""
        return [frame.index for frame in self.frames if frame.bad is not None]

    @property
    def sound(self) -> bool:
        """Nothing is missing, and all that could be opened is intact."""
        if self.cut or self.error is not None or self.control_error is not None:
            return False
        return self.suite is None or (self.complete and not self.bad)

    def cut_in(self) -> str:
        """Within which part the file ends."""
        if self.header is None:
            return "the header"
        if self.size < self.header.prefix:
            return "the sealed key"
        index = next(index for index, offset, length in self.spans if offset + length > self.size)
        return "frame 0 (control)" if not index else "END" if index > self.header.frames else f"frame {index}"


def _spans(header: Header) -> Iterator[tuple[int, int, int]]:
    offset = header.prefix
    for index in range(header.frames + 2):
        length = header.frame_length(index)
        yield index, offset, length
        offset += length


def dissect(pieces: Iterable[bytes], candidates: Candidates) -> Dissection:
    """
    Read a file to its end; holds one frame at a time.

    @param pieces: its content.
    """
    found = Dissection()
    start = b""
    reader: PacketReader | None = None
    for piece in pieces:
        found.size += len(piece)
        kept = piece.rstrip(b"\0")
        found.zeros = len(piece) - len(kept) + (0 if kept else found.zeros)
        if found.error is not None:
            continue
        if reader is None:
            start += piece
            reader = _recognised(found, start, candidates)
            piece = start
        if reader is not None:
            _feed(found, reader, piece)
    if found.error is None and found.header is None:
        found.error = PacketError(PacketReason.TOO_SHORT, f"{found.size} bytes")
    return found


def _recognised(found: Dissection, start: bytes, candidates: Candidates) -> PacketReader | None:
    """A reader with the suite that opens the packet, once header and sealed key are there."""
    try:
        if found.header is None:
            if len(start) < HEADER_SIZE:
                PacketReader(_nobody).feed(start)  # raises if this cannot become one
                return None
            found.header = Header.decode(start)
            found.spans = list(_spans(found.header))
        header = found.header
        if len(start) < header.prefix:
            return None
        suite = found.suite = _opening(header, start[HEADER_SIZE : header.prefix], candidates(header))
    except PacketError as error:
        found.error = error
        return None
    return PacketReader(lambda _: suite)


def _nobody(header: Header) -> Suite:
    raise PacketError(PacketReason.STRANGER)


def _opening(header: Header, sealed: bytes, suites: Sequence[Suite]) -> Suite:
    if not suites:
        raise PacketError(PacketReason.STRANGER, "neither from nor to a peer of this node")
    refused = PacketError(PacketReason.SUITE, f"{header.suite}, agreed is {suites[0].name}")
    for suite in suites:
        if suite.number == header.suite:
            try:
                suite.open_key(sealed)
            except PacketError as error:
                refused = error
            else:
                return suite
    raise refused


def _feed(found: Dissection, reader: PacketReader, piece: bytes) -> None:
    try:
        events = reader.feed(piece)
    except PacketError as error:
        found.error = error
        return
    found.complete = reader.complete
    for event in events:
        _note(found, event)


def _note(found: Dissection, event: Event) -> None:
    if isinstance(event, ControlFrame):
        try:
            found.control = Control.decode(event.content)
        except PacketError as error:
            found.control_error = error
    elif isinstance(event, RecordFrame):
        records = tuple((one.number, one.channel, len(one.payload)) for one in event.records)
        found.frames.append(Frame(*found.spans[event.index], records))
    elif isinstance(event, BadFrame):
        found.frames.append(Frame(*found.spans[event.index], bad=event.reason))


def as_json(found: Dissection) -> dict[str, Any]:
    """All of it but what is in the records, see C{docs/reference-command-line.rst}."""
    header = found.header
    return {
        "bytes": found.size,
        "sound": found.sound,
        "error": None if found.error is None else str(found.error),
        "cut_in": found.cut_in() if found.cut else None,
        "padding": found.padding,
        "zeros_at_end": found.zeros,
        "header": None if header is None else _header(header),
        "opened_with": None if found.suite is None else found.suite.name,
        "control": None if found.control is None else asdict(found.control),
        "control_error": None if found.control_error is None else str(found.control_error),
        "frames": [
            {
                "index": frame.index,
                "offset": frame.offset,
                "bytes": frame.length,
                "bad": frame.bad,
                "records": [
                    {"number": number, "channel": channel, "bytes": size}
                    for number, channel, size in frame.records
                ],
            }
            for frame in found.frames
        ],
        "end": found.complete,
    }


def _header(header: Header) -> dict[str, Any]:
    """Its fields as people name them: UUIDs, and random numbers as 16 hexadecimal digits."""
    fields = asdict(header)
    for name in ("sender", "recipient"):
        fields[name] = str(UUID(bytes=fields[name]))
    for name in ("incarnation", "boot", "recipient_incarnation", "challenge", "echo"):
        fields[name] = f"{fields[name]:016x}"
    fields["key_id"] = f"{header.key_id:04x}"
    return fields
