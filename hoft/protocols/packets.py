"""
Packets, that is files, written and read piece by piece; pure.

C{docs/protocol.rst}, section "The packet", is normative.  In short::

    header | sealed packet key | frame 0: CONTROL | frames 1..n: RECORDS | END | padding

Frames are found by their index, from what the header says: one that is damaged
costs itself alone, and a packet that is cut gives up every whole frame before
the cut.  Nothing but the header is looked at before frame 0 has authenticated.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

from attrs import frozen

from hoft.errors import PacketError, PacketReason
from hoft.protocols.layout import (
    DEFAULT_STRIDE,
    HEADER_SIZE,
    MAGIC,
    MAX_CONTROL,
    MAX_FRAMES,
    MAX_LENGTH,
    MAX_RECORD,
    MAX_STRIDE,
    MIN_STRIDE,
    RECORD_HEAD,
    Header,
    Record,
    capacity,
    decode_records,
    encode_records,
    frame_size,
    packet_length,
    plan_frames,
)
from hoft.protocols.sealing import FRAME_OVERHEAD, KEY_SIZE, SALT_SIZE, Suite

__all__ = [
    "DEFAULT_STRIDE",
    "HEADER_SIZE",
    "MAX_CONTROL",
    "MAX_FRAMES",
    "MAX_LENGTH",
    "MAX_RECORD",
    "MAX_STRIDE",
    "MIN_STRIDE",
    "RECORD_HEAD",
    "BadFrame",
    "ControlFrame",
    "End",
    "Event",
    "Header",
    "PacketReader",
    "PacketWriter",
    "Record",
    "RecordFrame",
    "capacity",
    "packet_length",
    "plan_frames",
]

_BOUND: Final = struct.Struct(">32sIB")
_CONTROL, _RECORDS, _END = 0, 1, 2


class _Sealer:
    """The key of one packet and what its frames are bound to."""

    __slots__ = ("_digest", "_key", "_suite")

    def __init__(self, suite: Suite, key: bytes, prefix: bytes) -> None:
        self._suite = suite
        self._key = key
        self._digest = blake2b(prefix, digest_size=32).digest()

    def seal(self, index: int, kind: int, plaintext: bytes) -> bytes:
        bound = _BOUND.pack(self._digest, index, kind)
        return self._suite.seal_frame(self._key, index, bound, plaintext)

    def open(self, index: int, kind: int, sealed: bytes) -> bytes:
        bound = _BOUND.pack(self._digest, index, kind)
        return self._suite.open_frame(self._key, index, bound, sealed)


class PacketWriter:
    """
    Makes one packet in pieces of at most one frame (the first: prefix and frame
    0): L{begin}, then L{frame} once for each element of C{frames}, then L{end}.

    The instance belongs to one thread at a time; the methods are the costly part.

    @param suite: the recipient's keys.
    @param entropy: C{entropy(n)} gives C{n} random bytes; asked for 32 at once.
    @param control: frame 0's content.
    @param frames: for each record frame the payload sizes of its records, as
        L{plan_frames} groups them.
    @param hedge: something that does not repeat even where C{entropy} does, as
        after a snapshot of a machine was resumed twice: the time, for instance.
    @ivar header: what the packet begins with.
    @raise ValueError: a frame, the control or the whole is too long, or a number
        does not fit its field.
    """

    def __init__(
        self,
        suite: Suite,
        entropy: Callable[[int], bytes],
        control: bytes,
        frames: Sequence[Sequence[int]],
        *,
        sender: bytes,
        recipient: bytes,
        incarnation: int,
        boot: int,
        recipient_incarnation: int,
        challenge: int,
        echo: int,
        number: int,
        hedge: bytes,
        stride: int = DEFAULT_STRIDE,
    ) -> None:
        room = capacity(stride)
        for sizes in frames:
            if not sizes or frame_size(sizes) > room:
                raise ValueError(f"a frame of {len(sizes)} records, {frame_size(sizes)} of {room} bytes")
        if len(sender) != 16 or len(recipient) != 16:
            raise ValueError("sender and recipient are UUIDs of 16 bytes")
        self.header = Header(
            suite=suite.number,
            key_id=suite.key_id,
            stride=stride,
            sender=sender,
            recipient=recipient,
            incarnation=incarnation,
            boot=boot,
            recipient_incarnation=recipient_incarnation,
            challenge=challenge,
            echo=echo,
            number=number,
            frames=len(frames),
            control_length=len(control) + FRAME_OVERHEAD,
            length=packet_length(len(control), frames, suite.number, stride),
        )
        try:
            self.header.check_geometry()
        except PacketError as error:
            raise ValueError(str(error)) from error
        self._control = control
        self._frames = frames
        self._next = 0
        header = self.header.encode()
        chance = entropy(32)
        if len(chance) != 32:
            raise ValueError(f"{len(chance)} bytes of entropy, not 32")
        secret = blake2b(chance + header + hedge, digest_size=KEY_SIZE + SALT_SIZE).digest()
        self._prefix = header + suite.seal_key(secret[:KEY_SIZE], secret[KEY_SIZE:])
        self._sealer = _Sealer(suite, secret[:KEY_SIZE], self._prefix)

    def begin(self) -> bytes:
        """Header, sealed key and frame 0."""
        self._turn(0)
        return self._prefix + self._sealer.seal(0, _CONTROL, self._control)

    def frame(self, records: Sequence[Record]) -> bytes:
        """
        The next record frame.

        @param records: of exactly the sizes that were announced.
        @raise ValueError: they are not, or there is no further frame.
        """
        if not 1 <= self._next <= self.header.frames:
            raise ValueError("the packet is not begun, or all its frames are written")
        announced = self._frames[self._next - 1]
        if [len(record.payload) for record in records] != list(announced):
            raise ValueError(f"frame {self._next} was announced with other records")
        full = self._next < self.header.frames
        plaintext = encode_records(records, capacity(self.header.stride) if full else 0)
        index = self._next
        self._turn(index)
        return self._sealer.seal(index, _RECORDS, plaintext)

    def end(self) -> bytes:
        """END: the packet is whole."""
        self._turn(self.header.frames + 1)
        return self._sealer.seal(self.header.frames + 1, _END, b"")

    def _turn(self, index: int) -> None:
        if self._next != index:
            raise ValueError(f"it is frame {self._next}'s turn, not frame {index}'s")
        self._next += 1


@frozen
class ControlFrame:
    """Frame 0 has authenticated; always the first event."""

    content: bytes


@frozen
class RecordFrame:
    """A whole frame of records."""

    index: int
    records: tuple[Record, ...]


@frozen
class BadFrame:
    """A record frame does not authenticate, or is not made of records; the others are unharmed."""

    index: int
    reason: PacketReason


@frozen
class End:
    """END has authenticated: the packet was not cut.  (Frames may have been bad.)"""


Event = ControlFrame | RecordFrame | BadFrame | End


class PacketReader:
    """
    Reads one packet as it arrives.

    Holds less than one frame between calls.  After a L{PacketError} the packet is
    of no use, and every further call raises it again.

    The instance belongs to one thread at a time.

    @param accept: called once with the header, which is not authenticated yet;
        returns the suite with the sender's keys, or raises L{PacketError} where
        it is for somebody else, from nobody we know, or from ourselves.
    @ivar header: once it has arrived and was accepted.
    @ivar authenticated: frame 0 has authenticated, and so has the header.
    @ivar complete: END has authenticated.
    @ivar finished: all that the header announced has been fed; the rest is padding.
    """

    def __init__(self, accept: Callable[[Header], Suite]) -> None:
        self.header: Header | None = None
        self.authenticated = False
        self.complete = False
        self.finished = False
        self._accept = accept
        self._suite: Suite | None = None
        self._sealer: _Sealer | None = None
        self._prefix = b""
        self._error: PacketError | None = None
        self._pending = bytearray()
        self._need = HEADER_SIZE
        self._index = 0
        self._bad: list[int] = []

    def feed(self, piece: bytes | bytearray | memoryview) -> list[Event]:
        """
        What follows all that was fed before.

        @return: what has become known, in the order of the packet.
        @raise PacketError: the header is not acceptable, or frame 0 does not
            authenticate.
        """
        if self._error is not None:
            raise self._error
        events: list[Event] = []
        try:
            self._consume(memoryview(piece), events)
        except PacketError as error:
            self._error = error
            self._pending.clear()
            raise
        return events

    def missing(self) -> list[int]:
        """The record frames that have not arrived intact (yet), ascending; empty before the header."""
        if self.header is None:
            return []
        return [*self._bad, *range(max(self._index, 1), self.header.frames + 1)]

    def _consume(self, rest: memoryview, events: list[Event]) -> None:
        pending = self._pending
        while not self.finished:
            lack = self._need - len(pending)
            if len(rest) < lack:
                pending += rest
                break
            if pending:
                pending += rest[:lack]
                whole = bytes(pending)
                pending.clear()
            else:
                whole = bytes(rest[:lack])
            rest = rest[lack:]
            self._take(whole, events)
        if self.header is None and not MAGIC.startswith(bytes(pending[:4])):
            raise PacketError(PacketReason.NOT_HOFT)

    def _take(self, whole: bytes, events: list[Event]) -> None:
        """Go on by one part of the packet, all of whose bytes have arrived."""
        if self.header is None:
            header = Header.decode(whole)
            suite = self._accept(header)
            if suite.number != header.suite:
                raise PacketError(PacketReason.SUITE, f"{header.suite}, agreed is {suite.number}")
            self.header, self._suite, self._prefix = header, suite, whole
            self._need = header.prefix - HEADER_SIZE
        elif self._sealer is None:
            assert self._suite is not None
            self._sealer = _Sealer(self._suite, self._suite.open_key(whole), self._prefix + whole)
            self._need = self.header.control_length
        elif self._index == 0:
            events.append(ControlFrame(self._sealer.open(0, _CONTROL, whole)))
            self.authenticated = True
            self._advance()
        elif self._index <= self.header.frames:
            try:
                records = decode_records(self._sealer.open(self._index, _RECORDS, whole))
            except PacketError as error:
                self._bad.append(self._index)
                events.append(BadFrame(self._index, error.reason))
            else:
                events.append(RecordFrame(self._index, records))
            self._advance()
        else:
            self.finished = True
            try:
                self._sealer.open(self._index, _END, whole)
            except PacketError:
                return  # a damaged END; that all frames before it are known remains true
            self.complete = True
            events.append(End())

    def _advance(self) -> None:
        assert self.header is not None
        self._index += 1
        self._need = self.header.frame_length(self._index)
