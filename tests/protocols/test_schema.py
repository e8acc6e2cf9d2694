"""The tables of a journal: made, upgraded, refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from hoft.errors import JournalError
from hoft.protocols.journal import Schema

from .journals import NOTES, InlineJournal, JournalCase

ROOT = Path(__file__).parent.parent.parent


class SchemaTests(JournalCase):
    OLD = Schema("web", (("CREATE TABLE exchange (id INTEGER PRIMARY KEY)",),))
    NEW = Schema(
        "web",
        (
            *OLD.migrations,
            ("ALTER TABLE exchange ADD COLUMN started INTEGER", "UPDATE exchange SET started = id * 2"),
            ("CREATE TABLE job (id INTEGER PRIMARY KEY)",),
        ),
    )

    def test_upgrade(self) -> None:
        """Older tables are brought up to date, after a copy of the database was made."""
        inline = self.opened(schemas=[NOTES, self.OLD])
        inline.do(lambda t: t.execute("INSERT INTO exchange VALUES (21)"))
        backup = self.folder / "before-upgrade.sqlite"
        self.assertFalse(backup.exists())
        inline = self.reopened(inline, schemas=[NOTES, self.NEW])
        self.assertEqual(inline.do(lambda t: list(t.execute("SELECT * FROM exchange"))), [(21, 42)])
        self.assertEqual(inline.do(lambda t: list(t.execute("SELECT * FROM job"))), [])
        self.assertEqual(backup.stat().st_mode & 0o777, 0o600)
        with closing(sqlite3.connect(backup)) as copy:
            self.assertEqual(list(copy.execute("SELECT * FROM exchange")), [(21,)])
        inline = self.reopened(inline, schemas=[self.NEW])
        self.assertEqual(inline.do(lambda t: list(t.execute("SELECT * FROM exchange"))), [(21, 42)])

    def test_a_further_component(self) -> None:
        inline = self.opened(schemas=[NOTES])
        inline = self.reopened(inline, schemas=[NOTES, self.NEW])
        inline.do(lambda t: t.execute("INSERT INTO job VALUES (1)"))
        self.assertFalse((self.folder / "before-upgrade.sqlite").exists())

    def test_newer_refused(self) -> None:
        """A journal of a newer release is refused, and left as it is."""
        self.opened(schemas=[self.NEW]).crash()
        content = (self.folder / "journal.sqlite").read_bytes()
        older = InlineJournal(self.folder, [self.OLD])
        refused = self.assertRaises(JournalError, older.result, older.journal.open())
        self.assertIn("newer release", str(refused))
        self.assertEqual((self.folder / "journal.sqlite").read_bytes(), content)
        self.opened(schemas=[self.NEW])

    def test_failed_migration_changes_nothing(self) -> None:
        inline = self.opened(schemas=[self.OLD])
        inline.do(lambda t: t.execute("INSERT INTO exchange VALUES (21)"))
        inline.crash()
        bad = Schema("web", (*self.NEW.migrations, ("SELECT no_such_function()",)))
        failing = InlineJournal(self.folder, [bad])
        self.assertRaises(JournalError, failing.result, failing.journal.open())
        inline = self.opened(schemas=[self.OLD])
        self.assertEqual(inline.do(lambda t: list(t.execute("SELECT * FROM exchange"))), [(21,)])

    def test_something_else_refused(self) -> None:
        self.folder.mkdir()
        for content in (b"not a database at all" * 100, None):
            path = self.folder / "journal.sqlite"
            if content is None:
                path.unlink()
                with closing(sqlite3.connect(path)) as other:
                    other.execute("CREATE TABLE other (id)")
            else:
                path.write_bytes(content)
            inline = InlineJournal(self.folder)
            refused = self.assertRaises(JournalError, inline.result, inline.journal.open())
            self.assertIn("journal", str(refused))
