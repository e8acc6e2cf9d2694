"""
Callers, ingress, egress and a service of twisted.web, all of them real; only what
carries the records is not.
"""

from __future__ import annotations

import gzip
import socket
import struct
import time
from collections.abc import Generator
from functools import partial
from hashlib import blake2b
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from hoft.config import Route
from hoft.web.client.policy import Policy, Rule
from hoft.web.ingress.ingress import Ingress
from hoft.web.ingress.routing import Routing
from tests.web.callers import Callers
from tests.web.services import REACTOR, EgressCase, Test, until, wait


class Served(Resource):
    """A service that answers by path."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.gone: list[Any] = []

    def render(self, request: Request) -> bytes | int:
        self.requests.append(request)
        assert request.postpath is not None
        name: str = request.postpath[1].decode()
        found: bytes | int = getattr(self, f"at_{name}", self.at_missing)(request)
        return found

    def at_missing(self, request: Request) -> bytes:
        request.setResponseCode(404)
        return b"nothing here"

    def at_echo(self, request: Request) -> bytes:
        kind = request.getHeader(b"content-type")
        if kind is not None:
            request.setHeader(b"content-type", kind)
        assert request.content is not None
        content: bytes = request.content.read()
        return content

    def at_packed(self, request: Request) -> bytes:
        request.setHeader(b"content-encoding", b"gzip")
        for cookie in (b"a=1; Path=/", b"b=2; Path=/app", b"a=3"):
            request.cookies.append(cookie)
        return gzip.compress(b"hello" * 1000, mtime=0)

    def at_slow(self, request: Request) -> int:
        request.notifyFinish().addErrback(self.gone.append)
        request.write(b"first")
        return NOT_DONE_YET

    def at_never(self, request: Request) -> int:
        request.notifyFinish().addErrback(self.gone.append)
        return NOT_DONE_YET

    def at_large(self, request: Request) -> int:
        pieces = iter([bytes([number % 251]) * 65536 for number in range(320)])

        class Producer:
            def resumeProducing(self) -> None:
                piece = next(pieces, None)
                if piece is None:
                    request.unregisterProducer()
                    request.finish()
                else:
                    request.write(piece)

            def stopProducing(self) -> None:
                pass

        request.registerProducer(Producer(), False)
        return NOT_DONE_YET


class GatewayCase(Callers, EgressCase):
    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        self.served = Served()
        web = REACTOR.listenTCP(0, Site(self.served), interface="127.0.0.1")
        self.port = web.getHost().port
        self.policy = Policy([Rule.parse(f"http://127.0.0.1:{self.port}/app")])
        self.egress.reconfigure(self.policy)
        self.near_link.name = "far"
        self.ingress = Ingress(
            REACTOR,
            time.monotonic,
            Random(3).randbytes,
            {"far": self.near_link},
            Routing(routes=(Route("app", "far", f"http://127.0.0.1:{self.port}/app"),), deadline=8.0),
            "near",
            lambda: succeed({}),
        )
        self.near_link.attach(self.ingress)
        self.addCleanup(self.close, web, self.listen(self.ingress.factory))

    @inlineCallbacks
    def close(self, web: Any, callers: Any) -> Generator[Deferred[Any], Any, None]:
        yield web.stopListening()
        yield callers.stopListening()
        self.ingress.factory.abortAll()
        yield until(lambda: self.ingress.factory.connections == 0)
        yield self.ingress.stop()
        yield wait(0.05)
        yield self.end()
        yield wait(0.02)

    @staticmethod
    def had(things: list[Any], count: int) -> bool:
        return len(things) >= count


class CallTests(GatewayCase):
    @inlineCallbacks
    def test_bodies_go_there_and_back_unchanged(self) -> Test:
        for kind, body in (
            (b"application/json", b'{"a": "\xc3\xa9"}'),
            (b"application/octet-stream", Random(5).randbytes(5_000_000)),
            (b"multipart/form-data; boundary=x", b"--x\r\n\r\n\x00\r\n--x--\r\n"),
            (b"text/plain; charset=utf-8", b"broken \xff\xc3("),
        ):
            response = yield self.post(body, b"Content-Type: " + kind, target=b"/svc/app/echo")
            self.assertEqual((response.status, response.fields(b"content-type")), (200, [kind]))
            self.assertEqual(response.body, body)
        yield until(lambda: not self.link.unconsumed() and not self.near_link.unconsumed())

    @inlineCallbacks
    def test_what_the_service_says_of_its_response_is_kept(self) -> Test:
        response = yield self.get(b"/svc/app/packed")
        self.assertEqual(response.body, gzip.compress(b"hello" * 1000, mtime=0))
        self.assertEqual(response.fields(b"content-encoding"), [b"gzip"])
        self.assertEqual(
            response.fields(b"set-cookie"), [b"a=1; Path=/svc/app", b"b=2; Path=/svc/app", b"a=3"]
        )
        self.assertEqual(response.fields(b"via"), [b"1.1 far", b"hoft/1 near"])
        head = yield self.get(b"/svc/app/packed", method=b"HEAD")
        self.assertEqual(head.fields(b"content-length"), [b"%d" % len(response.body)])
        self.assertEqual(head.body, b"")
        missing = yield self.get(b"/svc/app/no/such")
        self.assertEqual((missing.status, missing.body), (404, b"nothing here"))

    @inlineCallbacks
    def test_the_first_byte_comes_before_the_last_is_written(self) -> Test:
        caller = self.connect()
        yield deferToThread(caller.sendall, b"GET /svc/app/slow HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        while b"first" not in received:
            received += yield deferToThread(caller.recv, 65536)
        self.served.requests[0].write(b"second")
        self.served.requests[0].finish()
        while b"second" not in received:
            received += yield deferToThread(caller.recv, 65536)

    @inlineCallbacks
    def test_a_large_response_crosses(self) -> Test:
        response = yield self.get(b"/svc/app/large")
        expected = blake2b(b"".join(bytes([number % 251]) * 65536 for number in range(320)))
        self.assertEqual(blake2b(response.body).digest(), expected.digest())

    @inlineCallbacks
    def test_a_caller_that_leaves_frees_the_service(self) -> Test:
        for count, path in ((1, b"never"), (2, b"slow")):
            caller = self.connect()
            yield deferToThread(caller.sendall, b"GET /svc/app/%s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            yield until(partial(self.had, self.served.requests, count))
            if path == b"slow":
                yield deferToThread(caller.recv, 1)
            # Reset, not half-closed: a caller that only ended its sending still listens.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.close()
            yield until(partial(self.had, self.served.gone, count))
        yield until(lambda: not self.link.unconsumed())
        self.assertEqual(self.egress.counters()["running"], 0)

    @inlineCallbacks
    def test_what_is_not_allowed_says_so(self) -> Test:
        response = yield self.get(b"/to/http/127.0.0.1:%d/other" % self.port)
        self.assertEqual(response.status, 403)
        self.assertEqual(response.fields(b"content-type"), [b"application/problem+json"])
        self.assertIn(b"http_request_denied", response.fields(b"proxy-status")[0])

    @inlineCallbacks
    def test_a_get_that_a_crash_interrupts_is_made_again(self) -> Test:
        called = self.get(b"/svc/app/never")
        yield until(lambda: self.served.requests)
        yield self.crash()
        self.restart()
        yield until(lambda: len(self.served.requests) == 2)
        self.served.requests[1].write(b"here")
        self.served.requests[1].finish()
        response = yield called
        self.assertEqual((response.status, response.body), (200, b"here"))

    @inlineCallbacks
    def test_a_post_that_a_crash_interrupts_has_an_unknown_outcome(self) -> Test:
        posted = self.post(b"x", target=b"/svc/app/never")
        yield until(lambda: self.served.requests)
        yield self.crash()
        self.restart()
        response = yield posted
        self.assertEqual((response.status, len(self.served.requests)), (502, 1))
        self.assertIn(b"outcome-unknown", response.body)
