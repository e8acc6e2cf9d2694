"""
A whole gateway but for the files: callers, ingress, a link in one process, egress,
services with real sockets.
"""

from __future__ import annotations

import json

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread

from hoft.config import Route
from tests.web.both_sides import BothSidesCase
from tests.web.listening import Test
from tests.web.services import Received, Service


class IngressToEgressTests(BothSidesCase):
    def setUp(self) -> None:
        super().setUp()
        self.open_route(Route("demo", "far", f"http://127.0.0.1:{self.port}/base"))

    def echo(self, service: Service, request: Received) -> None:
        service.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body), request.body)

    @inlineCallbacks
    def test_many_at_once_each_get_their_own(self) -> Test:
        def script(service: Service, request: Received) -> None:
            text = request.line.split(b" ")[1]
            service.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text), text)

        self.service.script = script
        asked = [self.get(b"/svc/demo/%d" % number) for number in range(30)]
        for number, answer in enumerate(asked):
            response = yield answer
            self.assertEqual(response.body, b"/base/%d" % number)

    @inlineCallbacks
    def test_a_service_that_resets(self) -> Test:
        self.service.script = lambda service, request: service.reset()
        response = yield self.post(b"once")
        self.assertEqual(response.status, 502)
        self.assertEqual(len(self.service.requests), 1, "a POST is not repeated")
        self.assertEqual(json.loads(response.body)["status"], 502)

    @inlineCallbacks
    def test_a_service_that_breaks_off(self) -> Test:
        self.service.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        caller = self.connect()
        caller.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b""
        while not received.endswith(b"half"):
            received += yield deferToThread(caller.recv, 65536)
        self.service.connections[0].close()
        yield self.assertFailure(deferToThread(caller.recv, 65536), ConnectionResetError)

    @inlineCallbacks
    def test_a_service_that_is_silent(self) -> Test:
        self.service.script = lambda service, request: None
        response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.3")
        self.assertEqual(response.status, 504)
        yield self.until(lambda: all(connection.lost for connection in self.service.connections))
        self.assertEqual(len(self.service.connections), 1, "it is cut off: nobody waits any more")

    @inlineCallbacks
    def test_nothing_is_left_behind(self) -> Test:
        self.service.script = self.echo
        for _ in range(3):
            yield self.post(bytes(300_000))
        yield self.until(lambda: not self.near_link.unconsumed() and not self.link.unconsumed())
        self.assertEqual(self.ingress.counters()["waiting"], 0)
