"""Endpoint strings: any protocol of Twisted runs over a link, in process, unchanged."""

from __future__ import annotations

from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import (
    IListeningPort,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import Factory
from twisted.plugin import getPlugins
from twisted.protocols import amp
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from hoft.errors import NodeNotRunning
from hoft.streams import registry
from hoft.streams.endpoints import StreamPort
from hoft.streams.failures import StreamRefused, StreamReset
from hoft.streams.surroundings import StreamAddress
from hoft.testing.harness import pattern
from tests.streams.ends import HalfListener, Listener
from tests.streams.nodes import Nodes, Steps


class Sum(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"total", amp.Integer())]


class Adder(amp.AMP):
    @Sum.responder
    def add(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


class Upload(Resource):
    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        request.setHeader(b"X-From", str(request.transport.getPeer().node).encode())
        body: bytes = request.content.read()
        return body[::-1]


@implementer(IAgentEndpointFactory)
class OverHoft:
    """Every host is a service of far's."""

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = clientFromString(
            reactor, f"hoft:far:node=near:service={uri.host.decode()}"
        )
        return endpoint


class StringTests(SynchronousTestCase):
    def test_twisted_knows_them(self) -> None:
        for interface in (IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser):
            parsers: list[Any] = list(getPlugins(interface))
            (parser,) = (one for one in parsers if one.prefix == "hoft")
            verifyObject(interface, parser)
        verifyObject(IStreamClientEndpoint, clientFromString(reactor, "hoft:far:service=echo"))
        verifyObject(IStreamServerEndpoint, serverFromString(reactor, "hoft:echo:peer=far:node=near"))

    def test_what_stands_for_nothing_is_refused(self) -> None:
        for wrong in (
            "hoft:far",
            "hoft:far:host=h",
            "hoft:far:port=1",
            "hoft:far:host=h:port=x",
            "hoft:far:host=h:port=70000",
            "hoft:far:host=a b:port=1",
            "hoft:far:host=h:port=1:service=s",
            "hoft:f/r:service=s",
            "hoft:far:service=a b",
            "hoft:far:service=s:timeout=soon",
        ):
            with self.assertRaises(ValueError, msg=wrong):
                clientFromString(reactor, wrong)
        with self.assertRaises(ValueError):
            serverFromString(reactor, "hoft:a/b")

    def test_without_a_node_there_is_no_way(self) -> None:
        for where in ("hoft:far:service=echo", "hoft:far:service=echo:node=other"):
            connecting = clientFromString(reactor, where).connect(Factory.forProtocol(Echo))
            error = self.failureResultOf(connecting, NodeNotRunning).value
            self.assertIn("node=NAME", str(error))

    def test_a_service_is_offered_once_to_each_peer(self) -> None:
        def offer(where: str) -> Any:
            return self.successResultOf(serverFromString(reactor, where).listen(Factory.forProtocol(Echo)))

        first = offer("hoft:echo:peer=far")
        verifyObject(IListeningPort, first)
        self.assertEqual(first.getHost(), StreamAddress("", "echo"))
        second = offer("hoft:echo:peer=other")
        taken = serverFromString(reactor, "hoft:echo").listen(Factory.forProtocol(Echo))
        self.failureResultOf(taken, CannotListenError)
        for port in (first, second):
            self.successResultOf(port.stopListening())
        again = offer("hoft:echo")
        self.assertIsInstance(again, StreamPort)
        self.successResultOf(again.stopListening())
        self.assertIsNone(registry.service("echo", "near", "far"))


class EndpointTests(Nodes):
    @inlineCallbacks
    def test_amp(self) -> Steps:
        yield self.listen(Adder, "hoft:adder:node=far")
        client = yield self.connect(amp.AMP(), "hoft:far:service=adder:node=near")
        answers = []
        for number in range(20):
            answer = yield client.callRemote(Sum, a=number, b=1)
            answers.append(answer["total"])
        self.assertEqual(answers, list(range(1, 21)))
        client.transport.loseConnection()

    @inlineCallbacks
    def test_treq_over_an_agent(self) -> Steps:
        site = Site(Upload())
        port = yield serverFromString(reactor, "hoft:upload:node=far").listen(site)
        self.ports.append(port)
        http = HTTPClient(Agent.usingEndpointFactory(reactor, OverHoft()))
        body = pattern(1_500_000)
        for _ in range(2):
            response = yield http.post("http://upload/there", data=body)
            answer = yield treq.content(response)
            self.assertEqual(response.headers.getRawHeaders("X-From"), ["near"])
            self.assertEqual(answer, body[::-1])

    @inlineCallbacks
    def test_a_tcp_port_behind_the_peer_in_both_forms(self) -> Steps:
        port = yield self.serve(Echo)
        data = pattern(300_000)
        listeners = [HalfListener(), Listener()]
        for one in listeners:
            yield self.connect(one, f"hoft:far:node=near:host=127.0.0.1:port={port}")
            one.transport.write(data)
        yield self.until(lambda: all(bytes(one.received) == data for one in listeners), "echoed")
        for one in listeners:
            one.transport.loseConnection()
        yield self.until(lambda: all(one.lost for one in listeners), "closed")
        yield self.until(lambda: self.far.streams.counters()["open"] == 0, "over")

    @inlineCallbacks
    def test_what_is_not_allowed_is_not_reached(self) -> Steps:
        port = yield self.serve(Echo, allowed=False)
        for where, status in (
            (f"host=127.0.0.1:port={port}", 403),
            (f"host=localhost:port={port}", 403),
            ("service=secret", 403),
        ):
            connecting = self.connect(Listener(), f"hoft:far:node=near:{where}")
            error = yield self.assertFailure(connecting, StreamRefused)
            self.assertEqual(error.problem.status, status, where)
            self.assertIsInstance(error, ConnectError)
        connecting = self.connect(Listener(), "hoft:nobody:node=near:service=x")
        error = yield self.assertFailure(connecting, StreamRefused)
        self.assertEqual(error.problem.kind, "peer-unavailable")

    @inlineCallbacks
    def test_a_service_for_one_peer_is_not_for_others(self) -> Steps:
        yield self.listen(Echo, "hoft:echo:node=far:peer=somebody")
        connecting = self.connect(Listener(), "hoft:far:node=near:service=echo")
        yield self.assertFailure(connecting, StreamRefused)

    @inlineCallbacks
    def test_a_node_that_stops_resets_its_streams_at_both_ends(self) -> Steps:
        there = HalfListener()
        yield self.listen(lambda: there, "hoft:it:node=far")
        here = HalfListener()
        yield self.connect(here, "hoft:far:node=near:service=it")
        yield self.near.stopService()
        yield self.until(lambda: there.lost and here.lost, "lost")
        for one in (here, there):
            assert one.lost is not None
            one.lost.trap(StreamReset)
        status = self.far.status()["streams"]
        self.assertEqual((status["open"], status["accepted"], status["opened"]), (0, 1, 0))
