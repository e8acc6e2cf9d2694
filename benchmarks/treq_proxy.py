"""The yardstick, a plain proxy of twisted.web and treq: C{python -m benchmarks.treq_proxy PORT URL}."""

from __future__ import annotations

import sys
from typing import Any

import treq
from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"transfer-encoding",
    b"content-length",
    b"host",
    b"te",
    b"upgrade",
}


class Forward(Protocol):
    """Hands the body of a response on, no faster than the caller takes it."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def connectionMade(self) -> None:
        self.request.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self.request.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.request.unregisterProducer()
        self.request.finish()


class Proxy(Resource):
    """Sends each request to the service, and its answer back."""

    isLeaf = True

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base.rstrip("/")
        pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = 100
        self.client = treq.client.HTTPClient(Agent(reactor, pool=pool))

    def render(self, request: Request) -> int:
        headers = Headers()
        for name, values in request.requestHeaders.getAllRawHeaders():
            if name.lower() not in HOP_BY_HOP:
                headers.setRawHeaders(name, values)
        assert request.content is not None
        body = None if request.method == b"GET" else FileBodyProducer(request.content)
        answer = self.client.request(
            request.method.decode(),
            self.base + request.uri.decode(),
            headers=headers,
            data=body,
            unbuffered=True,
        )
        answer.addCallback(self.respond, request).addErrback(self.fail, request)
        return NOT_DONE_YET

    def respond(self, response: Any, request: Request) -> None:
        request.setResponseCode(response.code)
        for name, values in response.headers.getAllRawHeaders():
            if name.lower() not in HOP_BY_HOP:
                request.responseHeaders.setRawHeaders(name, values)
        if isinstance(response.length, int):
            request.setHeader(b"content-length", b"%d" % response.length)
        response.deliverBody(Forward(request))

    def fail(self, failure: Failure, request: Request) -> None:
        failure.printTraceback()
        request.setResponseCode(502)
        request.finish()


def main(port: str, base: str) -> None:
    """Serve until killed."""
    endpoints.serverFromString(reactor, f"tcp:{port}:backlog=512:interface=127.0.0.1").listen(
        Site(Proxy(base))
    )
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
