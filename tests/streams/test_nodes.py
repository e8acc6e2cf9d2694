"""Streams over real links and journals, in virtual time, and over carriers that lose, cut and repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, cast
from uuid import UUID

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hoft.interfaces import ILink, Incoming, IRecordReceiver
from hoft.protocols import log
from hoft.streams.epochs import SCHEMA
from hoft.streams.failures import StreamReset
from hoft.streams.multiplexer import Accepted, Multiplexer
from hoft.streams.stream import Stream
from hoft.testing.harness import pattern
from tests.protocols.nodes import Node, Pair
from tests.streams.ends import HalfEcho, HalfListener


@implementer(IRecordReceiver)
class Receiver:
    """Brings the records of a link to its streams."""

    def __init__(self, node: StreamNode) -> None:
        self.node = node

    def recordsReceived(self, link: ILink, records: Any) -> None:
        self.node.streams.received(cast("list[Incoming]", records))

    def recordsAcknowledged(self, link: ILink, ids: Any) -> None:
        self.node.streams.acknowledged(ids)

    def linkChanged(self, link: ILink) -> None:
        """Of no interest."""

    def peerRolledBack(self, link: ILink, resent: Any) -> None:
        self.node.streams.rolled_back()


class StreamNode(Node):
    """A node whose records are those of streams; C{serve} makes the protocols that its peer reaches."""

    schemas = (log.SCHEMA, SCHEMA)
    serve: Callable[[], IProtocol] = HalfEcho

    def __init__(self, pair: Pair, name: str) -> None:
        super().__init__(pair, name)
        self.streams: Multiplexer

    def receiver(self) -> IRecordReceiver:
        return Receiver(self)

    def opened(self) -> None:
        pair, clock = self.pair, self.pair.clock
        self.streams = Multiplexer(
            self.link, self.name, clock, clock.seconds, pair.random.randbytes, self.accept, Counter()
        )
        pair.result(self.streams.begin())

    def accept(self, peer: str, stream: Stream, asked: bytes) -> Deferred[Accepted]:
        return succeed(Accepted(self.serve()))

    def crash(self) -> None:
        super().crash()
        self.streams.close()


class StreamPair(Pair):
    """Two of them."""

    near: StreamNode
    far: StreamNode

    def __init__(self, case: SynchronousTestCase, seed: int = 1) -> None:
        super().__init__(case, seed, StreamNode)


def careless(chance: Random) -> Any:
    """A carrier that loses one file in five, cuts one in five and brings one in ten twice."""

    def deliver(sender: UUID, recipient: UUID, name: str, data: bytes) -> Iterable[tuple[float, bytes]]:
        copies = 2 if chance.random() < 0.1 else 1
        for _ in range(copies):
            if chance.random() >= 0.2:
                cut = chance.random() < 0.2
                yield chance.uniform(0.01, 0.5), data[: chance.randrange(len(data))] if cut else data

    return deliver


class NodeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = StreamPair(self)
        self.near, self.far = self.pair.near, self.pair.far
        self.pair.start()

    def open(self) -> tuple[Stream, HalfListener]:
        stream, listener = self.near.streams.open("echo", 600.0), HalfListener()
        stream.attach(listener)
        return stream, listener

    def until(self, true: Callable[[], object], seconds: float = 300.0) -> None:
        """Let time pass until it is so."""
        for _ in range(int(seconds)):
            if true():
                return
            self.pair.advance(1)
            for node in (self.near, self.far):
                if node.running:
                    node.streams.tick()
        self.assertTrue(true(), f"not within {seconds} s")

    def assertNothingLeft(self) -> None:
        self.until(lambda: not any(node.streams.open_streams for node in (self.near, self.far)))
        self.until(lambda: not any(node.rows("inbox") for node in (self.near, self.far)))

    def test_all_bytes_come_through_a_careless_carrier(self) -> None:
        self.pair.deliver = careless(Random(7))
        data = pattern(900_000)
        _, listener = self.open()
        listener.transport.write(data)
        listener.transport.loseWriteConnection()
        self.until(lambda: "read" in listener.ends)
        self.assertEqual(bytes(listener.received), data[::-1])
        self.assertNothingLeft()

    def test_a_node_that_is_killed_takes_its_streams_with_it_and_leaves_nothing_behind(self) -> None:
        self.pair.deliver = careless(Random(8))
        for node in (self.far, self.near, self.far):
            _, listener = self.open()
            listener.transport.write(pattern(400_000))
            self.until(lambda: self.far.streams.open_streams)
            node.crash()
            node.start()
            self.until(lambda: listener.lost)  # noqa: B023  # it is called before the next turn
            assert listener.lost is not None
            listener.lost.trap(StreamReset)
            self.assertNothingLeft()

    def test_when_either_journal_is_lost_streams_begin_anew(self) -> None:
        for node in (self.far, self.near):
            _, listener = self.open()
            listener.transport.write(pattern(100_000))
            self.until(lambda: self.far.streams.open_streams)
            node.crash()
            for file in node.folder.iterdir():
                if file.is_file():
                    file.unlink()
            node.start()
            self.until(lambda: listener.lost)  # noqa: B023  # it is called before the next turn
            self.until(lambda: not any(one.streams.open_streams for one in (self.near, self.far)))
            _, again = self.open()
            again.transport.write(b"again")
            again.transport.loseWriteConnection()
            self.until(lambda: "read" in again.ends)  # noqa: B023  # it is called before the next turn
            self.assertEqual(bytes(again.received), b"niaga")
            self.assertNothingLeft()
