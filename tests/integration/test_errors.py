"""Each failure of a call is told in the place where it happened, and harms no other call."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from http.client import IncompleteRead
from urllib.parse import urlsplit

from attrs import evolve

from hoft.identity import Card

from .callers import raw_call
from .certificates import self_signed
from .gateway import Gateway, GatewayCase, Node
from .processes import free_port
from .services import SocketService, respond


def reset(connection: socket.socket) -> None:
    """End a connection as a crash does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class CallErrorTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.shared_pair()
        self.near = self.gateway.near

    def serve(self, name: str, service: SocketService) -> None:
        self.addCleanup(service.close)
        self.gateway.route(name, service.url)

    def never_allowed(self) -> SocketService:
        """A service on a port that no test before has allowed: the system gives ports again."""
        listed = json.loads(self.gateway.far.hoft("list", "--json"))
        allowed = {urlsplit(one["url"]).port for one in listed["allowed"]}
        while True:
            service = SocketService(lambda connection, head: respond(connection))
            self.addCleanup(service.close)
            if service.port not in allowed:
                return service

    def test_an_unknown_route_is_404_and_names_those_there_are(self) -> None:
        self.gateway.route("stock", "http://127.0.0.1:1/")
        answer = self.near.call("GET", "/svc/stok/items")
        self.assertEqual((answer.status, answer.kind), (404, "unknown-route"))
        self.assertIn("'stok'", answer.json()["detail"])
        self.assertIn("stock", answer.json()["detail"].partition("there is:")[2])

    def test_a_path_that_is_none_of_the_gateways_is_404(self) -> None:
        self.assertEqual(self.near.call("GET", "/elsewhere").kind, "not-found")

    def test_a_url_that_the_far_node_does_not_allow_is_403(self) -> None:
        service = self.never_allowed()
        answer = self.near.call("GET", f"/to/http/127.0.0.1:{service.port}/")
        self.assertEqual((answer.status, answer.kind), (403, "not-allowed"))
        self.assertIn("error=http_request_denied", answer["Proxy-Status"] or "")
        self.assertEqual(service.heads, [])

    def test_a_path_beside_what_is_allowed_is_403(self) -> None:
        service = self.never_allowed()
        self.gateway.route("open", f"{service.url}open/")
        base = f"/to/http/127.0.0.1:{service.port}"
        self.assertEqual(self.near.call("GET", f"{base}/open/door").status, 200)
        for path in ("/", "/opening", "/open/../secret", "/open/%2e%2e/secret", "/open%2fdoor"):
            self.assertEqual(self.near.call("GET", base + path).status, 403, path)
        self.assertEqual(len(service.heads), 1)

    def test_a_service_that_is_down_is_502_connection_refused(self) -> None:
        self.gateway.route("down", f"http://127.0.0.1:{free_port()}/")
        answer = self.near.call("GET", "/svc/down/")
        self.assertEqual((answer.status, answer.kind), (502, "connection-refused"))
        self.assertIn("error=connection_refused", answer["Proxy-Status"] or "")

    def test_a_service_that_resets_before_its_head_is_502(self) -> None:
        self.serve("reset", SocketService(lambda connection, head: reset(connection)))
        answer = self.near.call("POST", "/svc/reset/", b"x")
        self.assertEqual((answer.status, answer.kind), (502, "connection-terminated"))

    def test_a_service_that_resets_midway_cuts_the_callers_connection(self) -> None:
        def half(connection: socket.socket, head: bytes) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300_000)
            time.sleep(0.3)
            reset(connection)

        self.serve("half", SocketService(half))
        with self.assertRaises((IncompleteRead, ConnectionResetError)):
            self.near.call("GET", "/svc/half/")

    def test_a_service_that_ends_a_chunked_response_midway_cuts_the_callers_connection(self) -> None:
        def half(connection: socket.socket, head: bytes) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

        self.serve("chunk", SocketService(half))
        answer = raw_call(self.near.port, b"GET /svc/chunk/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        # Either the head was sent, and then the last chunk must not come, or it is told as what it is.
        if answer.startswith(b"HTTP/1.1 200"):
            self.assertFalse(answer.endswith(b"0\r\n\r\n"), answer)
        else:
            self.assertTrue(answer.startswith(b"HTTP/1.1 502"), answer)

    def test_a_service_that_does_not_speak_http_is_502(self) -> None:
        self.serve("other", SocketService(lambda connection, head: connection.sendall(b"SSH-2.0-x\r\n\r\n")))
        answer = self.near.call("GET", "/svc/other/")
        self.assertEqual((answer.status, answer.kind), (502, "bad-response"))

    def test_a_service_that_never_answers_is_504_when_the_callers_deadline_is_over(self) -> None:
        self.serve("silent", SocketService(lambda connection, head: time.sleep(5)))
        begun = time.monotonic()
        answer = self.near.call("GET", "/svc/silent/", headers={"Hoft-Deadline": "0.7"})
        self.assertEqual(answer.status, 504)
        self.assertGreater(time.monotonic() - begun, 0.6)

    def test_malformed_requests_are_400(self) -> None:
        for request in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
            b"GET / HTTP/1.1\r\nHost: a\r\nFolded: a\r\n b\r\n\r\n",
            b"this is no request\r\n\r\n",
        ):
            answer = raw_call(self.near.port, request)
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), (request, answer))
            self.assertIn(b"/problems/malformed-request", answer)

    def test_connect_to_what_is_not_allowed_is_403_and_says_what_would_allow_it(self) -> None:
        answer = raw_call(
            self.near.port, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n"
        )
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 "), answer)
        self.assertIn(b'Proxy-Status: "near"; error=http_request_denied', answer)
        self.assertIn(b"hoft allow", answer)

    def test_a_certificate_that_nobody_trusts_is_502(self) -> None:
        _, wrap = self_signed(self.new_folder())
        service = SocketService(lambda connection, head: respond(connection), wrap)
        self.addCleanup(service.close)
        self.gateway.route("tls", f"https://127.0.0.1:{service.port}/")
        answer = self.near.call("GET", "/svc/tls/")
        self.assertEqual((answer.status, answer.kind), (502, "tls-certificate-error"))
        self.assertIn("error=tls_certificate_error", answer["Proxy-Status"] or "")
        self.assertEqual(service.heads, [])

    def test_a_name_without_an_address_is_502(self) -> None:
        self.gateway.route("nowhere", "http://nowhere.invalid/")
        answer = self.near.call("GET", "/svc/nowhere/")
        self.assertEqual((answer.status, answer.kind), (502, "dns-error"))
        self.assertIn("nowhere.invalid", answer.json()["detail"])

    def test_a_stopped_far_node_is_504_within_the_deadline_and_the_call_goes_on_when_it_does(self) -> None:
        service = SocketService(lambda connection, head: respond(connection))
        self.serve("late", service)
        far = self.gateway.far
        assert far.process is not None
        os.kill(far.process.pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            answer = self.near.call("POST", "/svc/late/", b"x", headers={"Hoft-Deadline": "1"})
            self.assertEqual((answer.status, answer.kind), (504, "peer-silent"))
            self.assertLess(time.monotonic() - begun, 30.0)  # of the 60 without the field
        finally:
            os.kill(far.process.pid, signal.SIGCONT)
        result = self.near.call("GET", f"{answer.json()['status_url']}/result?wait=20", patience=30)
        self.assertEqual(result.status, 200)
        self.assertEqual(len(service.heads), 1)


class DeadlineTests(GatewayCase):
    def test_a_peer_that_is_not_there_is_504_within_the_configured_deadline(self) -> None:
        gateway = self.pair()
        gateway.near.configure(deadline=0.8)
        gateway.route("any", "http://127.0.0.1:1/")
        gateway.near.start()
        begun = time.monotonic()
        answer = gateway.near.call("GET", "/svc/any/")
        seconds = time.monotonic() - begun
        self.assertEqual((answer.status, answer.kind), (504, "peer-silent"))
        self.assertIn("within 0.8 s", answer.json()["detail"])
        self.assertGreater(seconds, 0.7)
        self.assertLess(seconds, 30.0)  # of the 60 without that


class LimitTests(GatewayCase):
    LIMIT = 100_000

    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.pair()
        self.service = SocketService(lambda connection, head: respond(connection))
        self.addCleanup(self.service.close)
        self.gateway.route("any", self.service.url)

    def refused(self) -> None:
        """However its length is told, a body above the limit is 413 and reaches nobody."""

        def pieces() -> Iterator[bytes]:
            for _ in range(30):
                yield b"x" * 10_000

        near = self.gateway.near
        declared = near.call("POST", "/svc/any/", b"x" * (self.LIMIT + 1))
        self.assertEqual((declared.status, declared.kind), (413, "too-large"))
        chunked = near.call("POST", "/svc/any/", pieces())
        self.assertEqual((chunked.status, chunked.kind), (413, "too-large"))
        self.assertEqual(self.service.heads, [])
        self.assertEqual(near.call("POST", "/svc/any/", b"x" * self.LIMIT).status, 200)

    def test_a_body_above_the_near_nodes_limit_is_413(self) -> None:
        self.gateway.near.configure(max_request_body=self.LIMIT)
        self.gateway.start()
        self.refused()

    def test_a_body_above_the_far_nodes_limit_is_413(self) -> None:
        self.gateway.far.configure(max_request_body=self.LIMIT)
        self.gateway.start()
        self.refused()


class CarrierErrorTests(GatewayCase):
    def test_a_folder_that_vanishes_is_told_and_used_again_when_it_is_back(self) -> None:
        gateway = self.pair()
        service = SocketService(lambda connection, head: respond(connection))
        self.addCleanup(service.close)
        gateway.route("any", service.url)
        gateway.start()
        near, exchange = gateway.near, gateway.folder / "exchange"
        exchange.rename(gateway.folder / "elsewhere")
        near.await_status(lambda now: now["peers"]["far"]["state"] == "down", "the folder is missed", 20)
        answer = near.call("GET", "/svc/any/", headers={"Hoft-Deadline": "5"})
        self.assertEqual((answer.status, answer.kind), (503, "peer-unavailable"))
        near.await_log("The carrier is down")
        (gateway.folder / "elsewhere").rename(exchange)
        gateway.await_up()
        self.assertEqual(near.call("GET", "/svc/any/").status, 200)

    def test_a_card_with_another_key_lets_nothing_through_and_harms_nobody(self) -> None:
        gateway = Gateway.on_one_folder(self.new_folder())
        self.keep(gateway)
        near, far = gateway.nodes
        service = SocketService(lambda connection, head: respond(connection))
        self.addCleanup(service.close)
        gateway.route("any", service.url)
        stranger = Node.make(gateway.folder, "stranger", "--folder", gateway.folder / "exchange")
        card = evolve(Card.parse(far.card), public_key=Card.parse(stranger.card).public_key)
        near.file.write_text(near.file.read_text().replace(far.card, str(card)))
        for node in gateway.nodes:
            node.launch()
        for node in gateway.nodes:
            node.await_ready()
        answer = near.call("GET", "/svc/any/", headers={"Hoft-Deadline": "1.5"})
        self.assertEqual((answer.status, answer.kind), (504, "peer-silent"))
        for node in gateway.nodes:
            refused = node.await_status(lambda now: now["refused"], "files are refused")["refused"]
            self.assertEqual(set(refused) - {"forged", "key", "unknown-key"}, set(), refused)
        self.assertEqual(service.heads, [])
        self.assertNotIn("Traceback", near.log + far.log)
