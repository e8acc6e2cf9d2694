"""
An exact HTTP/1.1 client: what it is given is what goes out, byte for byte and in
order, and what comes back is handed on untouched.

L{ExactAgent} is an L{IAgent}, for treq and whoever else makes ordinary requests.
Exchanges are performed with L{ExactAgent.send}: to pass a request that must not be changed
through L{treq.client.HTTPClient} took longer than to send it and to read the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from hoft.web.client.connection import ExactResponse, Outbound, SecureServiceConnection, ServiceConnection
from hoft.web.client.origins import C, Connector, Origin, Permit
from hoft.web.http import problems
from hoft.web.http.fields import are_tokens, values, with_length
from hoft.web.http.heads import Field
from hoft.web.http.responses import HEAD_LIMIT, ServiceError

_TARGET = re.compile(rb"[\x21-\x7e]+")
_UNFIT = re.compile(rb"[\x00\r\n]")

Content = IBodyProducer | bytes | None
"""A request's body: what produces it, all of it, or none."""


def _nowhere(address: str) -> bool:
    return False


@frozen
class ExactRequest:
    """
    A request as it is to go out.

    @ivar target: what follows the method, as it is.
    @ivar fields: all of them, Host too, but for Transfer-Encoding and Connection, which
        the agent adds.  A Content-Length only says where that is to stand.
    @ivar permit: which addresses of the origin's name may be connected to.
    @ivar repeatable: it may be sent again if a kept connection turns out to be dead.
    @ivar trailers: if there are any the body is sent in chunks.
    """

    method: bytes
    origin: Origin
    target: bytes
    fields: Sequence[Field]
    permit: Permit = field(repr=False)
    repeatable: bool = False
    trailers: Sequence[Field] = ()

    def outbound(self, body: Content) -> Outbound:
        """
        The bytes of it.

        @raise ServiceError: something in it is not HTTP.
        """
        if not _TARGET.fullmatch(self.target):
            raise _malformed("the target")
        fields = [*self.fields, *self.trailers]
        if not are_tokens([self.method, *(name for name, _ in fields)]):
            raise _malformed("the method or the name of a field")
        if _UNFIT.search(b" ".join([value for _, value in fields])):
            raise _malformed("the value of a field")
        length: Any = None
        chunked = False
        if isinstance(body, bytes):
            length = len(body)
        elif self.trailers or (body is not None and body.length is UNKNOWN_LENGTH):
            chunked = True
        elif body is not None:
            length = body.length
        elif self.method in (b"POST", b"PUT", b"PATCH") or values(self.fields, b"content-length"):
            # Expected even where it is 0 (RFC 9110 section 8.6).
            length = 0
        parts = [b"%b %b HTTP/1.1\r\n" % (self.method, self.target)]
        parts += [b"%b: %b\r\n" % pair for pair in with_length(self.fields, length)]
        parts.append(b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n")
        if isinstance(body, bytes):
            parts.append(body)
            body = None
        return Outbound(self.method, b"".join(parts), body, chunked, self.trailers)


def _malformed(what: str) -> ServiceError:
    return ServiceError(problems.malformed_request(f"{what} of the request is malformed"), unsent=True)


@implementer(IAgent)
class ExactAgent:
    """
    Sends each request on a connection of its own or on one that was kept.

    A kept connection may die just as a request is sent on it, and then nobody knows
    whether the service has read it.  A repeatable request is then sent once more, on
    a fresh connection; for others only connections are used again that were busy a
    moment ago.  Nothing else is ever repeated.

    @ivar head_limit: the most bytes of the head of a response on connections that are yet to be made.
    """

    def __init__(
        self,
        reactor: Any,
        connectTimeout: float = 10.0,
        tls: IPolicyForHTTPS | None = None,
        permit: Permit = _nowhere,
        keep: float = 30.0,
        keepUnrepeatable: float = 1.0,
        idlePerOrigin: int = 100,
    ) -> None:
        """
        @param connectTimeout: seconds for resolving, connecting and TLS together.
        @param tls: instead of the system's trust.
        @param permit: for L{request}.
        @param keep: seconds after which an idle connection is closed.
        @param keepUnrepeatable: seconds for which one serves requests that are not repeatable.
        """
        self._reactor = reactor
        self._connector = Connector(reactor, connectTimeout, tls)
        self.head_limit = HEAD_LIMIT
        self._permit = permit
        self._keep = keep
        self._keep_unrepeatable = keepUnrepeatable
        self._idle_per_origin = idlePerOrigin
        self._idle: dict[Origin, dict[ServiceConnection, None]] = {}
        """Those that idle, by origin, the longest idle first."""
        self._open: set[ServiceConnection] = set()
        self._sweeping: IDelayedCall | None = None

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        As L{IAgent} has it; the fields of a name are sent together.

        @return: fires when the response's head is there; fails with L{ServiceError};
            cancelling it aborts the connection.
        """
        parsed = URI.fromBytes(uri)
        scheme = parsed.scheme.decode("ascii")
        pairs = (headers or Headers()).getAllRawHeaders()
        fields = [(name, value) for name, values in pairs for value in values]
        if not any(name.lower() == b"host" for name, _ in fields):
            fields.insert(0, (b"Host", parsed.netloc))
        origin = Origin(scheme, parsed.host.decode("ascii"), parsed.port)
        request = ExactRequest(method, origin, parsed.originForm, fields, self._permit)
        return self.send(request, bodyProducer).addCallback(_filled)

    def send(self, request: ExactRequest, body: Content = None) -> Deferred[Any]:
        """
        Make exactly this request.

        @param body: bytes only where there are no trailers.
        @return: fires with the L{ExactResponse} when its head is there; fails with
            L{ServiceError}, or what the body producer failed with; cancelling it aborts
            the connection.
        """
        try:
            outbound = request.outbound(body)
        except ServiceError:
            return fail()
        again = request.repeatable and outbound.body is None
        kept = self._take(request, again)
        if kept is None:
            return self._connect(request).addCallback(_send, outbound)
        sending: Deferred[Any] = kept.send(outbound)
        return sending.addErrback(self._send_again, kept, request, outbound) if again else sending

    def _send_again(
        self, failure: Failure, kept: ServiceConnection, request: ExactRequest, outbound: Outbound
    ) -> Any:
        if not (kept.untouched and failure.check(ServiceError)):
            return failure
        return self._connect(request).addCallback(_send, outbound)

    def drop_idle(self) -> None:
        """Close the connections that no request is using, as after a change of policy."""
        for connections in list(self._idle.values()):
            for connection in list(connections):
                connection.abort()

    def stop(self) -> None:
        """Abort all connections."""
        for connection in list(self._open):
            connection.abort()

    def counters(self) -> dict[str, int]:
        """Connections that are open, and how many of them idle."""
        return {
            "connections_open": len(self._open),
            "connections_idle": sum(len(connections) for connections in self._idle.values()),
        }

    def connect(self, request: ExactRequest, build: Callable[[str], C]) -> Deferred[C]:
        """A connection for this request alone: see L{Connector.connect}."""
        return self._connector.connect(request.origin, request.permit, build)

    def _connect(self, request: ExactRequest) -> Deferred[ServiceConnection]:
        origin = request.origin
        kind = SecureServiceConnection if origin.scheme == "https" else ServiceConnection

        def build(address: str) -> ServiceConnection:
            return kind(origin, address, self.head_limit, self._open.add, self._became_idle, self._lost)

        return self.connect(request, build)

    def _take(self, request: ExactRequest, repeatable: bool) -> ServiceConnection | None:
        """A kept connection that this request may use."""
        connections = self._idle.get(request.origin)
        while connections:
            connection, _ = connections.popitem()
            if not repeatable and self._reactor.seconds() - connection.idle_since > self._keep_unrepeatable:
                connections[connection] = None
                return None
            if request.permit(connection.address):
                return connection
            connection.abort()
        return None

    def _became_idle(self, connection: ServiceConnection) -> None:
        connections = self._idle.setdefault(connection.origin, {})
        connection.idle_since = self._reactor.seconds()
        connections[connection] = None
        if len(connections) > self._idle_per_origin:
            next(iter(connections)).abort()
        if self._sweeping is None:
            self._sweeping = self._reactor.callLater(self._keep, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long, and look again when the next may have been."""
        self._sweeping = None
        late = self._reactor.seconds() - self._keep
        for origin, connections in list(self._idle.items()):
            for connection in list(connections):
                if connection.idle_since > late:
                    break
                connection.abort()
            if not connections:
                del self._idle[origin]
        oldest = [next(iter(connections)).idle_since for connections in self._idle.values()]
        if oldest:
            self._sweeping = self._reactor.callLater(min(oldest) - late, self._sweep)

    def _lost(self, connection: ServiceConnection) -> None:
        self._open.discard(connection)
        self._idle.get(connection.origin, {}).pop(connection, None)
        if not self._open and self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
            self._idle.clear()


def _send(fresh: ServiceConnection, outbound: Outbound) -> Deferred[ExactResponse]:
    return fresh.send(outbound)


def _filled(response: ExactResponse) -> ExactResponse:
    for name, value in response.head.fields:
        response.headers.addRawHeader(name, value)
    return response
