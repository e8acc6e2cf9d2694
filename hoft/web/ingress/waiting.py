"""
One caller that waits for its exchange: its request on the way out, the response on
the way back.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from hoft.errors import RecordError
from hoft.interfaces import CommitResult, Delivery, ILink, Outgoing
from hoft.web.crossing.exchange import (
    REQUESTS,
    WINDOW,
    Kind,
    Part,
    PartWriter,
    Side,
    decode_abort,
    decode_credit,
    decode_message,
    encode_cancel,
    encode_credit,
    flow_of,
)
from hoft.web.history import unwell
from hoft.web.http.fields import FieldList
from hoft.web.http.forwarding import returned
from hoft.web.http.heads import Field, RequestHead, decode_response
from hoft.web.http.intermediary import trailers
from hoft.web.http.problems import (
    Problem,
    bad_response,
    internal_error,
    malformed_request,
    peer_silent,
    too_large,
)
from hoft.web.http.requests import BadResponse
from hoft.web.http.targets import Mount
from hoft.web.ingress.calls import Call, Indifferent
from hoft.web.ingress.ends import not_committed, restored
from hoft.web.ingress.room import STEP
from hoft.web.ingress.streaming import ResponseStream

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

GATHER = 1 << 18
"""Bytes of a request that are committed together; fewer only at its end."""

UNCOMMITTED = 1 << 20
"""Bytes of one request that may wait for the journal before its caller is held up."""

_RESERVE = 1 << 19
"""Credit that is left unused, for what one more read of the socket may bring."""


class Outcome(Enum):
    """How an exchange ended, by the names under which they are counted."""

    ANSWERED = "answered"
    """The caller has the whole response of the service."""
    PROBLEM = "problems"
    """The caller has a problem in its place."""
    CUT = "cut"
    """The response had begun; the connection was cut."""
    GONE = "callers_gone"
    """The caller left before it was done."""


@define(eq=False, repr=False)
class Waiting(Indifferent):
    """
    One exchange of the ingress; a L{hoft.web.ingress.calls.CallReceiver}.

    A response that comes as one MESSAGE is handed to the caller at once; any other is
    the business of a L{ResponseStream}.

    @ivar again: its request may be sent again if the peer loses its state meanwhile.
    @ivar id: of the exchange.
    @ivar call: the caller's end of it.
    @ivar due: (clock of the ingress) when the caller has waited long enough.
    @ivar over: nothing will come of it any more.
    @ivar head: of the request.
    @ivar mount: the route that was called.
    @ivar caller: who called, where callers have to say that.
    @ivar first: the id of the request's first record, once that is committed, and C{sent} those of all
        of it so far.
    @ivar last: that of the last one so far.
    @ivar accepted: (clock of the ingress) when all of the request was in the journal.
    @ivar requested: all of the request is here.
    @ivar problem: the kind of what its caller was told in place of a response.
    @ivar executing: seconds from the request's arrival at the far node to the head of the
        response, as that says.
    """

    _ingress: Ingress
    link: ILink
    call: Call
    id: bytes
    head: RequestHead
    mount: Mount | None
    due: float
    caller: str | None = None
    over: bool = field(default=False, init=False)
    # The request:
    again: bool = field(default=False, init=False)
    first: int | None = field(default=None, init=False)
    sent: Sequence[int] = field(default=(), init=False)
    last: int = field(default=0, init=False)
    accepted: float = field(default=0.0, init=False)
    requested: bool = field(default=False, init=False)
    _writer: PartWriter = field(init=False)
    _pending: list[Outgoing] = field(factory=list, init=False)
    _pending_size: int = field(default=0, init=False)
    _uncommitted: int = field(default=0, init=False)
    _granted: int = field(default=WINDOW, init=False)
    _begun: bool = field(default=False, init=False)
    _cancelled: bool = field(default=False, init=False)
    # The response:
    problem: str | None = field(default=None, init=False)
    executing: float | None = field(default=None, init=False)
    _stream: ResponseStream | None = field(default=None, init=False)
    _spent: list[int] = field(factory=list, init=False)
    _offered: int = field(default=WINDOW, init=False)

    def __attrs_post_init__(self) -> None:
        """@raise ValueError: the head is too large to cross."""
        self._writer = PartWriter(self.id, Side.INGRESS)
        self._writer.head(self.head)

    # --- the request: CallReceiver -------------------------------------------

    def bodyReceived(self, data: bytes) -> None:
        if self.over:
            return
        limit = self._ingress.routing.max_request_body
        if self._writer.total + len(data) > limit:
            self.fail(too_large(f"the body is larger than {limit} bytes"))
            return
        self._queue(self._writer.data(data))
        if self._pending_size >= GATHER:
            self._commit()
        self._hold_up()

    def bodyEnded(self, fields: Sequence[Field]) -> None:
        if self.over:
            return
        self.requested = True
        try:
            payloads = self._writer.end(trailers(fields))
        except ValueError:
            self.fail(too_large("the trailers are too large to cross"))
            return
        self._queue(payloads)
        self._commit()

    def takeOver(self, first: int | None) -> None:
        """
        The request was committed by somebody else.

        @param first: see C{first}.
        """
        self.first = first
        self.requested = self._begun = True

    def callLost(self, reason: str) -> None:
        if not self.over:
            self._cancel()
            self._end(Outcome.GONE)

    def resumeResponse(self) -> None:
        self.advance()

    def _queue(self, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            compress_from = self._writer.compress_from(payload)
            self._pending.append(
                Outgoing(
                    payload,
                    REQUESTS,
                    self.head.urgency,
                    flow_of(payload),
                    compress_from=compress_from,
                    again=self.again,
                )
            )
            self._pending_size += len(payload)

    def _commit(self) -> None:
        pending, size = self._pending, self._pending_size
        self._pending, self._pending_size = [], 0
        self._uncommitted += size
        self._begun = True
        self.give(pending).addCallbacks(self.committed, self.notCommitted, (size,))

    def give(self, pending: Sequence[Outgoing]) -> Deferred[CommitResult[Any]]:
        """Commit more of the request; all of it, if it is C{requested}."""
        return self.link.commit(pending)

    def committed(self, result: CommitResult[Any], size: int) -> None:
        """So many bytes more are in the journal."""
        self._uncommitted -= size
        if self.first is None:
            self.first = result.sent[0]
            self.sent = result.sent
        else:
            if not isinstance(self.sent, array):
                self.sent = array("q", self.sent)
            self.sent.extend(result.sent)
        self.last = result.sent[-1]
        if self._cancelled:
            self._ingress.take_back(self.link, result.sent)
        if self.requested and not self._uncommitted:
            self.accepted = self._ingress.keeper.clock()
        self._hold_up()

    def notCommitted(self, failure: Failure) -> None:
        """The journal has not taken what L{give} gave it."""
        self.fail(not_committed(failure, self.link.name, self.id))

    def _hold_up(self) -> None:
        """Take more of the body as far as the journal keeps up and the far side has granted it."""
        if self.over or self.requested:
            return
        if self.held_up_by is None:
            self.call.resumeBody()
        else:
            self.call.pauseBody()

    @property
    def held_up_by(self) -> str | None:
        """What takes no more of the body now: our C{"journal"}, or the C{"peer"}."""
        if self._uncommitted + self._pending_size >= UNCOMMITTED:
            return "journal"
        return "peer" if self._writer.spent + _RESERVE >= self._granted else None

    # --- the response ------------------------------------------------------------

    @property
    def answerable(self) -> bool:
        """A whole response would go to the caller as it comes, and be of no use to anybody else."""
        return self._stream is None

    def answered(self, message: Part) -> None:
        """The response is here whole, and nothing of it needs to be kept."""
        try:
            self._whole(message)
        except RecordError as error:
            self.contradicted(error)

    def received(self, record: int, part: Part) -> None:
        """
        A part for this exchange is here; L{advance} follows once all that came with it were given.
        """
        try:
            if part.kind is Kind.MESSAGE and self._stream is None:
                self._spent.append(record)
                self._whole(part)
            elif part.kind is Kind.CREDIT:
                self.consume([record])
                self._granted = max(self._granted, decode_credit(part))
                self._hold_up()
            elif part.kind is Kind.ABORT:
                self._spent.append(record)
                problem = decode_abort(part)
                self._cancel_rest()
                self._end_by(problem)
            else:
                if self._stream is None:
                    self._stream = ResponseStream(self)
                    self._ingress.room.come(self)
                self._stream.add(record, part)
        except RecordError as error:
            if record not in self._spent:
                self._spent.append(record)
            self.contradicted(error)

    def advance(self) -> None:
        """Hand the caller what is here, as far as it takes it."""
        if self._stream is not None and not self.over:
            self._stream.advance()

    def _whole(self, part: Part) -> None:
        head, body = decode_message(part)
        try:
            self.headReceived(head)
            self.call.write(body)
            self.finished([])
        except BadResponse as error:
            raise RecordError(str(error)) from error

    def headReceived(self, encoded: bytes) -> int | None:
        ingress, call = self._ingress, self.call
        head = decode_response(encoded)
        self.executing = dict(head.stages).get("head")
        target, secure = self.head.target, call.secure
        fields = returned(head, ingress.pseudonym, ingress.date(), self.mount, target, secure, self.id)
        call.respond(head.status, head.reason, fields, head.length)
        return head.length

    def finished(self, fields: FieldList) -> None:
        self.call.finish(fields)
        self._cancel_rest()
        self._end(Outcome.ANSWERED)

    def handedOn(self, taken: int, accepted: int) -> None:
        # Who reads is not stopped: it holds next to nothing.
        total = self._ingress.room.offer(self._offered, accepted, taken + WINDOW, taken + 2 * STEP)
        if total is not None:
            self._offered = total
            self._send(encode_credit(self.id, Side.INGRESS, total))

    @property
    def held(self) -> int:
        """See L{hoft.web.ingress.room.Coming}."""
        return 0 if self._stream is None else self._stream.accepted - self._stream.handed_on

    def offer(self) -> None:
        """See L{hoft.web.ingress.room.Coming}."""
        if self._stream is not None:
            self.handedOn(self._stream.handed_on, self._stream.accepted)

    def _send(self, payload: bytes) -> None:
        self._ingress.send(self.link, payload)

    def consume(self, records: list[int]) -> None:
        self._ingress.consume(self.link, records)

    def share(self) -> int:
        return self._ingress.share()

    def contradicted(self, error: RecordError) -> None:
        self._ingress.log.warn("Call {id}: given up: {error}", id=self.id.hex(), error=error)
        self.fail(bad_response(f"what came from {self.link.name} is not a response: {error}"))

    def unreadable(self, failure: Failure) -> None:
        self._ingress.log.failure("Call {id}: the response could not be read", failure, id=self.id.hex())
        self.fail(internal_error("the response could not be read from the journal"))

    # --- ends ------------------------------------------------------------------

    def expire(self) -> None:
        """The deadline has passed."""
        waited = self.head.deadline
        if self.requested and not self.responding and self._ingress.routing.result_ttl:
            self._ingress.handover.late(self)
        elif self.requested:
            self.fail(peer_silent(self.link.name, waited, why=unwell(self.link)))
        else:
            detail = f"the request did not become complete within {waited:g} s"
            self.fail(evolve(malformed_request(detail), status=408))

    def rolledBack(self, resent: frozenset[int]) -> None:
        """
        One of the nodes was restored.

        @param resent: records of ours that are sent all the same.
        """
        if self.first is not None and self.first not in resent:
            self.fail(restored())

    def fail(self, problem: Problem) -> None:
        """Give up, from this side."""
        if not self.over:
            self._cancel()
            self._end_by(problem)

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of both bodies, so far."""
        return self._writer.total, self.call.written

    def took(self, now: float) -> float:
        """Seconds since it began."""
        return now - self.begun

    @property
    def begun(self) -> float:
        """(clock of the ingress) when it began."""
        return self.due - self.head.deadline

    @property
    def responding(self) -> bool:
        """The caller has the head of the response already."""
        return self.call.responding

    def detach(self) -> list[int]:
        """
        The exchange goes on without its caller.

        @return: the records that have come of the response.
        """
        self.over = True
        self._ingress.room.leave(self)
        records = self._spent if self._stream is None else self._spent + self._stream.drain()
        return list(dict.fromkeys(records))

    def _cancel(self) -> None:
        """Tell the egress, if it knows of the exchange, that nobody waits any more."""
        if self._begun:
            self._cancelled = True
            self._send(encode_cancel(self.id))
            self._ingress.take_back(self.link, self.sent)

    def _cancel_rest(self) -> None:
        """It is answered: what was not sent of the request, or is still to come, is of no use."""
        unsent = len(self.sent) > 1 and self.link.delivery(self.last) is Delivery.QUEUED
        if self._begun and (unsent or not self.requested):
            self._cancel()

    def _end_by(self, problem: Problem) -> None:
        self.problem = problem.kind
        if self.call.responding:
            self.call.abort()
            self._end(Outcome.CUT)
        else:
            self._ingress.answer(self.call, problem.during(self.id))
            self._end(Outcome.PROBLEM)

    def _end(self, outcome: Outcome) -> None:
        self.over = True
        self._pending.clear()
        if self._stream is not None:
            self._ingress.room.leave(self)
            # A part that contradicts others may be among those that were taken in.
            self._spent = list(dict.fromkeys(self._spent + self._stream.drain()))
        self.consume(self._spent)
        self._ingress.ended(self, outcome)
