"""
A route with a cache when there is no answer, and after a restart.
"""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from hoft.config import Caching
from hoft.interfaces import LinkState
from hoft.web.http.heads import ResponseHead
from hoft.web.http.problems import connection_refused
from hoft.web.ingress.caching import cache
from tests.web.caching import FRESH, CachingCase
from tests.web.listening import Test

TAG = b"ETag", b'"1"'


class ErrorTests(CachingCase):
    """Stale is better than nothing, where it may be."""

    caching = Caching(stale_if_error=100.0)

    @inlineCallbacks
    def stale(self, *fields: Any) -> Test:
        """There is a stale response."""
        self.answers(*FRESH, TAG, *fields)
        yield self.get()
        self.now, self.far.then = 90, None

    @inlineCallbacks
    def test_the_service_fails(self) -> Test:
        yield self.stale()
        for status in (500, 502, 503, 504):
            self.answers(status=status, body=b"trouble")
            response = yield self.get()
            self.assertEqual((response.status, response.body), (200, b"content"))
            told = self.told(response)
            self.assertRegex(
                told, rf'^"near"; fwd=stale; fwd-status={status}; detail=stale-if-error; ttl=-3\d$'
            )
        self.now = 161
        response = yield self.get()
        self.assertEqual((response.status, response.body), (504, b"trouble"))
        self.assertEqual(self.ingress.counters()["cache_stale"], 4)

    @inlineCallbacks
    def test_an_error_takes_the_place_of_nothing(self) -> Test:
        yield self.stale()
        self.answers(*FRESH, status=503, body=b"trouble")
        for _ in range(2):
            response = yield self.get()
            self.assertEqual((response.status, response.body), (200, b"content"))
        self.assertEqual(self.crossed, 3)

    @inlineCallbacks
    def test_an_answer_that_may_not_be_stored_ends_the_old_one(self) -> Test:
        yield self.stale()
        self.answers((b"Cache-Control", b"no-store"), body=b"new")
        yield self.get()
        self.answers(status=503, body=b"trouble")
        response = yield self.get()
        self.assertEqual(response.status, 503)

    @inlineCallbacks
    def test_the_far_node_cannot_reach_it(self) -> Test:
        yield self.stale()
        self.far.then = lambda request: request.abort(connection_refused("http://service.example:81"))
        response = yield self.get()
        self.assertEqual((response.status, response.body), (200, b"content"))

    @inlineCallbacks
    def test_the_peer_is_down(self) -> Test:
        yield self.stale()
        self.near.change(LinkState.DOWN)
        response = yield self.get()
        self.assertEqual((response.status, response.body), (200, b"content"))
        other = yield self.get(b"/svc/demo/other")
        self.assertEqual(other.status, 503)
        self.assertEqual(self.crossed, 1)

    @inlineCallbacks
    def test_the_peer_is_late(self) -> Test:
        yield self.stale()
        asked = self.get(b"/svc/demo/", b"Hoft-Deadline: 60")
        yield self.until(lambda: self.crossed == 2)
        self.near.change(LinkState.LATE)
        response = yield asked
        self.assertEqual(response.body, b"content", "at once")
        response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: 60")
        self.assertEqual(response.body, b"content", "and each who comes meanwhile")
        self.assertEqual((self.crossed, self.far.cancels), (2, []))
        self.last.answer(headers=FRESH, body=b"new")
        yield self.until(lambda: self.ingress.counters()["cache_stored"] == 2)
        response = yield self.get()
        self.assertEqual((response.body, self.crossed), (b"new", 2))

    @inlineCallbacks
    def test_the_deadline_passes(self) -> Test:
        yield self.stale()
        response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.2")
        self.assertEqual((response.status, response.body), (200, b"content"))

    @inlineCallbacks
    def test_a_service_that_forbids_it(self) -> Test:
        yield self.stale((b"Cache-Control", b"must-revalidate"))
        self.answers(status=503, body=b"trouble")
        response = yield self.get()
        self.assertEqual((response.status, response.body), (503, b"trouble"))

    @inlineCallbacks
    def test_an_answer_that_comes_after_the_deadline_is_for_the_next(self) -> Test:
        """So a caller may come again and again until it is there."""
        for _ in range(2):
            response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.2")
            self.assertEqual(response.status, 504)
        self.assertEqual((self.crossed, self.far.cancels), (1, []))
        [listed] = [describe() for describe in self.ingress.under_way(0.0) if describe]
        self.assertEqual((listed["kept"], listed["id"]), (True, self.far.one.exchange.hex()))
        self.far.one.answer(headers=FRESH, body=b"at last")
        yield self.until(lambda: self.ingress.counters()["cache_stored"])
        response = yield self.get()
        self.assertEqual((response.body, self.crossed), (b"at last", 1))

    @inlineCallbacks
    def test_there_is_an_end_to_what_crosses_for_nobody(self) -> Test:
        self.patch(cache, "MAX_CALLS", 2)
        for target in (b"a", b"b", b"c"):
            response = yield self.get(b"/svc/demo/" + target, b"Hoft-Deadline: 0.1")
            self.assertEqual(response.status, 504)
        first = next(iter(self.far.requests))
        yield self.until(lambda: self.far.cancels == [first])
        self.assertEqual(len(self.ingress.cache.fetches), 2)

    @inlineCallbacks
    def test_stale_while_it_is_asked_about(self) -> Test:
        self.answers((b"Cache-Control", b"max-age=60, stale-while-revalidate=60"), TAG)
        yield self.get()
        self.now, self.far.then = 70, None
        for _ in range(2):
            response = yield self.get()
            self.assertRegex(self.told(response), r'"near"; hit; ttl=-1\d')
        yield self.until(lambda: self.crossed == 2 and self.last.complete)
        self.last.answer(304, FRESH)
        yield self.until(lambda: self.ingress.counters()["cache_validated"])
        response = yield self.get()
        self.assertIn("hit; ttl=5", self.told(response))


class RestartTests(CachingCase):
    @inlineCallbacks
    def test_what_is_stored_is_there_and_is_not_read_to_be_found(self) -> Test:
        body = os.urandom(300_000)
        self.far.then = lambda request: request.answer(headers=FRESH, body=body)
        yield self.get()
        yield self.until(lambda: self.ingress.counters()["cache_stored"])
        yield self.restart()
        self.assertFalse(self.far.cancels)
        response = yield self.get()
        self.assertTrue(response.body == body)
        self.assertEqual(self.crossed, 1)
        self.assertIn("hit", self.told(response))

    @inlineCallbacks
    def test_what_was_half_here_is_let_go_of(self) -> Test:
        caller = self.connect()
        caller.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: gateway\r\n\r\n")
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        writer = self.far.one.writer()
        self.far.send(writer.head(ResponseHead(200, b"", FRESH, 300_000), flush=True))
        self.far.send(writer.data(bytes(100_000), flush=True))
        yield self.until(lambda: self.near.unconsumed() >= 2)
        self.leave(caller)
        yield self.until(lambda: not self.ingress.factory.connections)
        yield self.restart()
        yield self.until(lambda: self.far.cancels and not self.near.unconsumed())

    @inlineCallbacks
    def test_less_room_than_before(self) -> Test:
        self.answers(*FRESH, body=bytes(50_000))
        for target in (b"a", b"b"):
            yield self.get(b"/svc/demo/" + target)
        self.routing = evolve(self.routing, cache=60_000)
        yield self.restart()
        self.ingress.tick()
        yield self.until(lambda: self.near.unconsumed() == 1)
        self.assertEqual(self.ingress.counters()["cache_entries"], 1)

    @inlineCallbacks
    def test_a_journal_that_has_lost_it(self) -> Test:
        self.answers(*FRESH)
        yield self.get()
        yield self.until(lambda: self.ingress.counters()["cache_stored"])
        self.near.lose_inbox()
        self.answers(*FRESH, body=b"again")
        response = yield self.get()
        self.assertEqual((response.status, response.body), (200, b"again"))

    @inlineCallbacks
    def test_a_peer_that_was_restored_is_asked_again(self) -> Test:
        self.near.open = False
        asked = self.get()
        yield self.until(lambda: self.ingress.cache.fetches)
        yield deferLater(reactor, 0.01)
        self.near.lose_state()
        self.answers(*FRESH)
        self.near.heal()
        response = yield asked
        self.assertEqual((response.status, response.body), (200, b"content"))

    @inlineCallbacks
    def test_one_that_must_not_be_asked_again(self) -> Test:
        self.configure(Caching(), retry="never")
        self.near.open = False
        asked = self.get()
        yield self.until(lambda: self.ingress.cache.fetches)
        yield deferLater(reactor, 0.01)
        self.near.lose_state()
        response = yield asked
        self.assertEqual(response.status, 502)
        self.assertIn(b"outcome-unknown", response.body)
