"""
What an exchange asks the journal for: that its response goes out, part by part, what the table says of it
meanwhile, and with the last part that its request is let go of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import JournalFull, LinkClosed
from hoft.interfaces import CommitResult, ITransaction, Outgoing
from hoft.web.crossing.exchange import RESPONSES, flow_of
from hoft.web.egress.executions import State
from hoft.web.egress.surroundings import Stage, Surroundings

if TYPE_CHECKING:
    from hoft.web.egress.performing import Exchange


class Committing:
    """
    Of one exchange.

    @ivar row: what the table says of it, once what was asked of it is done.
    """

    log = Logger()

    def __init__(self, around: Surroundings, exchange: Exchange) -> None:
        self.row: State | None = None
        self._around = around
        self._exchange = exchange
        self._first_sent: Sequence[int] | None = None

    def begin(self) -> Deferred[CommitResult[bool]]:
        """
        It is about to be performed, and may not be repeated: note that on the disk.

        @return: fires with C{False} as value if that was noted before.
        """
        self.row = State.STARTED
        rows = self._around.rows
        return self._around.link.commit((), (), rows.start(self._exchange.id), durable=True)

    def give(self, parts: Sequence[bytes], last: bool) -> Deferred[Any]:
        """See L{hoft.web.egress.responding.Commit}."""
        exchange, link = self._exchange, self._around.link
        urgency = 3 if exchange.head is None else exchange.head.urgency
        compress_from = exchange.sender.compress_from
        send = [
            Outgoing(part, RESPONSES, urgency, flow_of(part), compress_from=compress_from(part))
            for part in parts
        ]
        if not last:
            before = self.row
            also = None if before is State.RESPONDING else self._set(State.RESPONDING)
            committing = link.commit(send, (), also)
            return committing.addCallbacks(self._sent, self._not_sent, errbackArgs=(before,))
        consume = list(exchange.request.records)
        committing = link.commit(send, consume, self._afterwards())
        committing.addCallbacks(self._last_sent, self._last_not_sent, callbackArgs=(len(consume),))
        return committing

    def let_go(self) -> None:
        """Nothing of it goes out any more; what came of its request is of no use."""
        records = self._exchange.request.records
        self._around.discard(records, self._afterwards())
        del records[:]

    def drained(self) -> None:
        """And nothing more will come of its request."""
        id, rows = self._exchange.id, self._around.rows
        # A row that a crash left behind may be one of what must not be repeated.
        also = rows.forget(id) if self.row is None else rows.set(id, State.DONE)
        self._around.discard((), also)

    def lost(self, resent: frozenset[int]) -> bool:
        """
        Of what has gone out a part may never arrive.

        @param resent: the records that will.
        """
        # Of a first commit that is under way nobody knows yet in which log its records are.
        return self._first_sent is None or not resent.issuperset(self._first_sent)

    def _set(self, state: State) -> Callable[[ITransaction], None]:
        self.row = state
        return self._around.rows.set(self._exchange.id, state)

    def _afterwards(self) -> Callable[[ITransaction], None] | None:
        """What the table must say once nothing more will be sent."""
        exchange, rows = self._exchange, self._around.rows
        if exchange.stage is Stage.DRAINING:
            return rows.set(exchange.id, State.DRAINING)
        if self.row is not None and exchange.once:
            return rows.set(exchange.id, State.DONE)
        return None if self.row is None else rows.forget(exchange.id)

    def _sent(self, result: CommitResult[None]) -> None:
        if self._first_sent is None:
            self._first_sent = result.sent

    def _not_sent(self, failure: Failure, before: State | None) -> Failure | None:
        self.row = before
        return self.refused(failure)

    def _last_sent(self, _: CommitResult[None], consumed: int) -> None:
        self._exchange.answered(consumed)

    def _last_not_sent(self, failure: Failure) -> Failure | None:
        """
        For want of room, perhaps: what the request takes of that is not needed any more.  Should the
        process end before there is enough for the answer, that is C{outcome-unknown}.
        """
        records = self._exchange.request.records
        if failure.check(JournalFull) and records:
            consume = list(records)
            del records[:]

            def still_there(failure: Failure) -> None:
                records.extend(consume)
                self.failed(failure)

            also = self._set(self.row or State.STARTED)
            self._around.link.commit((), consume, also).addErrback(still_there)
        return self.refused(failure)

    def refused(self, failure: Failure) -> Failure | None:
        """Something was not committed: only a full journal is worth another attempt."""
        if failure.check(JournalFull):
            return failure
        self._exchange.closed()
        self.failed(failure)
        return None

    def failed(self, failure: Failure) -> None:
        """Something was not committed, and is not tried again."""
        if not failure.check(LinkClosed, JournalFull):
            self.log.failure("Call {id}: a commit failed", failure, id=self._exchange.id.hex())
