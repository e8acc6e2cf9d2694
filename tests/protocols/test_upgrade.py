"""Journals of releases open, and an upgrade that is killed at any moment is made by the next start."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols import database, log
from hoft.protocols.database import Database
from hoft.protocols.schema import Schema, migrate
from tests.protocols import released
from tests.protocols.journals import InlineJournal

NEWER = Schema(
    "log",
    (
        *log.SCHEMA.migrations,
        (
            "ALTER TABLE outbox ADD COLUMN colour TEXT",
            "UPDATE outbox SET colour = 'blue'",
            "CREATE TABLE further (id INTEGER PRIMARY KEY)",
        ),
        ("INSERT INTO further SELECT id FROM outbox",),
    ),
)
"""As a release to come may have it."""


class _Dying:
    """A connection at whose Nth statement the process is killed."""

    def __init__(self, connection: sqlite3.Connection, at: int) -> None:
        self._connection = connection
        self._left = at

    def execute(self, *arguments: Any) -> Any:
        self.step()
        return self._connection.execute(*arguments)

    def step(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


class UpgradeTests(SynchronousTestCase):
    """Each release's."""

    def folder(self, dumped: str) -> Path:
        folder = Path(self.mktemp()).absolute()
        released.load(dumped, folder)
        return folder

    def opened(self, folder: Path, schema: Schema = log.SCHEMA) -> InlineJournal:
        inline = InlineJournal(folder, [schema])
        self.addCleanup(inline.crash)
        inline.result(inline.journal.open())
        return inline

    def test_of_every_release(self) -> None:
        """What was in them is there."""
        files = sorted(released.FOLDER.glob("*.sql"))
        self.assertTrue(files)
        for file in files:
            inline = self.opened(self.folder(file.read_text()))
            opened = inline.do(lambda t: log.open_log(t, released.PEER, 7))
            self.assertEqual(opened.state.peer_incarnation, released.THEIR_INCARNATION)
            self.assertEqual(list(opened.state.retired), [0xE0])
            self.assertEqual([queued.number for queued in opened.outbox], [1, 2])
            payloads = inline.journal.segments.read_all([one.location for one in opened.outbox])
            self.assertEqual(payloads, list(released.SENT))
            [held] = opened.inbox
            self.assertEqual(inline.journal.segments.read(held.location), released.RECEIVED)
            self.assertIn(4, opened.state.received)

    def test_killed_at_any_statement(self) -> None:
        """The tables are as they were, or upgraded; the next start completes it, and loses nothing."""
        dumped = released.dump()
        killed = 0
        for at in range(1, 30):
            folder = self.folder(dumped)
            killed += self.die(folder, at)
            inline = self.opened(folder, NEWER)
            rows = inline.do(lambda t: t.execute("SELECT number, colour FROM outbox").fetchall())
            self.assertEqual(rows, [(1, "blue"), (2, "blue")])
            self.assertEqual(inline.do(lambda t: t.execute("SELECT count(*) FROM further").fetchone()), (2,))
            inline.crash()
        self.assertGreater(killed, 5)

    def die(self, folder: Path, at: int) -> bool:
        """Whether a process that upgrades was killed at statement C{at}, or just before its commit."""
        child = os.fork()
        if not child:

            def dying(connection: sqlite3.Connection, schemas: Any) -> None:
                victim = _Dying(connection, at)
                migrate(victim, schemas)  # type: ignore[arg-type]  # all that it uses is there
                victim.step()

            try:
                with patch.object(database, "migrate", dying):
                    Database(folder, (NEWER,), os.urandom, 0, 1 << 16, 2048).open()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status)
