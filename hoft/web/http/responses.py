"""
HTTP/1.1 responses as they come from a service, in whatever pieces: pure.

L{ResponseParser} is lenient where RFC 9112 lets a recipient be (bare line
feeds, folded lines, no reason phrase) and strict wherever two readers could
disagree about where a response ends.  Names keep their case, fields their order.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Protocol

from attrs import evolve, frozen

from hoft.errors import HoftError
from hoft.web.http.fields import Body, Framing, elements, is_token, response_framing
from hoft.web.http.heads import Field
from hoft.web.http.problems import Problem, Refused, bad_response, connection_terminated, response_incomplete

HEAD_LIMIT = 1 << 16
"""The most bytes of a status line with its fields, and of a trailer section, unless told otherwise."""

_CHUNK_LINE_LIMIT = 1 << 12
_INTERIM_LIMIT = 64

_NOTABLE = frozenset((b"content-length", b"transfer-encoding", b"connection"))
_VERSION = b"HTTP/1."
_NOT_HTTP = "the service's answer is not HTTP/1.1"
_STATUS = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BLANK = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(rb"\r?\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


def phrase(status: int) -> bytes:
    """What C{status} is called (RFC 9110 section 15); empty for what has no name."""
    return _PHRASES.get(status, b"")


_PHRASES = {one.value: one.phrase.encode("ascii") for one in HTTPStatus}


class ServiceError(HoftError):
    """
    A service could not be reached, or what it answered is of no use.

    @ivar problem: what the caller is told.
    @ivar unsent: nothing of the request has left, so it surely had no effect.
    """

    def __init__(self, problem: Problem, unsent: bool = False) -> None:
        self.problem = problem
        self.unsent = unsent
        super().__init__(f"{problem.kind}: {problem.detail}")


@frozen
class ReceivedHead:
    """
    A final response's status line and fields.

    @ivar length: the body's length, C{None} if only its end will tell.
    @ivar declared: what Content-Length says, also where no body follows.
    """

    minor: int
    status: int
    reason: bytes
    fields: tuple[Field, ...]
    length: int | None
    declared: int | None = None


@frozen
class ReceivedEnd:
    """The response is complete."""

    trailers: tuple[Field, ...]


class Answer(Protocol):
    """
    A response whose head has come.

    @ivar address: who answered.
    """

    head: ReceivedHead
    address: str

    def abortConnection(self) -> None:
        """The rest of it is not wanted."""


Event = ReceivedHead | ReceivedEnd | bytes
"""What L{ResponseParser} yields; C{bytes} is a piece of the body, never empty."""


class ResponseParser:
    """
    Reads one final response; interim ones (1xx) before it are skipped.

    @ivar started: anything of it has arrived.
    @ivar done: it is complete.
    @ivar persistent: (when done) the connection may carry another request.
    """

    def __init__(self, method: bytes, limit: int = HEAD_LIMIT, upgrade: bool = False) -> None:
        """
        @param method: the request's: a response to C{HEAD} has no body.
        @param limit: the most bytes of a head, and of a trailer section.
        @param upgrade: the request asked for another protocol: a 101 is a final response,
            and what comes behind it its body, until the connection is closed.
        """
        self.started = False
        self.done = False
        self.persistent = False
        self._method = method
        self._limit = limit
        self._upgrade = upgrade
        self._buffer = b""
        self._searched = 0
        self._interim = 0
        self._left = 0
        self._state = self._head

    def receive(self, data: bytes) -> list[Event]:
        """
        Take what has arrived.

        @raise ServiceError: this is not HTTP/1.1, or more than is allowed; the
            parser is then of no further use.
        """
        self.started = True
        events: list[Event] = []
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at, end = 0, len(data)
        while at < end:
            if self.done:
                self.persistent = False
                break
            reached = self._state(data, at, events)
            if reached is None:
                self._buffer = data[at:]
                break
            at = reached
        return events

    def finish(self) -> list[Event]:
        """
        The service has closed the connection.

        @raise ServiceError: too early.
        """
        if self.done:
            return []
        if self._state == self._until_close:
            self.done = True
            return [ReceivedEnd(())]
        if not self.started:
            raise ServiceError(connection_terminated("the service closed the connection without an answer"))
        raise ServiceError(response_incomplete("the service closed the connection within its answer"))

    # Each state reads data from an offset on and returns how far it came, None if it needs more.

    def _head(self, data: bytes, at: int, events: list[Event]) -> int | None:
        section = self._section(data, at, "http_response_header_section_size")
        if section is None:
            # What speaks another protocol need not send a blank line, nor close the connection.
            if not data.startswith(_VERSION[: len(data) - at], at):
                raise _bad(_NOT_HTTP)
            return None
        lines, end = section
        match = _STATUS.fullmatch(lines[0])
        if match is None:
            raise _bad(_NOT_HTTP)
        minor, status, reason = int(match[1]), int(match[2]), match[3] or b""
        fields = _fields(lines[1:])
        if status < 200:
            self._interim += 1
            if status == 101:
                if not self._upgrade:
                    raise _bad("the service switched protocols unasked", "http_upgrade_failed")
                self._state = self._until_close
                events.append(ReceivedHead(minor, status, reason, fields, None))
                return end
            if self._interim > _INTERIM_LIMIT:
                raise _bad("the service sends interim answers without an end")
            return end
        framing = self._framing(minor, status, fields)
        length = None if framing.body in (Body.CHUNKED, Body.UNTIL_CLOSE) else self._left
        events.append(ReceivedHead(minor, status, reason, fields, length, framing.length))
        if length == 0:
            self._complete(events, ())
        return end

    def _framing(self, minor: int, status: int, fields: tuple[Field, ...]) -> Framing:
        """Where the body ends: set the state."""
        notable = [field for field in fields if field[0].lower() in _NOTABLE]
        try:
            framing = response_framing(self._method, status, notable)
        except Refused as refusal:
            raise ServiceError(refusal.problem) from refusal
        options = [option.lower() for option in elements(notable, b"connection")]
        self.persistent = b"close" not in options and (minor >= 1 or b"keep-alive" in options)
        if framing.body is Body.CHUNKED:
            if minor < 1:
                raise _bad("the answer is of HTTP/1.0 and chunked")
            self._state = self._chunk_line
        elif framing.body is Body.UNTIL_CLOSE:
            self.persistent = False
            self._state = self._until_close
        elif framing.body is Body.LENGTH:
            self._left = framing.length or 0
            self._state = self._counted
        return framing

    def _counted(self, data: bytes, at: int, events: list[Event]) -> int:
        at = self._take(data, at, events)
        if not self._left:
            self._complete(events, ())
        return at

    def _until_close(self, data: bytes, at: int, events: list[Event]) -> int:
        events.append(data[at:])
        return len(data)

    def _chunk_line(self, data: bytes, at: int, events: list[Event]) -> int | None:
        end = data.find(b"\r\n", at, at + _CHUNK_LINE_LIMIT)
        if end < 0:
            if len(data) - at >= _CHUNK_LINE_LIMIT:
                raise _bad("a chunk's first line is too long")
            return None
        match = _CHUNK.fullmatch(data, at, end)
        if match is None:
            raise _bad("a chunk's size is no number")
        self._left = int(match[1], 16)
        if self._left:
            self._state = self._chunk
            return end + 2
        # An empty trailer section's blank line is found together with the last chunk's own line end.
        self._state = self._trailers
        return end

    def _chunk(self, data: bytes, at: int, events: list[Event]) -> int:
        at = self._take(data, at, events)
        if not self._left:
            self._state = self._chunk_end
        return at

    def _chunk_end(self, data: bytes, at: int, events: list[Event]) -> int | None:
        end = data[at : at + 2]
        if not b"\r\n".startswith(end):
            raise _bad("a chunk is longer than it said")
        if len(end) < 2:
            return None
        self._state = self._chunk_line
        return at + 2

    def _trailers(self, data: bytes, at: int, events: list[Event]) -> int | None:
        section = self._section(data, at, "http_response_trailer_section_size")
        if section is None:
            return None
        lines, end = section
        self._complete(events, _fields(lines[1:]))
        return end

    def _take(self, data: bytes, at: int, events: list[Event]) -> int:
        """Body bytes, as many as are left of them."""
        piece = data[at : at + self._left]
        self._left -= len(piece)
        events.append(piece)
        return at + len(piece)

    def _section(self, data: bytes, at: int, error: str) -> tuple[list[bytes], int] | None:
        """The lines up to a blank one, and where it ends."""
        match = _BLANK.search(data, at + self._searched)
        end = match.end() if match else len(data)
        if end - at > self._limit:
            raise _bad(f"the service sends more than {self._limit} bytes of fields", error)
        if match is None:
            # The blank line may have begun with the last three bytes.
            self._searched = max(0, end - at - 3)
            return None
        self._searched = 0
        return _LINE.split(data[at : match.start()]), end

    def _complete(self, events: list[Event], trailers: tuple[Field, ...]) -> None:
        self.done = True
        events.append(ReceivedEnd(trailers))


def _bad(detail: str, error: str = "http_protocol_error") -> ServiceError:
    return ServiceError(evolve(bad_response(detail), proxy_error=error))


def _fields(lines: list[bytes]) -> tuple[Field, ...]:
    """
    Field lines as names and values.

    @raise ServiceError: a line is none.
    """
    fields: list[Field] = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and fields:
            # A gateway may replace a fold by a space (RFC 9112 section 5.2).
            name, value = fields.pop()
            line = name + b":" + value + b" " + line.strip(b" \t")
        name, colon, value = line.partition(b":")
        # Space before the colon must be taken out of a response (RFC 9112 section 5.1).
        name = name.rstrip(b" \t")
        if not colon or not is_token(name) or _UNFIT.search(value):
            raise _bad("the service's answer has a malformed field")
        fields.append((name, value.strip(b" \t")))
    return tuple(fields)
