"""
Header fields as RFC 9110 and 9112 have them: what they consist of, and what they say of a message.

Fields are (name, value) byte pairs, in order, repetitions kept apart.  A function
that finds a mistake raises L{Refused} with the problem that its C{blame} makes: by
default that the request is malformed; for a response give
L{hoft.web.http.problems.bad_response}.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from attrs import evolve, field, frozen

from hoft.web.http.heads import Field, Fields
from hoft.web.http.problems import (
    Blame,
    Refused,
    bad_response,
    expectation_failed,
    malformed_request,
    not_implemented,
)

FieldList = list[Field]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
"""What a token matches (RFC 9110 section 5.6.2): methods and field names are some."""

MEMBER = re.compile(rb"""[ \t]*+(%b+)((?:"(?:[^"\\]|\\.)*+"|[^,"])*+)(?:,|$)""" % TOKEN)
"""One of a list, as of directives or preferences: its name, and all else that is said with it."""

DIGITS = re.compile(rb"[0-9]{1,18}")
"""A number that nobody has to think about how large it is."""

FRAMING = frozenset((b"content-length", b"transfer-encoding"))
"""Names of what says where a body ends."""

_TOKEN = re.compile(TOKEN)
_TOKENS = re.compile(b"(?:%b\\n)*%b" % (TOKEN, TOKEN))
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = b"content-length"


# --- Looking at fields ------------------------------------------------------------


def values(fields: Fields, name: bytes) -> list[bytes]:
    """The values of all fields called C{name} (lower-case), in order."""
    return [value for key, value in fields if key.lower() == name]


def elements(fields: Fields, name: bytes) -> list[bytes]:
    """Those values as one list of tokens (RFC 9110 section 5.6.1), without empty elements."""
    found = (element.strip(b" \t") for value in values(fields, name) for element in value.split(b","))
    return [element for element in found if element]


def without(fields: Fields, names: Iterable[bytes]) -> FieldList:
    """All fields but those called one of C{names} (lower-case)."""
    unwanted = frozenset(names)
    return [(key, value) for key, value in fields if key.lower() not in unwanted]


def is_token(text: bytes) -> bool:
    """All of it is one L{TOKEN}."""
    return _TOKEN.fullmatch(text) is not None


def are_tokens(texts: Sequence[bytes]) -> bool:
    """All of them are: looked at in one go, joined by what is in no token."""
    together = b"\n".join(texts)
    return not texts or (_TOKENS.fullmatch(together) is not None and together.count(b"\n") == len(texts) - 1)


def check_fields(fields: Fields, blame: Blame = malformed_request) -> None:
    """
    Names are tokens, and values hold no CR, LF, NUL or other control than HTAB
    (RFC 9110 section 5.5); so there is no obs-fold either (RFC 9112 section 5.2).

    @raise Refused:
    """
    said = [value for _, value in fields]
    if (
        are_tokens([name for name, _ in fields])
        and not _CONTROLS.search(b" ".join(said))
        and [value.strip(b" \t") for value in said] == said
    ):
        return
    for name, value in fields:
        if not _TOKEN.fullmatch(name):
            raise Refused(blame(f"{_shown(name)} is not a field name"))
        if _CONTROLS.search(value):
            raise Refused(blame(f"the value of {_shown(name)} has a control character"))
        if value != value.strip(b" \t"):
            raise Refused(blame(f"the value of {_shown(name)} begins or ends with white space"))


def _shown(text: bytes) -> str:
    """C{text} in a message, short and in ASCII."""
    return repr(text[:60])[1:]


# --- Framing ------------------------------------------------------------------------


class Body(Enum):
    """How a message's body is delimited (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


@frozen
class Framing:
    """
    Where a message's body ends.

    @ivar length: what Content-Length declared, also where no body follows (responses
        to HEAD, 304); C{None} if it declared nothing.
    """

    body: Body
    length: int | None = None


def content_length(fields: Fields, blame: Blame = malformed_request) -> int | None:
    """
    The one Content-Length: digits only; several, even if equal, and lists are refused
    (RFC 9112 section 6.3 allows that, and no harmless sender needs them).

    @raise Refused:
    """
    found = values(fields, b"content-length")
    if not found:
        return None
    if len(found) > 1:
        raise Refused(blame("there is more than one Content-Length"))
    if not DIGITS.fullmatch(found[0]):
        raise Refused(blame(f"{_shown(found[0])} is not a Content-Length"))
    return int(found[0])


def request_framing(version: tuple[int, int], fields: Fields) -> Framing:
    """
    RFC 9112 section 6: what follows a request's head.

    @param version: of the request, as C{(1, 1)}.
    @raise Refused: the framing could be read in two ways, or uses another coding
        than chunked.
    """
    length = content_length(fields)
    if not values(fields, b"transfer-encoding"):
        return Framing(Body.LENGTH if length else Body.NONE, length)
    if length is not None:
        raise Refused(malformed_request("both Content-Length and Transfer-Encoding"))
    if version < (1, 1):
        raise Refused(malformed_request("Transfer-Encoding in a request of HTTP/1.0"))
    codings = [value.strip(b" \t").lower() for value in values(fields, b"transfer-encoding")]
    if codings == [b"chunked"]:
        return Framing(Body.CHUNKED)
    if codings[-1].rpartition(b",")[2].strip(b" \t") != b"chunked":
        raise Refused(malformed_request("a Transfer-Encoding that does not end in chunked"))
    raise Refused(not_implemented(f"the transfer coding {_shown(b', '.join(codings))}"))


def response_framing(method: bytes, status: int, fields: Fields, blame: Blame = bad_response) -> Framing:
    """
    RFC 9112 section 6.3: what follows a response's head.

    @param method: of the request; case matters.
    @raise Refused: the framing could be read in two ways.
    """
    length = content_length(fields, blame)
    codings = [value.strip(b" \t").lower() for value in values(fields, b"transfer-encoding")]
    if codings and length is not None:
        raise Refused(blame("both Content-Length and Transfer-Encoding"))
    if method == b"HEAD" or status == 304:
        return Framing(Body.NONE, length)
    if status < 200 or status == 204 or (method == b"CONNECT" and status < 300):
        return Framing(Body.NONE)
    if codings:
        if codings != [b"chunked"]:
            raise Refused(blame(f"the transfer coding {_shown(b', '.join(codings))} was not asked for"))
        return Framing(Body.CHUNKED)
    if length is None:
        return Framing(Body.UNTIL_CLOSE)
    return Framing(Body.LENGTH if length else Body.NONE, length)


def with_length(fields: Iterable[Field], length: int | None) -> FieldList:
    """
    The fields with just this Content-Length, or none: where the first one stood, spelled
    as that was; behind the others if there was none.
    """
    left = None if length is None else b"%d" % length
    placed: FieldList = []
    for pair in fields:
        name = pair[0]
        if len(name) != len(_LENGTH) or name.lower() != _LENGTH:
            placed.append(pair)
        elif left is not None:
            placed.append((name, left))
            left = None
    if left is not None:
        placed.append((b"Content-Length", left))
    return placed


# --- Host -----------------------------------------------------------------------------

_NAME = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=]+")
_PORT = re.compile(rb"[0-9]{0,5}")

# Neither these nor what else is said of it show what was given, in which a password may be.
_NO_HOST = "what stands for a host is none: neither a name nor an address, or IPv6 without brackets"


@frozen
class Authority:
    """
    A host and port, as given but for the case.

    @ivar host: lower-case; IPv6 without brackets.
    @ivar port: C{None} where none was given.
    @ivar credentials: what was before C{@}, if that was allowed.
    """

    host: str
    port: int | None = None
    credentials: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """For messages: without the credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def authority(text: bytes, credentials: bool = False, blame: Blame = malformed_request) -> Authority:
    """
    Read C{host[:port]}, as in Host (RFC 9110 section 7.2) and in URLs (RFC 3986
    section 3.2).  Percent-encoded and non-ASCII hosts are refused, as are IPv6 zones:
    each program along the way would read them in its own way.

    @param credentials: is C{userinfo@} allowed?
    @raise Refused:
    """
    before, at, rest = text.rpartition(b"@")
    if not at:
        return _host_and_port(rest, blame)
    if not credentials:
        raise Refused(blame("credentials where only a host may be"))
    if not re.fullmatch(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})*", before):
        raise Refused(blame("credentials with characters that must be percent-encoded"))
    return evolve(_host_and_port(rest, blame), credentials=before)


@lru_cache(1024)
def _host_and_port(rest: bytes, blame: Blame) -> Authority:
    """Few are named again and again; none that passes is longer than its name may be."""
    if rest.startswith(b"["):
        literal, bracket, port = rest[1:].partition(b"]")
        try:
            host = str(IPv6Address(literal.decode("ascii")))
        except (AddressValueError, UnicodeDecodeError):
            host = ""
        if not bracket or not host or "%" in host or (port and not port.startswith(b":")):
            raise Refused(blame(_NO_HOST))
        port = port[1:]
    else:
        name, _, port = rest.partition(b":")
        if not _NAME.fullmatch(name) or len(name) > 253:
            raise Refused(blame(_NO_HOST))
        host = name.decode("ascii").lower()
    if not _PORT.fullmatch(port) or (port and not 0 < int(port) < 65536):
        raise Refused(blame("the port of a host is a number from 1 to 65535"))
    return Authority(host, int(port) if port else None)


def host(version: tuple[int, int], fields: Fields) -> Authority | None:
    """
    The one Host of a request (RFC 9112 section 3.2); C{None} where HTTP/1.0 left it
    out, or where it is empty.

    @raise Refused: none, several, or not a host.
    """
    found = values(fields, b"host")
    if not found and version < (1, 1):
        return None
    if len(found) != 1:
        raise Refused(malformed_request(f"{len(found) or 'no'} Host fields where there must be one"))
    return authority(found[0]) if found[0] else None


def expects_continue(version: tuple[int, int], fields: Fields) -> bool:
    """
    Does the caller wait for 100 before it sends the body (RFC 9110 section 10.1.1)?

    @raise Refused: 417: it expects something else.
    """
    expected = [element.lower() for element in elements(fields, b"expect")]
    if version < (1, 1) or not expected:
        return False
    if expected != [b"100-continue"]:
        raise Refused(expectation_failed(f"only 100-continue is known, not {_shown(expected[0])}"))
    return True
