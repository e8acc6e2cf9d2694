"""
One exchange on the side of the service, from its request's first part to its response's last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import JournalFull, LinkClosed, RecordError
from hoft.interfaces import CommitResult, ITransaction, Outgoing
from hoft.web.agent import Content, ExactRequest
from hoft.web.connection import ExactResponse
from hoft.web.credentials import Credentials, send_with
from hoft.web.exchange import (
    RESPONSES,
    Part,
    Side,
    decode_credit,
    encode_credit,
    encode_executing,
    flow_of,
)
from hoft.web.executions import State
from hoft.web.fields import Authority
from hoft.web.gathering import Gathering
from hoft.web.heads import Fields, RequestHead
from hoft.web.origins import Origin
from hoft.web.outgoing import RequestBody, check_request_line, outgoing_fields, repeatable
from hoft.web.policy import Grant
from hoft.web.problems import (
    Problem,
    Refused,
    malformed_request,
    not_allowed,
    outcome_unknown,
    quota_exceeded,
    service_silent,
    too_busy,
    too_large,
)
from hoft.web.responding import ResponseSender, response_head
from hoft.web.responses import ServiceError
from hoft.web.surroundings import Surroundings

ASK = 5.0
"""
Seconds without news of an incomplete request after which its peer is first told how
much it may send: one that was killed meanwhile knows nothing of it and cancels it.
Then twice as long, and so on.
"""


class Stage(Enum):
    """Where an exchange is."""

    GATHERING = "gathering"
    """Its request has not arrived as a whole."""
    QUEUED = "queued"
    """It has, and waits for its turn."""
    RUNNING = "running"
    """The service has it, or its response is on the way into the log."""
    DRAINING = "draining"
    """It was answered before its request had come as a whole; the rest is dropped."""
    OVER = "over"


class Exchange:
    """
    One exchange.

    @ivar id: 16 bytes.
    @ivar stage: where it is.
    @ivar idle: for the egress: ticks since anything of it came.
    @ivar due: for the egress: when its service is too late (on the egress' clock).
    """

    log = Logger()

    def __init__(self, around: Surroundings, id: bytes) -> None:
        self.id = id
        self.stage = Stage.GATHERING
        self.idle = 0
        self.due = 0.0
        self._around = around
        self._link = around.link
        self._request = Gathering(around.link)
        self._head: RequestHead | None = None
        self._grant: Grant | None = None
        self._repeatable = False
        self._credentials: Credentials | None = None
        self._fields: Fields = ()
        self._spooled = 0
        self._heard = around.clock()
        self._patience = ASK
        self._complete = 0.0
        self._row: State | None = None
        """What the table says of it, once what was asked of it is done."""
        self._requesting: Deferred[ExactResponse] | None = None
        self._response: ExactResponse | None = None
        self._holdsTurn = False
        self._forsaken = False
        self._firstSent: Sequence[int] | None = None
        self._sender = ResponseSender(
            around.reactor, id, around.pseudonym, self._commit, self._room, around.share, self._serviceDone
        )

    # --- The request arrives ----------------------------------------------------------

    def add(self, record: int, part: Part) -> None:
        """A numbered part has come; call L{advance} after the last of a batch."""
        self.idle = 0
        if self.stage is Stage.DRAINING:
            self._drain(record, part)
            return
        try:
            fresh = self._request.add(record, part)
        except RecordError as error:
            self._contradiction(error)
            return
        if not fresh:
            self._around.discard([record])

    def advance(self) -> None:
        """Do what the parts that are here allow."""
        if self.stage is not Stage.GATHERING:
            return
        self._heard = self._around.clock()
        self._patience = ASK
        try:
            head = self._head or self._readHead()
            if head is None:
                return
            self._reserve(head)
        except Refused as refusal:
            self.refuse(refusal.problem)
            return
        except RecordError as error:
            self._contradiction(error)
            return
        if self._request.complete:
            self._complete = self._around.clock()
            self.stage = Stage.QUEUED
            self._around.enqueue(self)
        else:
            self.poke(always=False)

    def poke(self, always: bool = True) -> None:
        """
        Tell the peer how much it may send; one that does not know the exchange cancels it.

        @param always: also if there is nothing new to tell.
        """
        total = self._request.grant(always) if self.stage is Stage.GATHERING else None
        if total is not None:
            credit = Outgoing(encode_credit(self.id, Side.EGRESS, total), RESPONSES, 0)
            self._link.commit([credit]).addErrback(self._uncommitted)

    def _readHead(self) -> RequestHead | None:
        """
        The head, once it is here.

        @raise RecordError: it is none.
        @raise Refused: it is not performed.
        """
        found = self._request.readHead()
        if isinstance(found, Deferred):
            found.addCallback(self._gotHead).addErrback(self._headFailed)
            return None
        if found is not None:
            self._accept(found)
            self._head = found
        return found

    def _gotHead(self, head: RequestHead) -> None:
        if self.stage is Stage.GATHERING:
            self._accept(head)
            self._head = head
            self.advance()

    def _headFailed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, Refused):
            self.refuse(error.problem)
        elif isinstance(error, RecordError):
            self._contradiction(error)
        else:
            self._uncommitted(failure)

    def _accept(self, head: RequestHead) -> None:
        """
        Judge a request by its head.

        @raise Refused:
        """
        check_request_line(head)
        where = Authority(head.host, head.port)
        self._fields = outgoing_fields(head, self._around.pseudonym)
        grant = self._around.policy.check(self._link.name, head.scheme, where, head.target)
        self._grant, self._repeatable = grant, repeatable(head, grant.retry)

    def _reserve(self, head: RequestHead) -> None:
        """
        Take what the request needs, or will need, of the peer's quota.

        @raise Refused: it is too much.
        """
        limits = self._around.limits
        size = max(head.length or 0, self._request.received)
        if size > limits.request_body:
            raise Refused(too_large(f"the far node takes bodies of at most {limits.request_body} bytes"))
        more = self._request.size(head) - self._spooled
        if more > 0:
            self._spooled += more
            self._around.spooled += more
            if self._around.spooled > limits.spool:
                raise Refused(quota_exceeded("the far node has no room for the request's body", 60))

    def _contradiction(self, error: RecordError) -> None:
        self.refuse(self._damaged(error))

    def _damaged(self, error: RecordError) -> Problem:
        self.log.warn("{peer} sent a malformed request: {error}", peer=self._link.name, error=error)
        return malformed_request(f"its parts do not make one request: {error}")

    # --- It is refused, cancelled, or found after a crash -------------------------------

    def refuse(self, problem: Problem) -> None:
        """Answer it with a problem without performing it."""
        if self.stage not in (Stage.GATHERING, Stage.QUEUED):
            return
        self._around.count("refused")
        self._around.withdraw(self)
        self.stage = Stage.OVER if self._request.complete else Stage.DRAINING
        self._leave()
        self._sender.refuse(problem)

    def cancel(self) -> None:
        """Its caller does not want the answer: what may still come of it is of no use."""
        if self.stage is Stage.DRAINING:
            self._forsaken = True
            if self._sender.over:
                self._drained()
        elif self.stage is not Stage.OVER:
            self._around.count("cancelled")
            self._giveUp()

    def _giveUp(self) -> None:
        self._around.withdraw(self)
        ending = self._sender.ending
        self.stage = Stage.OVER
        self._leave()
        if not ending:
            self._sender.drop()
            also, consume = self._afterwards(), list(self._request.records)
            self._link.commit((), consume, also).addErrback(self._uncommitted)
            del self._request.records[:]
        self._stopService()

    def recover(self, state: State) -> None:
        """A process that is gone left it like this; of its request comes again what was not consumed."""
        self.stage = Stage.DRAINING
        self._row = state
        if state is State.DRAINING:
            self._sender.drop()
            return
        self._around.count("interrupted")
        if state is State.RESPONDING:
            self._sender.begun = True
        self._sender.refuse(
            outcome_unknown(
                "the far node was stopped while it performed the call, which may have had its effect"
            )
        )

    def abandon(self) -> None:
        """The node stops, or its link: leave it to the next start."""
        self.stage = Stage.OVER
        self._sender.drop()
        self._stopService()

    def rolledBack(self, resent: frozenset[int]) -> None:
        """What was in the log may not arrive; C{resent} will.  See L{hoft.web.egress}."""
        # Of a first commit that is under way nobody knows yet in which log its records are.
        lost = self._sender.begun and (self._firstSent is None or not resent.issuperset(self._firstSent))
        if self.stage is Stage.RUNNING and lost and not self._sender.ending:
            self._around.count("interrupted")
            self._sender.refuse(outcome_unknown("one of the nodes lost its state while the answer crossed"))
            self._stopService()

    def _drain(self, record: int, part: Part) -> None:
        self._around.discard([record])
        try:
            self._request.parts.add(record, part)
        except RecordError:
            return  # it was refused for that, or its first parts are gone
        if self._request.complete and self._sender.over:
            self._drained()

    def _drained(self) -> None:
        """All of the request that will ever come has come, and was of no use."""
        if self.stage is Stage.DRAINING:
            self.stage = Stage.OVER
            self._around.ended(self)
            self._around.flush()
            rows = self._around.rows
            # A row that a crash left behind may be one of what must not be repeated.
            also = rows.forget(self.id) if self._row is None else rows.set(self.id, State.DONE)
            self._link.commit((), (), also).addErrback(self._uncommitted)

    # --- It is performed -----------------------------------------------------------------

    def start(self) -> None:
        """It is its turn."""
        head = self._head
        assert head is not None
        self._holdsTurn = True
        if self._around.clock() - self._complete > head.deadline:
            self.refuse(too_busy("the call waited at the far node until its deadline, and was not made"))
            self._release()
            return
        self.stage = Stage.RUNNING
        if self._repeatable:
            self._perform(head)
            return
        self._row = State.STARTED
        rows = self._around.rows
        self._link.commit((), (), rows.start(self.id), durable=True).addCallbacks(
            self._started, self._notStarted, callbackArgs=(head,)
        )

    def _started(self, result: CommitResult[bool], head: RequestHead) -> None:
        if self.stage is not Stage.RUNNING:
            return
        if result.value:
            self._perform(head)
            return
        self._sender.refuse(
            outcome_unknown("the call was made before, and its answer was lost when a node lost its state")
        )
        self._release()

    def _notStarted(self, failure: Failure) -> None:
        if failure.check(JournalFull):
            self._row = None
            self._sender.refuse(quota_exceeded("the far node's journal is full; the call was not made", 60))
        else:
            self._closed(failure)
        self._release()

    def _perform(self, head: RequestHead) -> None:
        grant, gathered = self._grant, self._request
        assert grant is not None
        self._around.count("performed")
        if head.told:
            said = Outgoing(encode_executing(self.id), RESPONSES, head.urgency)
            self._link.commit([said]).addErrback(self._uncommitted)
        origin = Origin(grant.scheme, grant.host, grant.port)
        request = ExactRequest(
            head.method, origin, head.target, self._fields, grant.permits, self._repeatable, gathered.trailers
        )
        body: Content = gathered.body or None
        if body is None and (gathered.received or gathered.trailers):
            body = RequestBody(self._link, gathered.parts, gathered.received)
        send = self._around.agent.send
        if grant.credentials is None:
            self._requesting = maybeDeferred(send, request, body)
        else:
            self._credentials = self._around.credentials.get(grant.credentials)
            if self._credentials is None:  # a new configuration has come in between
                self._sender.refuse(not_allowed("the credentials for it are not configured any more"))
                self._release()
                return
            self._requesting = Deferred.fromCoroutine(send_with(self._credentials, send, request, body))
        self.due = self._around.clock() + head.deadline
        self._around.watch(self)
        self._requesting.addCallback(self._responded).addErrback(self._unanswered)

    def _responded(self, response: ExactResponse) -> None:
        self._requesting = None
        self._around.unwatch(self)
        if self.stage is not Stage.RUNNING or self._sender.over:
            response.abortConnection()
            return
        self._response = response
        own = None if self._credentials is None else self._credentials.own
        waited = self._around.clock() - self._complete
        head = response_head(response, self._around.pseudonym, own, waited)
        self._sender.respond(head, response)

    def _unanswered(self, failure: Failure) -> None:
        self._requesting = None
        self._around.unwatch(self)
        if self._sender.accepting:
            self._around.count("failed")
            if isinstance(failure.value, RecordError):
                self._sender.refuse(self._damaged(failure.value))
            else:
                if not failure.check(ServiceError):
                    self.log.failure("A request could not be made", failure)
                self._sender.fail(failure)
        self._stopService()
        self._release()

    def silent(self) -> None:
        """The service did not answer in time."""
        assert self._head is not None
        where = f"{self._head.scheme}://{self._head.authority.decode('ascii')}"
        self._sender.refuse(service_silent(where, self._head.deadline))
        self._stopService()

    def tick(self, now: float) -> None:
        """Do what timers that stand still may have left undone, and ask for what does not come."""
        if self.stage is Stage.GATHERING and now - self._heard >= self._patience:
            self._patience *= 2
            self.poke()
        self._sender.tick()

    def _serviceDone(self) -> None:
        """The response's body has ended, well or not."""
        self._response = None
        self._release()

    def _stopService(self) -> None:
        """Nothing more is wanted of the service."""
        self._around.unwatch(self)
        requesting, self._requesting = self._requesting, None
        response, self._response = self._response, None
        if requesting is not None:
            requesting.cancel()
        if response is not None:
            response.abortConnection()
        self._release()

    def _release(self) -> None:
        if self._holdsTurn:
            self._holdsTurn = False
            self._around.released(self)

    # --- Its response goes into the log ----------------------------------------------------

    def credit(self, part: Part) -> None:
        """The other side takes more of the response."""
        self._sender.credit(decode_credit(part))

    def resume(self) -> None:
        """There may be room in the log again."""
        self._sender.resume()

    def _room(self) -> bool:
        return self._around.room(self)

    def _commit(self, parts: Sequence[bytes], last: bool) -> Deferred[Any]:
        urgency = 3 if self._head is None else self._head.urgency
        compressible = self._sender.compressible
        send = [
            Outgoing(part, RESPONSES, urgency, flow_of(part), compress=compressible(part)) for part in parts
        ]
        if not last:
            also = None if self._row is State.RESPONDING else self._set(State.RESPONDING)
            return self._link.commit(send, (), also).addCallbacks(self._sent, self._closed)
        consume = list(self._request.records)
        committing = self._link.commit(send, consume, self._afterwards())
        return committing.addCallbacks(self._lastSent, self._closed, callbackArgs=(len(consume),))

    def _set(self, state: State) -> Callable[[ITransaction], None]:
        self._row = state
        return self._around.rows.set(self.id, state)

    def _afterwards(self) -> Callable[[ITransaction], None] | None:
        """What the table must say once nothing more will be sent."""
        rows = self._around.rows
        if self.stage is Stage.DRAINING:
            return rows.set(self.id, State.DRAINING)
        if self._row is not None and self._head is not None and not self._repeatable:
            return rows.set(self.id, State.DONE)
        return None if self._row is None else rows.forget(self.id)

    def _sent(self, result: CommitResult[None]) -> None:
        if self._firstSent is None:
            self._firstSent = result.sent

    def _lastSent(self, _: CommitResult[None], consumed: int) -> None:
        del self._request.records[:consumed]
        if self.stage is Stage.RUNNING:
            self.stage = Stage.OVER
        if self.stage is Stage.OVER:
            self._leave()
        elif self._request.complete or self._forsaken:
            self._drained()

    def _leave(self) -> None:
        """Give back what it holds of the quota; what is not draining takes no parts any more."""
        self._around.spooled -= self._spooled
        self._spooled = 0
        if self.stage is Stage.OVER:
            self._around.ended(self)

    def _closed(self, failure: Failure) -> Failure | None:
        """A commit failed: only a full journal is worth another attempt."""
        if failure.check(JournalFull):
            return failure
        self.abandon()
        self._leave()
        self._uncommitted(failure)
        return None

    def _uncommitted(self, failure: Failure) -> None:
        if not failure.check(LinkClosed, JournalFull):
            self.log.failure("An exchange could not be committed", failure)
