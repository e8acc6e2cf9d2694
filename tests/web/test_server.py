"""
Requests to the HTTP/1.1 server, as callers send them or fail to.
"""

from __future__ import annotations

import socket
import struct

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from hoft.web.ingress import server
from hoft.web.ingress.calls import Call
from tests.web.listening import Test
from tests.web.serving import CLOSE, GET, Script, ServerCase, hello


class RequestTests(ServerCase):
    @inlineCallbacks
    def test_more_callers_than_can_be_connected_are_turned_away_at_once(self) -> Test:
        self.factory.most = 1
        self.then = None
        first = self.ask(CLOSE)
        yield self.until(lambda: self.served)
        # Where the request was there already, closing the connection is a reset.
        answer = yield self.ask(GET).addErrback(lambda failure: failure.trap(ConnectionResetError) and b"")
        self.assertEqual((answer, self.factory.turned_away), (b"", 1))
        hello(self.served[0].call, b"")
        answer = yield first
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "))

    @inlineCallbacks
    def test_pipelined_requests_are_answered_in_order(self) -> Test:
        waiting: list[Call] = []
        self.then = lambda call, _: waiting.append(call)
        answer = self.ask(*(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(3)), CLOSE)
        for n in range(4):
            while len(self.served) <= n:
                yield deferLater(reactor, 0.002)
            yield deferLater(reactor, 0.01)
            self.assertEqual(len(self.served), n + 1, "the next only after the answer")
            hello(waiting[n], b"")
        received = yield answer
        found = [line for line in received.split(b"\r\n") if b"GET " in line]
        self.assertEqual(
            [line.split(b"HTTP/1.1")[0].strip() for line in found],
            [b"GET /0", b"GET /1", b"GET /2", b"GET /last"],
        )

    @inlineCallbacks
    def test_a_connection_is_kept_for_the_next_request(self) -> Test:
        received = yield self.ask(GET, GET, CLOSE)
        self.assertEqual(received.count(b"HTTP/1.1 200 OK\r\n"), 3)
        self.assertEqual(received.count(b"Connection: close\r\n"), 1)

    @inlineCallbacks
    def test_bodies_arrive_in_pieces_while_they_are_sent(self) -> Test:
        caller = self.connect()
        caller.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\none")
        yield self.until(lambda: self.served and self.served[0].body)
        self.assertEqual(self.served[0].body, [b"one"])
        self.assertIsNone(self.served[0].trailers)
        caller.sendall(b"twotre")
        yield self.until(lambda: self.served[0].trailers is not None)
        self.assertEqual(b"".join(self.served[0].body), b"onetwotre")

    @inlineCallbacks
    def test_a_paused_body_holds_the_caller_up(self) -> Test:
        script: list[Script] = []

        def serve(call: Call) -> Script:
            script.append(Script(call, hello))
            call.pauseBody()
            return script[0]

        self.factory.serve = serve
        size = 32 << 20
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        caller = self.connect()
        caller.setblocking(False)
        caller.send(head)
        yield self.until(lambda: script)
        sent = 0
        piece = bytes(1 << 20)
        for _ in range(50):
            try:
                while sent < size:
                    sent += caller.send(piece[: size - sent])
            except BlockingIOError:
                pass
            yield deferLater(reactor, 0.002)
        self.assertLess(sent, size, "the socket took all of it")
        self.assertEqual(script[0].body, [])
        script[0]._then = lambda call, body: hello(call, b"%d" % len(body))
        script[0].call.resumeBody()
        while sent < size:
            try:
                sent += caller.send(piece[: size - sent])
            except BlockingIOError:
                yield deferLater(reactor, 0.001)
        caller.setblocking(True)
        received = yield deferToThread(caller.recv, 65536)
        self.assertIn(b"%d" % size, received)

    @inlineCallbacks
    def test_chunked_bodies_and_their_trailers(self) -> Test:
        received = yield self.ask(
            b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"3\r\nab",
            b"c\r\n5;ext=1\r\ndefgh\r\n0\r\nX-Sum: 12\r\n\r\n",
        )
        self.assertIn(b"POST /x abcdefgh", received)
        self.assertEqual(self.served[0].trailers, [(b"X-Sum", b"12")])

    @inlineCallbacks
    def test_a_malformed_request_is_answered_and_the_connection_closed(self) -> Test:
        received = yield self.ask(b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n" + GET)
        self.assertTrue(received.startswith(b"HTTP/1.1 400 "), received)
        self.assertIn(b"application/problem+json", received)
        self.assertIn(b"Connection: close\r\n", received)
        self.assertEqual(received.count(b"HTTP/1.1"), 1)
        self.assertEqual(self.served, [])

    @inlineCallbacks
    def test_a_malformed_chunk_ends_the_call(self) -> Test:
        received = yield self.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n"
        )
        self.assertTrue(received.startswith(b"HTTP/1.1 400 "), received)
        self.assertIn("chunk", str(self.served[0].lost))

    @inlineCallbacks
    def test_an_answer_before_the_body_is_read_to_its_end_reaches_the_caller(self) -> Test:
        def serve(call: Call) -> None:
            call.respond(413, b"Too Large", [], 0)
            call.finish()

        self.factory.serve = serve
        body = bytes(8 << 20)
        received = yield self.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body), body
        )
        self.assertTrue(received.startswith(b"HTTP/1.1 413 "), received)
        self.assertIn(b"Connection: close\r\n", received)

    @inlineCallbacks
    def test_a_caller_that_goes_on_sending_after_its_answer_is_cut_off(self) -> Test:
        def serve(call: Call) -> None:
            call.respond(413, b"Too Large", [], 0)
            call.finish()

        self.factory.serve = serve
        caller = self.connect()
        caller.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        yield self.until(lambda: self.factory.connections == 1)
        yield deferToThread(caller.recv, 65536)
        self.now += server.LINGER + 1
        yield self.until(lambda: self.factory.connections == 0)

    @inlineCallbacks
    def test_a_body_is_asked_for_only_when_it_is_wanted(self) -> Test:
        calls: list[Script] = []

        def serve(call: Call) -> Script:
            calls.append(Script(call, hello))
            return calls[-1]

        self.factory.serve = serve
        caller = self.connect()
        caller.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        yield self.until(lambda: calls)
        caller.setblocking(False)
        yield deferLater(reactor, 0.02)
        self.assertRaises(BlockingIOError, caller.recv, 100)
        calls[0].call.continueBody()
        caller.setblocking(True)
        received = yield deferToThread(caller.recv, 100)
        self.assertEqual(received, b"HTTP/1.1 100 Continue\r\n\r\n")
        caller.sendall(b"hi")
        received = yield deferToThread(caller.recv, 1000)
        self.assertIn(b"POST / hi", received)

    @inlineCallbacks
    def test_a_caller_without_expectations_gets_no_interim_response(self) -> Test:
        def serve(call: Call) -> Script:
            call.continueBody()
            return Script(call, hello)

        self.factory.serve = serve
        received = yield self.ask(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
        self.assertTrue(received.startswith(b"HTTP/1.1 200"), received)

    @inlineCallbacks
    def test_half_closing_callers_are_answered(self) -> Test:
        waiting: list[Call] = []
        self.then = lambda call, _: waiting.append(call)
        answer = self.ask(GET, half_close=True)
        yield self.until(lambda: waiting)
        yield deferLater(reactor, 0.03)
        hello(waiting[0], b"late")
        received = yield answer
        self.assertTrue(received.startswith(b"HTTP/1.1 200 OK\r\n"), received)
        self.assertTrue(received.endswith(b"late"), received)

    @inlineCallbacks
    def test_a_request_that_breaks_off_is_refused(self) -> Test:
        for start in (
            b"GET / HTTP/1.1\r\nHo",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhey",
        ):
            received = yield self.ask(start, half_close=True)
            self.assertTrue(received.startswith(b"HTTP/1.1 400 "), received)
        self.assertIsNotNone(self.served[0].lost)

    @inlineCallbacks
    def test_a_caller_that_aborts_while_it_waits_is_noticed(self) -> Test:
        self.then = None
        caller = self.connect()
        caller.sendall(GET)
        yield self.until(lambda: self.served and self.served[0].trailers is not None)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        yield self.until(lambda: self.served[0].lost)
        self.assertTrue(self.served[0].call.over)

    @inlineCallbacks
    def test_a_caller_that_closes_while_it_waits_is_noticed(self) -> Test:
        """A closed socket looks like a half-closed one until something is written to it."""
        self.then = None
        caller = self.connect()
        caller.sendall(GET)
        yield self.until(lambda: self.served and self.served[0].trailers is not None)
        caller.close()
        yield deferLater(reactor, 0.01)
        self.now += server.PROBE + 1
        yield self.until(lambda: self.served[0].lost)

    @inlineCallbacks
    def test_callers_that_stall_are_refused_and_idle_ones_let_go(self) -> Test:
        stalled, uploading, idle = self.connect(), self.connect(), self.connect()
        stalled.sendall(b"GET / HT")
        uploading.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
        idle.sendall(GET)
        yield self.until(lambda: len(self.served) == 2 and self.factory.connections == 3)
        yield deferToThread(idle.recv, 1000)
        self.now += server.STALLED + 1
        for caller in (stalled, uploading):
            received = yield deferToThread(caller.recv, 1000)
            self.assertTrue(received.startswith(b"HTTP/1.1 408 "), received)
        self.now += server.IDLE
        received = yield deferToThread(idle.recv, 1000)
        self.assertEqual(received, b"")

    @inlineCallbacks
    def test_a_caller_that_drips_its_head_is_refused(self) -> Test:
        caller = self.connect()
        for byte in b"GET / ":
            caller.sendall(bytes([byte]))
            yield deferLater(reactor, 0.005)
            self.now += server.STALLED / 5
        received = yield deferToThread(caller.recv, 1000)
        self.assertTrue(received.startswith(b"HTTP/1.1 408 "), received)
