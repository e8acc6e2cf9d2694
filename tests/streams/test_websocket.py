"""WebSocket: a caller's connection becomes one to a service that a route leads to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate
from twisted.web.client import BrowserLikePolicyForHTTPS

from hoft.config import Allow, Allowance, Caller, Credential, Route
from hoft.testing.harness import pattern
from hoft.tokens import hash_token
from hoft.web.client.agent import ExactAgent
from tests.streams.ends import HalfListener, Listener
from tests.streams.nodes import CallerNodes, Results, Steps
from tests.web.services import REACTOR
from tests.web.test_agent import certificate

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455 section 1.3."""

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n"

Script = Callable[["Service"], None]


class Service(HalfListener):
    """
    What a service has of one connection.

    @ivar head: of the request, once it has come.
    @ivar received: what came behind it.
    """

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.head = b""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if not self.head and b"\r\n\r\n" in self.received:
            head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
            self.head, self.received = head, bytearray(rest)
            self.script(self)

    def values(self, name: bytes) -> list[bytes]:
        """Of a request's field."""
        lines = [line.partition(b":") for line in self.head.split(b"\r\n")[1:]]
        return [value.strip() for key, _, value in lines if key.lower() == name]


def switch(service: Service) -> None:
    service.transport.write(SWITCH)


class WebSocketTests(CallerNodes):
    @inlineCallbacks
    def setUp(self) -> Steps:  # type: ignore[override]  # trial waits for Deferreds
        yield super().setUp()
        self.script: Script = switch
        self.services: list[Service] = []
        address: Any = yield self.listen(self.make, "tcp:0:interface=127.0.0.1")
        self.url = f"http://127.0.0.1:{address.port}/app"
        self.where = f"127.0.0.1:{address.port}".encode()
        yield self.configure(self.far, allowed=(Allow(self.url, websocket=True),))
        yield self.configure(self.near, routes=(Route("chat", "far", self.url, websocket=True),))

    def make(self) -> Service:
        self.services.append(Service(lambda service: self.script(service)))
        return self.services[-1]

    def ask(self, caller: Listener, *fields: bytes, target: bytes = b"/svc/chat/talk?to=all") -> None:
        lines = (
            b"GET %b HTTP/1.1" % target, b"Host: near", b"Connection: keep-alive, Upgrade, X-Mine",
            b"Upgrade: WebSocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + KEY,
            *fields, b"", b"",
        )  # fmt: skip
        caller.transport.write(b"\r\n".join(lines))

    @inlineCallbacks
    def switched(self) -> Results:
        """A caller and its service, once they talk: the head of the answer is taken out."""
        caller = yield self.call()
        self.ask(caller)
        yield self.heard(caller, b"\r\n\r\n")
        self.assertTrue(bytes(caller.received).startswith(SWITCHED), caller.received)
        del caller.received[: caller.received.index(b"\r\n\r\n") + 4]
        return caller, self.services[-1]

    @inlineCallbacks
    def test_the_handshake_passes_as_calls_do_and_then_every_byte(self) -> Steps:
        self.script = lambda service: service.transport.write(SWITCH + b"\x81\x02hi")
        caller = yield self.call()
        self.ask(caller, b"Origin: http://page.example", b"Sec-WebSocket-Protocol: chat", b"X-Mine: 1")
        yield self.heard(caller, b"\x81\x02hi")
        (service,) = self.services
        self.assertEqual(service.head.split(b"\r\n")[0], b"GET /app/talk?to=all HTTP/1.1")
        for name, value in (
            (b"host", self.where), (b"connection", b"Upgrade"), (b"upgrade", b"websocket"),
            (b"sec-websocket-key", KEY), (b"sec-websocket-version", b"13"),
            (b"sec-websocket-protocol", b"chat"), (b"origin", b"http://page.example"),
        ):  # fmt: skip
            self.assertEqual(service.values(name), [value], name)
        self.assertEqual((service.values(b"x-mine"), service.values(b"keep-alive")), ([], []))
        self.assertEqual(service.values(b"via"), [b"1.1 near", b"hoft/1 far"])
        self.assertEqual(len(service.values(b"forwarded")), 1)
        head, _, rest = bytes(caller.received).partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        for line in (
            b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + ACCEPT,
            b"Sec-WebSocket-Protocol: chat", b"Via: 1.1 far", b"Via: hoft/1 near",
        ):  # fmt: skip
            self.assertEqual(lines.count(line), 1, (line, lines))
        self.assertEqual(rest, b"\x81\x02hi")
        id = next(line for line in lines if line.startswith(b"Hoft-Request-Id: "))[-32:].decode()
        for one, route in zip((yield self.told("under_way", id=id)), ("chat", None), strict=True):
            self.assertEqual((one["stage"], one["route"], one["response_bytes"]), ("responding", route, 4))
            self.assertEqual((one["method"], one["status"]), ("GET", 101))
        caller.received.clear()
        up, down = pattern(1_500_000, 1), pattern(1_200_000, 2)
        caller.transport.write(up)
        service.transport.write(down)
        yield self.until(lambda: bytes(service.received) == up, "sent")
        yield self.until(lambda: bytes(caller.received) == down, "received")
        caller.transport.loseWriteConnection()
        yield self.until(lambda: "read" in service.ends, "the end of one direction")
        service.transport.write(b"last words")
        yield self.heard(caller, b"last words")
        service.transport.loseConnection()
        yield self.until(lambda: "read" in caller.ends, "the end of the other")
        caller.transport.loseConnection()
        yield self.until(lambda: caller.lost and service.lost, "closed")
        yield self.over()
        for node in (self.near, self.far):
            ((one,), known) = ((yield node._listing.answer({"id": id}))["ended"], (101, "answered"))
            self.assertEqual((one["status"], one["outcome"]), known)
            self.assertEqual((one["request_bytes"], one["response_bytes"]), (len(up), len(down) + 14))

    @inlineCallbacks
    def refused(self, status: int, *words: str, asking: Callable[[Listener], None]) -> Steps:
        """Nothing comes of this but a problem, and no service hears of it."""
        caller = yield self.call()
        asking(caller)
        yield self.heard(caller, b"}\n")
        head, problem = self.problem(caller)
        self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), head)
        self.assertEqual(b"\r\nConnection: close" in head, status != 401)
        for word in words:
            self.assertIn(word, problem["detail"])
        self.assertEqual(self.services, [])
        caller.transport.loseConnection()

    @inlineCallbacks
    def test_both_sides_must_have_said_that_they_want_it(self) -> Steps:
        place = b"/to/http/" + self.where + b"/app/talk"
        yield self.refused(403, "route", asking=lambda caller: self.ask(caller, target=place))
        absolute = b"http://" + self.where + b"/app/talk"
        yield self.refused(403, "route", asking=lambda caller: self.ask(caller, target=absolute))
        yield self.configure(self.far, allowed=(Allow(self.url), Allow(self.url + "/other", websocket=True)))
        yield self.refused(403, "hoft allow", "by WebSocket", asking=self.ask)
        yield self.configure(self.far, allowed=(Allow(self.url, websocket=True),))
        yield self.configure(self.near, routes=(Route("chat", "far", self.url),))
        yield self.refused(403, "hoft route --websocket", asking=self.ask)

    @inlineCallbacks
    def test_what_is_no_handshake_is_refused_and_what_asks_for_another_protocol_is_a_call(self) -> Steps:
        def ask(key: bytes, *more: bytes) -> Callable[[Listener], None]:
            lines = (b"GET /svc/chat/ HTTP/1.1", b"Host: near", b"Connection: upgrade", *more, key, b"", b"")
            return lambda caller: caller.transport.write(b"\r\n".join(lines))

        for key in (
            b"X: y",
            b"Sec-WebSocket-Key: c2hvcnQ=",
            b"\r\n".join([b"Sec-WebSocket-Key: " + KEY] * 2),
        ):
            yield self.refused(400, "Sec-WebSocket-Key", asking=ask(key, b"Upgrade: websocket"))
        self.script = lambda service: service.transport.write(b"HTTP/1.1 204 Nothing\r\n\r\n")
        caller = yield self.call()
        ask(b"X: y", b"Upgrade: h2c")(caller)
        yield self.heard(caller, b"HTTP/1.1 204 ")
        self.assertEqual(self.services[-1].values(b"upgrade"), [])
        caller.transport.loseConnection()

    @inlineCallbacks
    def test_nothing_passes_before_an_answer_that_is_one(self) -> Steps:
        for wrong in (
            SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
            SWITCH.replace(b"Upgrade: websocket\r\n", b""),
            SWITCH.replace(b"Connection: Upgrade\r\n", b""),
            SWITCH.replace(ACCEPT, ACCEPT.lower()),
            SWITCH.replace(b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n", b""),
            b"SSH-2.0-x\r\n\r\n",
        ):
            self.script = lambda service, wrong=wrong: service.transport.write(wrong + b"secret")  # type: ignore[misc]  # it is called at once
            caller = yield self.call(Listener())
            self.ask(caller)
            caller.transport.write(b"too early")
            yield self.until(lambda: caller.lost, "closed")  # noqa: B023  # it is called before the next turn
            head, problem = self.problem(caller)
            self.assertTrue(head.startswith(b"HTTP/1.1 502 "), (wrong, head))
            self.assertTrue(problem["type"].endswith("/bad-response"), problem)
            if b"101" in wrong:
                self.assertIn(b"error=http_upgrade_failed", head)
            self.assertNotIn(b"secret", bytes(caller.received))
            yield self.until(lambda: self.services[-1].lost, "given up")
            self.assertEqual(bytes(self.services[-1].received), b"")
        yield self.over()

    @inlineCallbacks
    def test_any_other_answer_is_passed_on_and_ends_the_connection(self) -> Steps:
        smuggled = b"GET /_hoft/status HTTP/1.1\r\nHost: near\r\n\r\n"
        chunked = b"2\r\nno\r\n0\r\n\r\n"
        for answer, close, head, body in (
            (b"403 No\r\nContent-Length: 2\r\nX-A: b\r\n\r\nno", False, b"403 No", b"no"),
            (b"426 Old\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, False, b"426 Old", chunked),
            (b"400 Bad\r\n\r\nuntil the end", True, b"400 Bad", b"d\r\nuntil the end\r\n0\r\n\r\n"),
            (b"204 None\r\n\r\n", False, b"204 None", b""),
        ):  # fmt: skip

            def script(service: Service, answer: bytes = answer, close: bool = close) -> None:
                service.transport.write(b"HTTP/1.1 " + answer)
                if close:
                    service.transport.loseConnection()

            self.script = script
            caller = yield self.call(Listener())
            self.ask(caller)
            caller.transport.write(smuggled)
            yield self.until(lambda: caller.lost, "closed")  # noqa: B023  # it is called before the next turn
            caller.lost.trap(ConnectionDone)
            found, _, rest = bytes(caller.received).partition(b"\r\n\r\n")
            self.assertTrue(found.startswith(b"HTTP/1.1 " + head + b"\r\n"), found)
            self.assertIn(b"\r\nConnection: close", found)
            self.assertEqual(rest, body)
            yield self.until(lambda: self.services[-1].lost or self.services[-1].ends, "closed")
            self.assertEqual(bytes(self.services[-1].received), b"")
        yield self.over()

    @inlineCallbacks
    def test_what_does_not_fit_is_refused(self) -> Steps:
        yield self.refused(431, asking=lambda caller: self.ask(caller, b"Cookie: " + b"x" * 64800))
        self.script = lambda service: service.transport.write(
            SWITCH.replace(b"\r\n\r\n", b"\r\nSet-Cookie: " + b"x" * 64600 + b"\r\n\r\n")
        )
        caller = yield self.call()
        self.ask(caller)
        yield self.heard(caller, b"}\n")
        self.assertIn(b"error=http_response_header_section_size", self.problem(caller)[0])
        yield self.over()

    @inlineCallbacks
    def test_an_answer_that_breaks_off_is_cut(self) -> Steps:
        half = b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nhalf"
        self.script = lambda service: service.transport.write(half)
        caller = yield self.call()
        self.ask(caller)
        yield self.heard(caller, b"half")
        self.services[-1].transport.loseConnection()
        yield self.until(lambda: caller.lost, "cut")
        self.assertFalse(caller.lost.check(ConnectionDone))
        yield self.over()
        self.assertEqual(self.near.status()["ingress"]["cut"], 1)

    @inlineCallbacks
    def test_a_service_that_closes_at_once_is_said_to_have_done_so(self) -> Steps:
        """What it had answered may be lost with it; then it is no matter of time."""
        for answer in (b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nhalf", b""):

            def script(service: Service, answer: bytes = answer) -> None:
                service.transport.write(answer)
                service.transport.loseConnection()

            self.script = script
            caller = yield self.call()
            self.ask(caller)
            yield self.until(lambda: caller.lost or caller.received.endswith(b"}\n"), "told")  # noqa: B023  # called before the next turn
            status = bytes(caller.received[:13])
            self.assertIn(status, [b"HTTP/1.1 502 ", b"HTTP/1.1 500 ", b""] if answer else [b"HTTP/1.1 502 "])
            yield self.over()

    @inlineCallbacks
    def test_either_side_may_close_or_reset(self) -> Steps:
        for name in ("loseConnection", "abortConnection"):
            for ending in (0, 1):
                ends = yield self.switched()
                ends[1 - ending].transport.write(b"x")
                yield self.until(lambda: ends[ending].received, "they talk")  # noqa: B023  # called before the next turn
                getattr(ends[ending].transport, name)()
                other = ends[1 - ending]
                if name == "loseConnection":
                    yield self.until(lambda: other.ends or other.lost, "told")  # noqa: B023  # called before the next turn
                    other.transport.loseConnection()
                yield self.until(lambda: all(one.lost for one in ends), "lost")  # noqa: B023  # called before the next turn
                self.assertEqual(bool(other.lost.check(ConnectionDone)), name == "loseConnection")
                yield self.over()

    @inlineCallbacks
    def test_who_leaves_before_the_answer_or_is_not_answered_leaves_nothing_behind(self) -> Steps:
        self.script = lambda service: None
        caller = yield self.call()
        self.ask(caller)
        yield self.until(lambda: self.services and self.services[-1].head, "asked")
        caller.transport.abortConnection()
        yield self.until(lambda: self.services[-1].lost, "given up")
        yield self.over()
        caller = yield self.call()
        self.ask(caller, b"Hoft-Deadline: 0.3")
        yield self.heard(caller, b"}\n")
        self.assertTrue(bytes(caller.received).startswith(b"HTTP/1.1 504 "), caller.received)
        yield self.until(lambda: len(self.services) == 2 and self.services[-1].lost, "given up")
        yield self.over()
        counted = self.near.status()["ingress"]
        self.assertEqual((counted["websockets"], counted["tunnelled"]), (2, 0))
        self.assertEqual((counted["callers_gone"], counted["problems"]), (1, 1))

    @inlineCallbacks
    def test_a_node_that_stops_ends_it_at_both_ends(self) -> Steps:
        caller, service = yield self.switched()
        yield self.far.stopService()
        yield self.until(lambda: caller.lost and service.lost, "lost")

    @inlineCallbacks
    def test_who_does_not_read_holds_the_other_up(self) -> Steps:
        data = pattern(24_000_000)
        for slow in (0, 1):
            ends = yield self.switched()
            reader, writer = ends[slow], ends[1 - slow]
            reader.transport.pauseProducing()
            writer.transport.write(data)
            held: list[int] = []
            for _ in range(2):  # until nothing moves any more
                sent = -1
                while sent != (
                    sent := sum(node.streams.counters()["bytes_sent"] for node in (self.near, self.far))
                ):
                    yield self.pause(0.05)
                held.append(len(writer.transport._tempDataBuffer) + len(writer.transport.dataBuffer))
            self.assertEqual(held[0], held[1])
            self.assertGreater(held[0], 8_000_000, "the rest has left the writer")
            reader.transport.resumeProducing()
            yield self.until(lambda: len(reader.received) == len(data), "all of it")  # noqa: B023  # called before the next turn
            self.assertEqual(bytes(reader.received), data)
            for one in ends:
                one.transport.loseConnection()
            yield self.over()

    @inlineCallbacks
    def test_callers_are_asked_who_they_are_and_counted_as_for_calls(self) -> Steps:
        known = Caller("ci", (hash_token(b"secret"),), Allowance(in_flight=1), operator=True)
        route = Route("chat", "far", self.url, Allowance(bytes_per_day=2000), websocket=True)
        yield self.near.stopService()
        self.configs["near"] = evolve(self.configs["near"], metrics=True, callers=(known,), routes=(route,))
        self.near = type(self.near)(self.configs["near"], reactor)
        yield self.near.startService()
        yield self.refused(401, asking=self.ask)
        authorized = b"Authorization: Bearer secret"
        caller = yield self.call()
        self.ask(caller, authorized)
        yield self.heard(caller, b"\r\n\r\n")
        self.assertEqual(self.services[-1].values(b"authorization"), [])
        busy = yield self.call()
        self.ask(busy, authorized)
        yield self.heard(busy, b"HTTP/1.1 429 ")
        caller.received.clear()
        caller.transport.write(bytes(1500))
        self.services[-1].transport.write(bytes(600))
        yield self.until(lambda: len(caller.received) == 600 and len(self.services[-1].received) == 1500)
        for one in (caller, self.services[-1]):
            one.transport.loseConnection()
        yield self.over()
        full = yield self.call()
        self.ask(full, authorized)
        yield self.heard(full, b"}\n")
        self.assertIn("bytes a day", self.problem(full)[1]["detail"])
        yield self.configure(
            self.far, allowed=(Allow(self.url, websocket=True), Allow(f"tcp://{self.where.decode()}"))
        )
        tunnel = yield self.call()
        lines = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nProxy-%b\r\n\r\n" % (self.where, self.where, authorized)
        tunnel.transport.write(lines + b"hello")
        yield self.heard(tunnel, b"HTTP/1.1 200 ")
        yield self.until(lambda: self.services[-1].received == b"hello")
        for one in (tunnel, self.services[-1]):
            one.transport.loseConnection()
        yield self.over()
        watch = yield self.call(Listener())
        watch.transport.write(
            b"GET /_hoft/metrics HTTP/1.1\r\nHost: near\r\nConnection: close\r\n" + authorized + b"\r\n\r\n"
        )
        yield self.until(lambda: watch.lost, "metrics")
        found = {
            (one.name, *(one.labels[label] for label in sorted(one.labels))): one.value
            for family in text_string_to_metric_families(
                bytes(watch.received).partition(b"\r\n\r\n")[2].decode()
            )
            for one in family.samples
        }
        self.assertEqual(found["hoft_calls_total", "ci", "chat", "101"], 1)
        self.assertEqual(found["hoft_call_bytes_sum", "ci", "request", "chat"], 1500)
        self.assertEqual(found["hoft_call_bytes_sum", "ci", "response", "chat"], 600)
        self.assertEqual(found["hoft_calls_total", "ci", "", "200"], 1)
        self.assertEqual(found["hoft_call_bytes_sum", "ci", "request", ""], 5)
        self.assertEqual(found["hoft_ingress_websockets_total",], 1)
        self.assertEqual(found["hoft_ingress_tunnelled",], 0)

    @inlineCallbacks
    def test_credentials_of_what_is_allowed_are_added(self) -> Steps:
        secret = Path(self.mktemp())
        secret.touch(mode=0o600)
        secret.write_text("X-Api-Key: 123\n")
        yield self.configure(
            self.far,
            credentials=(Credential("api", "headers", secret_file=secret),),
            allowed=(Allow(self.url, credentials="api", websocket=True),),
        )
        caller, service = yield self.switched()
        self.assertEqual(service.values(b"x-api-key"), [b"123"])
        caller.transport.loseConnection()

    @inlineCallbacks
    def test_a_service_with_tls(self) -> Steps:
        mine = certificate("localhost")
        listening = REACTOR.listenSSL(
            0, Factory.forProtocol(self.make), mine.options(), interface="127.0.0.1"
        )
        self.ports.append(listening)
        url = f"https://localhost:{listening.getHost().port}"
        yield self.configure(self.far, allowed=(Allow(url, websocket=True),))
        yield self.configure(self.near, routes=(Route("chat", "far", url, websocket=True),))
        caller = yield self.call()
        self.ask(caller)
        yield self.heard(caller, b"}\n")
        self.assertIn(b"error=tls_certificate_error", self.problem(caller)[0])
        self.assertFalse(any(service.head for service in self.services))
        self.far._egress.agent = ExactAgent(
            reactor, tls=BrowserLikePolicyForHTTPS(Certificate(mine.original))
        )
        caller, service = yield self.switched()
        data = pattern(500_000)
        caller.transport.write(data)
        service.transport.write(data)
        yield self.until(lambda: bytes(caller.received) == data == bytes(service.received), "both ways")
        service.transport.loseConnection()
        yield self.until(lambda: caller.ends, "told")
        caller.transport.loseConnection()
        yield self.over()
