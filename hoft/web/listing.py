"""
Calls under way, and those that have ended lately, for whoever looks after a node.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import merge
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from hoft.errors import LocalError
from hoft.web.history import History, Logged
from hoft.web.slices import Slices

MOST = 1000
"""The most calls of each kind that one answer has."""

_FILTERS = ("side", "peer", "route", "caller", "stage")


Describe = Callable[[], dict[str, Any]]
"""What describes a call, when called."""


class Side(Protocol):
    """Where calls are."""

    @property
    def history(self) -> History:
        """Of those that have ended."""

    def under_way(self, ahead: float) -> Iterator[Describe | None]:
        """
        Each of those that are not over; C{None} here and there where many are looked at that are.

        @param ahead: seconds that the wall clock is ahead of the side's.
        """


class Listing:
    """Answers what is asked about the calls of one node."""

    def __init__(self, reactor: Any, clock: Callable[[], float], sides: Sequence[Side]) -> None:
        """@param clock: that of all sides."""
        self._clock = clock
        self._sides = sides
        self._slices = Slices(reactor)
        """There may be a hundred thousand calls."""

    def answer(self, question: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """
        C{under_way}, the oldest first, C{ended}, the latest first, and how many of each were C{left_off}.

        @param question: C{side}, C{peer}, C{route}, C{caller} and C{stage}: which calls; C{id}: those
            whose ids begin so; C{limit}: how many of each.  All of them may be missing.
        @raise LocalError: it makes no sense.
        """
        wanted = {key: question[key] for key in _FILTERS if question.get(key) is not None}
        id, limit = question.get("id") or "", question.get("limit", MOST)
        if not isinstance(id, str) or type(limit) is not int or not 0 <= limit <= MOST:
            raise LocalError("this node does not know that question: it is of another version")
        found: dict[str, Any] = {
            "now": time.time(),
            "under_way": [],
            "ended": [],
            "left_off": {"under_way": 0, "ended": 0},
        }
        return self._slices.run(self._look(found, wanted, id.lower(), limit), found)

    def log(self, which: str) -> None:
        """@param which: the value of a L{Logged}: of which calls the log says when they end."""
        for side in self._sides:
            side.history.logged = Logged(which)

    def stop(self) -> None:
        """Leave off."""
        self._slices.stop()

    def _look(self, found: dict[str, Any], wanted: dict[str, Any], id: str, limit: int) -> Iterator[None]:
        for kind, calls in (("under_way", self._under_way()), ("ended", self._ended())):
            for describe in calls:
                yield
                if describe is None:
                    continue
                if len(found[kind]) >= limit and not (wanted or id):
                    found["left_off"][kind] += 1
                    continue
                one = describe()
                if one["id"].startswith(id) and all(one[key] == value for key, value in wanted.items()):
                    if len(found[kind]) < limit:
                        found[kind].append(one)
                    else:
                        found["left_off"][kind] += 1

    def _under_way(self) -> Iterator[Describe | None]:
        ahead = time.time() - self._clock()
        for side in self._sides:
            yield from side.under_way(ahead)

    def _ended(self) -> Iterator[Describe]:
        # Of now: while it is looked at others end.
        of_each = [list(side.history) for side in self._sides]
        for call in merge(*of_each, key=lambda call: call.at, reverse=True):
            yield call.as_json
