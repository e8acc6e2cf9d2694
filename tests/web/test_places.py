"""How many requests may be kept, and whose they are."""

from __future__ import annotations

from uuid import UUID

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from hoft.config import Caller, Route
from hoft.tokens import hash_token
from hoft.web.ingress import kept_rows, places
from hoft.web.ingress.places import Places
from tests.web.listening import Test
from tests.web.loopback import pair
from tests.web.test_keeping import ASYNC, KeepingCase


class PlacesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(places, "MAX_KEPT", 12)
        self.places = Places()

    def fill(self, caller: str | None, peer: bytes, peers: int = 3, callers: int = 3) -> int:
        """Take all that these may have; how many they were."""
        count = 0
        while self.places.refusal(caller, callers, peer, "far", peers) is None:
            self.places.take(caller, peer)
            count += 1
        return count

    def test_who_is_alone_may_have_all(self) -> None:
        self.assertEqual(self.fill(None, b"far", peers=1, callers=1), 12)

    def test_among_several_nobody_has_more_than_is_left_for_all_others(self) -> None:
        self.assertEqual([self.fill(None, peer, callers=1) for peer in (b"one", b"two")], [6, 3])
        self.assertEqual(self.fill(None, b"three", callers=1), 2)

    def test_so_it_is_among_callers_whichever_peer_they_call(self) -> None:
        self.assertEqual([self.fill("ann", b"far", peers=1), self.fill("bob", b"far", peers=1)], [6, 3])

    def test_what_is_let_go_of_is_there_for_anybody(self) -> None:
        self.fill("ann", b"far")
        for _ in range(4):
            self.places.free("ann", b"far")
        self.assertEqual((self.places.taken, self.fill("bob", b"other")), (2, 5))


class RefusalTests(KeepingCase):
    """Through an ingress, which is told by HTTP."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(places, "MAX_KEPT", 4)
        other, _ = pair(reactor, seed=8, far="other")
        self.links["other"] = other
        other.peer = UUID(int=3)
        other.create(kept_rows.SCHEMA)
        other.attach(self.ingress)
        self.near.open = other.open = False
        self.routing = evolve(
            self.routing, routes=(*self.routing.routes, Route("more", "other", "http://more.example/"))
        )
        self.ingress.reconfigure(self.routing)

    @inlineCallbacks
    def test_a_peer_that_is_away_does_not_keep_calls_from_others(self) -> Test:
        for _ in range(2):
            first = yield self.submit(b"order")
        refused = yield self.post(b"order", ASYNC)
        self.assertEqual((refused.status, refused.fields(b"retry-after")), (503, [b"60"]))
        self.assertIn("2 of the 4 requests that may be kept are for far", self.json(refused)["detail"])
        response = yield self.post(b"order", ASYNC, target=b"/svc/more/")
        self.where(response)
        for _ in range(2):
            yield self.get(first, method=b"DELETE")
        yield self.submit(b"order")

    @inlineCallbacks
    def test_nor_does_a_caller(self) -> Test:
        callers = [Caller(name, (hash_token(name.encode()),)) for name in ("ann", "bob")]
        self.ingress.reconfigure(evolve(self.routing, callers=callers))
        ann, bob = b"Authorization: Bearer ann", b"Authorization: Bearer bob"
        yield self.submit(b"order", ann)
        other = yield self.post(b"order", ASYNC, ann, target=b"/svc/more/")
        self.assertEqual(other.status, 202)
        refused = yield self.post(b"order", ASYNC, ann)
        self.assertEqual(refused.status, 503)
        self.assertIn("2 of the 4 requests that may be kept are of caller ann", self.json(refused)["detail"])
        yield self.submit(b"order", bob)

    @inlineCallbacks
    def test_whose_they_are_is_known_after_a_restart(self) -> Test:
        for _ in range(2):
            yield self.submit(b"order")
        yield self.restart()
        refused = yield self.post(b"order", ASYNC)
        self.assertEqual(refused.status, 503)
        self.assertIn("are for far", self.json(refused)["detail"])
