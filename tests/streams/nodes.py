"""Two real nodes in this process, which share a folder, and TCP servers to reach through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from random import Random
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from hoft.config import Allow, Config, Peer, TcpForward
from hoft.identity import IDENTITY_FILE, Identity
from hoft.interfaces import LinkState
from hoft.node import Node

Steps = Generator[Deferred[Any], Any, None]

Results = Generator[Deferred[Any], Any, Any]

PATIENCE = 30.0


class Nodes(TestCase):
    """C{near} and C{far}, which hear each other."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Steps:  # type: ignore[override]  # trial waits for Deferreds
        folder = Path(self.mktemp()).absolute()
        (folder / "exchange").mkdir(parents=True)
        self.ports: list[IListeningPort] = []
        identities = {}
        for number, name in enumerate(("near", "far")):
            (folder / name).mkdir(mode=0o700)
            identities[name] = Identity.generate(Random(number).randbytes)
            identities[name].save(folder / name / IDENTITY_FILE)
        self.configs = {
            name: Config(
                name,
                folder / name,
                f"folder:{folder}/exchange",
                listen=(),
                peers=(Peer(other, identities[other].card(other)),),
            )
            for name, other in (("near", "far"), ("far", "near"))
        }
        self.near = Node(self.configs["near"], reactor)
        self.far = Node(self.configs["far"], reactor)
        for node in (self.near, self.far):
            yield node.startService()
        yield self.until(lambda: all(self.state(node) is LinkState.UP for node in (self.near, self.far)))

    @inlineCallbacks
    def tearDown(self) -> Steps:  # type: ignore[override]  # trial waits for Deferreds
        for port in self.ports:
            yield maybeDeferred(port.stopListening)
        for node in (self.near, self.far):
            if node.running:
                yield node.stopService()

    def state(self, node: Node) -> LinkState:
        (link,) = node.links.values()
        return link.state

    @inlineCallbacks
    def until(self, true: Callable[[], object], what: str = "") -> Steps:
        """Wait until it is so; fail if it does not become so."""
        limit = time.monotonic() + PATIENCE
        while not true():
            self.assertLess(time.monotonic(), limit, what)
            yield deferLater(reactor, 0.01, lambda: None)

    @inlineCallbacks
    def listen(self, protocol: Callable[[], Protocol], where: str) -> Results:
        """Serve these at an endpoint until the test is over; fires with where that is."""
        port = yield serverFromString(reactor, where).listen(Factory.forProtocol(protocol))
        self.ports.append(port)
        return port.getHost()

    @inlineCallbacks
    def serve(self, protocol: Callable[[], Protocol], allowed: bool = True) -> Results:
        """Serve these at a TCP port, which far allows; fires with its number."""
        address = yield self.listen(protocol, "tcp:0:interface=127.0.0.1")
        if allowed:
            yield self.configure(self.far, allowed=(Allow(f"tcp://127.0.0.1:{address.port}"),))
        return address.port

    @inlineCallbacks
    def forward(self, port: int) -> Results:
        """Have near lead one of its ports to this one behind far; fires with its number."""
        forward = TcpForward("tcp:0:interface=127.0.0.1", "far", f"127.0.0.1:{port}")
        yield self.configure(self.near, tcp=(forward,))
        address: Any
        ((_, address),) = self.near.forwards.addresses()
        return address.port

    def configure(self, node: Node, **changes: Any) -> Deferred[None]:
        name = "near" if node is self.near else "far"
        self.configs[name] = evolve(self.configs[name], **changes)
        return node.reload(self.configs[name])

    def connect(self, protocol: Protocol, where: str) -> Deferred[Any]:
        """Connect this to an endpoint."""
        connecting: Deferred[Any] = clientFromString(reactor, where).connect(
            Factory.forProtocol(lambda: protocol)
        )
        return connecting
