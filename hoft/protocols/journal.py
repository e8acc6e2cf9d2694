"""
The durable log: what is committed here is still there after a crash.

One SQLite database for all that is small, and
L{segments<hoft.protocols.segments>} for payloads.  Whatever is asked for while a
commit runs goes into the next one together (group commit), and it is told in one
of two grades: I{ordered} survives a crash of the process, I{durable} a power cut.
How, and why that holds, is told in L{hoft.protocols.database}.

Operations are run on the journal's thread, the disk is waited for on a second
one, payloads are read on a third: none of the three holds up another.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from hoft.errors import JournalError
from hoft.interfaces import IWorker
from hoft.protocols.database import Asked, Database, Done, Transaction
from hoft.protocols.schema import Schema
from hoft.protocols.segments import INLINE, SEGMENT_SIZE, Location
from hoft.protocols.statefolder import RESERVE

__all__ = ["GROUP", "Journal", "Location", "Schema", "Transaction"]

BATCH = 24
EARLY = 4
"""
So many operations are committed although the turn of the reactor in which they are asked for is
not over, and so many times in one: what follows from them begins while the turn goes on.
"""

FEW = 2
ALONE = 0.001
"""So many seconds after a commit of so few operations the next does not wait for the end of the turn."""

S = TypeVar("S")
T = TypeVar("T")

GROUP = 500
"""The most operations that share one commit: a bound on how long one of them waits for the others."""


class Journal:
    """
    One node's journal.

    @param folder: the node's state folder.
    @param worker: where SQLite is used, by this journal alone.
    @param sync_worker: where the disk is waited for, by this journal alone.
    @param schemas: the tables of those who use it; their order is that of creation.
    @param clock: monotonic seconds.
    @param next_turn: calls a function in the reactor's next turn, whatever becomes of the wall clock.
    @param entropy: random bytes, C{os.urandom} outside of simulations.
    @param read_worker: where L{load} reads; C{sync_worker} if not given.
    @param reserve: bytes of disk to keep back for acknowledgements; 0 for none.
    @param segment_size: about how large a file of payloads becomes, bytes.
    @param inline: payloads smaller than this stay in SQLite, bytes.
    """

    incarnation: int
    """64 random bits, minted with the journal; as last committed."""

    lost: int = 0
    """
    Set by L{open}: how many segments lack payloads that committed rows may refer to, after a
    power cut or a careless copy.  Unless it is 0, the log is to begin anew with a new incarnation.
    """

    def __init__(
        self,
        folder: Path,
        worker: IWorker,
        sync_worker: IWorker,
        schemas: Sequence[Schema],
        *,
        clock: Callable[[], float],
        next_turn: Callable[[Callable[[], None]], object],
        entropy: Callable[[int], bytes],
        read_worker: IWorker | None = None,
        reserve: int = RESERVE,
        segment_size: int = SEGMENT_SIZE,
        inline: int = INLINE,
    ) -> None:
        self._database = Database(folder, schemas, entropy, reserve, segment_size, inline)
        self.segments = self._database.segments
        self._worker = worker
        self._sync_worker = sync_worker
        self._read_worker = read_worker or sync_worker
        self._opened = False
        self._refusal: JournalError | None = JournalError("the journal is not open")
        self._broken: Failure | None = None
        self._clock = clock
        self._next_turn = next_turn
        self._turning = False
        self._early = 0
        self._flushed = 0
        self._flushed_at = -math.inf
        self._flushing = False
        self._telling = False
        self._afterwards: dict[Callable[[], None], None] = {}
        self._syncing = False
        self._unsynced: list[tuple[Deferred[Any], Any]] = []
        self._doomed: list[int] = []
        self._closing: Deferred[None] | None = None
        # Filled on the reactor thread, emptied on the journal's.
        self._asked: deque[Asked] = deque()

    def open(self, node: UUID | None = None) -> Deferred[None]:
        """
        Lock the folder, bring the tables up to date, mend what a crash left.

        @param node: whose it is, from the first time on that this is said.
        @raise JournalInUse: (as failure, at once) another process has it open.
        @raise JournalError: (as failure) damaged, of a newer release or another node, on a
            network file system, or not to be had.
        """

        def opened(_: None) -> None:
            self.incarnation = self._database.incarnation
            self.lost = self._database.lost
            self._refusal = None
            self._opened = True

        return self._worker.call(self._database.open, node).addCallback(opened)

    def transact(self, operation: Callable[[Transaction], T], durable: bool = False) -> Deferred[T]:
        """
        Run C{operation(transaction)} on the journal's thread, and commit.

        Operations run in the order given.  The Deferreds of the ordered ones fire
        in that order, and so do those of the durable ones, which may be later; where many
        operations come in one turn, within the call that gives a later one.

        If the operation raises, nothing of it is kept, and its exception is the
        failure; the others of its commit are not harmed.  What it did may be taken back
        and the operation run again, so it does nothing but through the transaction.

        @param durable: fire once it would survive a power cut; otherwise once it
            would survive a crash of this process.
        @raise JournalFull: (as failure) no room; nothing was written.
        @raise JournalError: (as failure) the disk failed or the journal is closed.
            From a durable one that was committed, this leaves open whether
            it will be there after a restart.
        """
        return self.transact_together(_each, operation, durable)

    def transact_together(
        self,
        operation: Callable[[Transaction, Sequence[S]], Sequence[T]],
        what: S,
        durable: bool = False,
        more: bool = False,
    ) -> Deferred[T]:
        """
        L{transact} for what is asked for often and cheaper done many at a time.

        @param operation: called with all of C{what} that was asked of it in a row
            by the time of the commit; returns a result for each.  If it raises, it
            is called again, for each alone.
        @param more: another operation is asked for right after this one: they share a commit.
        """
        if self._refusal is not None:
            return fail(self._refusal)
        deferred: Deferred[T] = Deferred()
        self._asked.append((operation, what, deferred, durable))
        if more:
            return deferred
        if self._telling:
            self._flush_next_turn()
        elif self._lonely():
            self._flush()
        else:
            self._flush_next_turn()
            if len(self._asked) >= BATCH and self._early < EARLY:
                self._early += 1
                self._flush()
        return deferred

    def load(self, locations: Sequence[Location]) -> Deferred[list[bytes]]:
        """
        Payloads in the order asked, without waiting for commits.  From another
        thread, use C{journal.segments.read}.

        @raise hoft.errors.PayloadLost: (as failure) one was discarded or is damaged.
        """
        return self._read_worker.call(self.segments.read_all, list(locations))

    def close(self) -> Deferred[None]:
        """Commit what was given, bring it to disk, let the next process in.  Only the first call counts."""
        if not self._opened:
            return succeed(None)
        self._opened = False
        self._refusal = JournalError("the journal is closed")
        closing = self._closing = Deferred()
        self._close_when_idle()
        return closing

    def abandon(self) -> None:
        """
        For simulations: let go of everything as a crash of the process would.
        None of the workers may be at work, or have work left.
        """
        self._opened = False
        self._refusal = JournalError("the journal was abandoned")
        self._asked.clear()
        self._database.release()

    # --- committing ---

    def _lonely(self) -> bool:
        """Whether it is not to be expected that more is asked for in this turn."""
        return self._flushed <= FEW and self._clock() - self._flushed_at > ALONE

    def _flush_next_turn(self) -> None:
        if not self._turning:
            self._turning = True
            self._next_turn(self._turned)

    def _turned(self) -> None:
        """A turn of the reactor is over: commit what was asked for in it."""
        self._turning = False
        self._early = 0
        self._flush()

    def _flush(self) -> None:
        if self._asked and not self._flushing:
            self._flushing = True
            self._flushed = len(self._asked)
            self._worker.call(self._commit).addCallback(self._committed)
            self._worker.join()
            self._flushed_at = self._clock()

    def _commit(self) -> Done:
        """On the journal's thread: one commit of what is there by now."""
        batch: list[Asked] = []
        while self._asked and len(batch) < GROUP:
            batch.append(self._asked.popleft())
        return self._database.commit(batch)

    def _committed(self, done: Done) -> None:
        """Tell the ordered operations; have the disk catch up for the durable ones."""
        self.incarnation = done.incarnation
        self._doomed += done.doomed
        self._unsynced += done.durable
        self._flushing = False
        if self._asked:
            self._flush_next_turn()
        self._sync_soon()
        self._tell(done.ordered)
        self._close_when_idle()

    # --- waiting for the disk ---

    def _sync_soon(self) -> None:
        if self._syncing or not (self._unsynced or self._doomed):
            return
        waiting, self._unsynced = self._unsynced, []
        doomed, self._doomed = self._doomed, []
        if self._broken is not None:
            self._tell([(deferred, self._broken) for deferred, _ in waiting])
            return
        self._syncing = True

        def synced(_: None) -> None:
            self._syncing = False
            self._sync_soon()
            self._tell(waiting)
            self._close_when_idle()

        def failed(failure: Failure) -> None:
            self._refusal = JournalError(
                f"the disk failed to keep the journal in {self._database.folder}:"
                f" {failure.getErrorMessage()}; restart the node once it is well again"
            )
            self._broken = Failure(self._refusal)
            self._syncing = False
            self._unsynced = waiting + self._unsynced
            self._sync_soon()
            self._close_when_idle()

        self._sync_worker.call(self._database.sync, doomed).addCallbacks(synced, failed)

    def _tell(self, results: Sequence[tuple[Deferred[Any], Any]]) -> None:
        # What they ask for in turn waits for all of them to be told: they are told in order.
        told, self._telling = self._telling, True
        for deferred, result in results:
            deferred.callback(result)
        self._telling = told
        if not told:
            afterwards, self._afterwards = self._afterwards, {}
            for function in afterwards:
                function()

    def once_told(self, function: Callable[[], None]) -> None:
        """
        Call C{function} when all that one commit brought has been told, once however often that
        is asked for; at once if none is being told.
        """
        if self._telling:
            self._afterwards[function] = None
        else:
            function()

    def _close_when_idle(self) -> None:
        if self._closing is None or self._flushing or self._asked or self._syncing:
            return
        closing, self._closing = self._closing, None
        finish = self._database.release if self._broken else self._database.close
        self._worker.call(finish).chainDeferred(closing)


def _each(transaction: Transaction, operations: Sequence[Callable[[Transaction], T]]) -> list[T]:
    """Operations that have nothing in common."""
    return [operation(transaction) for operation in operations]
