"""
All responses that are stored for routes with a cache: where they are found, how many bytes of
them there may be, and which go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from hoft.web.http.fields import FieldList
from hoft.web.ingress.caching import rows as cache_rows
from hoft.web.ingress.caching.rows import Entry

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

MEMORY: Final = 64 << 20
"""Bytes of memory that heads, URLs and ids of records may take."""

SHARE: Final = 4
"""One response may have this part of the room that there is."""


class CacheStore:
    """
    The one used longest ago goes first.  That order is not kept: after a start it is that in which
    they came.

    @ivar size: bytes of records.
    """

    def __init__(self, ingress: Ingress) -> None:
        self.size = 0
        self._memory = 0
        self._ingress = ingress
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._urls: dict[bytes, list[Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, entries: Iterable[Entry]) -> None:
        """What an earlier process has stored; before any record comes."""
        for entry in entries:
            self._ingress.keeper.expect(entry.records)
            self._add(entry)

    @property
    def largest(self) -> int:
        """The most bytes that one may have."""
        return self._ingress.routing.cache // SHARE

    def find(self, url: bytes, partition: bytes, request: FieldList) -> Entry | None:
        """The newest that these fields of a request select."""
        for entry in reversed(self._urls.get(url, ())):
            if entry.partition == partition and entry.selected(request):
                self._entries.move_to_end(entry.exchange)
                return entry
        return None

    def add(self, entry: Entry) -> None:
        """It is complete: from now on it is found, in place of its like."""
        for other in list(self._urls.get(entry.url, ())):
            same = other.vary == entry.vary and other.variant == entry.variant
            if same and other.partition == entry.partition:
                self.drop(other)
        self._add(entry)
        self._ingress.keeper.also(entry, cache_rows.write(entry))
        self.make_room()

    def _add(self, entry: Entry) -> None:
        self._entries[entry.exchange] = entry
        self._urls.setdefault(entry.url, []).append(entry)
        self.size += entry.size
        self._memory += entry.footprint

    def changed(self, entry: Entry, before: int) -> None:
        """
        It was freshened.

        @param before: its footprint until then.
        """
        if not entry.dropped:
            self._memory += entry.footprint - before
            self._ingress.keeper.also(entry, cache_rows.write(entry))

    def drop(self, entry: Entry) -> None:
        """It is not found any more."""
        if self._entries.pop(entry.exchange, None) is not None:
            others = self._urls[entry.url]
            others.remove(entry)
            if not others:
                del self._urls[entry.url]
            self.size -= entry.size
            self._memory -= entry.footprint
            self._ingress.keeper.also(entry, cache_rows.forget(entry.exchange))
            self.discard(entry)

    def discard(self, entry: Entry) -> None:
        """It was never to be found, or is not any more: its records go once nobody reads them."""
        entry.dropped = True
        self._let_go(entry)

    def take(self, entry: Entry) -> None:
        """A call is answered with it."""
        entry.readers += 1

    def release(self, entry: Entry) -> None:
        """It has been."""
        entry.readers -= 1
        self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        link = self._ingress.keeper.link(entry)
        if entry.dropped and not entry.readers and link is not None:
            records, entry.records = entry.records.tolist(), entry.records[:0]
            self._ingress.consume(link, records)

    def make_room(self) -> None:
        """Drop what there is no room for any more."""
        while self._entries and (self.size > self._ingress.routing.cache or self._memory > MEMORY):
            self.drop(next(iter(self._entries.values())))

    def remove(self, unwanted: Callable[[Entry], bool]) -> int:
        """
        Drop those.

        @return: how many they were.
        """
        found = [entry for entry in self._entries.values() if unwanted(entry)]
        for entry in found:
            self.drop(entry)
        return len(found)

    def invalidate(self, url: bytes) -> int:
        """Drop all responses of this URL, whoever has got them; how many they were."""
        found = list(self._urls.get(url, ()))
        for entry in found:
            self.drop(entry)
        return len(found)
