"""
Responses that are sent to who wants them: what a receiver gets, what it never gets, over restarts.
"""

from __future__ import annotations

import json
import os
import time
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from hoft.config import Caller
from hoft.errors import LocalError
from hoft.tokens import hash_token
from hoft.web.client.agent import ExactAgent
from hoft.web.http.heads import ResponseHead
from hoft.web.http.problems import connection_refused
from hoft.web.ingress import ingress
from hoft.web.ingress.callbacks import delivering, receivers
from hoft.web.ingress.callbacks import rows as callback_rows
from hoft.web.ingress.callbacks.receivers import PARALLEL
from hoft.web.ingress.callbacks.rows import State
from hoft.web.ingress.kept_response import KeptResponse
from tests.web.listening import Test
from tests.web.loopback import Transaction
from tests.web.receiving import CallbackCase, verified
from tests.web.services import Names, NamingReactor, Received, Service
from tests.web.test_keeping import Steps


class DeliveryTests(CallbackCase):
    @inlineCallbacks
    def test_the_response_comes_signed_with_status_fields_and_body(self) -> Test:
        response = yield self.order(b"Authorization: Basic c2VjcmV0", b"Cookie: a=secret")
        where = self.where(response)
        self.assertEqual(response.fields(b"preference-applied"), [])
        self.assertEqual(self.json(response)["callback"]["state"], "waiting")
        self.assertEqual(self.near.durable, 1, "on disk before the caller hears of it")
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        head = (
            (b"Content-Type", b"application/x-order"),
            (b"Location", b"http://service.example:81/base/new"),
            (b"X-A", b"1"),
            (b"X-A", b"2"),
            (b"Webhook-Signature", b"v1,forged"),
            (b"Host", b"elsewhere"),
        )
        self.far.one.answer(201, head, b"\x00done")
        yield self.delivered()
        [got] = self.receiver.requests
        self.assertEqual(got.line, b"POST /hooks/order?id=7 HTTP/1.1")
        self.assertEqual(got.body, b"\x00done")
        self.verify(got)
        id = where.rpartition(b"/")[2]
        self.assertEqual(got.values(b"webhook-id"), [id + b"_201"], "the status is signed, too")
        self.assertEqual(got.values(b"hoft-request-id"), [id])
        self.assertEqual(got.values(b"hoft-status"), [b"201"])
        self.assertEqual(got.values(b"hoft-state"), [b"done"])
        self.assertEqual(got.values(b"host"), [b"127.0.0.1:%d" % self.hooks])
        self.assertEqual(got.values(b"content-type"), [b"application/x-order"])
        self.assertEqual(got.values(b"hoft-response-location"), [b"/svc/demo/new"])
        self.assertEqual(got.values(b"hoft-response-x-a"), [b"1", b"2"])
        self.assertEqual(got.values(b"hoft-response-host"), [b"elsewhere"])
        self.assertNotIn(b"secret", got.head)
        self.assertNotIn(b"c2VjcmV0", got.head)
        assert self.far.one.head is not None
        self.assertNotIn(b"Hoft-Callback", dict(self.far.one.head.headers))
        yield self.until(lambda: self.row().state is State.DELIVERED)
        status = yield self.get(where)
        self.assertEqual(self.json(status)["callback"]["attempts"], 1)
        result = yield self.get(where + b"/result")
        self.assertEqual((result.status, result.body), (201, b"\x00done"), "it stays as well")

    @inlineCallbacks
    def test_a_problem_is_told_too(self) -> Test:
        self.far.then = lambda request: request.abort(connection_refused("http://service.example:81"))
        yield self.order()
        yield self.delivered()
        [got] = self.receiver.requests
        self.verify(got)
        self.assertEqual(got.values(b"hoft-state") + got.values(b"hoft-status"), [b"failed", b"502"])
        self.assertEqual(got.values(b"content-type"), [b"application/problem+json"])
        self.assertTrue(json.loads(got.body)["type"].endswith("connection-refused"))

    @inlineCallbacks
    def test_a_caller_may_wait_a_little_all_the_same(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"soon")
        response = yield self.order(b"Prefer: respond-async, wait=10")
        self.assertEqual((response.status, response.body), (200, b"soon"))
        yield self.delivered()
        self.assertEqual(self.receiver.requests[0].body, b"soon")

    @inlineCallbacks
    def test_a_large_body_is_in_memory_a_piece_at_a_time(self) -> Test:
        body = os.urandom(6_000_000)
        self.far.then = lambda request: request.answer(body=body, length=None)
        read, most = self.near.read, 0

        def counting(ids: Any) -> Any:
            nonlocal most
            most = max(most, len(ids))
            return read(ids)

        progress, times = delivering.Attempt._progress, 0

        def progressing(attempt: delivering.Attempt) -> None:
            nonlocal times
            times += 1
            progress(attempt)

        self.patch(self.near, "read", counting)
        self.patch(delivering.Attempt, "_progress", progressing)
        self.receiver.script = lambda service, request: service.answer(b"HTTP/1.1 200 \r\n\r\n")
        yield self.order()
        yield self.delivered()
        [got] = self.receiver.requests
        self.assertEqual(got.body, body)
        self.assertEqual(got.values(b"content-length"), [b"6000000"])
        self.verify(got)
        self.assertLess(most << 16, 1 << 20)
        self.assertGreater(times, 3 * len(body) >> 16, "each piece gives it more time")

    @inlineCallbacks
    def test_a_receiver_that_does_not_read_holds_the_body_up(self) -> Test:
        body = os.urandom(400_000)
        self.far.then = lambda request: request.answer(body=body)
        response = yield self.post(b"order", b"Prefer: respond-async")
        yield self.reach(self.where(response), "done")
        [kept] = self.ingress.keeper.kept.values()
        producer = KeptResponse(kept, self.near, lambda: None)
        pieces: list[bytes] = []

        def write(data: bytes) -> None:
            pieces.append(data)
            producer.pauseProducing()

        reading = producer.read(write)
        for count in range(1, 4):
            yield self.until(partial(_has, pieces, count))
            yield deferLater(reactor, 0.01)
            self.assertEqual(len(pieces), count)
            producer.resumeProducing()
        producer.stopProducing()
        yield deferLater(reactor, 0.01)
        self.assertLess(len(b"".join(pieces)), len(body))
        self.assertNoResult(reading)

    @inlineCallbacks
    def attempts(self) -> Steps:
        yield self.until(lambda: self.ingress.callbacks._attempts)
        return list(self.ingress.callbacks._attempts)

    @inlineCallbacks
    def test_a_receiver_that_does_not_answer_is_given_up_at_a_deadline(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.script = lambda service, request: None
        yield self.order()
        [attempt] = yield self.attempts()
        yield self.delivered()
        now = time.monotonic()
        self.assertGreater(attempt.due, now + 20)
        self.assertLess(attempt.due, now + 31)
        attempt.due = now
        self.ingress.tick()
        yield self.until(lambda: self.receiver.connections[0].lost)
        self.assertEqual(self.row().state, State.PENDING)

    @inlineCallbacks
    def test_a_receiver_that_takes_it_too_slowly_is_given_up(self) -> Test:
        self.far.then = lambda request: request.answer(body=bytes(1_000_000))
        self.patch(self.receiver, "protocol", Deaf)
        yield self.order()
        [attempt] = yield self.attempts()
        now = time.monotonic()
        self.patch(self.ingress.keeper, "clock", lambda: now + 10_000)
        attempt._progress()
        self.assertLess(attempt.due, now + 100)

    @inlineCallbacks
    def test_the_status_counts_whatever_becomes_of_the_rest_of_an_answer(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        yield self.order()
        [attempt] = yield self.attempts()
        yield self.delivered()
        yield self.until(lambda: attempt.due < time.monotonic() + 10)
        self.ingress.callbacks.tick(attempt.due)
        yield self.until(lambda: self.row().state is State.DELIVERED)

    @inlineCallbacks
    def test_a_head_in_several_parts_and_more_fields_than_a_server_takes(self) -> Test:
        fields = tuple((b"X-%d" % number, b"v" * 1000) for number in range(150))
        yield self.order()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        writer = self.far.one.writer()
        head = ResponseHead(203, b"Fine", fields, 4)
        self.far.send(writer.head(head) + writer.data(b"done") + writer.end())
        yield self.delivered()
        [got] = self.receiver.requests
        self.assertEqual(got.values(b"hoft-status"), [b"203"])
        self.verify(got)
        self.assertEqual(got.values(b"hoft-response-x-0"), [b"v" * 1000])
        [left_out] = got.values(b"hoft-fields-left-out")
        self.assertGreater(int(left_out), 140)
        self.assertLess(len(got.head), delivering.MAX_FIELDS + 1000)

    @inlineCallbacks
    def test_a_response_without_body(self) -> Test:
        self.far.then = lambda request: request.answer(204, length=None)
        yield self.order()
        yield self.delivered()
        [got] = self.receiver.requests
        self.assertEqual((got.body, got.values(b"content-length")), (b"", [b"0"]))
        self.verify(got)

    @inlineCallbacks
    def test_a_response_to_head_has_no_body_whatever_length_it_says(self) -> Test:
        self.far.then = lambda request: request.answer(length=500)
        yield self.get(b"/svc/demo/", b"Hoft-Callback: " + self.url, method=b"HEAD")
        yield self.delivered()
        [got] = self.receiver.requests
        self.assertEqual((got.body, got.values(b"content-length")), (b"", [b"0"]))
        self.verify(got)

    @inlineCallbacks
    def test_what_a_receiver_says_beside_its_status_is_read_within_bounds(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.says(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 20))
        yield self.order()
        yield self.delivered()
        yield self.until(lambda: self.row().state is State.DELIVERED)
        yield self.until(lambda: self.receiver.connections[0].lost)


def _has(pieces: list[bytes], count: int) -> bool:
    return len(pieces) >= count


class Deaf(Service):
    """Reads nothing."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.pauseProducing()


class RefusedTests(CallbackCase):
    """Nothing is sent where nobody has registered, nor is the request accepted."""

    @inlineCallbacks
    def refused(self, status: int, url: bytes, *fields: bytes) -> Steps:
        response = yield self.order(*fields, url=url)
        self.assertEqual(response.status, status, url)
        self.assertEqual(self.ingress.keeper.kept, {})
        self.assertEqual(self.far.requests, {})
        self.assertEqual(self.receiver.connections, [])
        return self.json(response)

    @inlineCallbacks
    def test_other_places(self) -> Test:
        port = self.hooks
        for url in (
            b"http://127.0.0.1:%d/" % port,
            b"http://127.0.0.1:%d/hooks2" % port,
            b"http://127.0.0.1:%d/hooks/../x" % port,
            b"http://127.0.0.1:%d/hooks/%%2e%%2e/x" % port,
            b"https://127.0.0.1:%d/hooks" % port,
            b"http://localhost:%d/hooks" % port,
            b"http://127.0.0.1:%d/hooks" % (port - 1),
            b"http://evil.example/hooks",
        ):
            problem = yield self.refused(403, url)
            self.assertTrue(problem["type"].endswith("callback-refused"), url)

    @inlineCallbacks
    def test_what_is_no_url(self) -> Test:
        for url in (
            b"hooks",
            b"ftp://127.0.0.1/hooks",
            b"http://user:word@127.0.0.1:%d/hooks" % self.hooks,
            b"http://127.0.0.1:%d/hooks#part" % self.hooks,
            b"http://127.0.0.1:%d/hooks?" % self.hooks + b"x" * 2048,
            b"http://h\xe9/",
        ):
            problem = yield self.refused(400, url)
            self.assertTrue(problem["type"].endswith("malformed-request"), url)
            self.assertNotIn("word", problem["detail"])
        yield self.refused(400, self.url, b"Hoft-Callback: " + self.url)

    @inlineCallbacks
    def test_where_nothing_is_registered_or_kept(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, result_ttl=0.0))
        problem = yield self.refused(403, self.url)
        self.assertIn("result_ttl", problem["detail"])
        self.ingress.reconfigure(self.routing)
        self.ingress.callbacks.reconfigure(None)
        yield self.refused(403, self.url)

    @inlineCallbacks
    def test_callers_that_a_registration_does_not_name(self) -> Test:
        callers = [Caller(name, (hash_token(name.encode()),)) for name in ("ann", "bob")]
        self.ingress.reconfigure(evolve(self.routing, callers=callers))
        self.register(f"http://127.0.0.1:{self.hooks}/hooks", callers=("ann",))
        problem = yield self.refused(403, self.url, b"Authorization: Bearer bob")
        self.assertIn("for bob", problem["detail"])
        self.far.then = lambda request: request.answer(body=b"done")
        response = yield self.order(b"Authorization: Bearer ann")
        self.where(response)
        yield self.delivered()

    @inlineCallbacks
    def test_names_that_lead_into_a_network_of_ours(self) -> Test:
        names = Names()
        self.ingress.callbacks.agent = ExactAgent(NamingReactor(names), 1.0)
        self.far.then = lambda request: request.answer(body=b"done")
        url = b"http://hooks.example:%d/" % self.hooks
        self.register(url.decode())
        for number, address in enumerate(
            ("127.0.0.1", "169.254.169.254", "10.0.0.1", "::ffff:127.0.0.1", "fe80::1"), 1
        ):
            names.answers = [["93.184.216.34", address]]
            response = yield self.order(url=url)
            where = self.where(response)
            yield self.until(partial(self.failed, number))
            for receiver in self.ingress.callbacks._receivers.values():
                receiver.rests = 0.0
            status = yield self.get(where)
            self.assertIn("not allowed", self.json(status)["callback"]["reason"], address)
        self.assertEqual(self.receiver.connections, [])

    def failed(self, count: int) -> bool:
        return self.ingress.callbacks.counters()["failed"] == count

    @inlineCallbacks
    def test_redirects_are_not_followed(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.says(b"HTTP/1.1 307 Go\r\nLocation: /hooks/else\r\nContent-Length: 0\r\n\r\n")
        yield self.order()
        yield self.delivered()
        yield self.until(lambda: self.row().reason)
        self.assertIn("answered 307", str(self.row().reason))
        self.assertEqual(self.row().state, State.PENDING)
        self.assertEqual(len(self.receiver.requests), 1)


class RestartTests(CallbackCase):
    @inlineCallbacks
    def test_what_was_accepted_is_delivered_in_a_later_life(self) -> Test:
        yield self.order()
        yield self.restart()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        self.far.one.answer(body=b"done")
        yield self.delivered()
        self.verify(self.receiver.requests[0])

    @inlineCallbacks
    def test_what_was_sent_but_not_noted_is_sent_again_under_its_id(self) -> Test:
        self.far.then = lambda request: request.answer(body=os.urandom(100_000))
        self.receiver.script = lambda service, request: None
        yield self.order()
        yield self.delivered()
        yield self.restart()
        self.receiver.says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        yield self.delivered(2)
        first, second = self.receiver.requests
        self.assertEqual(first.values(b"webhook-id"), second.values(b"webhook-id"))
        self.assertEqual(first.body, second.body)
        yield self.until(lambda: self.row().state is State.DELIVERED)
        yield self.restart()
        self.ingress.tick()
        yield deferLater(reactor, 0.05)
        self.assertEqual(len(self.receiver.requests), 2)

    @inlineCallbacks
    def test_an_attempt_that_the_end_of_the_node_breaks_off_does_not_count(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.script = lambda service, request: None
        yield self.order()
        yield self.delivered()
        self.patch(ingress, "GRACE", 0.05)
        yield self.ingress.stop()
        yield self.until(lambda: self.receiver.connections[0].lost)
        self.assertEqual((self.row().state, self.row().attempts), (State.PENDING, 0))

    @inlineCallbacks
    def test_the_end_of_the_node_waits_for_an_attempt_and_begins_no_other(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.script = lambda service, request: None
        for _ in range(PARALLEL + 1):
            yield self.order()
        yield self.delivered(PARALLEL)
        stopping = self.ingress.stop()
        yield deferLater(reactor, 0.02)
        for connection in self.receiver.connections:
            connection.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        yield stopping
        states = [row.state for row in callback_rows.load(Transaction(self.near.database))]
        self.assertEqual(sorted(state.value for state in states), ["delivered"] * PARALLEL + ["pending"])

    @inlineCallbacks
    def test_an_attempt_that_is_due_later_is_made_then(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.says(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
        before = time.time()
        yield self.order()
        yield self.delivered()
        yield self.until(lambda: self.row().attempts)
        due = self.row().due
        assert due is not None
        self.assertGreater(due, before + 4)
        yield self.restart()
        self.ingress.tick()
        self.assertEqual(len(self.receiver.requests), 1)
        self.receiver.says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.ingress.callbacks.tick(time.monotonic() + 10)
        yield self.until(lambda: self.row().state is State.DELIVERED)
        self.assertEqual((self.row().attempts, len(self.receiver.requests)), (2, 2))


class EndTests(CallbackCase):
    """When a callback is not made any more, or not yet."""

    @inlineCallbacks
    def test_nobody_is_told_of_what_its_caller_has_cancelled(self) -> Test:
        response = yield self.order()
        where = self.where(response)
        yield self.until(lambda: self.far.requests)
        yield self.get(where, method=b"DELETE")
        yield self.reach(where, "cancelled")
        yield self.until(lambda: not self.near.database.execute("SELECT * FROM callback").fetchall())
        self.assertEqual(self.receiver.connections, [])

    @inlineCallbacks
    def test_a_result_that_is_deleted_is_not_delivered_again(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.says(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
        response = yield self.order()
        yield self.delivered()
        yield self.until(lambda: self.row().attempts)
        deleted = yield self.get(self.where(response), method=b"DELETE")
        self.assertEqual(deleted.status, 204)
        yield self.until(lambda: not self.near.database.execute("SELECT * FROM callback").fetchall())
        self.ingress.callbacks.tick(time.monotonic() + 10)
        yield deferLater(reactor, 0.05)
        self.assertEqual(len(self.receiver.requests), 1)

    @inlineCallbacks
    def test_a_result_that_is_being_delivered_is_not_deleted(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.script = lambda service, request: None
        response = yield self.order()
        yield self.delivered()
        deleted = yield self.get(self.where(response), method=b"DELETE")
        self.assertEqual(deleted.status, 409)
        self.receiver.connections[0].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        yield self.until(lambda: self.row().state is State.DELIVERED)
        deleted = yield self.get(self.where(response), method=b"DELETE")
        self.assertEqual(deleted.status, 204)

    @inlineCallbacks
    def test_a_result_that_was_lost_is_told_as_a_problem(self) -> Test:
        self.far.then = lambda request: request.answer(body=os.urandom(100_000))
        self.receiver.says(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
        yield self.order()
        yield self.delivered()
        yield self.until(lambda: self.row().attempts == 1)
        self.near.lose_inbox()
        self.ingress.callbacks.tick(time.monotonic() + 10)
        yield self.until(lambda: self.row().attempts == 2)
        self.ingress.callbacks.tick(time.monotonic() + 400)
        yield self.delivered(2)
        got = self.receiver.requests[1]
        self.verify(got)
        self.assertTrue(json.loads(got.body)["type"].endswith("outcome-unknown"))

    @inlineCallbacks
    def test_a_result_that_is_damaged_is_not_sent(self) -> Test:
        yield self.refused_once()
        [kept] = self.ingress.keeper.kept.values()
        channel, payload = self.near._received[kept.records[1]]
        self.near._received[kept.records[1]] = channel, payload[:-1] + bytes([payload[-1] ^ 1])
        self.ingress.callbacks.tick(time.monotonic() + 10)
        yield self.until(lambda: self.row().attempts == 2)
        self.assertIn("not the one that was sent", str(self.row().reason))
        self.assertEqual(len(self.receiver.requests), 1)

    @inlineCallbacks
    def test_a_result_of_a_peer_that_is_not_trusted_any_more_is_not_sent(self) -> Test:
        yield self.refused_once()
        link = self.links.pop("far")
        self.ingress.callbacks.tick(time.monotonic() + 10)
        self.links["far"] = link
        yield self.until(lambda: self.ingress.callbacks.counters()["failed"] == 2)
        [listed] = (yield self.ingress.callbacks.listing())["callbacks"]
        self.assertIn("not trusted any more", listed["reason"])
        self.assertEqual(len(self.receiver.requests), 1)

    @inlineCallbacks
    def refused_once(self) -> Test:
        """A result of several records whose receiver was not well."""
        self.far.then = lambda request: request.answer(body=os.urandom(200_000))
        self.receiver.says(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
        yield self.order()
        yield self.delivered()
        yield self.until(lambda: self.row().attempts == 1)

    @inlineCallbacks
    def test_a_result_is_not_forgotten_while_its_callback_is_pending(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, result_ttl=0.1))
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.says(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
        response = yield self.order()
        where = self.where(response)
        yield self.delivered()
        yield self.until(lambda: self.row().attempts)
        yield deferLater(reactor, 0.15)
        self.ingress.tick()
        yield self.reach(where, "done")
        [kept] = self.ingress.keeper.kept.values()
        self.assertGreater(kept.due, time.monotonic() + 30, "nor is that looked at all the time")
        self.receiver.says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.ingress.callbacks.tick(time.monotonic() + 10)
        yield self.until(lambda: self.row().state is State.DELIVERED)
        self.ingress.keeper.tick(time.monotonic() + 61)
        yield self.reach(where, "expired")

    @inlineCallbacks
    def test_gone_is_for_good_and_for_all_that_goes_there(self) -> Test:
        self.patch(receivers, "PARALLEL", 1)
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.script = lambda service, request: None
        for _ in range(3):
            yield self.order()
        yield self.order(url=self.url + b"8")
        yield self.delivered()
        self.receiver.says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.receiver.connections[0].answer(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        yield self.delivered(2)
        self.assertIn(b"id=78", self.receiver.requests[1].line)
        yield self.until(lambda: self.ingress.callbacks.counters()["delivered"])
        self.assertEqual(self.ingress.callbacks.counters()["dead"], 3)
        for one in (yield self.ingress.callbacks.listing())["callbacks"]:
            self.assertIn("410", one["reason"])

    @inlineCallbacks
    def test_what_is_not_registered_any_more_is_dead_until_it_is_sent_again(self) -> Test:
        response = yield self.order()
        id = self.where(response).rpartition(b"/")[2].decode()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        registrations = self.registrations
        self.ingress.callbacks.reconfigure(None)
        self.far.one.answer(body=b"done")
        yield self.until(lambda: self.row().state is State.DEAD)
        [listed] = (yield self.ingress.callbacks.listing())["callbacks"]
        self.assertEqual((listed["id"], listed["state"]), (id, "dead"))
        self.assertNotIn("id=7", listed["url"], "a query may hold secrets")
        self.assertEqual(self.receiver.connections, [])
        self.registrations = registrations
        yield self.restart()
        self.assertRaises(LocalError, self.ingress.callbacks.resend, "0" * 32)
        self.assertEqual(self.ingress.callbacks.resend(id), 1)
        yield self.delivered()
        self.assertEqual(self.ingress.callbacks.resend("all"), 0)

    @inlineCallbacks
    def test_few_at_once_go_to_one_receiver(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        self.receiver.script = lambda service, request: None
        for _ in range(PARALLEL + 3):
            yield self.order()
        yield self.delivered(PARALLEL)
        yield deferLater(reactor, 0.05)
        self.assertEqual(len(self.receiver.requests), PARALLEL)
        for connection in list(self.receiver.connections):
            connection.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        yield self.delivered(PARALLEL + 3)


class VerifyingTests(SynchronousTestCase):
    """What these tests verify with says no as well."""

    def test_a_forgery(self) -> None:
        key = CallbackCase.keys[0].shared()
        request = Received(b"\r\nwebhook-id: a\r\nwebhook-timestamp: 5\r\nwebhook-signature: v1,AAAA", b"")
        self.assertFalse(verified(key, request, 5.0))
