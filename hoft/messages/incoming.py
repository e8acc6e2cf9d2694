"""
The messages that come from one peer: put together, handed up, and let go of.

Payloads lie in the journal.  In memory are those that are being handed up and those
that the program has in hand, L{IN_HAND_BYTES} at most; of all others it is known
which records they are in.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import JournalFull, LinkClosed, PayloadLost, RecordError
from hoft.interfaces import (
    MAX_PIECE,
    MAX_READ,
    MAX_WHOLE,
    CommitResult,
    CommittedMessages,
    ILink,
    IMessage,
    IMessageLink,
    IMessageReceiver,
    Incoming,
    ITransaction,
    Outgoing,
)
from hoft.messages.discarding import Discards
from hoft.messages.gathering import Gathered, Gathering
from hoft.messages.ledger import Flow, Ledger, Note, together
from hoft.messages.pieces import (
    MESSAGES,
    PIECE,
    WINDOW,
    Credit,
    Piece,
    Withdrawal,
    cost,
    data_of,
    decode,
    encode_credit,
)

T = TypeVar("T")

IN_HAND_BYTES = 16 << 20
"""Payloads that a program may have at once, of one peer."""

IN_HAND = 1024
"""Messages that a program may have at once, of one peer."""

CREDIT_STEP = WINDOW // 4
"""The peer is told what it may send when that is so much more than it knows."""

CREDIT_URGENCY = 0
"""What is told of credit goes first: somebody may be waiting for it."""

FETCHED = 16
"""Records whose payload is not in memory that are read at once to find out what they are."""

READ_TOGETHER = 256
"""Messages that wait for the program, and are read at once, as far as L{MAX_WHOLE} goes."""


@implementer(IMessage)
class Message:
    """
    See L{IMessage}.

    @ivar consumed: it is, or that is under way.
    """

    def __init__(self, link: IMessageLink, records: ILink, gathered: Gathered, payload: bytes | None) -> None:
        """@param records: the link that brought its pieces."""
        self.id = UUID(bytes=gathered.id)
        self.size = gathered.total
        self.payload = payload
        self.consumed = False
        self.gathered = gathered
        self._link = link
        self._records = records

    def read(self, offset: int = 0, size: int = MAX_READ) -> Deferred[bytes]:
        """See L{IMessage.read}."""
        if not 0 <= offset <= self.size or not 0 <= size <= MAX_READ:
            return fail(ValueError(f"{size} bytes at {offset} of {self.size}; at most {MAX_READ} at once"))
        end = min(offset + size, self.size)
        if self.payload is not None and not self.consumed:
            return succeed(self.payload[offset:end])
        start = offset // PIECE * PIECE

        def cut(payloads: Sequence[bytes]) -> bytes:
            return b"".join(map(data_of, payloads))[offset - start : end - start]

        return self._records.read(self.gathered.holding(offset, end)).addCallback(cut)

    async def pieces(self, size: int = MAX_PIECE) -> AsyncIterator[bytes]:
        """See L{IMessage.pieces}."""
        for offset in range(0, self.size, size):
            yield await self.read(offset, size)

    def consume(
        self, also: Callable[[ITransaction], T] | None = None, durable: bool = False
    ) -> Deferred[CommittedMessages[T]]:
        """See L{IMessage.consume}."""
        return self._link.commit((), [self], also, durable)


class IncomingMessages:
    """What comes from one peer."""

    _log = Logger()

    def __init__(
        self,
        link: ILink,
        shown: IMessageLink,
        ledger: Ledger,
        program: IMessageReceiver | None,
        credit: Callable[[Credit], int],
        discarding: Discards,
        again: Callable[[], None],
        malformed: Callable[[RecordError], None],
        counts: Counter[str],
    ) -> None:
        """
        @param shown: the link as the program sees it.
        @param program: whom messages are for; without one they wait.
        @param credit: told what the peer lets us send; returns how much that is in all.
        @param again: asks for L{grant} to be called later.
        @param malformed: told of what is no message.
        @param counts: for status displays.
        """
        self._link = link
        self._shown = shown
        self._ledger = ledger
        self._program = program
        self._credit = credit
        self._discarding = discarding
        self._again = again
        self._malformed = malformed
        self._counts = counts
        self._closed = False
        self._unsettled = 1
        """How many answers of the tables are awaited; without them nobody knows what log a record is of."""
        self._held: list[Incoming] = []
        """What has come meanwhile."""
        self._gathering = Gathering()
        self._unread: deque[int] = deque()
        self._reading = False
        self._discards: list[int] = []
        self._ready: deque[Gathered] = deque()
        self._handing_up = False
        self._in_hand = 0
        self._in_hand_bytes = 0
        # Credit, see L{Flow}; what the peer was told of it, and how many logs there were.
        self._released = 0
        self._granted = WINDOW
        self._granting = False
        self._earlier = 0
        self._logs = 0

    # --- life

    def open(self, flow: Flow) -> None:
        """Begin with what an earlier process has left."""
        self._gathering = Gathering(flow.withdrawn)
        self._released = flow.released
        self._earlier = flow.earlier
        self._settled()
        # The process before may have died over telling the peer.
        self.grant()

    def _settled(self) -> None:
        self._unsettled -= 1
        if not self._unsettled:
            held, self._held = self._held, []
            self.received(held)
            if not self._reading:
                self._forget_broken()

    def close(self) -> None:
        """Nothing is handed up any more."""
        self._closed = True

    @property
    def waiting(self) -> int:
        """How many messages are here, whole or not, and not consumed."""
        return len(self._gathering)

    # --- what the link brings

    def received(self, records: Iterable[Incoming]) -> None:
        """Records have come."""
        if self._unsettled:
            self._held.extend(records)
            return
        for record in records:
            if record.payload is None:
                self._unread.append(record.id)
            else:
                self._take(record.id, record.payload)
        self._let_go()
        if self._unread and not self._reading:
            self._reading = True
            Deferred.fromCoroutine(self._read()).addErrback(self._broken)

    async def _read(self) -> None:
        """Read what was handed up without its payload, a few at a time."""
        most = FETCHED
        try:
            while self._unread and not self._closed:
                records = [self._unread.popleft() for _ in range(min(most, len(self._unread)))]
                try:
                    payloads = await self._link.read(records)
                except PayloadLost:
                    # It went with its log, or is damaged: look at each alone.
                    if most > 1:
                        self._unread.extendleft(reversed(records))
                    most = 1
                    continue
                if self._unsettled:
                    self._unread.extendleft(reversed(records))
                    break
                for record, payload in zip(records, payloads, strict=True):
                    self._take(record, payload)
                self._let_go()
        finally:
            self._reading = False
        if not self._unsettled:
            self._forget_broken()

    def _forget_broken(self) -> None:
        for message in self._gathering.forget_broken():
            self._discards += message.records.values()
        self._let_go()

    def _broken(self, failure: Failure) -> None:
        self._log.failure("Messages of {peer} wait for a restart", failure, peer=self._link.name)

    def _take(self, record: int, payload: bytes) -> None:
        try:
            part = decode(payload)
            if isinstance(part, Piece):
                self._piece(record, part)
            elif isinstance(part, Withdrawal):
                self._withdrawal(record, part)
            else:
                self._credited(record, part)
        except RecordError as error:
            self._counts["malformed"] += 1
            self._malformed(error)
            self._discards.append(record)

    def _piece(self, record: int, piece: Piece) -> None:
        if self._gathering.is_withdrawn(piece.message):
            self._discards.append(record)
            return
        whole = self._gathering.add(piece, record, record > self._earlier)
        if whole is None:
            return
        self._counts["received"] += 1
        at_once = len(piece.data) == piece.total and not self._ready and not self._handing_up
        if at_once and self._has_room(1, piece.total):
            self._hand_up(whole, piece.data)
        else:
            self._ready.append(whole)
            self._hand_up_ready()

    def _withdrawal(self, record: int, withdrawal: Withdrawal) -> None:
        if self._gathering.is_complete(withdrawal.message):
            self._discards.append(record)
            return
        broken = self._gathering.withdraw(withdrawal.message)
        self._counts["withdrawn"] += 1
        price = cost(withdrawal.total) if record > self._earlier else 0
        self._released += price
        pieces = broken.records.values() if broken is not None else ()
        note = together(self._ledger.withdrawn(withdrawal.message), self._ledger.released(price))
        self._discarding.commit([record, *pieces], note)
        self.grant()

    def _credited(self, record: int, credit: Credit) -> None:
        if record > self._earlier:
            self._discarding.commit([record], self._ledger.allowed(self._credit(credit)))
        else:
            self._discards.append(record)

    def _let_go(self) -> None:
        discards, self._discards = self._discards, []
        if discards:
            self._discarding.commit(discards, None)

    # --- handing up

    def _has_room(self, messages: int, size: int) -> bool:
        """Whether there is a program, and it may have so many more, with so many bytes, in hand."""
        return (
            self._program is not None
            and not self._closed
            and self._in_hand + messages <= IN_HAND
            and self._in_hand_bytes + size <= IN_HAND_BYTES
        )

    def _hand_up_ready(self) -> None:
        if self._ready and not self._handing_up:
            self._handing_up = True
            Deferred.fromCoroutine(self._read_and_hand_up()).addErrback(self._broken)

    async def _read_and_hand_up(self) -> None:
        most = READ_TOGETHER
        try:
            while batch := self._next_ready(most):
                held = [message.holding(0, _in_memory(message)) for message in batch]
                try:
                    # Of one that is handed up without its payload: whether it is still there.
                    payloads = iter(await self._link.read([one for records in held for one in records]))
                except PayloadLost:
                    # It went with its log, or is damaged: look at each alone.
                    if most > 1:
                        self._ready.extendleft(reversed(batch))
                    else:
                        self._gathering.forget(batch[0])
                        self._discarding.commit([*batch[0].records.values()], None)
                    most = 1
                    continue
                for message, records in zip(batch, held, strict=True):
                    data = b"".join(data_of(next(payloads)) for _ in records)
                    self._hand_up(message, data if _in_memory(message) == message.total else None)
        finally:
            self._handing_up = False

    def _next_ready(self, most: int) -> list[Gathered]:
        """The next messages that there is room for: small ones together, C{most} at most."""
        batch: list[Gathered] = []
        size = 0
        while self._ready and len(batch) < most:
            more = size + _in_memory(self._ready[0])
            if not self._has_room(len(batch) + 1, more) or (batch and more > MAX_WHOLE):
                break
            size = more
            batch.append(self._ready.popleft())
        return batch

    def _hand_up(self, gathered: Gathered, payload: bytes | None) -> None:
        assert self._program is not None
        self._in_hand += 1
        self._in_hand_bytes += _in_memory(gathered)
        message = Message(self._shown, self._link, gathered, payload)
        try:
            self._program.messageReceived(self._shown, message)
        except Exception:
            self._counts["failed"] += 1
            self._log.failure("The program failed over a message from {peer}", peer=self._link.name)

    # --- letting go

    def consume(self, messages: Iterable[Message]) -> tuple[list[int], Note]:
        """
        These are about to be consumed.

        @return: the records to be consumed in one commit, and what is to be noted in it.
        """
        records: list[int] = []
        price = 0
        for message in messages:
            records += message.gathered.records.values()
            price += cost(message.size) if message.gathered.counted else 0
        return records, self._ledger.released(price)

    def consumed(self, messages: Iterable[Message]) -> None:
        """That commit was made."""
        for message in messages:
            gathered = message.gathered
            self._gathering.forget(gathered)
            self._released += cost(gathered.total) if gathered.counted else 0
            self._in_hand -= 1
            self._in_hand_bytes -= _in_memory(gathered)
            self._counts["consumed"] += 1
        self.grant()
        self._hand_up_ready()

    def grant(self) -> None:
        """Tell the peer what it may send, if that is news."""
        allowed, logs = self._released + WINDOW, self._logs
        if self._granting or self._closed or allowed - self._granted < CREDIT_STEP:
            return
        self._granting = True

        def granted(_: object) -> None:
            self._granting = False
            if logs == self._logs:
                self._granted = allowed
            self.grant()  # more may have been consumed meanwhile

        def failed(failure: Failure) -> None:
            self._granting = False
            if not failure.check(LinkClosed, JournalFull):
                self._log.failure("The journal did not take a commit", failure)
            self._again()

        credit = Outgoing(encode_credit(allowed), MESSAGES, CREDIT_URGENCY)
        done: Deferred[CommitResult[None]] = self._link.commit([credit])
        done.addCallbacks(granted, failed)

    def rolled_back(self) -> None:
        """The log begins anew, and all counting with it."""
        self._logs += 1
        self._released = 0
        self._granted = WINDOW
        self._gathering.begin_anew()
        self._unsettled += 1

    def began_anew(self, earlier: int) -> None:
        """Records up to this one are of an earlier log."""
        self._earlier = earlier
        self._settled()


def _in_memory(message: Gathered) -> int:
    """How much of it is handed up at once."""
    return message.total if message.total <= MAX_WHOLE else 0
