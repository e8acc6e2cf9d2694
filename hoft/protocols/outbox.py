"""
The records of ours that a link's peer has not acknowledged, and where their payloads are.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import define, evolve

from hoft.interfaces import Delivery, Outgoing
from hoft.protocols.log import Adopted, Queued
from hoft.protocols.log_writing import NOWHERE, VOID
from hoft.protocols.packet_writing import Payload
from hoft.protocols.queueing import OutgoingRecord

CACHED_BYTES = 8 << 20
"""Payloads kept in memory between their commit and their first packet, a link."""


@define
class _Entry:
    queued: Queued
    payload: bytes | None
    flow: int = 0
    since: float = 0.0
    unsent: bool = True
    """It was in no file, of this process or an earlier one."""


class Outbox:
    """
    What lies in one link's outbox.

    @ivar backlog: bytes of payload in it, and of what is being committed to it.
    """

    def __init__(self, queued: Iterable[Queued] = (), now: float = 0.0) -> None:
        """@param queued: what the journal holds at the start."""
        self.backlog = 0
        self._entries: dict[int, _Entry] = {}
        self._cached = 0
        self._handed_over = 0
        for one in queued:
            entry = self._enter(one, None)
            entry.unsent = one.number is None
            entry.since = now

    def __len__(self) -> int:
        return len(self._entries)

    def ids(self) -> list[int]:
        """Of all records, in the order of their commits."""
        return list(self._entries)

    def _enter(self, queued: Queued, payload: bytes | None, flow: int = 0) -> _Entry:
        entry = self._entries[queued.id] = _Entry(queued, payload, flow)
        self.backlog += queued.size
        return entry

    def oldest(self) -> float | None:
        """When the oldest was committed, or the link opened if that was later; None: it is empty."""
        entry = next(iter(self._entries.values()), None)
        return None if entry is None else entry.since

    def add(
        self,
        committed: Sequence[Queued],
        send: Sequence[Outgoing],
        payloads: Sequence[bytes],
        now: float = 0.0,
    ) -> list[OutgoingRecord]:
        """
        Records were committed.

        @param send: the same, as they were given.
        @param payloads: theirs, as they are to be sent.
        @return: those that have a number, for the engine.
        """
        numbered: list[OutgoingRecord] = []
        for queued, outgoing, payload in zip(committed, send, payloads, strict=True):
            if queued.id <= self._handed_over:
                continue  # a log that was adopted or begun in between has all there is to know of it
            cached = self._cached + queued.size <= CACHED_BYTES
            self._cached += queued.size if cached else 0
            entry = self._enter(queued, payload if cached else None, outgoing.flow)
            entry.since = now
            if queued.number is not None:
                numbered.append(for_engine(queued, outgoing.flow))
        return numbered

    def numbered(self, queued: Iterable[Queued]) -> Iterator[OutgoingRecord]:
        """Records that an adoption has left, for the engine."""
        for one in queued:
            entry = self._entries[one.id]
            record = for_engine(one, entry.flow)
            record.earlier = not entry.unsent
            yield record

    def unsent(self, id: int) -> Queued | None:
        """A record that was in no file yet."""
        entry = self._entries.get(id)
        return entry.queued if entry is not None and entry.unsent else None

    def delivery(self, id: int) -> Delivery:
        """How far a record has come."""
        entry = self._entries.get(id)
        if entry is None:
            return Delivery.ACKNOWLEDGED
        return Delivery.QUEUED if entry.unsent else Delivery.SENT

    def void(self, id: int, keep: bool) -> None:
        """
        A record was taken back.

        @param keep: it has a number, and remains as a record of nothing.
        """
        entry = self._entries.get(id)
        if entry is None or not keep:
            self._forget(id)
            return
        self.backlog -= entry.queued.size
        if entry.payload is not None:
            self._cached -= entry.queued.size
        entry.queued = evolve(entry.queued, channel=VOID, size=0, location=NOWHERE)
        entry.payload = b""

    def numbered_as(self, number: int) -> Queued | None:
        """The record with that number; for what happens seldom."""
        found = (entry.queued for entry in self._entries.values() if entry.queued.number == number)
        return next(found, None)

    def replace(self, adopted: Adopted) -> None:
        """The log was adopted or begun anew, which left this in it."""
        self._handed_over = adopted.last
        for id in adopted.dropped:
            self._forget(id)
        for queued in adopted.outbox:
            entry = self._entries.get(queued.id)
            if entry is None:
                self._enter(queued, None)
            else:
                entry.queued = queued

    def forget(self, records: Iterable[OutgoingRecord]) -> list[Queued]:
        """
        These are acknowledged.

        @return: what is to leave the journal.
        """
        entries = [self._forget(record.id) for record in records]
        return [entry.queued for entry in entries if entry is not None]

    def _forget(self, id: int) -> _Entry | None:
        entry = self._entries.pop(id, None)
        if entry is not None:
            self.backlog -= entry.queued.size
            if entry.payload is not None:
                self._cached -= entry.queued.size
        return entry

    def payloads(self, frames: Sequence[Sequence[OutgoingRecord]]) -> list[list[Payload]]:
        """What goes into these frames, which is sent now."""
        return [[self._payload(record) for record in frame] for frame in frames]

    def _payload(self, record: OutgoingRecord) -> Payload:
        entry = self._entries[record.id]
        entry.unsent = False
        source = entry.queued.location if entry.payload is None else entry.payload
        channel = entry.queued.channel
        return Payload(record.number, channel & 255, record.size, source, channel >> 8 & 255)

    def written(self, frames: Sequence[Sequence[OutgoingRecord]]) -> None:
        """These were in a packet: if they are to go again, they are read from the journal."""
        for frame in frames:
            for record in frame:
                entry = self._entries.get(record.id)
                if entry is not None and entry.payload is not None:
                    entry.payload = None
                    self._cached -= entry.queued.size


def for_engine(queued: Queued, flow: int = 0) -> OutgoingRecord:
    """A record that has a number, as the engine knows it."""
    assert queued.number is not None
    return OutgoingRecord(queued.id, queued.number, queued.size, queued.urgency, flow)
