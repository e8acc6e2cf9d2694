"""
Responses for which there is no room on the disk: they stand in nobody's way.
"""

from __future__ import annotations

import socket
from collections.abc import Generator
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, fail, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import JournalFull
from hoft.web.crossing.exchange import MAX_BODY, WINDOW, PartWriter, Side
from hoft.web.http.heads import ResponseHead
from hoft.web.http.problems import Problem
from hoft.web.ingress.room import LOW, PAUSE, STEP, Room
from tests.web.callers import Received
from tests.web.listening import Test
from tests.web.test_keeping import ASYNC, KeepingCase

Steps = Generator[Deferred[Any], Any, Any]

MB = 1_000_000


@define(eq=False)
class Response:
    """One that is to stay, and comes as it is let."""

    held: int = 0
    offered: int = WINDOW
    over: Problem | None = None
    room: Room | None = None

    def offer(self) -> None:
        assert self.room is not None
        total = self.room.offer(self.offered, self.held, self.held + WINDOW)
        self.offered = self.offered if total is None else total

    def fail(self, problem: Problem) -> None:
        assert self.room is not None
        self.over = problem
        self.held = 0
        self.room.leave(self)


class RoomTests(SynchronousTestCase):
    """Of a disk on which nothing else changes."""

    def setUp(self) -> None:
        self.disk = 0
        self.coming: list[Response] = []
        self.room = Room(lambda: self.disk - sum(one.held for one in self.coming))
        self.now = 0.0

    def come(self, held: int = 0) -> Response:
        one = Response(held, room=self.room)
        self.coming.append(one)
        self.room.come(one)
        return one

    def run_out(self, one: Response, size: int) -> int:
        """All of it comes as far as it is let, a record at a time; the least that was free."""
        least = 1 << 62
        while one.over is None and one.held < size:
            one.held += min(1 << 18, one.offered - one.held)
            one.offer()
            least = min(least, self.disk - one.held)
            self.now += PAUSE / 100
            self.room.tick(self.now)
        return least

    def test_what_is_larger_than_the_room_is_given_up_before_the_disk_is_full(self) -> None:
        for disk in (20 << 20, 100 << 20, 1000 << 20):
            self.disk = disk
            one = self.come()
            least = self.run_out(one, 4000 << 20)
            assert one.over is not None
            self.assertEqual((one.over.status, one.over.kind), (507, "no-space"))
            self.assertGreaterEqual(least, LOW)
            self.assertLess(least, LOW + 3 * STEP)
            self.now += PAUSE

    def test_what_fits_is_let_in_as_far_as_it_fits(self) -> None:
        self.disk = (500 << 20) + LOW + 4 * STEP
        one = self.come()
        self.run_out(one, 500 << 20)
        self.assertIsNone(one.over)
        self.assertEqual(one.held, 500 << 20)
        self.assertLess(one.offered, 505 << 20)

    def test_the_largest_goes_first_and_the_next_only_when_the_disk_has_seen_that(self) -> None:
        self.disk = LOW + (30 << 20)
        small, large, middle = self.come(STEP // 2), self.come(20 << 20), self.come(10 << 20)
        for _ in range(5):
            self.room.tick(self.now)
        self.assertIsNotNone(large.over)
        self.assertIsNone(middle.over)
        self.disk = 0
        self.room.tick(self.now + PAUSE)
        self.assertIsNotNone(middle.over)
        self.room.tick(self.now + 2 * PAUSE)
        self.assertIsNone(small.over, "it is no large one")

    def test_nothing_is_given_up_for_a_disk_of_which_nothing_is_known(self) -> None:
        def gone() -> int:
            raise FileNotFoundError

        room = Room(gone)
        one = Response(50 << 20, room=room)
        room.come(one)
        room.tick(self.now)
        self.assertFalse(room.short or one.over)

    def test_who_hands_on_what_comes_goes_on_by_little_steps(self) -> None:
        self.disk = 0
        accepted, offered, told = WINDOW, WINDOW, 0
        while accepted < 2 * WINDOW:
            total = self.room.offer(offered, accepted, accepted + WINDOW, accepted + 2 * STEP)
            offered, told = (offered, told) if total is None else (total, told + 1)
            self.assertLess(accepted, offered)
            accepted = min(offered, accepted + STEP)
        self.assertLess(told, 100)


class FullDiskTests(KeepingCase):
    """A disk with 20 MB less what lies in the journal, beside what responses leave alone."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = 20 * MB

    def free(self) -> int:
        return LOW + self.disk - self.near.unconsumed_bytes()

    def written(self) -> int:
        """What the only caller was given."""
        [said] = [one() for one in self.ingress.under_way(0) if one is not None]
        return int(said["response_bytes"])

    def start(self, request: Received, size: int) -> None:
        """Answer it with the head and so much of the body."""
        self.writer = request.writer()
        head = self.writer.head(ResponseHead(200, b"Fine", (), None))
        self.far.send(head + self.writer.data(bytes(size)))

    @inlineCallbacks
    def small_call(self) -> Steps:
        self.far.then = lambda request: request.answer(body=b"well")
        response = yield self.post(b"x")
        self.assertEqual((response.status, response.body), (200, b"well"))

    @inlineCallbacks
    def test_a_result_that_is_too_large_fails_alone(self) -> Test:
        looking = self.patch(self.ingress.room, "tick", lambda now: None)
        self.far.then = lambda request: self.start(request, 19 * MB)
        where = yield self.submit()
        yield self.until(lambda: self.near.unconsumed_bytes() > 18 * MB)
        [said] = [one() for one in self.ingress.under_way(0) if one is not None]
        self.assertIn("our disk has next to no room", said["why"])
        refused = yield self.post(b"x", ASYNC)
        self.assertEqual(refused.status, 507)
        self.assertTrue(self.json(refused)["type"].endswith("no-space"))
        yield self.small_call()
        looking.restore()
        self.ingress.tick()
        status = yield self.reach(where, "failed")
        self.assertEqual(status["problem"]["status"], 507)
        self.assertTrue(status["problem"]["type"].endswith("no-space"))
        yield self.until(lambda: self.far.cancels and not self.near.unconsumed())
        yield self.submit()

    @inlineCallbacks
    def test_a_caller_that_does_not_read_loses_its_answer(self) -> Test:
        self.far.then = lambda request: self.start(request, 25 * MB)
        caller = self.connect()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.sendall(b"GET /svc/demo/ HTTP/1.1\r\nHost: a\r\n\r\n")
        yield self.until(lambda: self.far.cancels)
        yield self.until(lambda: not self.near.unconsumed())
        yield self.small_call()
        caller.close()

    @inlineCallbacks
    def test_what_is_let_go_of_is_let_go_of_also_where_that_finds_no_room_at_first(self) -> Test:
        commit, left = self.near.commit, [fail(JournalFull("no room")) for _ in range(5)]
        self.patch(self.near, "commit", lambda *all, **named: left.pop() if left else commit(*all, **named))
        self.far.send(PartWriter(bytes(16), Side.EGRESS).data(bytes(100_000)))
        yield self.until(lambda: self.near.unconsumed())
        yield self.until(lambda: not self.near.unconsumed() and self.far.cancels)
        self.assertEqual(left, [])

    @inlineCallbacks
    def test_one_that_reads_has_all_of_it(self) -> Test:
        self.disk = 0
        self.far.then = lambda request: self.start(request, MB // 2)
        asked = self.get()
        yield self.until(lambda: self.far.requests and self.far.one.complete)
        for count in range(1, 61):
            yield self.until(lambda: self.written() >= count * (MB // 2) - MAX_BODY)  # noqa: B023  # called at once
            self.far.send(self.writer.data(bytes(MB // 2)))
            self.ingress.tick()
        self.far.send(self.writer.end())
        response = yield asked
        self.assertEqual(len(response.body), 61 * (MB // 2))
