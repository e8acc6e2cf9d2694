"""
What the tests of the egress share: services with real sockets that do what the test
says, and a near side that sends what the test says.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from random import Random
from typing import Any

from attrs import define, field, frozen
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from hoft.interfaces import ILink, Incoming, IRecordReceiver, Outgoing
from hoft.web.client.agent import ExactAgent
from hoft.web.client.policy import Policy, Rule
from hoft.web.crossing.exchange import (
    NUMBERED,
    REQUESTS,
    WINDOW,
    Kind,
    Part,
    PartWriter,
    Side,
    body_digest,
    decode_abort,
    decode_end,
    decode_message,
    decode_part,
    decode_trailers,
    encode_cancel,
    encode_credit,
)
from hoft.web.crossing.reassembly import Reassembler
from hoft.web.egress import executions
from hoft.web.egress.egress import Egress
from hoft.web.egress.surroundings import Limits
from hoft.web.http.heads import Fields, RequestHead, ResponseHead, decode_response
from hoft.web.http.problems import Problem
from hoft.web.ingress import kept_rows
from tests.web.loopback import LoopbackLink, pair

REACTOR: Any = reactor
"""The global one, which to mypy is a module."""

Test = Generator[Deferred[Any], Any, None]


def wait(seconds: float) -> Deferred[None]:
    return deferLater(REACTOR, seconds, lambda: None)


@inlineCallbacks
def until(condition: Callable[[], Any], seconds: float = 8.0) -> Generator[Deferred[Any], Any, None]:
    """Let the reactor run until the condition holds."""
    left = seconds
    while not condition():
        if left <= 0:
            raise AssertionError("it did not happen in time")
        left -= 0.005
        yield wait(0.005)


# --- Services ----------------------------------------------------------------------


@frozen
class Received:
    """A request as it came over the socket."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n")[0]

    @property
    def fields(self) -> list[bytes]:
        """The field lines, as they came."""
        return self.head.split(b"\r\n")[1:]

    def values(self, name: bytes) -> list[bytes]:
        found = (line.partition(b":") for line in self.fields)
        return [value.strip() for key, _, value in found if key.lower() == name]


class Service(Protocol):
    """One connection of a L{RawService}; C{transport} writes whatever the test wants."""

    transport: Any
    factory: Any

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.needed = 0
        self.lost = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.factory.connections.append(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    def dataReceived(self, data: bytes) -> None:
        self.factory.arrived += len(data)
        self.buffer += data
        while len(self.buffer) > self.needed and (request := self._request()) is not None:
            self.needed = 0
            self.factory.requests.append(request)
            self.factory.script(self, request)

    def _request(self) -> Received | None:
        """The first request in the buffer, if it is all there."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        request = Received(bytes(self.buffer[:end]), b"")
        start = end + 4
        if request.values(b"transfer-encoding"):
            last = self.buffer.find(b"0\r\n", start)
            while last > start and self.buffer[last - 2 : last] != b"\r\n":
                last = self.buffer.find(b"0\r\n", last + 1)
            end = self.buffer.find(b"\r\n\r\n", last)
            if last < 0 or end < 0:
                return None
            body = bytes(self.buffer[start:end])
            del self.buffer[: end + 4]
            return Received(request.head, body)
        self.needed = start + int((request.values(b"content-length") or [b"0"])[0])
        if len(self.buffer) < self.needed:
            self.needed -= 1
            return None
        body = bytes(self.buffer[start : self.needed])
        del self.buffer[: self.needed]
        return Received(request.head, body)

    def answer(self, *pieces: bytes) -> None:
        """Write, and leave the connection open."""
        self.transport.writeSequence(pieces)

    def close(self) -> None:
        self.transport.loseConnection()

    def reset(self) -> None:
        self.transport.abortConnection()


class RawService(Factory):
    """
    Listens on a free port of the loopback interface.

    @ivar script: called with the connection and each request that has come as a whole.
    @ivar requests: all of them.
    @ivar arrived: bytes that came.
    """

    protocol = Service
    noisy = False

    def __init__(self) -> None:
        self.script: Callable[[Service, Received], None] = lambda service, request: service.answer(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        )
        self.requests: list[Received] = []
        self.connections: list[Service] = []
        self.arrived = 0

    def says(self, *pieces: bytes, close: bool = False) -> None:
        """Let every request be answered like this."""

        def script(service: Service, request: Received) -> None:
            service.answer(*pieces)
            if close:
                service.close()

        self.script = script

    def listen(self, test: TestCase, tls: Any = None) -> int:
        """
        @param tls: a context factory, for TLS.
        @return: the port.
        """
        if tls is None:
            listening = REACTOR.listenTCP(0, self, interface="127.0.0.1")
        else:
            listening = REACTOR.listenSSL(0, self, tls, interface="127.0.0.1")
        test.addCleanup(self._stop, listening)
        port: int = listening.getHost().port
        return port

    @inlineCallbacks
    def _stop(self, listening: Any) -> Generator[Deferred[Any], Any, None]:
        yield listening.stopListening()
        for connection in self.connections:
            if not connection.lost:
                connection.reset()
        yield until(lambda: all(connection.lost for connection in self.connections))


# --- Names ----


@implementer(IHostnameResolver)
class Names:
    """Resolves names as the test says; counts how often."""

    def __init__(self) -> None:
        self.answers: list[Sequence[str]] = []
        self.asked = 0
        self.silent = False

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, hostName: str, portNumber: int = 0, *_: Any
    ) -> Any:
        self.asked += 1
        resolutionReceiver.resolutionBegan(self)  # type: ignore[arg-type]  # cancel is all that is used
        if not self.silent:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            for address in answer:
                resolutionReceiver.addressResolved(IPv4Address("TCP", address, portNumber))
            resolutionReceiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        pass


class NamingReactor:
    """The reactor, but for its names."""

    def __init__(self, names: Names) -> None:
        self.nameResolver = names

    def __getattr__(self, name: str) -> Any:
        return getattr(REACTOR, name)


# --- The near side -------------------------------------------------------------------


@define(eq=False)
class Call:
    """
    One exchange as the near side sees it.

    @ivar done: fires when the response is complete or was aborted.
    """

    id: bytes
    near: NearSide
    head: ResponseHead | None = None
    body: bytes = b""
    size: int = 0
    trailers: Fields = ()
    problem: Problem | None = None
    credit: int = WINDOW
    commits: int = 0
    done: Deferred[Call] = field(factory=Deferred)
    reassembler: Reassembler = field(factory=lambda: Reassembler(Side.EGRESS, 1 << 30))
    _head_bytes: bytes = b""
    _digest: Any = field(factory=body_digest)

    @property
    def status(self) -> int:
        return 0 if self.head is None else self.head.status

    def values(self, name: bytes) -> list[bytes]:
        assert self.head is not None
        return [value for key, value in self.head.headers if key.lower() == name]

    def send(self, *payloads: bytes) -> None:
        self.near.send(*payloads)

    def cancel(self) -> None:
        self.send(encode_cancel(self.id))

    def grant(self, total: int) -> None:
        self.send(encode_credit(self.id, Side.INGRESS, total))

    def received(self, record: int, part: Part) -> None:
        if part.kind is Kind.ABORT:
            self.problem = decode_abort(part)
            self._finish()
        elif part.kind is Kind.CREDIT:
            self.credit = max(self.credit, int.from_bytes(part.body, "big"))
        elif part.kind in NUMBERED:
            self.reassembler.add(record, part)
            for taken in self.reassembler.take(1 << 40):
                assert taken.part is not None
                self._part(taken.part)

    def _part(self, part: Part) -> None:
        if part.kind is Kind.MESSAGE:
            encoded, body = decode_message(part)
            self.head = decode_response(encoded)
            self.size = len(body)
            self.body = body if self.near.keep else b""
            self._finish()
        elif part.kind is Kind.HEAD:
            self._head_bytes += part.body
            if not part.more:
                self.head = decode_response(self._head_bytes)
        elif part.kind is Kind.DATA:
            self._digest.update(part.body)
            self.size += len(part.body)
            if self.near.keep:
                self.body += part.body
        elif part.kind is Kind.TRAILERS:
            self.trailers = decode_trailers(part)
        elif part.kind is Kind.END:
            end = decode_end(part)
            assert (end.total, end.digest) == (self.size, self._digest.digest())
            self._finish()

    def _finish(self) -> None:
        if not self.done.called:
            self.done.callback(self)


@implementer(IRecordReceiver)
class NearSide:
    """
    Sends requests as an ingress would, and takes the responses.

    @ivar keep: bodies of responses are kept, not only counted.
    """

    def __init__(self, link: LoopbackLink, seed: int = 0) -> None:
        self.link = link
        self.keep = True
        self.calls: dict[bytes, Call] = {}
        self.stray: list[Part] = []
        self._random = Random(seed)
        link.attach(self)

    def call(
        self,
        head: RequestHead,
        body: bytes = b"",
        trailers: Fields = (),
        id: bytes | None = None,
    ) -> Call:
        """Send a whole request: as one MESSAGE, if it can be."""
        call = self.expect(id)
        writer = PartWriter(call.id, Side.INGRESS)
        self.send(*writer.head(head), *writer.data(body), *writer.end(trailers))
        return call

    def expect(self, id: bytes | None = None) -> Call:
        """A call that the test sends by itself."""
        call = Call(id or self._random.randbytes(16), self)
        self.calls[call.id] = call
        return call

    def parts(self, id: bytes, head: RequestHead, body: bytes = b"", trailers: Fields = ()) -> list[bytes]:
        """A request in parts, however small it is."""
        writer = PartWriter(id, Side.INGRESS)
        return [*writer.head(head, flush=True), *writer.data(body), *writer.end(trailers)]

    def send(self, *payloads: bytes) -> None:
        self.link.commit([Outgoing(payload, REQUESTS) for payload in payloads])

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        for record in records:
            assert record.payload is not None
            part = decode_part(record.payload)
            call = self.calls.get(part.exchange)
            if part.side is Side.EGRESS and call is not None:
                call.received(record.id, part)
            else:
                self.stray.append(part)
        link.commit((), [record.id for record in records])

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        pass

    def linkChanged(self, link: ILink) -> None:
        pass

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> None:
        pass


@implementer(ILink)
class ProcessLink:
    """
    The far node's link as one process of it has it: dead with it, while the journal lives on.

    @ivar held: commits are not made until L{release}.
    """

    def __init__(self, link: LoopbackLink) -> None:
        self._link = link
        self.alive = True
        self.held: list[Callable[[], None]] | None = None
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def commit(self, *arguments: Any, **keywords: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def commit() -> None:
            if self.alive:
                self.commits += 1
                self._link.commit(*arguments, **keywords).chainDeferred(done)

        if self.held is None:
            commit()
        else:
            self.held.append(commit)
        return done.addBoth(self._live)

    def read(self, ids: Sequence[int]) -> Deferred[list[bytes]]:
        return self._link.read(ids).addBoth(self._live) if self.alive else Deferred()

    def _live(self, result: Any) -> Any:
        return result if self.alive else Deferred()

    def hold(self) -> None:
        self.held = []

    def release(self) -> None:
        held, self.held = self.held, None
        for commit in held or ():
            commit()


@implementer(IRecordReceiver)
class Renaming:
    """Hands on what a L{LoopbackLink} says, in the name of a L{ProcessLink}."""

    def __init__(self, link: ProcessLink, receiver: IRecordReceiver) -> None:
        self._link = link
        self._receiver = receiver

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        self._receiver.recordsReceived(self._link, records)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        self._receiver.recordsAcknowledged(self._link, ids)

    def linkChanged(self, link: ILink) -> None:
        self._receiver.linkChanged(self._link)

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> None:
        self._receiver.peerRolledBack(self._link, resent)


class EgressCase(TestCase):
    """An egress between a near side and one service."""

    timeout = 60

    limits = Limits(grace=0.1)
    connect_timeout = 3.0
    seed = 0
    skew = 0.0
    """How far the monotonic clock has gone while C{callLater} stood still."""
    left = 1 << 40
    """Bytes of the journal's disk for requests."""

    def setUp(self) -> None:
        self.service = RawService()
        self.port = self.service.listen(self)
        self.near_link, self.link = pair(REACTOR, self.seed)
        self.near = NearSide(self.near_link)
        self.near_link.create(kept_rows.SCHEMA)
        self.link.create(executions.SCHEMA)
        self.names = Names()
        self.policy = Policy([Rule.parse(f"http://127.0.0.1:{self.port}/")])
        self.egress = self.begin()
        self.addCleanup(self.settle)
        self.addCleanup(self.end)

    def begin(self) -> Egress:
        """A process of the far node starts."""
        agent = ExactAgent(NamingReactor(self.names), self.connect_timeout)
        egress = Egress(
            REACTOR,
            lambda: REACTOR.seconds() + self.skew,
            self.policy,
            "far",
            self.limits,
            agent,
            left=lambda: self.left,
        )
        self.process = ProcessLink(self.link)
        egress.attach(self.process)
        self.link.attach(Renaming(self.process, egress))
        return egress

    @inlineCallbacks
    def end(self) -> Generator[Deferred[Any], Any, None]:
        self.link.detach()
        yield self.egress.stop()
        yield until(lambda: not self.egress.agent.counters()["connections_open"])

    @inlineCallbacks
    def settle(self) -> Generator[Deferred[Any], Any, None]:
        """What was committed last still goes round the loopback."""
        self.link.open = self.near_link.open = True
        while self.link.backlog() or self.near_link.backlog():
            yield wait(0)
        for _ in range(5):
            yield wait(0)

    @inlineCallbacks
    def crash(self) -> Generator[Deferred[Any], Any, None]:
        """The far node's process is killed, with all that only it knew."""
        self.link.detach()
        self.process.alive = False
        yield self.end()

    def restart(self) -> None:
        """Another process of the far node starts on the same journal."""
        self.egress = self.begin()

    def head(self, method: bytes = b"GET", target: bytes = b"/", **values: Any) -> RequestHead:
        where: dict[str, Any] = {"scheme": "http", "host": "127.0.0.1", "port": self.port}
        return RequestHead(method=method, target=target, **(where | values))

    def rows(self) -> dict[bytes, int]:
        """What the table of executions says."""
        return dict(self.link.database.execute("SELECT exchange, state FROM execution"))
