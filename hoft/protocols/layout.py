"""
The byte layout of headers and records, and the arithmetic of a packet's lengths; pure.

C{docs/protocol.rst}, section "The packet", is normative.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from attrs import field, frozen

from hoft.errors import PacketError, PacketReason
from hoft.protocols.compression import expand, expand_from, not_packed
from hoft.protocols.sealing import FRAME_OVERHEAD, SEALED_KEY_SIZES

MAGIC: Final = b"hoft"
VERSION: Final = 1

_HEADER: Final = struct.Struct(">4sBBHI16s16sQQQQQQIIQ")
_RECORD: Final = struct.Struct(">QBBI")

HEADER_SIZE: Final = _HEADER.size
"""Bytes of the header."""

RECORD_HEAD: Final = _RECORD.size
"""Bytes before each record's payload."""

COMPRESSED: Final = 1
"""Flag of a record: its payload is what L{hoft.protocols.compression} makes of the real one."""

PARTLY_COMPRESSED: Final = 2
"""The same of one whose beginning stays as it is."""

MIN_STRIDE: Final = 4 << 10
DEFAULT_STRIDE: Final = 64 << 10
MAX_STRIDE: Final = 256 << 10

MAX_RECORD: Final = DEFAULT_STRIDE - FRAME_OVERHEAD - RECORD_HEAD
"""The most bytes of payload in one record: one that fills a frame of the default stride."""

SPARED: Final = 64
"""
Bytes of payload in records for which a full peer has room, as long as half of what it keeps back is left:
what lets go of others is as small, and would wait for the room that it makes.
"""

MAX_CONTROL: Final = 16 << 10
"""The most bytes of frame 0, sealed."""

MAX_LENGTH: Final = 512 << 20
"""The most bytes of a packet, padding not counted."""

MAX_FRAMES: Final = MAX_LENGTH // MIN_STRIDE
"""No packet has more record frames."""

_ZEROS: Final = bytes(MAX_STRIDE)


@frozen
class Record:
    """The unit of the log."""

    number: int
    """From 1, in the order of the log."""
    channel: int
    """Who it is for: 0 is void, 1 messages of programs, 2 and 3 HTTP, 4 streams; up to 255."""
    payload: bytes = field(repr=False)
    flags: int = 0
    """What was done to it; nothing in records that were read, whose payloads are expanded."""


def encode_records(records: Sequence[Record], size: int) -> bytes:
    """
    A frame's plaintext.

    @param size: bytes to fill up to with zeros; 0 where it is to be as long as
        the records are.
    @raise ValueError: a number, a channel or a length does not fit its field.
    """
    parts: list[bytes] = []
    for record in records:
        if record.number < 1:
            raise ValueError(f"record number {record.number}")
        try:
            head = _RECORD.pack(record.number, record.channel, record.flags, len(record.payload))
        except struct.error as error:
            raise ValueError(f"record {record.number} of channel {record.channel}: {error}") from error
        parts += (head, record.payload)
    if size:
        parts.append(bytes(size - sum(map(len, parts))))
    return b"".join(parts)


def decode_records(plaintext: bytes) -> tuple[Record, ...]:
    """
    @return: with their payloads expanded.
    @raise PacketError: (C{MALFORMED}) not records followed by zeros.
    """
    records: list[Record] = []
    at, size = 0, len(plaintext)
    while size - at >= RECORD_HEAD:
        number, channel, flags, length = _RECORD.unpack_from(plaintext, at)
        if number == 0:
            break
        at += RECORD_HEAD
        if flags > PARTLY_COMPRESSED or length > size - at:
            raise PacketError(PacketReason.MALFORMED, f"record {number}: flags {flags}, length {length}")
        payload = plaintext[at : at + length]
        if flags:
            payload = (expand if flags == COMPRESSED else expand_from)(payload, MAX_RECORD)
        records.append(Record(number, channel, payload))
        at += length
    if not records or not plaintext.endswith(_ZEROS[: size - at]):
        raise PacketError(PacketReason.MALFORMED, "not records followed by zeros")
    return tuple(records)


def capacity(stride: int) -> int:
    """Bytes of records, heads included, that a frame holds."""
    return stride - FRAME_OVERHEAD


def plan_frames(sizes: Sequence[int], stride: int = DEFAULT_STRIDE) -> list[int]:
    """
    Pack records into frames, in the order given: each frame takes as many of the
    next as fit.

    @param sizes: the records' payload sizes.
    @return: how many records go into each frame.
    @raise ValueError: a record does not fit a frame.
    """
    room = capacity(stride)
    counts: list[int] = []
    free = -1
    for size in sizes:
        size += RECORD_HEAD
        if size > room:
            raise ValueError(f"a record of {size - RECORD_HEAD} bytes does not fit a frame of {stride}")
        if size <= free:
            counts[-1] += 1
            free -= size
        else:
            counts.append(1)
            free = room - size
    return counts


def packet_length(
    control_length: int, frames: Sequence[Sequence[int]], suite: int, stride: int = DEFAULT_STRIDE
) -> int:
    """
    How long a packet will be.

    @param control_length: bytes of the encoded control, not sealed.
    @param frames: for each record frame the payload sizes of its records.
    @param suite: the suite's number.
    """
    length = HEADER_SIZE + SEALED_KEY_SIZES[suite] + control_length + 2 * FRAME_OVERHEAD
    if frames:
        length += (len(frames) - 1) * stride + frame_size(frames[-1]) + FRAME_OVERHEAD
    return length


def frame_size(sizes: Sequence[int]) -> int:
    return sum(sizes) + RECORD_HEAD * len(sizes)


@frozen
class Header:
    """What precedes the sealed key, in clear: authentic only once frame 0 is."""

    suite: int
    key_id: int
    """Which of the recipient's public keys, by its digest; 0 where none is used."""
    stride: int
    sender: bytes
    """UUID, 16 bytes; so C{recipient}."""
    recipient: bytes
    incarnation: int
    """The sender's journal."""
    boot: int
    """The sender's process."""
    recipient_incarnation: int
    """The recipient's journal, as the sender knows it; 0: it does not."""
    challenge: int
    """The sender's current challenge."""
    echo: int
    """The recipient's latest challenge; 0: none was heard."""
    number: int
    """The packet's, counted from 1 by the sender's boot."""
    frames: int
    """How many record frames."""
    control_length: int
    """Bytes of frame 0, sealed."""
    length: int
    """Bytes of the packet, from the first of the header to the last of END."""

    @property
    def prefix(self) -> int:
        """Where frame 0 begins."""
        return HEADER_SIZE + SEALED_KEY_SIZES[self.suite]

    def frame_length(self, index: int) -> int:
        """Bytes of a sealed frame; C{frames + 1} is END."""
        if index == 0:
            return self.control_length
        if index < self.frames:
            return self.stride
        if index > self.frames:
            return FRAME_OVERHEAD
        before = self.prefix + self.control_length + (self.frames - 1) * self.stride
        return self.length - before - FRAME_OVERHEAD

    def encode(self) -> bytes:
        """
        The L{HEADER_SIZE} bytes.

        @raise ValueError: a number does not fit its field.
        """
        try:
            return _HEADER.pack(
                MAGIC,
                VERSION,
                self.suite,
                self.key_id,
                self.stride,
                self.sender,
                self.recipient,
                self.incarnation,
                self.boot,
                self.recipient_incarnation,
                self.challenge,
                self.echo,
                self.number,
                self.frames,
                self.control_length,
                self.length,
            )
        except struct.error as error:
            raise ValueError(f"a header field is out of its range: {error}") from error

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """
        Read the first L{HEADER_SIZE} bytes of C{data}; believe nothing that the
        frames cannot be found by.

        @raise PacketError: C{TOO_SHORT}, C{NOT_HOFT}, C{VERSION}, C{SUITE}, or
            C{GEOMETRY}: the lengths contradict each other or exceed a limit.
        """
        if not MAGIC.startswith(data[:4]):
            raise PacketError(PacketReason.NOT_HOFT)
        if len(data) < HEADER_SIZE:
            raise PacketError(PacketReason.TOO_SHORT, f"{len(data)} bytes")
        _magic, version, *fields = _HEADER.unpack_from(data)
        if version != VERSION:
            raise PacketError(PacketReason.VERSION, f"{version}, we speak {VERSION}")
        header = cls(*fields)
        if header.suite not in SEALED_KEY_SIZES:
            raise PacketError(PacketReason.SUITE, str(header.suite))
        header.check_geometry()
        return header

    def check_geometry(self) -> None:
        """
        @raise PacketError: (C{GEOMETRY}) the lengths contradict each other or
            exceed a limit.
        """
        wrong = ""
        if not MIN_STRIDE <= self.stride <= MAX_STRIDE:
            wrong = f"a stride of {self.stride}"
        elif not FRAME_OVERHEAD < self.control_length <= MAX_CONTROL:
            wrong = f"a control frame of {self.control_length}"
        elif self.length > MAX_LENGTH:
            wrong = f"a length of {self.length}"
        else:
            sealed = self.length - self.prefix - self.control_length - FRAME_OVERHEAD
            last = sealed - (self.frames - 1) * self.stride if self.frames else sealed
            # A last frame has a record in it; no frames, no bytes.
            least, most = (FRAME_OVERHEAD + RECORD_HEAD, self.stride) if self.frames else (0, 0)
            if not least <= last <= most:
                wrong = f"{self.frames} frames of {self.stride} in {self.length}"
        if wrong:
            raise PacketError(PacketReason.GEOMETRY, wrong)


def plain(payload: bytes, flags: int) -> bytes:
    """How a record's payload begins, of which not all may be right: as far as it is not compressed."""
    if flags == COMPRESSED:
        return b""
    return not_packed(payload) if flags == PARTLY_COMPRESSED else payload
