"""
What an intermediary does to the fields that pass through it (RFC 9110 section 7.6): pure.

What is wrong with them is told as in L{hoft.web.http.fields}.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from hoft.web.http.fields import DIGITS, FRAMING, FieldList, elements, values, without
from hoft.web.http.heads import Field, Fields
from hoft.web.http.problems import Refused, loop_detected, malformed_request

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""What concerns one connection, or the proxy itself, and is never forwarded (RFC 9110 7.6.1, 11.7)."""

OWN = HOP_BY_HOP | FRAMING | frozenset((b"expect", b"host", b"trailer", b"via"))
"""What each node says itself of a message that it sends: where that ends, who it is for, who handled it."""

_CONNECTION = b"connection"

_NOT_IN_TRAILERS = (
    HOP_BY_HOP
    | FRAMING
    | frozenset(
        (
            b"age",
            b"authorization",
            b"cache-control",
            b"content-encoding",
            b"content-range",
            b"content-type",
            b"cookie",
            b"date",
            b"expect",
            b"expires",
            b"forwarded",
            b"host",
            b"location",
            b"max-forwards",
            b"pragma",
            b"range",
            b"retry-after",
            b"set-cookie",
            b"trailer",
            b"vary",
            b"via",
            b"warning",
            b"www-authenticate",
            b"x-forwarded-for",
        )
    )
)
"""RFC 9110 section 6.5.1: framing, routing, modifiers, authentication, content handling."""


def end_to_end(fields: Fields, also: Collection[bytes] = ()) -> FieldList:
    """
    What is forwarded: all but the hop-by-hop fields, those that Connection names
    (RFC 9110 section 7.6.1).  Content-Length crosses as a number; the field
    stays to show its place and spelling, see L{with_length}.

    @param also: names (lower-case) of others that are not.
    """
    kept: FieldList = []
    named: list[bytes] = []
    for pair in fields:
        name = pair[0].lower()
        if name == _CONNECTION:
            named.append(pair[1])
        elif name not in HOP_BY_HOP and name not in also:
            kept.append(pair)
    if named:
        return without(kept, (option.strip(b" \t").lower() for option in b",".join(named).split(b",")))
    return kept


def with_via(fields: Fields, protocol: str, pseudonym: str) -> FieldList:
    """
    Append us to Via (RFC 9110 section 7.6.3), as a field of its own.

    @param protocol: in which we received the message: C{"1.1"}, C{"1.0"}, C{"hoft/1"}.
    @param pseudonym: a token that no other node has.
    """
    return [*fields, _via_field(protocol, pseudonym)]


@lru_cache(16)
def _via_field(protocol: str, pseudonym: str) -> Field:
    return b"Via", f"{protocol} {pseudonym}".encode("ascii")


def via(fields: Fields) -> list[str]:
    """Who handled the message, by their names or pseudonyms in lower case, the first first."""
    found = []
    for value in values(fields, b"via"):
        for member in _outside_comments(value.decode("latin-1")).split(","):
            words = member.split()
            if len(words) > 1:
                found.append(words[1].lower())
    return found


def _outside_comments(text: str) -> str:
    """C{text} without its comments, which may nest and hold commas (RFC 9110 section 5.6.5)."""
    if "(" not in text:
        return text
    depth, kept, quoted = 0, [], False
    for character in text:
        if depth and quoted:
            quoted = False
        elif depth and character == "\\":
            quoted = True
        elif character == "(":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
        elif not depth:
            kept.append(character)
    return "".join(kept)


def check_loop(fields: Fields, pseudonym: str) -> None:
    """
    @raise Refused: 502: the message has been here before.
    """
    if pseudonym.lower() in via(fields):
        raise Refused(loop_detected(pseudonym))


def max_forwards(method: bytes, fields: Fields) -> tuple[bool, FieldList]:
    """
    Max-Forwards of TRACE and OPTIONS (RFC 9110 section 7.6.2); others ignore it.

    @return: whether to forward the request at all (if not, we are to answer it), and
        the fields to forward, counted down.
    @raise Refused: it is not a number.
    """
    if method not in (b"TRACE", b"OPTIONS") or not (found := values(fields, b"max-forwards")):
        return True, list(fields)
    if len(found) > 1 or not DIGITS.fullmatch(found[0]):
        raise Refused(malformed_request("Max-Forwards is not one number"))
    left = int(found[0])
    if not left:
        return False, list(fields)
    name = b"max-forwards"
    return True, [(key, b"%d" % (left - 1) if key.lower() == name else value) for key, value in fields]


def with_forwarded(fields: Fields, caller: str, scheme: str, host: str | None) -> FieldList:
    """
    Say for whom we ask: append to Forwarded (RFC 7239) and X-Forwarded-For.

    @param caller: an IP address, or anything else for C{unknown}.
    @param scheme: in which the caller spoke to us.
    @param host: the Host that the caller gave us.
    """
    return [*fields, *_forwarded(caller, scheme, host)]


@lru_cache(1024)
def _forwarded(caller: str, scheme: str, host: str | None) -> Fields:
    try:
        node = f'"[{IPv6Address(caller)}]"' if ":" in caller else ""
    except AddressValueError:
        node = ""
    node = node or (caller if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", caller) else "unknown")
    member = f"for={node};proto={scheme}"
    if host is not None and re.fullmatch(r"[!-~]+", host) and '"' not in host and "\\" not in host:
        member += f';host="{host}"'
    added = [(b"Forwarded", member.encode("ascii"))]
    if node != "unknown":
        added.append((b"X-Forwarded-For", caller.encode("ascii")))
    return tuple(added)


def trailers(fields: Fields) -> FieldList:
    """Those of a trailer section that may be there (RFC 9110 section 6.5.1)."""
    if not fields:
        return []
    named = {option.lower() for option in elements(fields, b"connection")}
    return without(fields, _NOT_IN_TRAILERS | named)
