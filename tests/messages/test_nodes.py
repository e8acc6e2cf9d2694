"""Messages of programs that embed nodes, over a real folder."""

from __future__ import annotations

from pathlib import Path
from random import Random
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data
from zope.interface import implementer

from hoft.config import Allow, Config, Peer, Route
from hoft.errors import UnknownPeer
from hoft.identity import IDENTITY_FILE, Identity
from hoft.node import Node, makeNode
from tests.messages.programs import NOTES, MessageProgram, note


@implementer(IAgentEndpointFactory)
class _Always:
    """Wherever to, it is there."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: object) -> IStreamClientEndpoint:
        return self._endpoint


class NodeTests(TestCase):
    timeout = 60

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]  # trial waits for it
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "exchange").mkdir(parents=True)
        self.sockets = mkdtemp(prefix="hoft-")  # their names must be short
        self.addCleanup(rmtree, self.sockets)
        resource = Resource()
        resource.putChild(b"", Data(b"of the service", "text/plain"))
        anyReactor: Any = reactor
        port = anyReactor.listenTCP(0, Site(resource), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.service = f"http://127.0.0.1:{port.getHost().port}/"
        names = ("near", "far")
        self.identities = {name: Identity.generate(Random(name).randbytes) for name in names}
        self.programs = {name: MessageProgram() for name in names}
        self.nodes = {name: self.make(name, peer) for name, peer in zip(names, reversed(names), strict=True)}
        self.addCleanup(lambda: gatherResults([node.stopService() for node in self.nodes.values()]))
        return gatherResults([node.startService() for node in self.nodes.values()])

    def make(self, name: str, peer: str) -> Node:
        state = self.folder / name
        state.mkdir(mode=0o700)
        self.identities[name].save(state / IDENTITY_FILE)
        config = Config(
            name,
            state,
            f"folder:{self.folder}/exchange",
            listen=(f"unix:{self.sockets}/{name}",),
            peers=(Peer(peer, self.identities[peer].card(peer)),),
            routes=(Route("files", peer, self.service),),
            allowed=(Allow(self.service, private=True),),
        )
        return makeNode(config, reactor, self.programs[name], [NOTES])

    async def heard(self, name: str, count: int) -> None:
        """Wait until so many messages have come."""
        while len(self.programs[name].messages) < count:
            await deferLater(reactor, 0.01, lambda: None)

    def test_both_ways(self) -> Deferred[None]:
        async def exchange() -> None:
            payload = Random(1).randbytes(2_000_000)
            self.programs["far"].keep = True
            sent = gatherResults([self.nodes["near"].link("far").send(one) for one in (b"small", payload)])
            await self.heard("far", 2)
            await sent
            for message in self.programs["far"].messages:
                read = b"".join([piece async for piece in message.pieces()])
                self.assertEqual(read, b"small" if message.size == 5 else payload)
                await message.consume(note("done"))
            await self.nodes["far"].link("near").send(b"thanks")
            await self.heard("near", 1)
            status = self.nodes["far"].status()["messages"]
            self.assertEqual(
                (status["received"], status["consumed"], status["waiting_for_program"], status["delivered"]),
                (2, 2, 0, 1),
            )

        return Deferred.fromCoroutine(exchange())

    def test_beside_calls(self) -> Deferred[None]:
        """On the same link, at the same time."""

        async def call() -> bytes:
            near = UNIXClientEndpoint(reactor, f"{self.sockets}/near")
            agent: Any = Agent.usingEndpointFactory(reactor, _Always(near))
            response = await agent.request(b"GET", b"http://near/svc/files/")
            self.assertEqual(response.code, 200)
            body: bytes = await readBody(response)
            return body

        async def both() -> None:
            calls = [Deferred.fromCoroutine(call()) for _ in range(5)]
            sent = [self.nodes["near"].link("far").send(b"%d" % number) for number in range(20)]
            self.assertEqual(await gatherResults(calls), [b"of the service"] * 5)
            await gatherResults(sent)
            await self.heard("far", 20)
            self.assertEqual(self.nodes["far"].status()["unknown_channel"], 0)

        return Deferred.fromCoroutine(both())

    def test_a_peer_that_is_not_there(self) -> None:
        error = self.assertRaises(UnknownPeer, self.nodes["near"].link, "nobody")
        self.assertIn("there are: far", str(error))
