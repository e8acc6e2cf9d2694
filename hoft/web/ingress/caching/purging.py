"""
C{hoft purge}: what is asked on this machine to be dropped from the cache, and how far that is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from hoft.errors import LocalError
from hoft.web.ingress.caching.store import Purge

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

PATIENCE: Final = 1.0
"""Seconds after which whoever asks is told how far it is."""

LOOK: Final = 0.05
"""Seconds between looks."""

REMEMBERED: Final = 32
"""How many may be asked about."""


class Purging:
    """That of one node."""

    def __init__(self, reactor: Any, ingress: Ingress) -> None:
        self._reactor = reactor
        self._ingress = ingress
        self._number = 0
        self._known: OrderedDict[int, Purge] = OrderedDict()

    def answer(self, question: Mapping[str, Any]) -> Deferred[dict[str, int]]:
        """
        @param question: C{what}: see L{Cache.purge<hoft.web.ingress.caching.cache.Cache.purge>}; or
            C{number}: of one that was begun by an earlier question.
        @return: fires with C{purged}, how many responses are gone, C{left}, how many are to be looked at
            yet, and C{number}, by which to ask again while there are any.
        @raise LocalError: there is no such thing.
        """
        number = question.get("number")
        if number is None:
            purge = self._ingress.cache.purge(question.get("what"))
            self._number += 1
            number = self._number
            self._known[number] = purge
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        elif number not in self._known:
            raise LocalError(f"no purge of number {number!r} is under way")
        return Deferred.fromCoroutine(self._wait(number, self._known[number]))

    async def _wait(self, number: int, purge: Purge) -> dict[str, int]:
        until = self._reactor.seconds() + PATIENCE
        while purge.left and self._reactor.seconds() < until:
            await deferLater(self._reactor, LOOK)
        if not purge.left:
            await gatherResults(self._ingress.commits())
            self._known.pop(number, None)
        return {"purged": purge.purged, "left": purge.left, "number": number}
