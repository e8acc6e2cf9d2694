"""
What must be remembered of callbacks: one table, a row for each kept exchange that has one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from attrs import define, field, fields

from hoft.interfaces import ITransaction
from hoft.protocols.schema import Schema
from hoft.web.ingress.tables import forget_row, write_row

SCHEMA: Final = Schema(
    "callback",
    (
        (
            "CREATE TABLE callback (exchange BLOB PRIMARY KEY, url TEXT NOT NULL, state TEXT NOT NULL,"
            " attempts INTEGER NOT NULL, due REAL, last REAL, reason TEXT) STRICT",
        ),
    ),
)


class State(Enum):
    """What has become of a callback."""

    WAITING = "waiting"
    """There is nothing to tell yet."""
    PENDING = "pending"
    """It is to be delivered, or delivered again."""
    DELIVERED = "delivered"
    """The receiver has said that it has it."""
    DEAD = "dead"
    """It was attempted often enough, or the receiver does not want it."""


@define(eq=False)
class Row:
    """
    One of them.

    @ivar exchange: whose response it is to bring.
    @ivar url: where to.
    @ivar attempts: how many were made.
    @ivar due: (seconds since 1970) the next attempt.
    @ivar last: (seconds since 1970) when the last one ended.
    @ivar reason: why that failed.
    """

    exchange: bytes
    url: str = field(repr=False)
    state: State = State.WAITING
    attempts: int = 0
    due: float | None = None
    last: float | None = None
    reason: str | None = None


COLUMNS: Final = tuple(attribute.name for attribute in fields(Row))


def load(transaction: ITransaction) -> list[Row]:
    """All there are."""
    rows = []
    for found in transaction.execute("SELECT * FROM callback"):
        values = dict(zip(COLUMNS, found, strict=True))
        rows.append(Row(**values | {"state": State(values["state"])}))
    return rows


def write(row: Row) -> Callable[[ITransaction], None]:
    """What C{commit} takes as C{also}: the row as it is now."""
    columns = {**{name: getattr(row, name) for name in COLUMNS}, "state": row.state.value}
    return write_row("callback", list(columns.values()))


def forget(exchange: bytes) -> Callable[[ITransaction], None]:
    """What C{commit} takes as C{also}: remove the row."""
    return forget_row("callback", exchange)
