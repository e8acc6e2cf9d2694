"""
Records that a link handed up without their payload.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.python.failure import Failure

from hoft.errors import LinkClosed, PayloadDamaged, PayloadLost
from hoft.interfaces import ILink

FETCHED = 16
"""Records that are read at once to find out what they are."""


class Unread:
    """Reads them from the journal, in order and a few at a time."""

    def __init__(
        self,
        link: ILink,
        found: Callable[[Sequence[tuple[int, bytes]]], None],
        failed: Callable[[Failure], Any],
        damaged: Callable[[int, bytes], None],
    ) -> None:
        """
        @param found: called with id and payload of some, again and again.
        @param failed: called where they cannot be read; the others are tried all the same.
        @param damaged: called with the id of one that is not what was stored, and what is there
            in its place, which may be empty.
        """
        self._link = link
        self._found = found
        self._failed = failed
        self._damaged = damaged
        self._ids: deque[int] = deque()
        self._alone = 0
        """So many are read one by one: one of them could not be read."""
        self._reading = False

    def add(self, ids: Iterable[int]) -> None:
        """These are to be read as well."""
        self._ids.extend(ids)
        self._next()

    def drop(self) -> list[int]:
        """Read no more; those that were not read."""
        ids = list(self._ids)
        self._ids.clear()
        return ids

    def _next(self) -> None:
        if self._reading or not self._ids:
            return
        self._alone = max(self._alone - 1, 0)
        most = 1 if self._alone else min(FETCHED, len(self._ids))
        ids = [self._ids.popleft() for _ in range(most)]
        self._reading = True
        self._link.read(ids).addCallback(self._read, ids).addErrback(self._unreadable, ids)

    def _read(self, payloads: list[bytes], ids: Sequence[int]) -> None:
        self._reading = False
        self._found(list(zip(ids, payloads, strict=True)))
        self._next()

    def _unreadable(self, failure: Failure, ids: Sequence[int]) -> None:
        self._reading = False
        error = failure.value
        if isinstance(error, PayloadLost) and len(ids) > 1:
            self._ids.extendleft(reversed(ids))
            self._alone = len(ids) + 1
        elif isinstance(error, PayloadDamaged):
            self._damaged(ids[0], error.found)
        else:
            if failure.check(LinkClosed):
                self._ids.clear()
            self._failed(failure)
        self._next()
