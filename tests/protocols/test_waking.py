"""When a link has the journal synced."""

from __future__ import annotations

import math
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.replication import Replication
from hoft.protocols.waking import SYNC_AGAIN, AckSync


class Engine:
    """As much of an engine as is asked: its answer always wants a sync."""

    def __init__(self) -> None:
        self.receiver = self
        self.durable_at: list[tuple[int, float]] = []

    def wants_sync(self, now: float) -> bool:
        return True

    def to_sync(self) -> int:
        return 7

    def durable(self, count: int, now: float) -> None:
        self.durable_at.append((count, now))

    def deadline(self) -> float:
        return 0.0

    def deadline_without_answer(self) -> float | None:
        return None


class AckSyncTests(SynchronousTestCase):
    """One sync at a time, and not again soon after one that failed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.engine = Engine()
        self.asked: list[Deferred[Any]] = []
        self.failures: list[Failure] = []
        self.over: list[float] = []
        self.sync = AckSync(
            self.clock.seconds,
            self._begin,
            self.failures.append,
            lambda: self.over.append(self.clock.seconds()),
        )

    def _begin(self) -> Deferred[Any]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def ask(self) -> int:
        """It may be due; how many syncs were begun so far."""
        self.sync.sync_if_due(cast(Replication, self.engine), self.clock.seconds())
        return len(self.asked)

    def deadline(self) -> float:
        return self.sync.deadline(cast(Replication, self.engine), self.clock.seconds())

    def test_the_next_begins_when_the_last_is_over(self) -> None:
        self.assertEqual([self.ask(), self.ask()], [1, 1])
        self.assertEqual(self.deadline(), math.inf)
        self.asked[0].callback(None)
        self.assertEqual(self.engine.durable_at, [(7, 0.0)])
        self.assertEqual(len(self.over), 1)
        self.assertEqual(self.ask(), 2)

    def test_one_that_failed_is_told_of_and_tried_again_a_minute_later(self) -> None:
        self.ask()
        self.asked[0].errback(RuntimeError("the disk"))
        self.assertEqual([failure.type for failure in self.failures], [RuntimeError])
        self.assertEqual(self.engine.durable_at, [])
        self.assertEqual(self.ask(), 1)
        self.assertEqual(self.deadline(), SYNC_AGAIN)
        self.clock.advance(SYNC_AGAIN)
        self.assertEqual(self.ask(), 2)
