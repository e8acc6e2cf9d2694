"""
Records that have come: which of them are new is for the engine to say, these are committed and handed up.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from hoft.errors import JournalFull
from hoft.interfaces import Arrival, IArrivalReceiver, ILink, Incoming, IRecordReceiver
from hoft.protocols.layout import SPARED, Record
from hoft.protocols.link_log import LinkLog
from hoft.protocols.receiving import Receiver


class Acceptance:
    """Of one link."""

    def __init__(
        self,
        link: ILink,
        records: LinkLog,
        receiver: IRecordReceiver,
        clock: Callable[[], float],
        over: Callable[[], None],
        counts: dict[str, int],
    ) -> None:
        """
        @param records: the link's.
        @param receiver: the layer above.
        @param clock: monotonic seconds.
        @param over: called when something was committed, or found no room.
        @param counts: for status displays.
        """
        self._link = link
        self._records = records
        self._receiver = receiver
        self._arrival_receiver = receiver if IArrivalReceiver.providedBy(receiver) else None
        self._clock = clock
        self._over = over
        self._counts = counts
        self._closed = False

    def close(self) -> None:
        """Hand up nothing more."""
        self._closed = True

    def accept(self, known: Receiver, clock: int, records: Sequence[Record]) -> Deferred[None]:
        """
        Commit those that are new and hand them up.

        @param known: the engine's present one.
        @param clock: the peer's, from the packet's control frame.
        @return: fires once all of them are committed.
        @raise JournalFull: (as failure) they may be given again later.
        """
        new = known.accept([record.number for record in records])
        fresh = []
        for record in records:
            if record.number in new:
                new.discard(record.number)
                fresh.append(record)
        numbers = [record.number for record in fresh]
        if not fresh:
            known.owe(self._clock())
            return succeed(None)
        incoming = self._records.arriving(fresh)
        # Without room they may be refused, and come, again and again.
        early, late = ([], incoming) if known.full else self._arriving(incoming)
        self._counts["records_received"] += len(incoming)

        def committed(current: bool) -> None:
            if current:
                if not known.full or any(len(record.payload) > SPARED for record in fresh):
                    known.room(True, self._clock())
                known.committed(numbers, self._clock())
                self.hand_up(late)
                self._over()

        def failed(failure: Failure) -> Failure:
            known.refused(numbers)
            if failure.check(JournalFull):
                known.room(False, self._clock())
                self._over()
            return failure

        accepting = self._records.accept(clock, numbers, early, late)
        self.hand_up(early)
        return accepting.addCallbacks(committed, failed)

    def _arriving(self, incoming: list[Incoming]) -> tuple[list[Incoming], list[Incoming]]:
        """Those that are handed up before they are committed, and those after that."""
        receiver = self._arrival_receiver
        if receiver is None or self._closed:
            return [], incoming
        by_arrival: dict[Arrival, list[Incoming]] = {arrival: [] for arrival in Arrival}
        for one in incoming:
            by_arrival[receiver.recordArriving(self._link, one)].append(one)
        return by_arrival[Arrival.AT_ONCE], by_arrival[Arrival.STORE]

    def hand_up(self, incoming: Sequence[Incoming]) -> None:
        """These are for the layer above."""
        if incoming and not self._closed:
            self._receiver.recordsReceived(self._link, incoming)
