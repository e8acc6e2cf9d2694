"""
What one link has in the journal: the records to its peer and from it, and its clock.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure

from hoft.errors import JournalFull
from hoft.interfaces import Incoming
from hoft.protocols import log, log_writing
from hoft.protocols.inbox import Inbox
from hoft.protocols.journal import Transaction
from hoft.protocols.log_writing import VOID, Accept, Accepted, Acknowledge, Commit, Committed, Step
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.outbox import Outbox
from hoft.protocols.packets import Record
from hoft.protocols.path import Path
from hoft.protocols.synchronisation import Sighting
from hoft.timers import Soon

T = TypeVar("T")

ALONE_AFTER = 0.005
"""Seconds that what nobody waits for is left for the next transaction, if there is one by then."""

FULL_PAUSE = 1.0
"""Seconds after which a journal that had no room for what frees some is asked again."""

ESTIMATES_EVERY = 600.0
"""Seconds between notes in the journal of what was learned of the carrier."""
ESTIMATES_RECEIPTS = 64
"""And only if so much more is known."""


class LinkLog:
    """
    One link's log.  An adoption (L{adopt}) or a new incarnation of ours (L{begun}) may begin it
    anew: what was asked of the one before and is committed after that changes nothing here.

    @ivar clock: the link's, after the last commit.
    @ivar outbox: what the peer has not acknowledged.
    """

    def __init__(self, parts: NodeParts, peer: UUID, name: str) -> None:
        """@param name: what the configuration calls the peer."""
        self.clock = 0
        self.outbox = Outbox()
        self._inbox = Inbox()
        self._journal = parts.journal
        self._waiting: list[tuple[Step, Deferred[Any]]] = []
        self._catching_up = Soon(parts.reactor, ALONE_AFTER, self._write_waiting)
        self._refused: list[tuple[Step, Deferred[Any]]] = []
        self._trying_again = Soon(parts.reactor, FULL_PAUSE, self._write_refused)
        self._closed = False
        self._boot = parts.boot
        self._peer = peer
        self._name = name
        self._link = 0
        self._generation = 0
        self._last = 0
        """The highest id that a received record has had."""
        self._estimates_at = 0.0
        self._estimates_of = 0

    def open(self, now: float) -> Deferred[log.Opened]:
        """Load it; to be done once, before anything else."""

        def opened(found: log.Opened) -> log.Opened:
            self._link = found.link
            self._generation = found.generation
            self._last = found.last_inbox
            self.clock = found.state.clock
            self.outbox = Outbox(found.outbox, now)
            self._inbox = Inbox(found.inbox)
            return found

        operation = partial(log.open_log, peer=self._peer.bytes, boot=self._boot)
        # Durable, because all that it finds as received is acknowledged from now on.
        return self._journal.transact(operation, durable=True).addCallback(opened)

    def write(self, step: Step, durable: bool = False) -> Deferred[Any]:
        """
        Have the journal take a step.

        @param durable: fire only once it would survive a power cut.
        @return: fires with what L{log_writing.write} tells of it.
        """
        if self._catching_up.pending:
            self._catching_up.cancel()
            self._write_waiting(more=True)
        return self._journal.transact_together(self._take_steps, step, durable)

    def _write_with_next(self, step: Step) -> Deferred[Any]:
        """
        L{write} for what nobody waits for: with whatever is asked for next, which saves a
        transaction and often the rows, or L{ALONE_AFTER} seconds from now.
        """
        if self._closed:
            return self.write(step)
        waiting: Deferred[Any] = Deferred()
        self._waiting.append((step, waiting))
        self._catching_up.ask()
        return waiting

    def close(self) -> None:
        """The journal may be closed any time now: leave nothing for later."""
        self._closed = True
        self._catching_up.now()
        self._trying_again.cancel()

    def _write_waiting(self, more: bool = False) -> None:
        """
        Have the journal take what was left for later.

        @param more: another step follows at once.
        """
        steps, self._waiting = self._waiting, []
        self._write_each(steps, more)

    def _write_each(self, steps: Sequence[tuple[Step, Deferred[Any]]], more: bool = False) -> None:
        for number, (step, waiting) in enumerate(steps, 1):
            writing = self._journal.transact_together(
                self._take_steps, step, more=more or number < len(steps)
            )
            writing.addCallbacks(waiting.callback, self._not_written, errbackArgs=(step, waiting))

    def _not_written(self, failure: Failure, step: Step, waiting: Deferred[Any]) -> None:
        if isinstance(step, Acknowledge) and failure.check(JournalFull) and not self._closed:
            # A disk may be too full even for what frees some of it.
            self._refused.append((step, waiting))
            self._trying_again.ask()
        else:
            waiting.errback(failure)

    def _write_refused(self) -> None:
        steps, self._refused = self._refused, []
        self._write_each(steps)

    def _transact(self, operation: Callable[[Transaction], T]) -> Deferred[T]:
        self._trying_again.now()
        self._catching_up.now()
        return self._journal.transact(operation)

    def _take_steps(self, transaction: Transaction, steps: Sequence[Step]) -> Sequence[Any]:
        """On the journal's thread."""
        return log_writing.write(transaction, self._link, self._boot, steps)

    def _raise_clock(self, clock: int, generation: int) -> None:
        if generation == self._generation:
            self.clock = max(self.clock, clock)

    # --- records

    def commit(self, asked: Commit, durable: bool) -> Deferred[Committed]:
        """
        Queue records, let go of received ones.

        @return: fires with what was done; the records are not in C{outbox} yet.
        """
        generation = self._generation
        consumed = self._inbox.consume(asked.consume)
        outbox = self.outbox
        size = sum(len(record.payload) for record in asked.send)
        outbox.backlog += size

        def committed(done: Committed) -> Committed:
            outbox.backlog -= size
            self._raise_clock(done.clock, done.generation)
            return done

        def failed(failure: Failure) -> Failure:
            outbox.backlog -= size
            if generation == self._generation:
                self._inbox.restore(consumed)
            return failure

        return self.write(asked, durable).addCallbacks(committed, failed)

    def arriving(self, records: Sequence[Record]) -> list[Incoming]:
        """Received records, none of them known, as the layer above sees them: all but what says nothing."""
        incoming: list[Incoming] = []
        for record in records:
            if record.channel != VOID:
                self._last += 1
                payload = record.payload
                incoming.append(Incoming(self._last, record.channel, len(payload), payload))
        return incoming

    def accept(
        self, clock: int, numbers: Sequence[int], early: Sequence[Incoming], late: Sequence[Incoming]
    ) -> Deferred[bool]:
        """
        Note what was received, and put what is to be kept of it into the inbox.

        @param clock: the peer's, as their packet said.
        @param numbers: of all records.
        @param early: those to be kept that are handed up before that is done.
        @param late: the others to be kept.
        @return: fires once that is committed; with C{False} if their log has been replaced.
        """
        generation = self._generation
        self._inbox.expect(early)

        def accepted(done: Accepted | None) -> bool:
            if done is None:
                self._inbox.consume(one.id for one in early)
                return False
            self._raise_clock(done.clock, generation)
            self._inbox.enter(done.records, early)
            return True

        def failed(failure: Failure) -> Failure:
            self._inbox.consume(one.id for one in early)
            return failure

        step = Accept(generation, clock, numbers, [*early, *late], self._last)
        writing = self.write(step) if late else self._write_with_next(step)
        return writing.addCallbacks(accepted, failed)

    def acknowledge(self, clock: int, known: Sequence[log.Queued]) -> Deferred[None]:
        """
        The peer has committed records that are no longer in C{outbox}.

        @param clock: the peer's.
        @return: fires once they are out of the journal too.
        """
        return self._write_with_next(Acknowledge(self._generation, clock, known))

    def read(self, ids: Sequence[int]) -> Deferred[list[bytes]]:
        """The payloads of received records that nobody has let go of."""
        return execute(self._inbox.locations, ids, self._name).addCallback(self._journal.load)

    def leftovers(self) -> list[Incoming]:
        """What the inbox held at the start and still holds; only the first time."""
        return self._inbox.leftovers()

    # --- who the peer is

    def adopt(self, sighting: Sighting) -> Deferred[log.Adopted]:
        """
        The sender of what was seen is the peer.

        @return: fires with what that has left in the log.
        """

        def adopted(done: log.Adopted) -> log.Adopted:
            self._replace(done)
            return done

        operation = partial(
            log.adopt,
            link=self._link,
            boot=self._boot,
            incarnation=sighting.incarnation,
            peer_boot=sighting.boot,
            clock=sighting.clock,
        )
        return self._transact(operation).addCallback(adopted)

    def begun(self, begun: log.Adopted) -> None:
        """The journal has a new incarnation, and so this is a new log."""
        self._inbox.clear()
        self._replace(begun)

    def _replace(self, adopted: log.Adopted) -> None:
        self._generation = adopted.generation
        self.clock = adopted.clock
        self.outbox.replace(adopted)

    def rollback_told(self) -> Deferred[None]:
        """The layer above knows that the log began anew."""
        return self._transact(partial(log.rollback_told, link=self._link))

    def keep_estimates(self, path: Path, now: float) -> Deferred[None] | None:
        """
        Now and then: the next process is to begin with what was learned of the carrier.

        @return: fires once it is kept; None where there was nothing to do.
        """
        receipts = path.cost.receipts
        if now < self._estimates_at or receipts - self._estimates_of < ESTIMATES_RECEIPTS:
            return None
        estimates = path.estimates()
        if estimates is None:
            return None
        self._estimates_at = now + ESTIMATES_EVERY
        self._estimates_of = receipts
        return self._transact(partial(log.keep_estimates, link=self._link, estimates=estimates))
