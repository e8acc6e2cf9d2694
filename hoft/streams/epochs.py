"""
What the journal keeps of streams: a row for each peer with which there were any.

What L{Epochs} gives out runs on the journal's thread, as C{also} of
L{ILink.commit<hoft.interfaces.ILink.commit>}.
"""

from __future__ import annotations

from collections.abc import Callable

from hoft.interfaces import ITransaction
from hoft.protocols.log import last_inbox_id
from hoft.protocols.schema import Schema

SCHEMA = Schema(
    "streams",
    (
        (
            "CREATE TABLE stream_epoch (peer BLOB PRIMARY KEY, number INTEGER NOT NULL DEFAULT 0,"
            " earlier INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID",
        ),
    ),
)


class Epochs:
    """Of the streams with one peer."""

    def __init__(self, peer: bytes) -> None:
        """@param peer: its UUID."""
        self._peer = peer

    def look(self, transaction: ITransaction) -> tuple[int, int]:
        """
        @return: the number of the last epoch that sent anything, 0 if none did; and the
            id of the last record of an earlier log.
        """
        row = transaction.execute(
            "SELECT number, earlier FROM stream_epoch WHERE peer = ?", (self._peer,)
        ).fetchone()
        return (0, 0) if row is None else (row[0], row[1])

    def begin(self, number: int) -> Callable[[ITransaction], None]:
        """The epoch with this number sends something."""

        def write(transaction: ITransaction) -> None:
            transaction.execute(
                "INSERT INTO stream_epoch (peer, number) VALUES (?1, ?2)"
                " ON CONFLICT (peer) DO UPDATE SET number = ?2",
                (self._peer, number),
            )

        return write

    def begin_log(self, transaction: ITransaction) -> int:
        """
        The log begins anew.

        @return: records up to this one are of the earlier one.
        """
        earlier = last_inbox_id(transaction, self._peer)
        transaction.execute(
            "INSERT INTO stream_epoch (peer, earlier) VALUES (?1, ?2)"
            " ON CONFLICT (peer) DO UPDATE SET earlier = ?2",
            (self._peer, earlier),
        )
        return earlier
