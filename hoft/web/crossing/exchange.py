"""
What crosses for one HTTP call: an exchange, cut into parts that fit records.

Ingress sends the request, egress the response, each in one of two forms::

    MESSAGE                                numbered 0
    HEAD+  DATA*  [TRAILERS]  END          numbered 0, 1, 2 ... per sender
    ABORT  CREDIT  CANCEL  EXECUTING       not numbered; they count as they come

What is whole, has no trailers and fits a record before the first of it is sent goes as a
MESSAGE.  Parts of both forms from one sender contradict each other.

Records arrive in any order; a L{Reassembler} puts the numbered parts back into
theirs.  A part is one record's payload, all integers big-endian::

    kind u8 | flags u8 | exchange id 16 bytes | part number u32 | body

Flag 1 is set on all that egress sends, flag 2 on each piece of a HEAD but the last.
Bodies: HEAD and TRAILERS are CBOR, DATA is bytes of the message's body just as
they are, END is the body's total length (u64) and its XXH3-128, ABORT a problem
(CBOR), CREDIT a total (u64), CANCEL and EXECUTING nothing.  That of a MESSAGE is the length of the head
(u32, not 0), the head as HEADs have it, and the bytes of the message's body up to the end, which
may be none: one record is authenticated as a whole, so there is no total and no digest.

B{Credit.}  Neither side sends DATA beyond what the other has granted: in total
L{WINDOW} without any CREDIT, else what the highest CREDIT says.  What a DATA part
uses up is its L{data_cost}, which is never less than L{MIN_COST}: a million parts of one
byte are not for free.  The receiver grants C{reassembler.accepted + WINDOW} (requests,
once they are in the journal) or C{what it handed on + WINDOW} (responses).

Pure.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, Protocol

from attrs import field, frozen
from xxhash import xxh3_128

from hoft import cbor
from hoft.errors import RecordError
from hoft.protocols.packets import MAX_RECORD
from hoft.web.crossing.compressing import compressible
from hoft.web.http.heads import (
    MAX_FIELDS,
    Fields,
    RequestHead,
    ResponseHead,
    decode_fields,
    encode_fields,
    encode_head,
)
from hoft.web.http.problems import Problem

_PART = Struct(">BB16sI")
_END = Struct(">Q16s")
_TOTAL = Struct(">Q")
_LENGTH = Struct(">I")

REQUESTS: Final = 2
"""The channel of the log on which ingress sends, to the egress of the peer."""

RESPONSES: Final = 3
"""The channel of the log on which egress sends, to the ingress of the peer."""

MAX_BODY: Final = MAX_RECORD - _PART.size
"""The most body bytes that one part carries."""

WORTHWHILE: Final = 4096
"""Bytes of a body that crosses with its head: below this, time is worth more than length."""

MAX_NUMBER: Final = (1 << 32) - 1
"""The highest part number."""

WINDOW: Final = 64 << 20
"""DATA that may be under way in one exchange and direction, as L{data_cost}."""

MIN_COST: Final = 1024
"""What the smallest DATA part costs."""

MAX_EARLY: Final = WINDOW // MIN_COST + 64
"""The most parts that an honest sender can have in flight beyond one that is missing."""


class Side(IntEnum):
    """Who sent a part, and so which of an exchange's two messages it belongs to."""

    INGRESS = 0
    """Where the caller is: sends the request."""
    EGRESS = 1
    """Where the service is: sends the response."""


class Kind(IntEnum):
    """What a part is."""

    HEAD = 1
    DATA = 2
    TRAILERS = 3
    END = 4
    ABORT = 5
    """Egress will not (further) answer; the body says why.  Acts at once, whatever is missing."""
    CREDIT = 6
    """The receiver of a body takes this much of it in total; the maximum counts."""
    CANCEL = 7
    """The caller no longer wants the answer."""
    MESSAGE = 8
    """Head and body together: a whole message."""
    EXECUTING = 9
    """Egress asks the service now; only where the head of the request wants it told."""


_WHOLE = bytes((Kind.MESSAGE,))

NUMBERED: Final = frozenset((Kind.HEAD, Kind.DATA, Kind.TRAILERS, Kind.END, Kind.MESSAGE))
"""Kinds of which a message consists."""


@frozen
class End:
    """The end of a body: how long it was and its XXH3-128."""

    total: int
    digest: bytes


@frozen
class Part:
    """
    One part, as it crosses.

    @ivar number: its place among the numbered parts of its sender; 0 for others.
    @ivar more: (HEAD) another piece of the head follows.
    """

    kind: Kind
    side: Side
    exchange: bytes
    number: int
    body: bytes = field(repr=False)
    more: bool = False

    @property
    def size(self) -> int:
        """Of the record's payload, in bytes."""
        return _PART.size + len(self.body)


def data_cost(size: int) -> int:
    """What of the credit a DATA part with C{size} bytes of body uses up."""
    return max(MIN_COST, size)


def encode_part(part: Part) -> bytes:
    """The payload of the record that carries C{part}."""
    flags = int(part.side) | (2 if part.more else 0)
    return _PART.pack(part.kind, flags, part.exchange, part.number) + part.body


def flow_of(payload: bytes) -> int:
    """
    Whose turn a part takes of its link (L{hoft.interfaces.Outgoing}): each message in several
    parts its own, so that a large one holds up no other; those that are one part take turns as one.
    """
    return 0 if payload[0] == Kind.MESSAGE else int.from_bytes(payload[2:8], "big")


def whole_of(payload: bytes | None) -> bytes | None:
    """The exchange that a record is a MESSAGE of, if it is one."""
    return payload[2:18] if payload is not None and payload[:1] == _WHOLE else None


def exchange_of(payload: bytes) -> bytes | None:
    """Whose part this is or was, as far as its beginning tells; the rest of it may be anything."""
    if len(payload) < _PART.size or (payload[0], payload[1]) not in _FORMS:
        return None
    return payload[2:18]


def decode_part(payload: bytes, sender: Side | None = None) -> Part:
    """
    @param payload: of a record on L{REQUESTS} or L{RESPONSES}.
    @param sender: the side that sends on that channel.
    @raise RecordError: it is not a part, or not one of that side.
    """
    if not _PART.size <= len(payload) <= MAX_RECORD:
        raise RecordError(f"a part of {len(payload)} bytes")
    code, flags, exchange, number = _PART.unpack_from(payload)
    form = _FORMS.get((code, flags))
    if form is None:
        raise RecordError(f"a part of kind {code} with flags {flags}")
    kind, side, most_number, least, most = form
    if sender is not None and side is not sender:
        raise RecordError(f"{kind.name} of {side.name} among those of {sender.name}")
    if number > most_number:
        raise RecordError(f"{kind.name} with the number {number}")
    body = payload[_PART.size :]
    if not least <= len(body) <= most:
        raise RecordError(f"{kind.name} with a body of {len(body)} bytes")
    if kind is Kind.MESSAGE and not 0 < _LENGTH.unpack_from(body)[0] <= len(body) - _LENGTH.size:
        raise RecordError("a MESSAGE without a head, or with less than it says")
    return Part(kind, side, exchange, number, body, flags > 1)


def _forms() -> dict[tuple[int, int], tuple[Kind, Side, int, int, int]]:
    """By kind and flags: kind, sender, highest number, least and most bytes of body."""
    forms: dict[tuple[int, int], tuple[Kind, Side, int, int, int]] = {}
    for kind, sides, number, least, most in (
        (Kind.HEAD, Side, MAX_NUMBER, 1, MAX_BODY),
        (Kind.DATA, Side, MAX_NUMBER, 1, MAX_BODY),
        (Kind.TRAILERS, Side, MAX_NUMBER, 1, MAX_BODY),
        (Kind.END, Side, MAX_NUMBER, _END.size, _END.size),
        (Kind.ABORT, (Side.EGRESS,), 0, 1, MAX_BODY),
        (Kind.CREDIT, Side, 0, _TOTAL.size, _TOTAL.size),
        (Kind.CANCEL, (Side.INGRESS,), 0, 0, 0),
        (Kind.EXECUTING, (Side.EGRESS,), 0, 0, 0),
        (Kind.MESSAGE, Side, 0, _LENGTH.size + 1, MAX_BODY),
    ):
        for side in sides:
            forms[kind, side] = (kind, side, number, least, most)
            if kind is Kind.HEAD:
                forms[kind, side | 2] = (kind, side, number, least, most)
    return forms


_FORMS: Final = _forms()


# --- Sending -------------------------------------------------------------------


class PartWriter:
    """
    Cuts one message into parts: L{head}, L{data} any number of times, then L{end}.

    Holds everything back until it fills a record, is asked for with C{flush}, or is
    all there is: then it goes as one MESSAGE, if it can.

    @ivar spent: the L{data_cost} of all DATA so far: never let it pass the credit.
    @ivar total: body bytes given so far.
    """

    def __init__(self, exchange: bytes, side: Side) -> None:
        self.exchange = exchange
        self.side = side
        self.spent = 0
        self.total = 0
        self._number = 0
        self._digest = body_digest()
        self._head: bytes | None = None
        """Encoded, while it is held back."""
        self._fields: Fields = ()
        self._shrinks: bool | None = None
        self._held = bytearray()

    def head(self, head: RequestHead | ResponseHead, flush: bool = False) -> list[bytes]:
        """
        @param flush: as of L{data}.
        @return: payloads, none or those of all the head.
        @raise ValueError: the head is larger than L{MAX_HEAD}.
        """
        self._head = encode_head(head)
        self._fields = head.headers
        return self.flush() if flush else []

    def data(self, piece: bytes | memoryview, flush: bool = False) -> list[bytes]:
        """
        Take bytes of the body.

        @param flush: give out all, rather than hold back what does not fill a record:
            for whoever waits for these bytes.
        @return: payloads, of the body all but the last filled exactly.
        """
        self.total += len(piece)
        payloads: list[bytes] = []
        if len(self._held) + len(piece) >= MAX_BODY:
            payloads = self._heads()
            if self._held:
                room = MAX_BODY - len(self._held)
                payloads.append(self._data(self._held + piece[:room]))
                self._held.clear()
                piece = piece[room:]
            view = memoryview(piece)
            while len(view) >= MAX_BODY:
                payloads.append(self._data(view[:MAX_BODY]))
                view = view[MAX_BODY:]
            piece = view
        self._held += piece
        return payloads + self.flush() if flush else payloads

    def flush(self) -> list[bytes]:
        """What was held back."""
        payloads = self._heads()
        if self._held:
            payloads.append(self._data(self._held))
            self._held.clear()
        return payloads

    def compress_from(self, payload: bytes) -> int | None:
        """
        From where on a payload that this gave out is worth an attempt to compress it, or C{None}.
        Never where fields are: secrets are in them, beside what callers choose, and lengths would tell.
        Nor where it says whose it is (L{exchange_of}): what is damaged can still be asked for that.
        """
        start = _PART.size
        if payload[0] == Kind.MESSAGE:
            if len(payload) < WORTHWHILE:
                return None
            start += _LENGTH.size + _LENGTH.unpack_from(payload, _PART.size)[0]
            if len(payload) - start < WORTHWHILE:
                return None
        elif payload[0] != Kind.DATA:
            return None
        if self._shrinks is None:
            self._shrinks = compressible(self._fields)
        return start if self._shrinks else None

    def end(self, trailers: Fields = ()) -> list[bytes]:
        """
        @return: a MESSAGE, or what was held back, the trailers if there are any, and END.
        @raise ValueError: the trailers do not fit a record.
        """
        head = self._head
        if head is not None and not trailers:
            size = _LENGTH.pack(len(head))
            if len(size) + len(head) + len(self._held) <= MAX_BODY:
                self._head = None
                return [self._part(Kind.MESSAGE, size, head, self._held)]
        encoded = _trailers(trailers) if trailers else b""
        payloads = self.flush()
        if encoded:
            payloads.append(self._part(Kind.TRAILERS, encoded))
        payloads.append(self._part(Kind.END, _END.pack(self.total, self._digest.digest())))
        return payloads

    def _heads(self) -> list[bytes]:
        encoded, self._head = self._head or b"", None
        pieces = [encoded[start : start + MAX_BODY] for start in range(0, len(encoded), MAX_BODY)]
        return [self._part(Kind.HEAD, piece, more=piece is not pieces[-1]) for piece in pieces]

    def _data(self, body: bytes | bytearray | memoryview) -> bytes:
        self._digest.update(body)
        self.spent += data_cost(len(body))
        return self._part(Kind.DATA, body)

    def _part(self, kind: Kind, *body: bytes | bytearray | memoryview, more: bool = False) -> bytes:
        number = self._number
        self._number += 1
        flags = self.side | (2 if more else 0)
        return b"".join((_PART.pack(kind, flags, self.exchange, number), *body))


def _trailers(fields: Fields) -> bytes:
    encoded = encode_fields(fields)
    if len(encoded) > MAX_BODY or len(fields) > MAX_FIELDS:
        raise ValueError(f"trailers of {len(encoded)} bytes and {len(fields)} fields")
    return encoded


class BodyDigest(Protocol):
    """What L{body_digest} makes."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """The next bytes."""

    def digest(self) -> bytes:
        """Of all bytes so far."""


def body_digest() -> BodyDigest:
    """
    What to feed the bytes of a body, in order; its C{digest()} must equal that of END.

    XXH3 (128 bits, canonical): the parts are sealed one by one, so this finds only what was put together
    wrongly, as from two runs of one request, and should cost next to nothing.
    """
    return xxh3_128()


def encode_abort(exchange: bytes, problem: Problem) -> bytes:
    """Egress gives the exchange up."""
    return encode_part(Part(Kind.ABORT, Side.EGRESS, exchange, 0, cbor.encode(problem.as_map())))


def encode_credit(exchange: bytes, side: Side, total: int) -> bytes:
    """
    @param side: who grants: the receiver of the body.
    @param total: L{data_cost} of all DATA that the other may send, from the first on.
    """
    return encode_part(Part(Kind.CREDIT, side, exchange, 0, _TOTAL.pack(total)))


def encode_cancel(exchange: bytes) -> bytes:
    """The caller is gone, or its deadline has passed."""
    return encode_part(Part(Kind.CANCEL, Side.INGRESS, exchange, 0, b""))


def encode_executing(exchange: bytes) -> bytes:
    """The service is asked now."""
    return encode_part(Part(Kind.EXECUTING, Side.EGRESS, exchange, 0, b""))


# --- Bodies of parts -----------------------------------------------------------


def decode_message(part: Part) -> tuple[bytes, bytes]:
    """The encoded head and the body of a MESSAGE; L{decode_part} has checked its lengths."""
    end = _LENGTH.size + _LENGTH.unpack_from(part.body)[0]
    return part.body[_LENGTH.size : end], part.body[end:]


def decode_trailers(part: Part) -> Fields:
    """
    @raise RecordError: not trailers.
    """
    return decode_fields(part.body)


def decode_end(part: Part) -> End:
    """What an END part says; L{decode_part} has checked its size."""
    return End(*_END.unpack(part.body))


def decode_abort(part: Part) -> Problem:
    """
    @raise RecordError: not a problem.
    """
    try:
        return Problem.from_map(cbor.decode_strict(part.body, limit=MAX_BODY))
    except cbor.CborError as error:
        raise RecordError(str(error)) from error


def decode_credit(part: Part) -> int:
    """The total L{data_cost} granted."""
    return int(_TOTAL.unpack(part.body)[0])
