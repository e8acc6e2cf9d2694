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

from collections.abc import Callable, Iterable
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
from hoft.streams.halves import Sending
from hoft.streams.inlet import Inlet
from hoft.streams.parts import ID, Kind, Part, encode_wish
from hoft.streams.surroundings import StreamAddress, Surroundings

FAILED = "the program there has failed"
"""What peers are told of exceptions that are not ours."""

ABORTED = "the program there has aborted it"
"""What peers are told where a program had it so."""

KEPT = 16
"""Records that wait for the answer to OPEN; an honest peer sends three, beside DATA."""


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
    @ivar id: of the call that it is, see L{ID}; C{b""} as long as that is not known.
    @ivar begun: when it was opened, or first heard of; monotonic.
    @ivar over: called once nothing passes any more: with what it ended by, C{None} where it was refused
        here, and whether it was accepted before.
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
        self.id = asked[:ID]
        self.begun = self.moved = around.now()
        self.over: Callable[[Exception | None, bool], None] | None = None
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
        self._inlet = Inlet(around, self)
        self._control: list[tuple[Kind, int, bytes]] = []
        if ours:
            self._control.append((Kind.OPEN, 0, encode_wish(target, asked)))
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
        if not self._inlet.complete:
            self.let_go(self._inlet.drop())
            self._say(Kind.STOP)
        self._ending = True
        self._end_sending()
        self._settle_later()

    def abortConnection(self) -> None:
        """Close at once; what was not sent is dropped."""
        self.reset(ABORTED, ConnectionAborted())

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes that the opener has sent and was sent, as far as they came by here."""
        ours, theirs = self._sending.total, self._inlet.taken
        return (ours, theirs) if self.ours else (theirs, ours)

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
        self._inlet.paused = True

    def resumeProducing(self) -> None:
        """Hand on again."""
        if self._inlet.paused:
            self._inlet.paused = False
            self._around.later(self._inlet.advance)

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
        self._around.later(self._inlet.advance)

    def offer(self, record: int, target: str, id: bytes) -> None:
        """
        (EARLY) OPEN has come.

        @raise RecordError: it came before.
        """
        if self.stage is not Stage.EARLY:
            raise RecordError("OPEN came twice")
        self.stage = Stage.OFFERED
        self.target, self.id = target, id
        self.let_go([record])

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
            self._inlet.add(record, part.offset, part.body)
            return
        if part.kind is Kind.ACCEPT and self.stage is not Stage.OPENING:
            raise RecordError("ACCEPT came twice")
        if part.kind is Kind.END:
            self._inlet.end(part.offset)
        self.let_go([record])
        if part.kind is Kind.ACCEPT:
            self._accepted(part.body)
        elif part.kind is Kind.END:
            self._inlet.advance()
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
        self.settle()

    def _stopped(self) -> None:
        """The peer takes nothing more."""
        self._sending.stop()
        self._feeder.stop()
        half = _half(self._protocol)
        if half is not None:
            half.writeConnectionLost()
        self.settle()

    # --- the inlet's owner -------------------------------------------------------------

    @property
    def taking(self) -> bool:
        """See L{hoft.streams.inlet.Owner}, also for the following."""
        return self._protocol is not None and self.stage is not Stage.OVER

    def hand_on(self, data: bytes) -> None:
        """The protocol's next bytes."""
        assert self._protocol is not None
        try:
            self._protocol.dataReceived(data)
        except Exception as error:
            self._log.failure("The protocol of {stream!r} has failed", stream=self)
            self.reset(FAILED, error)

    def grant(self, total: int) -> None:
        """CREDIT."""
        self._say(Kind.CREDIT, offset=total)

    # --- its end ---------------------------------------------------------------------

    def _settle_later(self) -> None:
        self._around.later(self.settle)

    def settle(self) -> None:
        """Tell the protocol of ends; leave when both directions are over."""
        if self.stage is Stage.OVER or not self._inlet.over:
            return
        if not self._end_told and not self.disconnecting:
            self._tell_end()
        # An opener that has closed need not wait for the answer.
        answered = self.stage is Stage.OPEN or (self.stage is Stage.OPENING and self.disconnecting)
        if answered and self._sending.over:
            self._finish(ConnectionDone())

    def _tell_end(self) -> None:
        if self._protocol is None or self._inlet.paused:
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

    def let_go(self, records: Iterable[int]) -> None:
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
        self.let_go(kept)

    def _finish(self, error: Exception | None) -> None:
        opened, self.stage = self.stage is Stage.OPEN, Stage.OVER
        self._answer()
        self.let_go(self._inlet.drop())
        self._sending.stop()
        self._around.left(self)
        over, self.over = self.over, None
        if over is not None:
            over(error, opened)
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
