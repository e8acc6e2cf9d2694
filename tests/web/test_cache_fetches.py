"""
Calls at a route with a cache that have to cross: once for all who may have the answer.
"""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread

from hoft.config import Caching
from hoft.web.crossing.exchange import WINDOW
from hoft.web.http.heads import ResponseHead
from hoft.web.http.problems import connection_refused
from hoft.web.ingress.caching import fetch as cache_fetch
from hoft.web.ingress.caching.rows import Entry
from tests.web.caching import FRESH, CachingCase
from tests.web.callers import Response
from tests.web.listening import Test

TAG = b"ETag", b'"1"'


class CollapsingTests(CachingCase):
    """Identical GETs cross once."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(cache_fetch, "AT_ONCE", 2)

    def callers(self, count: int, *fields: bytes) -> list[Deferred[Response]]:
        return [self.get(b"/svc/demo/", *fields) for _ in range(count)]

    @inlineCallbacks
    def waiting(self, count: int) -> Test:
        """Until so many wait, and the far side has what crosses."""
        yield self.until(lambda: self.ingress.counters()["requests"] == count)
        yield self.until(lambda: self.far.requests and self.last.complete)

    @inlineCallbacks
    def test_those_at_once_get_the_same_answer(self) -> Test:
        asked = self.callers(8)
        yield self.waiting(8)
        self.assertEqual(self.ingress.counters()["waiting"], 8)
        listed = [describe() for describe in self.ingress.under_way(0.0) if describe]
        self.assertEqual([one["route"] for one in listed], ["demo"] * 8)
        self.assertLessEqual({one["stage"] for one in listed}, {"accepted", "acked"})
        self.far.one.answer(headers=FRESH, body=b"content")
        told = []
        for one in asked:
            response = yield one
            self.assertEqual((response.status, response.body), (200, b"content"))
            told.append(self.told(response))
        self.assertEqual(self.crossed, 1)
        self.assertEqual(self.ingress.counters()["waiting"], 0)
        self.assertEqual(sum("collapsed" in one for one in told), 7)
        self.assertEqual(self.ingress.counters()["cache_collapsed"], 7)

    @inlineCallbacks
    def test_those_whose_turn_comes_when_it_is_purged_cross(self) -> Test:
        self.answers(*FRESH, TAG)
        yield self.get()
        self.now, self.far.then = 61, None
        asked = self.callers(8)
        yield self.until(lambda: self.ingress.counters()["requests"] == 9)
        yield self.until(lambda: self.crossed == 2 and self.last.complete)
        held, store = self.last, self.ingress.cache.store

        def changed(entry: Entry, before: int) -> None:
            reactor.callLater(0, self.ingress.cache.purge, None)

        self.patch(store, "changed", changed)
        self.answers(*FRESH, body=b"another")
        held.answer(304, FRESH)
        responses = yield gatherResults(asked)
        self.assertEqual({one.status for one in responses}, {200})
        self.assertEqual({one.body for one in responses}, {b"content", b"another"})

    @inlineCallbacks
    def test_those_who_find_that_it_is_not_for_them_go_on_their_own(self) -> Test:
        asked = self.callers(5)
        yield self.waiting(5)
        first = self.far.one
        self.answers(body=b"another")
        first.answer(headers=[(b"Cache-Control", b"private")], body=b"the first's")
        bodies = []
        for one in asked:
            response = yield one
            bodies.append(response.body)
        self.assertEqual(sorted(bodies), [b"another"] * 4 + [b"the first's"])
        self.assertEqual(self.crossed, 5)
        yield self.until(lambda: not self.near.unconsumed())

    @inlineCallbacks
    def test_also_where_it_may_be_stored_but_is_to_be_asked_about_each_time(self) -> Test:
        asked = self.callers(3)
        yield self.waiting(3)
        first = self.far.one
        self.answers((b"Cache-Control", b"no-cache"), TAG)
        first.answer(headers=[(b"Cache-Control", b"no-cache"), TAG])
        yield gatherResults(asked)
        self.assertEqual(self.crossed, 3)

    @inlineCallbacks
    def test_also_where_it_varies_by_something_unforeseen(self) -> Test:
        asked = [self.get(b"/svc/demo/", b"X-Kind: " + kind) for kind in (b"a", b"a", b"b")]
        yield self.waiting(3)
        first = self.far.one
        self.far.then = lambda request: request.answer(body=self.asked(request)[b"x-kind"])
        first.answer(headers=[*FRESH, (b"Vary", b"X-Kind")], body=self.asked(first)[b"x-kind"])
        for one, kind in zip(asked, (b"a", b"a", b"b"), strict=True):
            response = yield one
            self.assertEqual(response.body, kind)
        self.assertIn(self.crossed, (2, 3))

    @inlineCallbacks
    def test_requests_that_services_tell_apart_do_not_wait_for_each_other(self) -> Test:
        for field in (b"Accept: a", b"Accept-Language: a", b"Authorization: Basic a", b"Cookie: a=b"):
            self.callers(1, field)
        yield self.until(lambda: self.crossed == 4 and self.last.complete)
        for request in self.far.requests.values():
            request.answer()
        yield self.until(lambda: not self.ingress.cache.fetches)

    @inlineCallbacks
    def test_one_who_insists_on_a_new_answer_does_not_wait_for_an_old_one(self) -> Test:
        old = self.callers(1)
        yield self.waiting(1)
        new = self.callers(1, b"Cache-Control: no-cache")
        yield self.until(lambda: self.crossed == 2 and self.last.complete)
        first, second = self.far.requests.values()
        first.answer(headers=FRESH, body=b"old")
        second.answer(headers=FRESH, body=b"new")
        for asked, body in ((old, b"old"), (new, b"new")):
            response = yield asked[0]
            self.assertEqual(response.body, body)

    @inlineCallbacks
    def test_a_question_about_a_stale_one_crosses_once(self) -> Test:
        self.answers(*FRESH, TAG)
        yield self.get()
        self.now, self.far.then = 61, None
        asked = self.callers(4)
        yield self.until(lambda: self.ingress.counters()["requests"] == 5)
        yield self.until(lambda: self.crossed == 2 and self.last.complete)
        self.last.answer(304, FRESH)
        for one in asked:
            response = yield one
            self.assertEqual((response.status, response.body), (200, b"content"))
        self.assertEqual(self.crossed, 2)

    @inlineCallbacks
    def test_the_first_leaves_and_the_others_get_the_answer(self) -> Test:
        first = self.connect()
        first.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: gateway\r\n\r\n")
        yield self.waiting(1)
        asked = self.callers(1)
        yield self.waiting(2)
        self.leave(first)
        yield self.until(lambda: self.ingress.counters()["callers_gone"])
        self.far.one.answer(headers=FRESH, body=b"content")
        response = yield asked[0]
        self.assertEqual((response.body, self.far.cancels), (b"content", []))

    @inlineCallbacks
    def test_all_leave_and_it_is_cancelled(self) -> Test:
        caller = self.connect()
        caller.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: gateway\r\n\r\n")
        yield self.waiting(1)
        self.leave(caller)
        yield self.until(lambda: self.far.cancels == [self.far.one.exchange])
        self.assertFalse(self.ingress.cache.fetches)


class LeftoverTests(CachingCase):
    @inlineCallbacks
    def test_what_comes_twice_is_no_reason_to_cancel(self) -> Test:
        self.answers(*FRESH)
        yield self.get()
        self.far.one.answer(headers=FRESH)
        yield self.until(lambda: self.ingress.counters()["stray_parts"])
        self.answers()
        yield self.get(b"/svc/demo/other")
        self.assertEqual(self.far.cancels, [])


class StreamingTests(CachingCase):
    """Responses that come in parts."""

    @inlineCallbacks
    def begin(self, length: int | None, *fields: Any) -> Any:
        """A caller, and the writer of the response to it, whose head is on its way."""
        caller = self.connect()
        caller.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        yield self.until(lambda: self.far.requests and self.last.complete)
        writer = self.last.writer()
        self.far.send(writer.head(ResponseHead(200, b"Fine", fields, length), flush=True))
        return caller, writer

    @inlineCallbacks
    def test_it_arrives_as_it_comes_and_who_asks_meanwhile_gets_all_of_it(self) -> Test:
        caller, writer = yield self.begin(None, *FRESH)
        pieces = [os.urandom(100_000) for _ in range(3)]
        self.far.send(writer.data(pieces[0], flush=True))
        got = b""
        while pieces[0][-1000:] not in got:
            got += yield deferToThread(caller.recv, 1 << 18)
        late = self.get()
        yield self.until(lambda: self.ingress.counters()["cache_collapsed"])
        for piece in pieces[1:]:
            self.far.send(writer.data(piece, flush=True))
        self.far.send(writer.end())
        response = yield late
        self.assertEqual(response.body, b"".join(pieces))
        again = yield self.get()
        self.assertEqual((again.body, self.crossed), (b"".join(pieces), 1))

    @inlineCallbacks
    def test_what_has_no_end_is_not_stored_and_comes_to_each(self) -> Test:
        self.configure(Caching(60.0))
        caller, writer = yield self.begin(None, (b"Content-Type", b"text/event-stream"))
        self.far.send(writer.data(b"data: 1\n\n", flush=True))
        got = b""
        while b"data: 1\n\n" not in got:
            got += yield deferToThread(caller.recv, 1 << 18)
        self.leave(caller)
        yield self.until(lambda: self.far.cancels and not self.near.unconsumed())

    @inlineCallbacks
    def test_a_head_in_two_parts(self) -> Test:
        asked = self.get()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        fields = [*FRESH, *((b"X-%d" % number, b"x" * 1000) for number in range(100))]
        self.far.one.answer(headers=fields, body=b"content")
        response = yield asked
        self.assertEqual((response.status, response.body), (200, b"content"))
        self.assertEqual(self.ingress.counters()["cache_entries"], 0)

    @inlineCallbacks
    def test_one_that_outgrows_the_cache_goes_on_but_is_not_stored(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, cache=1 << 20))
        caller, writer = yield self.begin(None, *FRESH)
        piece, total = os.urandom(1 << 19), 0
        got = bytearray()
        for _ in range(6):
            self.far.send(writer.data(piece, flush=True))
            total += len(piece)
            while len(got) < total:
                got += yield deferToThread(caller.recv, 1 << 20)
        yield self.until(lambda: self.near.unconsumed() < 25)
        other = self.get()
        yield self.until(lambda: self.crossed == 2)
        self.far.send(writer.end())
        while data := (yield deferToThread(caller.recv, 1 << 20)):
            got += data
        self.assertTrue(Response.parse(bytes(got)).body == piece * 6)
        self.last.answer(headers=FRESH)
        yield other
        yield self.until(lambda: self.near.unconsumed() == 1)

    @inlineCallbacks
    def test_one_that_outgrows_it_comes_no_faster_than_it_is_read(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, cache=1 << 20))
        caller, writer = yield self.begin(None, *FRESH)
        for _ in range(20):
            self.far.send(writer.data(bytes(1 << 20), flush=True))
        yield self.until(lambda: self.ingress.cache.fetches and not self.ingress.cache._joinable)
        self.assertLessEqual(self.last.credit, WINDOW + (1 << 20))
        self.leave(caller)
        yield self.until(lambda: self.far.cancels and not self.near.unconsumed())

    @inlineCallbacks
    def test_one_that_outgrows_it_and_that_nobody_reads_is_given_up(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, cache=1 << 20))
        response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.1")
        self.assertEqual(response.status, 504)
        writer = self.far.one.writer()
        self.far.send(writer.head(ResponseHead(200, b"Fine", FRESH, None), flush=True))
        self.far.send(writer.data(bytes(1 << 20), flush=True))
        yield self.until(lambda: self.far.cancels and not self.near.unconsumed())
        self.assertFalse(self.ingress.cache.fetches)

    @inlineCallbacks
    def test_one_that_breaks_off_is_cut_and_not_stored(self) -> Test:
        caller, writer = yield self.begin(300_000, *FRESH)
        self.far.send(writer.data(bytes(100_000), flush=True))
        yield self.until(lambda: self.ingress.cache.fetches)
        yield deferToThread(caller.recv, 1000)
        self.last.abort(connection_refused("http://service.example:81"))
        with self.assertRaises(ConnectionResetError):
            while (yield deferToThread(caller.recv, 1 << 18)):
                pass
        self.assertEqual(self.ingress.counters()["cache_entries"], 0)
        yield self.until(lambda: not self.near.unconsumed())

    @inlineCallbacks
    def test_a_head_that_has_no_room_for_a_date(self) -> Test:
        fields = [*FRESH, *((b"X-%d" % number, b"x") for number in range(999))]
        self.far.then = lambda request: request.answer(headers=fields, body=b"content")
        response = yield self.get()
        self.assertEqual((response.status, response.body), (200, b"content"))
        self.assertEqual(self.ingress.counters()["cache_entries"], 0)

    @inlineCallbacks
    def test_a_caller_whose_deadline_passes_meanwhile_is_cut_off_and_it_is_stored(self) -> Test:
        caller, writer = yield self.begin(200_000, *FRESH)
        self.far.send(writer.data(bytes(100_000), flush=True))
        yield deferToThread(caller.recv, 1000)
        [call] = self.ingress.cache.calls
        call.due = 0.0
        self.ingress.tick()
        with self.assertRaises(ConnectionResetError):
            while (yield deferToThread(caller.recv, 1 << 18)):
                pass
        self.far.send(writer.data(bytes(100_000)) + writer.end())
        yield self.until(lambda: self.ingress.counters()["cache_stored"])
        response = yield self.get()
        self.assertEqual((len(response.body), self.crossed), (200_000, 1))

    @inlineCallbacks
    def test_a_slow_caller_holds_up_nobody_else_and_gets_all_of_it(self) -> Test:
        """Although it is purged, its deadline passes, and the node stops."""
        body = os.urandom(8 << 20)
        self.far.then = lambda request: request.answer(headers=FRESH, body=body)
        slow = self.connect()
        slow.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        yield self.until(lambda: self.ingress.counters()["cache_stored"])
        response = yield self.get()
        self.assertTrue(response.body == body)
        self.assertEqual(self.ingress.cache.purge(None).purged, 1)
        [call] = self.ingress.cache.calls
        call.due = 0.0
        restarting = self.restart()
        yield self.until(lambda: self.ingress.factory.stopping)
        self.ingress.tick()
        got = bytearray()
        while data := (yield deferToThread(slow.recv, 1 << 20)):
            got += data
        self.assertTrue(Response.parse(bytes(got)).body == body)
        self.assertEqual(self.crossed, 1)
        yield restarting
        yield self.until(lambda: not self.near.unconsumed())
