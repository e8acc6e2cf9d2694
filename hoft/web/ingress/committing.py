"""
What the exchanges of an ingress ask to be committed: together, once in a turn of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import HoftError, JournalFull
from hoft.interfaces import ILink, ITransaction, Outgoing
from hoft.timers import Soon
from hoft.web.crossing.exchange import REQUESTS


class Batches:
    """One for each link that has something to commit."""

    log = Logger()

    def __init__(self, reactor: IReactorTime, later: Callable[[], None]) -> None:
        """@param later: called where L{flush} is to be called with the next tick."""
        self._later = later
        self._batches: dict[ILink, _Batch] = {}
        self._flushing = Soon(reactor, 0, self.flush)

    @property
    def waiting(self) -> bool:
        """Something is to be committed."""
        return bool(self._batches)

    def send(self, link: ILink, payload: bytes) -> None:
        """Commit a part soon, with others."""
        self._batch(link).send.append(Outgoing(payload, REQUESTS, 0))

    def consume(self, link: ILink, records: Sequence[int]) -> None:
        """Let go of records soon, with others."""
        if records:
            self._batch(link).consume.extend(records)

    def take_back(self, link: ILink, ids: Sequence[int]) -> None:
        """Nobody wants what of these records was not sent yet: it need not lie here, nor be made."""
        if ids:
            link.cancel(ids).addErrback(self.failed, link)

    def also(self, link: ILink, write: Callable[[ITransaction], None]) -> None:
        """Write to the tables soon, with others."""
        self._batch(link).also.append(write)

    def _batch(self, link: ILink) -> _Batch:
        batch = self._batches.get(link)
        if batch is None:
            batch = self._batches[link] = _Batch()
            self._flushing.ask()
        return batch

    def flush(self) -> None:
        """One commit for all that the exchanges of a link asked for in this turn of the reactor."""
        self.commits()

    def commits(self) -> Sequence[Deferred[object]]:
        """L{flush}, and the commits that this comes to; none of them fails."""
        self._flushing.cancel()
        batches, self._batches = self._batches, {}
        return [
            link.commit(batch.send, batch.consume, batch.write).addErrback(self._not_flushed, link, batch)
            for link, batch in batches.items()
        ]

    def _not_flushed(self, failure: Failure, link: ILink, batch: _Batch) -> None:
        if not failure.check(JournalFull):
            self.failed(failure, link)
            return
        if batch.consume and (batch.send or batch.also):
            # What is let go of makes room.
            freeing = _Batch()
            freeing.consume, batch.consume = batch.consume, []
            link.commit((), freeing.consume).addErrback(self._not_flushed, link, freeing)
        # The rest is tried again with the next tick.
        again = self._batches.setdefault(link, _Batch())
        again.send[:0] = batch.send
        again.also[:0] = batch.also
        again.consume[:0] = batch.consume
        self._later()

    def failed(self, failure: Failure, link: ILink) -> None:
        """A commit failed, and is not tried again."""
        if failure.check(HoftError):
            self.log.warn("Not kept for {peer}: {error}", peer=link.name, error=failure.getErrorMessage())
        else:
            self.log.failure("A commit failed", failure)


class _Batch:
    """What is to be committed for a link."""

    __slots__ = ("also", "consume", "send")

    def __init__(self) -> None:
        self.send: list[Outgoing] = []
        self.consume: list[int] = []
        self.also: list[Callable[[ITransaction], None]] = []

    @property
    def write(self) -> Callable[[ITransaction], None] | None:
        """What is to be written to the tables."""
        return self._write if self.also else None

    def _write(self, transaction: ITransaction) -> None:
        for write in self.also:
            write(transaction)
