"""
What a peer's streams may reach through this node: TCP targets that the configuration
names, and services that programs in this process offer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from hoft.config import Allow
from hoft.errors import ConfigurationError
from hoft.streams.multiplexer import Accepted
from hoft.streams.parts import TCP
from hoft.streams.splicing import Splice
from hoft.web.client.origins import Connector, Origin
from hoft.web.client.policy import Grant, normal_host
from hoft.web.http.fields import authority
from hoft.web.http.problems import Refused, malformed_request, not_allowed
from hoft.web.http.responses import ServiceError


def tcp_target(host: str, port: int) -> str:
    """What a stream to this port is opened to; an IPv6 address stands without brackets."""
    return f"{TCP}[{host}]:{port}" if ":" in host else f"{TCP}{host}:{port}"


def parse_tcp(target: str) -> tuple[str, int]:
    """
    Host, as L{normal_host} has it, and port.

    @raise Refused: it is no C{tcp://HOST:PORT}.
    """
    if not target.startswith(TCP) or not target.isascii():
        raise Refused(malformed_request(f"{target[:60]!r} is not tcp://HOST:PORT"))
    where = authority(target[len(TCP) :].encode("ascii"))
    if not where.port:
        raise Refused(malformed_request(f"{target[:60]!r} names no port"))
    return normal_host(where.host), where.port


class TcpPolicy:
    """The TCP targets that peers may reach; none unless they are named."""

    def __init__(self, allowed: Iterable[Allow] = ()) -> None:
        """
        @param allowed: of these the ones that begin with C{tcp://}.
        @raise ConfigurationError: one names no host or no port.
        """
        self._rules: dict[tuple[str, int], list[Allow]] = {}
        for allow in allowed:
            if allow.url.startswith(TCP):
                try:
                    self._rules.setdefault(parse_tcp(allow.url), []).append(allow)
                except Refused as error:
                    raise ConfigurationError(
                        "allow", "url", f"{allow.url!r}: {error.problem.detail}", "tcp://HOST:PORT"
                    ) from error

    def check(self, peer: str, target: str) -> Grant:
        """
        May C{peer} open a stream to this?

        @raise Refused: 403 no, with what would allow it; 400 it is no TCP target.
        """
        host, port = parse_tcp(target)
        rules = [rule for rule in self._rules.get((host, port), ()) if rule.peer in (None, peer)]
        if not rules:
            shown = tcp_target(host, port)
            raise Refused(
                not_allowed(f"the far node does not allow {peer} to reach {shown}; see 'hoft allow' there")
            )
        return Grant("tcp", host, port, any(rule.private for rule in rules))


class _Dialled(Splice):
    """A connection to a target; see L{hoft.web.client.origins.Connection}."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.ready: Deferred[None] = Deferred()
        self.near = Splice()
        self.join(self.near)

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        super().connectionMade()
        self.ready.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if not self.ready.called:
            self.ready.errback(reason)

    def abort(self) -> None:
        self.transport.abortConnection()


class TcpTargets:
    """Connects the streams of peers to TCP targets."""

    def __init__(self, reactor: Any, policy: TcpPolicy, timeout: float = 10.0) -> None:
        """@param timeout: seconds for resolving and connecting."""
        self.policy = policy
        self._connector = Connector(reactor, timeout)

    def connect(self, peer: str, target: str) -> Deferred[Accepted]:
        """
        Connect; every address that the name has must be allowed.

        @return: fires with the protocol for the stream; fails with L{Refused}.
        @raise Refused: the policy has it so.
        """
        grant = self.policy.check(peer, target)
        origin = Origin(grant.scheme, grant.host, grant.port)
        dialling: Deferred[_Dialled] = self._connector.connect(origin, grant.permits, _Dialled)
        return dialling.addCallbacks(_near, refused)


def _near(dialled: _Dialled) -> Accepted:
    return Accepted(dialled.near)


def refused(failure: Failure) -> Failure:
    """An errback: what went wrong at a service, as the peer is told."""
    if failure.check(ServiceError):
        assert isinstance(failure.value, ServiceError)
        return Failure(Refused(failure.value.problem))
    return failure
