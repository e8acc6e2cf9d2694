"""
How exchanges end that do not end well: for the caller, and for the far side.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from hoft.interfaces import LinkState, Lost
from hoft.web.crossing.exchange import (
    REQUESTS,
    Kind,
    Part,
    PartWriter,
    Side,
    decode_part,
    encode_credit,
    encode_part,
)
from hoft.web.http.heads import ResponseHead
from hoft.web.http.problems import connection_refused, response_incomplete
from hoft.web.ingress import ingress
from tests.web.callers import IngressCase, Received, Response
from tests.web.listening import Test
from tests.web.loopback import pair

GET = b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\n\r\n"


class EndCase(IngressCase):
    """Nothing is kept: what a caller does not wait for is cancelled."""

    def setUp(self) -> None:
        super().setUp()
        self.routing = evolve(self.routing, result_ttl=0)
        self.ingress.reconfigure(self.routing)

    def detail(self, response: Response) -> str:
        return str(json.loads(response.body)["detail"])

    @inlineCallbacks
    def arrived(self) -> Test:
        yield self.until(lambda: self.far.requests and self.far.one.complete)

    def check_over(self, **counts: int) -> None:
        """No exchange is left, and how they ended."""
        counters = self.ingress.counters()
        self.assertEqual(counters["waiting"], 0)
        for name, count in counts.items():
            self.assertEqual(counters[name], count, name)


class DeadlineTests(EndCase):
    @inlineCallbacks
    def test_a_silent_peer(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, deadline=3600.0))
        started = time.monotonic()
        response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.3")
        self.assertLess(time.monotonic() - started, 30.0)  # of the hour without the field
        self.assertEqual(response.status, 504)
        self.assertIn("0.3 s", self.detail(response))
        self.assertIn(b"http_response_timeout", response.fields(b"proxy-status")[0])
        self.assertEqual(json.loads(response.body)["exchange"], self.far.one.exchange.hex())
        yield self.until(lambda: self.far.cancels == [self.far.one.exchange])
        self.check_over(problems=1)

    @inlineCallbacks
    def test_a_silent_link(self) -> Test:
        """Nothing ever crosses: the caller hears of it in time, the far side once it can."""
        self.near.open = False
        response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.2")
        self.assertEqual(response.status, 504)
        self.near.heal()
        yield self.until(lambda: self.far.cancels)

    @inlineCallbacks
    def test_the_configured_deadline(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, deadline=0.2))
        response = yield self.get()
        self.assertEqual(response.status, 504)

    @inlineCallbacks
    def test_a_response_that_has_begun_is_cut(self) -> Test:
        answer = self.talk(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\nHoft-Deadline: 0.4\r\n\r\n")
        yield self.arrived()
        self.far.send(self.far.one.writer().head(ResponseHead(200), flush=True))
        yield self.assertFailure(answer, ConnectionResetError)
        yield self.until(lambda: self.far.cancels)
        self.check_over(cut=1)

    @inlineCallbacks
    def test_a_request_that_does_not_become_complete(self) -> Test:
        caller = self.connect()
        caller.sendall(
            b"POST /svc/demo/ HTTP/1.1\r\nHost: a\r\nHoft-Deadline: 0.2\r\nContent-Length: 9\r\n\r\nhalf"
        )
        answer = yield deferToThread(caller.recv, 65536)
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 "), answer)
        self.assertEqual(self.near.records, [], "nothing had been sent, so there is nothing to cancel")

    @inlineCallbacks
    def test_what_was_not_sent_of_a_request_that_has_ended_is_not_sent_any_more(self) -> Test:
        """Nor what was on its way into the journal."""
        self.near.open = False
        caller = self.connect()
        yield deferToThread(caller.sendall, self._begins(2_000_000, b"0.4") + bytes(1_500_000))
        answer = yield deferToThread(caller.recv, 65536)
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 "), answer)
        self.assertGreater(len(self.near.records), 15)
        yield self.until(lambda: self.near.backlog() < 100)
        self.near.heal()
        yield self.until(lambda: self.far.cancels)
        self.assertEqual(self.far.requests, {})

    @inlineCallbacks
    def test_what_was_not_sent_of_a_request_that_is_answered_already_is_not_sent_any_more(self) -> Test:
        """Whether the rest of it is here or is still to come."""
        for length in (1_900_000, 2_000_000):
            caller = self.connect()
            yield deferToThread(caller.sendall, self._begins(length, b"60") + bytes(700_000))
            yield self.until(lambda: self.far.requests)
            self.near.open = False
            yield deferToThread(caller.sendall, bytes(1_200_000))
            yield self.until(lambda: self.near.backlog() > 500_000)
            self.far.one.abort(connection_refused("service.example:81"))
            answer = yield deferToThread(caller.recv, 65536)
            self.assertTrue(answer.startswith(b"HTTP/1.1 502 "), answer)
            yield self.until(lambda: self.near.backlog() < 100)
            self.near.heal()
            yield self.until(lambda: self.far.cancels)
            self.far.requests.clear()
            self.far.cancels.clear()

    def _begins(self, length: int, deadline: bytes) -> bytes:
        """The head of a request."""
        head = b"POST /svc/demo/ HTTP/1.1\r\nHost: a\r\nHoft-Deadline: %s\r\nContent-Length: %d\r\n\r\n"
        return head % (deadline, length)

    @inlineCallbacks
    def test_answers_that_come_too_late_are_dropped(self) -> Test:
        yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.2")
        self.far.one.answer(body=os.urandom(300_000))
        yield self.until(lambda: self.ingress.counters()["stray_parts"] == 7)
        yield self.until(lambda: not self.near.unconsumed())
        yield deferLater(reactor, 0.05)
        self.assertEqual(len(self.far.cancels), 1, "it was cancelled already")


class AbortTests(EndCase):
    @inlineCallbacks
    def test_what_the_far_side_finds_wrong_is_the_answer(self) -> Test:
        self.far.then = lambda request: request.abort(connection_refused("service.example:81"))
        response = yield self.get()
        self.assertEqual(response.status, 502)
        self.assertIn("service.example:81", self.detail(response))
        self.assertIn(b"error=connection_refused", response.fields(b"proxy-status")[0])
        self.assertEqual(json.loads(response.body)["exchange"], self.far.one.exchange.hex())
        yield self.until(lambda: not self.near.unconsumed())
        self.assertEqual(self.far.cancels, [], "the far side knows")

    @inlineCallbacks
    def test_a_response_that_the_service_does_not_finish_is_cut(self) -> Test:
        def half(request: Received) -> None:
            writer = request.writer()
            self.far.send(writer.head(ResponseHead(200, length=5000)) + writer.data(bytes(1000), flush=True))
            reactor.callLater(0.05, request.abort, response_incomplete("it was cut short"))

        self.far.then = half
        yield self.assertFailure(self.talk(GET), ConnectionResetError)
        self.check_over(cut=1)

    @inlineCallbacks
    def test_a_refusal_while_the_body_is_still_coming(self) -> Test:
        caller = self.begin_upload(90_000_000)
        yield self.until(lambda: self.far.requests)
        self.far.one.abort(connection_refused("service.example:81"))
        answer = yield deferToThread(caller.recv, 65536)
        self.assertTrue(answer.startswith(b"HTTP/1.1 502 "), answer)
        caller.sendall(bytes(1_000_000))
        self.check_over(problems=1)


class CallerTests(EndCase):
    @inlineCallbacks
    def test_a_caller_that_goes_away_cancels_its_call(self) -> Test:
        caller = self.connect()
        caller.sendall(GET)
        yield self.arrived()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        yield self.until(lambda: self.far.cancels == [self.far.one.exchange])
        self.check_over(callers_gone=1)

    @inlineCallbacks
    def test_a_caller_that_goes_away_during_its_upload(self) -> Test:
        caller = self.begin_upload(90_000_000)
        yield self.until(lambda: self.far.requests)
        caller.close()
        yield self.until(lambda: self.far.cancels)
        self.assertFalse(self.far.one.complete)
        self.check_over()

    @inlineCallbacks
    def test_a_caller_that_goes_away_during_the_response(self) -> Test:
        caller = self.connect()
        caller.sendall(GET)
        yield self.arrived()
        self.far.one.answer(body=bytes(20_000_000))
        yield deferToThread(caller.recv, 65536)
        caller.close()
        yield self.until(lambda: self.far.cancels)
        yield self.until(lambda: not self.near.unconsumed())
        self.check_over(callers_gone=1)

    @inlineCallbacks
    def test_a_half_closing_caller_is_answered(self) -> Test:
        answer = self.ask(GET, half_close=True)
        yield self.arrived()
        yield deferLater(reactor, 0.02)
        self.far.one.answer(body=b"all the same")
        response = yield answer
        self.assertEqual(response.body, b"all the same")

    @inlineCallbacks
    def test_pipelined_calls_are_answered_in_order(self) -> Test:
        def then(request: Received) -> None:
            assert request.head is not None
            request.answer(body=request.head.target)

        self.far.then = then
        calls = b"".join(b"GET /svc/demo/%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(20))
        received = yield self.talk(
            calls + b"GET /svc/demo/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        bodies = [piece.rpartition(b"\r\n\r\n")[2] for piece in received.split(b"HTTP/1.1 200")[1:]]
        self.assertEqual(bodies, [*(b"/base/%d" % n for n in range(20)), b"/base/last"])


class LinkTests(EndCase):
    @inlineCallbacks
    def test_a_link_that_is_stopped(self) -> Test:
        answer = self.get()
        yield self.arrived()
        self.near.change(LinkState.STOPPED)
        response = yield answer
        self.assertEqual(response.status, 502)
        self.assertEqual(json.loads(response.body)["type"].rpartition("/")[2], "outcome-unknown")

    @inlineCallbacks
    def test_a_link_that_is_down_for_a_while(self) -> Test:
        answer = self.get()
        yield self.arrived()
        self.near.change(LinkState.DOWN)
        self.near.change(LinkState.UP)
        self.far.one.answer(body=b"after all")
        response = yield answer
        self.assertEqual(response.body, b"after all")

    @inlineCallbacks
    def test_a_link_that_is_closed(self) -> Test:
        yield self.near.close()
        response = yield self.get()
        self.assertEqual(response.status, 503)

    @inlineCallbacks
    def test_a_request_that_the_journal_has_lost_a_part_of(self) -> Test:
        """Whatever is left of that part: its caller hears at once, and nobody else."""
        answer = self.get()
        yield self.arrived()
        another = self.get()
        yield self.until(lambda: len(self.far.requests) == 2)
        lost, other = self.ingress._waiting.values()
        self.ingress.recordsLost(self.near, [Lost(lost.last, REQUESTS, bytes(30))])
        response = yield answer
        self.assertEqual(response.status, 502)
        self.assertEqual(json.loads(response.body)["type"].rpartition("/")[2], "outcome-unknown")
        self.far.requests[other.id].answer(body=b"fine")
        response = yield another
        self.assertEqual(response.body, b"fine")

    @inlineCallbacks
    def test_a_restored_peer_leaves_the_outcome_unknown(self) -> Test:
        answer = self.get()
        yield self.arrived()
        self.ingress.peerRolledBack(self.near, [])
        response = yield answer
        self.assertEqual(response.status, 502)
        self.assertEqual(json.loads(response.body)["type"].rpartition("/")[2], "outcome-unknown")

    @inlineCallbacks
    def test_a_call_that_is_sent_all_the_same_goes_on(self) -> Test:
        self.near.open = False
        answer = self.get()
        yield self.until(lambda: len(self.near.records) == 1)
        for _ in range(3):
            yield deferLater(reactor, 0)
        self.ingress.peerRolledBack(self.near, [1])
        self.far.then = lambda request: request.answer(body=b"sent")
        self.near.heal()
        response = yield answer
        self.assertEqual(response.body, b"sent")


class StrayTests(EndCase):
    @inlineCallbacks
    def test_responses_to_calls_of_an_earlier_life(self) -> Test:
        for number in range(2):
            writer = PartWriter(bytes([number]) * 16, Side.EGRESS)
            parts = writer.head(ResponseHead(200)) + writer.data(bytes(200_000))
            self.far.send(parts)
        yield self.until(lambda: self.ingress.counters()["stray_parts"] == 8)
        yield self.until(lambda: len(self.far.cancels) == 2)
        self.assertEqual(set(self.far.cancels), {bytes(16), b"\x01" * 16})
        yield self.until(lambda: not self.near.unconsumed())

    @inlineCallbacks
    def test_a_peer_that_may_have_forgotten_is_told_again(self) -> Test:
        poke = encode_credit(bytes(16), Side.EGRESS, 1)
        for _ in range(3):
            self.far.send([poke])
        yield self.until(lambda: self.ingress.counters()["stray_parts"] == 3)
        self.ingress.peerRolledBack(self.near, [])
        self.far.send([poke])
        yield self.until(lambda: len(self.far.cancels) == 2)

    @inlineCallbacks
    def test_they_are_found_out_after_a_restart(self) -> Test:
        """Large records are handed up again without their payload."""
        self.near.detach()
        writer = PartWriter(bytes(16), Side.EGRESS)
        self.far.send(writer.head(ResponseHead(200)) + writer.data(bytes(2_000_000)))
        yield self.until(lambda: self.near.unconsumed() > 30)
        self.near.attach(self.ingress)
        yield self.until(lambda: not self.near.unconsumed())
        self.assertEqual(self.far.cancels, [bytes(16)])

    @inlineCallbacks
    def test_what_only_an_ingress_may_send_is_no_part_of_a_response(self) -> Test:
        self.far.send([encode_credit(bytes(16), Side.INGRESS, 1)])
        yield self.until(lambda: self.ingress.counters()["malformed_parts"] == 1)
        yield self.until(lambda: not self.near.unconsumed())
        self.assertEqual(self.far.cancels, [])

    @inlineCallbacks
    def test_an_exchange_belongs_to_its_link(self) -> Test:
        """Another peer that knew the id could not answer in its place."""
        other, other_far = pair(reactor, seed=3, far="other")
        other.attach(self.ingress)
        answer = self.get()
        yield self.arrived()
        writer = self.far.one.writer()
        self.far.link, link = other_far, self.far.link
        self.far.send(writer.head(ResponseHead(200)) + writer.data(b"forged") + writer.end())
        self.far.link = link
        yield self.until(lambda: self.ingress.counters()["stray_parts"] == 1)
        self.far.one.answer(body=b"true")
        response = yield answer
        self.assertEqual(response.body, b"true")


class ContradictionTests(EndCase):
    @inlineCallbacks
    def answered_with(self, *payloads: bytes) -> Test:
        """The far side sends these one by one; the exchange is given up, and nothing is let go of twice."""
        self.far.requests.clear()
        answer = self.get()
        yield self.arrived()
        exchange = self.far.one.exchange
        for payload in payloads:
            self.far.send([encode_part(evolve(decode_part(payload), exchange=exchange))])
            yield self.until(lambda: not self.far_link.backlog())
        response = yield answer
        self.assertEqual(response.status, 502)
        yield self.until(lambda: exchange in self.far.cancels)
        self.check_over()

    @inlineCallbacks
    def test_whatever_the_order(self) -> Test:
        writer = PartWriter(bytes(16), Side.EGRESS)
        data = (writer.head(ResponseHead(200)) + writer.data(b"x", flush=True))[1]
        end = writer.end()[-1]
        other = PartWriter(bytes(16), Side.EGRESS)
        (first,) = other.data(b"y", flush=True)
        yield self.answered_with(first)
        yield self.answered_with(data, end, first)
        yield self.answered_with(end, data, first)
        short = PartWriter(bytes(16), Side.EGRESS)
        short.head(ResponseHead(200), flush=True)
        yield self.answered_with(data, short.end()[-1])
        whole = PartWriter(bytes(16), Side.EGRESS)
        (message,) = whole.head(ResponseHead(200)) + whole.end()
        for part in (data, end):
            yield self.answered_with(part, message)

    @inlineCallbacks
    def test_a_whole_response_beside_one_that_has_begun(self) -> Test:
        writer = PartWriter(bytes(16), Side.EGRESS)
        (head,) = writer.head(ResponseHead(200), flush=True)
        whole = PartWriter(bytes(16), Side.EGRESS)
        (message,) = whole.head(ResponseHead(200)) + whole.end()
        answer = self.assertFailure(self.talk(GET), ConnectionResetError)
        yield self.arrived()
        exchange = self.far.one.exchange
        for payload in (head, message):
            self.far.send([encode_part(evolve(decode_part(payload), exchange=exchange))])
            yield self.until(lambda: not self.far_link.backlog())
        yield answer
        yield self.until(lambda: exchange in self.far.cancels)
        self.check_over()

    @inlineCallbacks
    def test_what_follows_a_whole_response_is_of_no_use(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"whole")
        response = yield self.get()
        self.assertEqual(response.body, b"whole")
        request = self.far.one
        request.answer(body=b"again")
        self.far.send(request.writer().head(ResponseHead(200), flush=True))
        yield self.until(lambda: self.ingress.counters()["stray_parts"] == 2)
        self.check_over()

    @inlineCallbacks
    def test_a_message_whose_head_is_none(self) -> Test:
        for body in (b"\0\0\0\1\x80", b"\0\0\0\1\xff\0", b"\0\0\0\2{}"):
            yield self.answered_with(encode_part(Part(Kind.MESSAGE, Side.EGRESS, bytes(16), 0, body)))


class StopTests(EndCase):
    @inlineCallbacks
    def test_waiting_callers_are_told(self) -> Test:
        answer = self.get()
        yield self.arrived()
        stopped: Deferred[None] = self.ingress.stop()
        response = yield answer
        self.assertEqual(response.status, 503)
        yield stopped
        yield self.until(lambda: self.far.cancels)
        self.check_over(problems=1)

    @inlineCallbacks
    def test_responses_under_way_come_to_their_end(self) -> Test:
        answer = self.ask(GET)
        yield self.arrived()
        writer = self.far.one.writer()
        self.far.send(writer.head(ResponseHead(200)) + writer.data(b"be", flush=True))
        yield self.until(lambda: not self.near.unconsumed() or self.ingress.factory.connections)
        yield deferLater(reactor, 0.05)
        stopped = self.ingress.stop()
        self.far.send(writer.data(b"gun") + writer.end())
        response = yield answer
        self.assertEqual(response.body, b"begun")
        yield stopped

    @inlineCallbacks
    def test_but_only_for_so_long(self) -> Test:
        self.patch(ingress, "GRACE", 0.2)
        answer = self.assertFailure(self.talk(GET), ConnectionResetError)
        yield self.arrived()
        self.far.send(self.far.one.writer().head(ResponseHead(200), flush=True))
        yield deferLater(reactor, 0.05)
        yield self.ingress.stop()
        yield answer

    @inlineCallbacks
    def test_nobody_is_let_in_any_more(self) -> Test:
        yield self.ingress.stop()
        received = yield self.talk(GET).addErrback(lambda failure: failure.trap(ConnectionResetError) and b"")
        self.assertEqual(received, b"")
