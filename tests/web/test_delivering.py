"""When attempts are made, in virtual time; what goes along with them."""

from __future__ import annotations

import json
from email.utils import formatdate
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone

from hoft.config import Callback
from hoft.interfaces import ILink
from hoft.testing.clock import HeapClock
from hoft.web.client.agent import Content, ExactRequest
from hoft.web.client.connection import ExactResponse
from hoft.web.http.problems import connection_refused, peer_silent
from hoft.web.http.responses import ReceivedHead, ServiceError
from hoft.web.ingress import kept_rows
from hoft.web.ingress.callbacks import callbacks
from hoft.web.ingress.callbacks import rows as callback_rows
from hoft.web.ingress.callbacks.callbacks import SCHEDULE, Callbacks
from hoft.web.ingress.callbacks.delivering import retry_after
from hoft.web.ingress.callbacks.receivers import PARALLEL
from hoft.web.ingress.callbacks.registrations import Registrations
from hoft.web.ingress.callbacks.rows import State
from hoft.web.ingress.callbacks.signing import SymmetricKey
from hoft.web.ingress.ingress import Ingress
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.kept_rows import Stage
from hoft.web.ingress.routing import Routing
from hoft.web.ingress.submitting import both
from tests.web.loopback import Transaction, pair

WALL = 1_700_000_000.0
TTL = 3600.0


class Receivers:
    """
    Answers as the test says, in place of an agent.

    @ivar requests: when each came, and what it was.
    @ivar status: of the next answers; C{None}: nobody is there.
    @ivar held: if it is a list, answers wait there for the test to give them.
    """

    def __init__(self, clock: HeapClock) -> None:
        self.held: list[Deferred[Any]] | None = None
        self.requests: list[tuple[float, ExactRequest, Content]] = []
        self.status: int | None = 200
        self.fields: tuple[tuple[bytes, bytes], ...] = ()
        self._clock = clock

    def send(self, request: ExactRequest, body: Content = None) -> Deferred[Any]:
        self.requests.append((self._clock.seconds(), request, body))
        if self.held is not None:
            self.held.append(Deferred())
            return self.held[-1]
        return self.answer(request)

    def answer(self, request: ExactRequest) -> Deferred[Any]:
        """As it is said to be done."""
        if self.status is None:
            return fail(ServiceError(connection_refused(str(request.origin)), unsent=True))
        response = ExactResponse(ReceivedHead(1, self.status, b"", self.fields, 0), self)  # type: ignore[arg-type]  # an address is all that is used
        response.bodyEnded(Failure(ResponseDone()))
        return succeed(response)

    address = "192.0.2.1"

    def stop(self) -> None:
        """Nothing is open."""


class ScheduleCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = HeapClock()
        self.near, _ = pair(self.clock)
        for schema in (kept_rows.SCHEMA, callback_rows.SCHEMA):
            self.near.create(schema)
        self.receivers = Receivers(self.clock)
        self.chance = 0.0
        self.callbacks: Callbacks
        self.begin()

    def begin(self) -> None:
        """A process starts."""
        links: dict[str, ILink] = {"far": self.near}
        routing = Routing(result_ttl=TTL)
        clock: Any = self.clock
        self.ingress = Ingress(
            clock, clock.seconds, Random(1).randbytes, links, routing, "near", lambda: succeed({})
        )
        self.ingress.keeper.wall = lambda: WALL + self.clock.seconds()
        self.callbacks = self.ingress.callbacks = Callbacks(self.ingress, clock, lambda: self.chance)
        self.callbacks.agent = self.receivers  # type: ignore[assignment]  # plays the network
        receivers = [Callback(name, f"http://{name}.example/", Path()) for name in ("a", "b")]
        keys = {one.name: [SymmetricKey(bytes(24))] for one in receivers}
        self.callbacks.reconfigure(Registrations(receivers, keys))
        self.ingress.load(kept_rows.load(Transaction(self.near.database)))
        self.callbacks.load(callback_rows.load(Transaction(self.near.database)))

    def want(self, number: int = 0, url: str = "http://a.example/hook") -> Kept:
        """A request that is kept, with a callback."""
        kept = Kept(number.to_bytes(16, "big"), self.near.peer.bytes, None, None, None, b"GET", "/", b"/")
        self.ingress.keeper.keep(kept, 60.0)
        self.near.commit((), (), both(kept_rows.write(kept), self.callbacks.want(kept, url)))
        return kept

    def end(self, kept: Kept) -> None:
        """There is something to tell of it."""
        kept.fail(self.ingress.keeper, peer_silent("far", 1.0), cancel=False)

    def listing(self) -> dict[str, Any]:
        """What operators are shown."""
        listed = self.callbacks.listing()
        self.clock.advance(0)
        return self.successResultOf(listed)

    def wait(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass, with a node's ticks."""
        until = self.clock.seconds() + seconds
        while self.clock.seconds() < until:
            self.clock.advance(step)
            self.ingress.tick()

    @property
    def times(self) -> list[float]:
        """When attempts were made."""
        return [round(at) for at, _, _ in self.receivers.requests]

    def states(self) -> list[State]:
        """What the journal says."""
        self.clock.advance(0)
        return [row.state for row in callback_rows.load(Transaction(self.near.database))]


class ScheduleTests(ScheduleCase):
    def test_it_is_attempted_ten_times_over_three_days_and_then_is_dead(self) -> None:
        self.receivers.status = 500
        self.end(self.want())
        self.wait(2200.0)
        self.wait(400_000.0, step=60.0)
        expected, at = [], 0.0
        for pause in SCHEDULE:
            at += pause
            expected.append(at)
        self.assertEqual(len(self.times), 10)
        for made, planned in zip(self.times, expected, strict=True):
            self.assertLess(abs(made - planned), 600)
        self.assertEqual(self.times[:4], [0, 5, 305, 2105])
        self.assertEqual(self.callbacks.counters()["given_up"], 1)

    def test_a_pause_is_longer_by_chance(self) -> None:
        self.receivers.status = 500
        self.chance = 1.0
        self.end(self.want())
        self.wait(400.0)
        self.assertEqual(self.times, [0, 6, 336])

    def test_each_attempt_has_the_same_id_and_a_time_and_signature_of_its_own(self) -> None:
        self.receivers.status = 500
        self.end(self.want())
        self.wait(10.0)
        first, second = (dict(request.fields) for _, request, _ in self.receivers.requests)
        self.assertEqual(first[b"webhook-id"], second[b"webhook-id"])
        self.assertEqual(int(second[b"webhook-timestamp"]) - int(first[b"webhook-timestamp"]), 5)
        self.assertNotEqual(first[b"webhook-signature"], second[b"webhook-signature"])
        [_, (_, _, body)] = self.receivers.requests
        assert isinstance(body, bytes)
        self.assertEqual(json.loads(body)["status"], 504)

    def test_it_ends_with_the_first_success(self) -> None:
        self.receivers.status = None
        self.end(self.want())
        self.wait(1.0)
        self.assertEqual(self.states(), [State.PENDING])
        self.receivers.status = 299
        self.wait(1000.0)
        self.assertEqual(self.times, [0, 5])
        self.assertEqual(self.states(), [State.DELIVERED])

    def test_a_receiver_says_when_it_may_be_asked_again(self) -> None:
        self.receivers.status = 503
        self.receivers.fields = ((b"Retry-After", b"120"),)
        self.end(self.want())
        self.end(self.want(1))
        self.end(self.want(2, "http://b.example/"))
        next_attempts = {one["next_attempt"] for one in self.listing()["callbacks"]}
        self.assertIn("2023-11-14T22:15:20.000Z", next_attempts)
        self.wait(119.0)
        self.assertEqual(self.times, [0, 0], "others for it wait as well, those for others do not")
        self.receivers.status, self.receivers.fields = 200, ()
        self.wait(5.0)
        self.assertEqual(self.times, [0, 0, 120, 120, 120])

    def test_it_cannot_put_it_off_for_ever(self) -> None:
        self.receivers.status = 429
        self.receivers.fields = ((b"Retry-After", b"999999999"),)
        self.end(self.want())
        self.wait(86500.0, step=10.0)
        self.assertEqual(len(self.times), 2)

    def test_one_in_trouble_is_asked_by_one_at_a_time_with_rests(self) -> None:
        self.receivers.status = 502
        for number in range(20):
            self.end(self.want(number))
        self.wait(30.0)
        self.assertLess(len(self.times), 8)
        self.receivers.status = 200
        self.wait(60.0)
        self.assertEqual(self.callbacks.counters()["delivered"], 20)

    def test_after_trouble_one_finds_out_whether_it_is_over(self) -> None:
        held: list[Deferred[Any]] = []
        self.receivers.held = held
        for number in range(10):
            self.end(self.want(number))
        self.assertEqual(len(held), PARALLEL)
        for one in list(held):
            one.errback(ServiceError(connection_refused("http://a.example")))
        self.wait(20.0)
        self.assertEqual(len(held), PARALLEL + 1)
        _, request, _ = self.receivers.requests[-1]
        self.receivers.answer(request).chainDeferred(held[-1])
        self.assertEqual(len(held), 2 * PARALLEL + 1, "then all of them")

    def test_what_is_dead_while_it_is_attempted_is_not_tried_again(self) -> None:
        held: list[Deferred[Any]] = []
        self.receivers.held = held
        for number in range(2):
            self.end(self.want(number))
        for status, one in ((410, held[0]), (500, held[1])):
            self.receivers.status = status
            self.receivers.answer(self.receivers.requests[0][1]).chainDeferred(one)
        self.wait(1000.0)
        self.assertEqual(len(held), 2)
        self.assertEqual({one["next_attempt"] for one in self.listing()["callbacks"]}, {None})

    def test_who_sends_it_again_is_not_held_up(self) -> None:
        self.receivers.status = 410
        self.end(self.want())
        self.receivers.status, self.receivers.fields = 503, ((b"Retry-After", b"3000"),)
        self.end(self.want(1))
        self.wait(10.0)
        self.assertEqual(self.callbacks.resend("all"), 1)
        self.assertEqual(self.times, [0, 0, 10])
        [attempts] = {one["attempts"] for one in self.listing()["callbacks"]}
        self.assertEqual(attempts, 1, "it begins anew")

    def test_many_that_are_due_at_once_do_not_hold_up_the_node(self) -> None:
        self.patch(callbacks, "TURN", 3)
        self.receivers.status = 500
        for number in range(10):
            self.end(self.want(number))
        self.receivers.status = 410
        self.wait(5.0)
        self.assertEqual((len(self.times), self.callbacks.counters()["dead"]), (11, 4))
        self.wait(5.0)
        self.assertEqual((len(self.times), self.callbacks.counters()["dead"]), (11, 10))
        self.receivers.status = 200
        self.assertEqual(self.callbacks.resend("all"), 10)
        self.assertEqual(len(self.times), 14)
        self.wait(5.0)
        self.assertEqual(self.callbacks.counters()["delivered"], 10)

    def test_what_is_forgotten_before_its_turn_comes_is_left_alone(self) -> None:
        self.patch(callbacks, "TURN", 1)
        self.receivers.status = 500
        wanted = [self.want(number) for number in range(5)]
        for kept in wanted:
            self.end(kept)
        self.receivers.status = 410
        self.wait(5.5)
        self.ingress.keeper.forget(wanted.pop())
        self.wait(10.0)
        self.assertEqual(self.states(), [State.DEAD] * 4)
        self.receivers.status = 200
        self.callbacks.resend("all")
        self.ingress.keeper.forget(wanted.pop())
        self.wait(10.0)
        self.assertEqual(self.states(), [State.DELIVERED] * 3)

    def test_a_dead_one_can_be_sent_again_for_as_long_as_results_are_kept(self) -> None:
        self.receivers.status = 410
        self.end(self.want())
        self.wait(1.0)
        self.assertEqual((self.times, self.states()), ([0], [State.DEAD]))
        self.receivers.status = 200
        self.wait(TTL / 2, step=10.0)
        self.assertEqual(self.callbacks.resend("all"), 1)
        self.assertEqual(self.states(), [State.DELIVERED])
        self.receivers.status = 500
        kept = self.want(1)
        self.end(kept)
        self.wait(TTL, step=10.0)
        self.receivers.status = 410
        self.wait(2 * TTL, step=10.0)
        self.assertEqual((kept.stage, self.callbacks.counters()["dead"]), (Stage.FAILED, 1))
        self.wait(TTL, step=10.0)
        self.assertEqual(kept.stage, Stage.EXPIRED)
        self.assertEqual((self.callbacks.counters()["dead"], self.states()), (0, []))

    def test_a_clock_that_was_set_back_between_two_lives_delays_it_by_a_day_at_most(self) -> None:
        self.receivers.status = 500
        self.end(self.want())
        self.wait(1.0)
        self.near.database.execute("UPDATE callback SET due = due + 1e8")
        self.receivers.status = 200
        self.begin()
        self.wait(96_000.0, step=60.0)
        self.assertEqual(len(self.times), 2)

    def test_a_crash_before_the_end_was_noted_leaves_it_to_be_told(self) -> None:
        kept = self.want()
        self.receivers.status = None
        self.end(kept)
        self.clock.advance(0)
        self.near.database.execute("UPDATE callback SET state = 'waiting', due = NULL")
        self.receivers.status = 200
        self.begin()
        self.wait(1.0)
        self.assertEqual(self.states(), [State.DELIVERED])

    def test_what_is_listed_is_what_somebody_should_look_at_first(self) -> None:
        self.receivers.status = 410
        self.end(self.want(1))
        self.receivers.status = 500
        self.end(self.want(2, "http://b.example/"))
        self.want(3)
        listed = self.listing()
        self.assertEqual(listed["count"], 2)
        dead, pending = listed["callbacks"]
        self.assertEqual((dead["state"], dead["next_attempt"]), ("dead", None))
        self.assertEqual((pending["state"], pending["attempts"]), ("pending", 1))
        self.assertEqual(pending["next_attempt"], "2023-11-14T22:13:25.000Z")
        self.assertIn("answered 500", pending["reason"])
        self.assertEqual(
            self.callbacks.counters(),
            {"waiting": 1, "pending": 1, "dead": 1}
            | {"attempts": 2, "failed": 2, "delivered": 0, "given_up": 1},
        )


class RetryAfterTests(SynchronousTestCase):
    def test_seconds_dates_and_nonsense(self) -> None:
        date = formatdate(WALL + 90, usegmt=True).encode()
        for value, seconds in (
            (b"7", 7.0),
            (date, 90.0),
            (b"Mon, 01 Jan 2001 00:00:00 GMT", 0.0),
            (b"99999999999", 0.0),
            (b"soon", 0.0),
            (b"-5", 0.0),
            (b"", 0.0),
        ):
            self.assertEqual(retry_after(((b"Retry-After", value),), WALL), seconds, value)
        self.assertEqual(retry_after((), WALL), 0.0)
