"""
The HTTP/1.1 server as callers meet it: real sockets, and a handler that the test scripts.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from hoft.web import server
from hoft.web.calls import Call
from hoft.web.problems import Problem
from hoft.web.requests import BadResponse, Field
from hoft.web.server import ServerFactory

Test = Generator[Deferred[Any], Any, None]


class Script:
    """Serves calls by doing what the test says once a request is complete, and keeps what it saw."""

    def __init__(self, call: Call, then: Callable[[Call, bytes], None] | None) -> None:
        self.call = call
        self.body: list[bytes] = []
        self.trailers: Sequence[Field] | None = None
        self.lost: str | None = None
        self.events: list[str] = []
        self._then = then

    def bodyReceived(self, data: bytes) -> None:
        self.body.append(data)

    def bodyEnded(self, trailers: Sequence[Field]) -> None:
        self.trailers = trailers
        if self._then is not None:
            self._then(self.call, b"".join(self.body))

    def pauseResponse(self) -> None:
        self.events.append("pause")

    def resumeResponse(self) -> None:
        self.events.append("resume")

    def callLost(self, reason: str) -> None:
        self.lost = reason


def hello(call: Call, body: bytes) -> None:
    """Say what was asked."""
    text = call.request.method + b" " + call.request.target + b" " + body
    call.respond(200, b"OK", [(b"Content-Type", b"text/plain")], len(text))
    call.write(text)
    call.finish()


def exchange(port: int, *pieces: bytes, half_close: bool = False, until: bytes | None = None) -> bytes:
    """Send all, then read until the server closes, or C{until} has come."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while until is None or until not in received:
            data = connection.recv(65536)
            if not data:
                break
            received += data
        return received


class ServerCase(TestCase):
    timeout = 10

    def setUp(self) -> None:
        self.served: list[Script] = []
        self.then: Callable[[Call, bytes], None] | None = hello
        self.now = 0.0
        self.factory = ServerFactory(reactor, self.clock, self.serve, self.refused)
        self.port: Any = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        address = self.port.getHost()
        assert isinstance(address, IPv4Address)
        self.number = address.port
        self.addCleanup(self.tearAllDown)

    @inlineCallbacks
    def tearAllDown(self) -> Test:
        yield self.port.stopListening()
        self.factory.abortAll()
        yield self.until(lambda: self.factory.connections == 0)

    def clock(self) -> float:
        return self.now

    def serve(self, call: Call) -> Script:
        script = Script(call, self.then)
        self.served.append(script)
        return script

    def refused(self, call: Call, problem: Problem) -> None:
        status, fields, body = problem.response("test")
        call.respond(status, b"", fields, len(body))
        call.write(body)
        call.finish()

    def ask(self, *pieces: bytes, **options: Any) -> Deferred[bytes]:
        return deferToThread(exchange, self.number, *pieces, **options)

    @inlineCallbacks
    def until(self, condition: Callable[[], object]) -> Test:
        """Wait until it holds; the case's timeout fails the test."""
        while not condition():
            yield deferLater(reactor, 0.002)

    def connect(self) -> socket.socket:
        """A caller of which the test does each step itself."""
        caller = socket.create_connection(("127.0.0.1", self.number), timeout=5)
        self.addCleanup(caller.close)
        return caller


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class RequestTests(ServerCase):
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


class ResponseTests(ServerCase):
    def answer_with(self, answer: Callable[[Call], None]) -> None:
        self.then = lambda call, _: answer(call)

    @inlineCallbacks
    def test_a_body_of_unknown_length_is_chunked(self) -> Test:
        def answer(call: Call) -> None:
            call.respond(200, b"OK", [(b"Set-Cookie", b"a=1"), (b"X", b"y"), (b"Set-Cookie", b"b=2")])
            call.write(b"abc")
            call.write(b"")
            call.write(b"defghijklmnop")
            call.finish([(b"X-Sum", b"9")])

        self.answer_with(answer)
        received = yield self.ask(CLOSE)
        head, _, body = received.partition(b"\r\n\r\n")
        self.assertEqual(
            head.split(b"\r\n"),
            [
                b"HTTP/1.1 200 OK",
                b"Set-Cookie: a=1",
                b"X: y",
                b"Set-Cookie: b=2",
                b"Transfer-Encoding: chunked",
                b"Connection: close",
            ],
        )
        self.assertEqual(body, b"3\r\nabc\r\nd\r\ndefghijklmnop\r\n0\r\nX-Sum: 9\r\n\r\n")

    @inlineCallbacks
    def test_callers_of_http_1_0(self) -> Test:
        def answer(call: Call) -> None:
            call.respond(200, b"OK", [])
            call.write(b"abc")
            call.finish([(b"X-Sum", b"9")])

        self.answer_with(answer)
        received = yield self.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertEqual(received, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", "no length: closed")
        self.then = hello
        received = yield self.ask(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n")
        self.assertEqual(received.count(b"Connection: keep-alive\r\n"), 1)
        self.assertTrue(received.endswith(b"GET /2 "), received)

    @inlineCallbacks
    def test_responses_without_a_body_keep_their_length(self) -> Test:
        def answer(status: int) -> Callable[[Call], None]:
            def respond(call: Call) -> None:
                call.respond(status, b"", [], 7)
                call.write(b"ignored")
                call.finish()

            return respond

        for method, status, length in ((b"HEAD", 200, True), (b"GET", 304, True), (b"GET", 204, False)):
            self.answer_with(answer(status))
            received = yield self.ask(method + b" / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            self.assertEqual(b"Content-Length: 7\r\n" in received, length)
            self.assertNotIn(b"Transfer-Encoding", received)
            self.assertTrue(received.endswith(b"\r\n\r\n"), received)

    @inlineCallbacks
    def test_a_body_of_another_length_than_announced_cuts_the_connection(self) -> Test:
        raised: list[BadResponse] = []

        def answer(text: bytes) -> Callable[[Call], None]:
            def respond(call: Call) -> None:
                call.respond(200, b"OK", [], 5)
                try:
                    call.write(text)
                    call.finish()
                except BadResponse as error:
                    raised.append(error)

            return respond

        for number, text in enumerate((b"long body", b"shrt")):
            self.answer_with(answer(text))
            with self.subTest(text=text):
                yield self.assertFailure(self.ask(GET), ConnectionResetError)
                self.assertEqual(len(raised), number + 1)

    @inlineCallbacks
    def test_fields_that_would_split_the_response_are_never_written(self) -> Test:
        refused: list[BadResponse] = []
        bad: list[tuple[bytes, list[Field]]] = [
            (b"OK", [(b"X", b"a\r\nSet-Cookie: stolen=1")]),
            (b"OK", [(b"X: y\r\nZ", b"a")]),
            (b"OK", [(b"X", b"a\nb")]),
            (b"OK", [(b"X", b"a\0b")]),
            (b"OK", [(b"X y", b"a")]),
            (b"OK", [(b"", b"a")]),
            (b"O\r\nK", []),
        ]

        def answer(call: Call) -> None:
            for reason, fields in bad:
                try:
                    call.respond(200, reason, fields, 0)
                except BadResponse as error:
                    refused.append(error)
            hello(call, b"")

        self.answer_with(answer)
        received = yield self.ask(CLOSE)
        self.assertEqual(len(refused), len(bad))
        self.assertEqual(received.count(b"HTTP/1.1"), 1)
        self.assertNotIn(b"stolen", received)

    @inlineCallbacks
    def test_a_slow_caller_holds_up_the_response(self) -> Test:
        self.then = None
        caller = self.connect()
        caller.sendall(CLOSE)
        yield self.until(lambda: self.served)
        script = self.served[0]
        call = script.call
        call.respond(200, b"OK", [])
        written = blocked = 0
        while blocked < 10:
            blocked = 0 if call.writable else blocked + 1
            if call.writable:
                call.write(bytes(1 << 16))
                written += 1 << 16
                self.assertLess(written, 64 << 20)
            yield deferLater(reactor, 0.001)
        self.assertEqual(script.events[-1], "pause")
        reading = deferToThread(lambda: sum(len(data) for data in iter(lambda: caller.recv(1 << 20), b"")))
        yield self.until(lambda: call.writable)
        self.assertEqual(script.events[-1], "resume")
        call.finish()
        received = yield reading
        self.assertGreater(received, written)

    @inlineCallbacks
    def test_draining_finishes_what_is_under_way_and_closes_the_rest(self) -> Test:
        waiting: list[Call] = []
        idle = self.connect()
        idle.sendall(GET)
        yield deferToThread(idle.recv, 1000)
        self.then = lambda call, _: waiting.append(call)
        answer = self.ask(GET)
        yield self.until(lambda: waiting)
        drained = self.factory.drain(5)
        received = yield deferToThread(idle.recv, 1000)
        self.assertEqual(received, b"")
        hello(waiting[0], b"")
        received = yield answer
        self.assertIn(b"Connection: close\r\n", received)
        yield drained
        self.assertEqual(self.factory.connections, 0)
