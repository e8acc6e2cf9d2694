"""
One caller that waits for its exchange: its request on the way out, the response on
the way back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from attrs import evolve
from twisted.python.failure import Failure

from hoft.errors import HoftError, JournalFull, RecordError
from hoft.interfaces import CommitResult, ILink, Outgoing
from hoft.web.calls import Call
from hoft.web.exchange import (
    REQUESTS,
    WINDOW,
    Kind,
    Part,
    PartWriter,
    Side,
    body_digest,
    data_cost,
    decode_abort,
    decode_credit,
    decode_end,
    decode_head,
    decode_part,
    decode_trailers,
    encode_cancel,
    encode_credit,
)
from hoft.web.fields import FieldList, trailers
from hoft.web.forwarding import returned
from hoft.web.heads import RequestHead, ResponseHead
from hoft.web.problems import (
    Problem,
    bad_response,
    internal_error,
    malformed_request,
    outcome_unknown,
    peer_silent,
    peer_unavailable,
    quota_exceeded,
    too_large,
)
from hoft.web.reassembly import Reassembler, Taken
from hoft.web.requests import BadResponse, Field
from hoft.web.targets import Mount

if TYPE_CHECKING:
    from hoft.web.ingress import Ingress

GATHER = 1 << 18
"""Bytes of a request that are committed together; fewer only at its end."""

UNCOMMITTED = 1 << 20
"""Bytes of one request that may wait for the journal before its caller is held up."""

HELD = 2 << 20
"""Bytes of one response kept in memory, and fetched from the journal at once."""

CONSUME = 1 << 20
"""Bytes of one response after which its records leave the journal."""

_RESERVE = 1 << 18
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


class Waiting:
    """
    One exchange of the ingress; a L{hoft.web.calls.CallReceiver}.

    @ivar id: of the exchange.
    @ivar due: (clock of the ingress) when the caller has waited long enough.
    @ivar over: nothing will come of it any more.
    """

    def __init__(
        self,
        ingress: Ingress,
        link: ILink,
        call: Call,
        exchange: bytes,
        head: RequestHead,
        mount: Mount | None,
        due: float,
    ) -> None:
        """
        @raise ValueError: the head is too large to cross.
        """
        self.id = exchange
        self.link = link
        self.due = due
        self.over = False
        self._ingress = ingress
        self._call = call
        self._head = head
        self._mount = mount
        # The request:
        self._writer = PartWriter(exchange, Side.INGRESS)
        self._pending = [self._outgoing(payload) for payload in self._writer.head(head)]
        self._pending_size = 0
        self._uncommitted = 0
        self._granted = WINDOW
        self._begun = False
        self._first: int | None = None
        self._requested = False
        # The response:
        self._reassembler = Reassembler(Side.EGRESS, HELD)
        self._ready: deque[Taken] = deque()
        self._fetching = False
        self._advancing = False
        self._pieces: list[bytes] = []
        self._digest = body_digest()
        self._trailers: FieldList = []
        self._spent: list[int] = []
        self._spent_size = 0
        self._taken = 0
        self._offered = WINDOW
        self._left: int | None = None
        self._last = b""

    # --- the request: CallReceiver -------------------------------------------

    def bodyReceived(self, data: bytes) -> None:
        if self.over:
            return
        limit = self._ingress.routing.max_request_body
        if self._writer.total + len(data) > limit:
            self.fail(too_large(f"the body is larger than {limit} bytes"))
            return
        for payload in self._writer.data(data):
            self._pending.append(self._outgoing(payload))
            self._pending_size += len(payload)
        if self._pending_size >= GATHER:
            self._commit()
        self._hold_up()

    def bodyEnded(self, fields: Sequence[Field]) -> None:
        if self.over:
            return
        self._requested = True
        try:
            payloads = self._writer.end(trailers(fields))
        except ValueError:
            self.fail(too_large("the trailers are too large to cross"))
            return
        for payload in payloads:
            self._pending.append(self._outgoing(payload))
            self._pending_size += len(payload)
        self._commit()

    def callLost(self, reason: str) -> None:
        if not self.over:
            self._cancel()
            self._end(Outcome.GONE)

    def pauseResponse(self) -> None:
        """L{advance} sees it."""

    def resumeResponse(self) -> None:
        self.advance()

    def _outgoing(self, payload: bytes) -> Outgoing:
        return Outgoing(payload, REQUESTS, self._head.urgency)

    def _commit(self) -> None:
        pending, size = self._pending, self._pending_size
        self._pending, self._pending_size = [], 0
        self._uncommitted += size
        self._begun = True
        self.link.commit(pending).addCallbacks(self._committed, self._not_committed, (size,))

    def _committed(self, result: CommitResult[None], size: int) -> None:
        self._uncommitted -= size
        if self._first is None:
            self._first = result.sent[0]
        self._hold_up()

    def _not_committed(self, failure: Failure) -> None:
        if failure.check(JournalFull):
            self.fail(quota_exceeded("the journal of this node has no room for the request", retry_after=10))
        elif failure.check(HoftError):
            self.fail(peer_unavailable(self.link.name, failure.getErrorMessage()))
        else:
            self._ingress.log.failure("A request could not be committed", failure)
            self.fail(internal_error("the request could not be kept; the log of this node says why"))

    def _hold_up(self) -> None:
        """Take more of the body as far as the journal keeps up and the far side has granted it."""
        if self.over or self._requested:
            return
        room = self._uncommitted + self._pending_size < UNCOMMITTED
        if room and self._writer.spent + _RESERVE < self._granted:
            self._call.resumeBody()
        else:
            self._call.pauseBody()

    # --- the response ------------------------------------------------------------

    def received(self, record: int, part: Part) -> None:
        """
        A part for this exchange is here; L{advance} follows once all that came with it were given.
        """
        try:
            if part.kind is Kind.CREDIT:
                self._ingress.consume(self.link, [record])
                self._granted = max(self._granted, decode_credit(part))
                self._hold_up()
            elif part.kind is Kind.ABORT:
                self._spent.append(record)
                self._end_by(decode_abort(part))
            elif not self._reassembler.add(record, part):
                self._ingress.consume(self.link, [record])
        except RecordError as error:
            self._spent.append(record)
            self._contradicted(error)

    def advance(self) -> None:
        """Hand the caller as much of the response as is here and it takes."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self.over and (self._call.writable or not self._call.responding):
                if not self._ready:
                    self._ready.extend(self._reassembler.take(HELD))
                    if not self._ready:
                        break
                taken = self._ready[0]
                if taken.part is None:
                    self._fetch()
                    break
                self._ready.popleft()
                self._take(taken.record, taken.part)
        except RecordError as error:
            self._contradicted(error)
        except BadResponse as error:
            self._contradicted(RecordError(str(error)))
        finally:
            self._advancing = False
        if not self.over and self._spent_size >= CONSUME:
            self._consume()

    def _fetch(self) -> None:
        """Read what is ready but not in memory."""
        if self._fetching:
            return
        self._fetching = True
        missing = [taken.record for taken in self._ready if taken.part is None]
        self.link.read(missing).addCallbacks(self._fetched, self._not_fetched)

    def _fetched(self, payloads: list[bytes]) -> None:
        self._fetching = False
        if self.over:
            return
        found = iter(payloads)
        try:
            self._ready = deque(
                taken if taken.part is not None else evolve(taken, part=decode_part(next(found)))
                for taken in self._ready
            )
        except RecordError as error:
            self._contradicted(error)
        else:
            self.advance()

    def _not_fetched(self, failure: Failure) -> None:
        self._fetching = False
        if not self.over:
            self._ingress.log.failure("A response could not be read from the journal", failure)
            self.fail(internal_error("the response could not be read from the journal"))

    def _take(self, record: int, part: Part) -> None:
        self._spent.append(record)
        self._spent_size += part.size
        if part.kind is Kind.DATA:
            self._data(part.body)
        elif part.kind is Kind.HEAD:
            self._pieces.append(part.body)
            if not part.more:
                head = decode_head(Side.EGRESS, b"".join(self._pieces))
                assert isinstance(head, ResponseHead)
                self._respond(head)
        elif part.kind is Kind.TRAILERS:
            self._trailers = trailers(decode_trailers(part))
        elif decode_end(part).digest != self._digest.digest():
            raise RecordError("a body that is not the one that was sent")
        else:
            self._call.write(self._last)
            self._call.finish(self._trailers)
            if self._begun and not self._requested:
                self._cancel()
            self._end(Outcome.ANSWERED)

    def _respond(self, head: ResponseHead) -> None:
        ingress, call = self._ingress, self._call
        fields = returned(
            head, ingress.pseudonym, ingress.date(), self._mount, self._head.target, call.secure
        )
        call.respond(head.status, head.reason, fields, head.length)
        self._left = head.length

    def _data(self, body: bytes) -> None:
        self._digest.update(body)
        self._taken += data_cost(len(body))
        if self._left is not None:
            self._left -= len(body)
        if self._left == 0:
            # With these bytes the caller would take the response for complete: END is to prove it first.
            self._last = body
        else:
            self._call.write(body)
        if self._taken + WINDOW - self._offered >= WINDOW // 4:
            self._offered = self._taken + WINDOW
            self._ingress.send(self.link, encode_credit(self.id, Side.INGRESS, self._offered))

    def _consume(self) -> None:
        self._ingress.consume(self.link, self._spent)
        self._spent, self._spent_size = [], 0

    # --- ends ------------------------------------------------------------------

    def expire(self) -> None:
        """The deadline has passed."""
        waited = self._head.deadline
        if self._requested:
            self.fail(peer_silent(self.link.name, waited))
        else:
            detail = f"the request did not become complete within {waited:g} s"
            self.fail(evolve(malformed_request(detail), status=408))

    def rolledBack(self, resent: frozenset[int]) -> None:
        """
        One of the nodes was restored.

        @param resent: records of ours that are sent all the same.
        """
        if self._first is not None and self._first not in resent:
            self.fail(outcome_unknown("a node was restored from an older copy while the call was under way"))

    def fail(self, problem: Problem) -> None:
        """Give up, from this side."""
        if not self.over:
            self._cancel()
            self._end_by(problem)

    @property
    def responding(self) -> bool:
        """The caller has the head of the response already."""
        return self._call.responding

    def _contradicted(self, error: RecordError) -> None:
        self._ingress.log.warn("Exchange {id} given up: {error}", id=self.id.hex(), error=error)
        self.fail(bad_response(f"what came from {self.link.name} is not a response: {error}"))

    def _cancel(self) -> None:
        """Tell the egress, if it knows of the exchange, that nobody waits any more."""
        if self._begun:
            self._ingress.send(self.link, encode_cancel(self.id))

    def _end_by(self, problem: Problem) -> None:
        if self._call.responding:
            self._call.abort()
            self._end(Outcome.CUT)
        else:
            self._ingress.answer(self._call, problem.during(self.id))
            self._end(Outcome.PROBLEM)

    def _end(self, outcome: Outcome) -> None:
        self.over = True
        self._spent += [taken.record for taken in self._ready]
        self._spent += self._reassembler.drain()
        # A part that contradicts others may be among those that were taken in.
        self._spent = list(dict.fromkeys(self._spent))
        self._ready.clear()
        self._pending.clear()
        self._consume()
        self._ingress.ended(self, outcome)
