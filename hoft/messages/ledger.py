"""
What the journal keeps of messages besides their pieces: a row for each peer, and one
for each message that could not be put into the log at once.

What L{Ledger} gives out runs on the journal's thread, as C{also} of
L{ILink.commit<hoft.interfaces.ILink.commit>}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from hoft.interfaces import ITransaction
from hoft.messages.gathering import REMEMBERED
from hoft.protocols.log import last_inbox_id
from hoft.protocols.schema import Schema

SCHEMA = Schema(
    "messages",
    (
        (
            "CREATE TABLE message_flow (peer BLOB PRIMARY KEY, sent INTEGER NOT NULL DEFAULT 0,"
            " allowed INTEGER NOT NULL DEFAULT 0, released INTEGER NOT NULL DEFAULT 0,"
            " earlier INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID",
            "CREATE TABLE message_unfinished (peer BLOB NOT NULL, message BLOB NOT NULL,"
            " total INTEGER NOT NULL, PRIMARY KEY (peer, message)) STRICT, WITHOUT ROWID",
            "CREATE TABLE message_withdrawn (number INTEGER PRIMARY KEY AUTOINCREMENT, peer BLOB NOT NULL,"
            " message BLOB NOT NULL) STRICT",
            "CREATE INDEX message_withdrawn_peer ON message_withdrawn (peer, number)",
        ),
    ),
)

Note = Callable[[ITransaction], None]


@frozen
class Flow:
    """
    One peer's credit, in both directions; all but C{earlier} count from the log's beginning.

    @ivar sent: what we have used up.
    @ivar allowed: what the peer has said that we may use up; 0 if nothing.
    @ivar released: what the peer has used up and we have let go of.
    @ivar earlier: records up to this one are of an earlier log.
    @ivar unfinished: messages of ours, id and size, of which an earlier process had not
        put all pieces into the log.
    @ivar withdrawn: messages of the peer's, the oldest first.
    """

    sent: int
    allowed: int
    released: int
    earlier: int
    unfinished: Sequence[tuple[bytes, int]]
    withdrawn: Sequence[bytes]


@frozen
class Ledger:
    """The tables as far as they concern one peer."""

    peer: bytes

    def open(self, transaction: ITransaction) -> Flow:
        """What there is at the start."""
        self._begin(transaction)
        [(sent, allowed, released, earlier)] = transaction.execute(
            "SELECT sent, allowed, released, earlier FROM message_flow WHERE peer = ?", (self.peer,)
        )
        unfinished = transaction.execute(
            "SELECT message, total FROM message_unfinished WHERE peer = ?", (self.peer,)
        )
        withdrawn = transaction.execute(
            "SELECT message FROM message_withdrawn WHERE peer = ? ORDER BY number", (self.peer,)
        )
        remembered = [message for (message,) in withdrawn]
        return Flow(sent, allowed, released, earlier, list(unfinished), remembered)

    def _begin(self, transaction: ITransaction) -> None:
        transaction.execute("INSERT INTO message_flow (peer) VALUES (?) ON CONFLICT DO NOTHING", (self.peer,))

    def begin_anew(self, transaction: ITransaction) -> int:
        """
        A new log has begun, and with it all counting.

        @return: C{earlier}.
        """
        self._begin(transaction)
        earlier = last_inbox_id(transaction, self.peer)
        transaction.execute(
            "UPDATE message_flow SET sent = 0, allowed = 0, released = 0, earlier = ? WHERE peer = ?",
            (earlier, self.peer),
        )
        return earlier

    def sent(self, cost: int) -> Note:
        """So much credit is used up; or, if negative, was not after all."""
        return lambda transaction: self._add(transaction, "sent", cost)

    def released(self, cost: int) -> Note:
        """The peer's messages of the present log that cost so much were let go of."""
        return lambda transaction: self._add(transaction, "released", cost)

    def _add(self, transaction: ITransaction, column: str, cost: int) -> None:
        if not cost:
            return
        transaction.execute(
            f"UPDATE message_flow SET {column} = {column} + ? WHERE peer = ?", (cost, self.peer)
        )

    def allowed(self, most: int) -> Note:
        """The peer has said how much we may use up."""

        def note(transaction: ITransaction) -> None:
            transaction.execute(
                "UPDATE message_flow SET allowed = max(allowed, ?) WHERE peer = ?", (most, self.peer)
            )

        return note

    def unfinished(self, messages: Iterable[tuple[bytes, int]]) -> Note:
        """Pieces of these are in the log, and others not yet."""

        def note(transaction: ITransaction) -> None:
            for message, total in messages:
                transaction.execute(
                    "INSERT OR IGNORE INTO message_unfinished VALUES (?, ?, ?)", (self.peer, message, total)
                )

        return note

    def finished(self, messages: Iterable[bytes]) -> Note:
        """All pieces of these are in the log, or it says that they will not be."""

        def note(transaction: ITransaction) -> None:
            for message in messages:
                transaction.execute(
                    "DELETE FROM message_unfinished WHERE peer = ? AND message = ?", (self.peer, message)
                )

        return note

    def withdrawn(self, message: bytes) -> Note:
        """The peer gave a message up: remember that, and of how many is bounded."""

        def note(transaction: ITransaction) -> None:
            transaction.execute(
                "INSERT INTO message_withdrawn (peer, message) VALUES (?, ?)", (self.peer, message)
            )
            transaction.execute(
                "DELETE FROM message_withdrawn WHERE peer = ?1 AND number <= (SELECT number FROM"
                " message_withdrawn WHERE peer = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
                (self.peer, REMEMBERED),
            )

        return note


def together(*notes: Note | None) -> Note:
    """One C{also} of several."""

    def note(transaction: ITransaction) -> None:
        for one in notes:
            if one is not None:
                one(transaction)

    return note
