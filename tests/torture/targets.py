"""
Everything that decodes what others have made, as targets for fuzzers: each takes
bytes, and raises only where more happens than the one error that is declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from attrs import frozen

from hoft import cbor
from hoft.errors import IdentityError, PacketError, RecordError
from hoft.identity import Card
from hoft.messages import pieces
from hoft.protocols.compression import MOST_EXPANSION, Compressor, expand, expand_from
from hoft.protocols.control import Control, Receipt
from hoft.protocols.layout import decode_records, encode_records
from hoft.protocols.packets import MAX_RECORD, PacketReader, Record
from hoft.streams import parts as stream_parts
from hoft.transports import armour
from hoft.transports.filenames import LONG, FileName, LongNaming, ShortNaming
from hoft.web.crossing import exchange
from hoft.web.http import heads
from hoft.web.http.problems import Problem
from tests.protocols.samples import FAR, NEAR, grouped, parts, writer

EXCHANGE = bytes(range(16))


@frozen
class Target:
    """One decoder."""

    run: Callable[[bytes], None]
    """Raises only if a promise is broken."""
    seeds: Sequence[bytes]
    """What it is meant for: to begin with."""


def _packets() -> list[bytes]:
    made = []
    for count in (0, 1, 3):
        records = [Record(1 + at, at % 3, bytes([at]) * 700) for at in range(count)]
        frames = grouped(records, 4096)
        made.append(b"".join(parts(writer(Control(ack=count).encode(), frames, stride=4096), frames)))
    return made


def packet(data: bytes) -> None:
    """Whole files, in two pieces."""
    reader = PacketReader(FAR.accept(NEAR))
    cut = data[-1] % (len(data) + 1) if data else 0
    try:
        reader.feed(data[:cut])
        reader.feed(data[cut:])
    except PacketError:
        pass


def records(data: bytes) -> None:
    """The plaintext of a record frame."""
    try:
        found = decode_records(data)
    except PacketError:
        return
    again = encode_records(found, 0)
    assert again + bytes(len(data) - len(again)) == data


def control(data: bytes) -> None:
    """The plaintext of frame 0."""
    try:
        found = Control.decode(data)
    except PacketError:
        return
    assert found.encode() == data


def strict_cbor(data: bytes) -> None:
    """Any CBOR."""
    try:
        value = cbor.decode_strict(data, limit=4096)
    except cbor.CborError:
        return
    assert cbor.encode(value) == data


_HEADS: dict[exchange.Side, Callable[[bytes], object]] = {
    exchange.Side.INGRESS: heads.decode_request,
    exchange.Side.EGRESS: heads.decode_response,
}


def part(data: bytes) -> None:
    """A record of an exchange, with what its kind says of its body."""
    try:
        found = exchange.decode_part(data)
        assert exchange.encode_part(found) == data
        match found.kind:
            case exchange.Kind.HEAD:
                _HEADS[found.side](found.body)
            case exchange.Kind.MESSAGE:
                head, _ = exchange.decode_message(found)
                _HEADS[found.side](head)
            case exchange.Kind.TRAILERS:
                exchange.decode_trailers(found)
            case exchange.Kind.END:
                exchange.decode_end(found)
            case exchange.Kind.ABORT:
                exchange.decode_abort(found)
            case exchange.Kind.CREDIT:
                exchange.decode_credit(found)
    except RecordError:
        pass


def _parts() -> list[bytes]:
    request = heads.encode_head(
        heads.RequestHead(b"POST", "http", "service.test", b"/a?b", ((b"Accept", b"text/plain"),), 80)
    )
    response = heads.encode_head(heads.ResponseHead(200, b"OK", ((b"Server", b"x"),)))
    made = [
        exchange.Part(exchange.Kind.HEAD, exchange.Side.INGRESS, EXCHANGE, 0, request),
        exchange.Part(exchange.Kind.HEAD, exchange.Side.EGRESS, EXCHANGE, 0, response),
        exchange.Part(exchange.Kind.DATA, exchange.Side.INGRESS, EXCHANGE, 1, b"body"),
        exchange.Part(
            exchange.Kind.TRAILERS, exchange.Side.INGRESS, EXCHANGE, 2, heads.encode_fields(((b"A", b"b"),))
        ),
    ]
    problem = exchange.encode_abort(EXCHANGE, Problem(504, "peer-silent", "Gateway Timeout", "silent"))
    return [*map(exchange.encode_part, made), problem, exchange.encode_cancel(EXCHANGE)]


def message(data: bytes) -> None:
    """A record of a program's message."""
    try:
        pieces.decode(data)
    except RecordError:
        pass


def stream(data: bytes) -> None:
    """A record of a byte stream."""
    try:
        found = stream_parts.decode(data)
    except RecordError:
        return
    assert stream_parts.encode(found) == data


_NAMINGS = (LONG, LongNaming("a-", ".dat"), ShortNaming())


def name(data: bytes) -> None:
    """The name of a file, as a folder lists it, in each way of naming."""
    text = data.decode("utf-8", "surrogateescape")
    found = FileName.parse(text)
    assert found is None or str(found) == text
    for naming in _NAMINGS:
        found = naming.parse(text)
        assert found is None or found.sender is None or naming.text(found) == text
        naming.published(text)
        naming.is_temporary(text)


def compressed(data: bytes) -> None:
    """A payload, or the end of one, that came compressed."""
    for expander in (expand, expand_from):
        try:
            assert len(expander(data, MAX_RECORD)) <= MOST_EXPANSION * len(data)
        except PacketError:
            pass


def _compressed() -> list[bytes]:
    payloads = (b"hoft" * 500, bytes(3000))
    return [one for payload in payloads for start in (0, 700) if (one := Compressor().pack(payload, start))]


def armoured(data: bytes) -> None:
    """A file of text, read in two goes; and any bytes as such a file."""
    cut = data[-1] % (len(data) + 1) if data else 0
    if armour.begins(data):
        _, used = armour.take_off(data[:cut], first=True, last=False)
        _, end = armour.take_off(data[used:], first=not used, last=True)
        assert used + end == len(data)
        most = 600
        some = armour.portion(data, most)
        assert len(armour.take_off(some, first=True, last=False)[0]) <= most
    text = armour.Armour()
    written = text.put_on(data[:cut]) + text.put_on(data[cut:]) + text.close()
    assert armour.begins(written)
    assert armour.take_off(written, first=True, last=True) == (data, len(written))


def _armour(data: bytes) -> bytes:
    text = armour.Armour()
    return text.put_on(data) + text.close()


def card(data: bytes) -> None:
    """What somebody was sent as a card."""
    try:
        found = Card.parse(data.decode("utf-8", "replace"))
    except IdentityError:
        return
    assert Card.parse(str(found)) == found


TARGETS: Mapping[str, Target] = {
    "packet": Target(packet, _packets()),
    "records": Target(records, [encode_records([Record(1, 1, b"abc"), Record(2, 0, b"")], 200)]),
    "control": Target(
        control,
        [
            Control().encode(),
            Control(ack=300, sack=((302, 302), (400, 70_000)), limit=1 << 33, probe=True).encode(),
            Control(receipts=(Receipt(7, 8, 9, ((1, 2),), 10),), clock=9, peer_boot=1 << 60).encode(),
        ],
    ),
    "cbor": Target(strict_cbor, [cbor.encode({"a": [1, -5, b"x", "y", None, True], "b": {}})]),
    "part": Target(part, _parts()),
    "message": Target(
        message,
        [
            pieces.encode_piece(EXCHANGE, b"abc", 0),
            pieces.encode_withdrawal(EXCHANGE, 7),
            pieces.encode_credit(9),
        ],
    ),
    "stream": Target(
        stream,
        [
            stream_parts.encode(stream_parts.Part(stream_parts.Kind.DATA, False, 1, 2, 3, 4, b"abc")),
            stream_parts.encode(stream_parts.Part(stream_parts.Kind.OPEN, False, 1, 0, 3, 0, b"name")),
        ],
    ),
    "name": Target(
        name,
        [
            b"c2a4f0d9-7be3-4e06-8f21-5d9b64a7e822--6b8e1c5e-0f5a-4c1b-9d54-0a6d2f7c3e11"
            b"--1122334455667788-0000000000000003.hoft",
            b"a-c2a4f0d9-7be3-4e06-8f21-5d9b64a7e822--6b8e1c5e-0f5a-4c1b-9d54-0a6d2f7c3e11"
            b"--1122334455667788-0000000000000003.dat",
            b"ABCDEF27.hof",
        ],
    ),
    "compressed": Target(compressed, _compressed()),
    "armour": Target(armoured, [_armour(bytes(100)), _armour(bytes(range(256)))]),
    "card": Target(card, [str(Card("near", UUID(int=7 << 100 | 4 << 76 | 8 << 60), NEAR.public)).encode()]),
}
