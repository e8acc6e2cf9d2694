"""
One callback, from the request that wants it until it is delivered or dead, as callers and operators see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from hoft.web.ingress.asking import shown_time
from hoft.web.ingress.callbacks.rows import Row, State
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.kept_rows import Stage

if TYPE_CHECKING:
    from hoft.web.ingress.callbacks.callbacks import Callbacks


@define(eq=False)
class Delivery(Row):
    """
    One callback; an L{Observer<hoft.web.ingress.keeping.Observer>} of its exchange.

    @ivar kept: the exchange.
    """

    kept: Kept = field(kw_only=True)
    callbacks: Callbacks = field(kw_only=True, repr=False)

    @property
    def pending(self) -> bool:
        """The result is still needed for it."""
        return self.state is State.PENDING

    def stageReached(self, kept: Kept) -> None:
        """See L{hoft.web.ingress.keeping.Observer}."""
        if kept.stage in (Stage.CANCELLED, Stage.EXPIRED):
            self.callbacks.drop(self)
        elif kept.over and self.state is State.WAITING:
            self.callbacks.begin(self)

    def drop(self) -> None:
        """The exchange is forgotten."""
        self.callbacks.drop(self)

    def listed(self) -> dict[str, Any]:
        """For operators, ready for JSON."""
        from hoft.web.ingress.callbacks.delivering import delivery_id

        return {
            "id": self.exchange.hex(),
            "webhook_id": delivery_id(self.kept),
            "caller": self.kept.caller,
            **self.described(),
            "url": self.url.partition("?")[0],
        }

    def described(self) -> dict[str, Any]:
        """For its caller, ready for JSON."""
        return {
            "url": self.url,
            "state": self.state.value,
            "attempts": self.attempts,
            "last_attempt": _shown(self.last),
            "next_attempt": _shown(self.due),
            "reason": self.reason,
        }


def _shown(at: float | None) -> str | None:
    return None if at is None else shown_time(at)
