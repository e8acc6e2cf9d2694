"""
One exchange on the side of the service, from its request's first part to its response's last.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import JournalFull, PayloadLost, RecordError
from hoft.interfaces import CommitResult, Outgoing
from hoft.web.client.policy import Grant
from hoft.web.crossing.exchange import (
    RESPONSES,
    Part,
    Side,
    decode_credit,
    encode_credit,
    encode_executing,
)
from hoft.web.egress.calling import ServiceCall, damaged
from hoft.web.egress.committing import Committing
from hoft.web.egress.executions import State
from hoft.web.egress.gathering import Gathering, Reservation
from hoft.web.egress.outgoing import check_request_line, outgoing_fields
from hoft.web.egress.responding import ResponseSender
from hoft.web.egress.surroundings import Stage, Surroundings
from hoft.web.http.fields import Authority
from hoft.web.http.forwarding import repeatable
from hoft.web.http.heads import Fields, RequestHead
from hoft.web.http.problems import (
    Problem,
    Refused,
    malformed_request,
    no_space,
    outcome_unknown,
    too_busy,
)

ASK = 5.0
"""
Seconds without news of an incomplete request after which its peer is first told how
much it may send: one that was killed meanwhile knows nothing of it and cancels it.
Then twice as long, and so on.
"""


class Exchange:
    """
    One exchange.

    @ivar id: 16 bytes.
    @ivar stage: where it is.
    @ivar request: what has come of its request, and C{head} the head, once that is here and may be performed.
    @ivar once: it may not be performed again; known with C{head}.
    @ivar begun: (on the egress' clock) when the first of its request came, C{complete}, when the last did.
    @ivar call: to the service, once that is made.
    @ivar sender: takes the response into the log.
    @ivar idle: for the egress: ticks since anything of it came.
    """

    log = Logger()

    def __init__(self, around: Surroundings, id: bytes) -> None:
        self.id = id
        self.stage = Stage.GATHERING
        self.idle = 0
        self._around = around
        self._link = around.link
        self.request = Gathering(around.link)
        self.head: RequestHead | None = None
        self.once = False
        self._grant: Grant | None = None
        self._fields: Fields = ()
        self._reserved = Reservation(around)
        self.begun = self._heard = around.clock()
        self._patience = ASK
        self.complete = 0.0
        self.call: ServiceCall | None = None
        self._holds_turn = False
        self._forsaken = False
        self._committing = Committing(around, self)
        give, room, share = self._committing.give, self._room, around.share
        self.sender = ResponseSender(
            around.reactor, id, around.pseudonym, give, room, share, self._service_done
        )

    @property
    def service(self) -> tuple[str, int | None] | None:
        """Where it is to be performed, once that is known."""
        return None if self.head is None else (self.head.host, self.head.port)

    # --- The request arrives ----------------------------------------------------------

    def add(self, record: int, part: Part) -> None:
        """A numbered part has come; call L{advance} after the last of a batch."""
        self.idle = 0
        if self.stage is Stage.DRAINING:
            self._drain(record, part)
            return
        try:
            fresh = self.request.add(record, part)
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
            head = self.head or self._read_head()
            if head is None:
                return
            self._reserved.take(head, self.request)
        except Refused as refusal:
            self.refuse(refusal.problem)
            return
        except RecordError as error:
            self._contradiction(error)
            return
        if self.request.complete:
            self.complete = self._around.clock()
            self.stage = Stage.QUEUED
            self._around.enqueue(self)
        else:
            self.poke(always=False)

    def poke(self, always: bool = True) -> None:
        """
        Tell the peer how much it may send; one that does not know the exchange cancels it.

        @param always: also if there is nothing new to tell.
        """
        total = self.request.grant(always, self._around.left) if self.stage is Stage.GATHERING else None
        if total is not None:
            credit = Outgoing(encode_credit(self.id, Side.EGRESS, total), RESPONSES, 0)
            self._link.commit([credit]).addErrback(self._not_granted)

    def _not_granted(self, failure: Failure) -> None:
        self.request.not_granted()
        self._committing.failed(failure)

    def _read_head(self) -> RequestHead | None:
        """
        The head, once it is here.

        @raise RecordError: it is none.
        @raise Refused: it is not performed.
        """
        found = self.request.read_head()
        if isinstance(found, Deferred):
            found.addCallback(self._got_head).addErrback(self._head_failed)
            return None
        if found is not None:
            self._accept(found)
            self.head = found
        return found

    def _got_head(self, head: RequestHead) -> None:
        if self.stage is Stage.GATHERING:
            self._accept(head)
            self.head = head
            self.advance()

    def _head_failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, Refused):
            self.refuse(error.problem)
        elif isinstance(error, RecordError):
            self._contradiction(error)
        elif isinstance(error, PayloadLost):
            self.damaged()
        else:
            self._committing.failed(failure)

    def _accept(self, head: RequestHead) -> None:
        """
        Judge a request by its head.

        @raise Refused:
        """
        check_request_line(head)
        where = Authority(head.host, head.port)
        self._fields = outgoing_fields(head, self._around.pseudonym)
        grant = self._around.policy.check(self._link.name, head.scheme, where, head.target)
        self._grant, self.once = grant, not repeatable(head, grant.retry)

    def _contradiction(self, error: RecordError) -> None:
        self.refuse(self.malformed(error))

    def malformed(self, error: RecordError) -> Problem:
        """What is told in place of an answer to what is no request."""
        self.log.warn(
            "Call {id}: {peer} sent a malformed request: {error}",
            id=self.id.hex(),
            peer=self._link.name,
            error=error,
        )
        return malformed_request(f"its parts do not make one request: {error}")

    # --- It is refused, cancelled, or found after a crash -------------------------------

    def refuse(self, problem: Problem) -> None:
        """Answer it with a problem without performing it."""
        if self.stage not in (Stage.GATHERING, Stage.QUEUED):
            return
        self._around.count("refused")
        self._around.withdraw(self)
        self.stage = Stage.OVER if self.request.complete else Stage.DRAINING
        self._leave()
        self.sender.refuse(problem)

    def cancel(self) -> None:
        """Its caller does not want the answer: what may still come of it is of no use."""
        if self.stage is Stage.DRAINING:
            self._forsaken = True
            if self.sender.over:
                self._drained()
        elif self.stage is not Stage.OVER:
            self._around.count("cancelled")
            if not self.sender.ending:
                self._around.account(self)
            self._give_up()

    def damaged(self) -> None:
        """A part of its request is lost: it will never be whole."""
        if self.stage in (Stage.GATHERING, Stage.QUEUED):
            self.refuse(damaged())
            self.cancel()

    def lost(self) -> None:
        """A part of its response is."""
        if self.stage is Stage.RUNNING and not self.sender.ending:
            self.sender.refuse(damaged())
            self.leave_service()

    def _give_up(self) -> None:
        self._around.withdraw(self)
        ending = self.sender.ending
        self.stage = Stage.OVER
        self._leave()
        if not ending:
            self.sender.drop()
            self._committing.let_go()
        self.leave_service()

    def recover(self, state: State) -> None:
        """A process that is gone left it like this; of its request comes again what was not consumed."""
        self.stage = Stage.DRAINING
        self._committing.row = state
        if state is State.DRAINING:
            self.sender.drop()
            return
        self._around.count("interrupted")
        if state is State.RESPONDING:
            self.sender.begun = True
        self.sender.refuse(
            outcome_unknown(
                "the far node was stopped while it performed the call, which may have had its effect"
            )
        )

    def abandon(self) -> None:
        """The node stops, or its link: leave it to the next start."""
        self.stage = Stage.OVER
        self.sender.drop()
        self.leave_service()

    def rolledBack(self, resent: frozenset[int]) -> None:
        """What was in the log may not arrive; C{resent} will.  See L{hoft.web.egress.egress}."""
        crossing = self.stage is Stage.RUNNING and self.sender.begun and not self.sender.ending
        if crossing and self._committing.lost(resent):
            self._around.count("interrupted")
            self.sender.refuse(outcome_unknown("one of the nodes lost its state while the answer crossed"))
            self.leave_service()

    def _drain(self, record: int, part: Part) -> None:
        self._around.discard([record])
        try:
            self.request.parts.add(record, part)
        except RecordError:
            return  # it was refused for that, or its first parts are gone
        if self.request.complete and self.sender.over:
            self._drained()

    def _drained(self) -> None:
        """All of the request that will ever come has come, and was of no use."""
        if self.stage is Stage.DRAINING:
            self.stage = Stage.OVER
            self._around.ended(self)
            self._committing.drained()

    # --- It is performed -----------------------------------------------------------------

    def start(self) -> None:
        """It is its turn."""
        head = self.head
        assert head is not None
        self._holds_turn = True
        if (late := self._waited_in_vain()) is not None:
            self.refuse(late)
            self._release()
            return
        self.stage = Stage.RUNNING
        if self.once:
            begun = self._committing.begin()
            begun.addCallbacks(self._started, self._not_started, callbackArgs=(head,))
        else:
            self._perform(head)

    def _waited_in_vain(self) -> Problem | None:
        """What a request is answered with whose turn has not come in time."""
        assert self.head is not None
        if self._around.clock() - self.complete <= self.head.deadline:
            return None
        return too_busy("the call waited at the far node until its deadline, and was not made")

    def _started(self, result: CommitResult[bool], head: RequestHead) -> None:
        if self.stage is not Stage.RUNNING:
            return
        if result.value:
            self._perform(head)
            return
        self.sender.refuse(
            outcome_unknown("the call was made before, and its answer was lost when a node lost its state")
        )
        self._release()

    def _not_started(self, failure: Failure) -> None:
        if failure.check(JournalFull):
            self._committing.row = None
            self.sender.refuse(no_space("the far node's journal is full; the call was not made", 60))
        else:
            self._committing.refused(failure)
        self._release()

    def _perform(self, head: RequestHead) -> None:
        assert self._grant is not None
        self._around.count("performed")
        if head.told:
            said = Outgoing(encode_executing(self.id), RESPONSES, head.urgency)
            self._link.commit([said]).addErrback(self._committing.failed)
        self.call = ServiceCall(self._around, self)
        try:
            self.call.make(head, self._grant, self._fields)
        except Refused as refusal:
            self.sender.refuse(refusal.problem)
            self._release()

    def tick(self, now: float) -> None:
        """Do what timers that stand still may have left undone, and ask for what does not come."""
        late: Problem | None = None
        if self.stage is Stage.GATHERING:
            silent = now - self._heard
            late = self.request.overdue(silent)
            impatient = silent >= self._patience
            if impatient:
                self._patience *= 2
            if late is None:
                self.poke(always=impatient)
        elif self.stage is Stage.QUEUED:
            late = self._waited_in_vain()
        if late is not None:
            self.refuse(late)
        self.sender.tick()

    def _service_done(self) -> None:
        """The response's body has ended, well or not."""
        if self.call is not None:
            self.call.response = None
        self._release()

    def leave_service(self) -> None:
        """Nothing more is wanted of the service."""
        if self.call is not None:
            self.call.stop()
        self._release()

    def _release(self) -> None:
        if self._holds_turn:
            self._holds_turn = False
            self._around.released(self)

    # --- Its response goes into the log ----------------------------------------------------

    def credit(self, part: Part) -> None:
        """The other side takes more of the response."""
        self.sender.credit(decode_credit(part))

    def resume(self) -> None:
        """There may be room in the log again."""
        self.sender.resume()

    def _room(self) -> bool:
        return self._around.room(self)

    def answered(self, consumed: int) -> None:
        """
        The last of the response is in the log.

        @param consumed: how many records of the request were let go of with that.
        """
        self._around.account(self)
        del self.request.records[:consumed]
        if self.stage is Stage.RUNNING:
            self.stage = Stage.OVER
        if self.stage is Stage.OVER:
            self._leave()
        elif self.request.complete or self._forsaken:
            self._drained()

    def _leave(self) -> None:
        """Give back what it holds of the quota; what is not draining takes no parts any more."""
        self._reserved.give_back()
        if self.stage is Stage.OVER:
            self._around.ended(self)

    def closed(self) -> None:
        """The log takes nothing of it any more."""
        self.abandon()
        self._leave()
