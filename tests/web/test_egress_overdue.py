"""
Requests at the egress whose outcome is decided: they take no room, and no turn, any longer.
"""

from __future__ import annotations

from twisted.internet.defer import fail, inlineCallbacks

from hoft.errors import JournalFull
from hoft.web.client.policy import Policy, Rule
from hoft.web.egress import peer_exchanges
from hoft.web.egress.gathering import SILENCE
from hoft.web.egress.surroundings import Limits
from tests.web.listening import Test
from tests.web.services import RawService, until, wait
from tests.web.test_egress import RefusalCase


class OverdueTests(RefusalCase):
    limits = Limits(grace=0.1, parallel=1)

    @inlineCallbacks
    def test_a_request_of_which_no_more_comes_for_a_day_is_answered_and_let_go(self) -> Test:
        call = self.near.expect()
        head, *rest = self.near.parts(call.id, self.head(b"POST", deadline=100.0), b"x" * 300_000)
        call.send(head, rest[0], rest[1])
        yield until(lambda: self.link.unconsumed() == 3)
        self.skew = 101.0
        self.egress.tick()
        self.assertEqual(self.egress.counters()["refused"], 0)
        self.skew = SILENCE + 1
        self.egress.tick()
        yield until(lambda: not self.link.unconsumed())
        call.send(*rest[2:])
        yield from self.refused(call, 408, "malformed-request")
        self.assertEqual((self.rows(), self.service.requests), ({}, []))

    @inlineCallbacks
    def test_so_is_one_whose_head_does_not_come(self) -> Test:
        call = self.near.expect()
        head, *rest = self.near.parts(call.id, self.head(b"POST"), b"x" * 300_000)
        call.send(*rest)
        yield until(lambda: self.link.unconsumed() == len(rest))
        self.skew = SILENCE + 1
        self.egress.tick()
        yield until(lambda: not self.link.unconsumed())
        call.send(head)
        yield from self.refused(call, 408, "malformed-request")

    @inlineCallbacks
    def test_one_whose_turn_does_not_come_is_answered_at_its_deadline(self) -> Test:
        self.service.script = lambda service, request: None
        self.near.call(self.head(b"GET", deadline=1000.0))
        yield until(lambda: self.service.requests)
        queued = self.near.call(self.head(b"POST", deadline=100.0), b"x" * 1000)
        yield until(lambda: self.egress.counters()["queued"] == 1)
        self.skew = 101.0
        self.egress.tick()
        yield queued.done
        self.assertEqual(queued.status, 503)
        self.assertEqual(self.egress.counters()["queued"], 0)
        yield until(lambda: self.link.unconsumed() == 1)


class TurnsTests(RefusalCase):
    limits = Limits(grace=0.1, parallel=2, running=3)

    @inlineCallbacks
    def test_a_service_that_does_not_answer_holds_up_those_only_who_want_it(self) -> Test:
        other = RawService()
        port = other.listen(self)
        self.egress.reconfigure(Policy([Rule.parse(f"http://127.0.0.1:{one}/") for one in (self.port, port)]))
        self.service.script = lambda service, request: None
        for _ in range(4):
            self.near.call(self.head())
        yield until(lambda: self.egress.counters()["queued"] == 2)
        calls = [self.near.call(self.head(port=port)) for _ in range(5)]
        for call in calls:
            yield call.done
            self.assertEqual(call.status, 200)
        self.assertEqual((self.egress.counters()["running"], len(self.service.requests)), (2, 2))


class FullTests(RefusalCase):
    """The journal has no room."""

    @inlineCallbacks
    def test_what_a_request_took_makes_room_for_its_answer(self) -> Test:
        for method in (b"GET", b"POST"):
            self.service.script = lambda service, request: None
            call = self.near.call(self.head(method), b"x" * 300_000)
            yield until(lambda: self.service.requests)
            self.link.full = True
            self.service.requests.clear()
            self.service.connections[-1].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            yield until(lambda: not self.link.unconsumed())
            self.link.full = False
            yield call.done
            self.assertEqual((call.status, call.body), (200, b"ok"))

    @inlineCallbacks
    def test_so_it_does_for_a_refusal(self) -> Test:
        call = self.near.expect()
        head, *rest = self.near.parts(call.id, self.head(b"POST", deadline=100.0), b"x" * 300_000)
        call.send(head, rest[0])
        yield until(lambda: self.link.unconsumed() == 2)
        self.link.full = True
        self.skew = SILENCE + 1
        self.egress.tick()
        yield until(lambda: not self.link.unconsumed())
        self.link.full = False
        yield call.done
        self.assertEqual(call.status, 408)
        call.send(*rest[1:])
        yield until(lambda: not self.link.unconsumed() and not list(self.egress.under_way(0)))

    def full_for(self, often: int) -> None:
        """So many commits are refused, whatever they are."""
        commit, left = self.link.commit, [fail(JournalFull("no room")) for _ in range(often)]
        self.patch(self.link, "commit", lambda *all, **named: left.pop() if left else commit(*all, **named))

    @inlineCallbacks
    def test_what_is_let_go_of_is_let_go_of_also_where_that_finds_no_room_at_first(self) -> Test:
        call = self.near.expect()
        head, *rest = self.near.parts(call.id, self.head(b"POST"), b"x" * 300_000)
        call.send(head, rest[0])
        yield until(lambda: self.link.unconsumed() == 2)
        self.full_for(2)
        call.cancel()
        yield until(lambda: not list(self.egress.under_way(0)))
        for _ in range(3):
            yield wait(0.01)
            self.egress.tick()
        yield until(lambda: not self.link.unconsumed())

    @inlineCallbacks
    def test_a_node_that_starts_without_any_room_begins_when_there_is_some(self) -> Test:
        self.patch(peer_exchanges, "FULL_PAUSE", 0.05)
        yield self.crash()
        self.full_for(2)
        self.restart()
        call = yield self.near.call(self.head()).done
        self.assertEqual(call.status, 200)

    @inlineCallbacks
    def test_that_a_response_has_begun_is_noted_with_what_begins_it(self) -> Test:
        self.service.script = lambda service, request: None
        call = self.near.call(self.head())
        yield until(lambda: self.service.requests)
        self.link.full = True
        self.service.connections[-1].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhello")
        yield until(lambda: [one for one in self.egress.under_way(0) if "no room" in one()["why"]])
        self.link.full = False
        self.egress.tick()
        yield until(lambda: call.status)
        self.assertEqual(list(self.rows().values()), [2], "a crash now would break it off, not make it again")
        self.service.connections[-1].answer(b" and the rest, 0")
