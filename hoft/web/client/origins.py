"""
Connections to the origin servers of services: each name resolved once, each
address checked, TLS verified against the name and the system's trust.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar

from attrs import frozen
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionClosed,
    ConnectionRefusedError,
    NoRouteError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostResolution,
    IOpenSSLClientConnectionCreator,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from hoft.web.http import problems
from hoft.web.http.problems import Problem
from hoft.web.http.responses import ServiceError

Permit = Callable[[str], bool]
"""Whether this address (text, IPv6 without brackets) may be connected to."""

_STAGGER = 0.3
"""Seconds until the next address is tried beside a slow one (RFC 8305 calls for 0.25)."""

_TLS_CACHE = 64


@frozen
class Origin:
    """
    Scheme, host and port (RFC 9110 section 4.3.1).

    @ivar scheme: C{"http"} or C{"https"}.
    @ivar host: a name or an address; IPv6 without brackets.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Connection(Protocol):
    """What L{Connector} makes ready: a protocol that tells when it is."""

    ready: Deferred[None]
    """Fires when a request may be written; fails if the connection is lost before."""

    address: str
    """Where it leads."""

    def abort(self) -> None:
        """Give it up at once."""


C = TypeVar("C", bound=Connection)


class Connector:
    """Opens connections; one limit counts from the look-up of the name to the end of the TLS handshake."""

    def __init__(self, reactor: Any, timeout: float = 10.0, tls: IPolicyForHTTPS | None = None) -> None:
        """
        @param reactor: provides TCP, time and a name resolver.
        @param tls: makes TLS clients; the system's trust unless given.
        """
        self._reactor = reactor
        self._timeout = timeout
        self._tls = _Clients(reactor, tls or BrowserLikePolicyForHTTPS())

    def connect(self, origin: Origin, permit: Permit, build: Callable[[str], C]) -> Deferred[C]:
        """
        @param permit: asked of every address the name has; one refusal refuses them
            all, for a name that leads to both is not to be trusted.
        @param build: makes the protocol for an address.
        @return: fires with a connection that is C{ready}, fails with L{ServiceError};
            may be cancelled.
        """
        return _Attempt(self._reactor, self._timeout, self._tls, origin, permit, build).begin()


_Made = IOpenSSLClientConnectionCreator | BaseException
"""What came of making one."""


class _Clients:
    """
    Makers of TLS clients, by host.  The first client of each loads the authorities that
    are trusted, which takes tens of milliseconds: that is one on a thread, not used further.
    """

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS) -> None:
        self._reactor = reactor
        self._policy = policy
        self._makers: OrderedDict[str, Deferred[_Made]] = OrderedDict()

    def maker(self, origin: Origin) -> Deferred[IOpenSSLClientConnectionCreator]:
        """@return: fires with one for this host; it may be cancelled without harm to others."""
        making = self._makers.get(origin.host)
        if making is None:
            making = self._makers[origin.host] = deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), self._make, origin
            )
            making.addErrback(self._not_made, origin.host)
            if len(self._makers) > _TLS_CACHE:
                self._makers.popitem(last=False)
        else:
            self._makers.move_to_end(origin.host)
        mine: Deferred[IOpenSSLClientConnectionCreator] = Deferred()
        making.addCallback(_tell, mine)
        return mine

    def _make(self, origin: Origin) -> IOpenSSLClientConnectionCreator:
        maker = self._policy.creatorForNetloc(origin.host.encode("ascii"), origin.port)
        factory = TLSMemoryBIOFactory(maker, True, Factory())
        maker.clientConnectionForTLS(TLSMemoryBIOProtocol(factory, TwistedProtocol()))
        return maker

    def _not_made(self, failure: Failure, host: str) -> _Made:
        """For all who wait; whoever comes later tries again."""
        self._makers.pop(host, None)
        assert failure.value is not None
        return failure.value


def _tell(made: _Made, waiting: Deferred[IOpenSSLClientConnectionCreator]) -> _Made:
    if isinstance(made, BaseException):
        waiting.errback(made)
    else:
        waiting.callback(made)
    return made


class _Attempt:
    """One call of L{Connector.connect}."""

    def __init__(
        self,
        reactor: Any,
        timeout: float,
        tls: _Clients,
        origin: Origin,
        permit: Permit,
        build: Callable[[str], Any],
    ) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._tls = tls
        self._origin = origin
        self._permit = permit
        self._build = build
        self._result: Deferred[Any] = Deferred(lambda _: self._stop())
        self._maker: IOpenSSLClientConnectionCreator | None = None
        self._resolving = True
        self._over = False
        self._left: list[str] = []
        self._pending: set[Deferred[Any]] = set()
        self._opened: set[Any] = set()
        self._next: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None

    def begin(self) -> Deferred[Any]:
        self._deadline = self._reactor.callLater(self._timeout, self._late)
        self._watch(_resolve(self._reactor, self._origin), self._resolved)
        return self._result

    def _watch(self, step: Deferred[Any], then: Callable[[Any], None]) -> None:
        self._pending.add(step)

        def fired(value: Any) -> Any:
            self._pending.discard(step)
            return value

        step.addBoth(fired).addCallback(then).addErrback(self._failed)

    def _resolved(self, addresses: list[str]) -> None:
        if self._over:
            return
        self._resolving = False
        host = self._origin.host
        if not addresses:
            raise ServiceError(problems.dns_error(host, "the name has no address"), unsent=True)
        for address in addresses:
            if not self._permit(address):
                shown = host if host == address else f"{host} is {address}, which"
                raise ServiceError(problems.address_prohibited(f"{shown} is not allowed here"), unsent=True)
        if self._origin.scheme != "https":
            self._prepared(addresses, None)
        else:
            self._watch(self._tls.maker(self._origin), lambda maker: self._prepared(addresses, maker))

    def _prepared(self, addresses: list[str], maker: IOpenSSLClientConnectionCreator | None) -> None:
        if self._over:
            return
        self._left, self._maker = list(addresses), maker
        self._try()

    def _try(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._over or not self._left:
            return
        address = self._left.pop(0)
        if self._left:
            self._next = self._reactor.callLater(_STAGGER, self._try)
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        endpoint: IStreamClientEndpoint = kind(self._reactor, address, self._origin.port, self._timeout)
        if self._origin.scheme == "https":
            assert self._maker is not None
            endpoint = wrapClientTLS(self._maker, endpoint)
        self._watch(endpoint.connect(_Once(lambda: self._build(address))), self._opening)

    def _opening(self, connection: Any) -> None:
        if self._over:
            connection.abort()
            return
        self._opened.add(connection)
        self._watch(connection.ready, lambda _: self._succeed(connection))

    def _succeed(self, connection: Any) -> None:
        if self._over:
            return
        self._opened.discard(connection)
        self._stop()
        self._result.callback(connection)

    def _failed(self, failure: Failure) -> None:
        if self._over:
            return
        if self._left:
            self._try()
        elif not self._pending:
            problem = explain(self._origin, failure, self._timeout)
            self._fail(failure.value if problem is None else ServiceError(problem, unsent=True))

    def _late(self) -> None:
        if self._resolving:
            self._fail(ServiceError(problems.dns_timeout(self._origin.host), unsent=True))
        else:
            self._fail(
                ServiceError(problems.connection_timeout(str(self._origin), self._timeout), unsent=True)
            )

    def _fail(self, error: BaseException | None) -> None:
        self._stop()
        self._result.errback(Failure(error))

    def _stop(self) -> None:
        self._over = True
        for call in (self._next, self._deadline):
            if call is not None and call.active():
                call.cancel()
        for step in list(self._pending):
            step.cancel()
        for connection in self._opened:
            connection.abort()


def explain(origin: Origin, failure: Failure, timeout: float) -> Problem | None:
    """
    What the caller is told when a connection cannot be made or is lost.

    @return: C{None} for what is no failure of a connection, but a defect of ours.
    """
    where, error = str(origin), failure.value
    if isinstance(error, ConnectionRefusedError):
        return problems.connection_refused(where)
    if isinstance(error, TimeoutError | TCPTimedOutError):
        return problems.connection_timeout(where, timeout)
    if isinstance(error, NoRouteError):
        return problems.unroutable(where, str(error))
    if isinstance(error, VerificationError):
        return problems.tls_certificate_error(where, f"it is not for {origin.host}")
    if isinstance(error, SSL.Error):
        reason = ", ".join(entry[-1] for entry in error.args[0]) if error.args and error.args[0] else ""
        if "certificate verify failed" in reason:
            return problems.tls_certificate_error(where, reason)
        return problems.tls_protocol_error(where, reason or "the connection was closed")
    if isinstance(error, ConnectError):
        return problems.unroutable(where, type(error).__name__)
    if isinstance(error, ConnectionClosed | ConnectionAborted):
        return problems.connection_terminated(f"{where} closed the connection")
    return None


@implementer(IProtocolFactory)
class _Once:
    """Makes one protocol."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress) -> Any:
        return self._build()

    def doStart(self) -> None:
        """Nothing to prepare."""

    def doStop(self) -> None:
        """Nothing to release."""


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects what a name resolves to."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.complete: Deferred[list[str]] = Deferred(self._cancel)
        self._resolution: IHostResolution | None = None

    def _cancel(self, _: Deferred[list[str]]) -> None:
        if self._resolution is not None:
            self._resolution.cancel()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._resolution = resolutionInProgress

    def addressResolved(self, address: Any) -> None:
        if address.host not in self.found:
            self.found.append(address.host)

    def resolutionComplete(self) -> None:
        if not self.complete.called:
            self.complete.callback(self.found)


def _resolve(reactor: Any, origin: Origin) -> Deferred[list[str]]:
    """All addresses of the origin's host."""
    try:
        return succeed([str(ip_address(origin.host))])
    except ValueError:
        pass
    addresses = _Addresses()
    try:
        reactor.nameResolver.resolveHostName(addresses, origin.host, origin.port)
    except Exception as error:
        return fail(ServiceError(problems.dns_error(origin.host, str(error)), unsent=True))
    return addresses.complete
