"""What is told of calls that have ended."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from hoft.web.history import MAX_URL, REMEMBERED, Ended, History, Logged, line_of, redacted, trace_of

CALL = Ended(
    side="ingress",
    id=bytes(range(16)),
    peer="far",
    caller="shop",
    route="stock",
    method=b"GET",
    url=b"/svc/stock/items?key=canary",
    outcome="answered",
    status=200,
    problem=None,
    request_size=0,
    response_size=512,
    seconds=0.0124,
    executing=0.004,
)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def lines(self, logged: Logged, *calls: Ended) -> list[str]:
        """What the log says of these."""
        history = History(logged)
        for call in calls:
            history.add(call)
        return [formatEvent(event) for event in self.events if "line" in event]

    def test_all_of_a_call_in_one_line(self) -> None:
        self.assertEqual(
            line_of(CALL, TRACE),
            "Call 000102030405060708090a0b0c0d0e0f: ingress GET /svc/stock/items?... 200 peer=far caller=shop"
            f" route=stock request=0 response=512 seconds=0.012 executing=0.004 trace={TRACE}",
        )

    def test_what_is_not_known_is_left_out(self) -> None:
        gone = evolve(CALL, caller=None, route=None, status=0, outcome="callers_gone", executing=None)
        self.assertEqual(
            line_of(gone, None),
            "Call 000102030405060708090a0b0c0d0e0f: ingress GET /svc/stock/items?... callers_gone peer=far"
            " request=0 response=512 seconds=0.012",
        )

    def test_the_log_is_told_of_those_that_did_not_go_well(self) -> None:
        ill = [
            evolve(CALL, status=502),
            evolve(CALL, status=0, outcome="callers_gone"),
            evolve(CALL, outcome="cut", problem="outcome-unknown"),
        ]
        well = [CALL, evolve(CALL, status=404)]
        self.assertEqual(self.lines(Logged.PROBLEMS, *well, *ill), [line_of(one, None) for one in ill])

    def test_the_log_may_be_told_of_all_or_none(self) -> None:
        self.assertEqual(self.lines(Logged.NONE, evolve(CALL, status=502)), [])
        self.assertEqual(self.lines(Logged.ALL, CALL), [line_of(CALL, None)])

    def test_braces_of_a_url_are_only_braces(self) -> None:
        [line] = self.lines(Logged.ALL, evolve(CALL, url=b"/svc/{line}/{0}"))
        self.assertIn(" /svc/{line}/{0} ", line)


class RedactionTests(SynchronousTestCase):
    def test_what_may_be_secret_is_not_shown(self) -> None:
        for url, shown in (
            (b"/svc/a/b", "/svc/a/b"),
            (b"/svc/a?token=canary&x=/b@c", "/svc/a?..."),
            (b"/svc/a?", "/svc/a?..."),
            (b"http://user:canary@h:81/a?canary", "http://h:81/a?..."),
            (b"https://canary@h", "https://h"),
            (b"http://h/@b", "http://h/@b"),
            (b"/a;session=canary/b;canary?c", "/a;.../b;...?..."),
            (b"user:canary@h:443", "h:443"),
            (b"/to/http/user:canary@h:81/a", "/to/http/h:81/a"),
            (b"/to/https/canary@h/b@c", "/to/https/h/b@c"),
            (b"/to/http/user%3Acanary%40h/a", "/to/http/h/a"),
            (b"/to/http/user:can@canary@[::1]:81/a", "/to/http/[::1]:81/a"),
            (b"/to/http://user:canary@h/", "/to/http://h/"),
            (b"/to/canary@h/", "/to/h/"),
            (b"/user:canary@h/", "/h/"),
            (b"//user:canary@h/x", "//h/x"),
            (b"/svc/a/http://canary@h/x", "/svc/a/http://h/x"),
            (b"/svc/a/user:canary@h;canary", "/svc/a/h;..."),
            # A password with what ends the place of the host: no URL, but somebody's secret.
            (b"http://user:canary/canary:@h/x", "http://.../h/x"),
            (b"http://user:can?ary@h/x", "http://...?..."),
            (b"/to/http/user:canary#@h", "/to/http/..."),
            (b"user:canary/x@h:443", ".../x@h:443"),
            (b"/to/http/user%253Acanary%2540h/", "/to/http/.../"),
            (b"/svc/a//b@c", "/svc/a//b@c"),
            (b"/a#canary", "/a"),
            (b"*", "*"),
            (b"/\xff", "/\ufffd"),
        ):
            self.assertEqual(redacted(url), shown)

    def test_it_takes_no_longer_for_what_somebody_thought_up(self) -> None:
        """A backtracking expression would take hours."""
        for url in (b"/" + b":" * 60_000, b"//" * 30_000, b"@" * 60_000, b"/to/http/" + b"%40" * 20_000):
            redacted(url)


class TraceTests(SynchronousTestCase):
    def test_the_trace_id_of_a_proper_traceparent(self) -> None:
        good = f"00-{TRACE}-00f067aa0ba902b7-01".encode()
        self.assertEqual(trace_of([(b"Host", b"h"), (b"TraceParent", good)]), TRACE)
        for values in ([], [good, good], [b"canary"], [good + b"\n"], [good.upper()]):
            self.assertIs(trace_of([(b"traceparent", value) for value in values]), None)


class RingTests(SynchronousTestCase):
    def test_the_latest_are_remembered_and_no_more(self) -> None:
        history = History(Logged.NONE)
        for number in range(REMEMBERED + 5):
            history.add(evolve(CALL, request_size=number, url=bytes(MAX_URL + number % 2)))
        found = list(history)
        self.assertEqual([one.request_size for one in found], list(range(REMEMBERED + 4, 4, -1)))
        self.assertEqual({len(one.url) for one in found}, {MAX_URL})

    def test_as_json(self) -> None:
        history = History(Logged.NONE)
        history.add(CALL)
        [one] = [call.as_json() for call in history]
        self.assertEqual((one["id"], one["url"]), (CALL.id.hex(), "/svc/stock/items?..."))
        self.assertNotIn("canary", str(one))
