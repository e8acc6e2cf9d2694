"""
WebSocket at the far node: a stream whose OPEN holds the request of the handshake is
connected to the service that this is for, once that has answered it; see
L{hoft.web.http.websocket}.

A service that answers with anything but 101 has its response brought back as what the
stream carries, and hears nothing of what the caller sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import RecordError
from hoft.streams.calls import StreamCall
from hoft.streams.multiplexer import Accepted
from hoft.streams.parts import MAX_SAID
from hoft.streams.reaching import refused
from hoft.streams.splicing import Splice
from hoft.web.client.agent import ExactAgent, ExactRequest
from hoft.web.client.origins import Origin, explain
from hoft.web.client.policy import Policy
from hoft.web.egress.credentials import Credentials, send_with
from hoft.web.egress.outgoing import check_request_line, outgoing_fields
from hoft.web.egress.responding import response_head
from hoft.web.history import History
from hoft.web.http.fields import Authority, FieldList
from hoft.web.http.heads import RequestHead, decode_request, encode_head
from hoft.web.http.problems import (
    Refused,
    bad_response,
    connection_terminated,
    malformed_request,
    not_allowed,
    response_incomplete,
)
from hoft.web.http.responses import Event, ReceivedHead, ResponseParser, ServiceError
from hoft.web.http.websocket import SWITCHING, key, mismatch, with_upgrade


class Calling(Protocol):
    """What is in force for calls of peers: L{hoft.web.egress.egress.Egress}."""

    policy: Policy
    pseudonym: str
    credentials: Mapping[str, Credentials]
    agent: ExactAgent
    clock: Callable[[], float]
    history: History


class WebSocketServices:
    """Connects the streams of peers to services that speak WebSocket."""

    def __init__(self, calling: Calling) -> None:
        self._calling = calling

    def connect(self, peer: str, call: StreamCall, asked: bytes) -> Deferred[Accepted]:
        """
        Make the handshake.

        @param call: as which it is told of.
        @param asked: the request as L{encode_head} makes it.
        @return: fires once the service has answered, whatever it says; fails with
            L{Refused} if it does not.  It may be cancelled.
        """
        return Deferred.fromCoroutine(self._connect(peer, call, asked)).addErrback(refused)

    async def _connect(self, peer: str, call: StreamCall, asked: bytes) -> Accepted:
        try:
            head = decode_request(asked)
        except RecordError as error:
            raise Refused(malformed_request(f"what came is no request: {error}")) from error
        ended, call.fields = call.ended, head.headers
        ended.method, ended.url, ended.caller = head.method, head.url, head.caller
        check_request_line(head)
        if head.method != b"GET":
            raise Refused(malformed_request("the handshake of WebSocket is a GET"))
        service = await self._answered(peer, head)
        answer = self._encoded(service, self._calling.clock() - ended.seconds)
        ended.status = service.head.status
        return Accepted(service.near, answer)

    def _encoded(self, service: Handshake, waited: float) -> bytes:
        """
        The head of what the service has answered, as it crosses.

        @raise ServiceError: it is too large.
        """
        head = response_head(service, self._calling.pseudonym, service.own, waited)
        try:
            answer = encode_head(head)
            if len(answer) > MAX_SAID:
                raise ValueError(f"a head of {len(answer)} bytes")
        except ValueError as error:
            service.abortConnection()
            problem = evolve(bad_response(str(error)), proxy_error="http_response_header_section_size")
            raise ServiceError(problem) from error
        return answer

    async def _answered(self, peer: str, head: RequestHead) -> Handshake:
        calling = self._calling
        where = Authority(head.host, head.port)
        fields = with_upgrade(outgoing_fields(head, calling.pseudonym))
        expected = key(fields)
        grant = calling.policy.check(peer, head.scheme, where, head.target, websocket=True)
        origin = Origin(grant.scheme, grant.host, grant.port)
        request = ExactRequest(head.method, origin, head.target, fields, grant.permits)

        def send(request: ExactRequest, _: None) -> Deferred[Handshake]:
            def build(address: str) -> Handshake:
                return Handshake(request, address, expected, calling.agent.head_limit)

            return calling.agent.connect(request, build).addCallback(_shake)

        if grant.credentials is None:
            return await send(request, None)
        credentials = calling.credentials.get(grant.credentials)
        if credentials is None:  # a new configuration has come in between
            raise Refused(not_allowed("the credentials for it are not configured any more"))
        service = await send_with(credentials, send, request, None)
        service.own = credentials.own
        return service


def _shake(service: Handshake) -> Deferred[Handshake]:
    return service.shake()


class _Near(Splice):
    """Takes the stream; what comes on it is for the service only if that has switched."""

    other: Handshake

    def dataReceived(self, data: bytes) -> None:
        if self.other.switched:
            super().dataReceived(data)


@implementer(IHandshakeListener)
class Handshake(Splice):
    """
    The connection to a service, from the request of the handshake on.

    @ivar ready: see L{hoft.web.client.origins.Connection}.
    @ivar head: what the service has answered.
    @ivar switched: it speaks WebSocket now.
    @ivar near: the protocol for the stream.
    @ivar own: takes out of the answer's fields those that are not the caller's.
    """

    head: ReceivedHead
    own: Callable[[FieldList], FieldList] | None = None

    def __init__(self, request: ExactRequest, address: str, key: bytes, limit: int) -> None:
        """
        @param key: that of the handshake.
        @param limit: the most bytes of the answer's head.
        @raise ServiceError: the request is not HTTP.
        """
        super().__init__()
        self.address = address
        self.ready: Deferred[None] = Deferred()
        self.switched = False
        self.near = _Near()
        self.join(self.near)
        self._request = request.outbound(None).head
        self._origin = request.origin
        self._key = key
        self._parser = ResponseParser(request.method, limit, upgrade=True)
        self._answer: Deferred[Handshake] = Deferred(lambda _: self.abortConnection())

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        if not ISSLTransport.providedBy(self.transport):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        """The certificate was verified, if there is one; nothing is sent before."""
        if not self.ready.called:
            self.ready.callback(None)

    def shake(self) -> Deferred[Handshake]:
        """
        Send the request.

        @return: fires with this once there is a C{head}; fails with L{ServiceError}; cancelling
            it aborts the connection.
        """
        self.transport.write(self._request)
        return self._answer

    def abort(self) -> None:
        """Close it at once."""
        self.transport.abortConnection()

    abortConnection = abort

    def dataReceived(self, data: bytes) -> None:
        try:
            self._take(self._parser.receive(data))
        except ServiceError as error:
            self._fail(error)

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, ReceivedHead):
                self._answered(event)
            elif self.near.transport is None:
                return  # whoever wanted the answer has connected it at once, or does not want it any more
            elif isinstance(event, bytes):
                super().dataReceived(event)
            else:
                self.near.transport.unregisterProducer()
                self.near.transport.loseConnection()
                self.transport.loseConnection()

    def _answered(self, head: ReceivedHead) -> None:
        if head.status == SWITCHING:
            wrong = mismatch(head, self._key)
            if wrong is not None:
                problem = bad_response(f"the service does not answer the handshake as it must: {wrong}")
                raise ServiceError(evolve(problem, proxy_error="http_upgrade_failed"))
            self.switched = True
        self.head = head
        self._answer.callback(self)

    def _fail(self, error: ServiceError) -> None:
        """What comes is of no use."""
        if not self._answer.called:
            self._answer.errback(error)
        elif self.near.transport is not None:
            self.near.transport.abortConnection()
        self.abort()

    def readConnectionLost(self) -> None:
        if self.switched:
            super().readConnectionLost()
        else:
            self._finish()

    def _finish(self) -> None:
        """It sends nothing more, and has not switched."""
        try:
            self._take(self._parser.finish())
        except ServiceError as error:
            self._fail(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ready.called:
            self.ready.errback(reason)
        elif not self._answer.called:
            problem = response_incomplete(f"{self._origin} broke off within its answer")
            if not self._parser.started:
                problem = explain(self._origin, reason, 0) or connection_terminated(
                    f"{self._origin} closed the connection without an answer"
                )
            self._answer.errback(ServiceError(problem))
        elif not self.switched and reason.check(ConnectionDone):
            self._finish()
        super().connectionLost(reason)
