"""
One HTTP/1.1 connection to a service, carrying one request after the other, and the responses it brings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConsumer, IHandshakeListener, IProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer

from hoft.web.client.origins import Origin, explain
from hoft.web.crossing.reading import LARGE_READ, USUAL_READ
from hoft.web.http import problems
from hoft.web.http.heads import Field
from hoft.web.http.responses import ReceivedEnd, ReceivedHead, ResponseParser, ServiceError

_DONE = Failure(ResponseDone())

Watcher = Callable[["ServiceConnection"], None]


@frozen
class Outbound:
    """
    A request as its connection sends it.

    @ivar head: request line and fields with the blank line after them, and the body if it is at hand.
    @ivar body: what produces the body.
    @ivar chunked: send the body in chunks, then C{trailers}.
    """

    method: bytes
    head: bytes = field(repr=False)
    body: IBodyProducer | None = None
    chunked: bool = False
    trailers: Sequence[Field] = ()


@implementer(IResponse, IPushProducer)
class ExactResponse:
    """
    A response whose body is delivered as it came.

    It is also the transport of the protocol that the body is delivered to.

    @ivar head: status, reason and fields as they were sent.
    @ivar trailers: empty until the body has ended.
    @ivar address: who answered.
    @ivar headers: (L{IResponse}) filled by the agent where somebody wants them.
    """

    request: Any = None
    previousResponse: IResponse | None = None
    disconnecting = False

    def __init__(self, head: ReceivedHead, connection: ServiceConnection) -> None:
        self.head = head
        self.trailers: Sequence[Field] = ()
        self.address = connection.address
        self.version = (b"HTTP", 1, head.minor)
        self.code = head.status
        self.phrase = head.reason
        self.headers = Headers()
        self.length = UNKNOWN_LENGTH if head.length is None else head.length
        self._connection: ServiceConnection | None = connection
        self._protocol: IProtocol | None = None
        self._early: list[bytes] = []
        self._reason: Failure | None = None

    def deliverBody(self, protocol: IProtocol) -> None:
        """
        @param protocol: its transport is an L{IPushProducer} with C{abortConnection};
            its C{connectionLost} gets L{ResponseDone} or a L{ServiceError}.
        """
        protocol.makeConnection(self)  # type: ignore[arg-type]  # as far of a transport as IResponse promises
        self._protocol = protocol
        early, self._early = self._early, []
        if early:
            protocol.dataReceived(b"".join(early))
        if self._reason is not None:
            protocol.connectionLost(self._reason)
        elif early:
            self.resumeProducing()

    def setPreviousResponse(self, previousResponse: IResponse) -> None:
        self.previousResponse = previousResponse

    def bodyReceived(self, data: bytes) -> None:
        """From the connection."""
        if self._protocol is not None:
            self._protocol.dataReceived(data)
        elif data:
            self._early.append(data)
            self.pauseProducing()

    def bodyEnded(self, reason: Failure, trailers: Sequence[Field] = ()) -> None:
        """From the connection, once."""
        self._connection = None
        self._reason = reason
        self.trailers = trailers
        if self._protocol is not None:
            self._protocol.connectionLost(reason)

    def pauseProducing(self) -> None:
        if self._connection is not None:
            self._connection.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self._connection is not None:
            self._connection.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.abortConnection()

    def loseConnection(self) -> None:
        self.abortConnection()

    def abortConnection(self) -> None:
        """The rest of the body is not wanted."""
        if self._connection is not None:
            self._connection.abort()


class ServiceConnection(Protocol):
    """
    The client's side of a connection.

    @ivar origin: who is at the other end.
    @ivar address: the address it leads to.
    @ivar ready: fires when a request may be sent.
    @ivar usable: it is not closed, nor about to be.
    @ivar idle_since: for whoever keeps it: when it became idle.
    """

    transport: Any
    idle_since = 0.0

    def __init__(
        self, origin: Origin, address: str, head_limit: int, opened: Watcher, idle: Watcher, closed: Watcher
    ) -> None:
        """
        @param opened: called when it is connected.
        @param idle: called when it may carry another request.
        @param closed: called when it never will again.
        """
        self.origin = origin
        self.address = address
        self.ready: Deferred[None] = Deferred()
        self.usable = True
        self._head_limit = head_limit
        self._opened = opened
        self._idle = idle
        self._closed = closed
        self._parser: ResponseParser | None = None
        self._answer: Deferred[ExactResponse] = Deferred()
        self._response: ExactResponse | None = None
        self._producer: IBodyProducer | None = None
        self._error: Failure | None = None

    @property
    def untouched(self) -> bool:
        """No byte of an answer to the last request has come."""
        return self._parser is None or not self._parser.started

    def abort(self) -> None:
        """Close it at once; whoever waits for a response gets an error."""
        self.transport.abortConnection()
        self._retire()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._opened(self)
        self.established()

    def established(self) -> None:
        """Requests may be sent."""
        if not self.ready.called:
            self.ready.callback(None)

    # --- Sending -----------------------------------------------------------------

    def send(self, request: Outbound) -> Deferred[ExactResponse]:
        """
        Send a request; only on a connection that is new or idle.

        @return: fires with the response when its head is there; fails with
            L{ServiceError}, or what the body producer failed with; cancelling it
            aborts the connection.
        """
        self._parser = ResponseParser(request.method, self._head_limit)
        answer: Deferred[ExactResponse] = Deferred(lambda _: self.abort())
        self._answer = answer
        self._response = None
        self.transport.write(request.head)
        if request.chunked:
            self._send_body(request.body, _Chunks(self.transport, request.trailers))
        elif request.body is not None:
            self._send_body(request.body, _Counted(self.transport, request.body.length))
        return answer

    def _send_body(self, body: IBodyProducer | None, framing: _Framing) -> None:
        if body is None:
            framing.finish()
            return
        self._producer = body
        self.transport.registerProducer(body, True)

        def produced(_: Any) -> None:
            if self._producer is body:
                framing.finish()
                self._producer = None
                self.transport.unregisterProducer()

        def failed(failure: Failure) -> None:
            if self._producer is body:
                self._fail(failure)

        maybeDeferred(body.startProducing, framing).addCallback(produced).addErrback(failed)

    def _stop_sending(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            self.transport.unregisterProducer()
            producer.stopProducing()

    # --- Receiving ---------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if len(data) == USUAL_READ:
            self.transport.bufferSize = LARGE_READ
        if self._parser is None or self._parser.done:
            # Nobody asked: it would be taken for the answer to the next request.
            self.abort()
            return
        try:
            events = self._parser.receive(data)
        except ServiceError:
            self._fail(Failure())
            return
        head: ReceivedHead | None = None
        pieces: list[bytes] = []
        end: ReceivedEnd | None = None
        for event in events:
            if isinstance(event, bytes):
                pieces.append(event)
            elif isinstance(event, ReceivedHead):
                head = event
            else:
                end = event
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if head is not None:
            response = ExactResponse(head, self)
            if end is not None:
                # All of it at once, as most are: then it is given as a whole.
                response.bodyEnded(_DONE, end.trailers)
                response.bodyReceived(body)
                self._ended()
                self._answer.callback(response)
                return
            self._response = response
            self._answer.callback(response)
        if body and self._response is not None and self.usable:
            self._response.bodyReceived(body)
        if end is not None:
            self._end(end)

    def _end(self, end: ReceivedEnd) -> None:
        """The response is complete."""
        response, self._response = self._response, None
        if self.usable:
            self.transport.resumeProducing()
            self._ended()
        if response is not None:
            response.bodyEnded(_DONE, end.trailers)

    def _ended(self) -> None:
        """Keep the connection, if it may be, and say so."""
        self.transport.bufferSize = USUAL_READ
        if self._producer is None and self._parser is not None and self._parser.persistent:
            self._idle(self)
        else:
            self._stop_sending()
            self.transport.loseConnection()
            self._retire()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._retire()
        if not self.ready.called:
            self.ready.errback(reason)
            return
        self._stop_sending()
        parser = self._parser
        if parser is None or parser.done:
            return
        error = self._error
        if error is None and reason.check(ConnectionDone):
            try:
                for event in parser.finish():
                    if isinstance(event, ReceivedEnd):
                        self._end(event)
                return
            except ServiceError:
                error = Failure()
        if error is None:
            problem = problems.response_incomplete(f"{self.origin} broke off within its answer")
            if not parser.started:
                problem = explain(self.origin, reason, 0) or problems.connection_terminated(
                    f"{self.origin} closed the connection without an answer"
                )
            error = Failure(ServiceError(problem))
        response, self._response = self._response, None
        if response is not None:
            response.bodyEnded(error)
        elif not self._answer.called:
            self._answer.errback(error)

    def _fail(self, failure: Failure) -> None:
        """Give up for this reason; C{connectionLost} hands it on."""
        if self._error is None:
            self._error = failure
        self.abort()

    def _retire(self) -> None:
        if self.usable:
            self.usable = False
            self._closed(self)


@implementer(IHandshakeListener)
class SecureServiceConnection(ServiceConnection):
    """Over TLS: ready only when the certificate was verified, so nothing is sent to a wrong server."""

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._opened(self)

    def handshakeCompleted(self) -> None:
        self.established()


@implementer(IConsumer)
class _Framing:
    """What a body producer writes to."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The connection has done that."""

    def unregisterProducer(self) -> None:
        """The connection will do that."""

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def finish(self) -> None:
        """
        The body has been written.

        @raise ValueError: not as much as was announced.
        """


class _Counted(_Framing):
    """Framed by Content-Length."""

    def __init__(self, transport: Any, length: int) -> None:
        super().__init__(transport)
        self._left = length

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("a request's body is longer than announced")
        self._transport.write(data)

    def finish(self) -> None:
        if self._left:
            raise ValueError("a request's body is shorter than announced")


class _Chunks(_Framing):
    """Framed by chunked transfer coding (RFC 9112 section 7.1)."""

    def __init__(self, transport: Any, trailers: Sequence[Field]) -> None:
        super().__init__(transport)
        self._trailers = trailers

    def write(self, data: bytes) -> None:
        if data:
            self._transport.writeSequence((b"%x\r\n" % len(data), data, b"\r\n"))

    def finish(self) -> None:
        lines = b"".join(b"%s: %s\r\n" % trailer for trailer in self._trailers)
        self._transport.write(b"0\r\n" + lines + b"\r\n")
