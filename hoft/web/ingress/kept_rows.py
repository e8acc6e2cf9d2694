"""
What the ingress must remember of exchanges whose result stays with it: one table.

The parts of a response are not in it: they stay unconsumed records of the journal, and
the row of a complete one holds their ids in order.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from attrs import define, field, fields

from hoft import cbor
from hoft.interfaces import ITransaction
from hoft.protocols.schema import Schema
from hoft.web.http.problems import Problem
from hoft.web.http.targets import Mount
from hoft.web.ingress.tables import forget_row, write_row

SCHEMA = Schema(
    "kept",
    (
        (
            "CREATE TABLE kept (exchange BLOB PRIMARY KEY, peer BLOB NOT NULL, caller TEXT, route TEXT,"
            " base TEXT, method BLOB NOT NULL, url TEXT NOT NULL, target BLOB NOT NULL, key BLOB,"
            " fingerprint BLOB, expires REAL NOT NULL, stage TEXT NOT NULL, stages TEXT NOT NULL,"
            " request_size INTEGER NOT NULL, response_size INTEGER NOT NULL, status INTEGER, problem BLOB,"
            " sent BLOB NOT NULL, records BLOB NOT NULL) STRICT",
        ),
    ),
)

MAX_PROBLEM = 1 << 16
"""The most bytes of a problem in a row."""


class Stage(Enum):
    """How far a kept exchange is, in the order in which that may be reached."""

    ACCEPTED = "accepted"
    """All of the request is in our journal, on disk."""
    ACKED = "acked"
    """And in that of the peer, as a whole."""
    EXECUTING = "executing"
    """The far node has handed it to the service."""
    RESPONDING = "responding"
    """The first of the response is here."""
    DONE = "done"
    """All of it is."""
    FAILED = "failed"
    """There is a problem in its place."""
    CANCELLED = "cancelled"
    """Its caller does not want it any more."""
    EXPIRED = "expired"
    """It was done or had failed, and was kept as long as it had to be."""

    @property
    def last(self) -> bool:
        """Nothing more comes of the exchange."""
        return self in _LAST


_LAST = frozenset((Stage.DONE, Stage.FAILED, Stage.CANCELLED, Stage.EXPIRED))


@define(eq=False)
class Row:
    """
    One of them.  There may be a hundred thousand, so what is in it is such that the garbage collector need
    not look into it: numbers, text, bytes, and tuples and dicts of those.

    @ivar id: of the exchange.
    @ivar peer: whose link it crosses.
    @ivar caller: who may ask for it; C{None} is anybody, where nobody has to say who it is.
    @ivar route: that was called, and C{base}, where it led to then.
    @ivar url: that was called, as its caller gave it.
    @ivar target: the request target at the service.
    @ivar key: the caller's Idempotency-Key, and C{fingerprint} the digest of what it was brought with:
        until the row is forgotten, nothing is performed under it again.
    @ivar expires: (seconds since 1970) until a last stage is reached, when it is given up;
        then, when it is forgotten.
    @ivar stages: when (seconds since 1970) each stage was reached, by its name.
    @ivar status: of the response, once that is known.
    @ivar problem: what is told in place of a response.
    @ivar sent: ids of the request's records, until the peer has them.
    @ivar records: ids of the response's records, in order, once it is complete.
    """

    id: bytes
    peer: bytes
    caller: str | None
    route: str | None
    base: str | None
    method: bytes
    url: str
    target: bytes = field(repr=False)
    key: bytes | None = None
    fingerprint: bytes | None = None
    expires: float = 0.0
    stage: Stage = Stage.ACCEPTED
    stages: dict[str, float] = field(factory=dict)
    request_size: int = 0
    response_size: int = 0
    status: int | None = None
    problem: Problem | None = None
    sent: Sequence[int] = field(default=(), repr=False)
    records: Sequence[int] = field(default=(), repr=False)

    @property
    def accepted(self) -> float:
        """(seconds since 1970) when all of the request was here."""
        return self.stages[Stage.ACCEPTED.value]

    @property
    def mount(self) -> Mount | None:
        """The route that was called, as it led there then."""
        if self.route is None or self.base is None:
            return None
        return Mount.parse(self.route, self.base)

    def values(self) -> tuple[object, ...]:
        """As its columns are now."""
        sent, records = array("q", self.sent), array("q", self.records)
        problem = None if self.problem is None else cbor.encode(self.problem.as_map())
        return (
            self.id, self.peer, self.caller, self.route, self.base, self.method, self.url, self.target,
            self.key, self.fingerprint, self.expires, self.stage.value, json.dumps(self.stages),
            self.request_size, self.response_size, self.status, problem, sent.tobytes(), records.tobytes(),
        )  # fmt: skip


COLUMNS: Final = tuple(attribute.name for attribute in fields(Row))


def load(transaction: ITransaction) -> list[Row]:
    """All there are, the oldest first."""
    rows = []
    for found in transaction.execute("SELECT * FROM kept"):
        values = dict(zip(COLUMNS, found, strict=True))
        values["stage"] = Stage(values["stage"])
        # The names of stages that there are, and not one of its own for each row.
        values["stages"] = {Stage(name).value: at for name, at in json.loads(values["stages"]).items()}
        values["sent"], values["records"] = (tuple(array("q", values[name])) for name in ("sent", "records"))
        if values["problem"] is not None:
            problem = cbor.decode_strict(values["problem"], limit=MAX_PROBLEM)
            values["problem"] = Problem.from_map(problem)
        rows.append(Row(**values))
    return sorted(rows, key=lambda row: row.accepted)


def write(row: Row) -> Callable[[ITransaction], None]:
    """What C{commit} takes as C{also}: the row as it is now."""
    return write_row("kept", row.values())


def forget(exchange: bytes) -> Callable[[ITransaction], None]:
    """What C{commit} takes as C{also}: remove the row."""
    return forget_row("kept", exchange)
