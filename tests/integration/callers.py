"""Calls, and what came of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from typing import Any

from attrs import frozen

from tests.processes import PATIENCE


@frozen
class Answer:
    """What a caller got."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        """The first field of that name."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """The last part of the C{type} of the problem that this is."""
        assert self["Content-Type"] == "application/problem+json", (
            self.status,
            self.headers,
            self.body[:500],
        )
        problem = self.json()
        assert problem["status"] == self.status, problem
        kind: str = problem["type"].rpartition("/")[2]
        return kind


def call(
    port: int,
    method: str,
    target: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> Answer:
    """
    One call on a connection of its own.

    @raise OSError: or L{http.client.HTTPException}: there is no connection, or it was cut.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
    finally:
        connection.close()


def raw_call(port: int, request: bytes, patience: float = PATIENCE) -> bytes:
    """Send exactly this; all that comes until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), patience) as connection:
        connection.sendall(request)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)
