"""Ports that lead to TCP targets behind a peer."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import Any

from attrs import evolve
from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.protocols.wire import Echo

from hoft.config import Allow, TcpForward
from hoft.errors import ConfigurationError
from hoft.testing.harness import pattern
from tests.streams.ends import HalfEcho, HalfListener, Listener
from tests.streams.nodes import Nodes, Steps


class Flood(Protocol):
    """Sends more than any buffer takes, at once."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(bytes(6 << 20))


class ForwardTests(Nodes):
    @inlineCallbacks
    def through(self, protocol: Any, caller: Protocol) -> Steps:
        """C{caller}, connected by way of both nodes to one of these."""
        port = yield self.serve(protocol)
        local = yield self.forward(port)
        yield self.connect(caller, f"tcp:127.0.0.1:{local}")

    def lost(self, *listeners: Listener) -> Any:
        """All of them are."""
        return self.until(lambda: all(one.lost for one in listeners), "lost")

    def over(self) -> Any:
        """No stream is left at either node."""
        return self.until(
            lambda: not any(node.streams.counters()["open"] for node in (self.near, self.far)), "all over"
        )

    @inlineCallbacks
    def test_bytes_go_both_ways(self) -> Steps:
        caller = HalfListener()
        yield self.through(Echo, caller)
        data = pattern(5_000_000)
        caller.transport.write(data)
        yield self.until(lambda: len(caller.received) == len(data), "echoed")
        (forward,) = self.near._config.tcp
        self.assertEqual(sha256(caller.received).digest(), sha256(data).digest())
        (counted,) = self.near.status()["forwards"].values()
        self.assertEqual((counted["open"], counted["opened"]), (1, 1))
        near, far = yield self.told("under_way")
        self.assertEqual((near["route"], near["side"], far["side"]), (forward.listen, "ingress", "egress"))
        for one in (near, far):
            self.assertEqual((one["method"], one["url"]), ("CONNECT", forward.to))
            self.assertEqual((one["stage"], one["status"]), ("responding", 200))
            self.assertEqual((one["request_bytes"], one["response_bytes"]), (len(data), len(data)))
        caller.transport.loseConnection()
        yield self.over()
        names = ("open", "opened", "refused", "bytes_sent", "bytes_received")
        expected = [0, 1, 0, len(data), len(data)]

        def all_counted() -> bool:
            (counted,) = self.near.status()["forwards"].values()
            return [counted[name] for name in names] == expected

        yield self.until(all_counted, "counted")
        for node in (self.near, self.far):
            streams = node.status()["streams"]
            self.assertEqual((streams["bytes_sent"], streams["bytes_received"]), (len(data), len(data)))

    @inlineCallbacks
    def test_an_end_of_input_is_passed_on_and_the_answer_still_comes(self) -> Steps:
        caller = HalfListener()
        yield self.through(HalfEcho, caller)
        data = pattern(400_000)
        caller.transport.write(data)
        caller.transport.loseWriteConnection()
        yield self.until(lambda: "read" in caller.ends, "answered")
        self.assertEqual(bytes(caller.received), data[::-1])
        caller.transport.loseConnection()
        yield self.until(lambda: caller.lost, "closed")
        yield self.over()

    @inlineCallbacks
    def test_a_service_that_closes_closes_its_caller(self) -> Steps:
        caller = Listener()
        yield self.through(lambda: Listener(lambda self, data: self.transport.loseConnection()), caller)
        caller.transport.write(b"x")
        yield self.until(lambda: caller.lost, "closed")
        assert caller.lost is not None
        caller.lost.trap(ConnectionDone)
        yield self.over()

    @inlineCallbacks
    def test_a_reset_is_passed_on_both_ways(self) -> Steps:
        there: list[Listener] = []

        def make() -> Listener:
            there.append(HalfListener())
            return there[-1]

        for resetting in (0, 1):
            ends: list[Listener] = [HalfListener()]
            yield self.through(make, ends[0])
            ends[0].transport.write(b"x")
            yield self.until(lambda: there and there[-1].received, "connected")
            ends.append(there.pop())
            ends[resetting].transport.abortConnection()
            yield self.lost(*ends)
            failure = ends[1 - resetting].lost
            assert failure is not None
            failure.trap(ConnectionLost)
            yield self.over()

    @inlineCallbacks
    def test_who_may_not_or_cannot_be_reached_is_a_reset_for_the_caller(self) -> Steps:
        taken = yield self.serve(Echo, allowed=False)
        local = yield self.forward(taken)
        callers = [Listener()]
        yield self.connect(callers[0], f"tcp:127.0.0.1:{local}")
        port = self.ports.pop()
        yield maybeDeferred(port.stopListening)
        yield self.until(lambda: callers[0].lost, "refused")
        yield self.configure(self.far, allowed=(Allow(f"tcp://127.0.0.1:{taken}"),))
        callers.append(Listener())
        yield self.connect(callers[1], f"tcp:127.0.0.1:{local}")
        yield self.until(lambda: callers[1].lost, "connection refused")
        for caller in callers:
            assert caller.lost is not None
            caller.lost.trap(ConnectionLost)
        self.assertEqual(self.far.streams.counters()["refused"], 2)
        (counted,) = self.near.status()["forwards"].values()
        self.assertEqual((counted["opened"], counted["refused"], counted["bytes_sent"]), (2, 2, 0))
        latest, first = (yield self.near._listing.answer({}))["ended"]
        for ended, problem in ((first, "not-allowed"), (latest, "connection-refused")):
            for one in (yield self.told("ended", id=ended["id"])):
                self.assertEqual((one["outcome"], one["problem"]), ("problems", problem))
        yield self.over()

    @inlineCallbacks
    def test_a_caller_that_does_not_read_stalls_only_itself(self) -> Steps:
        port = yield self.serve(Flood)
        echo = yield self.listen(Echo, "tcp:0:interface=127.0.0.1")
        allowed = tuple(Allow(f"tcp://127.0.0.1:{one}") for one in (port, echo.port))
        yield self.configure(self.far, allowed=allowed)
        local = yield self.forward(port)
        lazy = HalfListener()
        yield self.connect(lazy, f"tcp:127.0.0.1:{local}")
        lazy.transport.pauseProducing()
        quick = HalfListener()
        yield self.connect(quick, f"hoft:far:node=near:host=127.0.0.1:port={echo.port}")
        data = pattern(3_000_000)
        quick.transport.write(data)
        yield self.until(lambda: bytes(quick.received) == data, "echoed")
        quick.transport.loseConnection()
        lazy.transport.resumeProducing()
        yield self.until(lambda: len(lazy.received) == 6 << 20, "all of it")
        lazy.transport.loseConnection()
        yield self.over()

    @inlineCallbacks
    def test_ports_come_and_go_with_the_configuration_and_connections_stay(self) -> Steps:
        caller = HalfListener()
        yield self.through(Echo, caller)
        address: Any
        ports = partial(self.near._ports.addresses, "tcp.listen")
        (forward,), (address,) = self.near._config.tcp, ports()
        another = TcpForward("tcp:0:interface=127.0.0.1:backlog=5", "far", "127.0.0.1:1")
        yield self.configure(self.near, tcp=(forward, another))
        before = ports()
        self.assertEqual((len(before), address in before), (2, True))
        taken = TcpForward(f"tcp:{address.port}:interface=127.0.0.1", "far", "127.0.0.1:1")
        elsewhere = evolve(forward, to="127.0.0.1:1")
        failing = self.configure(self.near, tcp=(elsewhere, another, taken))
        error = yield self.assertFailure(failing, ConfigurationError)
        self.assertEqual(error.key, "tcp.listen")
        self.assertEqual(ports(), before)
        led = [one["to"] for one in self.near.status()["forwards"].values()]
        self.assertEqual(led, [forward.to, another.to])
        yield self.configure(self.near, tcp=(elsewhere,))
        self.assertEqual(ports(), [address])
        (counted,) = self.near.status()["forwards"].values()
        self.assertEqual((counted["to"], counted["open"]), (elsewhere.to, 1))
        yield self.configure(self.near, tcp=())
        self.assertEqual(ports(), [])
        caller.transport.write(b"still here")
        yield self.until(lambda: bytes(caller.received) == b"still here", "echoed")
        caller.transport.loseConnection()
        yield self.over()
