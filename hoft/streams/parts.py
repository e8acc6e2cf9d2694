"""
Channel 4 of the log: byte streams, cut into parts that fit records; pure.

A part is one record's payload, all integers big-endian::

    kind u8 | flags u8 | sender's epoch u64 | recipient's epoch u64 | stream u32 | body

Flag 1 is set on what the side sends that accepts the stream; streams are numbered from
1 by the side that opens them.  An I{epoch} stands for one process of a node, and rises
with each: what comes from an earlier one than is known is void, and so is what goes to
another one than that which reads it.  0 is none that is known.

Bodies: OPEN has what the stream is to reach, as text, and what is asked of it (L{encode_wish});
ACCEPT what is answered to that; DATA where it belongs (u64) and the bytes; END the total of
bytes (u64); CREDIT a total (u64) in terms of L{cost}; REFUSE a problem (CBOR); RESET a reason
(text); BEGIN and STOP have none.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

from attrs import field, frozen

from hoft.errors import RecordError
from hoft.protocols.packets import MAX_RECORD

STREAMS: Final = 4
"""The channel of the log that is for streams."""

TCP: Final = "tcp://"
"""What the target of a stream to a TCP port begins with."""

_HEAD = Struct(">BBQQI")
_NUMBER = Struct(">Q")

MAX_DATA: Final = MAX_RECORD - _HEAD.size - _NUMBER.size
"""The most bytes of a stream that one part carries."""

MAX_TEXT: Final = 1024
"""The most bytes of a target or a reason."""

MAX_SAID: Final = MAX_RECORD - _HEAD.size - MAX_TEXT - 1
"""The most bytes of what is asked in an OPEN, and answered in an ACCEPT."""

ID: Final = 16
"""Bytes at the head of what is asked: the id by which both nodes know the call that the stream is."""

MAX_STREAM: Final = (1 << 32) - 1
"""The highest number of a stream."""

MIN_COST: Final = 1024
"""What the smallest DATA costs: it takes room in the journal, too."""

INITIAL: Final = 256 << 10
"""L{cost} of the DATA that either side may send before it has heard any CREDIT."""


class Kind(IntEnum):
    """What a part is."""

    BEGIN = 1
    """The sender's process is a new one: streams of earlier ones are over."""
    OPEN = 2
    """A stream to what the body names is wanted."""
    ACCEPT = 3
    """It is there; the body is the answer to what OPEN asked, where it asked anything."""
    REFUSE = 4
    """It will not be there; the body says why."""
    DATA = 5
    END = 6
    """The sender sends no more than so many bytes in all."""
    CREDIT = 7
    """The sender takes DATA of this L{cost} in total; the maximum counts."""
    STOP = 8
    """The sender takes no further DATA: none need be sent."""
    RESET = 9
    """The stream is over, whatever is missing; the body says why."""


@frozen
class Part:
    """
    One part, as it crosses.

    @ivar accepter: sent by the side that accepts the stream.
    @ivar sender: epoch of the sender.
    @ivar recipient: epoch of the recipient as the sender knows it, 0 if it does not.
    @ivar offset: (DATA) of the first byte; (END, CREDIT) the total.
    @ivar body: bytes of DATA, the text of others.
    """

    kind: Kind
    accepter: bool
    sender: int
    recipient: int
    stream: int
    offset: int = 0
    body: bytes = field(default=b"", repr=False)


def cost(size: int) -> int:
    """What of the credit DATA of so many bytes uses up."""
    return max(MIN_COST, size)


def encode(part: Part) -> bytes:
    """The payload of the record that carries C{part}."""
    head = _HEAD.pack(part.kind, part.accepter, part.sender, part.recipient, part.stream)
    if part.kind in _NUMBERED:
        return head + _NUMBER.pack(part.offset) + part.body
    return head + part.body


def decode(payload: bytes) -> Part:
    """
    What a record on L{STREAMS} holds.

    @raise RecordError: nothing that belongs there.
    """
    if not _HEAD.size <= len(payload) <= MAX_RECORD:
        raise RecordError(f"a part of a stream of {len(payload)} bytes")
    code, flags, sender, recipient, stream = _HEAD.unpack_from(payload)
    form = _FORMS.get((code, flags))
    if form is None:
        raise RecordError(f"a part of a stream of kind {code} with flags {flags}")
    kind, least, most = form
    if not sender or bool(stream) is (kind is Kind.BEGIN):
        raise RecordError(f"{kind.name} of epoch {sender} and stream {stream}")
    at, offset = _HEAD.size, 0
    if kind in _NUMBERED:
        if len(payload) < at + _NUMBER.size:
            raise RecordError(f"{kind.name} without its number")
        offset = _NUMBER.unpack_from(payload, at)[0]
        at += _NUMBER.size
    if not least <= len(payload) - at <= most:
        raise RecordError(f"{kind.name} with a body of {len(payload) - at} bytes")
    if kind is Kind.OPEN:
        decode_wish(payload[at:])
    return Part(kind, bool(flags), sender, recipient, stream, offset, payload[at:])


def encode_wish(target: str, asked: bytes = b"") -> bytes:
    """
    The body of OPEN.

    @param target: what the stream is to reach.
    @param asked: what that is told first of all, and answers before there is a stream.
    @raise ValueError: more than fits.
    """
    name = target.encode()
    if not 0 < len(name) <= MAX_TEXT or len(asked) > MAX_SAID:
        raise ValueError(f"a target of {len(name)} bytes and {len(asked)} more")
    return name + b"\0" + asked if asked else name


def decode_wish(body: bytes) -> tuple[str, bytes]:
    """
    Target, and what is asked of it.

    @raise RecordError: no target, or one that is too long, or more is asked than may be.
    """
    name, _, asked = body.partition(b"\0")
    if not 0 < len(name) <= MAX_TEXT or len(asked) > MAX_SAID:
        raise RecordError(f"a target of {len(name)} bytes and {len(asked)} more")
    return name.decode("utf-8", "replace"), asked


_NUMBERED: Final = frozenset((Kind.DATA, Kind.END, Kind.CREDIT))


def _forms() -> dict[tuple[int, int], tuple[Kind, int, int]]:
    """By kind and flags: kind, least and most bytes of body."""
    forms: dict[tuple[int, int], tuple[Kind, int, int]] = {}
    for kind, sides, least, most in (
        (Kind.BEGIN, (0,), 0, 0),
        (Kind.OPEN, (0,), 1, MAX_RECORD),
        (Kind.ACCEPT, (1,), 0, MAX_SAID),
        (Kind.REFUSE, (1,), 1, MAX_RECORD),
        (Kind.DATA, (0, 1), 1, MAX_DATA),
        (Kind.END, (0, 1), 0, 0),
        (Kind.CREDIT, (0, 1), 0, 0),
        (Kind.STOP, (0, 1), 0, 0),
        (Kind.RESET, (0, 1), 0, MAX_TEXT),
    ):
        for side in sides:
            forms[kind, side] = (kind, least, most)
    return forms


_FORMS: Final = _forms()
