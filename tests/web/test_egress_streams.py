"""
Large bodies through the egress: what is in memory, and who waits for whom.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.protocol import Factory, Protocol

from hoft.web.client.policy import Policy, Rule
from hoft.web.crossing import memory
from hoft.web.crossing.exchange import MAX_BODY, WINDOW
from hoft.web.crossing.memory import LEAST, MOST
from hoft.web.crossing.reading import LARGE_READ
from hoft.web.egress import gathering
from hoft.web.egress.surroundings import Limits
from tests.web.services import REACTOR, EgressCase, Received, Service, Test, until, wait

PIECE = bytes(range(256)) * 256
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Source:
    """
    Sends a large body as fast as its connection takes it.

    @ivar sent: bytes, those in buffers included.
    """

    def __init__(self, service: Service, size: int) -> None:
        self.service = service
        self.left = size
        self.sent = 0
        service.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        service.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        while self.left and not self.paused:
            piece = PIECE[: self.left]
            self.left -= len(piece)
            self.sent += len(piece)
            self.service.answer(piece)
        if not self.left:
            self.service.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.left = 0


class Sink(Protocol):
    """A service that digests what comes and keeps nothing."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.head = b""
        self.left: int | None = None
        self.received = 0
        self.lost = False
        self.digest = blake2b()

    def dataReceived(self, data: bytes) -> None:
        if self.left is None:
            self.head += data
            head, blank, data = self.head.partition(b"\r\n\r\n")
            if not blank:
                return
            [length] = Received(head, b"").values(b"content-length")
            self.left = int(length)
        self.digest.update(data)
        self.received += len(data)
        if self.received == self.left:
            digest = self.digest.hexdigest().encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(digest), digest))

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


class ResponseTests(EgressCase):
    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        self.near.keep = False
        self.sources: list[Source] = []

    def serve(self, size: int) -> None:
        self.service.script = lambda service, request: self.sources.append(Source(service, size))

    @inlineCallbacks
    def test_a_large_body_crosses_in_full_records(self) -> Test:
        size = 40 << 20
        self.serve(size)
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.size, call.head.length), (size, size))
        full = sum(len(record) == MAX_BODY + 22 for record in self.link.records)
        self.assertGreater(full, 0.9 * size / MAX_BODY)
        yield until(lambda: not self.link.unconsumed())
        self.assertEqual(self.rows(), {})

    @inlineCallbacks
    def test_a_slow_journal_holds_the_service_up(self) -> Test:
        self.serve(100 << 20)
        call = self.near.call(self.head())
        self.process.hold()
        yield until(lambda: self.sources)
        yield until(lambda: self.egress.counters()["performed"])
        yield wait(0.2)
        [peer] = self.egress._peers.values()
        [exchange] = peer._exchanges.values()
        self.assertLessEqual(exchange.sender.waiting, MOST + LARGE_READ)
        self.assertLess(self.sources[0].sent, 50 << 20)
        call.cancel()
        yield until(lambda: self.service.connections[0].lost)
        self.process.release()

    @inlineCallbacks
    def test_where_memory_is_scarce_the_service_is_held_up_earlier(self) -> Test:
        self.patch(memory, "TOTAL", LEAST)
        self.serve(20 << 20)
        call = self.near.call(self.head())
        self.process.hold()
        yield until(lambda: self.sources)
        yield wait(0.2)
        [peer] = self.egress._peers.values()
        [exchange] = peer._exchanges.values()
        self.assertLessEqual(exchange.sender.waiting, LEAST + LARGE_READ)
        self.process.release()
        yield call.done
        self.assertEqual(call.size, 20 << 20)

    @inlineCallbacks
    def test_nothing_is_sent_beyond_the_credit(self) -> Test:
        self.serve(WINDOW + (8 << 20))
        call = self.near.call(self.head())
        yield until(lambda: call.size > WINDOW - (1 << 20))
        yield wait(0.2)
        self.assertLessEqual(call.size, WINDOW)
        self.assertGreater(call.size, WINDOW - MAX_BODY)
        size = call.size
        call.grant(size)
        yield wait(0.05)
        self.assertLess(call.size - size, MAX_BODY)
        call.grant(WINDOW + (1 << 20))
        yield until(lambda: call.size > WINDOW + (1 << 20) - MAX_BODY)
        yield wait(0.05)
        self.assertLessEqual(call.size, WINDOW + (1 << 20))
        call.grant(2 * WINDOW)
        yield call.done
        self.assertEqual(call.size, WINDOW + (8 << 20))

    @inlineCallbacks
    def test_small_pieces_are_not_for_free(self) -> Test:
        """A million parts of one byte would cost the peer far more than a million bytes."""
        open_: list[Service] = []
        self.service.script = lambda service, request: open_.append(service)
        call = self.near.call(self.head())
        yield until(lambda: open_)
        open_[0].answer(CHUNKED)
        for number in range(20):
            open_[0].answer(b"1\r\nx\r\n")
            yield until(self.reached(lambda: call.size, number + 1))
        [peer] = self.egress._peers.values()
        [exchange] = peer._exchanges.values()
        self.assertEqual(exchange.sender._writer.spent, 20 * 1024)
        open_[0].answer(b"0\r\n\r\n")
        yield call.done

    @inlineCallbacks
    def test_a_peer_that_takes_nothing_holds_the_service_up_and_then_goes_on(self) -> Test:
        yield self.crash()
        self.limits = Limits(backlog=4 << 20)
        self.restart()
        size = 30 << 20
        self.serve(size)
        self.link.open = False
        call = self.near.call(self.head())
        yield until(lambda: self.link.backlog() > 4 << 20)
        yield wait(0.2)
        self.assertLess(self.link.backlog(), 6 << 20)
        self.link.heal()
        yield call.done
        self.assertEqual(call.size, size)

    @inlineCallbacks
    def test_what_is_small_waits_for_no_room(self) -> Test:
        """Where much waits for the peer, the beginning of each response goes into the log all the same."""
        yield self.crash()
        self.limits = Limits(backlog=4 << 20)
        self.restart()
        self.serve(30 << 20)
        self.link.open = False
        bulk = [self.near.call(self.head()) for _ in range(3)]
        yield until(lambda: self.link.backlog() > 4 << 20)
        self.serve(1000)
        small = self.near.call(self.head())
        yield until(lambda: self.egress.counters()["performed"] == 4)
        yield until(lambda: self.egress.counters()["running"] == 3)
        self.link.heal()
        yield small.done
        self.assertEqual(small.size, 1000)
        for call in bulk:
            yield call.done
            self.assertEqual(call.size, 30 << 20)

    @staticmethod
    def reached(what: Callable[[], int], value: int) -> Callable[[], bool]:
        return lambda: what() >= value


class RequestTests(EgressCase):
    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        factory: Any = Factory()
        factory.protocol = Sink
        self.sinks: list[Sink] = []
        factory.connections = self.sinks
        listening = REACTOR.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(lambda: until(lambda: all(sink.lost for sink in self.sinks)))
        self.addCleanup(self.end)
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port
        self.egress.reconfigure(Policy([Rule.parse(f"http://127.0.0.1:{self.port}/")]))

    @inlineCallbacks
    def test_a_large_body_goes_out_from_the_journal(self) -> Test:
        body = PIECE * (40 << 4)
        call = yield self.near.call(self.head(b"POST"), body).done
        self.assertEqual(call.body, blake2b(body).hexdigest().encode())
        yield until(lambda: not self.link.unconsumed())

    @inlineCallbacks
    def test_little_of_it_is_in_memory(self) -> Test:
        body = PIECE * (20 << 4)
        call = self.near.expect()
        *parts, end = self.near.parts(call.id, self.head(b"POST"), body)
        call.send(*parts)
        yield until(lambda: self.link.unconsumed() == len(parts))
        [peer] = self.egress._peers.values()
        [exchange] = peer._exchanges.values()
        self.assertLess(exchange.request.parts.held, 1 << 20)
        call.send(end)
        yield until(lambda: self.sinks)
        self.sinks[0].transport.pauseProducing()
        yield wait(0.2)
        self.assertLess(self.sinks[0].received, len(body))
        self.sinks[0].transport.resumeProducing()
        yield call.done
        self.assertEqual(call.body, blake2b(body).hexdigest().encode())

    @inlineCallbacks
    def test_credit_is_granted_as_it_arrives(self) -> Test:
        call = self.near.expect()
        parts = self.near.parts(call.id, self.head(b"POST"), PIECE * (33 << 4))
        call.send(*parts[:-1])
        yield until(lambda: call.credit > WINDOW + (32 << 20))
        call.cancel()
        yield until(lambda: not self.link.unconsumed())

    @inlineCallbacks
    def test_credit_that_found_no_room_in_the_journal_is_granted_once_there_is_some(self) -> Test:
        self.patch(gathering, "WINDOW", 1 << 20)
        call = self.near.expect()
        call.credit = 0
        *parts, _ = self.near.parts(call.id, self.head(b"POST"), PIECE * 10)
        self.link.full = True
        call.send(*parts)
        yield until(lambda: self.link.unconsumed() == len(parts))
        self.assertEqual(call.credit, 0)
        self.link.full = False
        self.egress.tick()
        yield until(lambda: call.credit > 1 << 20)
        call.cancel()
        yield until(lambda: not self.link.unconsumed())
