"""
The messages that go to one peer: credit, cutting, and what becomes of each.

A message whose pieces do not all fit one commit goes into the journal in several; a
row there says that it is not finished, so that a process that dies in the midst of
it has it withdrawn when it starts again.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import JournalFull, LinkClosed, MessageExpired, MessageTooLarge, MessageUncertain
from hoft.interfaces import (
    MAX_MESSAGE,
    CommitResult,
    CommittedMessages,
    ILink,
    ITransaction,
    Lost,
    Outgoing,
    OutgoingMessage,
)
from hoft.messages.discarding import Discards
from hoft.messages.ledger import Flow, Ledger, Note, together
from hoft.messages.pieces import (
    MESSAGES,
    PIECE,
    WINDOW,
    Credit,
    cost,
    encode_piece,
    encode_withdrawal,
    message_of,
)
from hoft.messages.pieces import count as pieces_of
from hoft.messages.sent import Sent, SentMessage, Waiting

T = TypeVar("T")

LATER = 1.0
"""Seconds after which a message that expires while it is committed is looked at again."""

COMMIT_BYTES = 2 << 20
"""So much of messages goes into one commit of the journal: others wait for it."""


class OutgoingMessages:
    """What goes to one peer."""

    _log = Logger()

    def __init__(
        self,
        link: ILink,
        ledger: Ledger,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        discarding: Discards,
        again: Callable[[], None],
        counts: Counter[str],
    ) -> None:
        """
        @param clock: monotonic seconds.
        @param entropy: random bytes, for the ids of messages.
        @param again: asks for L{expire} and L{withdraw} to be called later.
        @param counts: for status displays.
        """
        self._link = link
        self._ledger = ledger
        self._clock = clock
        self._entropy = entropy
        self._discarding = discarding
        self._again = again
        self._counts = counts
        self._opened = False
        self._closed = False
        # Credit, see L{Flow}; and how many logs there were since this process started.
        self._spent = 0
        self._allowed = WINDOW
        self._logs = 0
        self._queue: deque[Waiting] = deque()
        self._records: dict[int, Sent] = {}
        self._expiring: list[tuple[float, int, Sent]] = []
        self._expiries = count()
        self._withdrawing: list[Sent] = []

    # --- life

    def open(self, flow: Flow) -> None:
        """Begin with what an earlier process has left."""
        if not self._opened:
            self._opened = True
            self._spent = flow.sent
            self._allowed = max(self._allowed, flow.allowed)
        self._withdrawing += [Sent(id, total, 0, None) for id, total in flow.unfinished]
        self.withdraw()
        self._let_go_on()

    def close(self) -> None:
        """Nothing is sent and nothing heard any more."""
        self._closed = True
        closed = Failure(LinkClosed(f"the link to {self._link.name} was closed"))
        pending, self._records = {*self._records.values()}, {}
        queue, self._queue = self._queue, deque()
        for sent in pending:
            sent.end(closed)
        self._expiring.clear()
        for waiting in queue:
            waiting.told.errback(closed)

    # --- sending

    def commit(
        self,
        send: Sequence[OutgoingMessage],
        consume: Callable[[], tuple[Sequence[int], Note]],
        also: Callable[[ITransaction], T] | None,
    ) -> Deferred[CommittedMessages[T]]:
        """
        See L{IMessageLink.commit<hoft.interfaces.IMessageLink.commit>}.

        @param consume: called when the commit is made, after waiting for credit: which
            records it is to consume, and what to note of them.
        """
        sizes = [len(message.payload) for message in send]
        price = sum(map(cost, sizes))
        if max(sizes, default=0) > MAX_MESSAGE:
            return fail(MessageTooLarge(f"a message of {max(sizes)} bytes; {MAX_MESSAGE} are the most"))
        if price > WINDOW:
            return fail(MessageTooLarge(f"messages of {price} bytes at once; {WINDOW} are the most"))
        messages = [
            Sent(self._entropy(16), size, message.urgency, message.payload)
            for message, size in zip(send, sizes, strict=True)
        ]
        for message, sent in zip(send, messages, strict=True):
            if message.expires is not None:
                self._watch(sent, self._clock() + message.expires)
        return Deferred.fromCoroutine(self._commit(messages, price, consume, also))

    async def _commit(
        self,
        messages: Sequence[Sent],
        price: int,
        consume: Callable[[], tuple[Sequence[int], Note]],
        also: Callable[[ITransaction], T] | None,
    ) -> CommittedMessages[T]:
        if messages:
            await self._credit(messages, price)
        logs, begun = self._logs, False
        *batches, last = _batches(messages)
        pending = self._ledger.sent(price) if messages else None
        try:
            if batches:
                names = [(sent.id, sent.total) for sent in messages]
                pending = together(pending, self._ledger.unfinished(names))
            for batch in batches:
                self._enter(batch, await self._link.commit(_records(batch), (), pending))
                begun = True
                for sent in messages:
                    if isinstance(sent.over, Failure):
                        sent.over.raiseException()
                pending = None
            if batches:
                pending = self._ledger.finished([sent.id for sent in messages])
            consumed, released = consume()
            note = together(pending, released)

            def write(transaction: ITransaction) -> T | None:
                note(transaction)
                return also(transaction) if also is not None else None

            result = await self._link.commit(_records(last), consumed, write)
        except BaseException:
            if begun:
                self._withdrawing += messages
                self.withdraw()
            elif logs == self._logs:
                self._spent -= price
                self._let_go_on()
            raise
        self._enter(last, result)
        for sent in messages:
            sent.payload = None
            if sent.over is not None:
                # The log began anew under its first pieces, and not under its last ones.
                self._withdrawing.append(sent)
        self.withdraw()
        self._counts["sent"] += len(messages)
        return CommittedMessages(result.value, [SentMessage(sent) for sent in messages])

    def _enter(self, batch: Sequence[tuple[Sent, int]], result: CommitResult[Any]) -> None:
        for (sent, _), record in zip(batch, result.sent, strict=True):
            sent.records.add(record)
            self._records[record] = sent

    # --- credit

    async def _credit(self, messages: Sequence[Sent], price: int) -> None:
        """Wait for it, first come, first served; nothing is waited for where there is enough."""
        if self._closed:
            raise LinkClosed(f"the link to {self._link.name} is closed")
        if self._queue or not self._enough(price):
            waiting = Waiting(messages, price)
            self._queue.append(waiting)
            await waiting.told
        else:
            self._spent += price

    def _enough(self, price: int) -> bool:
        return self._opened and self._spent + price <= self._allowed

    def credit(self, credit: Credit) -> int:
        """
        The peer has said how much we may send.

        @return: how much that is now.
        """
        # Whatever it says, what lies in our journal stays bounded.
        self._allowed = max(self._allowed, min(credit.allowed, self._spent + WINDOW))
        self._let_go_on()
        return self._allowed

    def _let_go_on(self) -> None:
        while self._queue and self._enough(self._queue[0].price):
            waiting = self._queue.popleft()
            self._spent += waiting.price
            waiting.told.callback(None)

    @property
    def waiting(self) -> int:
        """How many commits wait for credit."""
        return len(self._queue)

    # --- what becomes of it

    def acknowledged(self, ids: Iterable[int]) -> None:
        """The peer has these records."""
        for record in ids:
            sent = self._records.pop(record, None)
            if sent is None:
                continue
            sent.records.discard(record)
            if not sent.records and sent.payload is None and sent.over is None:
                self._counts["delivered"] += 1
                sent.end(UUID(bytes=sent.id))

    def lost(self, lost: Iterable[Lost]) -> None:
        """The journal has lost these records: the messages they are pieces of do not become whole."""
        for one in lost:
            sent = self._records.get(one.id)
            named = message_of(one.found)
            if sent is not None:
                self._counts["uncertain"] += 1
                sent.end(Failure(MessageUncertain("a part of it was damaged in the journal")))
                self._withdrawing.append(sent)
            elif named is not None:  # an earlier process has sent it
                self._withdrawing.append(Sent(*named, 0, None))
        self.withdraw()

    def rolled_back(self, resent: Collection[int]) -> None:
        """
        The log begins anew, with these records of ours alone.  Those that are still
        being committed come after.
        """
        self._opened = True
        self._spent = 0
        self._allowed = WINDOW
        self._logs += 1
        for sent in self._records.values():
            sent.paid = False
        for sent in {sent for record, sent in self._records.items() if record not in resent}:
            for record in sent.records:
                self._records.pop(record, None)
            sent.records.clear()
            self._counts["uncertain"] += 1
            sent.end(Failure(MessageUncertain(f"the log with {self._link.name} began anew")))
        self._let_go_on()

    def _watch(self, sent: Sent, until: float) -> None:
        """Withdraw it then."""
        if len(self._expiring) > 2 * len(self._records) + 1000:
            self._expiring = [one for one in self._expiring if one[2].over is None]
            heapify(self._expiring)
        heappush(self._expiring, (until, next(self._expiries), sent))
        self._again()

    def expire(self) -> None:
        """Withdraw what has waited too long; to be called now and then, as C{again} asks."""
        now = self._clock()
        while self._expiring and self._expiring[0][0] <= now:
            _, _, sent = heappop(self._expiring)
            if sent.over is not None:
                continue
            waiting = next((one for one in self._queue if sent in one.messages), None)
            if waiting is not None:
                self._queue.remove(waiting)
                self._counts["expired"] += 1
                waiting.told.errback(MessageExpired(f"{self._link.name} had no room in time"))
                self._let_go_on()
            elif sent.payload is not None:  # it is just being committed
                self._watch(sent, now + LATER)
            else:
                cancelling = self._link.cancel(list(sent.records))
                cancelling.addCallbacks(self._expired, self._not_cancelled, (sent,), errbackArgs=(sent,))
        if self._expiring:
            self._again()

    def _expired(self, cancelled: Sequence[int], sent: Sent) -> None:
        if not cancelled or sent.over is not None:
            return  # all of it is under way
        for record in cancelled:
            self._records.pop(record, None)
        if len(cancelled) < pieces_of(sent.total):
            self._withdrawing.append(sent)
            self.withdraw()
        elif sent.paid:
            self._spent -= cost(sent.total)
            self._discarding.commit((), self._ledger.sent(-cost(sent.total)))
            self._let_go_on()
        self._counts["expired"] += 1
        sent.end(Failure(MessageExpired(f"not sent to {self._link.name} in time")))

    def _not_cancelled(self, failure: Failure, sent: Sent) -> None:
        if failure.check(JournalFull):
            self._watch(sent, self._clock() + LATER)
        elif not failure.check(LinkClosed):
            self._log.failure("An expired message for {peer} is still sent", failure, peer=self._link.name)

    def withdraw(self) -> None:
        """Tell the peer of what will not become whole."""
        withdrawing, self._withdrawing = self._withdrawing, []
        for sent in withdrawing:
            for record in sent.records:
                self._records.pop(record, None)
            sent.payload = None
            outgoing = Outgoing(encode_withdrawal(sent.id, sent.total), MESSAGES, sent.urgency)
            done = self._link.commit([outgoing], (), self._ledger.finished([sent.id]))
            done.addErrback(self._not_withdrawn, sent)

    def _not_withdrawn(self, failure: Failure, sent: Sent) -> None:
        if failure.check(LinkClosed):
            return  # the row is still there: the next process does it
        if not failure.check(JournalFull):
            self._log.failure("A message for {peer} could not be withdrawn", failure, peer=self._link.name)
        self._withdrawing.append(sent)
        self._again()


def _batches(messages: Iterable[Sent]) -> list[list[tuple[Sent, int]]]:
    """All pieces of these, as commits take them; at least one, which may be empty."""
    batches: list[list[tuple[Sent, int]]] = [[]]
    size = 0
    for sent in messages:
        for number in range(pieces_of(sent.total)):
            piece = min(PIECE, sent.total - number * PIECE)
            if size + piece > COMMIT_BYTES:
                batches.append([])
                size = 0
            batches[-1].append((sent, number))
            size += piece
    return batches


def _records(batch: Iterable[tuple[Sent, int]]) -> list[Outgoing]:
    records = []
    for sent, number in batch:
        assert sent.payload is not None
        # A large one takes turns with the others, piece by piece.
        flow = MESSAGES if pieces_of(sent.total) == 1 else int.from_bytes(sent.id[:6], "big")
        payload = encode_piece(sent.id, sent.payload, number)
        records.append(Outgoing(payload, MESSAGES, sent.urgency, flow))
    return records
