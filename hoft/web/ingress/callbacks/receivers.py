"""
Who callbacks go to: how many attempts at once, and rests for one that is in trouble.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import define, field

if TYPE_CHECKING:
    from hoft.web.ingress.callbacks.delivering import Outcome
    from hoft.web.ingress.callbacks.delivery import Delivery
    from hoft.web.ingress.callbacks.registrations import Destination

PARALLEL: Final = 4
"""Attempts at one origin at once."""

LONGEST_REST: Final = 60.0
"""Seconds for which all attempts at an origin rest after several that failed, if it does not ask for more."""


@define(eq=False)
class Receiver:
    """
    One origin that callbacks go to.

    @ivar queue: what is due, in order.
    @ivar running: attempts under way.
    @ivar failures: how many in a row have found it busy or not at all.
    @ivar rests: (clock of the ingress) until when it is left alone.
    """

    queue: deque[tuple[Delivery, Destination]] = field(factory=deque)
    running: int = 0
    failures: int = 0
    rests: float = 0.0

    @property
    def places(self) -> int:
        """How many attempts may be made at once: of a receiver in trouble, one."""
        return 1 if self.failures else PARALLEL

    def learn(self, outcome: Outcome, now: float) -> None:
        """What an attempt has shown of it."""
        if not outcome.busy:
            self.failures = 0
            return
        self.failures += 1
        rest = min(LONGEST_REST, 2.0 ** min(self.failures - 1, 10))
        self.rests = max(self.rests, now + max(rest, outcome.retry_after))
