"""
HTTP as the RFCs say, line by line, with raw sockets on both sides: callers that send any
bytes, and services that answer with any; what is between them is real, but for the files.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Generator
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread

from hoft.config import Allowance, Caller, Route
from hoft.tokens import hash_token
from hoft.web.client.policy import Policy, Rule
from hoft.web.egress.executions import State
from tests.web.callers import Response
from tests.web.services import Received, Test, until
from tests.web.test_gateway import GatewayCase

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class HttpCase(GatewayCase):
    """C{/svc/demo/} leads to C{/base/} of a service that the test scripts."""

    def setUp(self) -> None:
        super().setUp()
        self.port = self.service.listen(self)
        self.url = f"http://127.0.0.1:{self.port}/base"
        self.egress.reconfigure(Policy([Rule.parse(self.url)]))
        self.route()

    def route(self, **more: Any) -> None:
        """What the ingress is told."""
        routes = (Route("demo", "far", self.url),)
        self.ingress.reconfigure(evolve(self.ingress.routing, routes=routes, **more))

    @property
    def request(self) -> Received:
        """The only one that came."""
        (request,) = self.service.requests
        return request

    def problem(self, response: Response, status: int, kind: str, error: bytes | None = None) -> None:
        """It is one, of that kind, told by one of the nodes."""
        self.assertEqual(response.status, status, response.head + response.body)
        self.assertEqual(json.loads(response.body)["type"].rpartition("/")[2], kind)
        if error is not None:
            self.assertIn(b"; error=%s; " % error, response.fields(b"proxy-status")[0])

    @inlineCallbacks
    def nothing_left(self) -> Test:
        """Of no call anything is left, on neither side, but for the ids of what must not be done twice."""

        def clean() -> bool:
            return not (
                self.link.unconsumed()
                or self.near_link.unconsumed()
                or any(state is not State.DONE for state in map(State, self.rows().values()))
                or self.ingress.counters()["waiting"]
                or self.egress.counters()["running"]
                or self.egress.counters()["queued"]
            )

        yield until(clean)
        [peer] = self.egress._peers.values()
        self.assertEqual((peer.spooled, len(peer._exchanges)), (0, 0))

    def reads(self, caller: socket.socket, end: bytes) -> Generator[Deferred[Any], Any, bytes]:
        """What the caller gets up to these bytes."""
        received = b""
        while not received.endswith(end):
            piece: bytes = yield deferToThread(caller.recv, 1 << 16)
            self.assertTrue(piece, received)
            received += piece
        return received


class RequestTests(HttpCase):
    """What the service gets of what the caller sends."""

    @inlineCallbacks
    def test_a_request_arrives_with_its_fields_in_their_order_and_spelling(self) -> Test:
        """RFC 9110 5.3, 7.6: an intermediary changes nothing that it need not."""
        yield self.ask(
            b"pAtch /svc/demo/%7E/a;b//?q=%zz&q=%C3|{} HTTP/1.1\r\nhOST: gateway:81\r\n"
            b"X-Twice: 1\r\ncontent-LENGTH:3\r\nx-tWICE:\t2 \r\nX-Raw: caf\xc3\xa9 \xff\r\nEmpty:\r\n\r\nabc",
            half_close=True,
        )
        self.assertEqual(
            self.request.head,
            b"pAtch /base/%%7E/a;b//?q=%%zz&q=%%C3|{} HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"X-Twice: 1\r\ncontent-LENGTH: 3\r\nx-tWICE: 2\r\nX-Raw: caf\xc3\xa9 \xff\r\nEmpty: \r\n"
            b'Forwarded: for=127.0.0.1;proto=http;host="gateway:81"\r\nX-Forwarded-For: 127.0.0.1\r\n'
            b"Via: 1.1 near\r\nVia: hoft/1 far" % self.port,
        )

    @inlineCallbacks
    def test_no_body_no_length_and_a_length_of_nothing_stay_what_they_are(self) -> Test:
        """RFC 9110 8.6: 0 is added only where a body would be expected."""
        for method, fields, lengths in (
            (b"GET", (), []),
            (b"DELETE", (), []),
            (b"DELETE", (b"Content-Length: 0",), [b"0"]),
            (b"ODD", (b"content-length: 0",), [b"0"]),
            (b"POST", (), [b"0"]),
        ):
            yield self.get(b"/svc/demo/", *fields, method=method)
            self.assertEqual(self.service.requests[-1].values(b"content-length"), lengths, method)

    @inlineCallbacks
    def test_hop_by_hop_fields_and_those_that_connection_names_do_not_arrive(self) -> Test:
        """RFC 9110 7.6.1."""
        yield self.get(
            b"/svc/demo/", b"Connection: X-Hop, x-other", b"X-Hop: 1", b"X-Other: 2",
            b"Keep-Alive: timeout=5", b"TE: trailers", b"Upgrade: h2c", b"HTTP2-Settings: x",
            b"Proxy-Connection: keep-alive", b"Proxy-Authorization: Basic eA==", b"X-Stays: 3",
        )  # fmt: skip
        names = [line.partition(b":")[0] for line in self.request.fields]
        self.assertEqual(names, [b"Host", b"X-Stays", b"Forwarded", b"X-Forwarded-For", b"Via", b"Via"])

    @inlineCallbacks
    def test_via_and_forwarded_are_appended_to(self) -> Test:
        """RFC 9110 7.6.3, RFC 7239 4."""
        yield self.get(
            b"/svc/demo/", b"Via: 1.0 fred (a, b)", b"Forwarded: for=192.0.2.1", b"X-Forwarded-For: 192.0.2.1"
        )
        self.assertEqual(self.request.values(b"via"), [b"1.0 fred (a, b)", b"1.1 near", b"hoft/1 far"])
        self.assertEqual(
            self.request.values(b"forwarded"),
            [b"for=192.0.2.1", b'for=127.0.0.1;proto=http;host="gateway"'],
        )
        self.assertEqual(self.request.values(b"x-forwarded-for"), [b"192.0.2.1", b"127.0.0.1"])

    @inlineCallbacks
    def test_what_was_here_before_goes_in_circles(self) -> Test:
        """RFC 9110 7.6.3; whichever of the two nodes it was."""
        for who in (b"near", b"FAR"):
            response = yield self.get(b"/svc/demo/", b"Via: 1.1 other, 1.1 " + who)
            self.problem(response, 502, "loop", b"proxy_loop_detected")
        self.assertEqual(self.service.requests, [])

    @inlineCallbacks
    def test_max_forwards_is_counted_and_at_zero_we_answer(self) -> Test:
        """RFC 9110 7.6.2."""
        yield self.get(b"/svc/demo/", b"Max-Forwards: 1", method=b"OPTIONS")
        yield self.get(b"/svc/demo/", b"Max-Forwards: 10", method=b"TRACE")
        yield self.get(b"/svc/demo/", b"Max-Forwards: 0", method=b"GET")
        asked = [request.values(b"max-forwards") for request in self.service.requests]
        self.assertEqual(asked, [[b"0"], [b"9"], [b"0"]])
        response = yield self.get(b"/svc/demo/", b"Max-Forwards: 0", method=b"OPTIONS")
        self.assertEqual(response.status, 204)
        response = yield self.get(b"/svc/demo/", b"Max-Forwards: 0", method=b"TRACE")
        self.problem(response, 501, "not-implemented")
        self.assertEqual(len(self.service.requests), 3)

    @inlineCallbacks
    def test_a_request_that_could_be_read_in_two_ways_reaches_nobody(self) -> Test:
        """RFC 9112 2.2, 3.2, 5.1, 5.2, 6.1, 6.3, 7.1, 11.2."""
        line = b"POST /svc/demo/ HTTP/1.1\r\n"
        host = b"Host: a\r\n"
        both = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"
        for request in (
            line + b"\r\n",
            line + host + host + b"\r\n",
            line + b"Host: a b\r\n\r\n",
            line + b"Host: u@a\r\n\r\n",
            line + host + b"X: a\r\n b\r\n\r\n",
            line + host + both + b"\r\n0\r\n\r\n",
            line + host + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            line + host + b"Content-Length: +3\r\n\r\nabc",
            line + host + b"Content-Length: 3, 3\r\n\r\nabc",
            line + host + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            line + host + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            line + host + b"X Y: 1\r\n\r\n",
            line + host + b"X: a\x00b\r\n\r\n",
            line + host + b"X: a\rb\r\n\r\n",
            line + host + b": a\r\n\r\n",
            b"PO ST /svc/demo/ HTTP/1.1\r\n" + host + b"\r\n",
            b"P\xd6ST /svc/demo/ HTTP/1.1\r\n" + host + b"\r\n",
            b"POST /svc/demo/ a HTTP/1.1\r\n" + host + b"\r\n",
            b"POST /svc/demo/\tHTTP/1.1\r\n" + host + b"\r\n",
            line + host + b"Transfer-Encoding: chunked\r\n\r\n3;\r\nab\r\n0\r\n\r\n",
            line + host + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n",
            line + host + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        ):
            response = yield self.ask(request, half_close=True)
            self.assertEqual(response.status, 400, request)
            self.assertEqual(response.fields(b"connection"), [b"close"], request)
        self.assertEqual(self.service.requests, [])
        yield self.nothing_left()

    @inlineCallbacks
    def test_trailers_arrive_behind_the_body_but_for_what_must_not_be_there(self) -> Test:
        """RFC 9110 6.5, RFC 9112 7.1.2."""
        yield self.ask(
            b"PUT /svc/demo/ HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2;ext=1\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 9\r\nAuthorization: x\r\nx-sum: 10\r\n\r\n",
            half_close=True,
        )
        self.assertEqual(self.request.values(b"trailer"), [b"X-Sum"])
        self.assertEqual(self.request.values(b"transfer-encoding"), [b"chunked"])
        self.assertEqual(self.request.body, b"3\r\nabc\r\n0\r\nX-Sum: 9\r\nx-sum: 10")

    @inlineCallbacks
    def test_a_caller_that_half_closes_is_answered(self) -> Test:
        """RFC 9112 9.6: also after a pipelined second request."""
        self.service.script = lambda service, request: service.answer(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.line), request.line
        )
        head = b"GET /svc/demo/%d HTTP/1.1\r\nHost: a\r\n\r\n"
        answer = yield self.talk(head % 1 + head % 2, half_close=True)
        first, second = answer.index(b"GET /base/1 "), answer.index(b"GET /base/2 ")
        self.assertLess(first, second)
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK\r\n"), 2)


class ExpectationTests(HttpCase):
    """C{Expect: 100-continue} (RFC 9110 10.1.1)."""

    HEAD = b"POST /svc/demo/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\n"
    CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

    @inlineCallbacks
    def test_the_body_is_asked_for_and_the_expectation_ends_here(self) -> Test:
        caller = self.connect()
        caller.sendall(self.HEAD + b"Content-Length: 3\r\n\r\n")
        yield from self.reads(caller, self.CONTINUE)
        self.assertEqual(self.service.requests, [])
        caller.sendall(b"abc")
        answer = yield from self.reads(caller, b"hello")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual((self.request.values(b"expect"), self.request.body), ([], b"abc"))

    def refused(self, status: int, *fields: bytes) -> Generator[Deferred[Any], Any, None]:
        """The answer to the head is final: the body is never asked for."""
        head = self.HEAD + b"".join(field + b"\r\n" for field in fields) + b"\r\n"
        answer = yield self.talk(head, until=b"}\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), answer)
        self.assertNotIn(self.CONTINUE, answer)

    @inlineCallbacks
    def test_who_may_not_call_is_not_asked_for_a_body(self) -> Test:
        """Not who has no token, nor who has used up its calls, nor for a body that is too large."""
        shop = Caller("shop", (hash_token(b"t"),), Allowance(per_day=1))
        self.route(callers=(shop,), max_request_body=1000)
        token, length = b"Proxy-Authorization: Bearer t", b"Content-Length: 3"
        yield from self.refused(401, length)
        yield from self.refused(413, token, b"Content-Length: 1001")
        yield from self.refused(417, token, length, b"Expect: 200-ok")
        caller = self.connect()
        caller.sendall(self.HEAD + token + b"\r\n" + length + b"\r\n\r\n")
        yield from self.reads(caller, self.CONTINUE)
        yield from self.refused(429, token, length)
        caller.close()
        self.assertEqual(self.service.requests, [])


class ResponseTests(HttpCase):
    """What the caller gets of what the service sends."""

    @inlineCallbacks
    def test_a_response_arrives_with_its_fields_in_their_order_and_spelling(self) -> Test:
        """RFC 9110 5.3; C{Set-Cookie} apart (RFC 6265 3), codings untouched (RFC 9110 8.4)."""
        packed = gzip.compress(b"hello" * 1000, mtime=0)
        self.service.says(
            b"HTTP/1.1 207 Odd \xe9\r\nset-COOKIE:a=1\r\nDate: yesterday\r\ncontent-LENGTH: %d\r\n"
            b"Content-Encoding: gzip\r\nX-Raw: \xff \r\nSet-Cookie: b=2; Path=/base; HttpOnly\r\n"
            b"Empty:\r\nSet-Cookie: a=3\r\n\r\n" % len(packed),
            packed,
        )
        response = yield self.get(b"/svc/demo/", b"Accept-Encoding: gzip;q=0.5")
        self.assertEqual(self.request.values(b"accept-encoding"), [b"gzip;q=0.5"])
        self.assertEqual(
            response.head,
            b"HTTP/1.1 207 Odd \xe9\r\nset-COOKIE: a=1\r\nDate: yesterday\r\ncontent-LENGTH: %d\r\n"
            b"Content-Encoding: gzip\r\nX-Raw: \xff\r\nSet-Cookie: b=2; Path=/svc/demo; HttpOnly\r\n"
            b"Empty: \r\nSet-Cookie: a=3\r\nVia: 1.1 far\r\nVia: hoft/1 near\r\n"
            b"Hoft-Request-Id: %b\r\nConnection: close" % (len(packed), *response.fields(b"hoft-request-id")),
        )
        self.assertEqual(response.body, packed)

    @inlineCallbacks
    def test_hop_by_hop_fields_and_those_that_connection_names_do_not_arrive(self) -> Test:
        """RFC 9110 7.6.1, 11.7."""
        self.service.says(
            b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n"
            b"Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\nX-Stays: 1\r\nDate: x\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        response = yield self.get()
        names = [line.partition(b":")[0] for line in response.head.split(b"\r\n")[1:]]
        ours = [b"Via", b"Via", b"Hoft-Request-Id", b"Connection"]
        self.assertEqual(names, [b"X-Stays", b"Date", b"Content-Length", *ours])

    @inlineCallbacks
    def test_a_response_without_a_body_keeps_its_length(self) -> Test:
        """RFC 9110 8.6, RFC 9112 6.3; the connection serves on, so no byte was taken for a body."""
        caller = self.connect()
        for method, status, declared, kept in (
            (b"HEAD", b"200 OK", b"9", [b"9"]),
            (b"GET", b"304 Not Modified", b"9", [b"9"]),
            (b"HEAD", b"404 Not Found", None, []),
            (b"GET", b"204 No Content", None, []),
            (b"GET", b"204 No Content", b"0", []),
        ):
            length = b"" if declared is None else b"Content-Length: %s\r\n" % declared
            self.service.says(b"HTTP/1.1 %s\r\n%s\r\n" % (status, length))
            caller.sendall(method + b" /svc/demo/ HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = yield from self.reads(caller, b"\r\n\r\n")
            response = Response.parse(answer)
            self.assertEqual(response.head.partition(b"\r\n")[0], b"HTTP/1.1 " + status)
            self.assertEqual(response.fields(b"content-length"), kept, (method, status))
            self.assertEqual(response.fields(b"transfer-encoding"), [])
        self.assertEqual(len(self.service.connections), 1)

    @inlineCallbacks
    def test_redirects_are_the_callers_to_follow(self) -> Test:
        """RFC 9110 15.4; C{Location} leads back through the route."""
        for status in (301, 302, 303, 307, 308):
            self.service.says(
                b"HTTP/1.1 %d Elsewhere\r\nLocation: /base/next\r\nContent-Length: 0\r\n\r\n" % status
            )
            response = yield self.post(b"x")
            self.assertEqual((response.status, response.fields(b"location")), (status, [b"/svc/demo/next"]))
        self.assertEqual(len(self.service.requests), 5)

    @inlineCallbacks
    def test_trailers_arrive_but_for_what_must_not_be_there(self) -> Test:
        """RFC 9110 6.5.1."""
        self.service.says(CHUNKED, b"5;x\r\nhello\r\n0\r\nX-Sum: 9\r\nSet-Cookie: a=1\r\nX-Sum: 10\r\n\r\n")
        answer = yield self.talk(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\n\r\n", half_close=True)
        self.assertTrue(answer.endswith(b"5\r\nhello\r\n0\r\nX-Sum: 9\r\nX-Sum: 10\r\n\r\n"), answer)

    @inlineCallbacks
    def test_interim_responses_are_the_last_hops_own(self) -> Test:
        """RFC 9110 15.2: a proxy that did not ask for 100 need not forward it; 103 does not cross."""
        self.service.says(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
            b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        )
        response = yield self.get()
        self.assertEqual((response.status, response.body, response.fields(b"link")), (200, b"hi", []))

    @inlineCallbacks
    def test_http_1_0_on_either_side(self) -> Test:
        """RFC 9112 2.3, 9.3: no chunks for a caller that does not know them."""
        self.service.says(b"HTTP/1.0 200 OK\r\n\r\nold", close=True)
        response = yield self.get()
        self.assertEqual((response.status, response.body), (200, b"old"))
        self.assertEqual(response.fields(b"via"), [b"1.0 far", b"hoft/1 near"])
        self.assertEqual(response.fields(b"transfer-encoding"), [b"chunked"])
        answer = yield self.talk(b"GET /svc/demo/ HTTP/1.0\r\n\r\n")
        self.assertTrue(answer.endswith(b"Connection: close\r\n\r\nold"), answer)
        self.assertEqual(self.service.requests[-1].values(b"via"), [b"1.0 near", b"hoft/1 far"])
        self.assertEqual(Response.parse(answer).fields(b"transfer-encoding"), [])

    @inlineCallbacks
    def test_a_hundred_fields_arrive(self) -> Test:
        lines = [b"X-%d: %d" % (number // 2, number) for number in range(100)]
        self.service.says(b"HTTP/1.1 200 OK\r\n%s\r\nContent-Length: 0\r\n\r\n" % b"\r\n".join(lines))
        response = yield self.get()
        self.assertEqual(response.head.split(b"\r\n")[1:101], lines)
