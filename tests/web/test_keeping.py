"""
Calls whose results stay at the ingress: taken with 202, asked about, fetched, over restarts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from hoft.interfaces import LinkState, Lost
from hoft.web.crossing.exchange import REQUESTS, RESPONSES, Kind, decode_part
from hoft.web.http.heads import ResponseHead
from hoft.web.http.problems import connection_refused
from hoft.web.ingress import kept_rows
from hoft.web.ingress.ingress import Ingress
from tests.web.callers import IngressCase, Response
from tests.web.listening import Test
from tests.web.loopback import Transaction

Steps = Generator[Deferred[Any], Any, Any]

ASYNC = b"Prefer: respond-async"


class KeepingCase(IngressCase):
    """Callers who do not wait."""

    def json(self, response: Response) -> Any:
        return json.loads(response.body)

    @staticmethod
    def head(length: int | None) -> ResponseHead:
        """Of a response with such a body."""
        return ResponseHead(200, b"Fine", (), length)

    def where(self, response: Response) -> bytes:
        """The status URL that a 202 names."""
        self.assertEqual(response.status, 202, response.body)
        [location] = response.fields(b"location")
        return location

    @inlineCallbacks
    def submit(self, body: bytes = b"", *fields: bytes) -> Steps:
        response = yield self.post(body, ASYNC, *fields)
        return self.where(response)

    @inlineCallbacks
    def reach(self, where: bytes, state: str) -> Steps:
        """The status, once it has that state."""
        for _ in range(500):
            response = yield self.get(where)
            status = self.json(response)
            if status["state"] == state:
                return status
            yield deferLater(reactor, 0.01)
        raise AssertionError(f"{status} is not {state}")

    @inlineCallbacks
    def restart(self) -> Test:
        """Another process finds what was committed."""
        yield self.port.stopListening()
        yield self.ingress.stop()
        self.near.detach()
        self.begin()

    def begin(self) -> None:
        """A new process."""
        self.ingress = Ingress(
            reactor,
            time.monotonic,
            Random(os.urandom(4)).randbytes,
            self.links,
            self.routing,
            "near",
            lambda: succeed(self.status),
        )
        self.ingress.load(kept_rows.load(Transaction(self.near.database)))
        self.near.attach(self.ingress)
        self.port = self.listen(self.ingress.factory)


class ResultTests(KeepingCase):
    @inlineCallbacks
    def test_an_answer_to_what_is_not_submitted_whole_yet_goes_to_its_caller_and_is_not_kept(self) -> Test:
        caller = self.begin_upload(2_000_000, ASYNC)
        yield self.until(lambda: self.far.requests)
        self.far.one.answer(413, body=b"enough")
        answer = yield deferToThread(caller.recv, 65536)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 ") and answer.endswith(b"enough"), answer)
        yield self.until(lambda: self.far.cancels and not self.near.unconsumed())
        self.assertEqual(self.ingress.keeper.kept, {})

    @inlineCallbacks
    def test_a_call_is_accepted_performed_and_its_result_is_there_as_often_as_it_is_asked_for(self) -> Test:
        response = yield self.post(b"order", ASYNC)
        where = self.where(response)
        self.assertEqual(response.fields(b"preference-applied"), [b"respond-async"])
        self.assertEqual(response.fields(b"retry-after"), [b"1"])
        self.assertEqual(self.json(response)["state"], "accepted")
        self.assertEqual(self.near.durable, 1, "on disk before the caller hears of it")
        yield self.reach(where, "acked")
        pending = yield self.get(where + b"/result")
        self.assertEqual(pending.status, 202)
        head = (b"Location", b"http://service.example:81/base/new"), (b"X-A", b"1"), (b"X-A", b"2")
        self.far.one.answer(201, head, b"\x00done")
        status = yield self.reach(where, "done")
        self.assertEqual(status["response_status"], 201)
        self.assertEqual(status["response_bytes"], 5)
        self.assertLessEqual({"accepted", "acked", "done"}, set(status["stages"]))
        for _ in range(2):
            result = yield self.get(where + b"/result")
            self.assertEqual((result.status, result.body), (201, b"\x00done"))
            self.assertEqual(result.fields(b"location"), [b"/svc/demo/new"])
            self.assertEqual(result.fields(b"x-a"), [b"1", b"2"])
        bare = yield self.get(where + b"/result", method=b"HEAD")
        self.assertEqual((bare.status, bare.body), (201, b""))
        self.assertEqual(bare.fields(b"content-length"), [b"5"])
        assert self.far.one.head is not None
        self.assertNotIn(b"Prefer", dict(self.far.one.head.headers), "the service is not asked for it again")

    @inlineCallbacks
    def test_a_password_of_its_url_is_not_kept(self) -> Test:
        for before, after in ((b"/to/http/", b"h/a@b?c@d"), (b"http://", b"h/"), (b"/to/https/", b"[::1]:1")):
            for user in (b"", b"http:canary", b"u%40"):
                response = yield self.post(b"order", ASYNC, target=before + user + b"@" + after)
                self.assertEqual(self.json(response)["url"].encode(), before + after)

    @inlineCallbacks
    def test_a_large_result_is_replayed_byte_for_byte_with_its_trailers(self) -> Test:
        body = os.urandom(3_000_000)
        self.far.then = lambda request: request.answer(body=body, length=None, trailers=((b"X-Sum", b"7"),))
        where = yield self.submit(os.urandom(700_000))
        yield self.reach(where, "done")
        result = yield self.get(where + b"/result", b"TE: trailers")
        self.assertEqual(result.body, body)
        [kept] = self.ingress.keeper.kept.values()
        self.assertEqual(self.near.unconsumed(), len(kept.records))
        self.assertFalse([one for one in self.near.records if decode_part(one).kind is Kind.CANCEL])

    @inlineCallbacks
    def test_a_problem_is_a_result_as_well(self) -> Test:
        self.far.then = lambda request: request.abort(connection_refused("http://service.example:81"))
        where = yield self.submit()
        status = yield self.reach(where, "failed")
        self.assertTrue(status["problem"]["type"].endswith("connection-refused"))
        result = yield self.get(where + b"/result")
        self.assertEqual(result.status, 502)
        self.assertTrue(self.json(result)["type"].endswith("connection-refused"))
        self.assertEqual(self.near.unconsumed(), 0)

    @inlineCallbacks
    def test_a_result_is_waited_for(self) -> Test:
        where = yield self.submit()
        asked = self.get(where + b"/result?wait=10")
        yield self.until(lambda: self.ingress.keeper.waiters and self.far.requests)
        self.far.one.answer(body=b"at last")
        result = yield asked
        self.assertEqual(result.body, b"at last")

    @inlineCallbacks
    def test_a_caller_that_waits_a_little_gets_the_response_itself(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"soon")
        response = yield self.get(b"/svc/demo/", b"Prefer: wait=10, respond-async")
        self.assertEqual((response.status, response.body), (200, b"soon"))
        self.far.then = None
        response = yield self.get(b"/svc/demo/", b"Prefer: respond-async;foo, wait=0")
        self.assertEqual(response.fields(b"preference-applied"), [b"respond-async, wait=0"])
        self.where(response)

    @inlineCallbacks
    def test_who_does_not_wait_may_leave_a_call_for_a_peer_that_is_down(self) -> Test:
        """To store and forward it is what we are for; who waits is told at once that it is in vain."""
        self.near.open = False
        self.near.change(LinkState.DOWN)
        response = yield self.get()
        self.assertEqual(response.status, 503)
        where = yield self.submit(b"order")
        self.near.change(LinkState.UP)
        self.near.heal()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        self.far.one.answer(body=b"done")
        yield self.reach(where, "done")
        self.near.change(LinkState.STOPPED)
        response = yield self.post(b"order", ASYNC)
        self.assertEqual(response.status, 503, "that is for a person to decide")

    @inlineCallbacks
    def test_what_does_not_exist_is_404_for_everybody(self) -> Test:
        for path in (b"/" + b"0" * 32, b"/" + b"0" * 32 + b"/result", b"/nonsense"):
            response = yield self.get(b"/_hoft/requests" + path)
            self.assertEqual(response.status, 404, path)

    @inlineCallbacks
    def test_all_requests_of_a_caller_are_listed_the_newest_first(self) -> Test:
        ids = []
        for _ in range(3):
            where = yield self.submit()
            ids.append(where.rpartition(b"/")[2].decode())
        listed = yield self.get(b"/_hoft/requests")
        self.assertEqual([one["id"] for one in self.json(listed)["requests"]], ids[::-1])


class RestartTests(KeepingCase):
    @inlineCallbacks
    def test_a_call_that_was_accepted_is_answered_in_a_later_life(self) -> Test:
        where = yield self.submit(b"order")
        yield self.restart()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        self.far.one.answer(body=b"done")
        yield self.reach(where, "done")
        result = yield self.get(where + b"/result")
        self.assertEqual(result.body, b"done")

    @inlineCallbacks
    def test_one_that_was_accepted_and_whose_caller_was_never_told_is_under_way(self) -> Test:
        """Killed between the commit of the row and the 202: the caller comes again with its key."""
        commit = self.near.commit
        silent: Deferred[Any] = Deferred()

        def kill(*arguments: Any, **keywords: Any) -> Deferred[Any]:
            commit(*arguments, **keywords)
            return silent

        self.patch(self.near, "commit", kill)
        asked = self.post(b"order", ASYNC, b"Idempotency-Key: k")
        yield self.until(lambda: self.ingress.keeper.kept)
        self.patch(self.near, "commit", commit)
        self.ingress.factory.abortAll()
        yield self.assertFailure(asked, Exception)
        yield self.restart()
        again = yield self.post(b"order", ASYNC, b"Idempotency-Key: k")
        self.assertEqual(again.status, 409)
        self.far.one.answer(body=b"done")
        where = self.json(again)["status_url"].encode()
        yield self.reach(where, "done")
        again = yield self.post(b"order", ASYNC, b"Idempotency-Key: k")
        self.assertEqual((again.status, again.body), (200, b"done"))
        self.assertEqual(len(self.far.requests), 1)

    @inlineCallbacks
    def test_of_a_request_that_the_journal_has_lost_the_outcome_is_unknown(self) -> Test:
        """By the id of its record, where what is left does not tell; that of another call goes on."""
        self.near.open = False
        lost = yield self.submit(b"x" * 100_000)
        other = yield self.submit(b"x" * 100_000)
        yield self.restart()
        [bad, *_] = next(iter(self.ingress.keeper.kept.values())).sent
        self.ingress.recordsLost(self.near, [Lost(bad, RESPONSES, b""), Lost(bad + 1, REQUESTS, b"")])
        status = yield from self.reach(lost, "failed")
        self.assertTrue(status["problem"]["type"].endswith("outcome-unknown"), status)
        response = yield self.get(other)
        self.assertEqual(self.json(response)["state"], "accepted")
        self.near.heal()

    @inlineCallbacks
    def test_a_response_that_was_half_here_is_completed(self) -> Test:
        body = os.urandom(400_000)
        where = yield self.submit()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        self.far_link.open = False
        self.far.one.answer(body=body)
        self.far_link.heal()
        yield self.until(lambda: self.near.unconsumed() > 1)
        self.far_link.open = False
        yield self.restart()
        self.far_link.heal()
        yield self.reach(where, "done")
        result = yield self.get(where + b"/result")
        self.assertEqual(result.body, body)

    @inlineCallbacks
    def test_a_result_that_was_here_is_there_still_and_is_not_read_to_be_found(self) -> Test:
        body = os.urandom(400_000)
        self.far.then = lambda request: request.answer(body=body)
        where = yield self.submit()
        yield self.reach(where, "done")
        yield self.restart()
        self.patch(self.near, "read", None)
        for _ in range(20):
            yield deferLater(reactor, 0)
        self.assertFalse(self.ingress.keeper.knows, "all records were recognised")
        del self.near.read
        result = yield self.get(where + b"/result")
        self.assertEqual(result.body, body)
