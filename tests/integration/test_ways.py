"""The ways in which callers name a service, and which peer it is then reached through."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from http.client import HTTPConnection

import requests

from tests.processes import PATIENCE

from .callers import Answer, raw_call
from .certificates import self_signed
from .gateway import Gateway, GatewayCase, Node
from .services import SocketService, respond


def echo(connection: socket.socket, head: bytes) -> None:
    """The request's own head, as the response's body."""
    respond(connection, head)


class WayTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.shared_pair()
        self.near = self.gateway.near
        self.service = SocketService(echo)
        self.addCleanup(self.service.close)
        self.gateway.far.hoft("allow", self.service.url)
        self.there = f"127.0.0.1:{self.service.port}"
        self.proxy = f"http://127.0.0.1:{self.near.port}"

    def check(self, head: str) -> None:
        """What the service got, of a call for C{/a%20b?c=%2F}."""
        lines = head.splitlines()
        self.assertEqual(lines[0], "GET /a%20b?c=%2F HTTP/1.1")
        self.assertIn(f"Host: {self.there}", lines)

    def test_curl_with_the_gateway_as_its_proxy(self) -> None:
        curl = shutil.which("curl")
        self.need(curl, "curl is not there")
        command = [str(curl), "-sS", "--fail", "-x", self.proxy, f"http://{self.there}/a%20b?c=%2F"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.check(done.stdout)

    def test_curl_through_a_tunnel_for_http_and_for_https(self) -> None:
        curl = shutil.which("curl")
        self.need(curl, "curl is not there")
        authority, wrap = self_signed(self.new_folder())
        secure = SocketService(echo, wrap)
        self.addCleanup(secure.close)
        there = f"127.0.0.1:{secure.port}"
        for port in (self.service.port, secure.port):
            self.gateway.far.hoft("allow", f"tcp://127.0.0.1:{port}")
        for options in (["-p", f"http://{self.there}/"], ["--cacert", authority, f"https://{there}/"]):
            command = [str(curl), "-sS", "--fail", "-x", self.proxy, *map(str, options)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            # It is the caller's own connection: nothing was added on the way.
            self.assertNotIn("Via", done.stdout)

    def test_requests_with_the_gateway_as_its_proxy(self) -> None:
        answer = requests.get(
            f"http://{self.there}/a%20b?c=%2F", proxies={"http": self.proxy}, timeout=PATIENCE
        )
        self.check(answer.text)
        self.assertIn("far", answer.headers["Via"])

    def test_the_generic_path(self) -> None:
        self.check(self.near.call("GET", f"/to/http/{self.there}/a%20b?c=%2F").body.decode())

    def test_a_route(self) -> None:
        self.gateway.route("echo", self.service.url)
        self.check(self.near.call("GET", "/svc/echo/a%20b?c=%2F").body.decode())

    def test_an_absolute_target_counts_for_more_than_the_host_field(self) -> None:
        request = f"GET http://{self.there}/a%20b?c=%2F HTTP/1.1\r\nHost: other.example\r\n"
        answer = raw_call(self.near.port, request.encode() + b"Connection: close\r\n\r\n")
        self.check(answer.partition(b"\r\n\r\n")[2].decode())

    def test_https_in_absolute_form_is_verified_by_the_far_node(self) -> None:
        trusted, wrap = self_signed(self.new_folder())
        service = SocketService(echo, wrap)
        self.addCleanup(service.close)
        gateway = self.pair()
        gateway.far.environment["SSL_CERT_FILE"] = str(trusted)
        gateway.far.hoft("allow", f"https://127.0.0.1:{service.port}")
        gateway.start()
        request = (
            f"GET https://127.0.0.1:{service.port}/secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        answer = raw_call(gateway.near.port, request.encode())
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.assertIn(b"GET /secret HTTP/1.1", answer)


class StreamTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.shared_pair()

    def test_the_first_byte_arrives_before_the_service_sends_the_last(self) -> None:
        arrived = threading.Event()
        self.addCleanup(arrived.set)
        in_time = []

        def halves(connection: socket.socket, head: bytes) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            in_time.append(arrived.wait(20))
            connection.sendall(b"later")

        service = SocketService(halves)
        self.addCleanup(service.close)
        self.gateway.route("halves", service.url)
        connection = HTTPConnection("127.0.0.1", self.gateway.near.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request("GET", "/svc/halves/")
        response = connection.getresponse()
        self.assertEqual(response.read(5), b"first")
        arrived.set()
        self.assertEqual(response.read(), b"later")
        self.assertEqual(in_time, [True])

    def test_events_arrive_one_by_one(self) -> None:
        heard = threading.Semaphore(0)

        def events(connection: socket.socket, head: bytes) -> None:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for number in range(5):
                line = b"data: %d\n\n" % number
                connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))
                if not heard.acquire(timeout=20):
                    return
            connection.sendall(b"0\r\n\r\n")

        service = SocketService(events)
        self.addCleanup(service.close)
        self.gateway.route("events", service.url)
        came = []
        with requests.get(
            f"http://127.0.0.1:{self.gateway.near.port}/svc/events/", stream=True, timeout=PATIENCE
        ) as answer:
            for line in answer.iter_lines(chunk_size=1):
                if line:
                    came.append(line)
                    heard.release()
        self.assertEqual(came, [b"data: %d" % number for number in range(5)])

    def test_a_caller_that_goes_away_ends_the_call_at_the_service(self) -> None:
        gone = threading.Event()

        def endless(connection: socket.socket, head: bytes) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while True:
                    connection.sendall(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            except OSError:
                gone.set()

        service = SocketService(endless)
        self.addCleanup(service.close)
        self.gateway.route("endless", service.url)
        connection = HTTPConnection("127.0.0.1", self.gateway.near.port, timeout=PATIENCE)
        connection.request("GET", "/svc/endless/")
        response = connection.getresponse()
        self.assertEqual(response.read(100), bytes(100))
        response.close()
        connection.close()
        self.assertTrue(gone.wait(20), "the service still sends")
        self.gateway.await_quiet()


class PeerTests(GatewayCase):
    """Which of several peers a call without a route goes to."""

    def setUp(self) -> None:
        super().setUp()
        self.gateway = Gateway.on_one_folder(self.new_folder())
        self.keep(self.gateway)
        self.service = SocketService(echo)
        self.addCleanup(self.service.close)

    def add_peer(self) -> None:
        other = Node.make(self.gateway.folder, "other", "--folder", self.gateway.folder / "exchange")
        self.gateway.near.hoft("trust", other.card)
        other.hoft("trust", self.gateway.near.card)
        other.hoft("allow", self.service.url)
        other.launch()
        assert other.process is not None
        self.gateway.others.append(other.process)
        other.await_ready()

    def call(self) -> Answer:
        return self.gateway.near.call("GET", f"/to/http/127.0.0.1:{self.service.port}/")

    def through(self) -> str:
        """The node that made the call, as the service was told."""
        answer = self.call()
        self.assertEqual(answer.status, 200, answer)
        (via,) = [line for line in answer.body.decode().splitlines() if line.startswith("Via: ")][-1:]
        return via.split()[-1]

    def say(self, **values: str) -> None:
        near = self.gateway.near
        near.configure(**values)
        near.await_reload()

    def test_the_only_peer_then_none_then_the_default_then_the_first_that_fits(self) -> None:
        self.gateway.far.hoft("allow", self.service.url)
        self.gateway.start()
        self.assertEqual(self.through(), "far")

        self.add_peer()
        answer = self.call()
        self.assertEqual((answer.status, answer.kind), (502, "no-peer"))
        self.assertIn("far, other", answer.json()["detail"])

        self.say(default_peer="far")
        self.assertEqual(self.through(), "far")

        near = self.gateway.near
        near.file.write_text(
            near.file.read_text()
            + '\n[[forward]]\nmatch = "*.example"\npeer = "far"\n'
            + '\n[[forward]]\nmatch = "127.0.0.1"\npeer = "other"\n'
        )
        near.await_reload()
        self.assertEqual(self.through(), "other")
