"""
The egress across crashes of its node, and across rollbacks of either.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from hoft.interfaces import Lost
from hoft.web.client.policy import Policy, Rule
from hoft.web.crossing.exchange import (
    RESPONSES,
    WINDOW,
    Kind,
    Part,
    Side,
    decode_part,
    encode_part,
    exchange_of,
)
from hoft.web.egress.executions import LIFETIME, Rows, State
from hoft.web.egress.performing import ASK
from hoft.web.egress.surroundings import Limits
from hoft.web.http.heads import RequestHead, Retry
from tests.web.services import Call, EgressCase, Received, Service, Test, until, wait

KEY = [(b"Idempotency-Key", b"1")]


class RestartCase(EgressCase):
    def setUp(self) -> None:
        super().setUp()
        self.open: list[Service] = []
        self.service.script = lambda service, request: self.open.append(service)

    @inlineCallbacks
    def restarted(self) -> Generator[Deferred[Any], Any, None]:
        yield self.crash()
        self.restart()

    @inlineCallbacks
    def performed(self, count: int) -> Generator[Deferred[Any], Any, None]:
        """So many requests have come to the service."""
        yield until(lambda: len(self.service.requests) >= count)
        self.assertEqual(len(self.service.requests), count)

    @inlineCallbacks
    def quiet(self) -> Generator[Deferred[Any], Any, None]:
        """Nothing is left in the journal but what must be remembered."""
        yield until(lambda: not self.link.unconsumed())
        yield until(lambda: set(self.rows().values()) <= {State.DONE})

    @staticmethod
    def has(call: Call, body: bytes) -> bool:
        return call.body == body

    def fine(self, service: Service, request: Received | None = None) -> None:
        service.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")


class CrashTests(RestartCase):
    @inlineCallbacks
    def test_what_may_be_repeated_is(self) -> Test:
        for number, head in enumerate(
            (
                self.head(),
                self.head(b"PUT"),
                self.head(b"DELETE"),
                self.head(b"POST", headers=KEY),
                self.head(b"POST", retry=Retry.ALWAYS),
            )
        ):
            call = self.near.call(head, b"x" * 70_000)
            yield from self.performed(2 * number + 1)
            yield from self.restarted()
            yield from self.performed(2 * number + 2)
            self.fine(self.open[-1])
            yield call.done
            self.assertEqual((call.status, call.body), (200, b"fine"))
            self.assertEqual(self.service.requests[-1].body, b"x" * 70_000)
            yield from self.quiet()
            self.assertEqual(self.rows(), {})

    @inlineCallbacks
    def test_of_what_may_not_the_outcome_is_unknown(self) -> Test:
        heads = (self.head(b"POST"), self.head(b"patch"), self.head(retry=Retry.NEVER))
        for number, head in enumerate(heads):
            call = self.near.call(head, b"x" * 70_000)
            yield from self.performed(number + 1)
            self.assertEqual(self.rows()[call.id], State.STARTED)
            yield from self.restarted()
            yield call.done
            self.assertEqual(call.status, 502)
            self.assertIn(b"outcome-unknown", call.body)
            yield from self.quiet()
            self.assertEqual(self.rows()[call.id], State.DONE)
        self.assertEqual(len(self.service.requests), len(heads))
        self.assertEqual(self.egress.counters()["interrupted"], 1)

    @inlineCallbacks
    def test_the_rule_that_allows_a_call_has_the_last_word(self) -> Test:
        """Who knows the service knows better than who calls it."""
        url = f"http://127.0.0.1:{self.port}/"
        for retry, head, again in (
            (Retry.NEVER, self.head(), False),
            (Retry.NEVER, self.head(b"POST", retry=Retry.ALWAYS), False),
            (Retry.ALWAYS, self.head(b"POST"), True),
            (Retry.IDEMPOTENT, self.head(retry=Retry.NEVER), True),
            (Retry.IDEMPOTENT, self.head(b"POST", retry=Retry.ALWAYS), False),
        ):
            self.policy = Policy([Rule.parse(url, retry=retry)])
            self.egress.reconfigure(self.policy)
            before = len(self.service.requests)
            call = self.near.call(head)
            yield from self.performed(before + 1)
            self.assertEqual(call.id in self.rows(), not again)
            yield from self.restarted()
            if again:
                yield from self.performed(before + 2)
                self.fine(self.open[-1])
            yield call.done
            self.assertEqual(call.status, 200 if again else 502)
            self.assertEqual(len(self.service.requests), before + 1 + again)
            yield from self.quiet()

    @inlineCallbacks
    def test_a_start_is_on_disk_before_the_service_hears_of_it(self) -> Test:
        self.process.hold()
        self.near.call(self.head(b"POST"))
        yield until(lambda: self.process.held)
        yield wait(0.03)
        self.assertEqual((self.service.connections, self.link.durable), ([], 0))
        self.process.release()
        yield until(lambda: self.service.requests)
        self.assertEqual(self.link.durable, 1)
        self.near.call(self.head(b"GET"))
        yield until(lambda: len(self.service.requests) == 2)
        self.assertEqual(self.link.durable, 1)

    @inlineCallbacks
    def test_a_start_that_was_not_noted_did_not_happen(self) -> Test:
        self.process.hold()
        call = self.near.call(self.head(b"POST"))
        yield until(lambda: self.process.held)
        yield from self.restarted()
        yield until(lambda: self.service.requests)
        self.fine(self.open[0])
        yield call.done
        self.assertEqual((call.status, len(self.service.requests)), (200, 1))

    @inlineCallbacks
    def test_a_response_that_had_begun_is_broken_off(self) -> Test:
        for method in (b"GET", b"POST"):
            call = self.near.call(self.head(method))
            yield until(lambda: self.open)
            self.open.pop().answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
            yield until(partial(self.has, call, b"ab"))
            self.assertEqual(self.rows()[call.id], State.RESPONDING)
            yield from self.restarted()
            yield call.done
            assert call.problem is not None
            self.assertEqual((call.problem.status, call.problem.kind), (502, "outcome-unknown"))
            yield from self.quiet()
            self.assertEqual(self.rows()[call.id], State.DONE)
        self.assertEqual(len(self.service.requests), 2)

    @inlineCallbacks
    def test_what_had_not_arrived_as_a_whole_goes_on(self) -> Test:
        body = Random(2).randbytes(500_000)
        call = self.near.expect()
        parts = self.near.parts(call.id, self.head(b"POST"), body)
        for part in parts[1:-1]:
            call.send(part)
            yield until(lambda: self.link.unconsumed())
            yield from self.restarted()
        call.send(parts[-1], parts[0])
        yield until(lambda: self.service.requests)
        self.fine(self.open[0])
        yield call.done
        self.assertEqual((call.body, self.service.requests[0].body), (b"fine", body))
        yield from self.quiet()

    @inlineCallbacks
    def test_what_was_refused_halfway_is_still_dropped(self) -> Test:
        call = self.near.expect()
        parts = self.near.parts(call.id, self.head(b"POST", port=1), b"x" * 300_000)
        call.send(*parts[:2])
        yield call.done
        yield until(lambda: not self.link.unconsumed())
        yield from self.restarted()
        call.send(*parts[2:])
        yield until(lambda: not self.near_link.backlog())
        yield until(lambda: not self.link.unconsumed())
        self.assertEqual((call.status, self.service.requests), (403, []))
        self.assertEqual(self.rows(), {call.id: State.DRAINING})

    @inlineCallbacks
    def test_an_answer_that_was_committed_is_not_given_again(self) -> Test:
        call = self.near.call(self.head(b"POST"))
        yield until(lambda: self.open)
        self.fine(self.open[0])
        yield call.done
        yield from self.restarted()
        yield wait(0.03)
        self.assertEqual((len(self.service.requests), self.near.stray), (1, []))
        self.assertEqual(self.rows(), {call.id: State.DONE})

    @inlineCallbacks
    def test_records_are_found_again_without_their_payload_and_in_any_order(self) -> Test:
        self.link.withheld = 0.5
        self.service.script = self.fine
        bodies = [Random(seed).randbytes(200_000) for seed in range(5)]
        yield self.crash()
        calls = [self.near.call(self.head(b"POST"), body) for body in bodies]
        yield until(lambda: not self.near_link.backlog())
        self.restart()
        for call in calls:
            yield call.done
            self.assertEqual(call.body, b"fine")
        self.assertEqual({request.body for request in self.service.requests}, set(bodies))
        yield from self.quiet()

    @inlineCallbacks
    def test_a_damaged_part_of_a_request_ends_that_call_alone(self) -> Test:
        """Also of those that are read with it; whatever the service has heard of it before."""
        calls = []
        for number in range(4):
            calls.append(self.near.call(self.head(b"POST", headers=KEY), b"x" * 70_000))
            yield from self.performed(number + 1)
        yield self.crash()
        parts = {id: part for id, (_, part) in self.link._received.items() if len(part) > 4096}
        bad = next(id for id, part in parts.items() if exchange_of(part) == calls[1].id)
        self.link.damaged.add(bad)
        self.service.script = self.fine
        self.restart()
        for call in calls:
            yield call.done
        self.assertEqual([call.status for call in calls], [200, 502, 200, 200])
        self.assertIn(b"outcome-unknown", calls[1].body)
        yield from self.quiet()
        yield until(lambda: not self.egress._peers[self.link.peer]._exchanges)


class TurnTests(RestartCase):
    limits = Limits(grace=0.1, parallel=1)

    @inlineCallbacks
    def test_what_waited_for_its_turn_is_performed_once(self) -> Test:
        first = self.near.call(self.head(b"POST"))
        yield from self.performed(1)
        second = self.near.call(self.head(b"POST", b"/second"))
        yield until(lambda: self.egress.counters()["queued"])
        yield from self.restarted()
        yield first.done
        self.assertEqual(first.status, 502)
        yield from self.performed(2)
        self.fine(self.open[-1])
        yield second.done
        self.assertEqual((second.status, second.body), (200, b"fine"))


class LossTests(RestartCase):
    """Parts of responses that the journal has lost before they were sent."""

    def lose(self, call: Call) -> None:
        begins = encode_part(Part(Kind.DATA, Side.EGRESS, call.id, 1, b"x"))
        self.egress.recordsLost(self.link, [Lost(1, RESPONSES, begins)])

    @inlineCallbacks
    def test_while_the_response_comes_and_after_that(self) -> Test:
        call = self.near.call(self.head())
        yield until(lambda: self.open)
        self.open[0].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(100_000))
        yield until(lambda: self.link.records)
        self.lose(call)
        yield call.done
        assert call.problem is not None
        self.assertEqual(call.problem.kind, "outcome-unknown")
        over = self.near.call(self.head())
        yield until(lambda: len(self.open) == 2)
        self.fine(self.open[1])
        yield over.done
        self.lose(over)
        said = decode_part(self.link.records[-1])
        self.assertEqual((said.kind, said.exchange), (Kind.ABORT, over.id))
        yield wait(0.15)


class RollbackTests(RestartCase):
    @inlineCallbacks
    def again(self, call: Call, head: RequestHead, body: bytes = b"") -> Generator[Deferred[Any], Any, Call]:
        """The near side sends a request that it does not remember the answer of, under its old id."""
        repeated = self.near.call(head, body, id=call.id)
        yield until(lambda: not self.near_link.backlog())
        return repeated

    @inlineCallbacks
    def test_a_request_that_comes_again_while_it_runs_is_performed_once(self) -> Test:
        for head in (self.head(b"POST"), self.head()):
            call = self.near.call(head, b"abc")
            yield until(lambda: self.open)
            self.link.lose_state()
            call = yield from self.again(call, head, b"abc")
            self.fine(self.open.pop())
            yield call.done
            self.assertEqual(call.body, b"fine")
            yield from self.quiet()
        self.assertEqual(len(self.service.requests), 2)

    @inlineCallbacks
    def test_one_that_was_answered_is_performed_again_if_it_may_be(self) -> Test:
        self.service.script = self.fine
        call = yield self.near.call(self.head()).done
        self.link.lose_state()
        call = yield from self.again(call, self.head())
        yield call.done
        self.assertEqual((call.body, len(self.service.requests)), (b"fine", 2))

    @inlineCallbacks
    def test_else_the_outcome_is_unknown(self) -> Test:
        self.service.script = self.fine
        call = yield self.near.call(self.head(b"POST"), b"x" * 100_000).done
        for _ in range(2):
            self.link.lose_state()
            call = yield from self.again(call, self.head(b"POST"), b"x" * 100_000)
            yield call.done
            self.assertEqual((call.status, len(self.service.requests)), (502, 1))
            self.assertIn(b"outcome-unknown", call.body)
            yield from self.quiet()
            self.assertEqual(self.rows()[call.id], State.DONE)
            yield from self.restarted()

    @inlineCallbacks
    def test_a_response_that_was_on_its_way_is_broken_off(self) -> Test:
        call = self.near.call(self.head(b"POST"))
        yield until(lambda: self.open)
        self.link.open = False
        self.open[0].answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        yield until(lambda: self.link.backlog())
        self.link.lose_state()
        self.link.heal()
        yield call.done
        assert call.problem is not None
        self.assertEqual((call.problem.kind, call.body), ("outcome-unknown", b""))
        yield until(lambda: self.open[0].lost)
        yield from self.quiet()
        self.assertEqual(self.egress.counters()["running"], 0)

    @inlineCallbacks
    def test_one_whose_parts_had_no_number_yet_goes_on(self) -> Test:
        call = self.near.call(self.head())
        yield until(lambda: self.open)
        self.link.open = False
        self.open[0].answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        yield until(lambda: self.link.backlog())
        yield wait(0.01)
        self.egress.peerRolledBack(self.process, range(1000))
        self.link.heal()
        self.open[0].answer(b"0\r\n\r\n")
        yield call.done
        self.assertEqual((call.problem, call.body), (None, b"ab"))

    @inlineCallbacks
    def test_what_has_come_of_a_request_is_completed_by_what_comes_again(self) -> Test:
        self.service.script = self.fine
        call = self.near.expect()
        parts = self.near.parts(call.id, self.head(b"POST"), b"x" * 300_000)
        call.send(*parts[:3])
        yield until(lambda: self.link.unconsumed() == 3)
        self.link.lose_state()
        call = yield from self.again(call, self.head(b"POST"), b"x" * 300_000)
        yield call.done
        self.assertEqual((call.body, len(self.service.requests)), (b"fine", 1))
        yield from self.quiet()


class AgeTests(RestartCase):
    def tick(self) -> None:
        for peer in self.egress._peers.values():
            peer.age()

    @inlineCallbacks
    def test_what_was_done_is_forgotten_after_a_week_of_running(self) -> Test:
        self.service.script = self.fine
        call = yield self.near.call(self.head(b"POST")).done
        rows = Rows(self.link.peer.bytes)
        for _ in range(LIFETIME):
            self.link.commit(also=rows.age())
        self.assertEqual(self.rows(), {call.id: State.DONE})
        self.link.commit(also=rows.age())
        self.assertEqual(self.rows(), {})

    @inlineCallbacks
    def test_what_is_not_done_is_not_forgotten(self) -> Test:
        call = self.near.call(self.head(b"POST"))
        yield until(lambda: self.open)
        for _ in range(LIFETIME + 2):
            self.link.commit(also=Rows(self.link.peer.bytes).age())
        self.assertEqual(self.rows(), {call.id: State.STARTED})

    @inlineCallbacks
    def test_a_peer_is_poked_about_what_it_does_not_complete(self) -> Test:
        call = self.near.expect()
        call.credit = 0
        head, *_ = self.near.parts(call.id, self.head(b"POST"), b"abc")
        call.send(head)
        yield until(lambda: self.egress.counters()["requests"])
        self.skew = ASK - 1
        self.egress.tick()
        yield wait(0.02)
        self.assertEqual(call.credit, 0)
        for self.skew in (ASK + 1, 3 * ASK + 2):
            call.credit = 0
            self.egress.tick()
            yield until(lambda: call.credit == WINDOW)
        call.cancel()
        yield until(lambda: not self.link.unconsumed())

    @inlineCallbacks
    def test_what_nobody_completes_for_a_week_is_dropped(self) -> Test:
        call = self.near.expect()
        call.send(self.near.parts(call.id, self.head(b"POST"), b"abc")[0])
        yield until(lambda: self.egress.counters()["requests"])
        for _ in range(LIFETIME + 1):
            self.tick()
        yield until(lambda: not self.link.unconsumed())
        for _ in range(LIFETIME + 1):
            self.tick()
        yield until(lambda: not self.rows())
