"""Ports of this machine that lead to TCP targets behind peers, as C{ssh -L} has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, ITCPTransport
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from hoft.config import TcpForward
from hoft.errors import HoftError
from hoft.listening import listen
from hoft.streams.parts import TCP
from hoft.streams.splicing import Splice
from hoft.streams.stream import Stream

Open = Callable[[str, str, float, str], Stream]
"""L{hoft.streams.node_streams.NodeStreams.open}."""


class _Caller(Splice):
    """A connection that somebody has made to such a port."""

    factory: _Port

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        super().connectionMade()
        self.factory.connect(self)


COUNTED = ("opened", "refused", "bytes_sent", "bytes_received")


class _Port(ServerFactory):
    """What is behind one port."""

    noisy = False

    def __init__(self, open: Open, forward: TcpForward, within: float) -> None:
        self.forward = forward
        self.within = within
        self._open = open
        self._counts: Counter[str] = Counter()
        self._now = 0

    def counters(self) -> dict[str, int | str]:
        """See L{TcpForwards.counters}."""
        numbers = {"open": self._now, **{name: self._counts[name] for name in COUNTED}}
        return {"peer": self.forward.peer, "to": self.forward.to, **numbers}

    def buildProtocol(self, addr: IAddress | None) -> Splice:
        caller = _Caller(self._over)
        caller.factory = self
        caller.join(Splice())
        return caller

    def connect(self, caller: _Caller) -> None:
        """What the caller sends goes out at once: whether it is wanted is known a crossing later."""
        forward = self.forward
        self._counts["opened"] += 1
        self._now += 1
        try:
            stream = self._open(forward.peer, TCP + forward.to, self.within, forward.listen)
        except HoftError:
            self._counts["refused"] += 1
            caller.transport.abortConnection()
            return
        stream.when_accepted().addErrback(self._failed)
        stream.attach(caller.other)

    def _over(self, sent: int, received: int) -> None:
        self._now -= 1
        self._counts.update(bytes_sent=sent, bytes_received=received)

    def _failed(self, failure: Failure) -> None:
        if failure.check(HoftError):
            self._counts["refused"] += 1


class TcpForwards:
    """All of one node."""

    def __init__(self, reactor: Any, open: Open) -> None:
        self._reactor = reactor
        self._open = open
        self._ports: dict[TcpForward, tuple[IListeningPort, _Port]] = {}

    async def reconfigure(self, forwards: Sequence[TcpForward], within: float, where: str) -> None:
        """
        Let these be in force; connections that were made through others go on.

        @param within: seconds in which a connection behind the peer must be made.
        @param where: the file that says so.
        @raise ConfigurationError: one cannot be listened at.
        """
        for forward in [known for known in self._ports if known not in forwards]:
            port, _ = self._ports.pop(forward)
            await maybeDeferred(port.stopListening)
        for forward in forwards:
            if forward in self._ports:
                self._ports[forward][1].within = within
            else:
                behind = _Port(self._open, forward, within)
                port = await listen(self._reactor, forward.listen, behind, where, "tcp.listen")
                self._ports[forward] = port, behind

    def addresses(self) -> list[tuple[TcpForward, IAddress]]:
        """What leads where, and where it listens."""
        return [(forward, port.getHost()) for forward, (port, _) in self._ports.items()]

    def counters(self) -> dict[str, dict[str, int | str]]:
        """Of each, by where it listens: where it leads, and what was counted since it was configured."""
        return {forward.listen: port.counters() for forward, (_, port) in self._ports.items()}

    async def stop(self) -> None:
        """Take no connection any more."""
        ports, self._ports = self._ports, {}
        await gatherResults([maybeDeferred(port.stopListening) for port, _ in ports.values()])
