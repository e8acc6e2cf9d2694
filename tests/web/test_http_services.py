"""
HTTP as the RFCs say: services that misbehave, bodies without an end, and sides that are slow or
leave; raw sockets on both sides.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread

from hoft.web.client.policy import Policy, Rule
from hoft.web.egress.surroundings import Limits
from tests.web.callers import Response
from tests.web.services import REACTOR, Received, Service, Test, until, wait
from tests.web.test_http import CHUNKED, EMPTY, HttpCase


class MisbehavingTests(HttpCase):
    """Services that do not keep to HTTP, or not to what they said."""

    @inlineCallbacks
    def test_what_is_no_response_is_said_to_be_none(self) -> Test:
        ok = b"HTTP/1.1 200 OK\r\n"
        for answer in (
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
            ok + b"X Y: 1\r\nContent-Length: 0\r\n\r\n",
            ok + b"no colon\r\nContent-Length: 0\r\n\r\n",
            ok + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
            ok + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
            ok + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            ok + b"Content-Length: -1\r\n\r\n",
            ok + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ok + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            CHUNKED + b"zz\r\n",
            CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
            CHUNKED + b"-2\r\nab\r\n0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
        ):
            self.service.says(answer)
            response = yield self.get()
            self.problem(response, 502, "bad-response")
        yield until(lambda: all(connection.lost for connection in self.service.connections))
        yield self.nothing_left()

    @inlineCallbacks
    def test_folded_fields_are_unfolded(self) -> Test:
        """RFC 9112 5.2: a gateway may; the caller never sees a fold."""
        self.service.says(b"HTTP/1.1 200 OK\r\nX: a\r\n \t b\r\nContent-Length: 0\r\n\r\n")
        response = yield self.get()
        self.assertEqual(response.fields(b"x"), [b"a b"])

    @inlineCallbacks
    def test_a_head_beyond_the_limit_is_refused(self) -> Test:
        """RFC 9209 2.3.10."""
        for size, lines in ((60_000, 1), (1 << 20, 1), (1 << 20, 10_000)):
            field = b"X: " + b"x" * (size // lines) + b"\r\n"
            self.service.says(b"HTTP/1.1 200 OK\r\n", field * lines, b"Content-Length: 0\r\n\r\n")
            response = yield self.get()
            if size < 1 << 16:
                self.assertEqual((response.status, len(response.fields(b"x")[0])), (200, size))
            else:
                self.problem(response, 502, "bad-response", b"http_response_header_section_size")
        yield self.nothing_left()

    @inlineCallbacks
    def test_the_limit_of_heads_is_the_operators(self) -> Test:
        """Also on connections that were kept, and up to what can cross at all."""
        self.service.says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: %s\r\n\r\n" % (b"x" * 2000))
        for limit, status in ((64 << 10, 200), (1 << 10, 502), (64 << 10, 200)):
            self.egress.reconfigure(self.egress.policy, limits=Limits(response_header=limit, grace=0.1))
            response = yield self.get()
            self.assertEqual(response.status, status)
        self.egress.reconfigure(self.egress.policy, limits=Limits(response_header=240 << 10, grace=0.1))
        lines = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 235) for number in range(990))
        self.service.says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", lines, b"\r\n")
        response = yield self.get()
        self.assertEqual((response.status, response.head.count(b"\r\nX-")), (200, 990))

    @inlineCallbacks
    def test_more_fields_than_cross_are_refused(self) -> Test:
        self.service.says(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1100, b"Content-Length: 0\r\n\r\n")
        response = yield self.get()
        self.problem(response, 502, "bad-response", b"http_response_header_section_size")

    @inlineCallbacks
    def test_no_length_ends_with_the_connection(self) -> Test:
        """RFC 9112 6.3 rule 8."""
        self.service.says(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", close=True)
        response = yield self.get()
        self.assertEqual((response.status, response.body), (200, b"hello"))

    @inlineCallbacks
    def test_a_length_that_is_too_long_cuts_the_caller_off(self) -> Test:
        """RFC 9112 8: nobody takes the piece for the whole."""
        self.service.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", close=True)
        yield from self.cut(b"half")

    @inlineCallbacks
    def test_what_follows_the_declared_length_is_no_answer_to_anybody(self) -> Test:
        """RFC 9112 6.3, 11.2: response splitting."""
        self.service.says(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nEvil: 1\r\n\r\n"
        )
        for _ in range(2):
            response = yield self.get()
            self.assertEqual((response.body, response.fields(b"evil")), (b"good", []))
        self.assertEqual(len(self.service.connections), 2)

    @inlineCallbacks
    def test_a_reset_or_a_bad_chunk_midway_cuts_the_caller_off(self) -> Test:
        def reset(service: Service, request: Received) -> None:
            service.answer(CHUNKED, b"4\r\nhalf\r\n")
            REACTOR.callLater(0.05, service.reset)

        def rubbish(service: Service, request: Received) -> None:
            service.answer(CHUNKED, b"4\r\nhalf\r\n")
            REACTOR.callLater(0.05, service.answer, b"zz\r\n")

        def closed(service: Service, request: Received) -> None:
            service.answer(CHUNKED, b"4\r\nhalf\r\n5\r\nle")
            REACTOR.callLater(0.05, service.close)

        for script in (reset, rubbish, closed):
            self.service.script = script
            yield from self.cut(b"half")
        yield self.nothing_left()

    def cut(self, piece: bytes) -> Generator[Deferred[Any], Any, None]:
        """The caller gets a head and this piece, and then the end of its connection."""
        caller = self.connect()
        caller.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = yield deferToThread(self.until_the_end, caller)
        self.assertTrue(answer.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 502 ")), answer)
        if answer.startswith(b"HTTP/1.1 200 OK\r\n"):
            self.assertIn(piece, answer)
            self.assertNotIn(b"\r\n0\r\n", answer)
        else:
            self.problem(Response.parse(answer), 502, "response-incomplete")

    @staticmethod
    def until_the_end(caller: socket.socket) -> bytes:
        received = b""
        try:
            while piece := caller.recv(1 << 16):
                received += piece
        except ConnectionResetError:
            pass
        return received

    @inlineCallbacks
    def test_a_reset_before_the_head_is_told(self) -> Test:
        self.service.script = lambda service, request: service.reset()
        response = yield self.post(b"x")
        self.problem(response, 502, "connection-terminated", b"connection_terminated")
        self.assertEqual(len(self.service.requests), 1, "a POST is not repeated")

    @inlineCallbacks
    def test_an_answer_before_the_request_was_read_arrives(self) -> Test:
        """RFC 9112 9.5: whatever becomes of the rest of the request."""

        class Early(Service):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.answer(b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 4\r\n\r\nmuch")
                self.transport.pauseProducing()

        self.service.protocol = Early
        response = yield self.post(bytes(3_000_000))
        self.assertEqual((response.status, response.body), (413, b"much"))
        yield self.nothing_left()


class EndlessTests(HttpCase):
    """Bodies without an end, slow sides, and sides that leave."""

    def setUp(self) -> None:
        super().setUp()
        self.open: list[Service] = []

    def keep_open(self, *pieces: bytes) -> None:
        """Answer each request with these, and leave the rest to the test."""

        def script(service: Service, request: Received) -> None:
            self.open.append(service)
            service.answer(*pieces)

        self.service.script = script

    @inlineCallbacks
    def test_events_arrive_as_they_are_sent(self) -> Test:
        """A body without length or end: the test sends each event when the last has arrived."""
        for head, chunked in ((CHUNKED, True), (b"HTTP/1.0 200 OK\r\n\r\n", False)):
            self.keep_open(head)
            caller = self.connect()
            caller.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
            yield from self.reads(caller, b"\r\n\r\n")
            for number in range(20):
                event = b"data: %d\n\n" % number
                self.open[-1].answer(b"%x\r\n%s\r\n" % (len(event), event) if chunked else event)
                yield from self.reads(caller, event + b"\r\n")
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.close()
            yield until(lambda: self.open[-1].lost)
            yield self.nothing_left()

    @inlineCallbacks
    def test_a_slow_service_stalls_only_its_own_caller(self) -> Test:
        self.keep_open(b"HTTP/1.1 200 OK\r\n")
        slow = self.get(b"/svc/demo/slow")
        yield until(lambda: self.open)
        self.service.says(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfast")
        for _ in range(10):
            response = yield self.get(b"/svc/demo/fast")
            self.assertEqual(response.body, b"fast")
        self.assertFalse(slow.called)
        self.open[0].answer(b"Content-Length: 4\r\n\r\nslow")
        response = yield slow
        self.assertEqual(response.body, b"slow")

    @inlineCallbacks
    def test_a_slow_reader_stalls_only_itself(self) -> Test:
        """It takes nothing for a while: its service is held up, others are served, and then it has all."""
        size = 128 << 20  # more than the window and all that sockets may hold
        sent: list[int] = []

        class Flood:
            def __init__(self, service: Service) -> None:
                self.service, self.left, self.paused = service, size, False

            def resumeProducing(self) -> None:
                self.paused = False
                while self.left and not self.paused:
                    self.left -= 1 << 18
                    sent.append(1 << 18)
                    self.service.answer(bytes(1 << 18))

            def pauseProducing(self) -> None:
                self.paused = True

            def stopProducing(self) -> None:
                self.left = 0

        def script(service: Service, request: Received) -> None:
            if not request.line.startswith(b"GET /base/large "):
                service.answer(EMPTY)
                return
            service.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            flood = Flood(service)
            service.transport.registerProducer(flood, True)
            flood.resumeProducing()

        self.service.script = script
        caller = self.connect()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        caller.sendall(b"GET /svc/demo/large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        yield until(lambda: sum(sent) > 60 << 20)
        before = 0
        while before != sum(sent):
            before = sum(sent)
            response = yield self.get(b"/svc/demo/small")
            self.assertEqual(response.status, 200)
            yield wait(0.05)
        self.assertLess(before, size, "it is held up")
        received = yield deferToThread(self.drain, caller)
        self.assertGreaterEqual(received, size)
        yield self.nothing_left()

    @staticmethod
    def drain(caller: socket.socket) -> int:
        total = 0
        while piece := caller.recv(1 << 20):
            total += len(piece)
        return total

    def leaves(
        self, caller: socket.socket, when: Callable[[], object]
    ) -> Generator[Deferred[Any], Any, None]:
        """The caller is gone for good at that time; nothing of its call may stay."""
        yield until(when)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        yield until(lambda: all(service.lost for service in self.open))
        yield self.nothing_left()

    @inlineCallbacks
    def test_a_download_that_its_caller_aborts_leaves_nothing(self) -> Test:
        """While the service works, and with half of the answer on its way."""
        for pieces in ((), (b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n", bytes(4_000_000))):
            self.open.clear()
            self.keep_open(*pieces)
            caller = self.connect()
            caller.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\n\r\n")
            if pieces:
                yield from self.reads(caller, bytes(1000))
            yield from self.leaves(caller, lambda: self.open)
        self.assertEqual(self.ingress.counters()["callers_gone"], 2)
        self.assertEqual(self.egress.counters()["cancelled"], 2)

    @inlineCallbacks
    def test_an_upload_that_its_caller_aborts_reaches_no_service_and_leaves_nothing(self) -> Test:
        arrived = self.service.arrived
        for chunked in (False, True):
            caller = self.connect()
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 50000000"
            caller.sendall(b"POST /svc/demo/ HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n" % framing)
            body = bytes(1_000_000)
            caller.sendall(b"%x\r\n%s\r\n" % (len(body), body) if chunked else body)
            yield from self.leaves(caller, partial(self.link.unconsumed))
        self.assertEqual((self.service.arrived, self.service.connections), (arrived, []))
        self.assertEqual(self.ingress.counters()["callers_gone"], 2)

    @inlineCallbacks
    def test_an_upload_that_the_far_node_refuses_leaves_nothing(self) -> Test:
        """Its caller is told in the middle of sending."""
        yield self.crash()
        self.limits = Limits(request_body=100_000, grace=0.1)
        self.restart()
        self.egress.reconfigure(Policy([Rule.parse(self.url)]))
        response = yield self.post(bytes(5_000_000))
        self.problem(response, 413, "too-large")
        self.assertEqual(self.service.connections, [])
        yield self.nothing_left()
