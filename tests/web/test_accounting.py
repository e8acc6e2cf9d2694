"""What the ingress tells of calls: to their callers an id, to the operator what became of them."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from hoft.web.history import Logged
from hoft.web.http.problems import connection_refused, outcome_unknown
from tests.web.listening import Test
from tests.web.test_keeping import ASYNC, KeepingCase

CANARY = b"canary-of-the-caller"
TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = b"00-" + TRACE + b"-00f067aa0ba902b7-01"


class IdTests(KeepingCase):
    @inlineCallbacks
    def test_every_response_tells_its_caller_the_id_of_the_call(self) -> Test:
        self.far.then = lambda request: request.answer(headers=[(b"hoft-request-id", b"another's")])
        response = yield self.get()
        self.assertEqual(response.fields(b"hoft-request-id"), [self.far.one.exchange.hex().encode()])
        self.far.requests.clear()
        self.far.then = lambda request: request.abort(connection_refused("http://service.example:81"))
        response = yield self.get()
        self.assertEqual(response.fields(b"hoft-request-id"), [self.far.one.exchange.hex().encode()])
        response = yield self.get(b"/svc/none/")
        [id] = response.fields(b"hoft-request-id")
        self.assertEqual(json.loads(response.body)["exchange"], id.decode())
        self.assertEqual(next(iter(self.ingress.accounts.history)).id.hex(), id.decode())

    @inlineCallbacks
    def test_so_does_what_is_said_of_kept_ones(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        accepted = yield self.get(b"/svc/demo/", ASYNC)
        [id] = accepted.fields(b"hoft-request-id")
        where = self.where(accepted)
        self.assertTrue(where.endswith(id))
        yield self.reach(where, "done")
        result = yield self.get(where + b"/result")
        self.assertEqual(result.fields(b"hoft-request-id"), [id])

    @inlineCallbacks
    def test_what_traces_a_call_elsewhere_crosses_as_it_is(self) -> Test:
        self.far.then = lambda request: request.answer()
        yield self.get(b"/svc/demo/", b"X-Request-Id: 7", b"traceparent: " + TRACEPARENT)
        head = self.far.one.head
        assert head is not None
        self.assertLessEqual({(b"X-Request-Id", b"7"), (b"traceparent", TRACEPARENT)}, set(head.headers))


class HistoryTests(KeepingCase):
    def setUp(self) -> None:
        super().setUp()
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.ingress.accounts.history.logged = Logged.ALL

    def lines(self) -> list[str]:
        """All that was logged, but of sockets."""
        return [text for text in map(formatEvent, self.events) if text.startswith("Call ")]

    def told(self) -> dict[str, Any]:
        """The last call that has ended."""
        return next(iter(self.ingress.accounts.history)).as_json()

    @inlineCallbacks
    def test_a_call_that_was_answered(self) -> Test:
        self.far.then = lambda request: request.answer(201, body=b"fine")
        yield self.post(b"order", b"traceparent: " + TRACEPARENT, target=b"/svc/demo/a?b=1")
        told = self.told()
        self.assertEqual(told["id"], self.far.one.exchange.hex())
        self.assertEqual((told["peer"], told["route"], told["url"]), ("far", "demo", "/svc/demo/a?..."))
        self.assertEqual((told["status"], told["request_bytes"], told["response_bytes"]), (201, 5, 4))
        [line] = self.lines()
        self.assertTrue(line.startswith(f"Call {told['id']}: ingress POST /svc/demo/a?... 201 "), line)
        self.assertTrue(line.endswith(f" trace={TRACE.decode()}"), line)

    @inlineCallbacks
    def test_calls_that_were_not(self) -> Test:
        yield self.get(b"/svc/none/")
        self.assertEqual((self.told()["status"], self.told()["problem"]), (404, "unknown-route"))
        self.far.then = lambda request: request.abort(outcome_unknown("it stopped"))
        yield self.get()
        self.assertEqual((self.told()["status"], self.told()["problem"]), (502, "outcome-unknown"))
        self.far.then = None
        yield self.get(b"/svc/demo/", b"Hoft-Deadline: 0.1")
        self.assertEqual((self.told()["status"], self.told()["problem"]), (504, "peer-silent"))

    @inlineCallbacks
    def test_whatever_is_logged_of_a_call_begins_with_its_id(self) -> Test:
        self.far.then = lambda request: request.answer(200, [(b"Bad Name", b"a")])
        yield self.get()
        given_up, ended = self.lines()
        id = self.far.one.exchange.hex()
        self.assertTrue(given_up.startswith(f"Call {id}: given up: "), given_up)
        self.assertTrue(ended.startswith(f"Call {id}: ingress GET /svc/demo/ 502 "), ended)

    @inlineCallbacks
    def test_a_kept_one_when_it_is_done(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"done")
        where = yield self.submit(b"order")
        yield self.reach(where, "done")
        told = self.told()
        self.assertEqual((told["id"], told["outcome"]), (where.rpartition(b"/")[2].decode(), "done"))
        self.assertEqual((told["status"], told["response_bytes"]), (200, 4))

    @inlineCallbacks
    def test_nothing_secret_is_logged_or_told(self) -> Test:
        for then in (
            lambda request: request.answer(200, [(b"Set-Cookie", CANARY)], CANARY),
            lambda request: request.abort(connection_refused("http://service.example:81")),
            lambda request: request.far.send([b"rubbish" * 5]),
            lambda request: request.answer(200, [(b"Bad Name", CANARY)]),
        ):
            self.far.then = then
            secrets = b"Authorization: Bearer " + CANARY, b"Cookie: a=" + CANARY
            for target in (b"/svc/demo/?token=" + CANARY, b"/svc/demo/;s=" + CANARY):
                yield self.post(CANARY, *secrets, b"Hoft-Deadline: 0.2", target=target)
        proxied = b"GET http://user:" + CANARY + b"@h/ HTTP/1.1\r\nHost: h\r\nHoft-Deadline: 0.1\r\n"
        yield self.talk(proxied, b"Connection: close\r\n\r\n")
        told = "".join(str(one.as_json()) for one in self.ingress.accounts.history)
        self.assertGreaterEqual(len(self.lines()), 9)
        for text in (told, *map(formatEvent, self.events)):
            self.assertNotIn(CANARY.decode(), text)
