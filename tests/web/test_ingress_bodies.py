"""
Bodies through the ingress: as they come, held up where somebody is slow, and whole.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from hoft.interfaces import Outgoing
from hoft.protocols.packets import MAX_RECORD
from hoft.web.crossing.exchange import RESPONSES, WINDOW, Kind, PartWriter, Side, decode_part
from hoft.web.http.heads import ResponseHead
from tests.web.callers import IngressCase, Response
from tests.web.listening import Test

SIZE = 5_000_000


class RequestTests(IngressCase):
    def sent(self, kind: Kind) -> list[bytes]:
        """Payloads of the parts of that kind that were committed."""
        return [payload for payload in self.near.records if decode_part(payload).kind is kind]

    @inlineCallbacks
    def test_a_small_request_is_one_commit(self) -> Test:
        self.far.then = lambda request: request.answer(201, body=b"".join(request.body))
        commits: list[int] = []
        commit = self.near.commit

        def counted(send: Any = (), *more: Any, **named: Any) -> Deferred[Any]:
            if send:
                commits.append(len(send))
            return commit(send, *more, **named)

        self.patch(self.near, "commit", counted)
        response = yield self.post(b"\x00\xffbody")
        self.assertEqual((response.status, response.body), (201, b"\x00\xffbody"))
        self.assertEqual(commits, [1], "a MESSAGE")
        response = yield self.get()
        self.assertEqual(commits, [1, 1], "without a body, too")

    @inlineCallbacks
    def test_an_upload_fills_its_records_exactly(self) -> Test:
        body = os.urandom(SIZE)
        self.far.then = lambda request: request.answer(body=b"thanks")
        response = yield self.post(body)
        self.assertEqual(response.body, b"thanks")
        self.assertEqual(b"".join(self.far.one.body), body)
        assert self.far.one.head is not None
        self.assertEqual(self.far.one.head.length, SIZE)
        sizes = [len(payload) for payload in self.sent(Kind.DATA)]
        self.assertEqual(set(sizes[:-1]), {MAX_RECORD})
        self.assertLess(self.far.batches, len(sizes), "several to a commit")

    @inlineCallbacks
    def test_chunked_uploads_and_their_trailers(self) -> Test:
        self.far.then = lambda request: request.answer()
        head = (
            b"POST /svc/demo/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunks = b"".join(b"%x\r\n%b\r\n" % (size, bytes(size)) for size in range(1, 900))
        trailers = b"0\r\nX-Sum: 1\r\nAuthorization: late\r\n\r\n"
        response = yield self.ask(head, chunks, trailers)
        self.assertEqual(response.status, 200)
        request = self.far.one
        self.assertEqual(b"".join(request.body), bytes(sum(range(1, 900))))
        self.assertEqual(list(request.trailers), [(b"X-Sum", b"1")])
        assert request.head is not None
        self.assertIsNone(request.head.length)
        self.assertLess(len(request.body), 12, "small chunks share records")

    @inlineCallbacks
    def test_a_body_that_is_too_large_is_refused_before_it_is_sent(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, max_request_body=1000))
        caller = self.connect()
        caller.sendall(
            b"POST /svc/demo/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"
        )
        answer = yield deferToThread(caller.recv, 65536)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)
        self.assertEqual(self.near.records, [])

    @inlineCallbacks
    def test_a_chunked_body_that_grows_too_large_is_refused(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, max_request_body=1_000_000))
        head = b"POST /svc/demo/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
        response = yield self.ask(head, chunk * 32, b"0\r\n\r\n")
        self.assertEqual(response.status, 413)
        yield self.until(lambda: self.far.cancels)

    @inlineCallbacks
    def test_expecting_callers_go_on_once_their_call_is_accepted(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"".join(request.body))
        caller = self.connect()
        start = b"POST /svc/%b/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        caller.sendall(start % b"demo")
        answer = yield deferToThread(caller.recv, 65536)
        self.assertEqual(answer, b"HTTP/1.1 100 Continue\r\n\r\n")
        caller.sendall(b"hi")
        answer = b""
        while not answer.endswith(b"\r\n\r\nhi"):
            answer += yield deferToThread(caller.recv, 65536)
        caller.sendall(start % b"unknown")
        answer = yield deferToThread(caller.recv, 65536)
        self.assertTrue(answer.startswith(b"HTTP/1.1 404 "), answer)

    @inlineCallbacks
    def test_no_more_is_sent_than_was_granted(self) -> Test:
        size = WINDOW + (24 << 20)
        self.far.then = lambda request: request.answer(body=b"all")
        answer = self.post(bytes(size), b"Hoft-Deadline: 60")

        def sent() -> int:
            return sum(len(payload) for payload in self.sent(Kind.DATA))

        # A caller that is slow makes short records: their number does not tell.
        most = WINDOW - (2 << 20)
        yield self.until(lambda: len(self.near.records) * MAX_RECORD > most and sent() > most)
        yield deferLater(reactor, 0.1)
        self.assertLessEqual(sent(), WINDOW)
        self.assertFalse(answer.called)
        self.far.one.grant(size + WINDOW)
        response = yield answer
        self.assertEqual(response.body, b"all")
        self.assertEqual(sum(map(len, self.far.one.body)), size)

    @inlineCallbacks
    def test_a_slow_journal_holds_up_the_upload(self) -> Test:
        waiting: list[Deferred[Any]] = []
        outstanding = [0, 0]
        commit = self.near.commit

        def slow(send: Any = (), *more: Any, **named: Any) -> Deferred[Any]:
            size = sum(len(one.payload) for one in send)
            outstanding[0] += size
            outstanding[1] = max(outstanding)
            gate: Deferred[Any] = Deferred()

            def committed(result: Any) -> Any:
                outstanding[0] -= size
                return result

            waiting.append(gate)
            return gate.addCallback(lambda _: commit(send, *more, **named)).addCallback(committed)

        self.patch(self.near, "commit", slow)
        self.far.then = lambda request: request.answer()
        answer = self.post(bytes(8 << 20), b"Hoft-Deadline: 60")
        answered: list[Response] = []
        answer.addCallback(answered.append)
        while not answered:
            yield deferLater(reactor, 0.01)
            for gate in waiting[:1]:
                waiting.remove(gate)
                gate.callback(None)
        self.assertEqual(answered[0].status, 200)
        self.assertLess(outstanding[1], 2 << 20)
        self.assertEqual(sum(map(len, self.far.one.body)), 8 << 20)

    @inlineCallbacks
    def test_a_full_journal(self) -> Test:
        self.near.full = True
        response = yield self.post(b"x" * 1000)
        self.assertEqual(response.status, 507)
        self.assertEqual(response.fields(b"retry-after"), [b"10"])
        self.assertEqual(self.ingress.counters()["waiting"], 0)
        self.near.full = False
        self.far.then = lambda request: request.answer()
        response = yield self.get()
        self.assertEqual(response.status, 200)

    @inlineCallbacks
    def test_a_journal_that_fills_up_during_an_upload(self) -> Test:
        caller = self.begin_upload(9_000_000)
        yield self.until(lambda: self.far.requests)
        self.near.full = True
        caller.sendall(bytes(1_000_000))
        answer = yield deferToThread(caller.recv, 65536)
        self.assertTrue(answer.startswith(b"HTTP/1.1 507 "), answer)
        self.assertEqual(self.far.cancels, [])
        self.near.full = False
        yield self.until(lambda: self.far.cancels)


class ResponseTests(IngressCase):
    @inlineCallbacks
    def test_a_response_comes_back_whole_whatever_its_size(self) -> Test:
        body = os.urandom(SIZE)
        self.far.then = lambda request: request.answer(body=body)
        response = yield self.get()
        self.assertEqual(response.body, body)
        self.assertEqual(response.fields(b"content-length"), [b"%d" % SIZE])

    @inlineCallbacks
    def test_records_that_are_not_in_memory_are_read_from_the_journal(self) -> Test:
        self.near.withheld = 0.5
        body = os.urandom(SIZE)
        self.far.then = lambda request: request.answer(headers=[(b"X", b"y")], body=body, length=None)
        response = yield self.get()
        self.assertEqual(response.body, body)
        self.assertEqual(self.near.unconsumed(), 0)

    @inlineCallbacks
    def test_everything_is_consumed_a_few_commits_at_a_time(self) -> Test:
        commits: list[int] = []
        commit = self.near.commit

        def counted(send: Any = (), consume: Any = (), *more: Any, **named: Any) -> Deferred[Any]:
            if consume:
                commits.append(len(consume))
            return commit(send, consume, *more, **named)

        self.patch(self.near, "commit", counted)
        self.far.then = lambda request: request.answer(body=bytes(SIZE))
        yield self.get()
        yield self.until(lambda: not self.near.unconsumed())
        self.assertGreaterEqual(sum(commits), 2 + SIZE // MAX_RECORD)
        self.assertLessEqual(len(commits), 1 + SIZE // (1 << 20))

    @inlineCallbacks
    def test_a_body_of_unknown_length_streams_with_trailers(self) -> Test:
        request_seen = self.far
        caller = self.connect()
        caller.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        yield self.until(lambda: request_seen.requests and request_seen.one.complete)
        request = request_seen.one
        writer = request.writer()
        self.far.send(writer.head(ResponseHead(200)) + writer.data(b"first", flush=True))
        received = b""
        while b"first" not in received:
            received += yield deferToThread(caller.recv, 65536)
        self.assertIn(b"Transfer-Encoding: chunked\r\n", received)
        self.far.send(writer.data(b"second") + writer.end([(b"X-Sum", b"2"), (b"Content-Length", b"3")]))
        while not received.endswith(b"\r\n\r\n") or b"second" not in received:
            received += yield deferToThread(caller.recv, 65536)
        self.assertTrue(received.endswith(b"6\r\nsecond\r\n0\r\nX-Sum: 2\r\n\r\n"), received)

    @inlineCallbacks
    def test_a_slow_caller_stalls_only_itself(self) -> Test:
        size = 24 << 20
        slow = self.connect()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        slow.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nHoft-Deadline: 60\r\n\r\n")
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        request = self.far.one
        self.near.withheld = 1.0
        request.answer(body=bytes(size))
        yield self.until(lambda: not self.far_link._under_way and not self.near._scheduled)
        for _ in range(50):
            yield deferLater(reactor, 0.002)
        unread = self.near.unconsumed() * MAX_RECORD
        self.assertGreater(unread, size // 2, "what nobody takes stays in the journal")
        self.assertEqual(request.credit, 0)
        self.far.then = lambda other: other.answer(body=b"quick")
        response = yield self.get()
        self.assertEqual(response.body, b"quick")

        def drain() -> int:
            return sum(len(data) for data in iter(lambda: slow.recv(1 << 20), b""))

        received = yield deferToThread(drain)
        self.assertGreater(received, size)
        self.assertGreaterEqual(request.credit, WINDOW + WINDOW // 4)
        yield self.until(lambda: not self.near.unconsumed())

    @inlineCallbacks
    def test_a_body_that_is_not_the_one_that_was_sent_is_cut(self) -> Test:
        for length in (2000, None):
            self.far.requests.clear()
            answer = self.talk(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\n\r\n")
            yield self.until(lambda: self.far.requests and self.far.one.complete)
            request = self.far.one
            right, wrong = request.writer(), PartWriter(request.exchange, Side.EGRESS)
            parts = right.head(ResponseHead(200, length=length), flush=True)
            right.data(bytes(2000))
            parts += wrong.head(ResponseHead(200), flush=True)[:0] + wrong.data(b"x" * 2000, flush=True)
            self.far.send([*parts, *right.end()[-1:]])
            yield self.assertFailure(answer, ConnectionResetError)
        self.assertEqual(self.ingress.counters()["cut"], 2)

    @inlineCallbacks
    def test_a_body_of_another_length_than_the_service_announced_is_cut(self) -> Test:
        for length in (10, 3000):
            self.far.then = lambda request, length=length: request.answer(body=bytes(2000), length=length)
            yield self.assertFailure(
                self.talk(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\n\r\n"), ConnectionResetError
            )

    @inlineCallbacks
    def test_parts_that_contradict_each_other_end_the_exchange(self) -> Test:
        answer = self.get()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        writer = self.far.one.writer()
        end = writer.end()
        self.far.send(end)
        response = yield answer
        self.assertEqual(response.status, 502)
        self.assertIn("far", json.loads(response.body)["detail"])
        yield self.until(lambda: self.far.cancels)

    @inlineCallbacks
    def test_what_is_no_part_is_dropped(self) -> Test:
        self.far_link.commit([Outgoing(b"\x63\x01rubbish", RESPONSES)])
        yield self.until(lambda: self.ingress.counters()["malformed_parts"] == 1)
        yield self.until(lambda: not self.near.unconsumed())
