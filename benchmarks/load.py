"""
The load generator: C{python -m benchmarks.load latency|throughput|download|upload|flood ...}.

A process of its own that prints one JSON object.  Sockets and an event loop of
its own make, some 20 us a call, so that what is measured is not this.  Every
answer is checked.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from benchmarks.bodies import SMALL, matches, piece

PIECE = 256 << 10
GIVE_UP = 120.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Wrong(Exception):
    """An answer that must not be."""


def connect(url: str) -> tuple[socket.socket, bytes, bytes]:
    """A connection, the path of the URL, and a head's end."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), GIVE_UP)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection, parts.path.encode(), b"Host: %b\r\nAccept: */*\r\n" % parts.netloc.encode()


class Caller:
    """Makes the same small call again and again on one connection."""

    def __init__(self, url: str) -> None:
        self.socket, path, rest = connect(url)
        self._request = b"GET %b HTTP/1.1\r\n%b\r\n" % (path, rest)
        self._buffer = b""
        self.begun = 0.0

    def send(self) -> None:
        """Ask."""
        self.begun = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> bool:
        """
        Take what has come.

        @return: whether that was the last of the answer.
        @raise Wrong: not the right answer, or none.
        """
        data = self.socket.recv(65536)
        if not data:
            raise Wrong("the connection was closed")
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        length = _LENGTH.search(head)
        if length is None or not head.startswith(b"HTTP/1.1 200"):
            raise Wrong(f"an answer that begins with {self._buffer[:200]!r}")
        if len(body) < int(length[1]):
            return False
        if body != SMALL:
            raise Wrong(f"the answer's body is {body[:100]!r}")
        self._buffer = b""
        return True

    def call(self) -> float:
        """One call and its round trip in seconds."""
        self.send()
        while not self.receive():
            pass
        return time.perf_counter() - self.begun


def latency(urls: Sequence[str], rounds: int, calls: int) -> dict[str, Any]:
    """Round trips in seconds of one caller, by URL; in turns, so that all see the same noise."""
    callers = {url: Caller(url) for url in urls}
    for caller in callers.values():
        for _ in range(min(calls, 50)):
            caller.call()
    taken: dict[str, list[float]] = {url: [] for url in urls}
    for _ in range(rounds):
        for url, caller in callers.items():
            taken[url].extend(caller.call() for _ in range(calls))
    return {"round_trips": taken}


def throughput(url: str, connections: int, warm_up: float, seconds: float) -> dict[str, Any]:
    """
    As many small calls as go, on so many connections at a time.

    @return: C{calls} answered within C{seconds}, C{total} with those of the
        warm-up, their round trips in seconds (C{median} and so on).
    """
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        caller = Caller(url)
        selector.register(caller.socket, selectors.EVENT_READ, caller)
        caller.send()
    total, taken = 0, []
    from_then = time.perf_counter() + warm_up
    until = from_then + seconds
    now = 0.0
    while now < until:
        ready = selector.select(GIVE_UP)
        if not ready:
            raise Wrong(f"no answer within {GIVE_UP:.0f} s")
        for key, _ in ready:
            caller = key.data
            if caller.receive():
                now = time.perf_counter()
                total += 1
                if from_then <= now < until:
                    taken.append(now - caller.begun)
                caller.send()
    taken.sort()
    return {
        "calls": len(taken),
        "total": total,
        "seconds": seconds,
        "rate": len(taken) / seconds,
        **{name: taken[int(part * len(taken))] for name, part in QUANTILES.items()},
        "longest": taken[-1],
        "cpu_seconds": time.process_time(),
    }


QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99}


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """An answer's head, and the body as far as it came along."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise Wrong(f"the connection was closed after {data[:200]!r}")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Wrong(f"an answer that begins with {data[:500]!r}")
    return head, body


def download(url: str, size: int) -> dict[str, Any]:
    """Seconds until the last byte of the large body is here, and until the first was."""
    connection, path, rest = connect(url)
    begun = time.perf_counter()
    connection.sendall(b"GET %b/%d HTTP/1.1\r\n%b\r\n" % (path, size, rest))
    head, body = read_head(connection)
    first = time.perf_counter() - begun
    length = _LENGTH.search(head)
    if length is None or int(length[1]) != size:
        raise Wrong(f"no Content-Length of {size} in {head!r}")
    right, at = matches(0, body), len(body)
    buffer = memoryview(bytearray(PIECE))
    while at < size:
        got = connection.recv_into(buffer)
        if not got:
            raise Wrong(f"the connection was closed after {at} bytes")
        right = right and matches(at, buffer[:got])
        at += got
    if not right:
        raise Wrong("other bytes came than were sent")
    return {"seconds": time.perf_counter() - begun, "first_byte": first, "cpu_seconds": time.process_time()}


def upload(url: str, size: int) -> dict[str, Any]:
    """Seconds until the service's answer to the large body is here, and until all of it was sent."""
    connection, path, rest = connect(url)
    begun = time.perf_counter()
    connection.sendall(b"PUT %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (path, rest, size))
    at = 0
    while at < size:
        part = piece(at, min(PIECE, size - at))
        connection.sendall(part)
        at += len(part)
    sent = time.perf_counter() - begun
    read_head(connection)
    return {"seconds": time.perf_counter() - begun, "sent": sent, "cpu_seconds": time.process_time()}


def flood(direction: str, url: str, bodies: int, size: int) -> dict[str, Any]:
    """So many large bodies at a time, again and again until this process is ended; nothing is checked."""
    selector = selectors.DefaultSelector()
    buffer = bytearray(PIECE)

    def begin() -> None:
        connection, path, rest = connect(url)
        up = direction == "upload"
        if up:
            connection.sendall(b"PUT %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (path, rest, size))
        else:
            connection.sendall(b"GET %b/%d HTTP/1.1\r\n%b\r\n" % (path, size, rest))
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_WRITE if up else selectors.EVENT_READ, [size])

    for _ in range(bodies):
        begin()
    while True:
        for key, events in selector.select():
            connection, left = key.fileobj, key.data
            assert isinstance(connection, socket.socket)
            if events & selectors.EVENT_WRITE:
                left[0] -= connection.send(piece(size - left[0], min(PIECE, left[0])))
                if not left[0]:
                    left[0] = 1  # the head of the answer ends it
                    selector.modify(connection, selectors.EVENT_READ, left)
                continue
            got = connection.recv_into(buffer)
            left[0] -= got
            if not got or left[0] <= 0:
                selector.unregister(connection)
                connection.close()
                begin()


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "latency": latency,
    "throughput": throughput,
    "download": download,
    "upload": upload,
    "flood": flood,
}


def main() -> None:
    """Do what the command line says and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Prints one JSON object.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("latency", help="round trips of one caller, of each URL in turns")
    command.add_argument("urls", nargs="+", metavar="URL")
    command.add_argument("--rounds", type=int, default=10)
    command.add_argument("--calls", type=int, default=100, help="in each round")
    command = commands.add_parser("throughput", help="calls a second of many callers")
    command.add_argument("url", metavar="URL")
    command.add_argument("--connections", type=int, default=100)
    command.add_argument("--warm-up", type=float, default=1.0, metavar="SECONDS")
    command.add_argument("--seconds", type=float, default=5.0)
    for name in ("download", "upload"):
        command = commands.add_parser(name, help="one large body")
        command.add_argument("url", metavar="URL")
        command.add_argument("--size", type=int, default=512 << 20)
    command = commands.add_parser("flood", help="large bodies without end")
    command.add_argument("direction", choices=("download", "upload"))
    command.add_argument("url", metavar="URL")
    command.add_argument("--bodies", type=int, default=10, help="at a time")
    command.add_argument("--size", type=int, default=512 << 20)
    options = vars(parser.parse_args())
    gc.disable()
    print(json.dumps(COMMANDS[options.pop("command")](**options)))


if __name__ == "__main__":
    main()
