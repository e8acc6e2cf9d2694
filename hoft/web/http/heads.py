"""
The heads of requests and responses as values, and their one form in CBOR: an array, whose members
are always all there, in an order of their own; L{encode_head} says in which.  C{null} stands for
what is not known; headers, trailers and stages are arrays in which first and second of each pair alternate.

Whatever is wrong in what a peer sent is a L{RecordError}; that names and values are
proper HTTP is for L{hoft.web.http.fields} to check.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum
from typing import Any, Final

from attrs import field, frozen

from hoft import cbor
from hoft.errors import RecordError

Field = tuple[bytes, bytes]
"""Name and value of a header or trailer field."""

Fields = Sequence[Field]
"""As they came, in order, repetitions kept apart."""

MAX_HEAD: Final = 256 * 1024
"""The most bytes a HEAD has in CBOR."""

MAX_FIELDS: Final = 1000
"""The most header fields of one message."""

MAX_STAGES: Final = 16
"""The most stages of one response."""

MAX_MICROSECONDS: Final = 1 << 53


class Retry(Enum):
    """May a request be made again when a crash left its outcome unknown?"""

    NEVER = "never"
    IDEMPOTENT = "idempotent"
    """If its method is idempotent (RFC 9110 section 9.2.2) or it has an Idempotency-Key."""
    ALWAYS = "always"


def _in_order(fields: Iterable[Field]) -> Fields:
    return tuple(fields)


def _as_they_came(stages: Iterable[tuple[str, float]]) -> Sequence[tuple[str, float]]:
    return tuple(stages)


@frozen
class RequestHead:
    """
    A request without its body: where it goes and what it says.

    Hop-by-hop fields are gone, and so are Host and Transfer-Encoding, which egress makes
    anew.  A Content-Length among the fields says where it stood and how it was spelled; its
    value does not count, but the length that really came does.

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
    @ivar told: ingress wants to know when the service is asked.
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
    told: bool = False

    @property
    def authority(self) -> bytes:
        """The value for Host: host, brackets where IPv6, and the port if one was given."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port is None else f"{host}:{self.port}").encode("ascii")

    @property
    def url(self) -> bytes:
        """What is called, without credentials."""
        return b"%b://%b%b" % (self.scheme.encode("ascii"), self.authority, self.target)


@frozen
class ResponseHead:
    """
    A response without its body.

    @ivar status: 200..999, or 101 where another protocol was asked for; interim responses do not cross.
    @ivar reason: as given, may be empty.
    @ivar headers: in order, without hop-by-hop fields and Transfer-Encoding.  A Content-Length
        among them says where it stood and how it was spelled; its value does not count.
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
    values: list[Any]
    if isinstance(head, RequestHead):
        values = [
            head.method,
            head.scheme,
            head.host,
            head.port,
            head.target,
            head.credentials,
            head.length,
            max(1, round(head.deadline * 1e6)),
            head.retry.value,
            head.urgency,
            head.caller,
            head.told,
        ]
    else:
        stages = [one for name, seconds in head.stages for one in (name, round(seconds * 1e6))]
        values = [head.status, head.reason, head.length, head.callee, stages]
    values.append(_flat(head.headers))
    encoded = cbor.encode(values, known=True)
    if len(encoded) > MAX_HEAD or len(head.headers) > MAX_FIELDS:
        raise ValueError(f"a head of {len(encoded)} bytes and {len(head.headers)} fields")
    return encoded


def decode_request(data: bytes) -> RequestHead:
    """
    @param data: as L{encode_head} makes it.
    @raise RecordError: it has not the form of a request's head.
    """
    values = _decode(data, _check_request)
    method, scheme, host, port, target, credentials, length, deadline, retry, urgency, caller, *rest = values
    told, fields = rest
    return RequestHead(
        method,
        scheme,
        host,
        target,
        _pairs(fields),
        port,
        credentials,
        length,
        deadline / 1e6,
        _RETRIES[retry],
        urgency,
        caller,
        told,
    )


def decode_response(data: bytes, upgraded: bool = False) -> ResponseHead:
    """
    @param data: as L{encode_head} makes it.
    @param upgraded: it may be a 101 (Switching Protocols), too.
    @raise RecordError: it has not the form of a response's head.
    """
    check = _check_upgraded if upgraded else _check_response
    status, reason, length, callee, stages, fields = _decode(data, check)
    times = tuple((name, at / 1e6) for name, at in _pairs(stages))
    return ResponseHead(status, reason, _pairs(fields), length, callee, times)


def encode_fields(fields: Fields) -> bytes:
    """The form in which trailers cross."""
    return cbor.encode(_flat(fields), known=True)


def decode_fields(data: bytes) -> Fields:
    """
    @raise RecordError: not a list of fields.
    """
    return _pairs(_decode(data, _check_fields))


def _flat(fields: Fields) -> list[bytes]:
    return [one for pair in fields for one in pair]


def _pairs(flat: list[Any]) -> tuple[tuple[Any, Any], ...]:
    members = iter(flat)
    return tuple(zip(members, members, strict=True))


# --- What a peer may have sent ------------------------------------------------------------
#
# These look at every value there is, so that none is of a type which CBOR must not have here.


def _decode(data: bytes, check: Callable[[Any], None]) -> Any:
    try:
        return cbor.decode_strict(data, limit=MAX_HEAD, check=check)
    except cbor.CborError as error:
        raise RecordError(str(error)) from error


Check = Callable[[Any], bool]


def _integer(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _text(most: int) -> Check:
    return lambda value: type(value) is str and 1 <= len(value) <= most and value.isascii()


def _bytes(least: int, most: int) -> Check:
    return lambda value: type(value) is bytes and least <= len(value) <= most


def _one_of(values: Collection[str]) -> Check:
    return lambda value: type(value) is str and value in values


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _are_fields(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) % 2 == 0
        and len(value) <= 2 * MAX_FIELDS
        and set(map(type, value)) <= _ONLY_BYTES
    )


def _are_stages(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) % 2 == 0
        and len(value) <= 2 * MAX_STAGES
        and all(map(_STAGE, value[::2]))
        and all(map(_TIME, value[1::2]))
    )


_ONLY_BYTES = frozenset((bytes,))
_STAGE = _text(255)
_TIME = _integer(0, MAX_MICROSECONDS)
_RETRIES: Final = {one.value: one for one in Retry}
_STATUS = _integer(200, 999)
_LENGTH = _or_none(_integer(0, (1 << 63) - 1))
_ADDRESS = _or_none(_text(255))
_REQUEST: Final = (
    ("method", _bytes(1, 64)),
    ("scheme", _one_of(("http", "https"))),
    ("host", _text(255)),
    ("port", _or_none(_integer(1, 65535))),
    ("target", _bytes(1, MAX_HEAD)),
    ("credentials", _or_none(_bytes(0, 4096))),
    ("length", _LENGTH),
    ("deadline", _integer(1, MAX_MICROSECONDS)),
    ("retry", _one_of(_RETRIES)),
    ("urgency", _integer(0, 7)),
    ("caller", _ADDRESS),
    ("told", lambda value: type(value) is bool),
    ("headers", _are_fields),
)
_RESPONSE: Final = (
    ("status", _STATUS),
    ("reason", _bytes(0, 4096)),
    ("length", _LENGTH),
    ("callee", _ADDRESS),
    ("stages", _are_stages),
    ("headers", _are_fields),
)


_UPGRADED: Final = (("status", lambda value: value == 101 or _STATUS(value)), *_RESPONSE[1:])


def _check(value: Any, members: Sequence[tuple[str, Check]]) -> None:
    if type(value) is not list or len(value) != len(members):
        raise RecordError("a head with other members than it must have")
    for (name, check), one in zip(members, value, strict=True):
        if not check(one):
            raise RecordError(f"a head with an impossible {name}")


def _check_request(value: Any) -> None:
    _check(value, _REQUEST)


def _check_response(value: Any) -> None:
    _check(value, _RESPONSE)


def _check_upgraded(value: Any) -> None:
    _check(value, _UPGRADED)


def _check_fields(value: Any) -> None:
    if not _are_fields(value):
        raise RecordError("what are no fields")
