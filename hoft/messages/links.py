"""
What programs see of a node's links: messages, see L{IMessageLink}.

The records of messages are on a channel of their own, so a link carries them beside HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import JournalFull, LinkClosed, MessageConsumed, RecordError
from hoft.interfaces import (
    CommitResult,
    CommittedMessages,
    ILink,
    ILossReceiver,
    IMessage,
    IMessageLink,
    IMessageReceiver,
    Incoming,
    ITransaction,
    LinkState,
    Lost,
    OutgoingMessage,
)
from hoft.messages.discarding import Discards
from hoft.messages.incoming import IncomingMessages, Message
from hoft.messages.ledger import Flow, Ledger
from hoft.messages.outgoing import OutgoingMessages
from hoft.messages.pieces import MESSAGES
from hoft.recurring import Recurring

T = TypeVar("T")


@implementer(IMessageLink)
class MessageLink:
    """See L{IMessageLink}."""

    _log = Logger()

    def __init__(
        self,
        link: ILink,
        program: IMessageReceiver | None,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        again: Callable[[MessageLink], None],
        malformed: Callable[[RecordError], None],
        counts: Counter[str],
    ) -> None:
        """
        @param program: whom messages are for; without one they wait.
        @param clock: monotonic seconds.
        @param entropy: random bytes.
        @param again: asks for L{tick} to be called later.
        @param malformed: told of what the peer sends and is no message.
        @param counts: for status displays.
        """
        self.peer = link.peer
        self.name = link.name
        self.link = link
        self._again = again
        self._unbegun = 0
        """How many logs began anew that the journal had no room to note."""
        self._ledger = Ledger(link.peer.bytes)
        self._discarding = Discards(link, lambda: again(self))
        self._outgoing = OutgoingMessages(
            link, self._ledger, clock, entropy, self._discarding, lambda: again(self), counts
        )
        self._incoming = IncomingMessages(
            link,
            self,
            self._ledger,
            program,
            self._outgoing.credit,
            self._discarding,
            lambda: again(self),
            malformed,
            counts,
        )

    @property
    def state(self) -> LinkState:
        """See L{IMessageLink}."""
        return self.link.state

    # --- IMessageLink

    def send(self, payload: bytes, urgency: int = 3, expires: float | None = None) -> Deferred[UUID]:
        """See L{IMessageLink.send}."""
        message = OutgoingMessage(payload, urgency, expires)
        committing: Deferred[CommittedMessages[None]] = self.commit([message])
        return committing.addCallback(lambda committed: committed.sent[0].delivered())

    def commit(
        self,
        send: Sequence[OutgoingMessage] = (),
        consume: Sequence[IMessage] = (),
        also: Callable[[ITransaction], T] | None = None,
        durable: bool = False,
    ) -> Deferred[CommittedMessages[T]]:
        """See L{IMessageLink.commit}."""
        messages = [message for message in consume if isinstance(message, Message)]
        if any(message.consumed for message in messages) or len({*messages}) < len(messages):
            return fail(MessageConsumed(f"a message from {self.name} was consumed before"))
        for message in messages:
            message.consumed = True

        def committed(result: CommittedMessages[T]) -> CommittedMessages[T]:
            self._incoming.consumed(messages)
            return result

        def failed(failure: Failure) -> Failure:
            for message in messages:
                message.consumed = False
            return failure

        done = self._outgoing.commit(send, lambda: self._incoming.consume(messages), also)
        done.addCallbacks(committed, failed)
        return done.addCallback(self._synced) if durable else done

    def _synced(self, result: CommittedMessages[T]) -> Deferred[CommittedMessages[T]]:
        # Not the commit itself: those are told in the order in which the log begins anew.
        syncing: Deferred[CommitResult[None]] = self.link.commit(durable=True)
        return syncing.addCallback(lambda _: result)

    # --- life

    def open(self) -> Deferred[None]:
        """Read what an earlier process left; what comes meanwhile waits for it."""

        def opened(result: CommitResult[Flow]) -> None:
            assert result.value is not None
            self._outgoing.open(result.value)
            self._incoming.open(result.value)

        return self.link.commit(also=self._ledger.open).addCallback(opened)

    def close(self) -> None:
        """Nothing is heard or taken any more."""
        self._outgoing.close()
        self._incoming.close()

    def tick(self) -> None:
        """Do what is due, and try again what has failed."""
        unbegun, self._unbegun = self._unbegun, 0
        for _ in range(unbegun):
            self._begin_anew()
        self._outgoing.expire()
        self._outgoing.withdraw()
        self._discarding.tick()
        self._incoming.grant()

    # --- what the link brings

    def received(self, records: Sequence[Incoming]) -> None:
        """Records have come."""
        self._incoming.received(records)

    def acknowledged(self, ids: Sequence[int]) -> None:
        """The peer has these."""
        self._outgoing.acknowledged(ids)

    def lost(self, lost: Sequence[Lost]) -> None:
        """The journal has lost these records of ours."""
        self._outgoing.lost(lost)

    def rolled_back(self, resent: Sequence[int]) -> None:
        """The log begins anew, with these records of ours alone."""
        self._begin_anew()
        self._discarding.rolled_back()
        self._outgoing.rolled_back(frozenset(resent))
        self._incoming.rolled_back()

    def _begin_anew(self) -> None:
        begun = self.link.commit(also=self._ledger.begin_anew)
        begun.addCallback(lambda result: self._incoming.began_anew(result.value or 0))
        begun.addErrback(self._not_begun)

    def _not_begun(self, failure: Failure) -> None:
        if failure.check(JournalFull):
            self._unbegun += 1
            self._again(self)
        elif not failure.check(LinkClosed):
            self._log.failure("That the log with {peer} began anew was not noted", failure, peer=self.name)

    @property
    def waiting_to_send(self) -> int:
        """How many commits wait until the peer has room."""
        return self._outgoing.waiting

    @property
    def waiting_to_be_consumed(self) -> int:
        """How many of the peer's messages are here."""
        return self._incoming.waiting


@implementer(ILossReceiver)
class MessageLinks:
    """The messages of all links of a node."""

    _log = Logger()

    def __init__(
        self,
        program: IMessageReceiver | None,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        """
        @param program: whom messages are for; without one they wait.
        @param clock: monotonic seconds.
        @param entropy: random bytes, for the ids of messages.
        """
        self._program = program
        self._clock = clock
        self._entropy = entropy
        self._links: dict[UUID, MessageLink] = {}
        self._again: set[MessageLink] = set()
        self._counts: Counter[str] = Counter()
        self._malformed = Recurring[str](self._tell)

    def _tell(self, peer: str, what: str, more: int) -> None:
        others = f"; so were {more - 1} other records since the last that was named" if more > 1 else ""
        self._log.warn("{peer} sent what is no message: {what}{others}", peer=peer, what=what, others=others)

    def attach(self, link: ILink) -> Deferred[None]:
        """
        A link was opened.

        @return: fires when it is known what an earlier process has left.
        """
        return self.of(link).open()

    def detach(self, link: ILink) -> None:
        """It was closed."""
        closed = self._links.pop(link.peer, None)
        if closed is not None:
            closed.close()

    def of(self, link: ILink) -> MessageLink:
        """What programs see of C{link}."""
        known = self._links.get(link.peer)
        if known is None or known.link is not link:
            name = link.name
            known = self._links[link.peer] = MessageLink(
                link,
                self._program,
                self._clock,
                self._entropy,
                self._later,
                lambda error: self._malformed.came(name, str(error), self._clock()),
                self._counts,
            )
        return known

    def _later(self, link: MessageLink) -> None:
        self._again.add(link)

    def stop(self) -> None:
        """Let go of all links."""
        for link in list(self._links.values()):
            self.detach(link.link)

    def tick(self) -> None:
        """To be called about twice a second; links with nothing to do cost nothing."""
        self._malformed.look(self._clock())
        again, self._again = self._again, set()
        for link in again:
            link.tick()

    def counters(self) -> dict[str, int]:
        """What was counted since the start, by a stable name each, and what waits now."""
        outward = ("sent", "delivered", "expired", "uncertain")
        inward = ("received", "consumed", "withdrawn", "failed", "malformed")
        links = self._links.values()
        return {
            **{name: self._counts[name] for name in (*outward, *inward)},
            "waiting_for_peers": sum(link.waiting_to_send for link in links),
            "waiting_for_program": sum(link.waiting_to_be_consumed for link in links),
        }

    # --- IRecordReceiver

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        """See L{IRecordReceiver}."""
        self.of(link).received(records)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        """See L{IRecordReceiver}."""
        known = self._links.get(link.peer)
        if known is not None:
            known.acknowledged(ids)

    def recordsLost(self, link: ILink, lost: Sequence[Lost]) -> None:
        """See L{ILossReceiver}."""
        self.of(link).lost([one for one in lost if one.channel == MESSAGES])

    def linkChanged(self, link: ILink) -> None:
        """See L{IRecordReceiver}."""
        if self._program is not None:
            self._program.linkChanged(self.of(link))

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> None:
        """See L{IRecordReceiver}."""
        shown = self.of(link)
        shown.rolled_back(resent)
        if self._program is not None:
            self._program.peerRolledBack(shown)
