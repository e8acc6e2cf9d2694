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

from hoft.interfaces import IExpiryReceiver, ILink, IRecordReceiver
from hoft.protocols.link_log import LinkLog
from hoft.protocols.log import Queued
from hoft.protocols.log_writing import VOID, Void, Voided
from hoft.protocols.unacknowledged import Unacknowledged


class Withdrawals:
    """
    Of one link.

    While the journal is asked a record stays out of the engine, so that it cannot be
    sent any more; if it has a number, it is then sent as a record of nothing.
    """

    def __init__(
        self,
        link: ILink,
        records: LinkLog,
        receiver: IRecordReceiver,
        sending: Callable[[], Unacknowledged],
        over: Callable[[], None],
        lost: Callable[[Failure, str], None],
        counts: dict[str, int],
    ) -> None:
        """
        @param records: the link's.
        @param receiver: the layer above.
        @param sending: what the engine has of the records.
        @param over: called when the journal has answered.
        @param lost: says what comes of it that something could not be done.
        @param counts: for status displays.
        """
        self._link = link
        self._receiver = receiver
        self._over = over
        self._lost = lost
        self._counts = counts
        self._closed = False
        self._records = records
        self._sending = sending
        self._asked: set[int] = set()
        self._expiries: list[tuple[float, int]] = []

    def watch(self, queued: Iterable[Queued], ahead: float) -> None:
        """
        Records were committed.

        @param ahead: seconds that the wall clock is ahead of the one that L{expire} is given.
        """
        for one in queued:
            if one.expires is not None:
                heappush(self._expiries, (one.expires - ahead, one.id))

    def next_due(self) -> float | None:
        """When L{expire} has something to do, or None."""
        return self._expiries[0][0] if self._expiries else None

    def expire(self, now: float) -> None:
        """Take back what has expired by now, and tell the layer above of it."""
        ids = []
        while self._expiries and self._expiries[0][0] <= now:
            ids.append(heappop(self._expiries)[1])
        if ids:
            done = self.withdraw(ids).addCallback(self._expired)
            done.addErrback(self._lost, "records that have expired are sent all the same")

    def _expired(self, ids: list[int]) -> None:
        if ids and not self._closed and IExpiryReceiver.providedBy(self._receiver):
            self._receiver.recordsExpired(self._link, ids)

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True

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
            self._over()
            return succeed([])
        self._asked.update(chosen)

        def done(voided: Voided) -> list[int]:
            self._asked.difference_update(chosen)
            for id, number in voided:
                self._records.outbox.void(id, keep=number is not None)
            self._release(chosen)
            self._counts["records_cancelled"] += len(voided)
            self._over()
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
