"""
Services behind the far node: httpbin as a process, bulk data as a process, and
raw sockets that do what a test says.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from .gateway import Gateway
from .processes import free_port, spawn, wait_until

BLOCK = 1 << 20


def bulk(seed: int, size: int) -> Iterator[bytes]:
    """C{size} bytes that depend on the seed and on the place: in blocks of L{BLOCK}."""
    base = Random(seed).randbytes(BLOCK - 8)
    for number in range(0, size, BLOCK):
        yield (struct.pack(">Q", number) + base)[: size - number]


class Comparison:
    """
    Whether what comes is what L{bulk} gives.

    @ivar size: how much came.
    @ivar equal: whether all of it was right.
    """

    def __init__(self, seed: int, size: int) -> None:
        self.size = 0
        self.equal = True
        self._whole = size
        self._blocks = bulk(seed, size)
        self._left = b""

    def take(self, piece: bytes) -> None:
        """This came."""
        self.size += len(piece)
        view = memoryview(piece)
        while view and self.equal:
            if not self._left:
                self._left = next(self._blocks, b"")
            part = min(len(view), len(self._left))
            self.equal = part > 0 and self._left[:part] == view[:part]
            self._left, view = self._left[part:], view[part:]

    @property
    def same(self) -> bool:
        """All of it came, and was right."""
        return self.equal and self.size == self._whole


class BulkHandler(BaseHTTPRequestHandler):
    """C{/?seed=S&size=N}: GET gives that bulk, POST says whether it got that."""

    protocol_version = "HTTP/1.1"
    rbufsize = 1 << 20

    def _asked(self) -> tuple[int, int]:
        query = parse_qs(urlsplit(self.path).query)
        return int(query["seed"][0]), int(query["size"][0])

    def do_GET(self) -> None:
        seed, size = self._asked()
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        for block in bulk(seed, size):
            self.wfile.write(block)

    def do_POST(self) -> None:
        comparison = Comparison(*self._asked())
        left = int(self.headers["Content-Length"])
        while left:
            piece = self.rfile.read1(min(left, BLOCK))
            if not piece:
                break
            left -= len(piece)
            comparison.take(piece)
        said = b"same" if comparison.same else b"other"
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


def main(kind: str, port: int) -> None:
    """Be the service C{kind}."""
    if kind == "bulk":
        ThreadingHTTPServer(("127.0.0.1", port), BulkHandler).serve_forever()
        return
    from httpbin import app

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True
        request_queue_size = 100

    make_server("127.0.0.1", port, app, Server, WSGIRequestHandler).serve_forever()


def start_service(gateway: Gateway, kind: str) -> int:
    """
    Start C{"httpbin"} or C{"bulk"}; it ends with the gateway.

    @return: its port.
    """
    port = free_port()
    with open(gateway.folder / f"{kind}.log", "wb") as log:
        arguments = [sys.executable, "-W", "ignore", "-m", "tests.integration.services", kind, str(port)]
        process: subprocess.Popen[bytes] = spawn(arguments, stdout=log, stderr=log)
    gateway.others.append(process)

    def listens() -> bool:
        assert process.poll() is None, f"{kind} ended with code {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return True
        return False

    wait_until(listens, f"{kind} listens")
    return port


_LENGTH = re.compile(rb"\r\nContent-Length: *([0-9]+)", re.IGNORECASE)

Behaviour = Callable[[socket.socket, bytes], None]


class SocketService:
    """
    A service in a thread of the test: each connection is given, with the head of
    the request that came on it, to C{behaviour}, and closed when that returns.  Bodies
    are read before, and dropped.

    @ivar heads: of all requests.
    """

    def __init__(
        self, behaviour: Behaviour, wrap: Callable[[socket.socket], socket.socket] | None = None
    ) -> None:
        """@param wrap: makes of each connection what is spoken on it, such as TLS."""
        self.heads: list[bytes] = []
        self._behaviour = behaviour
        self._wrap = wrap
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nothing any more."""
        # Closing alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            spoken = connection if self._wrap is None else self._wrap(connection)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = spoken.recv(65536)
                if not piece:
                    return
                head += piece
            head, _, body = head.partition(b"\r\n\r\n")
            left = int(_LENGTH.findall(head + b"\r\nContent-Length: 0\r\n")[0]) - len(body)
            while left > 0 and (piece := spoken.recv(min(left, 65536))):
                left -= len(piece)
            self.heads.append(head)
            self._behaviour(spoken, head)


def respond(connection: socket.socket, body: bytes = b"hello", status: str = "200 OK") -> None:
    """A whole response, after which the connection ends."""
    connection.sendall(
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    )


class CountingHandler(BaseHTTPRequestHandler):
    """
    Counts each id that is POSTed (C{X-Id}) as soon as its head is here, and says the
    digest of what came with it; GET gives the bytes of L{content}.
    """

    protocol_version = "HTTP/1.1"
    server: CountingServer

    def do_POST(self) -> None:
        self.server.count(self.headers["X-Id"])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # Long enough for a node to be killed between the effect and the answer.
        time.sleep(0.03)
        self._say(digest(body))

    def do_GET(self) -> None:
        self._say(content(int(self.path.strip("/"))))

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


class HandlerServer(ThreadingHTTPServer):
    """A service in threads of the test."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 100

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Accept nothing any more."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections are cut in these tests; anything else is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class CountingServer(HandlerServer):
    """
    L{CountingHandler} in threads of the test.

    @ivar arrivals: how often each id came.
    """

    def __init__(self) -> None:
        self.arrivals: Counter[str] = Counter()
        self._lock = threading.Lock()
        super().__init__(CountingHandler)

    def count(self, id: str) -> None:
        """It came."""
        with self._lock:
            self.arrivals[id] += 1


def content(size: int) -> bytes:
    """C{size} bytes that depend on it."""
    return Random(size).randbytes(size)


def digest(body: bytes) -> bytes:
    """In hexadecimal."""
    return hashlib.blake2b(body, digest_size=16).hexdigest().encode("ascii")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
