"""CONNECT: a caller's connection becomes one to a TCP port behind the peer."""

from __future__ import annotations

from pathlib import Path

from OpenSSL.crypto import FILETYPE_PEM
from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.protocols.wire import Echo

from hoft.config import Allow, Allowance, Caller
from hoft.testing.harness import pattern
from hoft.tokens import hash_token
from tests.streams.ends import HalfEcho, HalfListener, Listener
from tests.streams.nodes import CallerNodes, Steps
from tests.web.test_agent import certificate

ESTABLISHED = b"HTTP/1.1 200 OK\r\n"


class ConnectTests(CallerNodes):
    def ask(self, caller: HalfListener, port: int, *fields: bytes) -> None:
        where = b"127.0.0.1:%d" % port
        lines = (b"CONNECT %b HTTP/1.1" % where, b"Host: %b" % where, *fields, b"", b"")
        caller.transport.write(b"\r\n".join(lines))

    @inlineCallbacks
    def test_what_follows_the_answer_is_the_services_own(self) -> Steps:
        port = yield self.serve(Echo)
        caller = yield self.call()
        caller.transport.write(b"GET /_hoft/status HTTP/1.1\r\nHost: near\r\n\r\n")
        yield self.heard(caller, b'"streams"')
        yield self.until(lambda: bytes(caller.received).endswith(b"}\n"))
        caller.received.clear()
        self.ask(caller, port)
        yield self.heard(caller, b"\r\n\r\n")
        head = bytes(caller.received)
        self.assertTrue(head.startswith(ESTABLISHED), head)
        for field in (b"content-length", b"transfer-encoding"):
            self.assertNotIn(field, head.lower())
        caller.received.clear()
        data = pattern(1_500_000)
        caller.transport.write(data)
        yield self.until(lambda: bytes(caller.received) == data, "echoed")
        for side, one in zip(("ingress", "egress"), (yield self.told("under_way")), strict=True):
            self.assertEqual((one["side"], one["stage"], one["status"]), (side, "responding", 200))
            self.assertEqual((one["method"], one["url"]), ("CONNECT", f"127.0.0.1:{port}"))
            self.assertEqual((one["request_bytes"], one["response_bytes"]), (len(data), len(data)))
            self.assertIn("until either side closes it", one["why"])
            self.assertIn(f"\r\nHoft-Request-Id: {one['id']}\r\n".encode(), head)
        caller.transport.loseConnection()
        yield self.until(lambda: not self.far.streams.counters()["open"], "over")
        yield self.until(lambda: not self.near.status()["ingress"]["connections"], "closed")
        ingress = self.near.status()["ingress"]
        self.assertEqual((ingress["tunnels"], ingress["tunnelled"], ingress["answered"]), (1, 0, 1))
        for one in (yield self.told("ended", limit=1)):
            self.assertEqual(
                (one["outcome"], one["status"], one["request_bytes"]), ("answered", 200, len(data))
            )

    @inlineCallbacks
    def test_who_does_not_wait_for_the_answer_loses_nothing(self) -> Steps:
        port = yield self.serve(HalfEcho)
        caller = yield self.call()
        self.ask(caller, port)
        data = pattern(200_000)
        caller.transport.write(data)
        caller.transport.loseWriteConnection()
        yield self.until(lambda: "read" in caller.ends, "all of it and the end")
        self.assertEqual(bytes(caller.received).partition(b"\r\n\r\n")[2], data[::-1])

    @inlineCallbacks
    def test_refusals_are_problems_and_the_connection_goes_on(self) -> Steps:
        port = yield self.serve(Echo, allowed=False)
        caller = yield self.call()
        self.ask(caller, port)
        yield self.heard(caller, b"}\n")
        head, problem = self.problem(caller)
        self.assertTrue(head.startswith(b"HTTP/1.1 403 "), head)
        self.assertIn(b'Proxy-Status: "near"; error=http_request_denied', head)
        self.assertIn(b"application/problem+json", head)
        self.assertIn("tcp://127.0.0.1", problem["detail"])
        for one in (yield self.told("ended", id=problem["exchange"])):
            self.assertEqual(
                (one["outcome"], one["status"], one["problem"]), ("problems", 403, "not-allowed")
            )
        caller.received.clear()
        listening = self.ports.pop()
        yield self.configure(self.far, allowed=(Allow(f"tcp://127.0.0.1:{port}"),))
        yield maybeDeferred(listening.stopListening)
        self.ask(caller, port)
        yield self.heard(caller, b"}\n")
        head, problem = self.problem(caller)
        self.assertTrue(head.startswith(b"HTTP/1.1 502 "), head)
        self.assertIn(b"error=connection_refused", head)
        caller.transport.loseConnection()

    @inlineCallbacks
    def test_who_leaves_before_the_answer_leaves_nothing_behind(self) -> Steps:
        port = yield self.serve(Echo)
        caller = yield self.call()
        self.ask(caller, port)
        yield self.until(lambda: self.near.streams.counters()["open"], "asked for")
        caller.transport.abortConnection()
        yield self.until(
            lambda: not any(node.streams.counters()["open"] for node in (self.near, self.far)), "over"
        )

    @inlineCallbacks
    def test_nobody_waits_longer_than_its_deadline(self) -> Steps:
        yield self.far.stopService()
        caller = yield self.call()
        self.ask(caller, 9, b"Hoft-Deadline: 0.2")
        yield self.heard(caller, b"}\n")
        head, problem = self.problem(caller)
        self.assertTrue(head.startswith(b"HTTP/1.1 504 "), head)
        self.assertTrue(problem["type"].endswith("/peer-silent"), problem)
        caller.transport.loseConnection()

    @inlineCallbacks
    def test_callers_say_who_they_are_and_are_held_to_what_they_may(self) -> Steps:
        port = yield self.serve(Echo)
        known = Caller("ci", (hash_token(b"secret"),), Allowance(in_flight=1, bytes_per_day=10**6))
        yield self.configure(self.near, callers=(known,))
        caller = yield self.call()
        self.ask(caller, port)
        yield self.heard(caller, b"}\n")
        self.assertTrue(bytes(caller.received).startswith(b"HTTP/1.1 407 "))
        caller.received.clear()
        self.ask(caller, port, b"Proxy-Authorization: Bearer secret")
        yield self.heard(caller, ESTABLISHED)
        another = yield self.call()
        self.ask(another, port, b"Proxy-Authorization: Bearer secret")
        yield self.heard(another, b"HTTP/1.1 429 ")
        caller.transport.write(bytes(600_000))
        yield self.until(lambda: len(caller.received) > 600_000, "echoed")
        caller.transport.loseConnection()
        another.transport.loseConnection()
        yield self.until(lambda: not self.near.streams.counters()["open"], "over")
        third = yield self.call()
        self.ask(third, port, b"Proxy-Authorization: Bearer secret")
        yield self.heard(third, b"HTTP/1.1 429 ")
        yield self.heard(third, b"bytes")
        third.transport.loseConnection()

    @inlineCallbacks
    def test_to_a_caller_with_tls_an_end_is_one_as_tls_has_it(self) -> Steps:
        """And not a bare FIN, which it could not tell from an attack."""
        port = yield self.serve(lambda: Listener(lambda self, data: self.transport.loseWriteConnection()))
        pem = Path(self.mktemp())
        mine = certificate("localhost")
        pem.write_bytes(mine.privateKey.dump(FILETYPE_PEM) + mine.dump(FILETYPE_PEM))
        known = Caller("ci", (hash_token(b"secret"),))
        listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
        yield self.configure(self.near, listen=(listen,), callers=(known,))
        caller = yield self.call(Listener(), "ssl")
        self.ask(caller, port, b"Proxy-Authorization: Bearer secret")
        yield self.heard(caller, ESTABLISHED)
        caller.transport.write(b"x")
        yield self.until(lambda: caller.lost, "closed")
        caller.lost.trap(ConnectionDone)
        yield self.over()

    @inlineCallbacks
    def test_a_node_that_stops_cuts_its_tunnels(self) -> Steps:
        port = yield self.serve(Echo)
        caller = yield self.call()
        self.ask(caller, port)
        yield self.heard(caller, ESTABLISHED)
        (connection,) = self.near._ingress.factory._connections
        self.assertTrue(connection.transport.getTcpKeepAlive(), "who vanishes is missed")
        yield self.near.stopService()
        yield self.until(lambda: caller.lost, "cut")
