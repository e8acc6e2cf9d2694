"""
The heads of requests and responses as values, and their one form in CBOR.

Whatever is wrong in what a peer sent is a L{RecordError}; that names and values are
proper HTTP is for L{hoft.web.fields} to check.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from attrs import field, frozen

from hoft import cbor
from hoft.errors import RecordError

Fields = Sequence[tuple[bytes, bytes]]
"""Header or trailer fields: (name, value) pairs as they came, in order, repetitions kept apart."""

MAX_HEAD: Final = 256 * 1024
"""The most bytes a HEAD has in CBOR."""

MAX_FIELDS: Final = 1000
"""The most header fields of one message."""

MAX_MICROSECONDS: Final = 1 << 53


class Retry(Enum):
    """May a request be made again when a crash left its outcome unknown?"""

    NEVER = "never"
    IDEMPOTENT = "idempotent"
    """If its method is idempotent (RFC 9110 section 9.2.2) or it has an Idempotency-Key."""
    ALWAYS = "always"


def _in_order(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    return tuple(fields)


def _as_they_came(stages: Iterable[tuple[str, float]]) -> Sequence[tuple[str, float]]:
    return tuple(stages)


@frozen
class RequestHead:
    """
    A request without its body: where it goes and what it says.

    Hop-by-hop fields are gone, and so are Host, Content-Length and Transfer-Encoding,
    which egress makes anew from C{authority} and the length that really came.

    @ivar method: as given, case kept.
    @ivar scheme: C{"http"} or C{"https"}.
    @ivar host: lower-case ASCII name or address; IPv6 without brackets.
    @ivar port: as given, C{None} for the scheme's own.
    @ivar target: path and query, bytes as given; begins with C{/}, or is C{*}.
    @ivar credentials: C{user:password} from the URL, percent-encoded as given.
    @ivar headers: in order.
    @ivar length: the Content-Length that the caller declared.
    @ivar deadline: seconds that ingress will wait, from when it had the head.
    @ivar retry: see L{Retry}.
    @ivar urgency: RFC 9218, 0 first, 7 last.
    @ivar caller: the caller's address, for Forwarded.
    """

    method: bytes
    scheme: str
    host: str
    target: bytes = field(repr=False)
    headers: Fields = field(converter=_in_order, default=(), repr=False)
    port: int | None = None
    credentials: bytes | None = field(default=None, repr=False)
    length: int | None = None
    deadline: float = 60.0
    retry: Retry = Retry.IDEMPOTENT
    urgency: int = 3
    caller: str | None = None

    @property
    def authority(self) -> bytes:
        """The value for Host: host, brackets where IPv6, and the port if one was given."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port is None else f"{host}:{self.port}").encode("ascii")


@frozen
class ResponseHead:
    """
    A response without its body.

    @ivar status: 200..999; interim responses do not cross.
    @ivar reason: as given, may be empty.
    @ivar headers: in order, without hop-by-hop fields, Content-Length and Transfer-Encoding.
    @ivar length: the Content-Length that the service declared, also where no body
        follows (HEAD, 304).
    @ivar callee: the address that answered.
    @ivar stages: (name, seconds since the request was complete at egress) of what happened.
    """

    status: int
    reason: bytes = b""
    headers: Fields = field(converter=_in_order, default=(), repr=False)
    length: int | None = None
    callee: str | None = None
    stages: Sequence[tuple[str, float]] = field(converter=_as_they_came, default=())


def encode_head(head: RequestHead | ResponseHead) -> bytes:
    """
    @raise ValueError: larger than L{MAX_HEAD} or with more than L{MAX_FIELDS} fields.
    """
    values: dict[str, Any] = {"headers": [list(pair) for pair in head.headers]}
    optional: dict[str, Any]
    if isinstance(head, RequestHead):
        values |= {
            "method": head.method,
            "scheme": head.scheme,
            "host": head.host,
            "target": head.target,
            "deadline": max(1, round(head.deadline * 1e6)),
            "retry": head.retry.value,
            "urgency": head.urgency,
        }
        optional = {
            "port": head.port,
            "credentials": head.credentials,
            "length": head.length,
            "caller": head.caller,
        }
    else:
        stages = [[name, round(seconds * 1e6)] for name, seconds in head.stages]
        values |= {"status": head.status, "reason": head.reason, "stages": stages}
        optional = {"length": head.length, "callee": head.callee}
    values |= {name: value for name, value in optional.items() if value is not None}
    encoded = cbor.encode(values)
    if len(encoded) > MAX_HEAD or len(head.headers) > MAX_FIELDS:
        raise ValueError(f"a head of {len(encoded)} bytes and {len(head.headers)} fields")
    return encoded


def decode_request(data: bytes) -> RequestHead:
    """
    @param data: the bodies of all HEAD parts, joined.
    @raise RecordError: it has not the form of a request's head.
    """
    values = _checked(_decode(data, MAX_HEAD), _REQUEST, _REQUEST_OPTIONAL)
    return RequestHead(
        **values
        | {
            "headers": _fields(values["headers"]),
            "deadline": values["deadline"] / 1e6,
            "retry": Retry(values["retry"]),
        }
    )


def decode_response(data: bytes) -> ResponseHead:
    """
    @param data: the bodies of all HEAD parts, joined.
    @raise RecordError: it has not the form of a response's head.
    """
    values = _checked(_decode(data, MAX_HEAD), _RESPONSE, _RESPONSE_OPTIONAL)
    stages = _pairs(values["stages"], str, int)
    if len(stages) > 16 or not all(0 <= at <= MAX_MICROSECONDS for _, at in stages):
        raise RecordError("stages out of bounds")
    return ResponseHead(
        **values
        | {
            "headers": _fields(values["headers"]),
            "stages": tuple((name, at / 1e6) for name, at in stages),
        }
    )


def encode_fields(fields: Fields) -> bytes:
    """The form in which trailers cross."""
    return cbor.encode([list(pair) for pair in fields])


def decode_fields(data: bytes) -> Fields:
    """
    @raise RecordError: not a list of fields.
    """
    return _fields(_decode(data, MAX_HEAD))


def _decode(data: bytes, limit: int) -> Any:
    try:
        return cbor.decode_strict(data, limit=limit)
    except cbor.CborError as error:
        raise RecordError(str(error)) from error


def _pairs(values: Any, first: type, second: type) -> list[tuple[Any, Any]]:
    if type(values) is not list:
        raise RecordError("pairs that are no list")
    for pair in values:
        if type(pair) is not list or [type(one) for one in pair] != [first, second]:
            raise RecordError("a pair that is none")
    return [(pair[0], pair[1]) for pair in values]


def _fields(values: Any) -> tuple[tuple[bytes, bytes], ...]:
    pairs = _pairs(values, bytes, bytes)
    if len(pairs) > MAX_FIELDS:
        raise RecordError(f"{len(pairs)} fields")
    return tuple(pairs)


Checks = Mapping[str, Callable[[Any], bool]]


@frozen
class _Integer:
    least: int
    most: int

    def __call__(self, value: Any) -> bool:
        return type(value) is int and self.least <= value <= self.most


@frozen
class _Text:
    least: int = 1
    most: int = 255

    def __call__(self, value: Any) -> bool:
        return type(value) is str and self.least <= len(value) <= self.most and value.isascii()


@frozen
class _Bytes:
    least: int
    most: int

    def __call__(self, value: Any) -> bool:
        return type(value) is bytes and self.least <= len(value) <= self.most


def _listed(value: Any) -> bool:
    return type(value) is list


def _scheme(value: Any) -> bool:
    return value in ("http", "https")


def _retry(value: Any) -> bool:
    return type(value) is str and value in {one.value for one in Retry}


_LENGTH = _Integer(0, (1 << 63) - 1)
_REQUEST: Final[Checks] = {
    "method": _Bytes(1, 64),
    "scheme": _scheme,
    "host": _Text(),
    "target": _Bytes(1, MAX_HEAD),
    "headers": _listed,
    "deadline": _Integer(1, MAX_MICROSECONDS),
    "retry": _retry,
    "urgency": _Integer(0, 7),
}
_REQUEST_OPTIONAL: Final[Checks] = {
    "port": _Integer(1, 65535),
    "credentials": _Bytes(0, 4096),
    "length": _LENGTH,
    "caller": _Text(),
}
_RESPONSE: Final[Checks] = {
    "status": _Integer(200, 999),
    "reason": _Bytes(0, 4096),
    "headers": _listed,
    "stages": _listed,
}
_RESPONSE_OPTIONAL: Final[Checks] = {"length": _LENGTH, "callee": _Text()}


def _checked(values: Any, required: Checks, optional: Checks) -> dict[str, Any]:
    if type(values) is not dict or not required.keys() <= values.keys() <= required.keys() | optional.keys():
        raise RecordError("a head with other members than it must have")
    for name, value in values.items():
        if not (required.get(name) or optional[name])(value):
            raise RecordError(f"a head with an impossible {name}")
    return values
