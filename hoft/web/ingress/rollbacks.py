"""
What becomes of kept exchanges when a node was restored.

There may be a hundred thousand that were under way.  So which of them can go on is decided of some in each
turn of the reactor; of one to which something happens before its turn has come, first of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import field, frozen
from twisted.internet.defer import Deferred

from hoft.interfaces import ILink
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.sweeping import TURN, Sweeper

if TYPE_CHECKING:
    from hoft.web.ingress.keeper import Keeper

LOOKED_AT: Final = 2000
"""How many are looked at in a turn of the reactor."""


@frozen(eq=False)
class _Rollback:
    """One of them."""

    peer: bytes
    resent: frozenset[int]
    left: dict[bytes, Kept]
    """What was kept then, of which nothing is decided yet, by id."""
    decided: Deferred[None] = field(factory=Deferred)


class Rollbacks:
    """Of one ingress."""

    def __init__(self, keeper: Keeper, sweeper: Sweeper, commit: Callable[[], object]) -> None:
        """@param commit: asks for what the exchanges have asked for."""
        self._keeper = keeper
        self._sweeper = sweeper
        self._commit = commit
        self._under_way: list[_Rollback] = []

    def begin(self, link: ILink, resent: frozenset[int]) -> Deferred[None]:
        """
        A node was restored.

        @param resent: records of ours that are sent all the same.
        @return: fires once all that follows was asked to be committed.
        """
        rollback = _Rollback(link.peer.bytes, resent, self._keeper.kept.copy())
        self._under_way.append(rollback)
        self._sweeper.begin(self._decide_some)
        return rollback.decided

    def decide(self, kept: Kept) -> None:
        """Something is about to happen to it."""
        for rollback in self._under_way:
            if rollback.left.pop(kept.id, None) is not None:
                self._decide(rollback, kept)

    def _decide_some(self) -> bool:
        rollback, ended = self._under_way[0], 0
        for _ in range(LOOKED_AT):
            if not rollback.left or ended >= TURN:
                break
            _, kept = rollback.left.popitem()
            ended += self._decide(rollback, kept)
        if not rollback.left:
            del self._under_way[0]
            self._commit()
            rollback.decided.callback(None)
        return bool(self._under_way)

    def _decide(self, rollback: _Rollback, kept: Kept) -> bool:
        """Whether it ends with that."""
        if kept.peer != rollback.peer or kept.over:
            return False
        kept.rolledBack(self._keeper, rollback.resent)
        return kept.over
