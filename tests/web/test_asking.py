"""
What callers may ask about, and do with, calls whose results stay at the ingress.
"""

from __future__ import annotations

import json
import os
import time

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from hoft.config import Allowance, Caller
from hoft.interfaces import LinkState
from hoft.tokens import hash_token
from hoft.web.crossing.exchange import WINDOW, PartWriter, Side
from hoft.web.ingress import expiring, ingress, places
from tests.web.listening import Test
from tests.web.test_keeping import ASYNC, KeepingCase

KEY = b'Idempotency-Key: "order-1"'


class LateTests(KeepingCase):
    """A caller waits, and the answer does not come in time."""

    @inlineCallbacks
    def test_its_504_says_where_the_result_will_be_and_what_is_known_of_the_peer(self) -> Test:
        self.near.state = LinkState.LATE
        response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.3")
        problem = self.json(response)
        self.assertEqual((response.status, problem["type"].rpartition("/")[2]), (504, "peer-silent"))
        self.assertIn("far is late: see 'hoft status'", problem["detail"])
        where = problem["status_url"].encode()
        self.assertEqual(response.fields(b"link"), [b'<%b>; rel="status"' % where])
        self.assertEqual(self.far.cancels, [], "the call goes on")
        self.far.one.answer(body=b"better late")
        yield self.reach(where, "done")
        result = yield self.get(where + b"/result")
        self.assertEqual(result.body, b"better late")

    @inlineCallbacks
    def test_what_has_come_already_is_part_of_the_result(self) -> Test:
        body = os.urandom(200_000)
        asked = self.get(b"/svc/demo/", b"Hoft-Deadline: 0.5")
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        writer = self.far.one.writer()
        head = writer.head(self.head(len(body)))
        parts = head + writer.data(body) + writer.end()
        # All but the first part: nothing can be handed to the caller.
        self.far.send(parts[1:])
        response = yield asked
        where = self.json(response)["status_url"].encode()
        self.far.send(parts[:1])
        yield self.reach(where, "done")
        result = yield self.get(where + b"/result")
        self.assertEqual(result.body, body)

    @inlineCallbacks
    def test_the_journal_has_it_before_the_caller_hears_of_it(self) -> Test:
        response = yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.2")
        where = self.json(response)["status_url"].encode()
        self.assertEqual(self.near.durable, 1)
        yield self.restart()
        self.far.one.answer(body=b"later")
        yield self.reach(where, "done")


class KeyTests(KeepingCase):
    """The same Idempotency-Key is the same request."""

    @inlineCallbacks
    def test_the_same_request_gets_the_same_result_and_is_made_once(self) -> Test:
        self.far.then = lambda request: request.answer(201, body=b"made")
        for _ in range(3):
            response = yield self.post(b"order", KEY)
            self.assertEqual((response.status, response.body), (201, b"made"))
        yield self.restart()
        response = yield self.post(b"order", KEY)
        self.assertEqual((response.status, response.body), (201, b"made"))
        self.assertEqual(len(self.far.requests), 1)
        assert self.far.one.head is not None
        self.assertEqual(dict(self.far.one.head.headers)[b"Idempotency-Key"], b'"order-1"')

    @inlineCallbacks
    def test_another_request_is_refused(self) -> Test:
        self.far.then = lambda request: request.answer(201, body=b"made")
        yield self.post(b"order", KEY)
        for options in (
            {"body": b"other"},
            {"body": b"order", "target": b"/svc/demo/else"},
        ):
            response = yield self.post(options["body"], KEY, target=options.get("target", b"/svc/demo/"))
            self.assertEqual(response.status, 422, options)
        response = yield self.post(b"order", KEY, b"Content-Type: text/plain")
        self.assertEqual(response.status, 422)
        response = yield self.post(b"order", KEY, b"User-Agent: another/2")
        self.assertEqual(response.status, 201, "what does not matter may differ")
        self.assertEqual(len(self.far.requests), 1)

    @inlineCallbacks
    def test_one_that_is_under_way_is_a_conflict(self) -> Test:
        response = yield self.post(b"order", KEY, ASYNC)
        where = self.where(response)
        response = yield self.post(b"order", KEY)
        self.assertEqual(response.status, 409)
        self.assertEqual(self.json(response)["status_url"].encode(), where)
        self.assertEqual(response.fields(b"retry-after"), [b"1"])

    @inlineCallbacks
    def test_one_that_is_still_being_sent_is_a_conflict_too(self) -> Test:
        caller = self.connect()
        caller.sendall(b"POST /svc/demo/ HTTP/1.1\r\nHost: a\r\n" + KEY + b"\r\nContent-Length: 5\r\n\r\nor")
        yield self.until(lambda: self.ingress.counters()["waiting"])
        response = yield self.post(b"order", KEY)
        self.assertEqual(response.status, 409)
        caller.close()
        yield self.until(lambda: not self.ingress.counters()["waiting"])
        self.far.then = lambda request: request.answer(201)
        response = yield self.post(b"order", KEY)
        self.assertEqual(response.status, 201, "the key is free again")

    @inlineCallbacks
    def test_a_caller_that_lost_its_connection_finds_the_result(self) -> Test:
        caller = self.connect()
        caller.sendall(
            b"POST /svc/demo/ HTTP/1.1\r\nHost: a\r\n" + KEY + b"\r\nContent-Length: 5\r\n\r\norder"
        )
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        caller.close()
        yield self.until(lambda: not self.ingress.factory.connections)
        self.far.one.answer(201, body=b"made")
        yield self.until(lambda: self.ingress.counters()["kept_done"])
        response = yield self.post(b"order", KEY)
        self.assertEqual((response.status, response.body), (201, b"made"))

    @inlineCallbacks
    def test_a_key_that_is_none(self) -> Test:
        for fields in ((b"Idempotency-Key: ",), (KEY, KEY), (b"Idempotency-Key: " + b"k" * 256,)):
            response = yield self.post(b"", *fields)
            self.assertEqual(response.status, 400, fields)


class CancelTests(KeepingCase):
    @inlineCallbacks
    def test_what_has_not_left_yet_never_does(self) -> Test:
        self.near.open = False
        where = yield self.submit(b"order")
        response = yield self.get(where, method=b"DELETE")
        self.assertEqual((response.status, self.json(response)["state"]), (200, "cancelled"))
        self.assertIn("never left", self.json(response)["problem"]["detail"])
        self.near.heal()
        yield self.until(lambda: self.far.cancels)
        self.assertEqual(self.far.requests, {})
        result = yield self.get(where + b"/result")
        self.assertEqual(result.status, 410)

    @inlineCallbacks
    def test_what_is_under_way_is_cancelled_at_the_far_side(self) -> Test:
        where = yield self.submit(b"order")
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        yield self.reach(where, "acked")
        response = yield self.get(where, method=b"DELETE")
        self.assertIn("may have been made", self.json(response)["problem"]["detail"])
        yield self.until(lambda: self.far.cancels == [self.far.one.exchange])
        self.far.one.answer(body=os.urandom(100_000))
        yield self.until(lambda: self.near.unconsumed() == 0)
        yield self.restart()
        yield self.reach(where, "cancelled")

    @inlineCallbacks
    def test_a_result_that_is_not_wanted_any_more_makes_room_and_frees_its_key(self) -> Test:
        self.far.then = lambda request: request.answer(body=os.urandom(100_000))
        where = yield self.submit(b"order", KEY)
        yield self.reach(where, "done")
        response = yield self.get(where, method=b"DELETE")
        self.assertEqual(response.status, 204)
        yield self.until(lambda: self.near.unconsumed() == 0)
        self.assertEqual(self.ingress.keeper.size, 0)
        response = yield self.get(where)
        self.assertEqual(response.status, 404)
        again = yield self.submit(b"another order", KEY)
        self.assertNotEqual(again, where)

    @inlineCallbacks
    def test_other_methods(self) -> Test:
        where = yield self.submit()
        response = yield self.get(where, method=b"PUT")
        self.assertEqual(response.status, 405)
        self.assertEqual(response.fields(b"allow"), [b"GET, HEAD, DELETE"])


class EventTests(KeepingCase):
    def events(self, stream: bytes) -> list[tuple[int, str]]:
        """Ids and names of all events."""
        found = []
        for block in stream.split(b"\n\n"):
            lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if line and line[:1] != b":")
            if lines:
                json.loads(lines[b"data"])
                found.append((int(lines[b"id"]), lines[b"event"].decode()))
        return found

    @inlineCallbacks
    def test_each_stage_is_told_as_it_is_reached(self) -> Test:
        where = yield self.submit(b"order")
        asked = self.get(where + b"/events")
        yield self.until(lambda: self.ingress.keeper.waiters)
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        yield self.reach(where, "acked")
        self.far.one.answer(body=os.urandom(200_000))
        response = yield asked
        self.assertEqual(response.fields(b"content-type"), [b"text/event-stream"])
        told = self.events(response.body)
        self.assertEqual([name for _, name in told], ["accepted", "acked", "responding", "done"])
        later = yield self.get(where + b"/events", b"Last-Event-ID: %d" % told[1][0])
        self.assertEqual(self.events(later.body), told[2:])

    @inlineCallbacks
    def test_silence_is_filled_with_comments(self) -> Test:
        where = yield self.submit()
        before = time.monotonic()
        caller = self.connect()
        caller.sendall(b"GET " + where + b"/events HTTP/1.1\r\nHost: a\r\n\r\n")
        yield self.until(lambda: self.ingress.keeper.waiters)
        [waiter] = self.ingress.keeper.waiters
        self.assertGreater(waiter.due, before + 10)
        waiter.due = 0.0
        received = b""
        while b"\n: still here\n\n" not in received:
            received += yield deferToThread(caller.recv, 65536)
        caller.close()
        while self.ingress.keeper.waiters:
            waiter.due = 0.0
            yield deferLater(reactor, 0.05)


class BelongingTests(KeepingCase):
    """Results are their caller's."""

    def setUp(self) -> None:
        super().setUp()
        callers = [
            Caller(name, (hash_token(name.encode()),), Allowance(in_flight=2)) for name in ("ann", "bob")
        ]
        self.routing = evolve(self.routing, callers=callers)
        self.ingress.reconfigure(self.routing)

    @staticmethod
    def token(name: bytes) -> bytes:
        return b"Authorization: Bearer " + name

    @inlineCallbacks
    def test_nobody_else_finds_them(self) -> Test:
        where = yield self.submit(b"", self.token(b"ann"))
        mine = yield self.get(where, self.token(b"ann"))
        self.assertEqual(mine.status, 200)
        for path in (where, where + b"/result", where + b"/events"):
            theirs = yield self.get(path, self.token(b"bob"))
            self.assertEqual(theirs.status, 404)
        deleted = yield self.get(where, self.token(b"bob"), method=b"DELETE")
        self.assertEqual(deleted.status, 404)
        listed = yield self.get(b"/_hoft/requests", self.token(b"bob"))
        self.assertEqual(self.json(listed), {"requests": []})

    @inlineCallbacks
    def test_keys_of_two_callers_are_two(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"".join(request.body))
        for name in (b"ann", b"bob"):
            response = yield self.post(name, KEY, self.token(name))
            self.assertEqual((response.status, response.body), (200, name))

    @inlineCallbacks
    def test_one_is_in_flight_until_it_is_done_over_a_restart(self) -> Test:
        for _ in range(2):
            where = yield self.submit(b"", self.token(b"ann"))
        response = yield self.post(b"", ASYNC, self.token(b"ann"))
        self.assertEqual(response.status, 429)
        yield self.restart()
        response = yield self.post(b"", ASYNC, self.token(b"ann"))
        self.assertEqual(response.status, 429)
        yield self.get(where, self.token(b"ann"), method=b"DELETE")
        yield self.submit(b"", self.token(b"ann"))

    @inlineCallbacks
    def test_a_proxied_caller_gets_a_whole_url(self) -> Test:
        response = yield self.get(b"http://service.example/", ASYNC, b"Proxy-Authorization: Bearer ann")
        where = self.where(response)
        self.assertTrue(where.startswith(b"http://127.0.0.1:%d/_hoft/requests/" % self.number), where)


class LimitTests(KeepingCase):
    @inlineCallbacks
    def test_results_beyond_the_quota_are_not_kept(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, results=300_000))
        self.far.then = lambda request: request.answer(body=bytes(200_000))
        first = yield self.submit()
        yield self.reach(first, "done")
        second = yield self.submit()
        status = yield self.reach(second, "failed")
        self.assertTrue(status["problem"]["type"].endswith("no-space"))
        yield self.until(lambda: self.far.cancels)
        result = yield self.get(first + b"/result")
        self.assertEqual(len(result.body), 200_000)
        self.assertEqual(self.ingress.keeper.size, 200_000)

    @inlineCallbacks
    def test_a_result_is_forgotten_when_its_time_has_come(self) -> Test:
        self.routing = evolve(self.routing, result_ttl=0.2, expired_ttl=1.5)
        self.ingress.reconfigure(self.routing)
        self.far.then = lambda request: request.answer(body=bytes(100_000))
        where = yield self.submit(b"order", KEY)
        yield self.reach(where, "done")
        yield deferLater(reactor, 0.25)
        self.ingress.tick()
        status = yield self.reach(where, "expired")
        self.assertIn("done", status["stages"])
        result = yield self.get(where + b"/result")
        self.assertEqual(result.status, 410)
        yield self.until(lambda: self.near.unconsumed() == 0)
        self.assertEqual(self.ingress.keeper.size, 0)
        for _ in range(2):
            again = yield self.post(b"order", KEY)
            self.assertEqual(again.status, 410, "what is known to have been made is not made again")
            self.assertTrue(self.json(again)["type"].endswith("expired"))
            other = yield self.post(b"other", ASYNC, KEY)
            self.assertEqual(other.status, 422)
            yield self.restart()
            yield self.reach(where, "expired")
        yield deferLater(reactor, 1.5)
        self.ingress.tick()
        again = yield self.submit(b"other", KEY)
        self.assertNotEqual(again, where, "the key is free")

    @inlineCallbacks
    def test_of_more_expired_ones_than_are_remembered_the_oldest_are_forgotten(self) -> Test:
        self.patch(expiring, "MAX_EXPIRED", 2)
        self.patch(places, "MAX_KEPT", 2)
        self.ingress.reconfigure(evolve(self.routing, result_ttl=0.01))
        self.far.then = lambda request: request.answer(body=b"made")
        submitted = []
        for _ in range(3):
            submitted.append((yield self.submit()))
            yield self.reach(submitted[-1], "expired")
        found = []
        for where in submitted:
            found.append((yield self.get(where)).status)
        self.assertEqual(found, [404, 200, 200])

    @inlineCallbacks
    def test_a_call_ends_at_its_deadline(self) -> Test:
        where = yield self.submit(b"", b"Hoft-Deadline: 0.2")
        yield deferLater(reactor, 0.25)
        self.ingress.tick()
        status = yield self.reach(where, "failed")
        self.assertTrue(status["problem"]["type"].endswith("peer-silent"))
        yield self.until(lambda: self.far.cancels)

    @inlineCallbacks
    def test_what_was_not_sent_of_a_call_that_is_over_never_is(self) -> Test:
        """Its peer is away: it would take room here all the time, and be made there for nobody."""
        self.near.open = False
        where = yield self.submit(bytes(300_000), b"Hoft-Deadline: 0.2")
        self.ingress.reconfigure(evolve(self.routing, result_ttl=0.5))
        late = yield self.post(bytes(300_000), b"Hoft-Deadline: 0.2")
        self.assertTrue(self.json(late)["type"].endswith("peer-silent"))
        self.assertGreater(self.near.backlog(), 300_000, "this one goes on")
        yield self.reach(where, "failed")
        yield deferLater(reactor, 0.6)
        self.ingress.tick()
        yield self.reach(self.json(late)["status_url"].encode(), "failed")
        yield self.until(lambda: self.near.backlog() < 100)
        self.near.heal()
        yield self.until(lambda: len(self.far.cancels) == 2)
        self.assertEqual(self.far.requests, {})

    @inlineCallbacks
    def test_those_who_do_not_wait_do_not_count_among_those_who_do(self) -> Test:
        self.patch(ingress, "MAX_WAITING", 2)
        self.near.open = False
        for _ in range(20):
            yield self.submit(b"order")
        self.assertEqual(self.ingress.counters()["kept_pending"], 20)
        self.near.heal()
        yield self.until(lambda: len(self.far.requests) == 20)

    @inlineCallbacks
    def test_more_callers_than_may_wait_are_told_to_come_again(self) -> Test:
        self.patch(ingress, "MAX_WAITING", 2)
        waiting = [self.get(b"/svc/demo/") for _ in range(2)]
        yield self.until(lambda: len(self.far.requests) == 2)
        response = yield self.get(b"/svc/demo/")
        self.assertEqual((response.status, response.fields(b"retry-after")), (503, [b"1"]))
        self.assertTrue(self.json(response)["type"].endswith("too-busy"))
        for request in self.far.requests.values():
            request.answer(body=b"well")
        for one in waiting:
            response = yield one
            self.assertEqual((response.status, response.body), (200, b"well"))

    @inlineCallbacks
    def test_more_requests_than_are_kept_are_refused_and_those_that_are_go_on(self) -> Test:
        self.patch(places, "MAX_KEPT", 2)
        where = yield self.submit(b"order")
        yield self.submit(b"order")
        response = yield self.post(b"order", ASYNC)
        self.assertEqual((response.status, response.fields(b"retry-after")), (503, [b"60"]))
        yield self.until(lambda: len(self.far.requests) == 2)
        self.far.requests[bytes.fromhex(where.rpartition(b"/")[2].decode())].answer(body=b"made")
        yield self.reach(where, "done")

    @inlineCallbacks
    def test_where_nothing_is_kept_callers_wait(self) -> Test:
        self.ingress.reconfigure(evolve(self.routing, result_ttl=0))
        self.far.then = lambda request: request.answer(body=b"now")
        response = yield self.get(b"/svc/demo/", ASYNC, KEY)
        self.assertEqual((response.status, response.body), (200, b"now"))
        self.assertEqual(self.ingress.keeper.kept, {})

    @inlineCallbacks
    def test_more_than_the_window_comes_because_it_is_granted(self) -> Test:
        where = yield self.submit()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        writer = self.far.one.writer()
        self.far.send(writer.head(self.head(None)))
        piece = bytes(1 << 20)
        for _ in range((WINDOW // 4 >> 20) + 1):
            self.far.send(writer.data(piece))
        yield self.until(lambda: self.far.one.credit > WINDOW)
        yield self.get(where, method=b"DELETE")


class RefusedTests(KeepingCase):
    """What cannot be kept is not accepted."""

    @inlineCallbacks
    def test_a_full_journal(self) -> Test:
        self.near.full = True
        response = yield self.post(b"order", ASYNC, KEY)
        self.assertEqual(response.status, 507)
        self.assertEqual(self.ingress.keeper.kept, {})
        self.assertEqual(self.ingress.counters()["waiting"], 0)
        self.near.full = False
        yield self.submit(b"order", KEY)

    @inlineCallbacks
    def test_a_node_that_stops_sends_those_who_wait_away_and_goes_on_later(self) -> Test:
        waited = self.get(b"/svc/demo/", b"Prefer: respond-async, wait=30")
        keyed = self.post(b"order", KEY)
        yield self.until(lambda: len(self.ingress.keeper.waiters) == 2)
        yield self.restart()
        response = yield waited
        where = self.where(response)
        late = yield keyed
        self.assertEqual(late.status, 504)
        self.far.then = None
        for request in self.far.requests.values():
            request.answer(body=b"done")
        yield self.reach(where, "done")
        yield self.reach(self.json(late)["status_url"].encode(), "done")


class RolledBackTests(KeepingCase):
    @inlineCallbacks
    def test_nobody_knows_what_became_of_what_was_under_way(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        done = yield self.submit()
        yield self.reach(done, "done")
        self.far.then = None
        where = yield self.submit(b"order")
        yield self.reach(where, "acked")
        self.near.lose_state()
        status = yield self.reach(where, "failed")
        self.assertTrue(status["problem"]["type"].endswith("outcome-unknown"))
        result = yield self.get(done + b"/result")
        self.assertEqual(result.body, b"done", "a result that is here stays")

    @inlineCallbacks
    def test_what_had_not_arrived_and_may_be_made_twice_goes_on(self) -> Test:
        """Far was down, and came back from a backup: no caller has to begin anew."""
        self.near.open = False
        got = yield self.get(b"/svc/demo/", ASYNC)
        keyed = yield self.submit(os.urandom(700_000), b"Idempotency-Key: k")
        posted = yield self.submit(b"order")
        self.near.lose_state()
        self.near.heal()
        self.far.then = lambda request: request.answer(body=b"done")
        for where in (self.where(got), keyed):
            yield self.reach(where, "done")
        status = yield self.reach(posted, "failed")
        self.assertTrue(status["problem"]["type"].endswith("outcome-unknown"))
        self.assertNotIn(b"order", [b"".join(one.body) for one in self.far.requests.values()])

    @inlineCallbacks
    def test_nor_does_what_had_arrived_in_part(self) -> Test:
        """What is acknowledged is not here any more, and may not be there."""
        self.near.open = False
        where = yield self.submit(os.urandom(700_000), b"Idempotency-Key: k")
        [kept] = self.ingress.keeper.kept.values()
        self.ingress.recordsAcknowledged(self.near, kept.sent[:1])
        self.ingress.peerRolledBack(self.near, kept.sent[1:])
        yield self.reach(where, "failed")
        self.near.lose_state()

    @inlineCallbacks
    def test_nor_one_of_whose_response_a_part_is_here(self) -> Test:
        self.near.open = False
        where = yield self.submit(b"order", b"Idempotency-Key: k")
        [kept] = self.ingress.keeper.kept.values()
        writer = PartWriter(kept.id, Side.EGRESS)
        self.far.send(writer.head(self.head(None), flush=True))
        yield self.reach(where, "responding")
        self.ingress.peerRolledBack(self.near, kept.sent)
        yield self.reach(where, "failed")
        self.near.lose_state()

    @inlineCallbacks
    def test_a_result_that_went_with_the_journal_is_a_problem(self) -> Test:
        self.far.then = lambda request: request.answer(body=os.urandom(100_000))
        where = yield self.submit()
        yield self.reach(where, "done")
        self.near.lose_inbox()
        for _ in range(2):
            result = yield self.get(where + b"/result")
            self.assertEqual(result.status, 502)
            self.assertTrue(self.json(result)["type"].endswith("outcome-unknown"))
        yield self.reach(where, "failed")
        self.assertEqual(self.ingress.keeper.size, 0)

    @inlineCallbacks
    def test_a_link_that_was_stopped_waits_for_a_person(self) -> Test:
        where = yield self.submit(b"order")
        self.near.change(LinkState.STOPPED)
        yield deferLater(reactor, 0.05)
        response = yield self.get(where)
        self.assertIn(self.json(response)["state"], ("accepted", "acked"))
