"""What is known of the messages of ours that are not delivered yet."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.interfaces import ISentMessage


@define(eq=False)
class Sent:
    """
    A message of ours.

    @ivar payload: until all of it is in the journal.
    @ivar paid: with credit of the present log.
    @ivar records: those of its records that were not acknowledged.
    @ivar waiting: who is to be told what becomes of it.
    @ivar over: what they are told.
    """

    id: bytes
    total: int
    urgency: int
    payload: bytes | None
    paid: bool = True
    records: set[int] = field(factory=set)
    waiting: list[Deferred[UUID]] = field(factory=list)
    over: UUID | Failure | None = None

    def end(self, result: UUID | Failure) -> None:
        """That has become of it."""
        self.over = result
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            deferred.callback(result)


@define(eq=False)
class Waiting:
    """A commit that waits for credit."""

    messages: Sequence[Sent]
    price: int
    told: Deferred[None] = field(factory=Deferred)


@implementer(ISentMessage)
class SentMessage:
    """See L{ISentMessage}."""

    def __init__(self, sent: Sent) -> None:
        self.id = UUID(bytes=sent.id)
        self._sent = sent

    def delivered(self) -> Deferred[UUID]:
        """See L{ISentMessage.delivered}."""
        over = self._sent.over
        if over is not None:
            return fail(over) if isinstance(over, Failure) else succeed(over)
        deferred: Deferred[UUID] = Deferred()
        self._sent.waiting.append(deferred)
        return deferred
