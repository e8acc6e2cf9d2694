"""Two real nodes in this process, which share a folder, and TCP servers to reach through them."""

from __future__ import annotations

import json
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
from tests.streams.ends import HalfListener, Listener

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

    def pause(self, seconds: float) -> Deferred[None]:
        """Let the reactor run for so long."""
        return deferLater(reactor, seconds, lambda: None)

    @inlineCallbacks
    def until(self, true: Callable[[], object], what: str = "") -> Steps:
        """Wait until it is so; fail if it does not become so."""
        limit = time.monotonic() + PATIENCE
        while not true():
            self.assertLess(time.monotonic(), limit, what)
            yield self.pause(0.01)

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
        (address,) = self.near._ports.addresses("tcp.listen")
        return address.port

    @inlineCallbacks
    def told(self, kind: str, **question: Any) -> Results:
        """The one call, under way or ended, that near tells of, and what far does of the same id."""
        found = []
        for node in (self.near, self.far):
            answer = yield node._listing.answer(question)
            (one,) = answer[kind]
            found.append(one)
            question = {"id": one["id"]}
        return found

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


class CallerNodes(Nodes):
    """Near also takes calls, of callers who speak HTTP as raw bytes."""

    @inlineCallbacks
    def setUp(self) -> Steps:  # type: ignore[override]  # trial waits for Deferreds
        yield super().setUp()
        yield self.configure(self.near, listen=("tcp:0:interface=127.0.0.1",))

    @inlineCallbacks
    def call(self, caller: Listener | None = None, kind: str = "tcp") -> Results:
        """Somebody who is connected to near."""
        caller = caller or HalfListener()
        address: Any
        (address,) = self.near._ports.addresses("listen")
        yield self.connect(caller, f"{kind}:127.0.0.1:{address.port}")
        return caller

    def heard(self, caller: Listener, what: bytes) -> Any:
        """Wait until this is among what it has received."""
        return self.until(lambda: what in bytes(caller.received), f"{what[:60]!r}")

    def problem(self, caller: Listener) -> tuple[bytes, dict[str, Any]]:
        """The head of an answer, and its problem."""
        head, _, body = bytes(caller.received).partition(b"\r\n\r\n")
        return head, json.loads(body)

    def over(self) -> Any:
        """Wait until no stream is left at either node."""
        return self.until(
            lambda: not any(node.streams.counters()["open"] for node in (self.near, self.far)), "all over"
        )
