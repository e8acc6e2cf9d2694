"""
Records that are taken back before they are sent: because the layer above cancels them, or
because they have expired.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from hoft.protocols.link_log import LinkLog
from hoft.protocols.log import Queued
from hoft.protocols.log_writing import VOID, Void, Voided
from hoft.protocols.unacknowledged import Unacknowledged


class Withdrawals:
    """
    Of one link.

    While the journal is asked a record stays out of the engine, so that it cannot be
    sent any more; if it has a number, it is then sent as a record of nothing.

    @ivar expired: how many records were taken back because of their age.
    """

    def __init__(self, records: LinkLog, sending: Callable[[], Unacknowledged]) -> None:
        """@param sending: what the engine has of them."""
        self.expired = 0
        self._records = records
        self._sending = sending
        self._asked: set[int] = set()
        self._expiries: list[tuple[float, int]] = []

    def watch(self, queued: Iterable[Queued], ahead: float) -> None:
        """
        Records were committed.

        @param ahead: seconds that the wall clock is ahead of the one that L{due} is asked by.
        """
        for one in queued:
            if one.expires is not None:
                heappush(self._expiries, (one.expires - ahead, one.id))

    def next_due(self) -> float | None:
        """When L{due} has something to say, or None."""
        return self._expiries[0][0] if self._expiries else None

    def due(self, now: float) -> list[int]:
        """The ids of records that have expired by now, each once."""
        ids = []
        while self._expiries and self._expiries[0][0] <= now:
            ids.append(heappop(self._expiries)[1])
        return ids

    def is_withdrawn(self, id: int) -> bool:
        """Whether the journal is being asked about it."""
        return id in self._asked

    def withdraw(self, ids: Sequence[int]) -> Deferred[list[int]]:
        """
        Take back those that were never sent.

        @return: fires with those for which that is committed.
        """
        chosen = [id for id in dict.fromkeys(ids) if self._withhold(id)]
        if not chosen:
            return succeed([])
        self._asked.update(chosen)

        def done(voided: Voided) -> list[int]:
            self._asked.difference_update(chosen)
            for id, number in voided:
                self._records.outbox.void(id, keep=number is not None)
            self._release(chosen)
            return [id for id, _ in voided]

        def failed(failure: Failure) -> Failure:
            self._asked.difference_update(chosen)
            self._release(chosen)
            return failure

        return self._records.write(Void(chosen)).addCallbacks(done, failed)

    def _withhold(self, id: int) -> bool:
        queued = self._records.outbox.unsent(id)
        if queued is None or queued.channel == VOID or id in self._asked:
            return False
        return queued.number is None or self._sending().withhold(queued.number)

    def _release(self, ids: Iterable[int]) -> None:
        """They may be sent, as whatever they are now."""
        for id in ids:
            queued = self._records.outbox.unsent(id)
            if queued is not None and queued.number is not None:
                for record in self._records.outbox.numbered([queued]):
                    self._sending().add(record)
