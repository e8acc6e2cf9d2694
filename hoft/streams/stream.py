"""
One end of a stream, as a Twisted transport.

What a stream goes through, at the side that opens it and at the one that accepts it::

    opener     OPENING --ACCEPT--> OPEN --both directions over--> OVER
               OPENING --REFUSE--> OVER
    accepter   EARLY --OPEN--> OFFERED --accepted here--> OPEN --both over--> OVER
               OFFERED --refused here--> OVER
    either     any of these --RESET, of either side--> OVER

The opener need not wait: it may send DATA behind OPEN, which saves a crossing.  The
parts come in any order, so DATA may be there before OPEN (EARLY) or ACCEPT.

A direction is over when its sender has said END and all was handed on, or its receiver
has said STOP.  C{loseConnection} is STOP for the one and END, after all that was
written, for the other; C{abortConnection} is RESET.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import RecordError
from hoft.streams.failures import StreamRefused, StreamReset
from hoft.streams.feeding import Feeder
from hoft.streams.halves import Receiving, Sending, Taken
from hoft.streams.parts import Kind, Part, decode, encode_wish
from hoft.streams.surroundings import StreamAddress, Surroundings

FAILED = "the program there has failed"
"""What peers are told of exceptions that are not ours."""

TURN = 1 << 20
"""Bytes handed to a protocol before others have their turn."""

KEPT = 16
"""Records that wait for the answer to OPEN; an honest peer sends three, beside DATA."""

FETCHED = 256 << 10
"""Bytes read back from the journal at once."""


class Stage(Enum):
    """See the head of this module."""

    OPENING = "opening"
    EARLY = "early"
    OFFERED = "offered"
    OPEN = "open"
    OVER = "over"


@implementer(ITransport, IConsumer, IPushProducer)
class Stream:
    """
    An end of a stream.

    @ivar number: of the stream, among those that the same side opened.
    @ivar flow: see L{hoft.interfaces.Outgoing}.
    @ivar ours: this side opened it.
    @ivar target: what it was opened to; C{""} as long as that is not known.
    @ivar peer_epoch: of the peer's process that has it, 0 as long as that is not known.
    @ivar deadline: when to give it up if it is not accepted before; monotonic.
    @ivar moved: when anything last passed; monotonic.
    """

    _log = Logger()

    disconnecting = False
    """C{loseConnection} was called; protocols of Twisted look at this."""

    def __init__(
        self,
        around: Surroundings,
        number: int,
        target: str = "",
        ours: bool = False,
        deadline: float = float("inf"),
        asked: bytes = b"",
    ) -> None:
        """
        @param asked: see L{encode_wish}.
        @raise ValueError: target and what is asked do not fit one part.
        """
        self.number = number
        self.flow = number << 1 | ours
        self.target = target
        self.ours = ours
        self.deadline = deadline
        self.moved = around.now()
        self.peer_epoch = 0
        self.stage = Stage.OPENING if ours else Stage.EARLY
        self.accepting: Deferred[Any] | None = None
        """(OFFERED) Fires once that is decided."""
        self._kept: list[int] = []
        """Records to let go of once there is an answer: OPEN, and what came with it."""
        self._around = around
        self._waiting: Deferred[bytes] | None = None
        self._protocol: IProtocol | None = None
        self._sending = Sending()
        self._receiving = Receiving(around.hold, around.windows)
        self._control: list[tuple[Kind, int, bytes]] = []
        if ours:
            self._control.append((Kind.OPEN, 0, encode_wish(target, asked)))
        self._next: deque[Taken] = deque()
        self._fetching = False
        self._advancing = False
        self._paused = False
        self._end_told = False
        self._feeder = Feeder()
        self._ending = False
        self._unanswered = not ours

    def __repr__(self) -> str:
        side = "to" if self.ours else "from"
        return (
            f"<Stream {self.number} {side} {self._around.peer}: {self.target[:100]!r} ({self.stage.value})>"
        )

    # --- ITransport ------------------------------------------------------------------

    def getHost(self) -> StreamAddress:
        """Our end."""
        return StreamAddress(self._around.node, "" if self.ours else self.target)

    def getPeer(self) -> StreamAddress:
        """The other end."""
        return StreamAddress(self._around.peer, self.target if self.ours else "")

    def write(self, data: bytes) -> None:
        """Send; nothing is ever refused, so whoever has much registers as a producer."""
        if self.stage is Stage.OVER or not data:
            return
        self._sending.write(data)
        self._around.wake(self)
        self._feeder.wrote(self._sending.held)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """As L{write}."""
        self.write(b"".join(iovec))

    def loseWriteConnection(self) -> None:
        """Send what was written, then say that this was all; what comes is still handed on."""
        self._ending = True
        self._end_sending()

    def loseConnection(self) -> None:
        """Send what was written, then close; what comes is not wanted any more."""
        if self.stage is Stage.OVER or self.disconnecting:
            return
        self.disconnecting = True
        if not self._receiving.over:
            self._let_go(self._drop())
            self._say(Kind.STOP)
        self._ending = True
        self._end_sending()
        self._settle_later()

    def abortConnection(self) -> None:
        """Close at once; what was not sent is dropped."""
        self.reset("the program there has aborted it", ConnectionAborted())

    # --- IConsumer, IPushProducer ----------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See L{IConsumer.registerProducer}."""
        if self.stage is Stage.OVER or self._sending.over:
            producer.stopProducing()
        else:
            self._feeder.register(producer, streaming)

    def unregisterProducer(self) -> None:
        """See L{IConsumer.unregisterProducer}."""
        self._feeder.unregister()
        self._end_sending()

    def pauseProducing(self) -> None:
        """Hand nothing on; the peer is held up once its credit is used."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Hand on again."""
        if self._paused:
            self._paused = False
            self._around.later(self._advance)

    stopProducing = loseConnection

    # --- who uses it -----------------------------------------------------------------

    def when_accepted(self) -> Deferred[bytes]:
        """
        (OPENING) To be asked once.

        @return: fires when the peer has accepted it, with what it answers; fails with L{StreamRefused} or
            L{StreamReset}.  Cancelling it resets the stream.
        """
        self._waiting = Deferred(lambda _: self.reset("it was cancelled"))
        return self._waiting

    def attach(self, protocol: IProtocol) -> None:
        """Connect a protocol; at the opener's side also before the peer has accepted."""
        self._protocol = protocol
        protocol.makeConnection(self)
        self._around.later(self._advance)

    def offer(self, record: int, target: str) -> None:
        """
        (EARLY) OPEN has come.

        @raise RecordError: it came before.
        """
        if self.stage is not Stage.EARLY:
            raise RecordError("OPEN came twice")
        self.stage = Stage.OFFERED
        self.target = target
        self._let_go([record])

    def accept(self, protocol: IProtocol, answer: bytes = b"") -> None:
        """
        (OFFERED) Yes, and this is who it is for.

        @param answer: to what was asked; at most L{MAX_SAID<hoft.streams.parts.MAX_SAID>} bytes.
        """
        if self.stage is not Stage.OFFERED:
            raise ValueError(f"{self} cannot be accepted")
        self.stage = Stage.OPEN
        self._say(Kind.ACCEPT, answer)
        self._answer()
        self.attach(protocol)

    def refuse(self, problem: bytes) -> None:
        """(OFFERED) No; C{problem} is the body of REFUSE."""
        if self.stage is Stage.OFFERED:
            self._say(Kind.REFUSE, problem)
            self._finish(None)

    def reset(self, reason: str, error: Exception | None = None) -> None:
        """
        Give it up, and tell the peer.

        @param error: what the protocol is told instead of a L{StreamReset}.
        """
        if self.stage is not Stage.OVER:
            self._control.clear()
            if self.ours:
                # Whatever process has it now, or has what was sent before any had it.
                self.peer_epoch = 0
            self._say(Kind.RESET, reason.encode()[:1000])
            self._finish(error or StreamReset(reason))

    def lose(self, reason: str) -> None:
        """Over, with nobody to tell."""
        if self.stage is not Stage.OVER:
            self._control.clear()
            self._finish(StreamReset(reason))

    # --- what goes out ---------------------------------------------------------------

    def parts(self, most: int) -> list[Part]:
        """
        What is to be sent now.

        @param most: bytes of DATA; 0 for none.
        """
        parts = [self._part(*control) for control in self._control]
        self._control.clear()
        if self.stage in (Stage.OPENING, Stage.OPEN):
            for offset, data in self._sending.cut(most):
                self._around.counts["bytes_sent"] += len(data)
                parts.append(self._part(Kind.DATA, offset, data))
            if self._sending.end():
                parts.append(self._part(Kind.END, self._sending.total))
                self._settle_later()
        if parts:
            self.moved = self._around.now()
        return parts

    @property
    def ready(self) -> bool:
        """L{parts} would give something."""
        return bool(self._control) or (self.stage in (Stage.OPENING, Stage.OPEN) and self._sending.ready)

    def committed(self) -> None:
        """What L{parts} gave is in the journal."""
        if self.stage is Stage.OPEN:
            self._unanswered = False
        self._feeder.drained(self._sending.held)

    def _end_sending(self) -> None:
        """As ITransport has it: a producer is let finish first."""
        if self._ending and not self._feeder:
            self._sending.ending = True
            self._around.wake(self)

    def _say(self, kind: Kind, body: bytes = b"", offset: int = 0) -> None:
        self._control.append((kind, offset, body))
        self._around.wake(self)

    def _part(self, kind: Kind, offset: int = 0, body: bytes = b"") -> Part:
        return Part(kind, not self.ours, self._around.epoch, self.peer_epoch, self.number, offset, body)

    # --- what comes in ---------------------------------------------------------------

    def received(self, record: int, part: Part) -> None:
        """
        A part of the peer's, other than OPEN and REFUSE.

        @raise RecordError: it contradicts what came before; its record was not taken.
        """
        self.moved = self._around.now()
        if part.kind is Kind.DATA:
            if self._receiving.add(record, part.offset, part.body):
                self._advance()
            else:
                self._let_go([record])
            return
        if part.kind is Kind.ACCEPT and self.stage is not Stage.OPENING:
            raise RecordError("ACCEPT came twice")
        if part.kind is Kind.END:
            self._receiving.end(part.offset)
        self._let_go([record])
        if part.kind is Kind.ACCEPT:
            self._accepted(part.body)
        elif part.kind is Kind.END:
            self._advance()
        elif part.kind is Kind.CREDIT:
            self._sending.credit(part.offset)
            self._around.wake(self)
        elif part.kind is Kind.STOP:
            self._stopped()
        elif part.kind is Kind.RESET:
            reason = part.body.decode("utf-8", "replace")
            self.lose("".join(c if c.isprintable() else "?" for c in reason) or "the peer has reset it")

    def refused(self, error: StreamRefused) -> None:
        """(OPENING) The peer says no."""
        if self.stage is Stage.OPENING:
            self._control.clear()
            self._finish(error)

    def _accepted(self, answer: bytes) -> None:
        self.stage = Stage.OPEN
        self.deadline = float("inf")
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(answer)
        self._settle()

    def _stopped(self) -> None:
        """The peer takes nothing more."""
        self._sending.stop()
        self._feeder.stop()
        half = _half(self._protocol)
        if half is not None:
            half.writeConnectionLost()
        self._settle()

    def _advance(self) -> None:
        """Hand on what is there, unless the protocol has enough."""
        if self._advancing:
            return
        self._advancing = True
        left = TURN
        try:
            while self._protocol is not None and not self._paused and not self._fetching:
                self._next.extend(() if self._next else self._receiving.take(1))
                if not self._next or self.stage is Stage.OVER:
                    break
                if left <= 0:
                    self._around.later(self._advance)
                    break
                taken = self._next[0]
                if taken.body is None:
                    self._fetch()
                    break
                self._next.popleft()
                left -= taken.size
                self._around.counts["bytes_received"] += taken.size
                self._let_go([taken.record])
                self._grant()
                self._protocol.dataReceived(taken.body)
        except Exception as error:
            self._log.failure("The protocol of {stream!r} has failed", stream=self)
            self.reset(FAILED, error)
        finally:
            self._advancing = False
        self._settle()

    def _grant(self) -> None:
        total = self._receiving.grant()
        if total is not None:
            self._say(Kind.CREDIT, offset=total)

    def _fetch(self) -> None:
        """Read back what there was no room for when it came."""
        self._fetching = True
        self._next.extend(self._receiving.take(FETCHED))
        wanted = [taken.record for taken in self._next if taken.body is None]

        def came(payloads: list[bytes]) -> None:
            self._fetching = False
            bodies = dict(zip(wanted, payloads, strict=True))
            self._next = deque(
                Taken(one.record, one.size, decode(bodies[one.record]).body) if one.body is None else one
                for one in self._next
            )
            self._advance()

        def failed(failure: Failure) -> None:
            self._log.warn("{stream!r}: {error}", stream=self, error=failure.getErrorMessage())
            self.reset("what was received cannot be read back")

        self._around.read(wanted).addCallbacks(came, failed)

    # --- its end ---------------------------------------------------------------------

    def _settle_later(self) -> None:
        self._around.later(self._settle)

    def _settle(self) -> None:
        """Tell the protocol of ends; leave when both directions are over."""
        if self.stage is Stage.OVER or self._next or self._fetching:
            return
        if self._receiving.over and not self._end_told and not self.disconnecting:
            self._tell_end()
        # An opener that has closed need not wait for the answer.
        answered = self.stage is Stage.OPEN or (self.stage is Stage.OPENING and self.disconnecting)
        if answered and self._receiving.over and self._sending.over:
            self._finish(ConnectionDone())

    def _tell_end(self) -> None:
        if self._protocol is None or self._paused:
            return
        self._end_told = True
        half = _half(self._protocol)
        if half is not None:
            half.readConnectionLost()
            return
        # Such a protocol reads the end as the end of all; what it has written still goes out.
        self.disconnecting = self._ending = True
        self._feeder.unregister()
        self._end_sending()
        protocol, self._protocol = self._protocol, None
        protocol.connectionLost(Failure(ConnectionDone()))

    def _let_go(self, records: Iterable[int]) -> None:
        """
        These are of no use any more.  Until the answer to OPEN is in the journal they stay
        with it: if we are killed, the next process answers, and needs them all.
        """
        if self.stage in (Stage.EARLY, Stage.OFFERED) and len(self._kept) < KEPT:
            self._kept.extend(records)
        elif self._unanswered:
            self._around.answered(records)
        else:
            self._around.consume(records)

    def _answer(self) -> None:
        """There is an answer, or none is wanted."""
        kept, self._kept = self._kept, []
        self._let_go(kept)

    def _drop(self) -> list[int]:
        """Nothing more is handed on; the records of what was not."""
        records = [taken.record for taken in self._next] + self._receiving.stop()
        self._next.clear()
        return records

    def _finish(self, error: Exception | None) -> None:
        self.stage = Stage.OVER
        self._answer()
        self._let_go(self._drop())
        self._sending.stop()
        self._around.left(self)
        accepting, self.accepting = self.accepting, None
        if accepting is not None:
            accepting.cancel()
        failure = Failure(error or StreamReset("it was refused"))
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(failure)
        # In a turn of their own: whoever has called may be the protocol itself.
        self._around.later(self._tell_lost, failure)

    def _tell_lost(self, failure: Failure) -> None:
        self._feeder.stop()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(failure)


def _half(protocol: IProtocol | None) -> Any:
    """The protocol, if it can do with one direction."""
    return IHalfCloseableProtocol(protocol, None)
