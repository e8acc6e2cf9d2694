"""Ports of this machine that lead to TCP targets behind peers, as C{ssh -L} has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from hoft.config import TcpForward
from hoft.errors import HoftError
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

    def __init__(self, open: Open) -> None:
        self._open = open
        self._ports: Mapping[str, _Port] = {}

    def factories(self, forwards: Sequence[TcpForward], within: float) -> Mapping[str, _Port]:
        """
        What to listen with, by where: to be given to L{reconfigure} once that is done.

        @param within: seconds in which a connection behind the peer must be made.
        """
        return {
            forward.listen: self._ports.get(forward.listen) or _Port(self._open, forward, within)
            for forward in forwards
        }

    def reconfigure(self, forwards: Sequence[TcpForward], within: float, ports: Mapping[str, _Port]) -> None:
        """
        Let these be in force; connections that were made before go on as they began.

        @param within: see L{factories}, which has made C{ports} for the same forwards.
        """
        self._ports = ports
        for forward in forwards:
            ports[forward.listen].forward = forward
            ports[forward.listen].within = within

    def counters(self) -> dict[str, dict[str, int | str]]:
        """Of each, by where it listens: where it leads, and what was counted since it has listened."""
        return {listen: port.counters() for listen, port in self._ports.items()}
