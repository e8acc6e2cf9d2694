"""
What a journal holds, seen from outside: nothing is locked or changed, whoever else uses it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from attrs import frozen

from hoft.errors import JournalError
from hoft.protocols.database import DATABASE, Transaction
from hoft.protocols.log import ids_of

_TRIES = 5


@frozen
class Waiting:
    """What a journal holds for one peer."""

    records: int
    """Committed for the peer, and not known to have arrived."""
    payload: int
    """Bytes of these."""
    received: int
    """Come from the peer, and not yet dealt with, or part of a result that is kept for its caller."""


@frozen
class Holdings:
    """What a journal holds."""

    written: float
    """When it was last written to, by the file system's clock: nothing in it is younger."""
    peers: dict[bytes, Waiting]
    """By the peer's UUID."""


def holdings(state: Path) -> Holdings:
    """
    What waits in a journal that no node uses.  Blocks.

    @raise JournalError: it cannot be read, or changes too quickly: a node is at work.
    """
    path = state / DATABASE
    for _ in range(_TRIES):
        before = _versions(path)
        try:
            with _readable(path, before) as connection:
                peers = waiting(connection)
        except (OSError, sqlite3.Error) as error:
            if _versions(path) != before:
                continue
            raise JournalError(f"cannot read {path}: {error}") from error
        if _versions(path) == before:
            return Holdings(max(changed for changed, _ in before if changed) / 1e9, peers)
        time.sleep(0.05)
    raise JournalError(f"{path} is being written to")


def _versions(path: Path) -> list[tuple[int, int]]:
    """Modification time in ns and size of the database and of its log; zeros for what is not there."""
    found = []
    for file in (path, path.with_name(f"{DATABASE}-wal")):
        try:
            status = file.stat()
            found.append((status.st_mtime_ns, status.st_size))
        except FileNotFoundError:
            found.append((0, 0))
    if not found[0][0]:
        raise JournalError(f"{path} is not there: no node was ever made or started on this folder")
    return found


@contextmanager
def _readable(path: Path, versions: list[tuple[int, int]]) -> Iterator[sqlite3.Connection]:
    """
    A connection that takes no locks and leaves nothing beside the database.
    SQLite cannot read a log in that way, so where there is one (the process was
    killed) a copy is read.
    """
    if not versions[1][1]:
        address = f"file:{quote(os.fspath(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            yield connection
        return
    with tempfile.TemporaryDirectory(prefix="hoft-") as copy:
        for file in (path, path.with_name(f"{DATABASE}-wal")):
            shutil.copyfile(file, Path(copy, file.name))
        with closing(sqlite3.connect(Path(copy, DATABASE))) as connection:
            yield connection


def waiting(journal: sqlite3.Connection | Transaction) -> dict[bytes, Waiting]:
    """What waits in a journal that is open, by the peer's UUID."""
    if not journal.execute("SELECT 1 FROM sqlite_schema WHERE name = 'link'").fetchone():
        return {}  # a node that was never started
    found = {}
    for link, peer in journal.execute("SELECT id, peer FROM link").fetchall():
        within = "WHERE id BETWEEN ? AND ?"
        [sent] = journal.execute(
            f"SELECT count(*), coalesce(sum(size), 0) FROM outbox {within}", ids_of(link)
        )
        [received] = journal.execute(f"SELECT count(*) FROM inbox {within}", ids_of(link))
        found[peer] = Waiting(*sent, *received)
    return found
