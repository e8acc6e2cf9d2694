"""
What the tests of the ingress share: callers with real sockets, and a far side that
does what the test says.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from hoft.config import Route
from hoft.interfaces import ILink, Incoming, IRecordReceiver, Outgoing
from hoft.web.crossing.exchange import (
    RESPONSES,
    Kind,
    PartWriter,
    Side,
    decode_credit,
    decode_end,
    decode_message,
    decode_part,
    decode_trailers,
    encode_abort,
    encode_credit,
)
from hoft.web.crossing.reassembly import Reassembler
from hoft.web.http.heads import Fields, RequestHead, ResponseHead, decode_request
from hoft.web.http.problems import Problem
from hoft.web.ingress import kept_rows
from hoft.web.ingress.caching import rows as cache_rows
from hoft.web.ingress.ingress import Ingress
from hoft.web.ingress.room import Room
from hoft.web.ingress.routing import Routing
from hoft.web.measuring import Metrics
from tests.web.listening import Listening, Test, exchange
from tests.web.loopback import LoopbackLink, pair


@define(eq=False)
class Response:
    """What a caller got."""

    status: int
    head: bytes
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> Response:
        """The one response in C{data}; a chunked body is put together."""
        head, blank, body = data.partition(b"\r\n\r\n")
        if not blank:
            raise AssertionError(f"no response: {data[:200]!r}")
        if b"\r\nTransfer-Encoding: chunked" in head:
            pieces, size = [], -1
            while size:
                line, _, body = body.partition(b"\r\n")
                size = int(line, 16)
                if size:
                    pieces.append(body[:size])
                    body = body[size + 2 :]
            body = b"".join(pieces)
        return cls(int(head.split(b" ")[1]), head, body)

    def fields(self, name: bytes) -> list[bytes]:
        """Values of the fields called C{name}, in any case."""
        lines = (line.partition(b": ") for line in self.head.split(b"\r\n")[1:])
        return [value for key, _, value in lines if key.lower() == name.lower()]


@define(eq=False)
class Received:
    """A request at the far side, and the means to answer it."""

    far: FarSide
    exchange: bytes
    head: RequestHead | None = None
    body: list[bytes] = field(factory=list)
    trailers: Fields = ()
    complete: bool = False
    cancelled: int = 0
    credit: int = 0
    reassembler: Reassembler = field(factory=lambda: Reassembler(Side.INGRESS, 1 << 30))
    pieces: list[bytes] = field(factory=list)

    def writer(self) -> PartWriter:
        return PartWriter(self.exchange, Side.EGRESS)

    def answer(
        self, status: int = 200, headers: Fields = (), body: bytes = b"", length: int | None = -1, **more: Any
    ) -> None:
        """A whole response; C{length} is that of C{body} unless told otherwise."""
        writer = self.writer()
        parts = writer.head(ResponseHead(status, b"Fine", headers, len(body) if length == -1 else length))
        self.far.send(parts + writer.data(body) + writer.end(**more))

    def abort(self, problem: Problem) -> None:
        self.far.send([encode_abort(self.exchange, problem)])

    def grant(self, total: int) -> None:
        self.far.send([encode_credit(self.exchange, Side.EGRESS, total)])


@implementer(IRecordReceiver)
class FarSide:
    """Receives requests as the egress would, and leaves the answers to C{then}."""

    def __init__(self, link: LoopbackLink) -> None:
        self.link = link
        self.requests: dict[bytes, Received] = {}
        self.then: Callable[[Received], None] | None = None
        self.cancels: list[bytes] = []
        self.batches = 0

    @property
    def one(self) -> Received:
        """The only request there was."""
        (request,) = self.requests.values()
        return request

    def send(self, payloads: Sequence[bytes]) -> None:
        self.link.commit([Outgoing(payload, RESPONSES) for payload in payloads])

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        self.batches += 1
        for record in records:
            assert record.payload is not None
            part = decode_part(record.payload)
            if part.kind is Kind.CANCEL:
                self.cancels.append(part.exchange)
                link.commit(consume=[record.id])
                continue
            request = self.requests.setdefault(part.exchange, Received(self, part.exchange))
            if part.kind is Kind.CREDIT:
                request.credit = max(request.credit, decode_credit(part))
                link.commit(consume=[record.id])
                continue
            request.reassembler.add(record.id, part)
            self.take(request)

    def take(self, request: Received) -> None:
        for taken in request.reassembler.take():
            assert taken.part is not None
            part = taken.part
            if part.kind is Kind.MESSAGE:
                encoded, body = decode_message(part)
                request.head = decode_request(encoded)
                request.body.append(body)
                request.complete = True
            elif part.kind is Kind.HEAD:
                request.pieces.append(part.body)
                if not part.more:
                    request.head = decode_request(b"".join(request.pieces))
            elif part.kind is Kind.DATA:
                request.body.append(part.body)
            elif part.kind is Kind.TRAILERS:
                request.trailers = decode_trailers(part)
            else:
                assert decode_end(part).total == sum(map(len, request.body))
                request.complete = True
            self.link.commit(consume=[taken.record])
        if request.complete and self.then is not None:
            self.then(request)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        """Of no interest here."""

    def linkChanged(self, link: ILink) -> None:
        """Of no interest here."""

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> None:
        """Of no interest here."""


class Callers(Listening):
    """Callers of an ingress."""

    def talk(self, *pieces: bytes, **options: Any) -> Deferred[bytes]:
        return deferToThread(exchange, self.number, *pieces, **options)

    def ask(self, *pieces: bytes, **options: Any) -> Deferred[Response]:
        return self.talk(*pieces, **options).addCallback(Response.parse)

    def get(
        self, target: bytes = b"/svc/demo/", *fields: bytes, method: bytes = b"GET"
    ) -> Deferred[Response]:
        lines = [method + b" " + target + b" HTTP/1.1", b"Host: gateway", b"Connection: close", *fields]
        return self.ask(b"".join(line + b"\r\n" for line in lines) + b"\r\n")

    def post(self, body: bytes, *fields: bytes, target: bytes = b"/svc/demo/") -> Deferred[Response]:
        head = [b"POST " + target + b" HTTP/1.1", b"Host: gateway", b"Connection: close", *fields]
        head.append(b"Content-Length: %d" % len(body))
        return self.ask(b"".join(line + b"\r\n" for line in head) + b"\r\n", body)

    def begin_upload(self, length: int, *fields: bytes) -> socket.socket:
        """A caller that has sent a megabyte of a body of so many bytes."""
        caller = self.connect()
        head = [b"POST /svc/demo/ HTTP/1.1", b"Host: a", b"Content-Length: %d" % length, *fields]
        caller.sendall(b"".join(line + b"\r\n" for line in head) + b"\r\n" + bytes(1_000_000))
        return caller


class IngressCase(Callers, TestCase):
    """An ingress that listens, with a link to C{far}."""

    timeout = 60

    def setUp(self) -> None:
        self.links: dict[str, ILink] = {}
        self.near, self.far_link = pair(reactor, seed=7)
        self.near.create(kept_rows.SCHEMA)
        self.near.create(cache_rows.SCHEMA)
        self.links["far"] = self.near
        self.far = FarSide(self.far_link)
        self.routing = Routing(routes=(Route("demo", "far", "http://service.example:81/base"),), deadline=5.0)
        self.status: dict[str, Any] = {"node": "near"}
        random = Random(11)
        self.ingress = Ingress(
            reactor,
            time.monotonic,
            random.randbytes,
            self.links,
            self.routing,
            "near",
            lambda: succeed(self.status),
            metrics=self.metrics(),
            room=Room(self.free),
        )
        self.near.attach(self.ingress)
        self.far_link.attach(self.far)
        self.port = self.listen(self.ingress.factory)
        self.addCleanup(self.tearAllDown)

    def metrics(self) -> Metrics | None:
        """What the ingress shows of them."""
        return None

    def free(self) -> int:
        """Bytes on the disk of the ingress."""
        return 1 << 40

    @inlineCallbacks
    def tearAllDown(self) -> Test:
        yield self.port.stopListening()
        self.ingress.factory.abortAll()
        yield self.until(lambda: self.ingress.factory.connections == 0)
        yield self.ingress.stop()
        # What was committed last still goes round the loopback.
        self.near.open = self.far_link.open = True
        for _ in range(30):
            yield deferLater(reactor, 0)
