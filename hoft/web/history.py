"""
What is told of calls that have ended: the latest of them, and a line each in the log.

The line has the same form on both sides, and begins with the id by which callers know
the call (C{Hoft-Request-Id}), as does whatever else is logged of it::

    Call 5f0c...: ingress GET /svc/a/items?... 200 peer=far caller=shop request=0 response=512 seconds=0.012

Neither holds fields, bodies, credentials or values of a query.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from attrs import define
from twisted.logger import Logger

from hoft.interfaces import ILink, LinkState
from hoft.web.http.heads import Fields

REMEMBERED = 1000
"""How many calls that have ended are remembered on each side."""

MAX_URL = 2048
"""The most bytes of a URL that are remembered."""

MAX_METHOD = 64
"""Those of a method."""


class Logged(Enum):
    """Of which calls the log says when they end."""

    PROBLEMS = "problems"
    """Those that have not gone well: a status of 500 or above, or none, or half a response."""
    ALL = "all"
    NONE = "none"


@define
class Ended:
    """
    One call that has ended.

    @ivar side: C{"ingress"} or C{"egress"}.
    @ivar caller: ingress: the name of who called; egress: the address, as the peer says.
    @ivar url: as it was asked for; L{redacted} before it is shown.
    @ivar outcome: how it ended, in a word.
    @ivar status: that was answered; 0 for none.
    @ivar problem: the kind of that which was answered in place of a response, or broke it off.
    @ivar seconds: since it began; egress: since its request was complete.
    @ivar executing: of these, as the far node says: from there to the head of the response.
    @ivar at: (seconds since 1970) when it ended.
    """

    side: str
    id: bytes
    peer: str | None
    caller: str | None
    route: str | None
    method: bytes
    url: bytes
    outcome: str
    status: int
    problem: str | None
    request_size: int
    response_size: int
    seconds: float
    executing: float | None = None
    at: float = 0.0

    @property
    def well(self) -> bool:
        """Nobody has to look after it."""
        return 0 < self.status < 500 and self.outcome != "cut"

    def as_json(self) -> dict[str, Any]:
        """See C{docs/reference-command-line.rst}, on C{hoft requests}."""
        return {
            "side": self.side,
            "id": self.id.hex(),
            "peer": self.peer,
            "caller": self.caller,
            "route": self.route,
            "method": self.method.decode("ascii", "replace"),
            "url": redacted(self.url),
            "stage": "ended",
            "outcome": self.outcome,
            "status": self.status or None,
            "problem": self.problem,
            "request_bytes": self.request_size,
            "response_bytes": self.response_size,
            "seconds": round(self.seconds, 6),
            "executing": self.executing,
            "ended": round(self.at, 3),
        }


class History:
    """
    Of one side of a node.

    @ivar logged: of which calls the log says when they end.
    """

    log = Logger()

    def __init__(self, logged: Logged = Logged.PROBLEMS) -> None:
        self.logged = logged
        self._ended: deque[Ended] = deque(maxlen=REMEMBERED)

    def __iter__(self) -> Iterator[Ended]:
        """The latest first."""
        return reversed(self._ended)

    def add(self, call: Ended, fields: Fields = ()) -> None:
        """
        One has ended.

        @param fields: of its request.
        """
        call.at = time.time()
        call.url, call.method = call.url[:MAX_URL], call.method[:MAX_METHOD]
        self._ended.append(call)
        if self.logged is Logged.ALL or (self.logged is Logged.PROBLEMS and not call.well):
            self.log.info("{line}", line=line_of(call, trace_of(fields)), exchange=call.id.hex())


def line_of(call: Ended, trace: str | None) -> str:
    """
    What the log says of a call.

    @param trace: see L{trace_of}.
    """
    values = (
        ("peer", call.peer),
        ("caller", call.caller),
        ("route", call.route),
        ("problem", call.problem),
        ("request", call.request_size),
        ("response", call.response_size),
        ("seconds", f"{call.seconds:.3f}"),
        ("executing", None if call.executing is None else f"{call.executing:.3f}"),
        ("trace", trace),
    )
    said = " ".join([f"{name}={value}" for name, value in values if value is not None])
    method = call.method.decode("ascii", "replace")
    status = call.status or call.outcome
    return f"Call {call.id.hex()}: {call.side} {method} {redacted(call.url)} {status} {said}"


def redacted(url: bytes) -> str:
    """
    A URL or request target, valid or not, without what may be secret in it: user, query, parameters
    of the path.  What stands in the place of a host is shown only if it looks like one.
    """
    path, query, _ = url.partition(b"#")[0].partition(b"?")
    segments = path.split(b"/")
    shown = b"/".join([_shown(at, segments) for at in range(len(segments))])
    return (shown + b"?..." if query else shown).decode("ascii", "replace")


def _shown(at: int, segments: Sequence[bytes]) -> bytes:
    """One segment of a path, or what stands before it in a URL."""
    segment = segments[at]
    place = _is_place(at, segments)
    user = _USER.match(segment)
    if user is not None and (place or _COLON.search(user[0])):
        segment = segment[user.end() :]
    if place and not _AUTHORITY.fullmatch(segment):
        return b"..."
    bare, parameters, _ = segment.partition(b";")
    return bare + b";..." if parameters else bare


def _is_place(at: int, segments: Sequence[bytes]) -> bool:
    """Whether this is where the host of C{http://HOST/}, C{/to/http/HOST/} or C{HOST:PORT} stands."""
    if at < 2:
        return at == 0
    behind_slashes = not segments[at - 1] and (at == 2 or segments[at - 2].endswith(b":"))
    return behind_slashes or (at < 4 and segments[:2] == [b"", b"to"])


_USER = re.compile(rb".*(?:@|%40)", re.DOTALL)
_COLON = re.compile(rb":|%3[Aa]")
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]*|\[[0-9A-Fa-f:.]*\])(?::[0-9]{0,5})?")
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def trace_of(fields: Fields) -> str | None:
    """The trace id in C{traceparent} (W3C Trace Context, section 3.2), if there is a proper one."""
    found = [value for name, value in fields if name.lower() == b"traceparent"]
    match = _TRACE.fullmatch(found[0]) if len(found) == 1 else None
    return None if match is None else match[1].decode("ascii")


def unwell(link: ILink) -> str:
    """What to add to what waits for a link; nothing while that is up."""
    return "" if link.state is LinkState.UP else f"; {link.name} is {link.state.value}: see 'hoft status'"
