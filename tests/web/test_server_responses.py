"""
Responses of the HTTP/1.1 server, on whatever Twisted can listen on.
"""

from __future__ import annotations

import datetime
import socket
import ssl as stdlib_ssl
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto
from twisted.internet import reactor, ssl
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import SSL4ServerEndpoint, serverFromString
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from hoft.web.http.heads import Field
from hoft.web.http.requests import BadResponse
from hoft.web.ingress.calls import Call
from tests.web.listening import Test
from tests.web.serving import CLOSE, GET, ServerCase, hello


class ResponseTests(ServerCase):
    def answer_with(self, answer: Callable[[Call], None]) -> None:
        self.then = lambda call, _: answer(call)

    @inlineCallbacks
    def test_a_body_of_unknown_length_is_chunked(self) -> Test:
        def answer(call: Call) -> None:
            call.respond(200, b"OK", [(b"Set-Cookie", b"a=1"), (b"X", b"y"), (b"Set-Cookie", b"b=2")])
            call.write(b"abc")
            call.write(b"")
            call.write(b"defghijklmnop")
            call.finish([(b"X-Sum", b"9")])

        self.answer_with(answer)
        received = yield self.ask(CLOSE)
        head, _, body = received.partition(b"\r\n\r\n")
        self.assertEqual(
            head.split(b"\r\n"),
            [
                b"HTTP/1.1 200 OK",
                b"Set-Cookie: a=1",
                b"X: y",
                b"Set-Cookie: b=2",
                b"Transfer-Encoding: chunked",
                b"Connection: close",
            ],
        )
        self.assertEqual(body, b"3\r\nabc\r\nd\r\ndefghijklmnop\r\n0\r\nX-Sum: 9\r\n\r\n")

    @inlineCallbacks
    def test_callers_of_http_1_0(self) -> Test:
        def answer(call: Call) -> None:
            call.respond(200, b"OK", [])
            call.write(b"abc")
            call.finish([(b"X-Sum", b"9")])

        self.answer_with(answer)
        received = yield self.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertEqual(received, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", "no length: closed")
        self.then = hello
        received = yield self.ask(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n")
        self.assertEqual(received.count(b"Connection: keep-alive\r\n"), 1)
        self.assertTrue(received.endswith(b"GET /2 "), received)

    @inlineCallbacks
    def test_responses_without_a_body_keep_their_length(self) -> Test:
        def answer(status: int) -> Callable[[Call], None]:
            def respond(call: Call) -> None:
                call.respond(status, b"", [], 7)
                call.write(b"ignored")
                call.finish()

            return respond

        for method, status, length in ((b"HEAD", 200, True), (b"GET", 304, True), (b"GET", 204, False)):
            self.answer_with(answer(status))
            received = yield self.ask(method + b" / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            self.assertEqual(b"Content-Length: 7\r\n" in received, length)
            self.assertNotIn(b"Transfer-Encoding", received)
            self.assertTrue(received.endswith(b"\r\n\r\n"), received)

    @inlineCallbacks
    def test_a_body_of_another_length_than_announced_cuts_the_connection(self) -> Test:
        raised: list[BadResponse] = []

        def answer(text: bytes) -> Callable[[Call], None]:
            def respond(call: Call) -> None:
                call.respond(200, b"OK", [], 5)
                try:
                    call.write(text)
                    call.finish()
                except BadResponse as error:
                    raised.append(error)

            return respond

        for number, text in enumerate((b"long body", b"shrt")):
            self.answer_with(answer(text))
            with self.subTest(text=text):
                yield self.assertFailure(self.ask(GET), ConnectionResetError)
                self.assertEqual(len(raised), number + 1)

    @inlineCallbacks
    def test_fields_that_would_split_the_response_are_never_written(self) -> Test:
        refused: list[BadResponse] = []
        bad: list[tuple[bytes, list[Field]]] = [
            (b"OK", [(b"X", b"a\r\nSet-Cookie: stolen=1")]),
            (b"OK", [(b"X: y\r\nZ", b"a")]),
            (b"OK", [(b"X", b"a\nb")]),
            (b"OK", [(b"X", b"a\0b")]),
            (b"OK", [(b"X y", b"a")]),
            (b"OK", [(b"", b"a")]),
            (b"O\r\nK", []),
        ]

        def answer(call: Call) -> None:
            for reason, fields in bad:
                try:
                    call.respond(200, reason, fields, 0)
                except BadResponse as error:
                    refused.append(error)
            hello(call, b"")

        self.answer_with(answer)
        received = yield self.ask(CLOSE)
        self.assertEqual(len(refused), len(bad))
        self.assertEqual(received.count(b"HTTP/1.1"), 1)
        self.assertNotIn(b"stolen", received)

    @inlineCallbacks
    def test_a_slow_caller_holds_up_the_response(self) -> Test:
        self.then = None
        caller = self.connect()
        caller.sendall(CLOSE)
        yield self.until(lambda: self.served)
        script = self.served[0]
        call = script.call
        call.respond(200, b"OK", [])
        written = blocked = 0
        while blocked < 10:
            blocked = 0 if call.writable else blocked + 1
            if call.writable:
                call.write(bytes(1 << 16))
                written += 1 << 16
                self.assertLess(written, 64 << 20)
            yield deferLater(reactor, 0.001)
        self.assertEqual(script.events[-1], "pause")
        reading = deferToThread(lambda: sum(len(data) for data in iter(lambda: caller.recv(1 << 20), b"")))
        yield self.until(lambda: call.writable)
        self.assertEqual(script.events[-1], "resume")
        call.finish()
        received = yield reading
        self.assertGreater(received, written)

    @inlineCallbacks
    def test_draining_finishes_what_is_under_way_and_closes_the_rest(self) -> Test:
        waiting: list[Call] = []
        idle = self.connect()
        idle.sendall(GET)
        yield deferToThread(idle.recv, 1000)
        self.then = lambda call, _: waiting.append(call)
        answer = self.ask(GET)
        yield self.until(lambda: waiting)
        drained = self.factory.drain(5)
        received = yield deferToThread(idle.recv, 1000)
        self.assertEqual(received, b"")
        hello(waiting[0], b"")
        received = yield answer
        self.assertIn(b"Connection: close\r\n", received)
        yield drained
        self.assertEqual(self.factory.connections, 0)


class EndpointTests(ServerCase):
    """Whatever Twisted can listen on."""

    @inlineCallbacks
    def test_unix_sockets(self) -> Test:
        path = self.mktemp()
        port = yield serverFromString(reactor, f"unix:{path}").listen(self.factory)
        self.addCleanup(port.stopListening)

        def ask() -> bytes:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                connection.sendall(CLOSE)
                return b"".join(iter(lambda: connection.recv(1000), b""))

        received = yield deferToThread(ask)
        self.assertTrue(received.endswith(b"GET /last "), received)
        self.assertEqual(self.served[0].call.peer, "")

    @inlineCallbacks
    def test_tls(self) -> Test:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        day = datetime.timedelta(1)
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
        context = ssl.CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(key),
            certificate=crypto.X509.from_cryptography(builder.sign(key, hashes.SHA256())),
        )
        port = yield SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1").listen(self.factory)
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        body = bytes(3_000_000)

        def ask(*pieces: bytes) -> bytes:
            client = stdlib_ssl.SSLContext(stdlib_ssl.PROTOCOL_TLS_CLIENT)
            client.check_hostname = False
            client.verify_mode = stdlib_ssl.CERT_NONE
            plain = socket.create_connection(("127.0.0.1", number), timeout=5)
            with plain, client.wrap_socket(plain) as connection:
                for piece in pieces:
                    connection.sendall(piece)
                return b"".join(iter(lambda: connection.recv(65536), b""))

        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        received = yield deferToThread(ask, GET + head % len(body), body)
        self.assertEqual(received.count(b"HTTP/1.1 200 OK\r\n"), 2)
        self.assertTrue(received.endswith(b"POST / " + body))
        self.assertTrue(self.served[0].call.secure)
        received = yield deferToThread(ask, b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(received.startswith(b"HTTP/1.1 400 "), received)
