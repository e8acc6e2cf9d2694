"""
The service behind the gateway, as cheap as Python makes it: C{python -m benchmarks.service PORT}.

- C{GET /small}: a fixed JSON answer;
- C{GET /large/N}: N bytes of the large body;
- C{PUT /large}: takes the large body (with C{Content-Length}); 200 if every byte is right, else 400.

It understands what the benchmarks' proxies and hoft send, and no more.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

from benchmarks.bodies import SMALL, matches, piece

SMALL_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(SMALL)
) + SMALL
PIECE = 256 << 10
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Service(asyncio.Protocol):
    """One connection."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._head = b""
        self._at = 0
        self._expected = 0
        self._right = True
        self._sending = 0
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        while data:
            if self._expected:
                data = self._take(data)
                continue
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return
            self._head = b""
            self._begin(head)

    def _begin(self, head: bytes) -> None:
        if head.startswith(b"GET /small "):
            self._transport.write(SMALL_ANSWER)
        elif head.startswith(b"GET /large/"):
            self._at, self._sending = 0, int(head.split(b" ", 2)[1].rpartition(b"/")[2])
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._sending)
            self._send()
        elif head.startswith(b"PUT /large ") and (length := _LENGTH.search(head)):
            self._at, self._expected, self._right = 0, int(length[1]), True
        else:
            self._answer(b"404 Not Found")

    def _take(self, data: bytes) -> bytes:
        body = data[: self._expected - self._at] if len(data) > self._expected - self._at else data
        self._right = self._right and matches(self._at, body)
        self._at += len(body)
        if self._at == self._expected:
            self._expected = 0
            self._answer(b"200 OK" if self._right else b"400 Bad Request")
        return data[len(body) :]

    def _answer(self, status: bytes) -> None:
        self._transport.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)

    def _send(self) -> None:
        while self._writable and self._at < self._sending:
            data = piece(self._at, min(PIECE, self._sending - self._at))
            self._at += len(data)
            self._transport.write(data)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._send()


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1])))
    except KeyboardInterrupt:
        pass
