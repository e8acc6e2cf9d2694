"""
The tables of a journal, component by component, and how older ones become newer.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from attrs import frozen

from hoft.errors import JournalError

APPLICATION = 0x686F6674  # "hoft"
"""SQLite's application id: tells a journal from any other database."""


@frozen
class Schema:
    """
    The tables of one component (the journal itself, the link, the web layer).

    Released migrations are never edited: a change is a further one.
    """

    component: str
    migrations: tuple[tuple[str, ...], ...]
    """Statements; number k leads from version k to k + 1, and 0 is nothing at all."""


def back_up(connection: sqlite3.Connection, schemas: Sequence[Schema], backup: Path) -> bool:
    """
    Outside of any transaction: copy the database, if existing tables are about to change.

    @param backup: where the copy lies then; an older one is replaced.
    @return: whether the database is still empty.
    @raise JournalError: the file is something else, or of a newer release.
    """
    versions = _versions(connection)
    newer = [
        schema.component for schema in schemas if versions.get(schema.component, 0) > len(schema.migrations)
    ]
    if newer:
        raise JournalError(
            f"the journal was written by a newer release of hoft (its tables for {', '.join(newer)}"
            " are unknown to this one): run that release, or restore a backup from before the upgrade"
        )
    if any(0 < versions.get(schema.component, 0) < len(schema.migrations) for schema in schemas):
        _copy(connection, backup)
    return not versions


def migrate(connection: sqlite3.Connection, schemas: Sequence[Schema]) -> None:
    """In the transaction that is open: bring each component to its newest version."""
    versions = _versions(connection)
    if not versions:
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(
            "CREATE TABLE component (name TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID"
        )
    for schema in schemas:
        version = versions.get(schema.component, 0)
        for migration in schema.migrations[version:]:
            for statement in migration:
                connection.execute(statement)
        if version < len(schema.migrations):
            connection.execute(
                "INSERT INTO component (name, version) VALUES (?1, ?2)"
                " ON CONFLICT (name) DO UPDATE SET version = ?2",
                (schema.component, len(schema.migrations)),
            )


def _versions(connection: sqlite3.Connection) -> dict[str, int]:
    if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION:
        return dict(connection.execute("SELECT name, version FROM component"))
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise JournalError("this SQLite database is not a journal of hoft")
    return {}


def _copy(connection: sqlite3.Connection, backup: Path) -> None:
    """A copy that is whole or not there at all, and on disk."""
    made = backup.with_suffix(".part")
    made.unlink(missing_ok=True)
    descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with closing(sqlite3.connect(made)) as target:
            connection.backup(target)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    made.replace(backup)
