"""Who calls, and how much they may."""

from __future__ import annotations

import json
from base64 import b64encode
from random import Random

from attrs import evolve
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from hoft.config import Allowance, Caller
from hoft.tokens import hash_token, make_token
from hoft.web.ingress.callers import Callers, Unauthenticated
from tests.web.callers import IngressCase, Received
from tests.web.listening import Test

TOKEN, RENEWED = b"t-billing", b"t-billing-2"
BILLING = Caller("billing", (hash_token(TOKEN), hash_token(RENEWED)))
SHOP = Caller("shop", (hash_token(b"t-shop"),))


def basic(user: bytes, password: bytes) -> bytes:
    return b"Basic " + b64encode(user + b":" + password)


class IdentifyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.callers = Callers([BILLING, SHOP])

    def refused(self, *fields: tuple[bytes, bytes], proxied: bool = False) -> int:
        with self.assertRaises(Unauthenticated) as caught:
            self.callers.identify(list(fields), proxied)
        challenges = {name for name, _ in caught.exception.challenges}
        status: int = caught.exception.problem.status
        self.assertEqual(challenges, {b"Proxy-Authenticate" if status == 407 else b"WWW-Authenticate"})
        return status

    def test_nobody_is_asked_where_there_are_no_callers(self) -> None:
        fields = [(b"Authorization", b"Bearer of-the-service")]
        self.assertEqual(Callers().identify(fields, False), (None, fields))

    def test_by_any_of_its_tokens_however_it_is_brought(self) -> None:
        for credentials in (
            b"Bearer " + TOKEN,
            b"bearer  " + TOKEN,
            b"Bearer " + RENEWED,
            basic(b"billing", TOKEN),
            basic(b"", TOKEN),
        ):
            for name in (b"authorization", b"Proxy-Authorization"):
                self.assertEqual(self.callers.identify([(name, credentials)], True)[0], "billing")
        self.assertEqual(self.callers.identify([(b"Authorization", b"Bearer t-shop")], False)[0], "shop")

    def test_a_token_of_ours_does_not_go_on_and_all_else_does(self) -> None:
        rest = [(b"X-A", b"1"), (b"Cookie", b"b")]
        _, fields = self.callers.identify([(b"AUTHORIZATION", b"Bearer " + TOKEN), *rest], False)
        self.assertEqual(fields, rest)

    def test_authorization_is_the_services_where_the_proxys_own_field_names_the_caller(self) -> None:
        service = (b"Authorization", b"Bearer of-the-service")
        name, fields = self.callers.identify([(b"Proxy-Authorization", b"Bearer t-shop"), service], False)
        self.assertEqual(name, "shop")
        self.assertIn(service, fields)

    def test_others_are_asked_as_a_server_or_as_a_proxy_asks(self) -> None:
        good = b"Bearer " + TOKEN
        self.assertEqual(self.refused(), 401)
        self.assertEqual(self.refused(proxied=True), 407)
        for wrong in (
            b"Bearer t-other",
            b"Digest " + TOKEN,
            b"Bearer",
            TOKEN,
            basic(TOKEN, b""),
            b"Basic !!!",
            b"Bearer " + hash_token(TOKEN).encode(),
        ):
            self.assertEqual(self.refused((b"Authorization", wrong)), 401, wrong)
            self.assertEqual(self.refused((b"Proxy-Authorization", wrong)), 407, wrong)
        self.assertEqual(self.refused((b"Authorization", good), (b"Authorization", good)), 401)
        self.assertEqual(self.refused((b"Proxy-Authorization", b"Bearer x"), (b"Authorization", good)), 407)

    def test_tokens_are_fit_for_a_field_and_all_different(self) -> None:
        tokens = {make_token(Random(number).randbytes) for number in range(50)}
        self.assertEqual(len(tokens), 50)
        for token in tokens:
            self.assertRegex(token, r"\A[A-Za-z0-9_-]{43}\Z")


class CallTests(IngressCase):
    def setUp(self) -> None:
        super().setUp()
        self.far.then = lambda request: request.answer(body=b"fine")
        self.routing = evolve(self.routing, callers=(BILLING, evolve(SHOP, allowance=Allowance(per_day=2))))
        self.ingress.reconfigure(self.routing)

    @inlineCallbacks
    def test_only_callers_get_through_and_their_tokens_do_not(self) -> Test:
        response = yield self.get(b"/svc/demo/")
        self.assertEqual((response.status, json.loads(response.body)["type"][-15:]), (401, "unauthenticated"))
        self.assertEqual(len(response.fields(b"www-authenticate")), 2)
        response = yield self.get(b"http://elsewhere.example/")
        self.assertEqual((response.status, len(response.fields(b"proxy-authenticate"))), (407, 2))
        response = yield self.get(b"/_hoft/status")
        self.assertEqual(response.status, 401)
        self.assertEqual(self.far.requests, {})
        response = yield self.get(b"/svc/demo/", b"Authorization: Bearer " + TOKEN)
        self.assertEqual((response.status, response.body), (200, b"fine"))
        head = self.far.one.head
        assert head is not None
        self.assertEqual([value for _, value in head.headers if TOKEN in value], [])

    @inlineCallbacks
    def test_what_a_caller_may_a_day(self) -> Test:
        shop = b"Proxy-Authorization: Bearer t-shop"
        for status in (200, 200, 429):
            response = yield self.get(b"/svc/demo/", shop)
            self.assertEqual(response.status, status)
        self.assertGreater(int(response.fields(b"retry-after")[0]), 0)
        self.assertIn("caller shop", json.loads(response.body)["detail"])
        response = yield self.get(b"/svc/demo/", b"Authorization: Bearer " + TOKEN)
        self.assertEqual(response.status, 200)

    @inlineCallbacks
    def test_what_a_route_may_at_once(self) -> Test:
        held: list[Received] = []
        self.far.then = held.append
        route = evolve(self.routing.routes[0], allowance=Allowance(in_flight=1))
        self.ingress.reconfigure(evolve(self.routing, routes=(route,)))
        bearer = b"Authorization: Bearer " + TOKEN
        first = self.get(b"/svc/demo/", bearer)
        yield self.until(lambda: bool(held))
        response = yield self.get(b"/svc/demo/", bearer)
        self.assertEqual((response.status, response.fields(b"retry-after")), (429, [b"1"]))
        held[0].answer(body=b"at last")
        response = yield first
        self.assertEqual(response.body, b"at last")
        self.far.then = lambda request: request.answer()
        response = yield self.get(b"/svc/demo/", bearer)
        self.assertEqual(response.status, 200)
