"""All connections of callers, of any number of listening ports."""

from __future__ import annotations

from collections.abc import Callable
from resource import RLIMIT_NOFILE, getrlimit
from typing import Any

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from hoft.web.http.problems import Problem
from hoft.web.http.requests import MAX_HEAD
from hoft.web.ingress.calls import Call, CallReceiver
from hoft.web.ingress.server import Connection

SWEEP = 1.0
"""Seconds between looks at all connections."""

MAX_CONNECTIONS = 8192
"""The most callers that are connected, or half of what the process may open if that is less."""


@implementer(IProtocolFactory)
class ServerFactory(protocol.ServerFactory):
    """
    Makes the connections of any number of listening ports.

    @param reactor: for the timer that looks at silent connections.
    @param clock: monotonic seconds.
    @param serve: called with each request's head as soon as it is there.  It
        may answer at once; else it returns who does.
    @param refused: called to answer what is no valid request.
    @param max_head: the most bytes of a request's head.
    @ivar stopping: responses are now the last of their connection.
    @ivar most: so many connections; further ones are closed at once.
    @ivar turned_away: how many were.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        clock: Callable[[], float],
        serve: Callable[[Call], CallReceiver | None],
        refused: Callable[[Call, Problem], None],
        max_head: int = MAX_HEAD,
    ) -> None:
        self.clock = clock
        self.serve = serve
        self.refused = refused
        self.max_head = max_head
        self.stopping = False
        self.most = min(MAX_CONNECTIONS, getrlimit(RLIMIT_NOFILE)[0] // 2)
        self.turned_away = 0
        self._reactor = reactor
        self._connections: set[Connection] = set()
        self._timer: Any = None
        self._empty: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.stopping:
            return None
        if len(self._connections) >= self.most:
            self.turned_away += 1  # files of the journal and of the folder need room, too
            return None
        connection = Connection()
        connection.factory = self
        return connection

    @property
    def connections(self) -> int:
        """How many callers are connected."""
        return len(self._connections)

    def connectionOpened(self, connection: Connection) -> None:
        """For connections."""
        self._connections.add(connection)
        if self._timer is None:
            self._timer = self._reactor.callLater(SWEEP, self._sweep)

    def connectionClosed(self, connection: Connection) -> None:
        """For connections."""
        self._connections.discard(connection)
        if not self._connections and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._empty is not None and not self._connections and not self._empty.called:
            self._empty.callback(None)

    def _sweep(self) -> None:
        self._timer = self._reactor.callLater(SWEEP, self._sweep)
        now = self.clock()
        for connection in list(self._connections):
            connection.sweep(now)

    def drain(self, grace: float) -> Deferred[None]:
        """
        Accept nobody any more, close idle connections now and the others after
        their response, and cut those that are left after C{grace} seconds.

        @return: fires when there is none.
        """
        self.stopping = True
        empty: Deferred[None] = Deferred()
        self._empty = empty
        for connection in list(self._connections):
            connection.closeIfIdle()
        if self._connections:
            cutting = self._reactor.callLater(grace, self.abortAll)
            empty.addCallback(lambda _: cutting.cancel() if cutting.active() else None)
        else:
            empty.callback(None)
        return empty

    def abortAll(self) -> None:
        """Cut every connection."""
        for connection in list(self._connections):
            connection.abort()
