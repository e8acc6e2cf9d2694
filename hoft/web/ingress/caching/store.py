"""
All responses that are stored for routes with a cache: where they are found, how many bytes of
them there may be, and which go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final

from hoft.web.http.fields import FieldList
from hoft.web.ingress.caching import rows as cache_rows
from hoft.web.ingress.caching.keys import variant
from hoft.web.ingress.caching.rows import Entry
from hoft.web.ingress.shares import Shares
from hoft.web.ingress.sweeping import TURN

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

MEMORY: Final = 64 << 20
"""Bytes of memory that heads, URLs and ids of records may take."""

SHARE: Final = 4
"""One response may have this part of the room that there is."""

VARIES: Final = 8
"""How many different C{Vary} there may be among the responses of one URL to one partition."""

LOOKED_AT: Final = 2000
"""How many are looked at in a turn of the reactor."""


class _Variants:
    """What there is of one URL for one partition."""

    __slots__ = ("entries", "varies")

    def __init__(self) -> None:
        self.entries: dict[tuple[str, bytes], Entry] = {}
        """By the names in Vary, and what the request said in those fields."""
        self.varies: dict[str, int] = {}
        """How many there are with each."""

    def find(self, request: FieldList) -> Entry | None:
        """The newest that is selected."""
        found: Entry | None = None
        for vary in self.varies:
            entry = self.entries.get((vary, variant(vary.encode("ascii").split(), request)))
            if entry is not None and (found is None or entry.received > found.received):
                found = entry
        return found


class Purge:
    """
    One that is under way: what it concerns is not found any more from its beginning on.

    @ivar purged: how many are gone.
    """

    def __init__(self, entries: list[Entry], before: int, unwanted: Callable[[Entry], bool]) -> None:
        """
        @param entries: among which those are that it concerns.
        @param before: the number of the first that comes too late for it.
        """
        self.purged = 0
        self._entries = entries
        self._before = before
        self._unwanted = unwanted

    @property
    def left(self) -> int:
        """How many are to be looked at yet."""
        return len(self._entries)

    def concerns(self, entry: Entry) -> bool:
        """It is not to be found."""
        return entry.number < self._before and self._unwanted(entry)

    def next(self, most: int) -> Sequence[Entry]:
        """Some that are to be dropped, and at most so many."""
        found: list[Entry] = []
        for _ in range(min(LOOKED_AT, len(self._entries))):
            if len(found) >= most:
                break
            entry = self._entries.pop()
            if not entry.dropped and self._unwanted(entry):
                found.append(entry)
        self.purged += len(found)
        return found


class CacheStore:
    """
    Where there is no room, something goes of the caller that has the most: what it has used
    longest ago.  So nobody whose part is no larger than an equal one loses anything to
    another.  That order is not kept: after a start it is that in which they came.
    """

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._sizes: Shares[str | None] = Shares()
        self._memory: Shares[str | None] = Shares()
        self._entries: dict[str | None, OrderedDict[bytes, Entry]] = {}
        """By caller, in the order in which they were used, and exchange."""
        self._urls: dict[bytes, dict[bytes, _Variants]] = {}
        """By URL and partition."""
        self._all: dict[int, Entry] = {}
        """By number: to go through them takes a tenth of what it takes in the order of their use."""
        self._number = 0
        self._purges: list[Purge] = []

    def __len__(self) -> int:
        return len(self._all)

    @property
    def size(self) -> int:
        """Bytes of records."""
        return self._sizes.total

    def load(self, entries: Iterable[Entry]) -> None:
        """What an earlier process has stored, the oldest first; before any record comes."""
        for entry in entries:
            self._ingress.keeper.expect(entry.records)
            self._add(entry)

    @property
    def largest(self) -> int:
        """The most bytes that one may have."""
        return self._ingress.routing.cache // SHARE

    def find(self, url: bytes, partition: bytes, request: FieldList) -> Entry | None:
        """The newest that these fields of a request select."""
        variants = self._urls.get(url, {}).get(partition)
        entry = None if variants is None else variants.find(request)
        if entry is None or any(purge.concerns(entry) for purge in self._purges):
            return None
        self._entries[entry.caller].move_to_end(entry.exchange)
        return entry

    def add(self, entry: Entry) -> None:
        """It is complete: from now on it is found, in place of its like."""
        variants = self._urls.get(entry.url, {}).get(entry.partition)
        if variants is not None:
            if entry.vary not in variants.varies and len(variants.varies) >= VARIES:
                self.discard(entry)
                return
            like = variants.entries.get((entry.vary, entry.variant))
            if like is not None:
                self.drop(like)
        self._add(entry)
        self._ingress.keeper.also(entry, cache_rows.write(entry))
        self.make_room()

    def _add(self, entry: Entry) -> None:
        self._entries.setdefault(entry.caller, OrderedDict())[entry.exchange] = entry
        variants = self._urls.setdefault(entry.url, {}).setdefault(entry.partition, _Variants())
        variants.entries[entry.vary, entry.variant] = entry
        variants.varies[entry.vary] = variants.varies.get(entry.vary, 0) + 1
        self._number += 1
        entry.number = self._number
        self._all[entry.number] = entry
        self._sizes.take(entry.caller, entry.size)
        self._memory.take(entry.caller, entry.footprint)

    def changed(self, entry: Entry, before: int) -> None:
        """
        It was freshened.

        @param before: its footprint until then.
        """
        if not entry.dropped:
            self._memory.take(entry.caller, entry.footprint - before)
            self._ingress.keeper.also(entry, cache_rows.write(entry))

    def drop(self, entry: Entry) -> None:
        """It is not found any more."""
        own = self._entries.get(entry.caller)
        if own is None or own.pop(entry.exchange, None) is None:
            return
        if not own:
            del self._entries[entry.caller]
        self._unlist(entry)
        del self._all[entry.number]
        self._sizes.take(entry.caller, -entry.size)
        self._memory.take(entry.caller, -entry.footprint)
        self._ingress.keeper.also(entry, cache_rows.forget(entry.exchange))
        self.discard(entry)

    def _unlist(self, entry: Entry) -> None:
        partitions = self._urls[entry.url]
        variants = partitions[entry.partition]
        if variants.entries.get((entry.vary, entry.variant)) is entry:
            del variants.entries[entry.vary, entry.variant]
        variants.varies[entry.vary] -= 1
        if not variants.varies[entry.vary]:
            del variants.varies[entry.vary]
        if not variants.varies:
            del partitions[entry.partition]
        if not partitions:
            del self._urls[entry.url]

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

    # --- room -----------------------------------------------------------------------------

    def make_room(self) -> None:
        """Drop what there is no room for any more."""
        self._ingress.sweeper.begin(self._drop_some)

    def _drop_some(self) -> bool:
        for _ in range(TURN):
            entry = self._superfluous()
            if entry is None:
                return False
            self.drop(entry)
        return self._superfluous() is not None

    def _superfluous(self) -> Entry | None:
        """The one that goes next, if one must."""
        routing, sizes, memory = self._ingress.routing, self._sizes, self._memory
        limits = routing.cache_limits
        greedy: list[str | None] = [caller for caller in limits if sizes.of(caller) > limits[caller]]
        if sizes.total > routing.cache:
            greedy.append(sizes.largest())
        elif memory.total > MEMORY:
            greedy.append(memory.largest())
        return next(iter(self._entries[greedy[-1]].values())) if greedy else None

    # --- what is not true any more ------------------------------------------------------------

    def remove(self, unwanted: Callable[[Entry], bool]) -> Purge:
        """Drop those that there are now; if they are many, in several turns of the reactor."""
        return self._begin(list(self._all.values()), unwanted)

    def invalidate(self, url: bytes) -> int:
        """Drop all responses of this URL, whoever has got them; how many they were."""
        found = chain.from_iterable(one.entries.values() for one in self._urls.get(url, {}).values())
        among = list(found)
        count = len(among)
        self._begin(among, lambda entry: entry.url == url)
        return count

    def _begin(self, among: list[Entry], unwanted: Callable[[Entry], bool]) -> Purge:
        purge = Purge(among, self._number + 1, unwanted)
        if purge.left:
            self._purges.append(purge)
            self._ingress.sweeper.begin(self._purge_some)
        return purge

    def _purge_some(self) -> bool:
        room = TURN
        while self._purges and room > 0:
            purge = self._purges[0]
            for entry in purge.next(room):
                self.drop(entry)
                room -= 1
            if purge.left:
                break
            self._purges.remove(purge)
        return bool(self._purges)
