"""What the tests of the cache share: routes that have one, and a service that answers as it is told."""

from __future__ import annotations

import os
import socket
import struct
import time
from random import Random

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks, succeed

from hoft.config import Caching, Route
from hoft.web.http.heads import Fields
from hoft.web.ingress import kept_rows
from hoft.web.ingress.caching import rows as cache_rows
from hoft.web.ingress.ingress import Ingress
from tests.web.callers import IngressCase, Received, Response
from tests.web.listening import Test
from tests.web.loopback import Transaction


class CachingCase(IngressCase):
    """
    A route with a cache.

    @ivar now: seconds that the clock is ahead.
    """

    caching = Caching()

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.configure(self.caching)
        self.ahead()

    def configure(self, caching: Caching, retry: str = "idempotent") -> None:
        """This is what the route says of its cache from now on."""
        route = Route("demo", "far", "http://service.example:81/base", retry=retry, cache=caching)
        self.routing = evolve(self.routing, routes=(route,))
        self.ingress.reconfigure(self.routing)

    def ahead(self) -> None:
        """The cache tells the time by C{now}."""
        start = time.time()
        self.ingress.cache.wall = lambda: start + self.now

    @inlineCallbacks
    def restart(self) -> Test:
        """Another process finds what was committed."""
        yield self.port.stopListening()
        yield self.ingress.stop()
        self.near.detach()
        self.ingress = Ingress(
            reactor,
            time.monotonic,
            Random(os.urandom(4)).randbytes,
            self.links,
            self.routing,
            "near",
            lambda: succeed(self.status),
        )
        database = Transaction(self.near.database)
        self.ingress.load(kept_rows.load(database), cache_rows.load(database))
        self.ahead()
        self.near.attach(self.ingress)
        self.port = self.listen(self.ingress.factory)

    def leave(self, caller: socket.socket) -> None:
        """It is gone at once, in place of half-closing first."""
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()

    def answers(self, *fields: tuple[bytes, bytes], status: int = 200, body: bytes = b"content") -> None:
        """So does the service from now on."""
        self.far.then = lambda request: request.answer(status, fields, body)

    @property
    def crossed(self) -> int:
        """How many requests the far side has got."""
        return len(self.far.requests)

    @property
    def last(self) -> Received:
        """The latest of them."""
        return list(self.far.requests.values())[-1]

    def asked(self, request: Received) -> dict[bytes, bytes]:
        """The fields of a request, by their lower-case name."""
        assert request.head is not None
        return {name.lower(): value for name, value in request.head.headers}

    def told(self, response: Response) -> str:
        """Its Cache-Status."""
        [status] = response.fields(b"cache-status")
        return status.decode()


FRESH: Fields = ((b"Cache-Control", b"max-age=60"),)
