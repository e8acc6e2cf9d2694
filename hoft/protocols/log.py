"""
The tables of the log: what a link keeps in the journal.

Each function is one step within a transaction, on the journal's thread, and
takes all it needs to know from the tables, so that a transaction may be tried
again from its start.  What happens for every call, and many times in one
transaction, is in L{hoft.protocols.log_writing}.

The *clock* of a link goes up with each commit that the peer could come to know
of.  It is the link's own, and stands still until the link is synchronised: so
whatever a restored node does before, with this or other peers, cannot hide that
the peer knows of a later one.

A *generation* counts the logs a link has had: it goes up whenever an
incarnation changes on either side, and what was begun for an earlier one has
no effect.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from hoft.interfaces import ITransaction
from hoft.protocols.estimates import Estimates
from hoft.protocols.journal import Transaction
from hoft.protocols.ranges import RangeSet
from hoft.protocols.replication import LogState
from hoft.protocols.schema import Schema
from hoft.protocols.segments import Location

SCHEMA = Schema(
    "log",
    (
        (
            """CREATE TABLE link (
                id INTEGER PRIMARY KEY,
                peer BLOB NOT NULL UNIQUE,
                generation INTEGER NOT NULL DEFAULT 0,
                boot BLOB,
                clock INTEGER NOT NULL DEFAULT 0,
                peer_incarnation BLOB,
                peer_clock INTEGER NOT NULL DEFAULT 0,
                peer_boot BLOB,
                next_number INTEGER NOT NULL DEFAULT 1,
                received BLOB NOT NULL DEFAULT x'',
                rolled_back INTEGER NOT NULL DEFAULT 0,
                last_outbox INTEGER NOT NULL DEFAULT 0,
                last_inbox INTEGER NOT NULL DEFAULT 0,
                estimates BLOB
            )""",
            """CREATE TABLE retired (
                link INTEGER NOT NULL REFERENCES link,
                incarnation BLOB NOT NULL,
                PRIMARY KEY (link, incarnation)
            ) WITHOUT ROWID""",
            "CREATE TABLE boot (number INTEGER PRIMARY KEY, boot BLOB NOT NULL UNIQUE)",
            # Ids begin with the link (see ids_of): the rows of a link lie together, without an index.
            """CREATE TABLE outbox (
                id INTEGER PRIMARY KEY,
                number INTEGER,
                channel INTEGER NOT NULL,
                urgency INTEGER NOT NULL,
                size INTEGER NOT NULL,
                location BLOB NOT NULL,
                expires REAL
            )""",
            """CREATE TABLE inbox (
                id INTEGER PRIMARY KEY,
                channel INTEGER NOT NULL,
                size INTEGER NOT NULL,
                location BLOB NOT NULL
            )""",
        ),
    ),
)

BOOTS = 64
"""
So many of our latest boots are kept.  If the peer has adopted none of them, because
it heard nothing of us for so long, we begin anew without need.
"""

AGAIN = 1 << 16
"""Above channel and flags of a record: its receiver may be given it twice."""

_LINK_BITS = 44
"""The lower bits of an id count a link's records, the upper ones are the link's."""


def ids_of(link: int) -> tuple[int, int]:
    """The ids that records of a link, in its outbox or inbox, may have: all between these two."""
    return link << _LINK_BITS, ((link + 1) << _LINK_BITS) - 1


@frozen
class Queued:
    """A record in the outbox."""

    id: int
    number: int | None
    """None until the link is synchronised."""
    channel: int
    """And above its 8 bits the record's flags, and above these L{AGAIN}."""
    urgency: int
    size: int
    location: Location
    expires: float | None = None
    """By the wall clock: after this it need not be sent any more."""


@frozen
class Held:
    """A record in the inbox, that is one received and not consumed."""

    id: int
    channel: int
    size: int
    location: Location


@frozen
class Opened:
    """What the journal holds of a link when the process starts."""

    link: int
    generation: int
    rolled_back: bool
    """The layer above may not have been told yet that the log began anew."""
    state: LogState
    outbox: Sequence[Queued]
    inbox: Sequence[Held]
    last_inbox: int
    """The highest id that a received record has had."""


@frozen
class Adopted:
    """What an adoption leaves in the log."""

    generation: int
    clock: int
    dropped: Sequence[int]
    """Ids of records of an earlier log, whose fate nobody knows."""
    outbox: Sequence[Queued]
    """All that is to be sent, with numbers."""
    last: int
    """Whatever was queued under ids up to here is in C{outbox}, dropped or acknowledged."""


def word(value: int) -> bytes:
    """As it stands in the tables: they cannot hold an unsigned integer of 64 bits."""
    return value.to_bytes(8, "big")


def _number(word: bytes | None) -> int:
    return int.from_bytes(word or b"", "big")


def encode_received(received: RangeSet) -> bytes:
    """For L{decode_received}."""
    return array("q", [number for pair in received for number in pair]).tobytes()


def decode_received(encoded: bytes) -> RangeSet:
    """The numbers of the records that were received."""
    numbers = array("q")
    numbers.frombytes(encoded)
    return RangeSet(zip(numbers[::2], numbers[1::2], strict=True))


def _queued(row: Sequence[Any]) -> Queued:
    id, number, channel, urgency, size, location, expires = row
    return Queued(id, number, channel, urgency, size, Location.parse(location), expires)


def open_log(transaction: Transaction, peer: bytes, boot: int) -> Opened:
    """Load what there is of the link to C{peer}, or begin it; C{boot} is ours from now on."""
    transaction.execute("INSERT INTO boot (boot) VALUES (?) ON CONFLICT DO NOTHING", (word(boot),))
    transaction.execute("DELETE FROM boot WHERE number <= (SELECT max(number) FROM boot) - ?", (BOOTS,))
    # Of one that this process had open before, too: until the peer is known again, no number is given.
    transaction.execute(
        "INSERT INTO link (peer) VALUES (?) ON CONFLICT (peer) DO UPDATE SET boot = NULL", (peer,)
    )
    row = transaction.execute(
        "SELECT id, generation, clock, peer_incarnation, peer_clock, peer_boot, received, rolled_back,"
        " estimates, last_inbox FROM link WHERE peer = ?",
        (peer,),
    ).fetchone()
    link, generation, clock, incarnation, peer_clock, peer_boot, received, rolled_back, *rest = row
    estimates, last_inbox = rest
    retired = transaction.execute("SELECT incarnation FROM retired WHERE link = ?", (link,)).fetchall()
    inbox = transaction.execute(
        "SELECT id, channel, size, location FROM inbox WHERE id BETWEEN ? AND ? ORDER BY id", ids_of(link)
    ).fetchall()
    return Opened(
        link=link,
        generation=generation,
        rolled_back=bool(rolled_back),
        state=LogState(
            clock=clock,
            peer_incarnation=_number(incarnation),
            peer_clock=peer_clock,
            peer_boot=_number(peer_boot),
            boots=[_number(one) for (one,) in transaction.execute("SELECT boot FROM boot").fetchall()],
            retired=[_number(word) for (word,) in retired],
            received=decode_received(received),
            estimates=None if estimates is None else Estimates.decode(estimates),
        ),
        outbox=_outbox(transaction, link),
        inbox=[Held(id, channel, size, Location.parse(location)) for id, channel, size, location in inbox],
        last_inbox=last_inbox or ids_of(link)[0],
    )


def _outbox(transaction: Transaction, link: int) -> list[Queued]:
    rows = transaction.execute(
        "SELECT id, number, channel, urgency, size, location, expires FROM outbox WHERE id BETWEEN ? AND ?"
        " ORDER BY id",
        ids_of(link),
    )
    return [_queued(row) for row in rows.fetchall()]


def adopt(
    transaction: Transaction, link: int, boot: int, incarnation: int, peer_boot: int, clock: int
) -> Adopted:
    """
    The peer has proven C{incarnation} and C{peer_boot} in our C{boot}: from now on
    records get numbers.  If it is a new incarnation, a new log begins.

    @param clock: the peer's.
    """
    (old,) = transaction.execute("SELECT peer_incarnation FROM link WHERE id = ?", (link,)).fetchone()
    dropped: list[int] = []
    if old != word(incarnation):
        if old is not None:
            transaction.execute("INSERT OR IGNORE INTO retired VALUES (?, ?)", (link, old))
            transaction.execute("UPDATE link SET rolled_back = 1 WHERE id = ?", (link,))
        transaction.execute(
            "UPDATE outbox SET number = NULL WHERE id BETWEEN ? AND ? AND channel & ?", (*ids_of(link), AGAIN)
        )
        dropped = _begin_log(transaction, link)
        transaction.execute(
            "UPDATE link SET peer_incarnation = ?, peer_clock = 0 WHERE id = ?", (word(incarnation), link)
        )
    transaction.execute(
        "UPDATE link SET boot = ?, peer_boot = ?, clock = clock + 1, peer_clock = max(peer_clock, ?)"
        " WHERE id = ?",
        (word(boot), word(peer_boot), clock, link),
    )
    generation, own_clock, number, last = transaction.execute(
        "SELECT generation, clock, next_number, last_outbox FROM link WHERE id = ?", (link,)
    ).fetchone()
    waiting = transaction.execute(
        "SELECT id FROM outbox WHERE id BETWEEN ? AND ? AND number IS NULL ORDER BY id", ids_of(link)
    ).fetchall()
    transaction.executemany(
        "UPDATE outbox SET number = ? WHERE id = ?",
        [(number + at, id) for at, (id,) in enumerate(waiting)],
    )
    transaction.execute("UPDATE link SET next_number = ? WHERE id = ?", (number + len(waiting), link))
    return Adopted(generation, own_clock, dropped, _outbox(transaction, link), last)


def _begin_log(transaction: Transaction, link: int, suspect: int = 0) -> list[int]:
    rows = transaction.execute(
        "DELETE FROM outbox WHERE id BETWEEN ? AND ? AND (number IS NOT NULL OR id <= ?)"
        " RETURNING id, location",
        (*ids_of(link), suspect),
    ).fetchall()
    for _, location in rows:
        transaction.discard(Location.parse(location))
    transaction.execute(
        "UPDATE link SET generation = generation + 1, boot = NULL, next_number = 1, received = x''"
        " WHERE id = ?",
        (link,),
    )
    return [id for id, _ in rows]


def last_outbox_ids(transaction: Transaction) -> dict[int, int]:
    """By link: the highest id that a record in its outbox has had so far."""
    return dict(transaction.execute("SELECT id, last_outbox FROM link").fetchall())


def last_inbox_id(transaction: ITransaction, peer: bytes) -> int:
    """The highest id that a record from C{peer} has had when this transaction began."""
    row = transaction.execute("SELECT last_inbox FROM link WHERE peer = ?", (peer,)).fetchone()
    return row[0] if row is not None else 0


def begin_all_logs(transaction: Transaction, restored: Mapping[int, int]) -> dict[bytes, Adopted]:
    """
    We were restored: mint an incarnation and begin every log anew.

    What lies in the inboxes may have been acted on in the life that was lost, so
    it is dropped: the peers learn that its fate is unknown.  The same holds for
    what waited in the outboxes without a number when this process started: it
    may have been sent in that life.

    @param restored: L{last_outbox_ids} at the start of the process.
    @return: by peer, what that leaves.
    """
    transaction.mint_incarnation()
    for (location,) in transaction.execute("DELETE FROM inbox RETURNING location").fetchall():
        transaction.discard(Location.parse(location))
    begun: dict[bytes, Adopted] = {}
    for link, peer in transaction.execute("SELECT id, peer FROM link").fetchall():
        dropped = _begin_log(transaction, link, restored.get(link, 0))
        transaction.execute("UPDATE link SET rolled_back = 1 WHERE id = ?", (link,))
        generation, clock, last = transaction.execute(
            "SELECT generation, clock, last_outbox FROM link WHERE id = ?", (link,)
        ).fetchone()
        begun[peer] = Adopted(generation, clock, dropped, _outbox(transaction, link), last)
    return begun


def keep_estimates(transaction: Transaction, link: int, estimates: Estimates) -> None:
    """For the next process."""
    transaction.execute("UPDATE link SET estimates = ? WHERE id = ?", (estimates.encode(), link))


def rollback_told(transaction: Transaction, link: int) -> None:
    """The layer above knows, and has committed what follows from it, that the log began anew."""
    transaction.execute("UPDATE link SET rolled_back = 0 WHERE id = ?", (link,))
