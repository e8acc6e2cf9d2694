"""
What a link writes into its log for every call: all that was asked for at one time
in a few statements.

Each statement that a thread of its own runs in SQLite may have to wait for the
interpreter, and that is what such a thread spends most of its time on; so the row
of the link is read and written once, rows are inserted many at a time, and
those that go are named in one list.

All is called on the journal's thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import frozen

from hoft.interfaces import Incoming, ITransaction, Outgoing
from hoft.protocols.compression import Compressor
from hoft.protocols.journal import Transaction
from hoft.protocols.layout import COMPRESSED, PARTLY_COMPRESSED
from hoft.protocols.log import AGAIN, Held, Queued, decode_received, encode_received, ids_of, word
from hoft.protocols.segments import IN_SEGMENT, Location

VOID = 0
"""The channel of records that say nothing."""

NOWHERE = Location(0, b"")
"""Where their payload is."""


@frozen
class Commit:
    """
    Records to queue, received ones to let go of, and what the layer above writes.

    @ivar consume: ids; unknown ones are passed over.
    @ivar also: called with the transaction, before the rest.
    @ivar now: by the wall clock, for records that expire.
    @ivar compressor: for records that ask for it; C{None} to leave all as they are.
    """

    send: Sequence[Outgoing]
    consume: Sequence[int]
    also: Callable[[ITransaction], Any] | None
    now: float = 0.0
    compressor: Compressor | None = None


@frozen
class Committed:
    """
    What a L{Commit} did.

    @ivar value: what C{also} returned.
    @ivar clock: the link's; raised if it is synchronised in this boot, since the peer
        may come to know of the commit.
    @ivar payloads: of the records, as they are to be sent.
    """

    value: Any
    generation: int
    clock: int
    records: Sequence[Queued]
    payloads: Sequence[bytes]


@frozen
class Accept:
    """
    Received records, none of them known.

    @ivar generation: of the log they belong to.
    @ivar clock: the peer's, as their packet said.
    @ivar numbers: of all of them.
    @ivar records: those that go into the inbox.
    @ivar last: no id above this one was given to a received record.
    """

    generation: int
    clock: int
    numbers: Sequence[int]
    records: Sequence[Incoming]
    last: int


@frozen
class Accepted:
    """What an L{Accept} brought into the inbox, in its order."""

    clock: int
    records: Sequence[Held]


@frozen
class Acknowledge:
    """
    The peer has committed these records: they leave the outbox.

    @ivar generation: of the log they belong to.
    @ivar clock: the peer's.
    """

    generation: int
    clock: int
    records: Sequence[Queued]


@frozen
class Void:
    """
    Take back records that were never sent: what has no number goes, what has one stays
    as a record of nothing, so that the peer will have all numbers.  It does the ids and
    numbers of those that were there.
    """

    ids: Sequence[int]


Voided = list[tuple[int, int | None]]

Step = Commit | Accept | Acknowledge | Void


def write(
    transaction: Transaction, link: int, boot: int, steps: Iterable[Step]
) -> list[Committed | Accepted | Voided | None]:
    """
    Take these steps, in their order.

    @return: for each what it did; C{None} for an L{Acknowledge}, and for an L{Accept}
        whose log has been replaced.
    @raise hoft.errors.JournalFull: no room for a payload.
    """
    log = _Writer(transaction, link, boot)
    done = [log.take(step) for step in steps]
    log.finish()
    return done


class _Writer:
    """One link's log within one transaction."""

    def __init__(self, transaction: Transaction, link: int, boot: int) -> None:
        self._transaction = transaction
        self._link = link
        row = transaction.execute(
            "SELECT generation, boot IS ?, clock, peer_clock, next_number, received, last_outbox, last_inbox"
            " FROM link WHERE id = ?",
            (word(boot), link),
        ).fetchone()
        self._generation, self._synchronised, *rest = row
        self._clock, self._peer_clock, self._number, self._received, self._outbox, self._inbox = rest
        first, _ = ids_of(link)
        self._outbox = self._outbox or first
        self._queued: list[tuple[Any, ...]] = []
        self._held: dict[int, Held] = {}
        self._acknowledged: list[int] = []
        self._consumed: list[int] = []

    def take(self, step: Step) -> Committed | Accepted | Voided | None:
        if isinstance(step, Commit):
            return self._commit(step)
        if isinstance(step, Void):
            return self._void(step.ids)
        if step.generation != self._generation:
            return None
        self._peer_clock = max(self._peer_clock, step.clock)
        if isinstance(step, Accept):
            return self._accept(step)
        for record in step.records:
            self._transaction.discard(record.location)
            self._acknowledged.append(record.id)
        return None

    def _commit(self, step: Commit) -> Committed:
        value = None
        if step.also is not None:
            self._write_rows()  # it may look
            value = step.also(self._transaction)
        for id in step.consume:
            held = self._held.pop(id, None)
            if held is None:
                self._consumed.append(id)
            else:  # it came within this transaction: no row was written
                self._transaction.discard(held.location)
        queued: list[Queued] = []
        payloads: list[bytes] = []
        for record in step.send:
            self._outbox += 1
            number = None
            if self._synchronised:
                number = self._number
                self._number += 1
            payload, channel = record.payload, record.channel
            start = record.compress_from
            if start is not None and step.compressor is not None:
                packed = step.compressor.pack(payload, start)
                if packed is not None:
                    flag = PARTLY_COMPRESSED if start else COMPRESSED
                    payload, channel = packed, channel | flag << 8
            if record.again:
                channel |= AGAIN
            location = self._transaction.store(payload)
            size = len(payload)
            expires = None if record.expires is None else step.now + record.expires
            queued.append(Queued(self._outbox, number, channel, record.urgency, size, location, expires))
            self._queued.append(
                (self._outbox, number, channel, record.urgency, size, bytes(location), expires)
            )
            payloads.append(payload)
        if self._synchronised:
            self._clock += 1
        return Committed(value, self._generation, self._clock, queued, payloads)

    def _accept(self, step: Accept) -> Accepted:
        received = decode_received(self._received)
        held: list[Held] = []
        for number in step.numbers:
            received.add(number)
        for record in step.records:
            assert record.payload is not None
            location = self._transaction.store(record.payload)
            self._held[record.id] = Held(record.id, record.channel, record.size, location)
            held.append(self._held[record.id])
        self._inbox = max(self._inbox, step.last)
        self._received = encode_received(received)
        self._clock += 1
        return Accepted(self._clock, held)

    def _void(self, ids: Sequence[int]) -> Voided:
        self._write_rows()  # they may be among them
        voided: Voided = []
        for id in ids:
            row = self._transaction.execute("SELECT number, location FROM outbox WHERE id = ?", (id,))
            for number, location in row.fetchall():
                self._transaction.discard(Location.parse(location))
                if number is None:
                    self._transaction.execute("DELETE FROM outbox WHERE id = ?", (id,))
                else:
                    self._transaction.execute(
                        "UPDATE outbox SET channel = ?, size = 0, location = ?, expires = NULL WHERE id = ?",
                        (VOID, bytes(NOWHERE), id),
                    )
                voided.append((id, number))
        return voided

    def finish(self) -> None:
        """Write what was noted."""
        self._write_rows()
        self._transaction.execute(
            "UPDATE link SET clock = ?, peer_clock = ?, next_number = ?, received = ?, last_outbox = ?,"
            " last_inbox = ? WHERE id = ?",
            (
                self._clock,
                self._peer_clock,
                self._number,
                self._received,
                self._outbox,
                self._inbox,
                self._link,
            ),
        )

    def _write_rows(self) -> None:
        if self._queued:
            _insert(
                self._transaction,
                "outbox (id, number, channel, urgency, size, location, expires)",
                self._queued,
            )
            self._queued = []
        if self._held:
            rows = [(one.id, one.channel, one.size, bytes(one.location)) for one in self._held.values()]
            _insert(self._transaction, "inbox (id, channel, size, location)", rows)
            self._held = {}
        if self._acknowledged:
            self._transaction.execute(
                f"DELETE FROM outbox WHERE {_LISTED}", (json.dumps(self._acknowledged),)
            )
            self._acknowledged = []
        if self._consumed:
            self._consume()
            self._consumed = []

    def _consume(self) -> None:
        consumed = json.dumps(self._consumed)
        in_segments = self._transaction.execute(
            f"SELECT location FROM inbox WHERE {_LISTED} AND {IN_SEGMENT}", (consumed,)
        ).fetchall()
        for (location,) in in_segments:
            self._transaction.discard(Location.parse(location))
        self._transaction.execute(f"DELETE FROM inbox WHERE {_LISTED}", (consumed,))


_LISTED = "id IN (SELECT value FROM json_each(?))"


def _insert(transaction: Transaction, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Rows into a table, many with one statement; of few lengths, so that statements are prepared once."""
    at, most = 0, 32
    while at < len(rows):
        while most > len(rows) - at:
            most //= 2
        row = f"({','.join('?' * len(rows[0]))})"
        values = [value for row_values in rows[at : at + most] for value in row_values]
        transaction.execute(f"INSERT INTO {into} VALUES {','.join([row] * most)}", values)
        at += most
