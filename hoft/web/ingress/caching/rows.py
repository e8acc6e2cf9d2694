"""
What the ingress must remember of responses that are stored for routes with a cache: one table.

Their parts stay unconsumed records of the journal, as those of kept results do
(L{hoft.web.ingress.kept_rows}).  A row has the head apart from them, since a 304 changes it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field, fields

from hoft.interfaces import ITransaction
from hoft.protocols.schema import Schema
from hoft.web.http.fields import FieldList
from hoft.web.http.heads import ResponseHead, decode_response, encode_head
from hoft.web.ingress.caching.keys import variant
from hoft.web.ingress.caching.policy import Stored
from hoft.web.ingress.tables import forget_row, write_row

SCHEMA = Schema(
    "cache",
    (
        (
            "CREATE TABLE cached (exchange BLOB PRIMARY KEY, peer BLOB NOT NULL, route TEXT NOT NULL,"
            " url BLOB NOT NULL, partition BLOB NOT NULL, vary TEXT NOT NULL, variant BLOB NOT NULL,"
            " encoded BLOB NOT NULL, size INTEGER NOT NULL, requested REAL NOT NULL,"
            " received REAL NOT NULL, records BLOB NOT NULL) STRICT",
        ),
        ("ALTER TABLE cached ADD COLUMN caller TEXT",),
    ),
)


@define(eq=False)
class Entry:
    """
    One stored response to GET.

    @ivar exchange: that brought it.
    @ivar peer: whose records its parts are.
    @ivar url: of the service.
    @ivar partition: a digest of all else by which a request finds it, but for C{vary}.
    @ivar vary: names of the fields that select it, joined by spaces, and C{variant}: what they said.
    @ivar encoded: its head, as it was freshened last.
    @ivar size: bytes of its records.
    @ivar requested: (seconds since 1970) when it was asked for or, if it was confirmed, that was.
    @ivar received: when that was here.
    @ivar records: ids of its records, in order.
    @ivar caller: for whom it came, whose room it takes; C{None} is anybody.
    @ivar readers: how many calls are being answered with it now.
    @ivar dropped: it is not to be found any more; its records go with the last reader.
    @ivar number: rises with each that is stored by this process.
    """

    exchange: bytes
    peer: bytes
    route: str
    url: bytes = field(repr=False)
    partition: bytes = field(repr=False)
    vary: str
    variant: bytes = field(repr=False)
    encoded: bytes = field(repr=False)
    size: int = 0
    requested: float = 0.0
    received: float = 0.0
    records: array[int] = field(factory=lambda: array("q"), repr=False)
    caller: str | None = None
    readers: int = field(default=0, metadata={"kept": False})
    dropped: bool = field(default=False, metadata={"kept": False})
    number: int = field(default=0, metadata={"kept": False})
    _stored: Stored | None = field(default=None, init=False, repr=False, metadata={"kept": False})

    @property
    def head(self) -> ResponseHead:
        """As it is now."""
        return decode_response(self.encoded)

    @property
    def stored(self) -> Stored:
        """What that says to caches."""
        if self._stored is None:
            self._stored = Stored.of(self.head, self.requested, self.received)
        return self._stored

    @property
    def footprint(self) -> int:
        """Bytes of it in memory, about."""
        return 600 + len(self.encoded) + len(self.url) + 8 * len(self.records)

    def freshen(self, head: ResponseHead, requested: float, received: float) -> None:
        """The service has confirmed it."""
        self.encoded = encode_head(head)
        self.requested, self.received, self._stored = requested, received, None

    def selected(self, request: FieldList) -> bool:
        """Do these fields of a request select it among its like?"""
        names = self.vary.encode("ascii").split()
        return not names or variant(names, request) == self.variant

    def values(self) -> Sequence[object]:
        """As its columns are now."""
        found = [getattr(self, name) for name in COLUMNS]
        return [value.tobytes() if isinstance(value, array) else value for value in found]


COLUMNS: Final = tuple(one.name for one in fields(Entry) if one.metadata.get("kept", True))


def load(transaction: ITransaction) -> list[Entry]:
    """All there are, the oldest first."""
    entries = []
    for found in transaction.execute("SELECT * FROM cached ORDER BY received"):
        values = dict(zip(COLUMNS, found, strict=True))
        entries.append(Entry(**{**values, "records": array("q", values["records"])}))
    return entries


def write(entry: Entry) -> Callable[[ITransaction], None]:
    """What C{commit} takes as C{also}: the row as it is now."""
    return write_row("cached", entry.values())


def forget(exchange: bytes) -> Callable[[ITransaction], None]:
    """What C{commit} takes as C{also}: remove the row."""
    return forget_row("cached", exchange)
