"""
The records of a link's peer that are in our journal and that nobody has consumed yet.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hoft.errors import PayloadLost
from hoft.interfaces import Incoming
from hoft.protocols.log import Held
from hoft.protocols.segments import Location


class Inbox:
    """What lies in one link's inbox."""

    def __init__(self, held: Iterable[Held] = ()) -> None:
        """@param held: what the journal holds at the start; it is handed up once, see L{leftovers}."""
        self._held = {one.id: one for one in held}
        self._leftovers = list(self._held)

    def enter(self, held: Sequence[Held], payloads: Sequence[bytes | None]) -> list[Incoming]:
        """These are committed: what the layer above is handed."""
        for one in held:
            self._held[one.id] = one
        return [
            Incoming(one.id, one.channel, one.size, payload)
            for one, payload in zip(held, payloads, strict=True)
        ]

    def leftovers(self) -> list[Held]:
        """What was there at the start and still is; only the first time."""
        leftovers, self._leftovers = self._leftovers, []
        # Those who know of them by what they have written themselves may have consumed some.
        return [self._held[id] for id in leftovers if id in self._held]

    def consume(self, ids: Iterable[int]) -> list[Held]:
        """The layer above lets go of these; those that were there."""
        return [held for id in ids if (held := self._held.pop(id, None)) is not None]

    def restore(self, held: Iterable[Held]) -> None:
        """L{consume} could not be committed."""
        self._held.update((one.id, one) for one in held)

    def locations(self, ids: Sequence[int], whose: str) -> list[Location]:
        """
        Where their payloads are.

        @raise PayloadLost: some were consumed, or went with their log.
        """
        gone = [id for id in ids if id not in self._held]
        if gone:
            raise PayloadLost(f"records {gone} of {whose} were consumed, or went with their log")
        return [self._held[id].location for id in ids]

    def clear(self) -> None:
        """The log is replaced."""
        self._held.clear()
        self._leftovers = []
