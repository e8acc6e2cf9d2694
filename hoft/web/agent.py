"""
An exact HTTP/1.1 client: what it is given is what goes out, byte for byte and in
order, and what comes back is handed on untouched.

L{ExactAgent} is an L{IAgent}, to be used beneath L{treq.client.HTTPClient}.  Treq
uppercases methods, rewrites some URLs, asks for gzip and undoes it, and keeps
cookies; all of that acts on the arguments that pass through it.  So the request
proper travels in one argument that treq hands on as it is, L{ExactHeaders}, and the
response proper in an attribute that it does not look at (see L{ExactClient}).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from attrs import field, frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from hoft.web import problems
from hoft.web.connection import ExactResponse, Outbound, SecureServiceConnection, ServiceConnection
from hoft.web.origins import Connector, Origin, Permit
from hoft.web.responses import HEAD_LIMIT, Field, ServiceError

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_UNFIT = re.compile(rb"[\x00\r\n]")


def _nowhere(address: str) -> bool:
    return False


@frozen
class ExactRequest:
    """
    A request as it is to go out.

    @ivar target: what follows the method, as it is.
    @ivar fields: all of them, Host too, but for Content-Length, Transfer-Encoding
        and Connection, which the agent adds.
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

    def outbound(self, body: IBodyProducer | None) -> Outbound:
        """
        The bytes of it.

        @raise ServiceError: something in it is not HTTP.
        """
        if not _TOKEN.fullmatch(self.method) or not _TARGET.fullmatch(self.target):
            raise _malformed("the method or the target")
        parts = [self.method, b" ", self.target, b" HTTP/1.1\r\n"]
        for name, value in self.fields:
            if not _TOKEN.fullmatch(name) or _UNFIT.search(value):
                raise _malformed("a field")
            parts += (name, b": ", value, b"\r\n")
        for name, value in self.trailers:
            if not _TOKEN.fullmatch(name) or _UNFIT.search(value):
                raise _malformed("a trailer field")
        chunked = bool(self.trailers) or (body is not None and body.length is UNKNOWN_LENGTH)
        if chunked:
            parts.append(b"Transfer-Encoding: chunked\r\n")
        elif body is not None:
            parts.append(b"Content-Length: %d\r\n" % body.length)
        elif self.method in (b"POST", b"PUT", b"PATCH"):
            # Expected even where it is 0 (RFC 9110 section 8.6).
            parts.append(b"Content-Length: 0\r\n")
        parts.append(b"\r\n")
        return Outbound(self.method, b"".join(parts), body, chunked, self.trailers)


def _malformed(what: str) -> ServiceError:
    return ServiceError(problems.malformed_request(f"{what} of the request is malformed"), unsent=True)


class ExactHeaders(Headers):
    """
    Carries an L{ExactRequest} through whatever agents lie between; to them it looks
    empty, but for a Cookie field that keeps a cookie jar from adding one.
    """

    __slots__ = ("exact",)

    def __init__(self, exact: ExactRequest) -> None:
        super().__init__()
        self.exact = exact

    def copy(self) -> ExactHeaders:
        """Itself: a copy that were changed would not be exact."""
        return self

    def hasHeader(self, name: Any) -> bool:
        return bool(name.lower() in ("cookie", b"cookie"))

    def addRawHeader(self, name: Any, value: Any) -> None:
        """Nothing is added on the way."""


class _Anywhere(EncodedURL):
    """What treq is told as URL; the agent goes by the L{ExactRequest}, so it need not be normalised."""

    def to_uri(self) -> _Anywhere:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return "http://exact.invalid/"


_ANYWHERE = _Anywhere("http", "exact.invalid")


class _NoCookies(IndexableCookieJar):
    """Neither keeps nor sends any: a jar would mix those of several callers."""

    def add_cookie_header(self, request: Any) -> None:
        """There are none."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """They are the caller's."""


@implementer(IAgent)
class ExactAgent:
    """
    Sends each request on a connection of its own or on one that was kept.

    A kept connection may die just as a request is sent on it, and then nobody knows
    whether the service has read it.  A repeatable request is then sent once more, on
    a fresh connection; for others only connections are used again that were busy a
    moment ago.  Nothing else is ever repeated.
    """

    def __init__(
        self,
        reactor: Any,
        connectTimeout: float = 10.0,
        tls: IPolicyForHTTPS | None = None,
        headLimit: int = HEAD_LIMIT,
        permit: Permit = _nowhere,
        keep: float = 30.0,
        keepUnrepeatable: float = 1.0,
        idlePerOrigin: int = 100,
    ) -> None:
        """
        @param connectTimeout: seconds for resolving, connecting and TLS together.
        @param tls: instead of the system's trust.
        @param headLimit: the most bytes of a response's head.
        @param permit: for requests that bring no L{ExactHeaders}.
        @param keep: seconds after which an idle connection is closed.
        @param keepUnrepeatable: seconds for which one serves requests that are not repeatable.
        """
        self._reactor = reactor
        self._connector = Connector(reactor, connectTimeout, tls)
        self._headLimit = headLimit
        self._permit = permit
        self._keep = keep
        self._keepUnrepeatable = keepUnrepeatable
        self._idlePerOrigin = idlePerOrigin
        self._idle: dict[Origin, list[ServiceConnection]] = {}
        self._open: set[ServiceConnection] = set()

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        @param headers: an L{ExactHeaders}, which then decides instead of C{method}
            and C{uri}; with others C{headers} of the response are filled, too.
        @return: fires when the response's head is there; fails with L{ServiceError};
            cancelling it aborts the connection.
        """
        if isinstance(headers, ExactHeaders):
            return self._send(headers.exact, bodyProducer)
        parsed = URI.fromBytes(uri)
        scheme = parsed.scheme.decode("ascii")
        pairs = (headers or Headers()).getAllRawHeaders()
        fields = [(name, value) for name, values in pairs for value in values]
        if not any(name.lower() == b"host" for name, _ in fields):
            fields.insert(0, (b"Host", parsed.netloc))
        origin = Origin(scheme, parsed.host.decode("ascii"), parsed.port)
        request = ExactRequest(method, origin, parsed.originForm, fields, self._permit)
        return self._send(request, bodyProducer).addCallback(_filled)

    def dropIdle(self) -> None:
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

    def _send(self, request: ExactRequest, body: IBodyProducer | None) -> Deferred[Any]:
        try:
            outbound = request.outbound(body)
        except ServiceError:
            return fail()
        kept = self._take(request, repeatable=request.repeatable and body is None)
        if kept is None:
            return self._connect(request).addCallback(lambda fresh: fresh.send(outbound))

        def again(failure: Failure) -> Any:
            if not (kept.untouched and request.repeatable and body is None and failure.check(ServiceError)):
                return failure
            return self._connect(request).addCallback(lambda fresh: fresh.send(outbound))

        return kept.send(outbound).addErrback(again)

    def _connect(self, request: ExactRequest) -> Deferred[ServiceConnection]:
        origin = request.origin
        kind = SecureServiceConnection if origin.scheme == "https" else ServiceConnection

        def build(address: str) -> ServiceConnection:
            return kind(origin, address, self._headLimit, self._open.add, self._becameIdle, self._lost)

        return self._connector.connect(origin, request.permit, build)

    def _take(self, request: ExactRequest, repeatable: bool) -> ServiceConnection | None:
        """A kept connection that this request may use."""
        connections = self._idle.get(request.origin, [])
        while connections:
            connection = connections[-1]
            if not repeatable and self._reactor.seconds() - connection.idleSince > self._keepUnrepeatable:
                return None
            self._forget(connection)
            if request.permit(connection.address):
                return connection
            connection.abort()
        return None

    def _becameIdle(self, connection: ServiceConnection) -> None:
        connections = self._idle.setdefault(connection.origin, [])
        connection.idleSince = self._reactor.seconds()
        connection.expiry = self._reactor.callLater(self._keep, connection.abort)
        connections.append(connection)
        if len(connections) > self._idlePerOrigin:
            connections[0].abort()

    def _lost(self, connection: ServiceConnection) -> None:
        self._open.discard(connection)
        self._forget(connection)

    def _forget(self, connection: ServiceConnection) -> None:
        """It is no longer idle."""
        if connection.expiry is None:
            return
        if connection.expiry.active():
            connection.expiry.cancel()
        connection.expiry = None
        connections = self._idle[connection.origin]
        connections.remove(connection)
        if not connections:
            del self._idle[connection.origin]


def _filled(response: ExactResponse) -> ExactResponse:
    for name, value in response.head.fields:
        response.headers.addRawHeader(name, value)
    return response


class ExactClient:
    """Treq's client over an L{ExactAgent}, with all it would add of its own switched off."""

    def __init__(self, agent: IAgent, reactor: Any) -> None:
        self._reactor = reactor
        self._jar = _NoCookies()
        self._client = HTTPClient(agent, self._jar)

    def request(self, request: ExactRequest, body: IBodyProducer | None = None) -> Deferred[ExactResponse]:
        """
        @return: as of L{ExactAgent.request}.
        """
        return self._client.request(
            request.method.decode("latin-1"),
            _ANYWHERE,
            headers=ExactHeaders(request),
            data=body,
            cookies=self._jar,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        ).addCallback(_original)


def _original(response: Any) -> ExactResponse:
    original = response.original
    assert isinstance(original, ExactResponse)
    return original
