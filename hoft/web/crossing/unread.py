"""
Records that a link handed up without their payload.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.python.failure import Failure

from hoft.errors import LinkClosed
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
    ) -> None:
        """
        @param found: called with id and payload of some, again and again.
        @param failed: called where they cannot be read; the others are tried all the same.
        """
        self._link = link
        self._found = found
        self._failed = failed
        self._ids: deque[int] = deque()
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
        ids = [self._ids.popleft() for _ in range(min(FETCHED, len(self._ids)))]
        self._reading = True
        self._link.read(ids).addCallback(self._read, ids).addErrback(self._unreadable)

    def _read(self, payloads: list[bytes], ids: Sequence[int]) -> None:
        self._reading = False
        self._found(list(zip(ids, payloads, strict=True)))
        self._next()

    def _unreadable(self, failure: Failure) -> None:
        self._reading = False
        if failure.check(LinkClosed):
            self._ids.clear()
        self._failed(failure)
        self._next()
