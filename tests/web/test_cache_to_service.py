"""
A route with a cache, all the way to a service: ingress and egress, in one process.
"""

from __future__ import annotations

import os

from twisted.internet.defer import gatherResults, inlineCallbacks

from hoft.config import Caching, Route
from hoft.web.ingress.caching import rows as cache_rows
from tests.web.both_sides import BothSidesCase
from tests.web.listening import Test
from tests.web.services import Received, Service


class CacheToServiceTests(BothSidesCase):
    def setUp(self) -> None:
        super().setUp()
        self.near_link.create(cache_rows.SCHEMA)
        caching = Caching(stale_if_error=60.0)
        self.open_route(Route("demo", "far", f"http://127.0.0.1:{self.port}", cache=caching))

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
