"""When a link has something to do: its timer, and its syncs of the journal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from hoft.protocols.replication import Replication

SYNC_AGAIN = 60.0
"""Seconds after which a journal that could not be synced is asked again."""


class Alarm:
    """
    One timer that is set anew all the time.

    @ivar due: (clock) when it is to ring; infinite for never.
    """

    def __init__(self, reactor: IReactorTime, ring: Callable[[], None]) -> None:
        self.due = -math.inf
        self._reactor = reactor
        self._ring = ring
        self._call: IDelayedCall | None = None
        self._at = 0.0

    def set(self, due: float, now: float) -> None:
        """Ring when C{due} has come."""
        self.due = due
        if due == math.inf:
            return
        if self._call is not None:
            if self._at <= due:
                return  # it rings too early, and is set anew then: cheaper than moving it each time
            self.cancel()
        self._at = due
        self._call = self._reactor.callLater(max(0.0, due - now), self._rang)

    def _rang(self) -> None:
        self._call = None
        self._ring()

    def cancel(self) -> None:
        """Do not ring."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None


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
