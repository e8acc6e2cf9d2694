"""
The ingress between real callers and a far side that the test scripts: where calls
go, and how heads cross.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from twisted.internet.defer import inlineCallbacks

from hoft.config import Forward, Route
from hoft.interfaces import LinkState
from hoft.web.http.heads import RequestHead, Retry
from hoft.web.ingress.routing import Routing
from tests.web.callers import IngressCase, Received
from tests.web.listening import Test


class HeadTests(IngressCase):
    def setUp(self) -> None:
        super().setUp()
        self.far.then = lambda request: request.answer(body=b"fine")

    @property
    def crossed(self) -> RequestHead:
        """The head of the only request there was."""
        head = self.far.one.head
        assert head is not None
        return head

    def field(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.crossed.headers if key.lower() == name]

    @inlineCallbacks
    def test_a_get_crosses_and_its_response_comes_back(self) -> Test:
        self.far.then = lambda request: request.answer(headers=[(b"X-Answer", b"yes")], body=b"hello")
        response = yield self.get(b"/svc/demo/a%2Fb/./c?d=%e4", b"X-Question: why")
        self.assertEqual((response.status, response.body), (200, b"hello"))
        self.assertEqual(response.fields(b"x-answer"), [b"yes"])
        self.assertEqual(response.fields(b"content-length"), [b"5"])
        head = self.crossed
        self.assertEqual(
            (head.method, head.scheme, head.host, head.port), (b"GET", "http", "service.example", 81)
        )
        self.assertEqual(head.target, b"/base/a%2Fb/./c?d=%e4")
        self.assertEqual(self.field(b"x-question"), [b"why"])
        self.assertEqual((head.length, head.deadline, head.caller), (0, 5.0, "127.0.0.1"))

    @inlineCallbacks
    def test_what_concerns_only_this_connection_does_not_cross(self) -> Test:
        yield self.get(
            b"/svc/demo/",
            b"Connection: X-Mine, keep-alive",
            b"X-Mine: 1",
            b"TE: trailers",
            b"Upgrade: h2c",
            b"Proxy-Authorization: Basic c2VjcmV0",
            b"Expect: 100-continue",
            b"Hoft-Deadline: 4.5",
            b"X-Theirs: 2",
        )
        for name in (
            b"connection",
            b"x-mine",
            b"te",
            b"upgrade",
            b"proxy-authorization",
            b"host",
            b"expect",
            b"hoft-deadline",
        ):
            self.assertEqual(self.field(name), [], name)
        self.assertEqual(self.field(b"x-theirs"), [b"2"])
        self.assertEqual(self.crossed.deadline, 4.5)

    @inlineCallbacks
    def test_the_way_is_recorded(self) -> Test:
        response = yield self.get(b"/svc/demo/", b"Via: 1.0 earlier", b"Forwarded: for=10.1.2.3")
        self.assertEqual(self.field(b"via"), [b"1.0 earlier", b"1.1 near"])
        self.assertEqual(
            self.field(b"forwarded"), [b"for=10.1.2.3", b'for=127.0.0.1;proto=http;host="gateway"']
        )
        self.assertEqual(self.field(b"x-forwarded-for"), [b"127.0.0.1"])
        self.assertEqual(response.fields(b"via"), [b"hoft/1 near"])

    @inlineCallbacks
    def test_a_request_that_was_here_before_is_refused(self) -> Test:
        response = yield self.get(b"/svc/demo/", b"Via: 1.1 near, 1.1 other")
        self.assertEqual(response.status, 502)
        self.assertIn(b"proxy_loop_detected", response.fields(b"proxy-status")[0])
        self.assertEqual(self.far.requests, {})

    @inlineCallbacks
    def test_max_forwards(self) -> Test:
        response = yield self.get(b"/svc/demo/", b"Max-Forwards: 0", method=b"OPTIONS")
        self.assertEqual((response.status, response.body), (204, b""))
        response = yield self.get(b"/svc/demo/", b"Max-Forwards: 0", method=b"TRACE")
        self.assertEqual(response.status, 501)
        self.assertEqual(self.far.requests, {})
        yield self.get(b"/svc/demo/", b"Max-Forwards: 7", method=b"OPTIONS")
        self.assertEqual(self.field(b"max-forwards"), [b"6"])

    @inlineCallbacks
    def test_what_priority_says_is_the_urgency(self) -> Test:
        yield self.get(b"/svc/demo/", b"Priority: i, u=1")
        self.assertEqual(self.crossed.urgency, 1)

    @inlineCallbacks
    def test_a_route_says_whether_its_calls_may_be_made_again(self) -> Test:
        routes = (
            Route("demo", "far", "http://a.example"),
            Route("once", "far", "http://a.example", retry="never"),
        )
        self.ingress.reconfigure(Routing(routes=routes))
        for target, retry in ((b"/svc/once/", Retry.NEVER), (b"/svc/demo/", Retry.IDEMPOTENT)):
            self.far.requests.clear()
            yield self.get(target)
            self.assertIs(self.crossed.retry, retry)

    @inlineCallbacks
    def test_cookies_stay_apart_and_in_order_and_come_back_below_the_route(self) -> Test:
        cookies = [(b"Set-Cookie", b"a=1; Path=/base/x; Domain=service.example"), (b"Set-Cookie", b"b=2")]
        self.far.then = lambda request: request.answer(
            302, headers=[cookies[0], (b"Location", b"http://service.example:81/base/next"), cookies[1]]
        )
        response = yield self.get()
        self.assertEqual(response.status, 302)
        self.assertEqual(response.fields(b"set-cookie"), [b"a=1; Path=/svc/demo/x", b"b=2"])
        self.assertEqual(response.fields(b"location"), [b"/svc/demo/next"])

    @inlineCallbacks
    def test_a_response_without_a_date_gets_one(self) -> Test:
        response = yield self.get()
        self.assertRegex(
            response.fields(b"date")[0].decode(), r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$"
        )
        self.far.then = lambda request: request.answer(headers=[(b"Date", b"Tue, 15 Nov 1994 08:12:31 GMT")])
        response = yield self.get()
        self.assertEqual(response.fields(b"date"), [b"Tue, 15 Nov 1994 08:12:31 GMT"])

    @inlineCallbacks
    def test_lengths_without_bodies(self) -> Test:
        self.far.then = lambda request: request.answer(200, length=12345)
        response = yield self.get(method=b"HEAD")
        self.assertEqual((response.fields(b"content-length"), response.body), ([b"12345"], b""))
        self.far.then = lambda request: request.answer(304, length=12345)
        response = yield self.get()
        self.assertEqual(response.fields(b"content-length"), [b"12345"])
        self.far.then = lambda request: request.answer(204, length=None)
        response = yield self.get()
        self.assertEqual(response.fields(b"content-length"), [])
        self.assertEqual(response.fields(b"transfer-encoding"), [])

    @inlineCallbacks
    def test_a_head_larger_than_a_record_crosses_in_parts(self) -> Test:
        value = b"v" * 50_000
        self.far.then = lambda request: request.answer(
            headers=[(b"A", value), (b"B", value), (b"C", value)], body=b"x"
        )
        response = yield self.get(b"/svc/demo/" + b"p" * 60_000)
        self.assertEqual(len(self.crossed.target), 60_006)
        self.assertEqual(response.fields(b"c"), [value])

    @inlineCallbacks
    def test_a_response_with_impossible_fields_is_none(self) -> Test:
        self.far.then = lambda request: request.answer(headers=[(b"X", b"a\r\nSet-Cookie: stolen=1")])
        response = yield self.get()
        self.assertEqual(response.status, 502)
        self.assertNotIn(b"stolen=1", response.head)


class TargetTests(IngressCase):
    def setUp(self) -> None:
        super().setUp()
        self.far.then = lambda request: request.answer(body=b"fine")

    def where(self, request: Received) -> tuple[str, str, int | None, bytes]:
        head = request.head
        assert head is not None
        return head.scheme, head.host, head.port, head.target

    @inlineCallbacks
    def test_generic_targets(self) -> Test:
        yield self.get(b"/to/https/User:pw@Other.example:8443/x?y")
        self.assertEqual(self.where(self.far.one), ("https", "other.example", 8443, b"/x?y"))
        assert self.far.one.head is not None
        self.assertEqual(self.far.one.head.credentials, b"User:pw")

    @inlineCallbacks
    def test_as_a_forward_proxy_whatever_host_says(self) -> Test:
        yield self.get(b"http://service.example/x?y")
        self.assertEqual(self.where(self.far.one), ("http", "service.example", None, b"/x?y"))
        assert self.far.one.head is not None
        self.assertFalse(any(b"gateway" in value for _, value in self.far.one.head.headers))

    @inlineCallbacks
    def test_connect_is_refused_cleanly_where_nothing_makes_connections(self) -> Test:
        response = yield self.get(b"service.example:443", method=b"CONNECT")
        self.assertEqual(response.status, 501)
        self.assertIn(b"near", response.fields(b"proxy-status")[0])

    @inlineCallbacks
    def test_what_leads_nowhere(self) -> Test:
        for target, status, said in (
            (b"/", 404, "/svc/NAME/"),
            (b"/elsewhere", 404, "/svc/NAME/"),
            (b"/svc/unknown/x", 404, "demo"),
            (b"/_hoft/else", 404, "/_hoft/status"),
            (b"/to/ftp/host/", 404, "http"),
            (b"ftp://host/", 400, "ftp"),
        ):
            response = yield self.get(target)
            self.assertEqual(response.status, status, target)
            self.assertEqual(response.fields(b"content-type"), [b"application/problem+json"])
            self.assertIn(said, json.loads(response.body)["detail"])
        self.assertEqual(self.far.requests, {})

    @inlineCallbacks
    def test_whom_calls_without_a_route_go_through(self) -> Test:
        self.links["other"] = self.links["far"]
        response = yield self.get(b"/to/http/a.example/")
        self.assertEqual(response.status, 502)
        self.assertIn("far, other", json.loads(response.body)["detail"])
        self.ingress.reconfigure(Routing(forwards=(Forward("*.example", "far"),)))
        response = yield self.get(b"/to/http/a.example/")
        self.assertEqual(response.status, 200)
        response = yield self.get(b"/to/http/a.test/")
        self.assertEqual(response.status, 502)
        self.ingress.reconfigure(Routing(default_peer="other"))
        response = yield self.get(b"/to/http/a.test/")
        self.assertEqual(response.status, 200)

    @inlineCallbacks
    def test_routes_change_while_running(self) -> Test:
        self.ingress.reconfigure(Routing(routes=(Route("new", "far", "https://b.example"),)))
        response = yield self.get(b"/svc/demo/")
        self.assertEqual(response.status, 404)
        yield self.get(b"/svc/new/x")
        self.assertEqual(self.where(self.far.one), ("https", "b.example", None, b"/x"))

    @inlineCallbacks
    def test_peers_that_cannot_be_reached(self) -> Test:
        for state in (LinkState.STOPPED, LinkState.DOWN):
            self.near.change(state)
            response = yield self.get()
            self.assertEqual(response.status, 503)
            self.assertIn(b"destination_unavailable", response.fields(b"proxy-status")[0])
            self.assertIn("see /_hoft/status", json.loads(response.body)["detail"])
        self.assertEqual(response.fields(b"retry-after"), [b"30"])
        self.assertIn("respond-async", json.loads(response.body)["detail"])
        del self.links["far"]
        response = yield self.get()
        self.assertEqual(response.status, 503)
        self.assertIn("does not trust", json.loads(response.body)["detail"])


class OwnTests(IngressCase):
    @inlineCallbacks
    def test_the_status_is_what_the_node_says(self) -> Test:
        self.status = {"node": "near", "links": {"far": {"state": "up"}}}
        response = yield self.get(b"/_hoft/status?now")
        self.assertEqual(json.loads(response.body), self.status)
        self.assertEqual(response.fields(b"content-type"), [b"application/json"])
        response = yield self.get(b"/_hoft/status", method=b"DELETE")
        self.assertEqual((response.status, response.fields(b"allow")), (405, [b"GET, HEAD"]))

    @inlineCallbacks
    def test_a_large_status_does_not_hold_up_the_reactor(self) -> Test:
        """That of a thousand peers takes 0.05 s and more to encode."""
        threads: set[int] = set()

        class Watched(dict[str, Any]):
            def items(self) -> Any:
                threads.add(threading.get_ident())
                return super().items()

        self.status = {"peers": Watched(far={"state": "up"})}
        response = yield self.get(b"/_hoft/status")
        self.assertEqual(json.loads(response.body), self.status)
        self.assertNotIn(threading.get_ident(), threads)
        self.assertTrue(threads)

    @inlineCallbacks
    def test_options_of_the_gateway_itself(self) -> Test:
        response = yield self.get(b"*", method=b"OPTIONS")
        self.assertEqual((response.status, response.body), (204, b""))

    @inlineCallbacks
    def test_what_is_no_request_is_a_problem(self) -> Test:
        response = yield self.ask(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        self.assertEqual(response.status, 400)
        problem = json.loads(response.body)
        self.assertEqual((problem["status"], problem["error"]), (400, "http_request_error"))
        self.assertIn(b"http_request_error", response.fields(b"proxy-status")[0])

    @inlineCallbacks
    def test_bad_deadlines_are_refused(self) -> Test:
        for value in (b"", b"0", b"-1", b"soon", b"1e3", b"86401", b"nan"):
            response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: " + value)
            self.assertEqual(response.status, 400, value)
            self.assertIn("Hoft-Deadline", json.loads(response.body)["detail"])

    @inlineCallbacks
    def test_counters(self) -> Test:
        self.far.then = lambda request: request.answer()
        yield self.get()
        yield self.get(b"/nowhere")
        counters = self.ingress.counters()
        self.assertEqual((counters["requests"], counters["answered"], counters["problem_404"]), (2, 1, 1))
        self.assertEqual((counters["waiting"], counters["cut"], counters["callers_gone"]), (0, 0, 0))
