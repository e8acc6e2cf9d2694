"""What a node answers that is asked about its calls."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import LocalError
from hoft.web.client.policy import Policy
from hoft.web.egress.egress import Egress
from hoft.web.history import Logged
from hoft.web.ingress.ingress import Ingress
from hoft.web.ingress.routing import Routing
from hoft.web.listing import MOST, Listing
from tests.web.test_history import CALL


class ListingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.ingress = Ingress(
            self.clock, self.clock.seconds, bytes, {}, Routing(), "near", lambda: succeed({})
        )
        self.egress = Egress(self.clock, self.clock.seconds, Policy(), "near")
        self.listing = Listing(self.clock, self.clock.seconds, (self.ingress, self.egress))
        self.ingress.accounts.history.logged = self.egress.history.logged = Logged.NONE

    def ask(self, **question: Any) -> dict[str, Any]:
        """What it answers, after as many turns of the reactor as it takes."""
        asked: Deferred[dict[str, Any]] = self.listing.answer(question)
        for _ in range(10_000):
            if asked.called:
                break
            self.clock.advance(0)
        return self.successResultOf(asked)

    def ids(self, **question: Any) -> list[int]:
        """The first byte of the ids of those that have ended."""
        return [bytes.fromhex(one["id"])[0] for one in self.ask(**question)["ended"]]

    def add(self, number: int, **values: Any) -> None:
        """One has ended."""
        call = evolve(CALL, id=bytes((number,)) * 16, **values)
        side = self.egress if call.side == "egress" else self.ingress.accounts
        side.history.add(call)

    def test_nothing_is_going_on(self) -> None:
        answer = self.ask()
        self.assertEqual((answer["under_way"], answer["ended"]), ([], []))
        self.assertEqual(answer["left_off"], {"under_way": 0, "ended": 0})

    def test_those_that_have_ended_come_the_latest_first_of_both_sides(self) -> None:
        for number in range(6):
            self.add(number, side=("ingress", "egress")[number % 2])
        self.assertEqual(self.ids(), [5, 4, 3, 2, 1, 0])

    def test_which_may_be_chosen(self) -> None:
        self.add(1, side="egress", peer="far")
        self.add(0x1F, peer="other", route="a")
        self.add(3, caller="billing")
        self.assertEqual(self.ids(side="egress"), [1])
        self.assertEqual(self.ids(peer="far"), [3, 1])
        self.assertEqual(self.ids(peer="other", route="b"), [])
        self.assertEqual(self.ids(peer=None, caller="billing", stage="ended"), [3])
        self.assertEqual(self.ids(id="1F"), [0x1F])
        self.assertEqual(self.ids(id="0"), [3, 1])

    def test_no_more_than_asked_for_but_how_many_there_are(self) -> None:
        for number in range(5):
            self.add(number, peer=("far", "other")[number % 2])
        for question, left in (({}, 3), ({"peer": "far"}, 1)):
            answer = self.ask(limit=2, **question)
            self.assertEqual((len(answer["ended"]), answer["left_off"]["ended"]), (2, left))

    def test_what_makes_no_sense(self) -> None:
        for question in ({"limit": "5"}, {"limit": MOST + 1}, {"limit": True}, {"id": 5}):
            self.assertRaises(LocalError, self.listing.answer, question)

    def test_who_does_not_wait_any_more_costs_nothing_more(self) -> None:
        for number in range(5):
            self.add(number)
        asked = self.listing.answer({})
        asked.cancel()
        self.failureResultOf(asked)
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
