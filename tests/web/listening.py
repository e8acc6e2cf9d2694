"""What tests of whatever listens share: a port of its own, and callers with real sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater

from tests.processes import PATIENCE

Test = Generator[Deferred[Any], Any, None]


def exchange(port: int, *pieces: bytes, half_close: bool = False, until: bytes | None = None) -> bytes:
    """Send all, then read until the server closes, or C{until} has come.  Blocks."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = bytearray()
        while until is None or until not in received:
            data = connection.recv(1 << 18)
            if not data:
                break
            received += data
        return bytes(received)


class Listening:
    """Something listens on C{number}; mixed into test cases."""

    number: int
    addCleanup: Callable[..., None]

    def listen(self, factory: Any) -> Any:
        """Let it listen on C{number}, a free one; the port, for the test to stop."""
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        self.number = address.port
        return port

    @inlineCallbacks
    def until(self, condition: Callable[[], object]) -> Test:
        """Wait until it holds; the case's timeout fails the test."""
        while not condition():
            yield deferLater(reactor, 0.002)

    def connect(self) -> socket.socket:
        """A caller of which the test does each step itself."""
        caller = socket.create_connection(("127.0.0.1", self.number), timeout=PATIENCE)
        self.addCleanup(caller.close)
        return caller
