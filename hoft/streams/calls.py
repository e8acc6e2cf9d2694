"""
Streams as calls: what is told of those under way, and when they have ended.

A stream is a call of its own at the node that accepts it, and at the one that opens it
for a program or a port (L{hoft.streams.forwards}).  What a caller of the ingress has one
opened for is told of there (L{hoft.web.ingress.tunnelling}).  Both nodes know it by the
same id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.interfaces import ILink
from hoft.streams.failures import StreamRefused, StreamReset, StreamTimedOut
from hoft.streams.parts import TCP
from hoft.streams.stream import ABORTED, Stage, Stream
from hoft.web.history import Ended, History, redacted, trace_of, unwell
from hoft.web.http.heads import Fields
from hoft.web.http.problems import Problem, Refused, connection_terminated, peer_silent

METHOD = b"CONNECT"
"""What stands for a method where a stream is all there is."""

ESTABLISHED = 200
"""The status of those that are there, where nothing speaks HTTP (RFC 9110 section 9.3.6)."""

LASTS = "it lasts until either side closes it"
"""What is to be said of a connection that is there."""

QUIET = 10.0
"""Seconds without a byte that are worth a word."""


class StreamCall:
    """
    One that is under way.

    @ivar ended: what will be told of it; C{seconds} is when it began.
    @ivar fields: of the request that it is for, if it is for one.
    """

    def __init__(self, stream: Stream, link: ILink, ended: Ended) -> None:
        self.ended = ended
        self.fields: Fields = ()
        self._stream = stream
        self._link = link

    def failed(self, problem: Problem) -> None:
        """This is said in place of an answer."""
        self.ended.status, self.ended.problem = problem.status, problem.kind

    def refused(self, failure: Failure) -> Failure:
        """An errback of what is to accept it."""
        if failure.check(Refused):
            assert isinstance(failure.value, Refused)
            self.failed(failure.value.problem)
        return failure

    def described(self, now: float, ahead: float) -> dict[str, Any]:
        """
        What C{hoft requests} shows.

        @param now: monotonic seconds.
        @param ahead: how many the wall clock is ahead of that.
        """
        ended, stream, link = self.ended, self._stream, self._link
        stage, why, left, status = "responding", LASTS, None, ended.status or ESTABLISHED
        if stream.stage is not Stage.OPEN:
            stage, why, status = "executing", f"{redacted(ended.url)} has not answered", 0
            if stream.ours:
                why = f"what is behind {link.name} has not answered, or its answer has not come"
                left = stream.deadline - now
        elif now - stream.moved > QUIET:
            why = f"{LASTS}; nothing has passed for {now - stream.moved:.0f} s"
        sizes = stream.sizes
        return {
            "side": ended.side,
            "id": ended.id.hex(),
            "peer": ended.peer,
            "caller": ended.caller,
            "route": ended.route,
            "method": ended.method.decode("ascii", "replace"),
            "url": redacted(ended.url),
            "stage": stage,
            "why": why + unwell(link),
            "kept": False,
            "age": now - stream.begun,
            "left": left,
            "stages": {"executing": stream.begun + ahead},
            "status": status or None,
            "request_bytes": sizes[0],
            "response_bytes": sizes[1],
            "trace": trace_of(self.fields),
        }


class StreamCalls:
    """Those of one side of a node."""

    _log = Logger()

    def __init__(self, side: str, history: History, clock: Callable[[], float]) -> None:
        """
        @param side: C{"ingress"}: we open them; C{"egress"}: peers do.
        @param history: of those that have ended.
        @param clock: monotonic seconds.
        """
        self._side = side
        self._history = history
        self._clock = clock
        self._now: dict[bytes, StreamCall] = {}

    def begin(self, stream: Stream, link: ILink, through: str | None = None) -> StreamCall:
        """
        There is one.

        @param through: what it came by, if that has a name.
        """
        url = stream.target.removeprefix(TCP).encode("ascii", "backslashreplace")
        ended = Ended(
            self._side, stream.id, link.name, None, through, METHOD, url, "", 0, None, 0, 0, stream.begun
        )
        # The peer chooses the ids of its streams: two that are alike are its own mistake.
        call = self._now[stream.id] = StreamCall(stream, link, ended)
        stream.over = partial(self._over, call, stream)
        return call

    def under_way(self, ahead: float) -> Iterator[Callable[[], dict[str, Any]]]:
        """See L{hoft.web.listing.Side.under_way}."""
        now = self._clock()
        for call in list(self._now.values()):
            yield partial(call.described, now, ahead)

    def _over(self, call: StreamCall, stream: Stream, error: Exception | None, opened: bool) -> None:
        if self._now.get(stream.id) is call:
            del self._now[stream.id]
        ended, id = call.ended, stream.id.hex()
        ended.seconds = self._clock() - stream.begun
        if opened:
            ended.status = ended.status or ESTABLISHED
            ended.request_size, ended.response_size = stream.sizes
            ended.outcome = "answered"
            if not isinstance(error, ConnectionDone | ConnectionAborted) and str(error) != ABORTED:
                ended.outcome, ended.problem = "cut", connection_terminated("").kind
                self._log.info("Call {id}: cut off: {error}", id=id, error=error)
        else:
            problem = _problem_of(error, call) if stream.ours else None
            if problem is not None:
                call.failed(problem)
                self._log.info(
                    "Call {id}: no way to {to} behind {peer}: {detail}",
                    id=id, to=redacted(ended.url), peer=ended.peer, detail=problem.detail,
                )  # fmt: skip
            ended.outcome = "problems" if ended.problem else "callers_gone" if stream.ours else "cancelled"
        self._history.add(ended, call.fields)


def _problem_of(error: Exception | None, call: StreamCall) -> Problem | None:
    """What the opener of a stream is told that was not accepted; C{None}: it does not want it any more."""
    if isinstance(error, StreamRefused):
        return error.problem
    if isinstance(error, StreamTimedOut):
        return peer_silent(call.ended.peer or "", call.ended.seconds)
    if isinstance(error, StreamReset):
        return connection_terminated(f"{call.ended.peer} gave it up: {error}")
    return None
