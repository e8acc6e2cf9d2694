"""
What a shared cache may do, case by case: RFC 9111 and RFC 5861.
"""

from __future__ import annotations

from functools import partial
from math import inf

from twisted.trial.unittest import SynchronousTestCase

from hoft.config import Caching
from hoft.web.http.heads import Fields, ResponseHead
from hoft.web.http.preferences import wish
from hoft.web.http.targets import Mount, parse_url
from hoft.web.ingress.caching.fields import age, directives, http_date, seconds, tags
from hoft.web.ingress.caching.keys import MAX_VARY, partition, referred, url_of, variant, varying
from hoft.web.ingress.caching.policy import (
    Asked,
    Stored,
    Use,
    conditional,
    confirms,
    freshened,
    judge,
    not_modified,
    shareable,
    storable,
    unchanged,
    usable_on_error,
)
from tests.effort import least_seconds

NOW = 1_800_000_000.0
DATE = b"Fri, 15 Jan 2027 08:00:00 GMT"
"""The same, as HTTP says it."""
LATER = b"Fri, 15 Jan 2027 08:01:00 GMT"
EARLIER = b"Fri, 15 Jan 2027 07:59:00 GMT"
PLAIN = Caching()


def fields(*lines: str) -> Fields:
    """Of C{"Name: value"} each."""
    pairs = (line.partition(":") for line in lines)
    return [(name.encode(), value.strip().encode()) for name, _, value in pairs]


def asked(*lines: str, method: bytes = b"GET", body: bool = False) -> Asked:
    return Asked.of(method, fields(*lines), body)


def response(*lines: str, status: int = 200) -> ResponseHead:
    return ResponseHead(status, b"", fields(*lines), 7)


def stored(*lines: str, status: int = 200, delay: float = 0.0) -> Stored:
    """As it came at L{NOW}, C{delay} seconds after it was asked for."""
    return Stored.of(response(*lines, status=status), NOW - delay, NOW)


class FieldTests(SynchronousTestCase):
    def test_dates_in_all_three_forms(self) -> None:
        for text in (
            DATE,
            b"fri, 15 jan 2027 08:00:00 gmt",
            b"Friday, 15-Jan-27 08:00:00 GMT",
            b"Fri Jan 15 08:00:00 2027",
        ):
            self.assertEqual(http_date(text), NOW, text)
        self.assertEqual(http_date(b"Sun Nov  6 08:49:37 1994"), 784111777.0)
        self.assertEqual(http_date(b"Sunday, 06-Nov-94 08:49:37 GMT"), 784111777.0)

    def test_what_is_no_date(self) -> None:
        for text in (
            b"0",
            b"",
            b"Fri, 15 Jan 2027 08:00:00 UTC",
            b"Fri, 15 Jan 2027 08:00:00 +0000",
            b"Fri, 15 Jan 27 08:00:00 GMT",
            b"Fri 15 Jan 2027 08:00:00 GMT",
            b"Fri,  15 Jan 2027  08:00:00 GMT",
            b"Fri, 15-Jan-2027 08:00:00 GMT",
            b"Fri, 15 Jan 2027 08.00.00 GMT",
            b"Fri, 15 Jan 2027 8:00:00 GMT",
            b"Fri, 31 Feb 2027 08:00:00 GMT",
            b"Fri, 15 Jan 0000 08:00:00 GMT",
        ):
            self.assertIsNone(http_date(text), text)

    def test_delta_seconds(self) -> None:
        for text, value in ((b"0", 0.0), (b"003600", 3600.0), (b"99999999999", float(1 << 31))):
            self.assertEqual(seconds(text), value)
        for other in (None, b"", b"-1", b"3600.0", b"a3600", b"3600a", b"'3600'", b"9" * 100):
            self.assertIsNone(seconds(other), other)

    def test_cache_control(self) -> None:
        for value, found in (
            ("max-age=3600", {b"max-age": b"3600"}),
            ("MaX-AgE=1, nO-StOrE", {b"max-age": b"1", b"no-store": None}),
            ('max-age="60"', {b"max-age": b"60"}),
            ("max-age=1, max-age=2", {b"max-age": b"1"}),
            ('x="a, max-age=9", max-age=1', {b"x": b"a, max-age=9", b"max-age": b"1"}),
            ("max-age =60", {b"max-age": None}),
            ("max-age= 60", {b"max-age": None}),
            ("max-age=6;0", {b"max-age": None}),
            (",, no-cache ,", {b"no-cache": None}),
            ("", {}),
            ("max-age=60" + " " * 2000, {b"no-store": None}),
        ):
            self.assertEqual(directives([(b"Cache-Control", value.encode())]), found, value)
        both = fields("Cache-Control: max-age=1", "cache-control: max-age=2, public")
        self.assertEqual(directives(both), {b"max-age": b"1", b"public": None})

    def test_hostile_values_take_no_time(self) -> None:
        def read(value: bytes) -> None:
            directives([(b"Cache-Control", value)])
            wish([(b"Prefer", value)], False)

        # Each byte more of the short ones doubles what a pattern takes that goes back: here it is seconds.
        short = b"a=" + b"b" * 25 + b'"', b'a="' + b"\\x" * 25, b'a="' + b"b" * 25
        for value in (*short, b'"' * 1024, b'\\"' * 512, b'a="' + b"," * 1000, b"a" * 1023 + b'"'):
            self.assertLess(least_seconds(partial(read, value), 2), 0.5, "all else waits meanwhile")

    def test_age_is_the_first_of_several(self) -> None:
        for lines, value in (
            (["Age: 10"], 10.0),
            (["Age: 7200, 0"], 7200.0),
            (["Age: 0", "Age: 7200"], 0.0),
            (["Age: -1"], 0.0),
            (["Age: 1.5"], 0.0),
            (["Age: 7;x=1"], 0.0),
            ([], 0.0),
        ):
            self.assertEqual(age(fields(*lines)), value, lines)

    def test_entity_tags(self) -> None:
        for lines, found in (
            (['If-None-Match: "a"'], [b'"a"']),
            (['If-None-Match: W/"a", "b,c"', 'If-None-Match: "d"'], [b'"a"', b'"b,c"', b'"d"']),
            (["If-None-Match: *"], [b"*"]),
            (["If-None-Match: a"], []),
            ([], None),
        ):
            self.assertEqual(tags(fields(*lines), b"if-none-match"), found, lines)


class StoringTests(SynchronousTestCase):
    """RFC 9111 section 3."""

    def check(self, head: ResponseHead, may: bool, *lines: str, caching: Caching = PLAIN) -> None:
        self.assertIs(storable(asked(*lines), head, caching), may, (head, lines))

    def test_what_says_how_long_it_is_fresh(self) -> None:
        for line in (
            "Cache-Control: max-age=60",
            "Cache-Control: s-maxage=60",
            f"Expires: {LATER.decode()}",
            "Cache-Control: max-age=60, must-revalidate",
            "Cache-Control: max-age=60, x-unknown=1",
        ):
            self.check(response(line, f"Date: {DATE.decode()}"), True)

    def test_what_can_be_asked_about(self) -> None:
        self.check(response('ETag: "1"'), True)
        self.check(response(f"Last-Modified: {EARLIER.decode()}"), True)
        self.check(response("Cache-Control: no-cache", 'ETag: "1"'), True)

    def test_what_would_be_of_no_use(self) -> None:
        for lines in (
            [],
            ["Cache-Control: max-age=0"],
            ["Cache-Control: no-cache, max-age=60"],
            ["Expires: 0"],
            ["Last-Modified: yesterday"],
            ["Cache-Control: public"],
        ):
            self.check(response(*lines), False)

    def test_no_store_and_private(self) -> None:
        for line in ("no-store, max-age=60", "private, max-age=60", 'private="x", max-age=60'):
            self.check(response(f"Cache-Control: {line}"), False)
            self.check(
                response(f"Cache-Control: {line}"), False, caching=Caching(60.0, override=True, shared=True)
            )

    def test_must_understand(self) -> None:
        line = "Cache-Control: no-store, must-understand, max-age=60"
        self.check(response(line), True)
        self.check(response(line, status=299), False)

    def test_statuses(self) -> None:
        for status in (200, 203, 204, 301, 404, 410, 501, 302, 307, 403, 503):
            self.check(response("Cache-Control: max-age=60", status=status), True)
        for status in (206, 304, 299, 599, 999):
            self.check(response("Cache-Control: max-age=60", status=status), False)

    def test_a_ttl_of_the_route_is_for_what_may_be_stored_without_a_word(self) -> None:
        ttl = Caching(60.0)
        for status in (200, 203, 204, 300, 301, 308, 404, 410):
            self.check(response(status=status), True, caching=ttl)
        for status in (201, 202, 302, 307, 400, 403, 500, 502, 503):
            self.check(response(status=status), False, caching=ttl)

    def test_authorization(self) -> None:
        for line, may in (
            ("max-age=60", False),
            ("max-age=60, public", True),
            ("max-age=60, must-revalidate", True),
            ("s-maxage=60", True),
        ):
            self.check(response(f"Cache-Control: {line}"), may, "Authorization: Basic eA==")

    def test_cookies(self) -> None:
        self.check(response("Cache-Control: max-age=60", "Set-Cookie: a=b"), False)
        self.check(response("Cache-Control: max-age=60, public", "Set-Cookie: a=b"), True)
        self.check(response("Cache-Control: max-age=60"), True, "Cookie: a=b")
        self.check(response(), False, "Cookie: a=b", caching=Caching(60.0))
        self.check(response('ETag: "1"'), False, "Cookie: a=b")

    def test_vary(self) -> None:
        fresh = "Cache-Control: max-age=60"
        for value in ("*", "*, *", ", *", "Foo, *"):
            self.check(response(fresh, f"Vary: {value}"), False)
        self.check(response(fresh, "Vary: Foo", "Vary: *"), False)
        self.check(response(fresh, "Vary: Accept"), True)
        many = ", ".join(f"X-{number}" for number in range(MAX_VARY + 1))
        self.check(response(fresh, f"Vary: {many}"), False)

    def test_what_has_no_end(self) -> None:
        endless = response("Content-Type: text/event-stream; charset=utf-8")
        self.check(endless, False, caching=Caching(60.0, override=True))

    def test_what_is_better_than_an_error(self) -> None:
        self.check(response(), True, caching=Caching(stale_if_error=60.0))
        self.check(response("Cache-Control: max-age=0, stale-if-error=60"), True)


class FreshnessTests(SynchronousTestCase):
    """RFC 9111 section 4.2."""

    def left(self, *lines: str, caching: Caching = PLAIN, delay: float = 0.0) -> float:
        return stored(*lines, delay=delay).left(caching, NOW)

    def test_lifetimes(self) -> None:
        date = f"Date: {DATE.decode()}"
        for lines, left in (
            (["Cache-Control: max-age=60"], 60),
            (["Cache-Control: s-maxage=30, max-age=60"], 30),
            (["Cache-Control: s-maxage=60, max-age=0"], 60),
            (["Cache-Control: max-age=60", "Expires: 0"], 60),
            (["Cache-Control: max-age=0", f"Expires: {LATER.decode()}"], 0),
            (["Cache-Control: max-age=-5"], 0),
            (["Cache-Control: max-age=99999999999"], 1 << 31),
            ([f"Expires: {LATER.decode()}", date], 60),
            ([f"Expires: {EARLIER.decode()}", date], 0),
            ([f"Expires: {DATE.decode()}", date], 0),
            ([f"Expires: {LATER.decode()}", f"Expires: {LATER.decode()}", date], 0),
            ([f"Expires: {LATER.decode()}", "Date: nonsense"], 60),
            ([f"Last-Modified: {EARLIER.decode()}"], 0),
        ):
            self.assertEqual(self.left(*lines), left, lines)

    def test_age_counts(self) -> None:
        for lines, delay, left in (
            (["Age: 40"], 0.0, 20),
            (["Age: 7200"], 0.0, 60 - 7200),
            ([f"Date: {EARLIER.decode()}"], 0.0, 0),
            ([f"Date: {LATER.decode()}"], 0.0, 60),
            ([], 50.0, 10),
            (["Age: 40"], 50.0, -30),
            ([f"Date: {EARLIER.decode()}"], 50.0, 0),
        ):
            self.assertEqual(self.left("Cache-Control: max-age=60", *lines, delay=delay), left, lines)

    def test_a_ttl_counts_from_when_it_is_here(self) -> None:
        silent = stored("Age: 500", delay=1000.0)
        self.assertEqual(silent.left(Caching(60.0), NOW + 20), 40)
        self.assertEqual(silent.age(NOW + 20), 1520)
        spoken = stored("Cache-Control: max-age=10")
        self.assertEqual(spoken.left(Caching(60.0), NOW), 10)
        self.assertEqual(spoken.left(Caching(60.0, override=True), NOW), 60)

    def test_a_clock_that_was_set_back(self) -> None:
        self.assertEqual(stored("Cache-Control: max-age=60").left(PLAIN, NOW - 5), 60)
        self.assertEqual(stored("Cache-Control: max-age=60").left(PLAIN, NOW - 3600), -inf)


class UsingTests(SynchronousTestCase):
    """RFC 9111 section 4 and 5.2.1: a response that was fresh for 60 s, at some age."""

    def check(
        self, use: Use, at: float, *lines: str, said: str = "max-age=60", caching: Caching = PLAIN
    ) -> None:
        one = stored(f"Cache-Control: {said}")
        self.assertIs(judge(one, asked(*lines), caching, NOW + at), use, (at, lines, said))

    def test_fresh_until_it_is_not(self) -> None:
        self.check(Use.FRESH, 0)
        self.check(Use.FRESH, 59)
        self.check(Use.CHECK, 60)

    def test_directives_of_requests(self) -> None:
        for use, at, line in (
            (Use.CHECK, 0, "no-cache"),
            (Use.CHECK, 0, "max-age=0"),
            (Use.FRESH, 10, "max-age=10"),
            (Use.CHECK, 11, "max-age=10"),
            (Use.FRESH, 30, "min-fresh=30"),
            (Use.CHECK, 31, "min-fresh=30"),
            (Use.STALE, 70, "max-stale=10"),
            (Use.CHECK, 71, "max-stale=10"),
            (Use.STALE, 7000, "max-stale"),
            (Use.CHECK, 70, "max-stale=x"),
            (Use.CHECK, 70, "max-stale, min-fresh=1"),
            (Use.FRESH, 0, "only-if-cached"),
        ):
            self.check(use, at, f"Cache-Control: {line}")
        self.check(Use.CHECK, 0, "Pragma: no-cache")
        self.check(Use.FRESH, 0, "Pragma: no-cache", "Cache-Control: max-age=60")
        self.check(Use.FRESH, 0, "Pragma: unknown")

    def test_directives_of_responses(self) -> None:
        for use, at, said in (
            (Use.CHECK, 0, "max-age=60, no-cache"),
            (Use.CHECK, 0, 'max-age=60, no-cache="x"'),
            (Use.FRESH, 0, "max-age=60, must-revalidate"),
            (Use.FRESH, 0, "max-age=60, immutable"),
            (Use.CHECK, 60, "max-age=60, immutable"),
        ):
            self.check(use, at, said=said)
        for said in ("must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=60"):
            self.check(Use.CHECK, 70, "Cache-Control: max-stale", said=f"max-age=60, {said}")
        self.assertIs(
            judge(stored("Pragma: no-cache", f"Expires: {LATER.decode()}"), asked(), PLAIN, NOW), Use.CHECK
        )

    def test_stale_while_revalidate(self) -> None:
        said = "max-age=60, stale-while-revalidate=20"
        self.check(Use.REFRESH, 70, said=said)
        self.check(Use.CHECK, 81, said=said)
        self.check(Use.CHECK, 70, said=f"{said}, must-revalidate")

    def test_an_operator_who_overrides(self) -> None:
        said, caching = "max-age=1, no-cache, must-revalidate", Caching(60.0, override=True)
        self.check(Use.FRESH, 59, said=said, caching=caching)
        self.check(Use.CHECK, 60, said=said, caching=caching)
        self.check(Use.CHECK, 0, "Cache-Control: no-cache", said=said, caching=caching)

    def test_cookies_need_the_word_of_the_service(self) -> None:
        caching = Caching(60.0)
        self.assertIs(judge(stored(), asked(), caching, NOW), Use.FRESH)
        self.assertIs(judge(stored(), asked("Cookie: a=b"), caching, NOW), Use.CHECK)
        self.assertFalse(usable_on_error(stored(), asked("Cookie: a=b"), caching, NOW))
        self.check(Use.FRESH, 0, "Cookie: a=b")

    def test_what_caches_have_no_part_in(self) -> None:
        for reason, method, body, lines in (
            (None, b"GET", False, []),
            (None, b"HEAD", False, []),
            ("method", b"POST", True, []),
            ("method", b"get", False, []),
            ("bypass", b"GET", True, []),
            ("bypass", b"GET", False, ["Range: bytes=0-1"]),
            ("bypass", b"GET", False, ['If-Match: "a"']),
            ("bypass", b"GET", False, ["Cache-Control: no-store"]),
        ):
            self.assertEqual(asked(*lines, method=method, body=body).reason, reason, (method, lines))

    def test_who_waited_may_have_what_became_stale_on_its_way(self) -> None:
        late = stored("Cache-Control: max-age=60", delay=100.0)
        self.assertIs(judge(late, asked(), PLAIN, NOW), Use.CHECK)
        self.assertTrue(shareable(late, asked(), PLAIN))
        self.assertTrue(shareable(stored('ETag: "1"'), asked(), PLAIN), "nobody says how long it is fresh")
        self.assertFalse(shareable(stored('ETag: "1"'), asked("Cookie: a=b"), PLAIN))
        self.assertFalse(shareable(stored("Cache-Control: no-cache"), asked(), PLAIN))
        for line in ("max-age=0", "no-cache, max-age=60", "max-age=60"):
            old = stored(f"Cache-Control: {line}", "Age: 60", delay=100.0)
            self.assertFalse(shareable(old, asked(), PLAIN), line)

    def test_stale_if_error(self) -> None:
        for may, at, said, line, caching in (
            (True, 70, "max-age=60, stale-if-error=10", "", PLAIN),
            (False, 71, "max-age=60, stale-if-error=10", "", PLAIN),
            (False, 70, "max-age=60", "", PLAIN),
            (True, 70, "max-age=60", "", Caching(stale_if_error=10.0)),
            (True, 70, "max-age=60", "stale-if-error=10", PLAIN),
            (False, 70, "max-age=60, stale-if-error=60", "stale-if-error=5", PLAIN),
            (False, 70, "max-age=60, stale-if-error=60", "no-cache", PLAIN),
            (False, 70, "max-age=60, stale-if-error=60, must-revalidate", "", PLAIN),
            (False, 70, "s-maxage=60, stale-if-error=60", "", Caching(stale_if_error=60.0)),
            (True, 70, "max-age=0, no-cache", "", Caching(60.0, True, False, 60.0)),
        ):
            request = asked(f"Cache-Control: {line}")
            one = stored(f"Cache-Control: {said}")
            self.assertIs(usable_on_error(one, request, caching, NOW + at), may, (at, said, line))


class ConditionTests(SynchronousTestCase):
    """RFC 9110 section 13, RFC 9111 section 4.3."""

    def test_conditions_of_callers(self) -> None:
        both = [f"Last-Modified: {DATE.decode()}", 'ETag: W/"a"']
        for same, lines, request in (
            (True, both, ['If-None-Match: "a"']),
            (True, both, ['If-None-Match: "b", W/"a"']),
            (True, both, ["If-None-Match: *"]),
            (False, both, ['If-None-Match: "b"']),
            (False, both, ['If-None-Match: "b"', f"If-Modified-Since: {LATER.decode()}"]),
            (True, both, [f"If-Modified-Since: {DATE.decode()}"]),
            (True, both, ["If-Modified-Since: Friday, 15-Jan-27 08:00:00 GMT"]),
            (False, both, [f"If-Modified-Since: {EARLIER.decode()}"]),
            (False, both, ["If-Modified-Since: nonsense"]),
            (False, both, []),
            (False, [], ['If-None-Match: "a"']),
            (True, [f"Date: {DATE.decode()}"], [f"If-Modified-Since: {LATER.decode()}"]),
        ):
            self.assertIs(unchanged(stored(*lines), asked(*request)), same, (lines, request))
        self.assertFalse(unchanged(stored('ETag: "a"', status=404), asked('If-None-Match: "a"')))

    def test_what_goes_on_asks_for_what_is_not_stored(self) -> None:
        request = fields("A: 1", 'If-None-Match: "caller"', f"If-Modified-Since: {DATE.decode()}")
        self.assertEqual(conditional(request, None), fields("A: 1"))
        one = stored('ETag: W/"ours"', f"Last-Modified: {EARLIER.decode()}")
        wanted = fields("A: 1", 'If-None-Match: W/"ours"', f"If-Modified-Since: {EARLIER.decode()}")
        self.assertEqual(conditional(request, one), wanted)

    def test_what_a_304_changes(self) -> None:
        old = response("Cache-Control: max-age=1", "Content-Type: text/a", "X: 1", "X: 2", "Age: 9", "Y: 1")
        new = response(
            "Cache-Control: max-age=9", "Content-Type: text/b", "Content-Length: 0", "x: 3", status=304
        )
        fresh = freshened(old, new)
        self.assertEqual(
            list(fresh.headers), fields("Content-Type: text/a", "Y: 1", "Cache-Control: max-age=9", "x: 3")
        )
        self.assertEqual((fresh.status, fresh.length), (200, 7))

    def test_a_304_about_something_else(self) -> None:
        one = stored('ETag: "a"')
        for lines, about in (([], True), (['ETag: W/"a"'], True), (['ETag: "b"'], False)):
            self.assertIs(confirms(response(*lines, status=304), one), about, lines)

    def test_a_304_of_ours(self) -> None:
        given = fields(
            "ETag: 1", "Content-Type: a", "Content-Length: 7", "Set-Cookie: a=b", "Vary: A", "Date: x"
        )
        self.assertEqual(not_modified(given), fields("ETag: 1", "Vary: A", "Date: x"))


class KeyTests(SynchronousTestCase):
    mount = Mount.parse("stock", "http://stock.example/api")

    def test_urls_have_one_form(self) -> None:
        for url in ("http://Stock.example/api/a?b", "http://u:p@stock.example:80/api/a?b"):
            self.assertEqual(url_of(parse_url(url)), b"http://stock.example:80/api/a?b")

    def test_what_requests_say_in_the_fields_that_select(self) -> None:
        names = varying(fields("Vary: Accept, X-A", "Vary: accept"))
        self.assertEqual(names, [b"accept", b"x-a"])

        def chosen(*lines: str) -> bytes:
            return variant(names, fields(*lines))

        one = chosen("Accept: a, b", "X-A: 1")
        for same in (["Accept: a,b", "X-A: 1"], ["X-A: 1", "Accept: a", "accept: b", "Else: 1"]):
            self.assertEqual(chosen(*same), one, same)
        for other in (["Accept: b, a", "X-A: 1"], ["Accept: a, b"], ["Accept: a, b", "X-A: "], []):
            self.assertNotEqual(chosen(*other), one, other)

    def test_who_asks_and_under_which_name_is_part_of_the_key(self) -> None:
        peer, host = b"p" * 16, "http://gateway"
        one = partition(peer, "stock", "ann", False, [], host)
        self.assertEqual(partition(peer, "stock", "ann", False, fields("Accept: a"), host), one)
        others = [
            partition(peer, "stock", "bob", False, [], host),
            partition(peer, "stock", None, False, [], host),
            partition(peer, "stock", "ann", True, [], host),
            partition(peer, "shop", "ann", False, [], host),
            partition(b"q" * 16, "stock", "ann", False, [], host),
            partition(peer, "stock", "ann", False, [], "http://other"),
            partition(peer, "stock", "ann", False, fields("X-Forwarded-Host: evil"), host),
            partition(peer, "stock", "ann", False, fields("X-Original-URL: /admin"), host),
        ]
        self.assertEqual(len({one, *others}), len(others) + 1)
        everyone = partition(peer, "stock", "ann", True, [], host)
        self.assertEqual(partition(peer, "stock", "bob", True, [], host), everyone)

    def test_what_location_means(self) -> None:
        here = b"http://stock.example:80/api/items/1"
        for value, found in (
            (b"/api/items/2", b"http://stock.example:80/api/items/2"),
            (b"2?x#y", b"http://stock.example:80/api/items/2?x"),
            (b"http://stock.example/api", b"http://stock.example:80/api"),
            (b"/svc/stock/items/2", b"http://stock.example:80/api/items/2"),
            (b"/svc/stock", b"http://stock.example:80/api"),
            (b"https://stock.example/api", None),
            (b"http://other.example/api", None),
            (b"http://stock.example:x/", None),
            (b"mailto:a@b", None),
            (b"\xff", None),
        ):
            self.assertEqual(referred(self.mount, here, value), found, value)
