"""When a link has the journal synced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from hoft.protocols.replication import Replication

SYNC_AGAIN = 60.0
"""Seconds after which a journal that could not be synced is asked again."""


class AckSync:
    """Has the journal synced when an answer is due that acknowledges what may not be on the disk yet."""

    def __init__(
        self,
        clock: Callable[[], float],
        sync: Callable[[], Deferred[Any]],
        failed: Callable[[Failure], None],
        over: Callable[[], None],
    ) -> None:
        """
        @param sync: fires once all that is committed by now would survive a power cut.
        @param failed: told of what went wrong; it is tried again.
        @param over: called after each sync.
        """
        self._clock = clock
        self._sync = sync
        self._failed = failed
        self._over = over
        self._syncing = False
        self._not_before = -math.inf

    def sync_if_due(self, engine: Replication, now: float) -> None:
        """Begin, where an answer wants it."""
        if self._syncing or now < self._not_before or not engine.wants_sync(now):
            return
        self._syncing = True
        receiver = engine.receiver
        count = receiver.to_sync()

        def synced(_: object) -> None:
            receiver.durable(count, self._clock())

        def failed(failure: Failure) -> None:
            self._not_before = self._clock() + SYNC_AGAIN
            self._failed(failure)

        def over(_: object) -> None:
            self._syncing = False
            self._over()

        self._sync().addCallbacks(synced, failed).addCallback(over)

    def deadline(self, engine: Replication, now: float) -> float:
        """When the engine is to be asked again; what waits for a sync is not looked at before."""
        if self._syncing or now < self._not_before:
            others = engine.deadline_without_answer()
            then = math.inf if self._syncing else self._not_before
            return then if others is None else min(others, then)
        deadline = engine.deadline()
        return math.inf if deadline is None else deadline
