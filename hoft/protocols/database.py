"""
The journal's database and segments, as its threads use them.

Two grades
==========
An I{ordered} commit is written to SQLite's log without waiting for the disk
(C{synchronous = NORMAL}): it survives a crash of the process.  A I{durable} one
is committed just so, but is only told once the disk has it: the sync thread
calls C{fdatasync} on the segments and on the log, while further commits go on.
One such sync serves every durable commit made before it began.

Why a sync of the log is enough, whatever SQLite does with the log meanwhile
(C{wal.c}, C{sqlite3WalFrames} and C{walCheckpoint}).  Say a durable commit's frames
were written to the log, and the sync begins at any time after:

 1. The log has not begun anew since.  Then these frames, and all before them,
    which recovery needs for its chain of checksums, lie in the file; C{fdatasync}
    brings all of the file's data, and its length, to disk through any descriptor.
    Should a checkpoint be copying them into the database just then, the log is
    still there and whole, and recovery replays it.
 2. The log has begun anew.  That takes a checkpoint that has copied I{every}
    frame, and with C{NORMAL} it syncs the log before the first page is copied,
    and the database after the last and before the log may be used anew.  So the
    commit is on disk in the database, and the sync has nothing left to do.
    The new log's header is synced, too, before frames follow it, so that recovery
    never mixes the old log's frames into the newer database.

The log is one file all along: this connection never closes before the journal
does, and C{journal_size_limit} shortens it, behind the last frame, but does not
replace it.  C{tests/protocols/test_power.py} replays recorded system calls to
check that.  The database is held in exclusive mode: no shared memory file, no
locking calls, half the cost of a small commit.

After a failed sync nobody can say what the disk has, and asking again may be
answered yes in error; the journal then refuses everything until it is reopened.

Power cuts and ordered commits
==============================
After a power cut the journal may be as it was some seconds ago: the protocol
treats that like a restored backup.  And an ordered commit may be there while the
payload that it refers to is not, because no sync ordered the two files; all such
payloads are found when the journal is next opened (L{Journal.lost}).  At any other start only
the lengths of the segments are looked at, which finds what a hand or a careless copy took.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.durable import sync_folder
from hoft.errors import JournalError, JournalFull
from hoft.interfaces import ITransaction
from hoft.protocols.layout import SPARED
from hoft.protocols.schema import Schema, back_up, migrate
from hoft.protocols.segments import FULL, Location, Segments
from hoft.protocols.statefolder import RESERVE, StateFolder, kernel_boot

_log = Logger()

DATABASE = "journal.sqlite"

PAGE = 4096
"""SQLite's page size, bytes.  Each commit writes whole pages, and larger payloads are in segments."""

CHECKPOINT = 4 << 20
"""Bytes of log after which SQLite copies it into the database and uses it anew."""

_OWN = Schema(
    "journal",
    (
        (
            "CREATE TABLE journal (only INTEGER PRIMARY KEY CHECK (only = 1), incarnation BLOB NOT NULL,"
            " boot TEXT NOT NULL, node BLOB) STRICT",
            "CREATE TABLE segment (number INTEGER PRIMARY KEY, length INTEGER NOT NULL,"
            " live INTEGER NOT NULL) STRICT",
        ),
    ),
)

_AT_CREATION = (
    f"page_size = {PAGE}",
    "auto_vacuum = INCREMENTAL",  # see Database._make_room
)

_SETTINGS = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "foreign_keys = ON",
    "temp_store = MEMORY",  # savepoints spill there
    "cache_size = -4096",  # KiB
    f"wal_autocheckpoint = {CHECKPOINT // PAGE}",
    f"journal_size_limit = {2 * CHECKPOINT}",
)


@define
class Done:
    """What one commit did, on its way from the journal's thread to the reactor's."""

    incarnation: int
    ordered: list[tuple[Deferred[Any], Any]] = field(factory=list)
    """To be told now; also whatever failed."""
    durable: list[tuple[Deferred[Any], Any]] = field(factory=list)
    """To be told after a sync."""
    doomed: Sequence[int] = ()
    """Segments to be removed after a sync."""


Operation = Callable[["Transaction", Sequence[Any]], Sequence[Any]]
"""Does what was asked of it, several times in one transaction, in one go: a result for each."""

Asked = tuple[Operation, Any, "Deferred[Any]", bool]
"""An operation, what is asked of it, who waits for that, whether it is durable."""


@implementer(ITransaction)
class Transaction:
    """
    The open transaction, as an operation sees it, on the journal's thread.

    What an operation does through it takes effect together with the other
    operations of the same commit, or, if it raises, not at all.
    """

    def __init__(self, database: Database, connection: sqlite3.Connection) -> None:
        self._database = database
        self._connection = connection

    def is_open(self) -> bool:
        """Whether it still stands; a full disk may end it early."""
        return self._connection.in_transaction

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement; the result iterates over rows."""
        return self._connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        """Run one statement once for each of C{parameters}."""
        return self._connection.executemany(sql, parameters)

    def store(self, payload: bytes) -> Location:
        """
        Keep a payload until its location is given to L{discard}.  Who stores it
        writes C{bytes(location)} into a row.

        @raise JournalFull: no room.  All else still works then, so that
            acknowledgements can free some; and so does what is as small as they are.
        """
        if not self._database.has_room(len(payload)):
            raise JournalFull(f"no room left in {self._database.folder}")
        if len(payload) < self._database.inline:
            return Location(len(payload), payload)
        return self._database.segments.append(payload)

    def load(self, location: Location) -> bytes:
        """
        A payload, also one stored in this transaction.

        @raise hoft.errors.PayloadLost: it is damaged.
        """
        return self._database.segments.read(location)

    def discard(self, location: Location) -> None:
        """Let go of a payload; once for each that was stored."""
        self._database.segments.discard(location)

    def mint_incarnation(self) -> int:
        """Give the journal a new incarnation: what it was before is a closed history."""
        return self._database.mint_incarnation()


class Database:
    """
    The half of a L{Journal<hoft.protocols.journal.Journal>} that blocks.  All is
    called on the journal's thread, but for L{sync}.

    @param folder: the node's state folder.
    @param schemas: the tables of those who use it.
    @param entropy: random bytes.
    @param reserve: bytes to keep back.
    @param segment_size: bytes.
    @param inline: payloads smaller than this stay in SQLite, bytes.
    """

    def __init__(
        self,
        folder: Path,
        schemas: Sequence[Schema],
        entropy: Callable[[int], bytes],
        reserve: int,
        segment_size: int,
        inline: int,
    ) -> None:
        self.folder = folder
        self.segments = Segments(folder / "segments", segment_size)
        self.inline = inline
        self.incarnation = 0
        self.lost = 0
        self._schemas = (_OWN, *schemas)
        self._entropy = entropy
        self._state = StateFolder(folder, reserve)
        self._connection: sqlite3.Connection | None = None
        self._transaction: Transaction
        self._log = -1
        self._full = False
        self._suspect = False
        self._minted = False

    def open(self, node: UUID | None = None) -> None:
        """
        Lock, create or upgrade, mend.

        @param node: see L{Journal.open<hoft.protocols.journal.Journal.open>}.
        @raise JournalError: as L{Journal.open<hoft.protocols.journal.Journal.open>} says.
        """
        self._state.lock()
        try:
            try:
                self._prepare(node)
            except JournalFull:
                self._state.release_reserve()
                self._prepare(node)
        except BaseException:
            self.release()
            raise
        self._full = not self._state.keep_reserve()

    def _prepare(self, node: UUID | None) -> None:
        path = self.folder / DATABASE
        try:
            # SQLite gives its log the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self._disconnect()
            self._connection = connection = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._transaction = Transaction(self, connection)
            execute = connection.execute
            execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first look, or there is shared memory
            new = back_up(connection, self._schemas, self.folder / "before-upgrade.sqlite")
            for setting in (*_AT_CREATION, *_SETTINGS) if new else _SETTINGS:
                execute(f"PRAGMA {setting}")
            if execute("PRAGMA journal_mode").fetchone() != ("wal",):
                raise JournalError(f"{path}: SQLite cannot keep a write-ahead log here")
            execute("BEGIN IMMEDIATE")
            migrate(connection, self._schemas)
            execute(
                "INSERT INTO journal (only, incarnation, boot) VALUES (1, ?, '') ON CONFLICT DO NOTHING",
                (self._random(),),
            )
            if node is not None:
                execute("UPDATE journal SET node = ? WHERE node IS NULL", (node.bytes,))
                [(whose,)] = execute("SELECT node FROM journal")
                if whose != node.bytes:
                    raise JournalError(
                        f"{path} is the journal of node {UUID(bytes=whose)}, and this is node {node}: put the"
                        f" files of one and the same node into {self.folder}, or, to begin with nothing,"
                        f" move {DATABASE}, what begins with its name, and 'segments' somewhere else"
                    )
            leftovers = self.segments.open(execute("SELECT number, length, live FROM segment"))
            boot = kernel_boot()
            [(unclean,)] = execute("SELECT boot FROM journal")
            power_cut = unclean and (unclean != boot or boot == "unknown")
            self.lost = self.segments.verify() if power_cut else self.segments.missing()
            self._suspect = bool(self.lost)
            if not self._suspect:
                execute("UPDATE journal SET boot = ?", (boot,))
            execute("COMMIT")
            self._read_state()
            self._log = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            os.fdatasync(self._log)
            self.segments.remove(leftovers)  # not before the disk knows that they are
            sync_folder(self.folder)
        except (sqlite3.Error, OSError) as error:
            raise _told(error, f"cannot open {path}") from error

    def commit(self, batch: Sequence[Asked]) -> Done:
        """Do what C{batch} asks for in one transaction; never raises."""
        doomed: Sequence[int] = ()
        try:
            try:
                outcomes, doomed = self._commit(batch, self._together)
            except BaseException:  # it is told by whoever it then happens to alone
                self._roll_back()
                outcomes, doomed = self._commit(batch, self._apart)
        except BaseException as error:
            outcomes = [(self._failure(error), True)] * len(batch)
            self._roll_back()
        if self._full:
            self._make_room()
        done = Done(self.incarnation, doomed=doomed)
        for (_, _, deferred, durable), (result, failed) in zip(batch, outcomes, strict=True):
            (done.durable if durable and not failed else done.ordered).append((deferred, result))
        return done

    def _commit(
        self, batch: Sequence[Asked], run: Callable[[Sequence[Asked]], list[tuple[Any, bool]]]
    ) -> tuple[list[tuple[Any, bool]], Sequence[int]]:
        execute = self._transaction.execute
        self._minted = False
        execute("BEGIN IMMEDIATE")
        outcomes = run(batch)
        doomed = self.segments.save(execute)
        execute("COMMIT")
        self.segments.committed(doomed)
        if self._minted:
            self._read_state()
            self._suspect = False
        return outcomes, doomed

    def _together(self, batch: Sequence[Asked]) -> list[tuple[Any, bool]]:
        """All of it, what is asked of one operation in a row at once; whatever is raised spoils all."""
        outcomes: list[tuple[Any, bool]] = []
        for operation, asked in groupby(batch, itemgetter(0)):
            outcomes += [(result, False) for result in operation(self._transaction, [a[1] for a in asked])]
        self.segments.keep()
        return outcomes

    def _apart(self, batch: Sequence[Asked]) -> list[tuple[Any, bool]]:
        """Each by itself, so that one that fails does no harm to others."""
        return [self._run(operation, what) for operation, what, _, _ in batch]

    def _run(self, operation: Operation, what: Any) -> tuple[Any, bool]:
        """One of them within the open transaction: its result, and whether that is a failure."""
        execute = self._transaction.execute
        execute("SAVEPOINT operation")
        try:
            [result] = operation(self._transaction, [what])
        except BaseException as error:
            if not self._transaction.is_open():
                raise  # SQLite has rolled back everything, as it may when the disk is full
            failure = self._failure(error)
            self.segments.undo()
            execute("ROLLBACK TO operation")
            execute("RELEASE operation")
            return failure, True
        execute("RELEASE operation")
        self.segments.keep()
        return result, False

    def _roll_back(self) -> None:
        try:
            if self._transaction.is_open():
                self._transaction.execute("ROLLBACK")
            self.segments.rolled_back()
            self._read_state()
        except sqlite3.Error:
            pass  # the next commit fails in turn, and says so to those who ask for it

    def _make_room(self) -> None:
        """
        While room is short: give back what SQLite holds and does not need, its
        log and free pages.  A few at a time, since moving them takes log first.
        """
        try:
            self._transaction.execute(f"PRAGMA incremental_vacuum({RESERVE // 4 // PAGE})").fetchall()
            self._transaction.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # no room even for that yet: the log stays, and is whole

    def _failure(self, error: BaseException) -> Failure:
        """What the caller is told; where the disk is full, also what is done about it."""
        if isinstance(error, sqlite3.Error) and _primary(error) in _MACHINE:
            told = _told(error, f"cannot write the journal in {self.folder}")
            told.__cause__ = error
            error = told.with_traceback(error.__traceback__)
        if isinstance(error, JournalFull) and not self._full:
            self._full = True
            _log.warn(
                "The disk of {folder} is full: what needs room there is refused, calls with a 507, until"
                " there is some",
                folder=self.folder,
            )
            self._state.release_reserve()
        return Failure(error, type(error), error.__traceback__)

    def sync(self, doomed: Sequence[int] = ()) -> None:
        """
        On the sync thread: bring to disk all that was committed before this
        call, then remove segments that a commit let go of.
        """
        self.segments.sync()
        os.fdatasync(self._log)
        self.segments.remove(doomed)

    # --- for L{Transaction} ---

    def has_room(self, size: int) -> bool:
        """Whether a payload of that size may be stored; where it might not, look again."""
        if self._full:
            self._full = not self._state.keep_reserve()
            if not self._full:
                _log.info("There is room in {folder} again", folder=self.folder)
        return not self._full or (size <= SPARED and self._state.spares())

    def mint_incarnation(self) -> int:
        """See L{Transaction.mint_incarnation}."""
        incarnation = self._random()
        self._transaction.execute(
            "UPDATE journal SET incarnation = ?, boot = ?", (incarnation, kernel_boot())
        )
        self._minted = True
        self.segments.accept()
        return int.from_bytes(incarnation, "big")

    def _random(self) -> bytes:
        """An incarnation: never 0, which in a packet means unknown."""
        return (int.from_bytes(self._entropy(8), "big") or 1).to_bytes(8, "big")

    def _read_state(self) -> None:
        [(incarnation,)] = self._transaction.execute("SELECT incarnation FROM journal")
        self.incarnation = int.from_bytes(incarnation, "big")

    def close(self) -> None:
        """Bring all to disk, then L{release}."""
        try:
            self.sync()
            if not self._suspect:
                self._transaction.execute("UPDATE journal SET boot = ''")
        except (sqlite3.Error, OSError) as error:
            raise _told(error, f"cannot close the journal in {self.folder}") from error
        finally:
            self.release()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def release(self) -> None:
        """Let go of all files as they are, and let the next process in."""
        self._disconnect()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        self.segments.close()
        self._state.unlock()


_MACHINE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)
"""Primary result codes that are no fault of the operation's."""


def _primary(error: BaseException) -> int:
    """SQLite's result code without its details."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _told(error: BaseException, doing: str) -> JournalError:
    full = _primary(error) == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno in FULL)
    return (JournalFull if full else JournalError)(f"{doing}: {error}")
