"""Callers, ingress, a link in one process, egress, and a service with real sockets."""

from __future__ import annotations

import time
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks, succeed
from twisted.internet.task import deferLater

from hoft.config import Route
from hoft.web.ingress.ingress import Ingress
from hoft.web.ingress.routing import Routing
from tests.web.callers import Callers
from tests.web.listening import Test
from tests.web.services import EgressCase


class BothSidesCase(Callers, EgressCase):
    def open_route(self, route: Route) -> None:
        """Take calls by this route; to be called once, by C{setUp}."""
        routing = Routing(routes=(route,), deadline=10.0)
        self.ingress = Ingress(
            reactor,
            time.monotonic,
            Random(5).randbytes,
            {"far": self.near_link},
            routing,
            "near",
            lambda: succeed({}),
        )
        self.near_link.attach(self.ingress)
        self.door = self.listen(self.ingress.factory)
        self.addCleanup(self.close)

    @inlineCallbacks
    def close(self) -> Test:
        yield self.door.stopListening()
        self.ingress.factory.abortAll()
        yield self.ingress.stop()
        for _ in range(30):
            yield deferLater(reactor, 0)
