"""
When kept exchanges are given up, when their results expire, and when it is forgotten that there were any.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.kept_rows import Stage
from hoft.web.ingress.sweeping import TURN

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress
    from hoft.web.ingress.keeper import Keeper

MAX_EXPIRED = 50_000
"""The most of which it is remembered that they have expired; beyond it the oldest are forgotten."""


class Expiring:
    """Of one ingress."""

    def __init__(self, keeper: Keeper, ingress: Ingress) -> None:
        self._keeper = keeper
        self._ingress = ingress
        self._timers: list[tuple[float, int, bytes]] = []
        self._timer = 0
        self._expired: dict[bytes, None] = {}
        """Those that are L{Stage.EXPIRED}, the oldest first."""
        self._looked = 0.0
        """When L{tick} was called last."""

    def resume(self, kept: Kept) -> None:
        """It is of an earlier process."""
        left = min(max(0.0, kept.expires - self._keeper.wall()), self._longest)
        self._arm(kept, self._keeper.clock() + left)
        if kept.stage is Stage.EXPIRED:
            self._expired[kept.id] = None

    @property
    def _longest(self) -> float:
        """
        Seconds that anything may still be kept: a clock that was set back while no
        process ran must not make it last for ever.
        """
        routing = self._ingress.routing
        return max(routing.async_deadline, routing.result_ttl, routing.expired_ttl, 86400.0)

    def begin(self, kept: Kept, seconds: float) -> None:
        """It expires in so many seconds, whatever was said before."""
        kept.expires = self._keeper.wall() + seconds
        self._arm(kept, self._keeper.clock() + seconds)

    def forget(self, kept: Kept) -> None:
        """It is not kept any more."""
        self._expired.pop(kept.id, None)

    def tick(self, now: float) -> None:
        """Let go of what has been kept long enough."""
        self._looked = now
        if self._timers and self._timers[0][0] <= now:
            self._ingress.sweeper.begin(self._due_some)

    def _arm(self, kept: Kept, due: float) -> None:
        kept.due = due
        self._timer += 1
        heappush(self._timers, (due, self._timer, kept.id))

    def _due_some(self) -> bool:
        now = self._looked
        for _ in range(TURN):
            if not self._timers or self._timers[0][0] > now:
                return False
            due, _, id = heappop(self._timers)
            kept = self._keeper.kept.get(id)
            if kept is not None and kept.due == due:
                self._due(kept, now)
        return True

    def _due(self, kept: Kept, now: float) -> None:
        keeper = self._keeper
        if kept.stage is Stage.EXPIRED:
            keeper.forget(kept)
            return
        if kept.expire(keeper):
            keeper.vacate(kept)
            self._expired[kept.id] = None
            self._arm(kept, now + keeper.remembered)
            if len(self._expired) > MAX_EXPIRED:
                keeper.forget(keeper.kept[next(iter(self._expired))])
        elif kept.due <= now:
            self._arm(kept, now + (60.0 if kept.awaited else 1.0))
