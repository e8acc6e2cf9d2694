"""
Channel 1 of the log: messages of programs, cut into pieces that fill a record; pure.

What the records on it hold is told in C{docs/protocol.rst}, "Messages of programs".
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from attrs import field, frozen

from hoft.errors import RecordError
from hoft.interfaces import MAX_MESSAGE
from hoft.protocols.packets import MAX_RECORD

MESSAGES: Final = 1
"""The channel of the log that is for messages of programs."""

WINDOW: Final = 128 << 20
"""L{cost} of messages that may be under way or wait for the program, in one direction of a link."""

MIN_COST: Final = 4096
"""What the smallest message costs: it takes memory, too."""

_KIND_PIECE, _KIND_WITHDRAWAL, _KIND_CREDIT = 1, 2, 3
_PIECE = Struct(">B16sII")
_WITHDRAWAL = Struct(">B16sI")
_CREDIT = Struct(">BQ")

PIECE: Final = MAX_RECORD - _PIECE.size
"""Bytes of a message in each piece but the last, which has the rest."""


@frozen
class Piece:
    """One piece of a message of C{total} bytes; an empty message has one, too."""

    message: bytes
    total: int
    offset: int
    data: bytes = field(repr=False)


@frozen
class Withdrawal:
    """The sender gave a message up of which pieces may have been sent."""

    message: bytes
    total: int


@frozen
class Credit:
    """The L{cost} of all messages of this log, from the first on, that the other side may send."""

    allowed: int


def cost(total: int) -> int:
    """What a message of C{total} bytes uses up of the L{WINDOW}."""
    return max(MIN_COST, total)


def count(total: int) -> int:
    """How many pieces a message of C{total} bytes has."""
    return max(1, -(-total // PIECE))


def encode_piece(message: bytes, payload: bytes, number: int) -> bytes:
    """
    @param payload: the whole message.
    @param number: which piece, from 0.
    """
    offset = number * PIECE
    head = _PIECE.pack(_KIND_PIECE, message, len(payload), offset)
    return head + payload[offset : offset + PIECE]


def message_of(payload: bytes) -> tuple[bytes, int] | None:
    """Of which message this is or was a piece, and its size, as far as its beginning tells."""
    if len(payload) < _PIECE.size or payload[0] != _KIND_PIECE:
        return None
    _, message, total, _ = _PIECE.unpack_from(payload)
    return (message, total) if total <= MAX_MESSAGE else None


def data_of(payload: bytes) -> memoryview:
    """What of the message is in a record that is known to hold a piece."""
    return memoryview(payload)[_PIECE.size :]


def encode_withdrawal(message: bytes, total: int) -> bytes:
    """The message will not become whole."""
    return _WITHDRAWAL.pack(_KIND_WITHDRAWAL, message, total)


def encode_credit(allowed: int) -> bytes:
    """So much may be sent in all."""
    return _CREDIT.pack(_KIND_CREDIT, allowed)


def decode(payload: bytes) -> Piece | Withdrawal | Credit:
    """
    What a record on L{MESSAGES} holds.

    @raise RecordError: nothing that belongs there.
    """
    kind = payload[0] if payload else 0
    if kind == _KIND_PIECE and len(payload) >= _PIECE.size:
        return _piece(payload)
    if kind == _KIND_WITHDRAWAL and len(payload) == _WITHDRAWAL.size:
        _, message, total = _WITHDRAWAL.unpack(payload)
        return Withdrawal(message, _checked(total))
    if kind == _KIND_CREDIT and len(payload) == _CREDIT.size:
        return Credit(_CREDIT.unpack(payload)[1])
    raise RecordError(f"a record of kind {kind} and {len(payload)} bytes among messages")


def _piece(payload: bytes) -> Piece:
    _, message, total, offset = _PIECE.unpack_from(payload)
    size = len(payload) - _PIECE.size
    _checked(total)
    if offset % PIECE or offset > max(0, total - 1) or size != min(PIECE, total - offset):
        raise RecordError(f"a piece of {size} bytes at {offset} of a message of {total}")
    return Piece(message, total, offset, payload[_PIECE.size :])


def _checked(total: int) -> int:
    if total > MAX_MESSAGE:
        raise RecordError(f"a message of {total} bytes")
    return total
