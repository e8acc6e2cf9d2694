"""
Streams as Twisted endpoints: any protocol runs over a link unchanged.

Client strings: C{hoft:PEER:host=HOST:port=PORT} for a TCP port behind a peer that allows
it, C{hoft:PEER:service=NAME} for what a program there offers.  Server strings:
C{hoft:NAME} offers a service, C{hoft:NAME:peer=PEER} to one peer only.  Both take
C{node=NAME}, which is needed where several nodes run in the process; clients also
C{timeout=SECONDS}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from hoft.errors import HoftError
from hoft.identity import NAME, NAME_WANTED
from hoft.streams import registry
from hoft.streams.failures import StreamRefused
from hoft.streams.reaching import parse_tcp, tcp_target
from hoft.streams.stream import Stream
from hoft.streams.surroundings import StreamAddress
from hoft.web.http.problems import Refused, not_allowed

TIMEOUT = 60.0
"""Seconds in which a stream must be accepted: two crossings, and what the far side does between them."""


@implementer(IStreamClientEndpoint)
class StreamClientEndpoint:
    """Connects to something behind a peer, through a node of this process."""

    def __init__(self, peer: str, target: str, node: str | None = None, timeout: float = TIMEOUT) -> None:
        """
        @param peer: what the node's configuration calls it.
        @param target: C{tcp://HOST:PORT}, or the name of a service.
        @param node: what the node calls itself; C{None} where there is only one.
        @param timeout: seconds in which it must be accepted.
        """
        self._peer = peer
        self._target = target
        self._node = node
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        See L{IStreamClientEndpoint.connect}.

        @raise StreamRefused: (as failure) the far node said no, and why; or the link
            cannot be used.
        @raise StreamReset: (as failure) no answer came in time.
        @raise NodeNotRunning: (as failure) there is no node to go through.
        """
        try:
            stream = registry.running(self._node).open(self._peer, self._target, self._timeout)
        except HoftError:
            return fail()
        return stream.when_accepted().addCallback(self._accepted, stream, protocolFactory)

    def _accepted(self, _: bytes, stream: Stream, factory: IProtocolFactory) -> IProtocol:
        protocol = factory.buildProtocol(stream.getPeer())
        if protocol is None:
            stream.abortConnection()
            raise StreamRefused(not_allowed("the factory has made no protocol"))
        stream.attach(protocol)
        return protocol


@implementer(IStreamServerEndpoint)
class StreamServerEndpoint:
    """Offers a service to peers, through the nodes of this process."""

    def __init__(self, name: str, node: str | None = None, peer: str | None = None) -> None:
        """
        @param name: what peers ask for.
        @param node: at which node; C{None} for every one.
        @param peer: to whom; C{None} for every peer.
        """
        self._arguments = (name, node, peer)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        See L{IStreamServerEndpoint.listen}.  The node need not run yet.

        @raise CannotListenError: (as failure) the service is offered already.
        """
        name, node, peer = self._arguments
        port = StreamPort(registry.Service(name, protocolFactory, node, peer))
        try:
            port.startListening()
        except CannotListenError:
            return fail()
        return succeed(port)


@implementer(IListeningPort)
class StreamPort:
    """A service that is offered."""

    def __init__(self, service: registry.Service) -> None:
        self._service = service

    def startListening(self) -> None:
        """See L{IListeningPort.startListening}."""
        try:
            registry.offer(self._service)
        except ValueError as error:
            raise CannotListenError("hoft", self._service.name, error) from error
        self._service.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        """Offer it no more; streams that are open stay so."""
        registry.withdraw(self._service)
        self._service.factory.doStop()
        return succeed(None)

    def getHost(self) -> StreamAddress:
        """What is offered."""
        return StreamAddress(self._service.node or "", self._service.name)


def client(
    reactor: Any,
    peer: str,
    host: str | None = None,
    port: str | None = None,
    service: str | None = None,
    node: str | None = None,
    timeout: str | None = None,
) -> StreamClientEndpoint:
    """
    What the arguments of a client string stand for.

    @raise ValueError: nothing.
    """
    if (service is None) is (host is None) or (host is None) is not (port is None):
        raise ValueError("a hoft client endpoint is hoft:PEER:host=HOST:port=PORT or hoft:PEER:service=NAME")
    if service is not None:
        target = _name("service", service)
    else:
        assert host is not None and port is not None
        try:
            target = tcp_target(*parse_tcp(tcp_target(host, int(port))))
        except (ValueError, Refused):
            raise ValueError(
                f"host={host}:port={port} of a hoft client endpoint is no host and port"
            ) from None
    try:
        seconds = TIMEOUT if timeout is None else float(timeout)
    except ValueError:
        raise ValueError(f"timeout={timeout} of a hoft client endpoint is no number of seconds") from None
    return StreamClientEndpoint(_name("peer", peer), target, node, seconds)


def server(reactor: Any, name: str, node: str | None = None, peer: str | None = None) -> StreamServerEndpoint:
    """
    What the arguments of a server string stand for.

    @raise ValueError: nothing.
    """
    return StreamServerEndpoint(_name("name", name), node, peer)


def _name(what: str, text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(f"{what} {text!r} of a hoft endpoint; wanted: {NAME_WANTED}")
    return text
