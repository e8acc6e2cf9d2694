"""Two ends of streams, in virtual time, and protocols that write down what they hear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hoft.interfaces import ILink, Incoming, IRecordReceiver
from hoft.streams.epochs import SCHEMA
from hoft.streams.failures import StreamReset
from hoft.streams.multiplexer import Accepted, Multiplexer
from hoft.streams.parts import Part, decode
from hoft.streams.stream import Stream
from hoft.testing.clock import HeapClock
from hoft.web.http.problems import Refused, not_found
from tests.web.loopback import LoopbackLink, pair


class Listener(Protocol):
    """
    Writes down what it hears.

    @ivar received: all bytes.
    @ivar lost: the reason, once the connection is.
    @ivar react: called with what is received.
    """

    transport: Any

    def __init__(self, react: Callable[[Listener, bytes], None] | None = None) -> None:
        self.received = bytearray()
        self.lost: Failure | None = None
        self.react = react

    def dataReceived(self, data: bytes) -> None:
        assert self.lost is None, "data after the end"
        self.received += data
        if self.react is not None:
            self.react(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.lost is None, "lost twice"
        self.lost = reason


@implementer(IHalfCloseableProtocol)
class HalfListener(Listener):
    """Can do with one direction; C{ends} are those that it was told of."""

    def __init__(self, react: Callable[[Listener, bytes], None] | None = None) -> None:
        super().__init__(react)
        self.ends: list[str] = []

    def readConnectionLost(self) -> None:
        self.ends.append("read")

    def writeConnectionLost(self) -> None:
        self.ends.append("write")


class HalfEcho(HalfListener):
    """Gives back what it got in one piece, and only once that has ended."""

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.transport.write(bytes(self.received)[::-1])
        self.transport.loseConnection()


@implementer(IRecordReceiver)
class Process:
    """
    One node's process, as far as streams go.

    @ivar services: by target, what makes the protocol for a stream that the peer opens.
    """

    def __init__(self, clock: HeapClock, link: LoopbackLink, name: str, seed: int) -> None:
        self.link = link
        self.services: dict[str, Callable[[], IProtocol | Deferred[IProtocol]]] = {}
        self.counts: Counter[str] = Counter()
        self.streams = Multiplexer(
            link, name, clock, clock.seconds, Random(seed).randbytes, self.accept, self.counts
        )
        link.attach(self)
        self.streams.begin()

    def accept(self, peer: str, stream: Stream, asked: bytes) -> Deferred[Accepted]:
        target = stream.target
        if target not in self.services:
            raise Refused(not_found(f"no {target} for {peer}"))
        made = self.services[target]()
        deferred = made if isinstance(made, Deferred) else succeed(made)
        return deferred.addCallback(Accepted, asked[::-1])

    def recordsReceived(self, link: ILink, records: Any) -> None:
        self.streams.received(cast("list[Incoming]", records))

    def recordsAcknowledged(self, link: ILink, ids: Any) -> None:
        self.streams.acknowledged(ids)

    def linkChanged(self, link: ILink) -> None:
        """Of no interest."""

    def peerRolledBack(self, link: ILink, resent: Any) -> None:
        self.streams.rolled_back()


class Ends(SynchronousTestCase):
    """
    C{near} and C{far}, and what crosses between them.

    @cvar seed: of the order in which records come.
    """

    seed = 1

    def setUp(self) -> None:
        self.clock = HeapClock()
        self.near_link, self.far_link = pair(self.clock, self.seed)
        for link in (self.near_link, self.far_link):
            link.database.execute(SCHEMA.migrations[0][0])
            # As much of the link's own table as is looked at.
            link.database.create_function("last_inbox", 0, lambda link=link: link._ids)
            link.database.execute(
                f"CREATE VIEW link AS SELECT x'{link.peer.hex}' AS peer, last_inbox() AS last_inbox"
            )
        self.starts = 0
        self.near = self.start(self.near_link, "near")
        self.far = self.start(self.far_link, "far")
        self.pump()

    def tearDown(self) -> None:
        for link in (self.near_link, self.far_link):
            link.database.close()  # it keeps the link alive by the function

    def start(self, link: LoopbackLink, name: str) -> Process:
        """A process begins, with what an earlier one has left in its journal."""
        self.starts += 1
        return Process(self.clock, link, name, self.starts)

    def pump(self) -> None:
        """Until nothing happens any more without time passing."""
        while self.clock.step(self.clock.seconds()):
            pass

    def connect(self, protocol: IProtocol, service: Callable[[], IProtocol], target: str = "it") -> Stream:
        """Near's C{protocol} and one of far's C{service}, connected."""
        self.far.services[target] = service
        stream = self.near.streams.open(target, 60.0)
        accepted = stream.when_accepted().addCallback(lambda _: stream.attach(protocol))
        accepted.addErrback(lambda failure: failure.trap(StreamReset))
        self.pump()
        return stream

    def talk(self, near: Listener | None = None, far: Listener | None = None) -> tuple[Any, Any]:
        """Two protocols that are connected, half-closeable unless given."""
        here, there = near or HalfListener(), far or HalfListener()
        self.connect(here, lambda: there)
        self.assertIsNotNone(there.transport, "not accepted")
        return here, there

    def assertNothingLeft(self) -> None:
        """No stream is open, no record lies in a journal, no room is taken."""
        for process in (self.near, self.far):
            streams = process.streams
            self.assertEqual(streams.open_streams, 0)
            self.assertEqual(process.link.unconsumed(), 0)
            self.assertEqual((streams.hold.used, streams.windows.used), (0, 0))

    def sent(self, link: LoopbackLink) -> list[Part]:
        """What was committed on this link so far."""
        return [decode(payload) for payload in link.records]
