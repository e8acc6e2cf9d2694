"""
The exact agent against real sockets.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread
from twisted.trial.unittest import TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IPolicyForHTTPS
from zope.interface import implementer

from hoft.web.client.agent import ExactAgent, ExactRequest
from hoft.web.client.connection import ExactResponse
from hoft.web.client.origins import Origin
from hoft.web.crossing.reading import LARGE_READ
from hoft.web.http.responses import ServiceError
from tests.web.services import REACTOR, Names, NamingReactor, RawService, Received, Service, Test, until, wait


class Body(Protocol):
    """Collects a response's body."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.reason: Failure | None = None
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # always given
        self.reason = reason
        if reason.check(ResponseDone):
            self.done.callback(bytes(self.data))
        else:
            self.done.errback(reason)


def body(response: ExactResponse) -> Deferred[bytes]:
    collected = Body()
    response.deliverBody(collected)
    return collected.done


@implementer(IBodyProducer)
class Pieces:
    """Produces pieces, each as the consumer takes the last."""

    def __init__(self, pieces: Sequence[bytes], length: Any = None) -> None:
        self.length: Any = sum(map(len, pieces)) if length is None else length
        self.left = list(pieces)
        self.stopped = False
        self._paused = False
        self._done: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self._consumer = consumer
        self.resumeProducing()
        return self._done

    def resumeProducing(self) -> None:
        self._paused = False
        while self.left and not self._paused:
            self._consumer.write(self.left.pop(0))
        if not self.left and not self._done.called:
            self._done.callback(None)

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self.stopped = True


class AgentCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.service = RawService()
        self.port = self.service.listen(self)
        self.names = Names()
        self.permitted: Callable[[str], bool] = lambda address: True
        self.make()

    def make(self, **options: Any) -> ExactAgent:
        """An agent that the test's end cleans up after."""
        agent = self.agent = ExactAgent(NamingReactor(self.names), **({"connectTimeout": 3.0} | options))
        self.addCleanup(until, lambda: not agent.counters()["connections_open"])
        self.addCleanup(agent.stop)
        return agent

    def request(
        self,
        method: bytes = b"GET",
        target: bytes = b"/",
        fields: Sequence[tuple[bytes, bytes]] = ((b"Host", b"service.example"),),
        body: IBodyProducer | None = None,
        host: str = "127.0.0.1",
        scheme: str = "http",
        port: int | None = None,
        **options: Any,
    ) -> Deferred[ExactResponse]:
        origin = Origin(scheme, host, port or self.port)
        return self.agent.send(
            ExactRequest(method, origin, target, fields, lambda address: self.permitted(address), **options),
            body,
        )

    @inlineCallbacks
    def fails(self, request: Deferred[Any], kind: str) -> Generator[Deferred[Any], Any, ServiceError]:
        error: ServiceError = yield self.assertFailure(request, ServiceError)
        self.assertEqual(error.problem.kind, kind, error)
        return error


class ExactnessTests(AgentCase):
    @inlineCallbacks
    def test_a_request_goes_out_byte_for_byte(self) -> Test:
        fields = [
            (b"hOST", b"other.example:81"),
            (b"X-Twice", b"1"),
            (b"cookie", b"a=b"),
            (b"x-twice", b"2"),
            (b"Cookie", b"c=d"),
            (b"X-Broken", b"caf\xc3\xa9 \xff"),
            (b"Empty", b""),
        ]
        yield (yield self.request(b"get", b"/%7e/../a;b//?q=%zz&q=%C3|{}", fields).addCallback(body))
        self.assertEqual(
            self.service.requests[0].head + b"\r\n\r\n",
            b"get /%7e/../a;b//?q=%zz&q=%C3|{} HTTP/1.1\r\n"
            b"hOST: other.example:81\r\nX-Twice: 1\r\ncookie: a=b\r\nx-twice: 2\r\nCookie: c=d\r\n"
            b"X-Broken: caf\xc3\xa9 \xff\r\nEmpty: \r\n\r\n",
        )

    @inlineCallbacks
    def test_a_response_comes_back_as_it_was(self) -> Test:
        packed = gzip.compress(b"hello" * 100)
        self.service.says(
            b"HTTP/1.1 207 Mixed \xe9\r\nSet-Cookie: a=1\r\n"
            b"Content-Encoding: gzip\r\nset-cookie: b=2; Path=/\r\n"
            b"Connection: X-Hop\r\nX-Hop: 1\r\n",
            b"Content-Length: %d\r\n\r\n" % len(packed),
            packed,
        )
        response = yield self.request()
        self.assertEqual(
            (response.code, response.phrase, response.address), (207, b"Mixed \xe9", "127.0.0.1")
        )
        self.assertEqual(
            response.head.fields[:5],
            (
                (b"Set-Cookie", b"a=1"),
                (b"Content-Encoding", b"gzip"),
                (b"set-cookie", b"b=2; Path=/"),
                (b"Connection", b"X-Hop"),
                (b"X-Hop", b"1"),
            ),
        )
        self.assertEqual((yield body(response)), packed)

    @inlineCallbacks
    def test_cookies_of_one_caller_are_not_sent_for_the_next(self) -> Test:
        self.service.says(b"HTTP/1.1 200 OK\r\nSet-Cookie: secret=1; Path=/\r\nContent-Length: 0\r\n\r\n")
        for _ in range(2):
            yield self.request(host="127.0.0.1").addCallback(body)
        self.assertEqual(len(self.service.requests), 2)
        self.assertEqual(self.service.requests[1].values(b"cookie"), [])

    @inlineCallbacks
    def test_a_redirect_is_an_answer(self) -> Test:
        self.service.says(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        response = yield self.request()
        self.assertEqual((response.code, len(self.service.requests)), (302, 1))

    @inlineCallbacks
    def test_bodies_are_counted_or_chunked(self) -> Test:
        yield self.request(b"PUT", body=Pieces([b"ab", b"\x00\xff"])).addCallback(body)
        yield self.request(b"PUT", body=Pieces([b"ab", b"", b"c" * 10], UNKNOWN_LENGTH)).addCallback(body)
        yield self.request(b"PUT", body=Pieces([b"ab"]), trailers=[(b"X-Sum", b"9")]).addCallback(body)
        yield self.request(b"POST").addCallback(body)
        counted, chunked, trailed, empty = self.service.requests
        self.assertEqual((counted.values(b"content-length"), counted.body), ([b"4"], b"ab\x00\xff"))
        self.assertEqual(chunked.values(b"transfer-encoding"), [b"chunked"])
        self.assertEqual(chunked.body, b"2\r\nab\r\na\r\ncccccccccc\r\n0")
        self.assertEqual(trailed.body, b"2\r\nab\r\n0\r\nX-Sum: 9")
        self.assertEqual(empty.values(b"content-length"), [b"0"])

    @inlineCallbacks
    def test_trailers_of_the_response_are_there_in_the_end(self) -> Test:
        self.service.says(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 9\r\n\r\n"
        )
        response = yield self.request()
        yield body(response)
        self.assertEqual(response.trailers, ((b"X-Sum", b"9"),))

    @inlineCallbacks
    def test_what_is_not_http_is_not_sent(self) -> Test:
        host = (b"Host", b"a")
        for bad in (
            self.request(b"GET /x"),
            self.request(target=b"/a b"),
            self.request(target=b"/a\r\nX: 1"),
            self.request(fields=[host, (b"X", b"1\r\nY: 2")]),
            self.request(fields=[host, (b"X:", b"1")]),
            self.request(fields=[host], trailers=[(b"X", b"1\n")]),
        ):
            error = yield from self.fails(bad, "malformed-request")
            self.assertTrue(error.unsent)
        self.assertEqual(self.service.connections, [])

    @inlineCallbacks
    def test_it_is_an_agent_for_others_too(self) -> Test:
        agent = self.make(permit=lambda address: address == "127.0.0.1")
        self.names.answers = [["127.0.0.1"]]
        self.service.says(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi")
        response = yield HTTPClient(agent).get(
            f"http://localhost:{self.port}/p?q=1", headers=Headers({"X-B": ["2"]})
        )
        self.assertEqual((yield response.content()), b"hi")
        self.assertEqual(response.headers.getRawHeaders(b"x-a"), [b"1"])
        request = self.service.requests[0]
        self.assertEqual(request.line, b"GET /p?q=1 HTTP/1.1")
        self.assertEqual(request.values(b"host"), [b"localhost:%d" % self.port])
        self.assertEqual(request.values(b"x-b"), [b"2"])


class FlowTests(AgentCase):
    @inlineCallbacks
    def test_a_body_waits_for_the_service_to_read(self) -> Test:
        self.service.script = lambda service, request: None
        pieces = Pieces([bytes(65536)] * 400)
        request = self.request(b"PUT", body=pieces)
        yield until(lambda: self.service.connections)
        self.service.connections[0].transport.pauseProducing()
        yield wait(0.1)
        self.assertGreater(len(pieces.left), 100)
        self.service.connections[0].transport.resumeProducing()
        self.service.says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        response = yield request
        self.assertEqual((response.code, pieces.left), (200, []))

    @inlineCallbacks
    def test_a_response_waits_for_its_reader(self) -> Test:
        sent: list[int] = []

        def script(service: Service, request: Received) -> None:
            service.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (400 << 16))
            flood = Flood(service)
            service.transport.registerProducer(flood, True)
            flood.resumeProducing()

        class Flood:
            def __init__(self, service: Service) -> None:
                self.service = service

            def resumeProducing(self) -> None:
                self.paused = False
                while len(sent) < 400 and not self.paused:
                    sent.append(1)
                    self.service.answer(bytes(65536))

            def pauseProducing(self) -> None:
                self.paused = True

            def stopProducing(self) -> None:
                pass

        self.service.script = script
        response = yield self.request()
        collected = Body()
        yield wait(0.1)
        self.assertLess(len(sent), 300)
        response.deliverBody(collected)
        response.pauseProducing()
        had = len(collected.data)
        yield wait(0.05)
        self.assertLessEqual(len(collected.data), had + LARGE_READ)
        response.resumeProducing()
        self.assertEqual(len((yield collected.done)), 400 << 16)

    @inlineCallbacks
    def test_an_answer_before_the_whole_request_ends_the_sending(self) -> Test:
        pieces = Pieces([bytes(65536)] * 400)

        class Early(Service):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
                self.transport.pauseProducing()

        self.service.protocol = Early
        response = yield self.request(b"PUT", body=pieces)
        self.assertEqual((response.code, (yield body(response))), (413, b"no"))
        self.assertTrue(pieces.stopped)
        yield until(lambda: not self.agent.counters()["connections_open"])

    @inlineCallbacks
    def test_a_producer_that_lies_about_its_length_spoils_only_its_request(self) -> Test:
        self.service.script = lambda service, request: None
        for length in (3, 5):
            yield self.assertFailure(self.request(b"PUT", body=Pieces([b"four"], length)), ValueError)

    @inlineCallbacks
    def test_cancelling_cuts_the_connection(self) -> Test:
        self.service.script = lambda service, request: None
        request = self.request()
        yield until(lambda: self.service.requests)
        request.cancel()
        yield self.assertFailure(request, CancelledError)
        yield until(lambda: self.service.connections[0].lost)

    @inlineCallbacks
    def test_a_reader_may_cut_the_response_off(self) -> Test:
        self.service.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        response = yield self.request()
        done = body(response)
        response.abortConnection()
        yield from self.fails(done, "response-incomplete")
        yield until(lambda: self.service.connections[0].lost)


class KeepingTests(AgentCase):
    @inlineCallbacks
    def test_a_connection_serves_one_request_after_the_other(self) -> Test:
        for _ in range(3):
            self.assertEqual((yield self.request().addCallback(body)), b"hello")
        self.assertEqual((len(self.service.requests), len(self.service.connections)), (3, 1))

    @inlineCallbacks
    def test_connections_for_requests_at_once_are_separate(self) -> Test:
        first, second = self.request(), self.request()
        yield first.addCallback(body)
        yield second.addCallback(body)
        self.assertEqual(len(self.service.connections), 2)
        self.assertEqual(self.agent.counters(), {"connections_open": 2, "connections_idle": 2})

    @inlineCallbacks
    def test_one_that_the_service_wants_closed_is(self) -> Test:
        self.service.says(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        for _ in range(2):
            yield self.request().addCallback(body)
        self.assertEqual(len(self.service.connections), 2)

    @inlineCallbacks
    def test_bytes_that_nobody_asked_for_are_no_answer_to_the_next_request(self) -> Test:
        surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        self.service.says(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood" + surplus)
        for _ in range(2):
            self.assertEqual((yield self.request().addCallback(body)), b"good")

        def later(service: Service, request: Received) -> None:
            service.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
            REACTOR.callLater(0.02, service.answer, surplus)

        self.service.script = later
        for _ in range(2):
            self.assertEqual((yield self.request().addCallback(body)), b"good")
            yield until(lambda: self.service.connections[-1].lost)
        self.assertEqual(len(self.service.connections), 4)

    @inlineCallbacks
    def test_a_kept_one_that_turns_out_dead_is_replaced_for_what_may_be_repeated(self) -> Test:
        yield self.request().addCallback(body)
        dying = self.service.connections[0]
        self.service.script = lambda service, request: (
            service.reset() if service is dying else service.answer(b"HTTP/1.1 204 Fine\r\n\r\n")
        )
        self.assertEqual((yield self.request(repeatable=True)).code, 204)
        self.assertEqual(len(self.service.requests), 3)

    @inlineCallbacks
    def test_nothing_else_is_repeated(self) -> Test:
        yield self.request().addCallback(body)
        self.service.script = lambda service, request: service.reset()
        yield from self.fails(self.request(b"POST"), "connection-terminated")
        self.assertEqual(len(self.service.requests), 2)
        # Nor is what may be repeated, on a fresh connection.
        yield from self.fails(self.request(repeatable=True), "connection-terminated")
        self.assertEqual(len(self.service.requests), 3)

    @inlineCallbacks
    def test_what_must_not_be_repeated_trusts_no_connection_that_idled(self) -> Test:
        self.make(keepUnrepeatable=0.02)
        yield self.request().addCallback(body)
        yield wait(0.05)
        yield self.request(b"POST").addCallback(body)
        self.assertEqual(len(self.service.connections), 2)
        yield self.request(b"POST").addCallback(body)
        self.assertEqual(len(self.service.connections), 2)

    @inlineCallbacks
    def test_idle_ones_are_closed_after_a_while_and_on_demand(self) -> Test:
        agent = self.make(keep=0.05)
        yield self.request().addCallback(body)
        yield until(lambda: self.service.connections[0].lost)
        agent = self.make(idlePerOrigin=1)
        requests = [self.request(), self.request()]
        for request in requests:
            yield request.addCallback(body)
        yield until(lambda: agent.counters() == {"connections_open": 1, "connections_idle": 1})
        agent.drop_idle()
        yield until(lambda: agent.counters() == {"connections_open": 0, "connections_idle": 0})

    @inlineCallbacks
    def test_a_kept_one_is_of_no_use_to_who_may_not_call_its_address(self) -> Test:
        yield self.request().addCallback(body)
        self.permitted = lambda address: False
        yield from self.fails(self.request(), "address-prohibited")
        self.assertEqual(len(self.service.requests), 1)


class ServiceFailureTests(AgentCase):
    @inlineCallbacks
    def test_nobody_listens(self) -> Test:
        listening = REACTOR.listenTCP(0, RawService(), interface="127.0.0.1")
        free = listening.getHost().port
        yield listening.stopListening()
        error = yield from self.fails(self.request(port=free), "connection-refused")
        self.assertTrue(error.unsent)
        self.assertIn(f"http://127.0.0.1:{free}", error.problem.detail)

    @inlineCallbacks
    def test_it_closes_without_an_answer(self) -> Test:
        self.service.script = lambda service, request: service.close()
        yield from self.fails(self.request(), "connection-terminated")
        self.service.script = lambda service, request: service.reset()
        yield from self.fails(self.request(), "connection-terminated")

    @inlineCallbacks
    def test_it_breaks_off_within_its_head(self) -> Test:
        self.service.says(b"HTTP/1.1 200 OK\r\nX-", close=True)
        yield from self.fails(self.request(), "response-incomplete")

    @inlineCallbacks
    def test_it_breaks_off_within_its_body(self) -> Test:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
        self.service.says(head, close=True)
        response = yield self.request()
        yield from self.fails(body(response), "response-incomplete")

        def script(service: Service, request: Received) -> None:
            service.answer(b"HTTP/1.1 200 OK\r\n\r\nhello")
            REACTOR.callLater(0.02, service.reset)

        self.service.script = script
        response = yield self.request()
        yield from self.fails(body(response), "response-incomplete")

    @inlineCallbacks
    def test_a_body_without_length_may_end_with_the_connection(self) -> Test:
        self.service.says(b"HTTP/1.0 200 OK\r\n\r\nhel", b"lo", close=True)
        response = yield self.request()
        self.assertEqual((response.version, (yield body(response))), ((b"HTTP", 1, 0), b"hello"))

    @inlineCallbacks
    def test_it_sends_rubbish(self) -> Test:
        self.service.says(b"rubbish\r\n\r\n")
        yield from self.fails(self.request(), "bad-response")
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n"
        self.service.says(chunked + b"abc\r\n")
        yield from self.fails(self.request(), "bad-response")

        def script(service: Service, request: Received) -> None:
            service.answer(chunked)
            REACTOR.callLater(0.02, service.answer, b"abc\r\n")

        self.service.script = script
        response = yield self.request()
        yield from self.fails(body(response), "bad-response")

    @inlineCallbacks
    def test_large_heads_have_a_limit(self) -> Test:
        answer = b"HTTP/1.1 200 OK\r\nX: %s\r\nContent-Length: 0\r\n\r\n"
        self.service.says(answer % (b"x" * 60_000))
        self.assertEqual((yield self.request()).code, 200)
        self.service.says(answer % (b"x" * 70_000))
        error = yield from self.fails(self.request(), "bad-response")
        self.assertEqual(error.problem.proxy_error, "http_response_header_section_size")


class NameTests(AgentCase):
    @inlineCallbacks
    def test_a_name_is_resolved_once_and_its_address_connected_to(self) -> Test:
        self.names.answers = [["127.0.0.1"], ["10.255.255.1"]]
        response = yield self.request(host="service.example")
        self.assertEqual((response.address, self.names.asked), ("127.0.0.1", 1))

    @inlineCallbacks
    def test_one_prohibited_address_among_many_is_enough(self) -> Test:
        self.names.answers = [["127.0.0.1", "169.254.169.254"]]
        self.permitted = lambda address: address != "169.254.169.254"
        error = yield from self.fails(self.request(host="service.example"), "address-prohibited")
        self.assertIn("169.254.169.254", error.problem.detail)
        self.assertEqual(self.service.connections, [])

    @inlineCallbacks
    def test_an_address_is_judged_without_asking_anybody(self) -> Test:
        self.permitted = lambda address: False
        yield from self.fails(self.request(), "address-prohibited")
        self.assertEqual(self.names.asked, 0)

    @inlineCallbacks
    def test_a_name_without_address(self) -> Test:
        self.names.answers = [[]]
        error = yield from self.fails(self.request(host="nowhere.example"), "dns-error")
        self.assertIn("nowhere.example", error.problem.detail)

    @inlineCallbacks
    def test_nobody_knows_the_name_in_time(self) -> Test:
        self.make(connectTimeout=0.05)
        self.names.silent = True
        yield from self.fails(self.request(host="slow.example"), "dns-timeout")

    @inlineCallbacks
    def test_the_next_address_is_tried_when_one_does_not_answer(self) -> Test:
        self.names.answers = [["127.0.0.3", "127.0.0.1"]]
        response = yield self.request(host="service.example")
        self.assertEqual(response.address, "127.0.0.1")

    @inlineCallbacks
    def test_cancelling_while_connecting_leaves_nothing_behind(self) -> Test:
        self.names.silent = True
        request = self.request(host="slow.example")
        request.cancel()
        yield self.assertFailure(request, CancelledError)


def certificate(name: str) -> PrivateCertificate:
    """Self-signed, for one host."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    loaded: PrivateCertificate = PrivateCertificate.loadPEM(private + made.public_bytes(Encoding.PEM))
    return loaded


@implementer(IPolicyForHTTPS, IOpenSSLClientConnectionCreator)
class WatchedPolicy:
    """Notes the hosts, and for each TLS client whether it is made on the reactor thread."""

    def __init__(self, policy: IPolicyForHTTPS) -> None:
        self.policy = policy
        self.hosts: list[str] = []
        self.threads: list[bool] = []
        self.broken: Exception | None = None

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        self.hosts.append(hostname.decode())
        self.creator = self.policy.creatorForNetloc(hostname, port)
        return self

    def clientConnectionForTLS(self, protocol: Any) -> Any:
        self.threads.append(isInIOThread())
        if self.broken is not None:
            raise self.broken
        return self.creator.clientConnectionForTLS(protocol)


class SecureTests(AgentCase):
    def setUp(self) -> None:
        super().setUp()
        self.names.answers = [["127.0.0.1"]]
        self.secure = RawService()
        mine = certificate("service.example")
        self.secure_port = self.secure.listen(self, mine.options())
        self.trusted = BrowserLikePolicyForHTTPS(Certificate(mine.original))

    def call(self, host: str = "service.example", **options: Any) -> Deferred[ExactResponse]:
        return self.request(host=host, scheme="https", port=self.secure_port, **options)

    @inlineCallbacks
    def test_a_certificate_that_is_trusted_and_has_the_name(self) -> Test:
        self.make(tls=self.trusted)
        for _ in range(2):
            self.assertEqual((yield self.call().addCallback(body)), b"hello")
        self.assertEqual((len(self.secure.requests), len(self.secure.connections)), (2, 1))

    @inlineCallbacks
    def test_authorities_are_loaded_once_for_a_host_and_not_on_the_reactor_thread(self) -> Test:
        watched = WatchedPolicy(self.trusted)
        self.make(tls=watched)
        yield gatherResults([self.call().addCallback(body) for _ in range(3)])
        self.assertEqual(watched.hosts, ["service.example"])
        # A context is made when its first connection is; that one was only for it.
        self.assertEqual(watched.threads, [False, True, True, True])

    @inlineCallbacks
    def test_without_the_authorities_nothing_is_sent_in_the_clear_and_the_next_call_tries_again(self) -> Test:
        watched = WatchedPolicy(self.trusted)
        watched.broken = SSL.Error([("", "", "no authorities")])
        self.make(tls=watched)
        calls = [self.fails(self.call(), "tls-protocol-error") for _ in range(2)]
        for call in calls:
            error = yield from call
            self.assertIn("no authorities", error.problem.detail)
        self.assertEqual(self.secure.connections, [])
        watched.broken = None
        self.assertEqual((yield self.call().addCallback(body)), b"hello")

    @inlineCallbacks
    def test_a_certificate_for_another_name(self) -> Test:
        self.make(tls=self.trusted)
        error = yield from self.fails(self.call("other.example"), "tls-certificate-error")
        self.assertTrue(error.unsent)
        self.assertEqual(self.secure.requests, [])

    @inlineCallbacks
    def test_a_certificate_that_the_system_does_not_trust(self) -> Test:
        error = yield from self.fails(self.call(), "tls-certificate-error")
        self.assertIn("certificate verify failed", error.problem.detail)
        self.assertEqual(self.secure.requests, [])

    @inlineCallbacks
    def test_no_tls_at_all(self) -> Test:
        class Plain(Service):
            def dataReceived(self, data: bytes) -> None:
                self.answer(b"HTTP/1.1 400 Bad\r\n\r\n")

        self.service.protocol = Plain
        yield from self.fails(self.request(host="service.example", scheme="https"), "tls-protocol-error")

    @inlineCallbacks
    def test_a_handshake_that_does_not_end(self) -> Test:
        self.make(connectTimeout=0.1)

        class Silent(Service):
            def dataReceived(self, data: bytes) -> None:
                pass

        self.service.protocol = Silent
        yield from self.fails(self.request(host="service.example", scheme="https"), "connection-timeout")
        yield until(lambda: self.service.connections and self.service.connections[0].lost)
