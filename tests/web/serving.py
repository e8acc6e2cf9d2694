"""
What the tests of the HTTP/1.1 server share: real sockets, and a handler that the test scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from hoft.web.http.heads import Field
from hoft.web.http.problems import Problem
from hoft.web.ingress import server_factory
from hoft.web.ingress.calls import Call
from hoft.web.ingress.server_factory import ServerFactory
from tests.web.listening import Listening, Test, exchange


class Script:
    """Serves calls by doing what the test says once a request is complete, and keeps what it saw."""

    def __init__(self, call: Call, then: Callable[[Call, bytes], None] | None) -> None:
        self.call = call
        self.body: list[bytes] = []
        self.trailers: Sequence[Field] | None = None
        self.lost: str | None = None
        self.events: list[str] = []
        self._then = then

    def bodyReceived(self, data: bytes) -> None:
        self.body.append(data)

    def bodyEnded(self, trailers: Sequence[Field]) -> None:
        self.trailers = trailers
        if self._then is not None:
            self._then(self.call, b"".join(self.body))

    def pauseResponse(self) -> None:
        self.events.append("pause")

    def resumeResponse(self) -> None:
        self.events.append("resume")

    def callLost(self, reason: str) -> None:
        self.lost = reason


def hello(call: Call, body: bytes) -> None:
    """Say what was asked."""
    text = call.request.method + b" " + call.request.target + b" " + body
    call.respond(200, b"OK", [(b"Content-Type", b"text/plain")], len(text))
    call.write(text)
    call.finish()


class ServerCase(Listening, TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.patch(server_factory, "SWEEP", 0.05)
        self.served: list[Script] = []
        self.then: Callable[[Call, bytes], None] | None = hello
        self.now = 0.0
        self.factory = ServerFactory(reactor, self.clock, self.serve, self.refused)
        self.port = self.listen(self.factory)
        self.addCleanup(self.tearAllDown)

    @inlineCallbacks
    def tearAllDown(self) -> Test:
        yield self.port.stopListening()
        self.factory.abortAll()
        yield self.until(lambda: self.factory.connections == 0)

    def clock(self) -> float:
        return self.now

    def serve(self, call: Call) -> Script:
        script = Script(call, self.then)
        self.served.append(script)
        return script

    def refused(self, call: Call, problem: Problem) -> None:
        status, fields, body = problem.response("test")
        call.respond(status, b"", fields, len(body))
        call.write(body)
        call.finish()

    def ask(self, *pieces: bytes, **options: Any) -> Deferred[bytes]:
        return deferToThread(exchange, self.number, *pieces, **options)


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
