"""
What egress must remember of executions beyond a crash: one table, a few rows.

Only what may not happen twice is remembered.  A request that may be repeated leaves
a row only while its response is under way in pieces; one that may not has a row from
before it is sent until long after any copy of it could still arrive.

Rows age by I{ticks}, which the node counts while it runs: a clock that jumps by a
year makes nothing forgotten.  What L{Rows} gives out runs on the journal's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from attrs import frozen

from hoft.interfaces import ITransaction
from hoft.protocols.schema import Schema

SCHEMA = Schema(
    "egress",
    (
        (
            "CREATE TABLE execution (peer BLOB NOT NULL, exchange BLOB NOT NULL, state INTEGER NOT NULL,"
            " tick INTEGER NOT NULL, PRIMARY KEY (peer, exchange)) STRICT, WITHOUT ROWID",
            "CREATE INDEX execution_age ON execution (peer, tick)",
            "CREATE INDEX execution_unfinished ON execution (peer) WHERE state < 4",
            "CREATE TABLE execution_tick (peer BLOB PRIMARY KEY, tick INTEGER NOT NULL)"
            " STRICT, WITHOUT ROWID",
        ),
    ),
)

TICK = 600.0
"""Seconds of running from one tick to the next."""

LIFETIME = 7 * 144
"""Ticks for which a finished execution is remembered: seven days."""


class State(IntEnum):
    """How far an execution is; no row says that it was not begun, or may be begun again."""

    STARTED = 1
    """It may have reached the service, and may not be repeated."""
    RESPONDING = 2
    """A part of the response was queued, the last was not."""
    DRAINING = 3
    """Answered or cancelled; what is yet to come of the request is of no use."""
    DONE = 4
    """Answered; another copy of the request must not be executed."""


@frozen
class Rows:
    """The table as far as it concerns one peer: each method makes what C{commit} takes as C{also}."""

    peer: bytes

    def unfinished(self) -> Callable[[ITransaction], dict[bytes, State]]:
        """What a crash interrupted: exchange id -> state; never L{State.DONE}."""

        def select(transaction: ITransaction) -> dict[bytes, State]:
            transaction.execute(
                "INSERT INTO execution_tick (peer, tick) VALUES (?, 0) ON CONFLICT DO NOTHING", (self.peer,)
            )
            found = transaction.execute(
                "SELECT exchange, state FROM execution WHERE peer = ? AND state < 4", (self.peer,)
            )
            return {bytes(exchange): State(state) for exchange, state in found}

        return select

    def start(self, exchange: bytes) -> Callable[[ITransaction], bool]:
        """Note that it starts; false if it did so before."""

        def insert(transaction: ITransaction) -> bool:
            known = transaction.execute(
                "SELECT 1 FROM execution WHERE peer = ? AND exchange = ?", (self.peer, exchange)
            )
            if list(known):
                return False
            self._write(transaction, exchange, State.STARTED)
            return True

        return insert

    def set(self, exchange: bytes, state: State) -> Callable[[ITransaction], None]:
        """Note how far it is."""
        return lambda transaction: self._write(transaction, exchange, state)

    def forget(self, exchange: bytes) -> Callable[[ITransaction], None]:
        """Remove its row."""

        def delete(transaction: ITransaction) -> None:
            transaction.execute(
                "DELETE FROM execution WHERE peer = ? AND exchange = ?", (self.peer, exchange)
            )

        return delete

    def age(self) -> Callable[[ITransaction], None]:
        """A tick has passed: forget what is too old."""

        def expire(transaction: ITransaction) -> None:
            transaction.execute("UPDATE execution_tick SET tick = tick + 1 WHERE peer = ?", (self.peer,))
            transaction.execute(
                "DELETE FROM execution WHERE peer = ?1 AND state >= 3 AND tick <"
                " (SELECT tick FROM execution_tick WHERE peer = ?1) - ?2",
                (self.peer, LIFETIME),
            )

        return expire

    def _write(self, transaction: ITransaction, exchange: bytes, state: State) -> None:
        transaction.execute(
            "INSERT INTO execution (peer, exchange, state, tick)"
            " VALUES (?1, ?2, ?3, (SELECT tick FROM execution_tick WHERE peer = ?1))"
            " ON CONFLICT (peer, exchange) DO UPDATE SET state = ?3, tick = excluded.tick",
            (self.peer, exchange, int(state)),
        )
