"""
A request at its service, until the body of the response has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import PayloadLost, RecordError
from hoft.web.client.agent import Content, ExactRequest
from hoft.web.client.connection import ExactResponse
from hoft.web.client.policy import Grant
from hoft.web.egress.credentials import Credentials, send_with
from hoft.web.egress.outgoing import service_request
from hoft.web.egress.responding import response_head
from hoft.web.egress.surroundings import Stage, Surroundings
from hoft.web.http.heads import Fields, RequestHead
from hoft.web.http.problems import (
    Problem,
    Refused,
    credentials_unavailable,
    not_allowed,
    outcome_unknown,
    service_silent,
)
from hoft.web.http.responses import ServiceError

if TYPE_CHECKING:
    from hoft.web.egress.performing import Exchange


PATIENCE: Final = 0.9
"""Of a call's deadline: if it has no credentials by then its caller is told so, while it still listens."""


def damaged() -> Problem:
    """A part of the request or of the response is not in the journal as it was stored."""
    return outcome_unknown("a part of the call was damaged in the journal of the far node, as on a bad disk")


class ServiceCall:
    """
    That of one exchange.

    @ivar asked: (on the egress' clock) when it was made, C{due}, when its service is too late, and
        C{answered}, when the head of the response was there.
    @ivar requesting: while the service is asked, and C{response} while its body comes.
    """

    log = Logger()

    def __init__(self, around: Surroundings, exchange: Exchange) -> None:
        self.asked = 0.0
        self.due = 0.0
        self.answered = 0.0
        self.requesting: Deferred[ExactResponse] | None = None
        self.response: ExactResponse | None = None
        self._around = around
        self._exchange = exchange
        self._credentials: Credentials | None = None
        self._awaited: str | None = None
        """The credentials for which the request waits: the service has seen nothing of it."""

    def make(self, head: RequestHead, grant: Grant, fields: Fields) -> None:
        """
        Ask the service.

        @param fields: as it gets them.
        @raise Refused: it may not be asked any more.
        """
        around, exchange = self._around, self._exchange
        again = not exchange.once
        request, body = service_request(head, grant, fields, exchange.request, around.link, again)
        self.asked = around.clock()
        self.due = self.asked + head.deadline
        if grant.credentials is None:
            self.requesting = maybeDeferred(around.agent.send, request, body)
        else:
            self.requesting = self._with_credentials(grant.credentials, request, body, head.deadline)
        around.watch(self)
        self.requesting.addCallback(self._responded).addErrback(self._unanswered)

    def _with_credentials(
        self, name: str, request: ExactRequest, body: Content, deadline: float
    ) -> Deferred[ExactResponse]:
        self._credentials = credentials = self._around.credentials.get(name)
        if credentials is None:  # a new configuration has come in between
            raise Refused(not_allowed("the credentials for it are not configured any more"))

        def send(request: ExactRequest, body: Content) -> Deferred[ExactResponse]:
            self._await(None, deadline)
            return self._around.agent.send(request, body).addBoth(answered)

        def answered(result: ExactResponse | Failure) -> ExactResponse | Failure:
            self._await(name, deadline * PATIENCE)  # if that was a 401
            return result

        self._await(name, deadline * PATIENCE)
        return Deferred.fromCoroutine(send_with(credentials, send, request, body))

    def _await(self, credentials: str | None, seconds: float) -> None:
        """
        Wait for these credentials, or for the service.

        @param seconds: since it was asked for.
        """
        self._awaited = credentials
        self.due = self.asked + seconds

    def _responded(self, response: ExactResponse) -> None:
        around, exchange = self._around, self._exchange
        self.requesting = None
        around.unwatch(self)
        if exchange.stage is not Stage.RUNNING or exchange.sender.over:
            response.abortConnection()
            return
        self.response = response
        own = None if self._credentials is None else self._credentials.own
        self.answered = around.clock()
        head = response_head(response, around.pseudonym, own, self.answered - exchange.complete)
        exchange.sender.respond(head, response)

    def _unanswered(self, failure: Failure) -> None:
        exchange, error = self._exchange, failure.value
        self.requesting = None
        if exchange.sender.accepting:
            self._around.count("failed")
            if isinstance(error, RecordError):
                exchange.sender.refuse(exchange.malformed(error))
            elif isinstance(error, PayloadLost):
                exchange.sender.refuse(damaged())
            else:
                if not isinstance(error, ServiceError):
                    self.log.failure(
                        "Call {id}: the request could not be made", failure, id=exchange.id.hex()
                    )
                exchange.sender.fail(failure)
        exchange.leave_service()

    def silent(self) -> None:
        """C{due} has come."""
        head = self._exchange.head
        assert head is not None
        where = f"{head.scheme}://{head.authority.decode('ascii')}"
        problem = service_silent(where, head.deadline)
        if self._awaited is not None:
            problem = credentials_unavailable(self._awaited, "none came before the call had to end")
        self._exchange.sender.refuse(problem)
        self._exchange.leave_service()

    def stop(self) -> None:
        """Nothing more is wanted of the service."""
        self._around.unwatch(self)
        requesting, self.requesting = self.requesting, None
        response, self.response = self.response, None
        if requesting is not None:
            requesting.cancel()
        if response is not None:
            response.abortConnection()
