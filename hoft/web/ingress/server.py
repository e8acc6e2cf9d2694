"""
The side of HTTP/1.1 that callers connect to.

A L{Connection} reads requests and writes responses, in order, as they come and
go: no body is ever held here.  What a request means is decided by whoever made
the L{ServerFactory<hoft.web.ingress.server_factory.ServerFactory>}.

Why this is neither L{twisted.web.http.HTTPChannel} nor h11: HTTPChannel joins
folded lines, lets a missing C{Host} pass and keeps a whole body before it says
anything, and what would have to be overridden is private; h11 is strict and
streams, but costs twice as much.  With a trivial handler and 100 kept connections,
a request took 32 us of CPU here, 44 with HTTPChannel and 66 with h11, measured by
hand when this was written; the ratios were about the same when measured again.  h11
is what the tests compare the parser with.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.web.crossing.reading import LARGE_READ, USUAL_READ
from hoft.web.http.fields import with_length
from hoft.web.http.heads import Field
from hoft.web.http.problems import Problem, Refused, malformed_request
from hoft.web.http.requests import (
    BadResponse,
    Request,
    RequestParser,
    field_block,
    response_head,
)
from hoft.web.ingress.calls import IGNORE, Call, CallReceiver, Tunnelled

if TYPE_CHECKING:
    from hoft.web.ingress.server_factory import ServerFactory

AHEAD = 1 << 16
"""Bytes of later requests that are taken in while one is being answered."""

IDLE = 75.0
"""Seconds a connection may be kept without a request on it."""

STALLED = 60.0
"""Seconds a request's head may take, and a caller may pause in the middle of a body."""

LINGER = 5.0
"""Seconds without a byte after which a caller that still sends is cut off, once it has its answer."""

LINGER_TOTAL = 30.0
"""Seconds after which it is cut off anyway."""

PROBE = 1.0
"""Seconds after which a caller that closed its sending side is asked whether it still listens."""


@implementer(IPushProducer, IHalfCloseableProtocol)
class Connection(Protocol):
    """One caller's connection; made by L{ServerFactory<hoft.web.ingress.server_factory.ServerFactory>}."""

    factory: ServerFactory
    transport: Any
    """A TCP, TLS or UNIX connection."""

    def __init__(self) -> None:
        self.writable = True
        self._moved = 0.0
        """When bytes last passed."""
        self._opened = 0.0
        """When the head under way began; once we are closing, when that did."""
        self._call: Call | None = None
        self._receiver: CallReceiver = IGNORE
        self._advancing = False
        self._body_paused = False
        self._reading = True
        self._half_closed = False
        self._closing = False
        self._lost = False
        self._continue = False
        self._probes = 0
        self._tunnel: Tunnelled | None = None
        """Whose the connection is since a call was answered that made a tunnel of it."""
        # Of the response under way:
        self._bodiless = False
        self._chunked = False
        self._left: int | None = None
        self._keep = True

    def connectionMade(self) -> None:
        self._parser = RequestParser(self.factory.max_head)
        self._moved = self.factory.clock()
        peer = self.transport.getPeer()
        self._peer = str(getattr(peer, "host", ""))
        self._secure = ISSLTransport.providedBy(self.transport)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self.factory.connectionOpened(self)

    # --- requests ----------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        self._moved = self.factory.clock()
        if self._tunnel is not None:
            self._tunnel.dataReceived(data)
            return
        if self._closing:
            return
        if len(data) == USUAL_READ:
            self.transport.bufferSize = LARGE_READ
        if self._call is None and not self._parser.held:
            self._opened = self._moved
        self._parser.receive(data)
        self._advance()

    def _advance(self) -> None:
        """Go as far as what was received allows."""
        if self._advancing or self._closing:
            return
        self._advancing = True
        parser = self._parser
        try:
            while not self._closing:
                if self._call is None:
                    request = parser.request()
                    if request is None:
                        break
                    self._begin(request)
                elif parser.ended or self._body_paused:
                    break
                else:
                    data = parser.body()
                    if data:
                        self._receiver.bodyReceived(data)
                    if self._parser.ended:
                        self._receiver.bodyEnded(parser.trailers)
                    elif not data:
                        break
        except Refused as refused:
            self._refuse(refused.problem)
        finally:
            self._advancing = False
        if not self._closing:
            if self._half_closed and not self._awaited():
                self._incomplete()
            else:
                self._control_reading()

    def _begin(self, request: Request) -> None:
        call = self._call = Call(self, request, self._peer, self._secure)
        self._receiver = IGNORE
        self._body_paused = False
        self._continue = request.expects_continue
        receiver = self.factory.serve(call)
        if receiver is not None and not call.over:
            self._receiver = receiver
        if self._parser.ended and not call.over:
            self._receiver.bodyEnded(())

    def _awaited(self) -> bool:
        """Whether the request under way is complete, or will be once its receiver lets it."""
        return self._call is not None and (self._parser.ended or self._body_paused)

    def _refuse(self, problem: Problem) -> None:
        """Answer what is no request, as long as nothing else was answered."""
        call, receiver = self._call, self._receiver
        if call is not None:
            self._receiver = IGNORE
            receiver.callLost(problem.detail)
            if call.responding or call.over:
                self.abort()
                return
        else:
            call = self._call = Call(self, _UNREADABLE, self._peer, self._secure)
        self._keep = False
        self.factory.refused(call, problem)

    def _incomplete(self) -> None:
        """The caller will send nothing more, and nothing is under way that it could be waiting for."""
        if self._call is None and not self._parser.held:
            self._close(linger=False)
        else:
            self._refuse(malformed_request("the request ends before it is complete"))

    def serveBy(self, receiver: CallReceiver) -> None:
        self._receiver = receiver

    def sendContinue(self) -> None:
        if self._continue and not self._parser.held:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._continue = False

    def pauseBody(self) -> None:
        self._body_paused = True
        self._control_reading()

    def resumeBody(self) -> None:
        if self._body_paused:
            self._body_paused = False
            self._moved = self.factory.clock()
            self._advance()

    def _control_reading(self) -> None:
        """Read on unless nobody wants it now; while waiting, so that the caller's leaving is noticed."""
        waiting = self._call is not None and self._parser.ended
        wanted = self._parser.held < AHEAD if waiting else not self._body_paused
        if wanted != self._reading and not self._half_closed:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # --- responses ---------------------------------------------------------

    def respond(self, status: int, reason: bytes, fields: Iterable[Field], length: int | None) -> None:
        call = self._call
        assert call is not None and not call.responding
        request = call.request
        self._bodiless = request.method == b"HEAD" or status in (204, 304) or status < 200
        self._left = length
        self._keep = self._keep and request.persistent and self._parser.ended and not self.factory.stopping
        self._chunked = False
        placed = with_length(fields, None if status == 204 else length)
        if length is None and not self._bodiless:
            if request.version == (1, 1):
                placed.append((b"Transfer-Encoding", b"chunked"))
                self._chunked = True
            else:
                self._keep = False
        if not self._keep:
            placed.append((b"Connection", b"close"))
        elif request.version == (1, 0):
            placed.append((b"Connection", b"keep-alive"))
        head = response_head(status, reason, placed)
        call.responding = True
        self._continue = False
        self.transport.write(head)

    def write(self, data: bytes) -> None:
        if self._bodiless or not data:
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.abort()
                raise BadResponse("a body longer than its Content-Length")
        if self._chunked:
            self.transport.writeSequence((b"%x\r\n" % len(data), data, b"\r\n"))
        else:
            self.transport.write(data)

    def finish(self, trailers: Iterable[Field]) -> None:
        call = self._call
        assert call is not None and call.responding
        if self._left and not self._bodiless:
            self.abort()
            raise BadResponse("a body shorter than its Content-Length")
        if self._chunked:
            try:
                self.transport.write(b"0\r\n%b\r\n" % field_block(trailers))
            except BadResponse:
                self.abort()
                raise
        call.detach()
        self._call = None
        self._receiver = IGNORE
        self._moved = self.factory.clock()
        self.transport.bufferSize = USUAL_READ
        if not self._keep or self.factory.stopping:
            self._close(linger=call.request.persistent or not self._parser.ended)
        elif not self._advancing:
            self._advance()

    def tunnel(self, head: bytes, protocol: Tunnelled) -> None:
        call = self._call
        assert call is not None and not call.responding
        call.responding = True
        call.detach()
        self._call, self._receiver, self._tunnel = None, IGNORE, protocol
        self.transport.write(head)
        self.transport.unregisterProducer()
        if ITCPTransport.providedBy(self.transport):
            # Nobody answers silence any more: a caller that has vanished would never be missed.
            self.transport.setTcpKeepAlive(True)
        if not self._reading and not self._half_closed:
            self.transport.resumeProducing()
        protocol.makeConnection(self.transport)
        rest = self._parser.rest()
        if rest:
            protocol.dataReceived(rest)
        if self._half_closed:
            protocol.readConnectionLost()

    def abort(self) -> None:
        self._end_call()
        self._closing = True
        self.transport.unregisterProducer()
        self.transport.abortConnection()

    def _close(self, linger: bool) -> None:
        """
        Send what was written, then close.  With C{linger}, swallow what the
        caller still sends: closing at once would reset the connection, and
        the caller could lose the answer.
        """
        self._closing = True
        self._opened = self._moved
        self.transport.unregisterProducer()
        if linger and not self._half_closed and not self._secure:
            self.transport.loseWriteConnection()
            if not self._reading:
                self._reading = True
                self.transport.resumeProducing()
        else:
            self.transport.loseConnection()

    def closeIfIdle(self) -> None:
        """The server stops: close now, or after the response under way."""
        if self._call is None and not self._closing and self._tunnel is None:
            self._close(linger=False)
        self._keep = False

    # --- the transport's events --------------------------------------------

    def pauseProducing(self) -> None:
        self.writable = False
        self._receiver.pauseResponse()

    def resumeProducing(self) -> None:
        self.writable = True
        self._moved = self.factory.clock()
        self._receiver.resumeResponse()

    def stopProducing(self) -> None:
        """connectionLost follows."""

    def readConnectionLost(self) -> None:
        """The caller sends no more, but may wait for its answers (RFC 9112 9.6)."""
        if self._half_closed:
            return
        self._half_closed = True
        self._moved = self.factory.clock()
        if self._tunnel is not None:
            self._tunnel.readConnectionLost()
        elif self._closing:
            self.transport.loseConnection()
        else:
            self._advance()

    def writeConnectionLost(self) -> None:
        """We closed our side ourselves; what the caller sends is still swallowed."""
        if self._tunnel is not None:
            self._tunnel.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = self._lost = True
        self.factory.connectionClosed(self)
        self._end_call("the caller closed the connection")
        if self._tunnel is not None:
            self._tunnel.connectionLost(reason)

    def _end_call(self, lost: str = "") -> None:
        call, receiver = self._call, self._receiver
        self._call, self._receiver = None, IGNORE
        if call is not None:
            call.detach()
            if lost:
                receiver.callLost(lost)

    def sweep(self, now: float) -> None:
        """Cut off who has been silent for too long."""
        if self._tunnel is not None:
            return
        silent = now - self._moved
        if self._closing:
            if silent > LINGER or now - self._opened > LINGER_TOTAL:
                self.transport.abortConnection()
        elif self._call is None:
            if self._parser.held:
                if now - self._opened > STALLED:
                    self._refuse(_too_slow())
            elif silent > IDLE:
                self._close(linger=False)
        elif self._half_closed:
            self._probe(silent)
        elif not self._parser.ended and not self._body_paused and silent > STALLED:
            self._refuse(_too_slow())

    def _probe(self, silent: float) -> None:
        """
        A closed socket and a half-closed one look alike until something is
        written.  An interim response, which every caller must be able to
        skip (RFC 9110 15.2), makes a closed one answer with a reset; a second
        one meets it.
        """
        call = self._call
        assert call is not None
        if silent > PROBE and self._probes < 2 and call.request.version == (1, 1) and not call.responding:
            self._probes += 1
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _too_slow() -> Problem:
    return evolve(malformed_request(f"it did not come within {STALLED:g} s"), status=408)


_UNREADABLE = Request(
    method=b"GET",
    target=b"",
    version=(1, 1),
    fields=[],
    host=None,
    length=0,
    persistent=False,
    expects_continue=False,
)
"""Stands for a request that was none, so that it can be answered."""
