"""
The way of a response from the service into the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from hoft.errors import JournalFull
from hoft.web.client.connection import ExactResponse
from hoft.web.crossing.exchange import MAX_BODY, MIN_COST, WINDOW, PartWriter, Side, encode_abort
from hoft.web.crossing.memory import LEAST
from hoft.web.http.fields import FieldList
from hoft.web.http.heads import Fields, ResponseHead
from hoft.web.http.intermediary import end_to_end, trailers, with_via
from hoft.web.http.problems import Problem, bad_response, internal_error
from hoft.web.http.responses import Answer, ServiceError, phrase

LINGER = 0.001
"""Seconds that a head waits for the first of its body, or a few bytes of that for more, to share a commit."""

LINGER_SMALL = 0.005
"""The same where the whole body is known to be small, and so sure to come at once."""

SMALL = 1 << 16
"""What is a small body."""

FULL_PAUSE = 1.0
"""Seconds until a commit is tried again that found no room."""

Commit = Callable[[Sequence[bytes], bool], "Deferred[Any]"]
"""Commits these parts; the flag says that they are the last, and the exchange is over with them."""


def response_head(
    response: Answer, pseudonym: str, own: Callable[[FieldList], FieldList] | None, waited: float
) -> ResponseHead:
    """
    A response's head as it crosses.

    @param pseudonym: ours, for C{Via}.
    @param own: takes out the fields that are for us.
    @param waited: seconds since the request was complete here.
    """
    received = response.head
    fields = with_via(end_to_end(received.fields), f"1.{received.minor}", pseudonym)
    if own is not None:
        fields = own(fields)
    stages = (("head", max(0.0, waited)),)
    return ResponseHead(received.status, received.reason, fields, received.declared, response.address, stages)


class ResponseSender(Protocol):
    """
    Commits a response as it comes, one commit at a time; whatever arrives while one
    runs goes into the next.  It is the protocol that the body is delivered to.

    @ivar begun: a part was committed, or is being so.
    @ivar ending: so is the last.
    @ivar over: the last part was committed, or the exchange was given up.
    @ivar status: of the response; 0 before its head was there.
    @ivar problem: the kind of that which is told in place of a response, or breaks it off.
    @ivar waiting: bytes of the body that are here and not being committed.
    """

    transport: Any

    def __init__(
        self,
        reactor: Any,
        exchange: bytes,
        pseudonym: str,
        commit: Commit,
        room: Callable[[], bool],
        share: Callable[[], int],
        received: Callable[[], None],
    ) -> None:
        """
        @param pseudonym: who we are, in Proxy-Status.
        @param room: whether more may be put into the log now; call L{resume} when so.
        @param share: how many bytes of the body may be in memory before the service is held up.
        @param received: called when nothing more is to come from the service.
        """
        self.begun = False
        self.ending = False
        self.over = False
        self.status = 0
        self.problem: str | None = None
        self.waiting = 0
        self._reactor = reactor
        self._exchange = exchange
        self._pseudonym = pseudonym
        self._commit = commit
        self._room = room
        self._share = share
        self._received = received
        self._writer = PartWriter(exchange, Side.EGRESS)
        self._response: ExactResponse | None = None
        self._granted = WINDOW
        self._body: list[bytes] = []
        self._committing = 0
        self._trailers: Fields | None = None
        """Given once the body has ended."""
        self._abort: bytes | None = None
        self._input = True
        """Whether more is taken from the service."""
        self._paused = False
        self._lingering = False
        """Whether what is here waits for more."""
        self._timer: IDelayedCall | None = None
        self._again: IDelayedCall | None = None
        self._refused: tuple[Sequence[bytes], bool] | None = None
        """What found no room, and is to be tried again."""

    @property
    def accepting(self) -> bool:
        """Neither the service's response has ended, nor was it given up."""
        return self._input

    @property
    def size(self) -> int:
        """Bytes of the body that have gone into the log."""
        return self._writer.total

    @property
    def cut(self) -> bool:
        """The response had begun to cross when it was broken off."""
        return self._abort is not None

    @property
    def full(self) -> bool:
        """The journal had no room for what was committed last."""
        return self._refused is not None

    @property
    def granted(self) -> int:
        """How much more of the body the receiver takes, as L{hoft.web.crossing.exchange.data_cost}."""
        return self._granted - self._writer.spent

    def compress_from(self, part: bytes) -> int | None:
        """See L{PartWriter.compress_from}."""
        return self._writer.compress_from(part)

    # --- From the service ---------------------------------------------------------

    def respond(self, head: ResponseHead, response: ExactResponse) -> None:
        """
        The service has answered.

        @param response: where body and trailers come from.
        @raise ServiceError: the head is too large for the log.
        """
        if not self._input:
            response.abortConnection()
            return
        try:
            self._writer.head(head)
        except ValueError as error:
            problem = evolve(bad_response(str(error)), proxy_error="http_response_header_section_size")
            raise ServiceError(problem) from error
        self._response = response
        self.status = head.status
        self._lingering = True
        response.deliverBody(self)
        if self._lingering:
            small = head.length is not None and head.length <= SMALL
            self._timer = self._reactor.callLater(LINGER_SMALL if small else LINGER, self._lingered)

    def dataReceived(self, data: bytes) -> None:
        if not self._input:
            return
        self._body.append(data)
        self.waiting += len(data)
        held = self.waiting + self._committing
        if not self._paused and held > LEAST and held > self._share():
            self._paused = True
            self.transport.pauseProducing()
        if not self._lingering or self.waiting > SMALL:
            self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._received()
        if not self._input:
            return
        if reason.check(ResponseDone):
            assert self._response is not None
            self._input = False
            self._trailers = trailers(self._response.trailers)
            self._flush()
        else:
            self.fail(reason)

    def fail(self, failure: Failure) -> None:
        """The service did not answer, or not to the end."""
        error = failure.value
        if isinstance(error, ServiceError):
            self.refuse(error.problem)
        else:
            self.refuse(internal_error(type(error).__name__))

    # --- From us --------------------------------------------------------------------

    def refuse(self, problem: Problem) -> None:
        """
        Answer with a problem: in place of the service's response, or, where that
        has begun to cross, by breaking it off.
        """
        if self._input:
            self._input = False
            self._break_off(problem)

    def _break_off(self, problem: Problem) -> None:
        self._body.clear()
        self.waiting = 0
        problem = problem.during(self._exchange)
        self.problem = problem.kind
        if self.begun:
            self._abort = encode_abort(self._exchange, problem)
        else:
            self.status, fields, body = problem.response(self._pseudonym)
            self._writer = PartWriter(self._exchange, Side.EGRESS)
            self._writer.head(ResponseHead(self.status, phrase(self.status), tuple(fields), len(body)))
            self._body.append(body)
            self.waiting = len(body)
            self._trailers = ()
        self._flush()

    def drop(self) -> None:
        """Nobody wants the rest: commit nothing more."""
        self.over = True
        self._input = False
        self._body.clear()
        self._stop_lingering()
        self._refused = None
        self._retry()

    # --- From the other side ----------------------------------------------------------

    def credit(self, total: int) -> None:
        """The receiver takes this much in total."""
        if total > self._granted:
            self._granted = total
            self._flush()

    def resume(self) -> None:
        """There may be room again."""
        self._flush()

    def tick(self) -> None:
        """Do what timers that stand still may have left undone."""
        self._retry()
        self._flush()

    # --- Committing -------------------------------------------------------------------

    def _lingered(self) -> None:
        self._timer = None
        self._flush()

    def _stop_lingering(self) -> None:
        self._lingering = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _flush(self) -> None:
        if self.over or self._committing:
            return
        self._stop_lingering()
        if self._abort is not None:
            parts, last = [self._abort], True
        else:
            body = self._body_due()
            last = self._trailers is not None and not self.waiting
            try:
                parts = self._writer.data(body, flush=not last)
                if last:
                    parts += self._writer.end(self._trailers or ())
            except ValueError as error:
                self._break_off(bad_response(str(error)))
                return
        if parts:
            self.begun = True
            self.ending = last
            self._committing = sum(map(len, parts))
            self._attempt(parts, last)

    def _retry(self) -> None:
        refused, self._refused = self._refused, None
        if self._again is not None and self._again.active():
            self._again.cancel()
        self._again = None
        if refused is not None:
            self._attempt(*refused)

    def _body_due(self) -> bytes | memoryview:
        """What of the body may go out now: all, but whole records only while more is on its way."""
        if not self.waiting or not self._room():
            return b""
        size = self.waiting
        if self._trailers is None and size > MAX_BODY:
            size -= size % MAX_BODY
        size = _within(size, self._granted - self._writer.spent)
        if size <= 0:
            return b""
        body = memoryview(b"".join(self._body))
        self.waiting -= size
        self._body = [bytes(body[size:])] if self.waiting else []
        return body[:size]

    def _attempt(self, parts: Sequence[bytes], last: bool) -> None:
        if self.over:
            return

        def committed(_: Any) -> None:
            self._committing = 0
            if last:
                self.over = True
                return
            if self._paused and self.waiting <= self._share() // 2 and not self.over:
                self._paused = False
                self.transport.resumeProducing()
            if self._input and 0 < self.waiting < MIN_COST:
                # What was left of the last read: too little for a part of its own while more may come.
                self._lingering = True
                self._timer = self._reactor.callLater(LINGER, self._lingered)
            else:
                self._flush()

        def refused(failure: Failure) -> None:
            failure.trap(JournalFull)
            self._refused = parts, last
            self._again = self._reactor.callLater(FULL_PAUSE, self._retry)

        self._commit(parts, last).addCallbacks(committed, refused)


def _within(size: int, credit: int) -> int:
    """How much of C{size} bytes the credit allows: the last record costs L{MIN_COST} at least."""
    size = min(size, credit)
    rest = size % MAX_BODY
    if 0 < rest < MIN_COST and size - rest + MIN_COST > credit:
        size -= rest
    return size
