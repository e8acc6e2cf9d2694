"""
A route with a cache, all the way to a service: ingress and egress, in one process.
"""

from __future__ import annotations

import os
import time
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import deferLater

from hoft.config import Caching, Route
from hoft.web.ingress.caching import rows as cache_rows
from hoft.web.ingress.ingress import Ingress
from hoft.web.ingress.routing import Routing
from tests.web.callers import Callers
from tests.web.listening import Test
from tests.web.services import EgressCase, Received, Service


class CacheToServiceTests(Callers, EgressCase):
    def setUp(self) -> None:
        super().setUp()
        self.near_link.create(cache_rows.SCHEMA)
        route = Route("demo", "far", f"http://127.0.0.1:{self.port}", cache=Caching(stale_if_error=60.0))
        routing = Routing(routes=(route,), deadline=10.0)
        self.ingress = Ingress(
            reactor, time.monotonic, Random(5).randbytes, {"far": self.near_link}, routing, "near", dict
        )
        self.near_link.attach(self.ingress)
        self.door = self.listen(self.ingress.factory)
        self.addCleanup(self.close)

    @inlineCallbacks
    def close(self) -> Test:
        yield self.door.stopListening()
        self.ingress.factory.abortAll()
        yield self.ingress.stop()
        for _ in range(30):
            yield deferLater(reactor, 0)

    @inlineCallbacks
    def test_a_large_response_crosses_once_is_confirmed_and_stands_in_for_a_service_that_is_gone(
        self,
    ) -> Test:
        body = os.urandom(1_000_000)

        def script(service: Service, request: Received) -> None:
            if request.values(b"if-none-match") == [b'"1"']:
                service.answer(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')
            else:
                head = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: %d\r\n\r\n' % len(body)
                service.answer(head, body)

        self.service.script = script
        first = yield self.get()
        again = yield gatherResults([self.get() for _ in range(5)])
        for response in [first, *again]:
            self.assertEqual(response.status, 200)
            self.assertTrue(response.body == body)
        self.assertIn(b"fwd-status=304", b"".join(again[0].fields(b"cache-status")))
        full = [one for one in self.service.requests if not one.values(b"if-none-match")]
        self.assertEqual(len(full), 1)
        self.service.script = lambda service, request: service.reset()
        response = yield self.get()
        self.assertEqual(response.status, 200)
        self.assertTrue(response.body == body)
        self.assertIn(b"fwd-status=502; detail=stale-if-error", response.head)
