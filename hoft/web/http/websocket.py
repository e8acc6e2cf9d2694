"""
The opening handshake of WebSocket (RFC 6455 section 4) as those between the two sides see it: pure.

It is a request with Upgrade (RFC 9110 section 7.8).  What comes after the 101 that
answers it is nobody's business but that of the two.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha1
from typing import Final

from hoft.web.http.fields import FRAMING, FieldList, elements, values, without
from hoft.web.http.heads import Fields
from hoft.web.http.problems import Refused, malformed_request
from hoft.web.http.requests import Request
from hoft.web.http.responses import ReceivedHead

PROTOCOL: Final = b"websocket"
"""What Upgrade names."""

TARGET: Final = "websocket:"
"""What streams for WebSocket are opened to: no service that a program offers has such a name."""

SWITCHING: Final = 101
"""The status that lets both begin."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_UPGRADE: Final = ((b"Connection", b"Upgrade"), (b"Upgrade", PROTOCOL))


def is_handshake(request: Request) -> bool:
    """Whether it asks for WebSocket; how well is for L{key} and the service to say."""
    return PROTOCOL in request.upgrade and request.method == b"GET" and request.version == (1, 1)


def key(fields: Fields) -> bytes:
    """
    What a request is to be answered to.

    @raise Refused: 400: there is not the one Sec-WebSocket-Key that there must be.
    """
    found = values(fields, b"sec-websocket-key")
    if len(found) != 1 or not _KEY.fullmatch(found[0]):
        raise Refused(
            malformed_request("a WebSocket handshake has one Sec-WebSocket-Key, of 16 bytes in base64")
        )
    return found[0]


def accept(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers a key."""
    return b64encode(sha1(key + _GUID).digest())


def with_upgrade(fields: Fields) -> FieldList:
    """Fields of a handshake's request or answer, with those that concern the connection."""
    return [*without(fields, FRAMING), *_UPGRADE]


def mismatch(head: ReceivedHead, key: bytes) -> str | None:
    """What of a 101 does not answer the handshake with this key; C{None} if all is well."""
    if [one.lower() for one in elements(head.fields, b"upgrade")] != [PROTOCOL]:
        return "it does not switch to websocket"
    if b"upgrade" not in (one.lower() for one in elements(head.fields, b"connection")):
        return "its Connection does not say upgrade"
    if values(head.fields, b"sec-websocket-accept") != [accept(key)]:
        return "its Sec-WebSocket-Accept does not answer the key"
    return None
