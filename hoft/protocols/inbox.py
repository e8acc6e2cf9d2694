"""
The records of a link's peer that are in our journal and that nobody has consumed yet.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hoft.errors import PayloadLost
from hoft.interfaces import Incoming
from hoft.protocols.log import Held
from hoft.protocols.log_writing import NOWHERE
from hoft.protocols.segments import Location


class Inbox:
    """What lies in one link's inbox."""

    def __init__(self, held: Iterable[Held] = ()) -> None:
        """@param held: what the journal holds at the start; it is handed up once, see L{leftovers}."""
        self._held = {one.id: one for one in held}
        self._leftovers = list(self._held)

    def expect(self, records: Iterable[Incoming]) -> None:
        """These are handed up before they are committed."""
        for one in records:
            self._held[one.id] = Held(one.id, one.channel, one.size, NOWHERE)

    def enter(self, held: Iterable[Held], expected: Iterable[Incoming]) -> None:
        """
        These are committed.

        @param expected: those of them that L{expect} was told of; they may be consumed by now.
        """
        gone = {one.id for one in expected if one.id not in self._held}
        for one in held:
            if one.id not in gone:
                self._held[one.id] = one

    def leftovers(self) -> list[Incoming]:
        """What was there at the start and still is; only the first time."""
        leftovers, self._leftovers = self._leftovers, []
        # Those who know of them by what they have written themselves may have consumed some.
        held = [self._held[id] for id in leftovers if id in self._held]
        return [Incoming(one.id, one.channel, one.size, None) for one in held]

    def consume(self, ids: Iterable[int]) -> list[Held]:
        """The layer above lets go of these; those that were there."""
        return [held for id in ids if (held := self._held.pop(id, None)) is not None]

    def restore(self, held: Iterable[Held]) -> None:
        """L{consume} could not be committed."""
        self._held.update((one.id, one) for one in held)

    def locations(self, ids: Sequence[int], whose: str) -> list[Location]:
        """
        Where their payloads are.

        @raise PayloadLost: some were consumed, went with their log, or are not committed yet.
        """
        found = [self._held.get(id) for id in ids]
        if None in found or any(one.location == NOWHERE for one in found if one is not None):
            raise PayloadLost(
                f"some of the records {list(ids)} of {whose} were consumed, or went with their log"
            )
        return [one.location for one in found if one is not None]

    def clear(self) -> None:
        """The log is replaced."""
        self._held.clear()
        self._leftovers = []
