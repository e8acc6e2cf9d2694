"""Where calls are that are under way, and why: on both sides, at each of their stages."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from hoft.defaults import STAGES
from hoft.interfaces import Delivery, LinkState
from hoft.web.crossing.exchange import encode_executing
from hoft.web.egress.executions import State
from hoft.web.egress.surroundings import Limits
from hoft.web.history import Logged
from tests.web.callers import IngressCase
from tests.web.services import EgressCase, Service, Test, until
from tests.web.test_keeping import ASYNC, KeepingCase

WHY_QUEUED = "as many calls of near as may be are being performed already: 1 by this service, or 400 by all"

AHEAD = 1_000_000.0


def described(found: Any) -> list[dict[str, Any]]:
    """What is said of each."""
    said = [describe() for describe in found if describe is not None]
    for one in said:
        assert one["stage"] in STAGES, one
        assert one["why"], one
        assert one["age"] >= 0, one
        assert sorted(one["stages"].values()) == list(one["stages"].values()), one
    return said


class IngressTests(IngressCase):
    def one(self) -> dict[str, Any]:
        """What is said of the only call."""
        [one] = described(self.ingress.under_way(AHEAD))
        return one

    @inlineCallbacks
    def test_a_request_that_its_caller_does_not_send(self) -> Test:
        caller = self.begin_upload(2_000_000)
        yield self.until(lambda: described(self.ingress.under_way(0)))
        yield self.until(lambda: self.one()["request_bytes"] == 1_000_000)
        said = self.one()
        self.assertEqual((said["side"], said["peer"], said["route"]), ("ingress", "far", "demo"))
        self.assertEqual((said["method"], said["url"]), ("POST", "/svc/demo/"))
        self.assertEqual(
            (said["stage"], said["why"]), ("receiving", "its caller has not sent all of the request")
        )
        caller.close()
        yield self.until(lambda: not list(self.ingress.under_way(0)))

    @inlineCallbacks
    def test_one_that_the_peer_has_not_acknowledged_and_then_has(self) -> Test:
        self.near.open = False
        self.near.state = LinkState.LATE
        answer = self.get(b"/svc/demo/?token=canary")
        yield self.until(lambda: list(self.ingress.under_way(0)))
        yield self.until(lambda: self.one()["stage"] == "accepted")
        said = self.one()
        self.assertRegex(said["why"], r"^it waits for its turn, .*; far is late: see 'hoft status'$")
        self.assertEqual(list(said["stages"]), ["receiving", "accepted"])
        self.assertGreater(said["left"], 0)
        self.assertNotIn("canary", str(said))
        self.near.state = LinkState.UP
        self.patch(self.near, "delivery", lambda id: Delivery.SENT)
        self.assertEqual(self.one()["why"], "far has not acknowledged it")
        del self.near.delivery
        self.near.heal()
        yield self.until(lambda: self.one()["stage"] == "acked")
        self.assertIn("far has the request, and has not answered", self.one()["why"])
        self.far.one.answer()
        yield answer
        self.assertEqual(list(self.ingress.under_way(0)), [])

    @inlineCallbacks
    def test_a_response_of_which_a_part_is_here(self) -> Test:
        answer = self.get()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        writer = self.far.one.writer()
        self.far.send(writer.head(self.response_head(), flush=True))
        yield self.until(lambda: self.one()["stage"] == "responding")
        said = self.one()
        self.assertEqual((said["status"], said["why"]), (200, "far has not sent the rest of the response"))
        self.far.send(writer.end())
        yield answer

    @staticmethod
    def response_head() -> Any:
        return KeepingCase.head(None)


class KeptTests(KeepingCase):
    def one(self) -> dict[str, Any]:
        """What is said of the only call."""
        [one] = described(self.ingress.under_way(0))
        return one

    @inlineCallbacks
    def test_kept_calls_say_their_stages_and_what_they_wait_for(self) -> Test:
        self.near.open = False
        self.near.state = LinkState.UP
        where = yield self.submit(b"order", b"Cookie: canary")
        said = self.one()
        self.assertEqual((said["stage"], said["kept"]), ("accepted", True))
        self.assertRegex(said["why"], r"^it waits for its turn, with \d+ bytes for far$")
        self.near.heal()
        yield self.reach(where, "acked")
        self.assertEqual(self.one()["why"], "far has the request, and has not said more")
        self.far.send([encode_executing(self.far.one.exchange)])
        yield self.reach(where, "executing")
        self.assertIn("the service behind far has not answered", self.one()["why"])
        self.assertEqual(list(self.one()["stages"]), ["accepted", "acked", "executing"])
        writer = self.far.one.writer()
        self.far.send(writer.head(self.head(None), flush=True))
        yield self.reach(where, "responding")
        self.assertEqual(self.one()["why"], "far has not sent the rest of the response")
        self.far.send(writer.end())
        yield self.reach(where, "done")
        self.assertEqual(described(self.ingress.under_way(0)), [])

    @inlineCallbacks
    def test_what_waits_for_a_peer_that_is_down(self) -> Test:
        self.near.open = False
        self.near.change(LinkState.DOWN)
        yield self.post(b"", ASYNC)
        self.assertRegex(self.one()["why"], r"^it waits for its turn, .*; far is down: see 'hoft status'$")
        del self.links["far"]
        self.assertEqual(self.one()["why"], "a peer of before is not trusted any more")


class EgressTests(EgressCase):
    limits = Limits(grace=0.1, parallel=1, backlog=1000)

    def setUp(self) -> None:
        super().setUp()
        self.open: list[Service] = []
        self.service.script = lambda service, request: self.open.append(service)
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.egress.history.logged = Logged.ALL

    def under_way(self) -> list[dict[str, Any]]:
        return described(self.egress.under_way(AHEAD))

    def waits(self, stage: str) -> Callable[[], bool]:
        return lambda: [one["stage"] for one in self.under_way()] == [stage]

    def last(self) -> dict[str, Any]:
        """The last call that has ended."""
        for one in self.egress.history:
            return one.as_json()
        return {"outcome": None}

    def lines(self) -> list[str]:
        return [text for text in map(formatEvent, self.events) if text.startswith("Call ")]

    @inlineCallbacks
    def test_a_request_that_has_not_come_as_a_whole(self) -> Test:
        call = self.near.expect()
        call.send(*self.near.parts(call.id, self.head(b"POST"), b"x" * 500)[:-1])
        yield until(self.waits("gathering"))
        yield until(lambda: self.under_way()[0]["request_bytes"] == 500)
        [said] = self.under_way()
        self.assertEqual((said["id"], said["peer"], said["side"]), (call.id.hex(), "near", "egress"))
        self.assertTrue(said["why"].startswith("near has not sent all of the request"), said)

    @inlineCallbacks
    def test_what_the_service_has_and_what_waits_for_its_turn(self) -> Test:
        first = self.near.call(self.head(b"POST", b"/a?token=canary", caller="10.0.0.1"))
        yield until(lambda: self.open)
        self.near.call(self.head(target=b"/b"))
        yield until(lambda: len(self.under_way()) == 2)
        running, queued = self.under_way()
        self.assertEqual((running["id"], running["caller"]), (first.id.hex(), "10.0.0.1"))
        self.assertEqual(running["url"], f"http://127.0.0.1:{self.port}/a?...")
        self.assertEqual(running["stage"], "executing")
        self.assertIn(f"http://127.0.0.1:{self.port} has not answered for ", running["why"])
        self.assertEqual(list(running["stages"]), ["gathering", "queued", "executing"])
        self.assertEqual(queued["stage"], "queued")
        self.assertEqual(queued["why"], WHY_QUEUED)

    @inlineCallbacks
    def test_what_is_not_on_disk_yet_that_it_starts(self) -> Test:
        self.process.hold()
        self.near.call(self.head(b"POST"))
        yield until(self.waits("executing"))
        self.assertIn("journal", self.under_way()[0]["why"])
        self.process.release()
        yield until(lambda: self.open)

    @inlineCallbacks
    def test_a_response_whose_rest_does_not_come(self) -> Test:
        self.near.call(self.head())
        yield until(lambda: self.open)
        self.open[0].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + bytes(5000))
        yield until(self.waits("responding"))
        yield until(lambda: self.under_way()[0]["why"] == "the service has not sent the rest of the response")
        self.assertEqual(self.under_way()[0]["status"], 200)
        self.link.open = False
        self.open[0].answer(os.urandom(2_000_000))
        yield until(lambda: "bytes wait for near" in self.under_way()[0]["why"])
        self.link.heal()

    @inlineCallbacks
    def test_calls_that_have_ended_are_told_of_with_their_id(self) -> Test:
        canary = [
            (b"Authorization", b"canary"),
            (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
        ]
        call = self.near.call(self.head(b"POST", b"/a?token=canary", headers=canary), b"order")
        yield until(lambda: self.open)
        self.open.pop().answer(b"HTTP/1.1 201 OK\r\nContent-Length: 6\r\nSet-Cookie: canary\r\n\r\ncanary")
        yield call.done
        yield until(lambda: list(self.egress.history))
        told = self.last()
        self.assertEqual((told["id"], told["outcome"], told["status"]), (call.id.hex(), "answered", 201))
        self.assertEqual((told["request_bytes"], told["response_bytes"]), (5, 6))
        [line] = self.lines()
        url = f"http://127.0.0.1:{self.port}/a?..."
        self.assertTrue(line.startswith(f"Call {call.id.hex()}: egress POST {url} 201 peer=near "), line)
        self.assertTrue(line.endswith(f" trace={'a' * 32}"), line)
        for text in (str(told), *map(formatEvent, self.events)):
            self.assertNotIn("canary", text)

    @inlineCallbacks
    def test_so_are_those_that_were_refused_cancelled_and_interrupted(self) -> Test:
        call = self.near.call(self.head(host="10.1.1.1"))
        yield call.done
        yield until(lambda: list(self.egress.history))
        self.assertEqual((self.last()["status"], self.last()["problem"]), (403, "not-allowed"))
        call = self.near.call(self.head(b"POST"))
        yield until(lambda: self.open)
        call.cancel()
        yield until(lambda: self.last()["outcome"] == "cancelled")
        self.assertEqual((self.last()["id"], self.last()["status"]), (call.id.hex(), None))
        call = self.near.call(self.head(b"POST"))
        yield until(lambda: State.STARTED in self.rows().values())
        yield self.crash()
        self.restart()
        yield call.done
        yield until(lambda: list(self.egress.history))
        self.assertEqual((self.last()["status"], self.last()["problem"]), (502, "outcome-unknown"))
        self.assertEqual(self.last()["id"], call.id.hex())

    @inlineCallbacks
    def test_one_that_was_cut(self) -> Test:
        call = self.near.call(self.head())
        yield until(lambda: self.open)
        self.open[0].answer(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nhalf")
        yield until(lambda: call.body)
        self.open[0].reset()
        yield call.done
        yield until(lambda: list(self.egress.history))
        told = self.last()
        self.assertEqual(
            (told["outcome"], told["status"], told["problem"]), ("cut", 200, "response-incomplete")
        )
