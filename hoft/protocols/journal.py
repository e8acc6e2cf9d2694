"""
The durable log: what is committed here is still there after a crash.

One SQLite database (write-ahead log, one connection, one thread) for all that is
small, and L{segments<hoft.protocols.segments>} for payloads.  Whatever is asked
for while a commit runs goes into the next one together (group commit).

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
payloads are found when the journal is next opened (L{Journal.lost}).
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import JournalError, JournalFull
from hoft.interfaces import ITransaction, IWorker
from hoft.protocols.schema import Schema, migrate
from hoft.protocols.segments import FULL, INLINE, SEGMENT_SIZE, Location, Segments, sync_folder
from hoft.protocols.statefolder import RESERVE, StateFolder, kernel_boot

T = TypeVar("T")

DATABASE = "journal.sqlite"

PAGE = 16384
"""SQLite's page size, bytes."""

CHECKPOINT = 4 << 20
"""Bytes of log after which SQLite copies it into the database and uses it anew."""

GROUP = 500
"""The most operations that share one commit: a bound on how long one of them waits for the others."""

_OWN = Schema(
    "journal",
    (
        (
            "CREATE TABLE journal (only INTEGER PRIMARY KEY CHECK (only = 1), incarnation BLOB NOT NULL,"
            " clock INTEGER NOT NULL, boot TEXT NOT NULL) STRICT",
            "CREATE TABLE segment (number INTEGER PRIMARY KEY, length INTEGER NOT NULL,"
            " live INTEGER NOT NULL) STRICT",
        ),
    ),
)

_SETTINGS = (
    f"page_size = {PAGE}",
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "foreign_keys = ON",
    "temp_store = MEMORY",  # savepoints spill there
    "cache_size = -4096",  # KiB
    f"wal_autocheckpoint = {CHECKPOINT // PAGE}",
    f"journal_size_limit = {2 * CHECKPOINT}",
)


@define
class _Done:
    """What one commit did, on its way from the journal's thread to the reactor's."""

    incarnation: int
    clock: int
    ordered: list[tuple[Deferred[Any], Any]] = field(factory=list)
    """To be told now; also whatever failed."""
    durable: list[tuple[Deferred[Any], Any]] = field(factory=list)
    """To be told after a sync."""
    doomed: Sequence[int] = ()
    """Segments to be removed after a sync."""


_Operation = Callable[["Transaction"], Any]
_Asked = tuple[_Operation, "Deferred[Any]", bool]


@implementer(ITransaction)
class Transaction:
    """
    The open transaction, as an operation sees it, on the journal's thread.

    What an operation does through it takes effect together with the other
    operations of the same commit, or, if it raises, not at all.
    """

    def __init__(self, journal: Journal, connection: sqlite3.Connection) -> None:
        self._journal = journal
        self._connection = connection

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
            acknowledgements can free some.
        """
        if self._journal._full and not self._journal._has_room():
            raise JournalFull(f"no room left in {self._journal.folder}")
        if len(payload) < INLINE:
            return Location(len(payload), payload)
        return self._journal.segments.append(payload)

    def load(self, location: Location) -> bytes:
        """
        A payload, also one stored in this transaction.

        @raise hoft.errors.PayloadLost: it is damaged.
        """
        return self._journal.segments.read(location)

    def discard(self, location: Location) -> None:
        """Let go of a payload; once for each that was stored."""
        self._journal.segments.discard(location)

    def raise_clock(self) -> int:
        """
        Raise the journal's clock, by one however many operations of one commit
        ask, and return it.
        """
        return self._journal._raise_clock()

    def mint_incarnation(self) -> int:
        """Give the journal a new incarnation: what it was before is a closed history."""
        return self._journal._mint()


class Journal:
    """
    One node's journal.

    @param folder: the node's state folder.
    @param worker: where SQLite is used, by this journal alone.
    @param sync_worker: where the disk is waited for, by this journal alone.
    @param schemas: the tables of those who use it; their order is that of creation.
    @param entropy: random bytes, C{os.urandom} outside of simulations.
    @param read_worker: where L{load} reads; C{sync_worker} if not given.
    @param reserve: bytes of disk to keep back for acknowledgements; 0 for none.
    """

    incarnation: int
    """64 random bits, minted with the journal; as last committed."""

    clock: int
    """Raised by commits that number or deliver (L{Transaction.raise_clock}); as last committed."""

    lost: int = 0
    """
    Set by L{open}: in how many places payloads are missing that committed rows
    may refer to, after a power cut or a careless copy.  Unless it is 0, the log is
    to begin anew with a new incarnation.
    """

    def __init__(
        self,
        folder: Path,
        worker: IWorker,
        sync_worker: IWorker,
        schemas: Sequence[Schema],
        *,
        entropy: Callable[[int], bytes],
        read_worker: IWorker | None = None,
        reserve: int = RESERVE,
        segment_size: int = SEGMENT_SIZE,
    ) -> None:
        self.folder = folder
        self.segments = Segments(folder / "segments", segment_size)
        self._worker = worker
        self._sync_worker = sync_worker
        self._read_worker = read_worker or sync_worker
        self._schemas = (_OWN, *schemas)
        self._entropy = entropy
        self._state = StateFolder(folder, reserve)
        # The reactor's:
        self._refusal: JournalError | None = JournalError("the journal is not open")
        self._flushing = False
        self._syncing: Deferred[None] | None = None
        self._unsynced: list[tuple[Deferred[Any], Any]] = []
        self._doomed: list[int] = []
        # Given by the reactor thread, taken by the journal's:
        self._asked: deque[_Asked] = deque()
        # The journal's thread's:
        self._connection: sqlite3.Connection | None = None
        self._transaction: Transaction
        self._log = -1
        self._full = False
        self._suspect = False
        self._incarnation = 0
        self._clock = 0
        self._raised = False
        self._minted = False

    # --- on the reactor thread ---

    def open(self) -> Deferred[None]:
        """
        Lock the folder, bring the tables up to date, mend what a crash left.

        @raise JournalInUse: (as failure, at once) another process has it open.
        @raise JournalError: (as failure) damaged, of a newer release, on a network
            file system, or not to be had.
        """

        def opened(state: tuple[int, int]) -> None:
            self.incarnation, self.clock = state
            self._refusal = None

        return self._worker.call(self._open).addCallback(opened)

    def transact(self, operation: Callable[[Transaction], T], durable: bool = False) -> Deferred[T]:
        """
        Run C{operation(transaction)} once, on the journal's thread, and commit.

        Operations run in the order given.  The Deferreds of the ordered ones fire
        in that order, and so do those of the durable ones, which may be later.

        If the operation raises, nothing of it is kept, and its exception is the
        failure; the others of its commit are not harmed.

        @param durable: fire once it would survive a power cut; otherwise once it
            would survive a crash of this process.
        @raise JournalFull: (as failure) no room; nothing was written.
        @raise JournalError: (as failure) the disk failed or the journal is closed.
            From a durable one that was committed, this leaves open whether
            it will be there after a restart.
        """
        if self._refusal is not None:
            return fail(self._refusal)
        deferred: Deferred[T] = Deferred()
        self._asked.append((operation, deferred, durable))
        self._flush_soon()
        return deferred

    def load(self, locations: Sequence[Location]) -> Deferred[list[bytes]]:
        """
        Payloads in the order asked, without waiting for commits.  From another
        thread, use C{journal.segments.read}.

        @raise hoft.errors.PayloadLost: (as failure) one was discarded or is damaged.
        """
        return self._read_worker.call(self.segments.read_all, list(locations))

    def close(self) -> Deferred[None]:
        """Commit what was given, bring it to disk, let the next process in."""
        self._refusal = JournalError("the journal is closed")

        def flushed(_: object) -> Deferred[None] | None:
            return self._syncing

        closed = self._worker.call(int)  # after every flush that was asked for
        closed.addCallback(self._drained)
        closed.addCallback(flushed)
        return closed.addCallback(lambda _: self._worker.call(self._close))

    def abandon(self) -> None:
        """
        For simulations: let go of everything as a crash of the process would.
        Its workers must not be at work.
        """
        self._refusal = JournalError("the journal was abandoned")
        self._asked.clear()
        self._release()

    def _drained(self, _: object) -> Deferred[None] | None:
        """More than one commit may be needed for what was asked before L{close}."""
        if not self._asked and not self._flushing:
            return None
        return self._worker.call(int).addCallback(self._drained)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._worker.call(self._flush).addCallback(self._flushed)

    def _flushed(self, done: _Done) -> None:
        """Tell the ordered operations; have the disk catch up for the durable ones."""
        self.incarnation, self.clock = done.incarnation, done.clock
        self._doomed += done.doomed
        self._unsynced += done.durable
        self._flushing = False
        if self._asked:
            self._flush_soon()
        self._sync_soon()
        for deferred, result in done.ordered:
            deferred.callback(result)

    def _sync_soon(self) -> None:
        if self._syncing is not None or not (self._unsynced or self._doomed):
            return
        waiting, self._unsynced = self._unsynced, []
        doomed, self._doomed = self._doomed, []
        self._syncing = Deferred()

        def synced(_: object) -> None:
            self._finish_sync(waiting)

        def failed(failure: Failure) -> None:
            self._refusal = JournalError(
                f"the disk failed to keep the journal in {self.folder}:"
                f" {failure.getErrorMessage()}; restart the node once it is well again"
            )
            refused = Failure(self._refusal)
            self._finish_sync([(deferred, refused) for deferred, _ in waiting + self._unsynced])

        self._sync_worker.call(self._sync, doomed).addCallbacks(synced, failed)

    def _finish_sync(self, results: Sequence[tuple[Deferred[Any], Any]]) -> None:
        done, self._syncing = self._syncing, None
        self._sync_soon()
        for deferred, result in results:
            deferred.callback(result)
        if done is not None:
            done.callback(None)

    # --- on the sync worker's thread ---

    def _sync(self, doomed: Sequence[int]) -> None:
        self.segments.sync()
        os.fdatasync(self._log)
        self.segments.remove(doomed)

    # --- on the journal's thread ---

    def _open(self) -> tuple[int, int]:
        self._state.lock()
        try:
            try:
                self._prepare()
            except JournalFull:
                self._state.release_reserve()
                self._prepare()
        except BaseException:
            self._release()
            raise
        self._full = not self._state.keep_reserve()
        return self._incarnation, self._clock

    def _prepare(self) -> None:
        path = self.folder / DATABASE
        try:
            # SQLite gives its log the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self._disconnect()
            self._connection = connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._transaction = Transaction(self, connection)
            execute = connection.execute
            for setting in _SETTINGS:
                execute(f"PRAGMA {setting}")
            execute("BEGIN IMMEDIATE")
            migrate(connection, self._schemas, self.folder / "before-upgrade.sqlite")
            execute(
                "INSERT INTO journal (only, incarnation, clock, boot) VALUES (1, ?, 0, '')"
                " ON CONFLICT DO NOTHING",
                (self._entropy(8),),
            )
            self.segments.open(execute("SELECT number, length, live FROM segment"))
            boot = kernel_boot()
            [(unclean,)] = execute("SELECT boot FROM journal")
            if unclean and (unclean != boot or boot == "unknown"):
                self.lost = self.segments.verify()
            self._suspect = bool(self.lost)
            if not self._suspect:
                execute("UPDATE journal SET boot = ?", (boot,))
            execute("COMMIT")
            self._read_state()
            self._log = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            sync_folder(self.folder)
        except (sqlite3.Error, OSError) as error:
            raise _told(error, f"cannot open {path}") from error

    def _flush(self) -> _Done:
        """One commit; never raises."""
        batch: list[_Asked] = []
        while self._asked and len(batch) < GROUP:
            batch.append(self._asked.popleft())
        outcomes: list[tuple[Any, bool]] = []
        doomed: Sequence[int] = ()
        try:
            execute = self._transaction.execute
            execute("BEGIN IMMEDIATE")
            for operation, _, _ in batch:
                outcomes.append(self._run(operation))
            doomed = self.segments.save(execute)
            if self._raised:
                execute("UPDATE journal SET clock = ?", (self._clock,))
            execute("COMMIT")
            self.segments.committed(doomed)
            if self._minted:
                self._read_state()
                self._suspect = False
        except BaseException as error:
            lost = self._failure(error)
            outcomes = [(result, False) if failed else (lost, True) for result, failed in outcomes]
            outcomes += [(lost, True)] * (len(batch) - len(outcomes))
            doomed = ()
            self._roll_back()
        self._raised = self._minted = False
        done = _Done(self._incarnation, self._clock, doomed=doomed)
        for (_, deferred, durable), (result, failed) in zip(batch, outcomes, strict=True):
            (done.durable if durable and not failed else done.ordered).append((deferred, result))
        return done

    def _run(self, operation: _Operation) -> tuple[Any, bool]:
        """One operation within the open transaction: its result, and whether that is a failure."""
        execute = self._transaction.execute
        execute("SAVEPOINT operation")
        try:
            result = operation(self._transaction)
        except BaseException as error:
            failure = self._failure(error)
            self.segments.undo()
            # Where SQLite has given up the whole transaction, this raises in turn.
            execute("ROLLBACK TO operation")
            execute("RELEASE operation")
            return failure, True
        execute("RELEASE operation")
        self.segments.keep()
        return result, False

    def _roll_back(self) -> None:
        connection = self._connection
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
            self.segments.rolled_back()
            self._read_state()
        except sqlite3.Error:
            pass  # the next commit fails in turn, and says so to those who ask for it

    def _failure(self, error: BaseException) -> Failure:
        """What the caller is told; where the disk is full, also what is done about it."""
        if isinstance(error, sqlite3.Error) and _primary(error) in _MACHINE:
            told = _told(error, f"cannot write the journal in {self.folder}")
            told.__cause__ = error
            error = told.with_traceback(error.__traceback__)
        if isinstance(error, JournalFull) and not self._full:
            self._full = True
            self._state.release_reserve()
        return Failure(error, type(error), error.__traceback__)

    def _has_room(self) -> bool:
        self._full = not self._state.keep_reserve()
        return not self._full

    def _raise_clock(self) -> int:
        if not self._raised:
            self._raised = True
            self._clock += 1
        return self._clock

    def _mint(self) -> int:
        incarnation = self._entropy(8)
        self._transaction.execute(
            "UPDATE journal SET incarnation = ?, boot = ?", (incarnation, kernel_boot())
        )
        self._minted = True
        return int.from_bytes(incarnation, "big")

    def _read_state(self) -> None:
        [(incarnation, clock)] = self._transaction.execute("SELECT incarnation, clock FROM journal")
        self._incarnation, self._clock = int.from_bytes(incarnation, "big"), clock

    def _close(self) -> None:
        try:
            self._sync(())
            if not self._suspect:
                self._transaction.execute("UPDATE journal SET boot = ''")
        except (sqlite3.Error, OSError) as error:
            raise _told(error, f"cannot close the journal in {self.folder}") from error
        finally:
            self._release()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _release(self) -> None:
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
