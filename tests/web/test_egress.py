"""
The egress between a near side that the test scripts and real services: how requests
go out, how responses come back, and what is refused.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Generator
from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from hoft.errors import LinkClosed
from hoft.web.client.policy import Policy, Rule
from hoft.web.crossing.exchange import (
    MAX_BODY,
    Kind,
    Part,
    Side,
    decode_credit,
    decode_part,
    encode_part,
)
from hoft.web.egress import responding
from hoft.web.egress.surroundings import Limits
from hoft.web.http.responses import phrase
from tests.web.services import REACTOR, Call, EgressCase, RawService, Received, Service, Test, until, wait


class RequestTests(EgressCase):
    @inlineCallbacks
    def test_a_request_goes_out_as_it_was(self) -> Test:
        fields = [(b"X-Twice", b"1"), (b"cookie", b"a=b"), (b"x-twice", b"2"), (b"X-Raw", b"\xff")]
        head = self.head(b"patch", b"/a%20b//C;x?d=%e4&e=%2F..", headers=fields, length=3)
        call = yield self.near.call(head, b"\x00\xff\n").done
        self.assertEqual((call.status, call.body), (200, b"hello"))
        self.assertEqual(
            self.service.requests[0].head,
            b"patch /a%%20b//C;x?d=%%e4&e=%%2F.. HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"X-Twice: 1\r\ncookie: a=b\r\nx-twice: 2\r\nX-Raw: \xff\r\nVia: hoft/1 far\r\nContent-Length: 3"
            % self.port,
        )
        self.assertEqual(self.service.requests[0].body, b"\x00\xff\n")

    @inlineCallbacks
    def test_bodies_of_every_kind_arrive_unchanged(self) -> Test:
        for body in (
            json.dumps({"a": [1, "\u00e9"]}).encode(),
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n\x00\x01\r\n--x--\r\n',
            b"\xff\xfe broken \xc3(",
            Random(1).randbytes(300_000),
            b"",
        ):
            call = yield self.near.call(self.head(b"POST"), body).done
            self.assertEqual((call.status, self.service.requests[-1].body), (200, body))
            self.assertEqual(self.service.requests[-1].values(b"content-length"), [b"%d" % len(body)])

    @inlineCallbacks
    def test_trailers_go_out_behind_chunks(self) -> Test:
        yield self.near.call(self.head(b"POST"), b"abc", [(b"X-Sum", b"9"), (b"Host", b"evil")]).done
        request = self.service.requests[0]
        self.assertEqual(
            (request.values(b"content-length"), request.body), ([], b"3\r\nabc\r\n0\r\nX-Sum: 9")
        )

    @inlineCallbacks
    def test_what_concerned_another_connection_does_not_go_out(self) -> Test:
        fields = [
            (b"Connection", b"x-mine"),
            (b"X-Mine", b"1"),
            (b"Host", b"evil"),
            (b"Expect", b"100-continue"),
        ]
        fields += [(b"Content-Length", b"7"), (b"Transfer-Encoding", b"chunked"), (b"X-Theirs", b"2")]
        yield self.near.call(self.head(headers=fields)).done
        names = [line.partition(b":")[0] for line in self.service.requests[0].fields]
        self.assertEqual(names, [b"Host", b"Content-Length", b"X-Theirs", b"Via"])
        self.assertEqual(self.service.requests[0].values(b"content-length"), [b"0"])
        self.assertEqual(self.service.requests[0].values(b"host"), [b"127.0.0.1:%d" % self.port])

    @inlineCallbacks
    def test_credentials_of_the_url_become_basic_authorization(self) -> Test:
        yield self.near.call(self.head(credentials=b"us%40er:pa%3Ass")).done
        self.assertEqual(self.service.requests[0].values(b"authorization"), [b"Basic dXNAZXI6cGE6c3M="])
        own = [(b"authorization", b"Bearer x")]
        yield self.near.call(self.head(credentials=b"user:pass", headers=own)).done
        self.assertEqual(self.service.requests[1].values(b"authorization"), [b"Bearer x"])
        for given, basic in ((b"user", [b"Basic dXNlcjo="]), (b"", [])):
            yield self.near.call(self.head(credentials=given)).done
            self.assertEqual(self.service.requests[-1].values(b"authorization"), basic)

    @inlineCallbacks
    def test_only_so_many_run_at_once_and_the_others_wait_in_order(self) -> Test:
        yield self.crash()
        self.limits = Limits(parallel=2)
        self.restart()
        open_: list[tuple[Service, Received]] = []
        self.service.script = lambda service, request: open_.append((service, request))
        calls = []
        for number in range(6):
            calls.append(self.near.call(self.head(target=b"/%d" % number)))
            yield until(lambda: self.egress.counters()["requests"] == len(calls))
        yield until(lambda: len(open_) == 2)
        yield wait(0.03)
        self.assertEqual((len(open_), self.egress.counters()["queued"]), (2, 4))
        for number in range(6):
            yield until(partial(lambda number: len(open_) > number, number))
            open_[number][0].answer(b"HTTP/1.1 204 Fine\r\n\r\n")
        for call in calls:
            yield call.done
        self.assertEqual([request.line[5:6] for _, request in open_], [b"0", b"1", b"2", b"3", b"4", b"5"])


class ResponseTests(EgressCase):
    @inlineCallbacks
    def test_a_response_comes_back_as_it_was(self) -> Test:
        packed = gzip.compress(b"hello" * 1000)
        self.service.says(
            b"HTTP/1.1 207 Odd \xe9\r\nSet-Cookie: a=1\r\nContent-Encoding: gzip\r\nX-Case: 1\r\n",
            b"Connection: X-Hop\r\nX-Hop: 1\r\nset-cookie: b=2; Path=/\r\nKeep-Alive: timeout=5\r\n",
            b"Content-Length: %d\r\n\r\n" % len(packed),
            packed,
        )
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.status, call.head.reason, call.body), (207, b"Odd \xe9", packed))
        self.assertEqual(
            call.head.headers,
            (
                (b"Set-Cookie", b"a=1"),
                (b"Content-Encoding", b"gzip"),
                (b"X-Case", b"1"),
                (b"set-cookie", b"b=2; Path=/"),
                (b"Content-Length", b"%d" % len(packed)),
                (b"Via", b"1.1 far"),
            ),
        )
        self.assertEqual((call.head.length, call.head.callee), (len(packed), "127.0.0.1"))

    @inlineCallbacks
    def test_responses_without_a_body_keep_their_length(self) -> Test:
        for method, status, declared in ((b"HEAD", b"200 OK", 9), (b"GET", b"304 Not Modified", 9)):
            self.service.says(b"HTTP/1.1 %s\r\nContent-Length: 9\r\n\r\n" % status)
            call = yield self.near.call(self.head(method)).done
            self.assertEqual((call.head.length, call.size), (declared, 0))
        self.service.says(b"HTTP/1.1 204 No Content\r\n\r\n")
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.status, call.head.length, call.size), (204, None, 0))

    @inlineCallbacks
    def test_chunks_trailers_interim_responses_and_http_1_0(self) -> Test:
        early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        chunks = b"2\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 9\r\nContent-Length: 5\r\n\r\n"
        self.service.says(early, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunks)
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.status, call.head.length, call.body), (200, None, b"abc"))
        self.assertEqual((call.trailers, call.values(b"link")), (((b"X-Sum", b"9"),), []))
        self.service.says(b"HTTP/1.0 200 OK\r\n\r\nold", close=True)
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.body, call.values(b"via")), (b"old", [b"1.0 far"]))

    @inlineCallbacks
    def test_a_redirect_is_not_followed(self) -> Test:
        self.service.says(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")
        call = yield self.near.call(self.head()).done
        self.assertEqual(
            (call.status, call.values(b"location"), len(self.service.requests)), (302, [b"/x"], 1)
        )

    @inlineCallbacks
    def test_a_small_response_is_one_commit_that_leaves_nothing_behind(self) -> Test:
        self.patch(responding, "LINGER_SMALL", 0.5)
        for pieces in ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",), (b"HTTP/1.1 200 OK\r\n",)):
            before = self.process.commits

            def script(service: Service, request: Received, pieces: Any = pieces) -> None:
                service.answer(*pieces)
                if len(pieces[0]) < 20:
                    REACTOR.callLater(0, service.answer, b"Content-Length: 5\r\n\r\n")
                    REACTOR.callLater(0.001, service.answer, b"hello")

            self.service.script = script
            call = yield self.near.call(self.head()).done
            self.assertEqual((call.body, self.process.commits - before), (b"hello", 1))
            yield until(lambda: not self.link.unconsumed())
        self.assertEqual(self.rows(), {})

    @inlineCallbacks
    def test_the_first_byte_goes_out_at_once(self) -> Test:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.service.says(head, b"5\r\nfirst\r\n")
        call = self.near.call(self.head())
        yield until(lambda: call.body == b"first", 0.5)
        self.service.connections[0].answer(b"6\r\nsecond\r\n0\r\n\r\n")
        yield call.done
        self.assertEqual(call.body, b"firstsecond")
        self.assertEqual(self.rows(), {})


class RefusalCase(EgressCase):
    @inlineCallbacks
    def refused(self, call: Call, status: int, kind: str) -> Generator[Deferred[Any], Any, Call]:
        yield call.done
        self.assertEqual(call.values(b"content-type"), [b"application/problem+json"], call)
        problem = json.loads(call.body)
        self.assertEqual(
            (call.status, problem["status"], problem["type"].rpartition("/")[2]), (status, status, kind)
        )
        self.assertEqual(problem["exchange"], call.id.hex())
        assert call.head is not None
        self.assertEqual(call.head.reason, phrase(status))
        [proxy_status] = call.values(b"proxy-status")
        self.assertTrue(proxy_status.startswith(b'"far"; error='), proxy_status)
        yield until(lambda: not self.link.unconsumed())
        yield until(lambda: call.id not in self.rows())
        return call


class RefusalTests(RefusalCase):
    @inlineCallbacks
    def test_what_is_not_allowed_is_refused_before_its_body_has_come(self) -> Test:
        call = self.near.expect()
        first, *rest = self.near.parts(call.id, self.head(b"POST", port=self.port + 1), b"x" * 200_000)
        call.send(first)
        yield call.done
        self.assertEqual(call.status, 403)
        call.send(*rest)
        yield from self.refused(call, 403, "not-allowed")
        self.assertEqual(self.egress.counters()["refused"], 1)

    @inlineCallbacks
    def test_a_new_policy_counts_for_what_comes_then(self) -> Test:
        yield self.near.call(self.head()).done
        self.egress.reconfigure(Policy())
        yield from self.refused(self.near.call(self.head()), 403, "not-allowed")
        self.egress.reconfigure(Policy([Rule.parse(f"http://127.0.0.1:{self.port}/", peer="near")]))
        call = yield self.near.call(self.head()).done
        self.assertEqual(call.status, 200)
        self.egress.reconfigure(Policy([Rule.parse(f"http://127.0.0.1:{self.port}/", peer="other")]))
        yield from self.refused(self.near.call(self.head()), 403, "not-allowed")
        self.assertEqual(len(self.service.requests), 2)

    @inlineCallbacks
    def test_requests_that_are_no_http_are_refused(self) -> Test:
        for head, kind in (
            (self.head(b"GE T"), "malformed-request"),
            (self.head(headers=[(b"X", b"1\r\nY: 2")]), "malformed-request"),
            (self.head(headers=[(b"X Y", b"1")]), "malformed-request"),
            (self.head(target=b"/a\r\nb"), "malformed-request"),
            (self.head(b"CONNECT"), "not-implemented"),
            (self.head(headers=[(b"Via", b"1.1 far")]), "loop"),
        ):
            status = {"not-implemented": 501, "loop": 502}.get(kind, 400)
            yield from self.refused(self.near.call(head), status, kind)
        self.assertEqual(self.service.requests, [])

    @inlineCallbacks
    def test_nothing_is_smuggled_in(self) -> Test:
        for change in (
            {"method": b"GET / HTTP/1.1\r\nX:"},
            {"target": b"/ HTTP/1.1\r\nX: y"},
            {"target": b"/\r\n"},
            {"target": b"a"},
            {"target": b"http://other/"},
            {"target": b"*"},
            {"target": b"/#x"},
            {"host": "127.0.0.1\r\nX: y"},
            {"host": "a@127.0.0.1"},
            {"host": "127.0.0.1:80"},
            {"host": "127.0.0.1/x"},
            {"headers": [(b"A\r\nB", b"")]},
            {"headers": [(b"A", b"\r\n\r\nGET /")]},
        ):
            call = self.near.call(self.head(**change))
            yield call.done
            self.assertIn(call.status, (400, 403), change)
        self.assertEqual(self.service.requests, [])

    @inlineCallbacks
    def test_what_belongs_to_a_connection_does_not_cross(self) -> Test:
        names = (b"Host", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"content-LENGTH")
        call = self.near.call(self.head(headers=[(name, b"other") for name in names]))
        yield call.done
        request = self.service.requests[0]
        self.assertEqual(request.values(b"host"), [b"127.0.0.1:%d" % self.port])
        self.assertEqual([request.values(name.lower()) for name in names[1:]], [[]] * 4 + [[b"0"]])

    @inlineCallbacks
    def test_parts_that_contradict_each_other_are_refused(self) -> Test:
        call = self.near.expect()
        head, data, _ = self.near.parts(call.id, self.head(b"POST"), b"abc")
        lie = encode_part(Part(Kind.END, Side.INGRESS, call.id, 2, (4).to_bytes(8, "big") + bytes(16)))
        call.send(head, data, lie)
        yield call.done
        self.assertEqual((call.status, self.service.requests), (400, []))

    @inlineCallbacks
    def test_a_whole_request_beside_parts_of_one_is_refused(self) -> Test:
        call = self.near.expect()
        head, *_ = self.near.parts(call.id, self.head(b"POST"), b"abc")
        call.send(head)
        yield until(lambda: self.egress.counters()["requests"])
        self.near.call(self.head(b"POST"), b"abc", id=call.id)
        call = self.near.calls[call.id]
        yield call.done
        self.assertEqual((call.status, self.service.requests), (400, []))

    @inlineCallbacks
    def test_parts_beside_a_whole_request_change_nothing(self) -> Test:
        self.service.script = lambda service, request: None
        call = self.near.call(self.head(b"POST"), b"abc")
        yield until(lambda: self.service.requests)
        call.send(*self.near.parts(call.id, self.head(b"POST"), b"abc"))
        yield until(lambda: self.link.unconsumed() == 4)
        self.service.connections[0].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        yield call.done
        self.assertEqual((call.status, len(self.service.requests)), (200, 1))
        yield until(lambda: not self.link.unconsumed())

    @inlineCallbacks
    def test_a_whole_request_whose_head_is_none_is_refused(self) -> Test:
        for body in (b"\0\0\0\1\x80", b"\0\0\0\2\x80\x80abc", b"\0\0\0\1\xff"):
            call = self.near.expect()
            call.send(encode_part(Part(Kind.MESSAGE, Side.INGRESS, call.id, 0, body)))
            yield call.done
            self.assertEqual((call.status, self.service.requests), (400, []))
        yield until(lambda: not self.link.unconsumed())

    @inlineCallbacks
    def test_a_body_with_another_digest_never_arrives_as_a_whole(self) -> Test:
        call = self.near.expect()
        head, data, end = self.near.parts(call.id, self.head(b"POST"), b"abc")
        changed = data[:-1] + b"d"
        call.send(head, changed, end)
        yield call.done
        self.assertEqual((call.status, self.service.requests), (400, []))

    @inlineCallbacks
    def test_what_is_no_part_is_dropped(self) -> Test:
        self.near.send(b"", b"x", b"\x09\x00" + bytes(40))
        yield until(lambda: self.egress.counters()["malformed_parts"] == 3)
        yield until(lambda: not self.link.unconsumed())

    @inlineCallbacks
    def test_too_much_is_refused(self) -> Test:
        yield self.crash()
        self.limits = Limits(request_body=1000, spool=1 << 20)
        self.restart()
        declared = self.near.call(self.head(b"POST", length=1001), b"x" * 1001)
        yield from self.refused(declared, 413, "too-large")
        found = self.near.call(self.head(b"POST"), b"x" * 1001)
        yield from self.refused(found, 413, "too-large")
        yield self.crash()
        self.limits = Limits(spool=100_000)
        self.restart()
        first = self.near.expect()
        head, *rest = self.near.parts(first.id, self.head(b"POST", length=90_000), b"x" * 90_000)
        first.send(head)
        yield until(lambda: self.egress.counters()["requests"] == 1)
        yield wait(0.01)
        second = self.near.call(self.head(b"POST", length=90_000), b"x" * 90_000)
        yield second.done
        self.assertEqual(second.status, 507)
        first.send(*rest)
        yield first.done
        self.assertEqual(first.status, 200)
        yield until(lambda: not self.link.unconsumed())
        yield from self.refused(self.near.call(self.head(b"POST"), b"x" * 100_001), 507, "no-space")

    @inlineCallbacks
    def test_what_the_disk_has_no_room_for_is_refused(self) -> Test:
        """By what is declared, or as it comes; and what may still come is no more than there is room for."""
        self.left = 5 << 20
        call = self.near.expect()
        head, *rest = self.near.parts(call.id, self.head(b"POST", length=6 << 20), bytes(6 << 20))
        call.send(head)
        yield call.done
        call.send(*rest)
        yield from self.refused(call, 507, "no-space")
        growing = self.near.expect()
        head, *rest = self.near.parts(growing.id, self.head(b"POST"), bytes(4 << 20))
        growing.send(head, *rest[:40])
        yield until(lambda: self.link.unconsumed() == 41)
        [peer] = self.egress._peers.values()
        peer._exchanges[growing.id].poke()
        granted = decode_credit(decode_part(self.link.records[-1]))
        self.assertTrue(self.left < granted <= self.left + 40 * MAX_BODY, granted)
        self.left = 1000
        growing.send(*rest[40:])
        yield from self.refused(growing, 507, "no-space")
        small = self.near.call(self.head(b"POST"), b"small")
        yield small.done
        self.assertEqual(small.status, 200)

    @inlineCallbacks
    def test_nothing_waits_for_a_timer_that_stands_still(self) -> Test:
        """As C{callLater} does after the wall clock was set back."""
        year = 366 * 86400.0
        for name, value in (("LINGER", year), ("LINGER_SMALL", year), ("FULL_PAUSE", year)):
            self.patch(responding, name, value)
        self.service.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        self.link.full = True
        call = self.near.call(self.head())
        yield until(lambda: self.service.requests)
        yield wait(0.02)
        self.egress.tick()
        yield wait(0.02)
        self.link.full = False
        self.egress.tick()
        yield until(lambda: call.body == b"ab")
        self.service.script = lambda service, request: None
        silent = self.near.call(self.head(deadline=100.0))
        yield until(lambda: len(self.service.requests) == 2)
        self.skew = 99.0
        self.egress.tick()
        self.assertEqual(self.egress.counters()["running"], 2)
        self.skew = 101.0
        self.egress.tick()
        yield silent.done
        self.assertEqual((silent.status, call.done.called), (504, False))
        stopped = self.egress.stop()
        self.egress.tick()
        self.assertFalse(stopped.called)
        self.skew = 105.0
        self.egress.tick()
        yield stopped

    @inlineCallbacks
    def test_no_room_in_the_journal_only_delays(self) -> Test:
        self.link.full = True
        call = self.near.call(self.head())
        yield until(lambda: self.service.requests)
        yield wait(0.05)
        self.assertFalse(call.done.called)
        self.link.full = False
        yield call.done
        self.assertEqual((call.body, len(self.service.requests)), (b"hello", 1))


class ServiceFailureTests(RefusalCase):
    """Each failure of a service has its problem."""

    @inlineCallbacks
    def test_failures_before_the_head(self) -> Test:
        self.service.script = lambda service, request: service.close()
        yield from self.refused(self.near.call(self.head()), 502, "connection-terminated")
        self.service.script = lambda service, request: service.reset()
        yield from self.refused(self.near.call(self.head()), 502, "connection-terminated")
        self.service.says(b"HTTP/1.1 200 OK\r\nX", close=True)
        yield from self.refused(self.near.call(self.head()), 502, "response-incomplete")
        self.service.says(b"rubbish\r\n\r\n")
        yield from self.refused(self.near.call(self.head()), 502, "bad-response")
        self.service.says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1100 + b"Content-Length: 0\r\n\r\n")
        yield from self.refused(self.near.call(self.head()), 502, "bad-response")
        self.assertEqual(self.egress.counters()["failed"], 5)

    @inlineCallbacks
    def test_nobody_listens(self) -> Test:
        listening = REACTOR.listenTCP(0, RawService(), interface="127.0.0.1")
        free = listening.getHost().port
        yield listening.stopListening()
        self.egress.reconfigure(Policy([Rule.parse(f"http://127.0.0.1:{free}/")]))
        yield from self.refused(self.near.call(self.head(port=free)), 502, "connection-refused")

    @inlineCallbacks
    def test_a_name_that_leads_where_it_must_not(self) -> Test:
        host = "service.example"
        self.egress.reconfigure(Policy([Rule.parse(f"http://{host}:{self.port}/")]))
        self.names.answers = [["127.0.0.1"]]
        yield from self.refused(self.near.call(self.head(host=host)), 403, "address-prohibited")
        self.assertEqual(self.service.connections, [])

    @inlineCallbacks
    def test_the_service_is_silent(self) -> Test:
        self.service.script = lambda service, request: None
        yield from self.refused(self.near.call(self.head(deadline=0.05)), 504, "service-silent")
        yield until(lambda: self.service.connections[0].lost)
        self.assertEqual(self.egress.counters()["running"], 0)

    @inlineCallbacks
    def test_a_response_that_breaks_off_is_aborted(self) -> Test:
        for rest in (b"", b"zz\r\n"):

            def script(service: Service, request: Received, rest: bytes = rest) -> None:
                service.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                REACTOR.callLater(0.03, service.answer if rest else service.reset, *filter(None, [rest]))

            self.service.script = script
            call = yield self.near.call(self.head()).done
            assert call.problem is not None
            self.assertEqual(call.problem.kind, "bad-response" if rest else "response-incomplete")
            self.assertEqual(call.problem.exchange, call.id.hex())
            yield until(lambda: not self.link.unconsumed() and self.service.connections[-1].lost)
        self.assertEqual(self.rows(), {})


class CancelTests(EgressCase):
    def setUp(self) -> None:
        super().setUp()
        self.service.script = lambda service, request: None

    @inlineCallbacks
    def gone(self) -> Generator[Deferred[Any], Any, None]:
        yield until(lambda: not self.link.unconsumed())
        self.assertEqual(self.egress.counters()["running"], 0)
        self.assertEqual(self.egress.counters()["queued"], 0)

    @inlineCallbacks
    def test_while_the_service_works(self) -> Test:
        call = self.near.call(self.head())
        yield until(lambda: self.service.requests)
        call.cancel()
        yield until(lambda: self.service.connections[0].lost)
        yield from self.gone()
        self.assertEqual(self.rows(), {})
        self.assertEqual(self.egress.counters()["cancelled"], 1)

    @inlineCallbacks
    def test_while_the_response_crosses(self) -> Test:
        self.service.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        call = self.near.call(self.head())
        yield until(lambda: call.body == b"hello")
        call.cancel()
        yield until(lambda: self.service.connections[0].lost)
        yield from self.gone()
        self.assertEqual((self.rows(), call.done.called), ({}, False))

    @inlineCallbacks
    def test_before_the_request_is_complete(self) -> Test:
        call = self.near.expect()
        *first, last = self.near.parts(call.id, self.head(b"POST"), b"x" * 100_000)
        call.send(*first)
        yield until(lambda: self.egress.counters()["requests"])
        call.cancel()
        yield from self.gone()
        [peer] = self.egress._peers.values()
        self.assertEqual((self.rows(), peer._exchanges), ({}, {}), "nothing waits for the rest")
        call.send(last)
        yield from self.gone()
        self.assertEqual((self.service.requests, self.rows(), peer._exchanges), ([], {}, {}))

    @inlineCallbacks
    def test_before_anything_of_the_request_has_come(self) -> Test:
        call = self.near.expect()
        call.cancel()
        yield wait(0.02)
        call.send(*self.near.parts(call.id, self.head(b"POST"), b"abc"))
        yield until(lambda: not self.link.backlog() and not self.near_link.backlog())
        yield from self.gone()
        self.assertEqual((self.service.requests, self.rows()), ([], {}))
        self.assertEqual(self.egress.counters()["requests"], 0)

    @inlineCallbacks
    def test_while_it_waits_for_its_turn(self) -> Test:
        yield self.crash()
        self.limits = Limits(parallel=1)
        self.restart()
        first = self.near.call(self.head())
        yield until(lambda: self.service.requests)
        second = self.near.call(self.head(b"POST"))
        yield until(lambda: self.egress.counters()["queued"])
        second.cancel()
        yield until(lambda: not self.egress.counters()["queued"])
        first.cancel()
        yield from self.gone()
        self.assertEqual((len(self.service.requests), self.rows()), (1, {}))

    @inlineCallbacks
    def test_while_its_start_is_being_noted(self) -> Test:
        self.process.hold()
        call = self.near.call(self.head(b"POST"))
        yield until(lambda: self.process.held)
        call.cancel()
        yield until(lambda: self.egress.counters()["cancelled"])
        self.process.release()
        yield from self.gone()
        self.assertEqual((self.service.requests, len(self.rows())), ([], 1))

    @inlineCallbacks
    def test_of_what_is_over_already_does_nothing(self) -> Test:
        self.service.says(b"HTTP/1.1 204 Fine\r\n\r\n")
        call = yield self.near.call(self.head()).done
        call.cancel()
        yield from self.gone()
        self.assertEqual((yield self.near.call(self.head()).done).status, 204)


class StoppingTests(EgressCase):
    limits = Limits(grace=3.0)

    @inlineCallbacks
    def test_what_runs_may_end(self) -> Test:
        open_: list[Service] = []
        self.service.script = lambda service, request: open_.append(service)
        call = self.near.call(self.head())
        yield until(lambda: open_)
        stopped = self.egress.stop()
        later = self.near.call(self.head())
        yield wait(0.02)
        self.assertFalse(stopped.called)
        open_[0].answer(b"HTTP/1.1 204 Fine\r\n\r\n")
        yield stopped
        yield call.done
        self.assertEqual((call.status, later.done.called, len(self.service.requests)), (204, False, 1))

    @inlineCallbacks
    def test_a_closed_link_loses_nothing_but_this_process(self) -> Test:
        open_: list[Service] = []
        self.service.script = lambda service, request: open_.append(service)
        call = self.near.call(self.head())
        yield until(lambda: open_)
        yield self.link.close()
        open_[0].answer(b"HTTP/1.1 204 Fine\r\n\r\n")
        yield until(lambda: not self.egress.counters()["running"])
        self.assertFalse(call.done.called)
        yield self.assertFailure(self.link.commit(), LinkClosed)

    @inlineCallbacks
    def test_a_peer_that_is_trusted_no_more_is_cut_off(self) -> Test:
        self.service.script = lambda service, request: None
        self.near.call(self.head())
        yield until(lambda: self.service.requests)
        self.egress.detach(self.process)
        yield until(lambda: self.service.connections[0].lost)
