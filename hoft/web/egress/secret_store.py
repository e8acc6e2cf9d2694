"""Secrets of services that must outlive the process: in the journal, sealed with the node's key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from twisted.internet.defer import Deferred

from hoft.interfaces import ITransaction
from hoft.protocols.schema import Schema

SCHEMA: Final = Schema(
    "secrets",
    (("CREATE TABLE secret (name TEXT PRIMARY KEY, sealed BLOB NOT NULL) STRICT, WITHOUT ROWID",),),
)

Transact = Callable[[Callable[[ITransaction], Any]], "Deferred[Any]"]
"""Runs a function in a transaction of the journal; fires with its result once that is committed."""


class SecretStore:
    """The table, and the keys for it.  On the reactor thread."""

    def __init__(self, transact: Transact, keys: Sequence[bytes]) -> None:
        """@param keys: the node's secret keys, the newest first: it seals, any opens."""
        self._transact = transact
        self._boxes = [
            SecretBox(hashlib.blake2b(key, digest_size=32, person=b"hoft secrets").digest()) for key in keys
        ]

    def load(self, name: str) -> Deferred[bytes | None]:
        """What was kept under this name; C{None} if nothing was, or under a key that is gone."""

        def read(transaction: ITransaction) -> bytes | None:
            row = transaction.execute("SELECT sealed FROM secret WHERE name = ?", (name,)).fetchone()
            return None if row is None else self._open(name, row[0])

        return self._transact(read)

    def _open(self, name: str, sealed: bytes) -> bytes | None:
        for box in self._boxes:
            try:
                label, _, secret = box.decrypt(sealed).partition(b"\0")
            except CryptoError:
                continue
            return secret if label == name.encode() else None
        return None

    def keep(self, name: str, secret: bytes) -> Deferred[None]:
        """Keep it in the place of what was there."""
        sealed = bytes(self._boxes[0].encrypt(name.encode() + b"\0" + secret))

        def write(transaction: ITransaction) -> None:
            transaction.execute(
                "INSERT INTO secret (name, sealed) VALUES (?1, ?2)"
                " ON CONFLICT (name) DO UPDATE SET sealed = ?2",
                (name, sealed),
            )

        return self._transact(write)
