"""Two connections joined: what comes in on one goes out on the other, as fast as that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol, IPushProducer)
class Splice(Protocol):
    """
    One of the two; nothing is read from it until the other is connected, too.

    An end of input is passed on as such, a reset as a reset.

    @ivar other: the other one.
    @ivar brought: bytes that came in on it.
    @ivar over: called when it is over, with the bytes that it and the other one have brought.
    """

    transport: Any
    other: Splice

    def __init__(self, over: Callable[[int, int], None] | None = None) -> None:
        self.brought = 0
        self.over = over
        self._ended = False
        """It has brought all it will."""
        self._lost = False

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes that it and the other one have brought."""
        return self.brought, self.other.brought

    def join(self, other: Splice) -> None:
        """Make these two each other's."""
        self.other, other.other = other, self

    def connectionMade(self) -> None:
        other = self.other
        if other._lost:
            self.transport.abortConnection()
        elif other.transport is None:
            self.transport.pauseProducing()
        else:
            self.transport.registerProducer(other, True)
            other.transport.registerProducer(self, True)
            other.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.brought += len(data)
        self.other.transport.write(data)

    def pauseProducing(self) -> None:
        if not self._lost:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if not self._lost and not self._ended:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The other takes nothing more.  What still comes is dropped, since its end may yet be needed."""

    def readConnectionLost(self) -> None:
        self._ended = True
        other = self.other
        if other._lost:
            return
        other.transport.unregisterProducer()
        if other._ended or ISSLTransport.providedBy(other.transport):
            # A socket of which both directions are closed is not closed by itself, and TLS
            # has no half that could be: a FIN without its close_notify looks like an attack.
            other.transport.loseConnection()
            self.transport.loseConnection()
        else:
            other.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """Nothing is to be done: see L{stopProducing}."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        other = self.other
        if self.over is not None:
            self.over(*self.sizes)
        if other._lost or other.transport is None:
            return
        other.transport.unregisterProducer()
        if reason.check(ConnectionDone):
            other.transport.loseConnection()
        else:
            other.transport.abortConnection()
