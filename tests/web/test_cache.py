"""
Calls at a route with a cache: what is answered with what is stored, for whom, and until when.
"""

from __future__ import annotations

import os

from attrs import evolve
from twisted.internet.defer import Deferred, inlineCallbacks

from hoft.config import Caching, Caller, Route
from hoft.errors import LocalError
from hoft.tokens import hash_token
from tests.web.caching import FRESH, CachingCase
from tests.web.callers import Response
from tests.web.listening import Test

TAG = b"ETag", b'"1"'


class HitTests(CachingCase):
    @inlineCallbacks
    def test_a_fresh_response_does_not_cross_again(self) -> Test:
        self.answers(*FRESH, (b"X-A", b"1"), (b"X-A", b"2"))
        first = yield self.get()
        self.assertEqual((first.status, first.body), (200, b"content"))
        self.assertEqual(self.told(first), '"near"; fwd=uri-miss; fwd-status=200; stored')
        self.assertEqual(first.fields(b"age"), [], "it was made for this caller")
        self.now = 20
        second = yield self.get()
        self.assertEqual((second.status, second.body), (200, b"content"))
        self.assertEqual(second.fields(b"x-a"), [b"1", b"2"])
        self.assertEqual(second.fields(b"date"), first.fields(b"date"), "when it was made")
        self.assertIn(int(second.fields(b"age")[0]), (20, 21))
        self.assertRegex(self.told(second), '^"near"; hit; ttl=(39|40)$')
        self.assertEqual(self.crossed, 1)
        counters = self.ingress.counters()
        self.assertEqual((counters["cache_hits"], counters["cache_misses"]), (1, 1))
        self.assertEqual(counters["cache_entries"], 1)

    @inlineCallbacks
    def test_without_a_cache_every_call_crosses(self) -> Test:
        self.ingress.reconfigure(
            evolve(self.routing, routes=(Route("demo", "far", "http://service.example:81/base"),))
        )
        self.answers(*FRESH)
        for _ in range(2):
            response = yield self.get()
            self.assertEqual(response.fields(b"cache-status"), [])
        self.assertEqual(self.crossed, 2)
        self.assertEqual(self.ingress.counters()["cache_entries"], 0)

    @inlineCallbacks
    def test_what_may_not_be_stored_is_not(self) -> Test:
        for fields in ([(b"Cache-Control", b"no-store")], [(b"Cache-Control", b"private, max-age=9")], []):
            self.answers(*fields)
            for _ in range(2):
                response = yield self.get()
                self.assertEqual(self.told(response), '"near"; fwd=uri-miss')
        self.assertEqual(self.crossed, 6)
        yield self.until(lambda: not self.near.unconsumed())

    @inlineCallbacks
    def test_a_large_response_is_read_from_the_journal_as_often_as_it_is_asked_for(self) -> Test:
        body = os.urandom(700_000)
        self.far.then = lambda request: request.answer(headers=FRESH, body=body, trailers=((b"X-Sum", b"7"),))
        for _ in range(3):
            response = yield self.get()
            self.assertEqual(response.body, body)
        self.assertEqual(self.crossed, 1)
        self.assertGreater(self.near.unconsumed(), 10)

    @inlineCallbacks
    def test_head_is_answered_from_get(self) -> Test:
        self.answers(*FRESH)
        missed = yield self.get(method=b"HEAD")
        self.assertEqual((missed.status, self.told(missed)), (200, '"near"; fwd=uri-miss'))
        yield self.get()
        hit = yield self.get(method=b"HEAD")
        self.assertEqual((hit.status, hit.body, hit.fields(b"content-length")), (200, b"", [b"7"]))
        self.assertEqual(self.crossed, 2)

    @inlineCallbacks
    def test_what_only_the_service_can_answer_crosses(self) -> Test:
        self.answers(*FRESH)
        yield self.get()
        for fields in (
            [b"Range: bytes=0-1"],
            [b"Cache-Control: no-store"],
            [b'If-Match: "1"'],
            [b"Prefer: respond-async, wait=5"],
        ):
            response = yield self.get(b"/svc/demo/", *fields)
            self.assertIn("fwd=bypass", self.told(response), fields)
        self.assertEqual(self.crossed, 5)

    @inlineCallbacks
    def test_only_if_cached(self) -> Test:
        response = yield self.get(b"/svc/demo/", b"Cache-Control: only-if-cached")
        self.assertEqual(response.status, 504)
        self.assertIn(b"not-stored", response.body)
        self.answers(*FRESH)
        yield self.get()
        response = yield self.get(b"/svc/demo/", b"Cache-Control: only-if-cached")
        self.assertEqual((response.status, self.crossed), (200, 1))

    @inlineCallbacks
    def test_vary(self) -> Test:
        self.far.then = lambda request: request.answer(
            headers=[*FRESH, (b"Vary", b"Accept-Language")],
            body=self.asked(request).get(b"accept-language", b"-"),
        )
        for _ in range(2):
            for language in (b"de", b"fr"):
                response = yield self.get(b"/svc/demo/", b"Accept-Language: " + language)
                self.assertEqual(response.body, language)
            response = yield self.get()
            self.assertEqual(response.body, b"-")
        self.assertEqual((self.crossed, self.ingress.counters()["cache_entries"]), (3, 3))

    @inlineCallbacks
    def test_a_query_is_part_of_the_key(self) -> Test:
        self.far.then = lambda request: request.answer(headers=FRESH, body=request.head.target)  # type: ignore[union-attr]  # it is complete
        for _ in range(2):
            for target in (b"/svc/demo/a", b"/svc/demo/a?x", b"/svc/demo/a?y", b"/svc/demo/a/"):
                response = yield self.get(target)
                self.assertEqual(response.body, b"/base" + target.removeprefix(b"/svc/demo"))
        self.assertEqual(self.crossed, 4)


class RouteTests(CachingCase):
    """What a route says of freshness."""

    @inlineCallbacks
    def test_a_ttl_where_the_service_is_silent(self) -> Test:
        self.configure(Caching(10.0))
        self.answers()
        yield self.get()
        self.now = 9
        hit = yield self.get()
        self.assertIn("hit", self.told(hit))
        self.now = 11
        yield self.get()
        self.assertEqual(self.crossed, 2)
        self.assertEqual(self.ingress.counters()["cache_entries"], 1, "the new one in place of the old one")

    @inlineCallbacks
    def test_a_ttl_that_overrides(self) -> Test:
        self.configure(Caching(10.0, override=True))
        self.answers((b"Cache-Control", b"no-cache, max-age=0"))
        for at in (0.0, 9.0):
            self.now = at
            yield self.get()
        self.assertEqual(self.crossed, 1)

    @inlineCallbacks
    def test_less_room(self) -> Test:
        self.answers(*FRESH, body=bytes(10_000))
        for number in range(5):
            yield self.get(b"/svc/demo/%d" % number)
        self.ingress.reconfigure(evolve(self.routing, cache=45_000))
        self.assertEqual(self.ingress.counters()["cache_entries"], 4)
        yield self.get(b"/svc/demo/1")
        self.assertEqual(self.crossed, 5, "the latest are left")
        yield self.get(b"/svc/demo/5")
        yield self.get(b"/svc/demo/1")
        self.assertEqual(self.crossed, 6, "the one used longest ago went")
        yield self.until(lambda: self.near.unconsumed() == 4)

    @inlineCallbacks
    def test_one_that_takes_too_much_of_it_is_not_stored(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, cache=400_000))
        body = os.urandom(200_000)
        self.far.then = lambda request: request.answer(headers=FRESH, body=body)
        for _ in range(2):
            response = yield self.get()
            self.assertEqual(response.body, body)
        self.assertEqual((self.crossed, self.ingress.counters()["cache_entries"]), (2, 0))
        yield self.until(lambda: not self.near.unconsumed())


class ValidationTests(CachingCase):
    @inlineCallbacks
    def test_a_stale_response_is_asked_about(self) -> Test:
        self.answers(*FRESH, TAG, (b"X-A", b"old"))
        yield self.get()
        self.now = 61
        self.answers(*FRESH, (b"X-A", b"new"), status=304, body=b"")
        response = yield self.get()
        self.assertEqual((response.status, response.body), (200, b"content"))
        self.assertEqual(response.fields(b"x-a"), [b"new"])
        self.assertEqual(self.told(response), '"near"; fwd=stale; fwd-status=304')
        self.assertEqual(self.asked(self.last)[b"if-none-match"], b'"1"')
        again = yield self.get()
        self.assertEqual((again.fields(b"x-a"), self.crossed), ([b"new"], 2))
        yield self.restart()
        again = yield self.get()
        self.assertEqual((again.fields(b"x-a"), self.crossed), ([b"new"], 2), "and so it is kept")

    @inlineCallbacks
    def test_a_changed_response_takes_its_place(self) -> Test:
        self.answers(*FRESH, TAG)
        yield self.get()
        self.now = 61
        self.answers(*FRESH, body=b"changed")
        for _ in range(2):
            response = yield self.get()
            self.assertEqual(response.body, b"changed")
        self.assertEqual((self.crossed, self.ingress.counters()["cache_entries"]), (2, 1))
        yield self.until(lambda: self.near.unconsumed() == 1)

    @inlineCallbacks
    def test_a_caller_who_wants_it_asked_about(self) -> Test:
        self.answers(*FRESH, TAG)
        yield self.get()
        self.answers(status=304, body=b"")
        for field in (b"Cache-Control: no-cache", b"Cache-Control: max-age=0", b"Pragma: no-cache"):
            response = yield self.get(b"/svc/demo/", field)
            self.assertEqual((response.status, response.body), (200, b"content"))
        self.assertEqual(self.crossed, 4)

    @inlineCallbacks
    def test_callers_who_have_it_already(self) -> Test:
        self.answers(*FRESH, TAG, (b"Content-Type", b"text/plain"))
        first = yield self.get(b"/svc/demo/", b'If-None-Match: "1"')
        self.assertEqual((first.status, first.body), (304, b""))
        self.assertNotIn(b"if-none-match", self.asked(self.last), "all of it was asked for")
        for tag, status in ((b'W/"1"', 304), (b"*", 304), (b'"2"', 200)):
            response = yield self.get(b"/svc/demo/", b"If-None-Match: " + tag)
            self.assertEqual(response.status, status, tag)
        [tag] = first.fields(b"etag")
        self.assertEqual((tag, first.fields(b"content-type"), self.crossed), (b'"1"', [], 1))

    @inlineCallbacks
    def test_a_304_about_something_else(self) -> Test:
        self.answers((b"Cache-Control", b"no-cache"), TAG)
        yield self.get()
        self.answers((b"ETag", b'"2"'), status=304, body=b"")
        response = yield self.get(b"/svc/demo/", b'If-None-Match: "2"')
        self.assertEqual((response.status, self.crossed), (304, 3), "it went its own way")
        self.assertEqual(self.ingress.counters()["cache_entries"], 0)


class InvalidationTests(CachingCase):
    @inlineCallbacks
    def stored(self, *targets: bytes) -> Test:
        """Let these be stored."""
        self.answers(*FRESH)
        for target in targets:
            yield self.get(target)

    @inlineCallbacks
    def test_an_unsafe_method_that_succeeds(self) -> Test:
        targets = (b"/svc/demo/a", b"/svc/demo/b", b"/svc/demo/c", b"/svc/demo/d")
        yield self.stored(*targets)
        location = (b"Location", b"/base/b"), (b"Content-Location", b"http://service.example:81/base/c")
        self.answers(*location, status=201)
        response = yield self.post(b"x", target=b"/svc/demo/a")
        self.assertEqual(self.told(response), '"near"; fwd=method')
        self.assertEqual(self.ingress.counters()["cache_invalidated"], 3)
        before = self.crossed
        yield self.stored(*targets)
        self.assertEqual(self.crossed - before, 3, "all but the last")

    @inlineCallbacks
    def test_one_that_fails_changes_nothing(self) -> Test:
        yield self.stored(b"/svc/demo/a")
        self.answers(status=500)
        yield self.post(b"x", target=b"/svc/demo/a")
        self.assertEqual(self.ingress.counters()["cache_invalidated"], 0)

    @inlineCallbacks
    def test_one_that_nobody_waits_for(self) -> Test:
        yield self.stored(b"/svc/demo/a", b"/svc/demo/b")
        self.answers((b"Location", b"b"), status=201)
        yield self.post(b"x", b"Prefer: respond-async", target=b"/svc/demo/a")
        yield self.until(lambda: self.ingress.counters()["cache_invalidated"] == 2)

    @inlineCallbacks
    def test_what_is_under_way_meanwhile_is_not_stored(self) -> Test:
        asked = self.get(b"/svc/demo/a")
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        held = self.far.one
        self.answers(status=204, body=b"")
        yield self.post(b"x", target=b"/svc/demo/a")
        held.answer(headers=FRESH, body=b"of before")
        response = yield asked
        self.assertEqual(response.body, b"of before")
        self.assertEqual(self.ingress.counters()["cache_entries"], 0)


class PurgeTests(CachingCase):
    @inlineCallbacks
    def test_all_a_route_a_url_or_all_below_one(self) -> Test:
        self.answers(*FRESH)
        for what, count in (
            ("/svc/demo/a?x", 1),
            ("http://service.example:81/base/b/c", 1),
            ("/svc/demo/b*", 2),
            ("/svc/demo/none", 0),
            ("demo", 4),
            (None, 4),
        ):
            for target in (b"a?x", b"a?y", b"b/c", b"b/d"):
                yield self.get(b"/svc/demo/" + target)
            self.assertEqual(self.ingress.cache.purge(what).purged, count, what)
        yield self.until(lambda: not self.near.unconsumed())
        yield self.restart()
        self.assertEqual(self.ingress.counters()["cache_entries"], 0)

    def test_what_is_not_there(self) -> None:
        for what in ("other", "/svc/other/a", "/_hoft/status", "ftp://a/", 7):
            self.assertRaises(LocalError, self.ingress.cache.purge, what)


class BelongingTests(CachingCase):
    """Nobody gets what another one got, unless the route says so."""

    def setUp(self) -> None:
        super().setUp()
        callers = [Caller(name, (hash_token(name.encode()),)) for name in ("ann", "bob")]
        self.routing = evolve(self.routing, callers=callers)
        self.ingress.reconfigure(self.routing)
        self.far.then = self.canary

    def canary(self, request: object) -> None:
        """Each response is another one."""
        self.last.answer(headers=FRESH, body=b"canary-%d" % self.crossed)

    def by(self, name: bytes, *fields: bytes) -> Deferred[Response]:
        return self.get(b"/svc/demo/", b"Proxy-Authorization: Bearer " + name, *fields)

    @inlineCallbacks
    def test_each_caller_has_its_own(self) -> Test:
        for _ in range(2):
            for name, body in ((b"ann", b"canary-1"), (b"bob", b"canary-2")):
                response = yield self.by(name)
                self.assertEqual(response.body, body)
        yield self.restart()
        response = yield self.by(b"bob")
        self.assertEqual(response.body, b"canary-2")

    @inlineCallbacks
    def test_also_of_what_is_under_way(self) -> Test:
        self.far.then = None
        asked = [self.by(name) for name in (b"ann", b"bob")]
        yield self.until(lambda: self.crossed == 2 and self.last.complete)
        for number, request in enumerate(self.far.requests.values()):
            request.answer(headers=FRESH, body=b"canary-%d" % number)
        bodies = set()
        for one in asked:
            response = yield one
            bodies.add(response.body)
        self.assertEqual(bodies, {b"canary-0", b"canary-1"})

    @inlineCallbacks
    def test_a_shared_cache(self) -> Test:
        self.configure(Caching(shared=True))
        for name in (b"ann", b"bob"):
            response = yield self.by(name)
            self.assertEqual(response.body, b"canary-1")
        private = yield self.by(b"bob", b"Authorization: Basic eDp5")
        self.assertEqual(
            private.body, b"canary-1", "a caller may bring credentials where none were asked for"
        )

    @inlineCallbacks
    def test_what_was_got_with_credentials_stays_with_who_had_them(self) -> Test:
        self.configure(Caching(60.0, override=True, shared=True))
        for number in (1, 2):
            response = yield self.by(b"ann", b"Authorization: Basic eDp5")
            self.assertEqual(response.body, b"canary-%d" % number)
        response = yield self.by(b"bob")
        self.assertEqual(response.body, b"canary-3")

    @inlineCallbacks
    def test_nobody_chooses_what_another_one_gets(self) -> Test:
        """Fields that services believe without naming them in Vary are part of the key."""
        self.configure(Caching(shared=True))
        for field in (b"X-Forwarded-Host: evil.example", b"X-Original-URL: /admin", b"Forwarded: host=evil"):
            yield self.by(b"ann", field)
        response = yield self.by(b"bob")
        self.assertEqual(response.body, b"canary-4")
