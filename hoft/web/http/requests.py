"""
HTTP/1.1 requests as they come from a caller, in whatever pieces, and the heads
of the responses to them: pure.

Both are as strict as RFC 9112 lets a server be, and refuse everything that
another implementation might read differently: what is let through here is
carried on as structured fields, never as raw text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import define, evolve

from hoft.errors import LocalError
from hoft.web.http.fields import (
    TOKEN,
    Authority,
    Body,
    elements,
    expects_continue,
    host,
    is_token,
    request_framing,
)
from hoft.web.http.heads import Field
from hoft.web.http.problems import Refused, headers_too_large, malformed_request

MAX_HEAD = 1 << 16
"""The most bytes of a request line and its fields together."""

MAX_FIELDS = 256
"""The most fields of one message."""

MAX_CHUNK_LINE = 256
"""The most bytes of a chunk's size and extensions."""

_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELDS = re.compile(rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

_HANDSHAKE = 0x16
"""The first byte of TLS (RFC 8446 section 5.1)."""

_NOTABLE = frozenset((b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"))
_NEVER_TRAILERS = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"trailer"))


class BadResponse(LocalError):
    """A response that must not be written: a field or reason that is none, or a body of another length."""


@define(eq=False)
class Request:
    """The head of one request, valid by RFC 9112 but not judged further."""

    method: bytes
    target: bytes
    version: tuple[int, int]
    """(1, 0), or (1, 1) for all later HTTP/1."""
    fields: list[Field]
    """As sent and in order, hop-by-hop ones too, without white space around values."""
    host: Authority | None
    """What the one C{Host} field says; C{None} if it is empty, or HTTP/1.0 left it out."""
    length: int | None
    """Bytes of body to come; C{None} where it is chunked and not known."""
    persistent: bool
    """Whether the caller would send another request on the connection."""
    expects_continue: bool
    """Whether the caller waits for C{100 (Continue)} before it sends the body."""
    upgrade: Sequence[bytes] = ()
    """Protocols, in lower case, to which the caller would change; empty for none."""


class RequestParser:
    """
    The requests of one connection, one after the other.

    Feed it with L{receive}; take a head with L{request}, then its body with
    L{body} until L{ended}, then the next head.  It holds no more than was
    received and not taken.  After L{Refused} it must not be used again.

    @param max_head: the most bytes of a head, and of a body's trailers.
    @ivar ended: the body of the last head, and its trailers, are complete;
        C{True} also before the first head.
    @ivar trailers: the fields after a chunked body.
    """

    def __init__(self, max_head: int = MAX_HEAD) -> None:
        self._max_head = max_head
        self._buffer = b""
        self._searched = 0
        self._line_ended = False  # and is one; in what was searched
        self._remaining = 0  # of the body, or of the chunk
        self._chunked = False
        self._after_chunk = False
        self._in_trailers = False
        self.ended = True
        self.trailers: list[Field] = []

    def receive(self, data: bytes) -> None:
        """Take in what came next on the connection."""
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def held(self) -> int:
        """Bytes received and not taken."""
        return len(self._buffer)

    def rest(self) -> bytes:
        """Take all of them as they are: the connection becomes something else."""
        buffer, self._buffer = self._buffer, b""
        return buffer

    # --- heads -------------------------------------------------------------

    def request(self) -> Request | None:
        """
        The next head, or C{None} until all of it is here.  Only when L{ended}.

        @raise Refused: 400, 414, 417, 431, 501 or 505.
        """
        buffer = self._buffer
        if buffer[:1] == b"\r":
            # RFC 9112 2.2: empty lines before a request line are to be ignored.
            while buffer[:2] == b"\r\n":
                buffer = buffer[2:]
            self._buffer = buffer
            self._searched = 0
        end = buffer.find(b"\r\n\r\n", self._searched, self._max_head + 4)
        if end < 0:
            self._check_partial(buffer)
            self._searched = max(0, len(buffer) - 3)
            return None
        self._buffer = buffer[end + 4 :]
        self._searched = 0
        self._line_ended = False
        return self._head(buffer[: end + 2])

    def _check_partial(self, buffer: bytes) -> None:
        """Refuse early what will never become a head; looks only at what is new."""
        if not self._searched and buffer and buffer != b"\r" and not is_token(buffer[:1]):
            what = "TLS begins like that, and this port speaks none" if buffer[0] == _HANDSHAKE else "no HTTP"
            raise Refused(malformed_request(f"the request line is malformed: {what}"))
        at = buffer.find(b"\n", self._searched)
        while at >= 0:
            if buffer[at - 1 : at] != b"\r":
                raise Refused(malformed_request("a line does not end with CR LF"))
            at = buffer.find(b"\n", at + 1)
        if not self._line_ended:
            end = buffer.find(b"\r\n", self._searched)
            self._line_ended = end >= 0
            if self._line_ended and not _LINE.fullmatch(buffer, 0, end):
                raise Refused(malformed_request("the request line is malformed"))
        if len(buffer) > self._max_head:
            if buffer.find(b"\r\n", 0, self._max_head + 2) >= 0:
                raise Refused(headers_too_large(f"the header fields are larger than {self._max_head} bytes"))
            too_long = headers_too_large(f"the request line is longer than {self._max_head} bytes")
            raise Refused(evolve(too_long, status=414))

    def _head(self, block: bytes) -> Request:
        start = block.index(b"\r\n") + 2
        line = _LINE.fullmatch(block, 0, start - 2)
        if line is None:
            raise Refused(malformed_request("the request line is malformed"))
        method, target, major, minor = line.groups()
        if major != b"1":
            raise Refused(evolve(malformed_request("only HTTP/1.0 and HTTP/1.1 are spoken here"), status=505))
        if _FIELDS.fullmatch(block, start) is None:
            raise Refused(malformed_request("a header field is malformed"))
        fields: list[Field] = []
        for text in block[start:-2].split(b"\r\n") if len(block) > start else ():
            name, _, value = text.partition(b":")
            fields.append((name, value.strip(b" \t")))
        if len(fields) > MAX_FIELDS:
            raise Refused(headers_too_large(f"there are more than {MAX_FIELDS} header fields"))
        version = (1, 1) if minor != b"0" else (1, 0)
        hosts = [field for field in fields if field[0].lower() == b"host"]
        notable = [field for field in fields if field[0].lower() in _NOTABLE]
        framing = request_framing(version, notable)
        options = [option.lower() for option in elements(notable, b"connection")]
        self.trailers = []
        self._remaining = framing.length or 0
        self._chunked = framing.body is Body.CHUNKED
        self._after_chunk = self._in_trailers = False
        self.ended = framing.body is Body.NONE
        return Request(
            method=method,
            target=target,
            version=version,
            fields=fields,
            host=host(version, hosts),
            length=None if self._chunked else self._remaining,
            persistent=b"close" not in options and (version == (1, 1) or b"keep-alive" in options),
            expects_continue=expects_continue(version, notable) and not self.ended,
            upgrade=_upgrade(notable) if b"upgrade" in options else (),
        )

    # --- bodies ------------------------------------------------------------

    def body(self) -> bytes:
        """
        What is here of the body and was not taken; sets L{ended} with its last byte.

        @raise Refused: 400 or 431 for bad chunks or trailers.
        """
        if self.ended:
            return b""
        if self._chunked:
            return self._chunks()
        buffer = self._buffer
        if len(buffer) <= self._remaining:
            self._buffer = b""
        else:
            self._buffer = buffer[self._remaining :]
            buffer = buffer[: self._remaining]
        self._remaining -= len(buffer)
        self.ended = not self._remaining
        return buffer

    def _chunks(self) -> bytes:
        buffer = self._buffer
        pieces: list[bytes] = []
        at = 0
        while not self._in_trailers:
            if self._remaining:
                piece = buffer[at : at + self._remaining]
                if not piece:
                    break
                pieces.append(piece)
                at += len(piece)
                self._remaining -= len(piece)
                self._after_chunk = not self._remaining
            if self._after_chunk:
                ending = buffer[at : at + 2]
                if ending != b"\r\n"[: len(ending)]:
                    raise Refused(malformed_request("a chunk is longer than its size says"))
                if len(ending) < 2:
                    break
                at += 2
                self._after_chunk = False
            end = buffer.find(b"\r\n", at, at + MAX_CHUNK_LINE + 2)
            if end < 0:
                if len(buffer) - at > MAX_CHUNK_LINE or b"\n" in buffer[at:]:
                    raise Refused(malformed_request("a chunk's size is malformed"))
                break
            size = _CHUNK.fullmatch(buffer, at, end)
            if size is None:
                raise Refused(malformed_request("a chunk's size is malformed"))
            self._remaining = int(size[1], 16)
            # The line end of the last chunk's size stays: it is the one before the trailers' end.
            at = end + 2 if self._remaining else end
            self._in_trailers = not self._remaining
        self._buffer = buffer[at:] if at else buffer
        if self._in_trailers:
            self._take_trailers()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_trailers(self) -> None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", 0, self._max_head + 6)
        if end < 0:
            if len(buffer) > self._max_head:
                raise Refused(headers_too_large(f"the trailers are larger than {self._max_head} bytes"))
            return
        block = buffer[2 : end + 2]
        if _FIELDS.fullmatch(block) is None:
            raise Refused(malformed_request("a trailer field is malformed"))
        for text in block[:-2].split(b"\r\n") if block else ():
            name, _, value = text.partition(b":")
            if name.lower() in _NEVER_TRAILERS:
                raise Refused(malformed_request("a field that frames messages came as a trailer"))
            self.trailers.append((name, value.strip(b" \t")))
        if len(self.trailers) > MAX_FIELDS:
            raise Refused(headers_too_large(f"there are more than {MAX_FIELDS} trailers"))
        self._buffer = buffer[end + 4 :]
        self.ended = True


def _upgrade(fields: Iterable[Field]) -> Sequence[bytes]:
    return [protocol.lower() for protocol in elements(list(fields), b"upgrade")]


def field_block(fields: Iterable[Field]) -> bytes:
    """
    Fields as they stand in a message, each with its line end.

    @raise BadResponse: one of them would not be read back as it is.
    """
    lines = [b"%b: %b\r\n" % field for field in fields]
    block = b"".join(lines)
    if block.count(b"\n") != len(lines) or _FIELDS.fullmatch(block) is None:
        raise BadResponse("a field name or value with characters that HTTP forbids")
    return block


def response_head(status: int, reason: bytes, fields: Iterable[Field]) -> bytes:
    """
    The head of a response, complete with its empty line.

    @raise BadResponse: a status, reason or field that HTTP forbids.
    """
    if not 100 <= status <= 999 or _REASON.fullmatch(reason) is None:
        raise BadResponse(f"status {status} or its reason is none of HTTP's")
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, field_block(fields))
