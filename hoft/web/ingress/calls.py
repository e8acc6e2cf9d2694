"""
One call, as whoever serves it sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hoft.web.http.heads import Field
from hoft.web.http.requests import Request, response_head

if TYPE_CHECKING:
    from hoft.web.ingress.server import Connection


class CallReceiver(Protocol):
    """Who serves one call: what L{hoft.web.ingress.server_factory.ServerFactory}'s C{serve} returns."""

    def bodyReceived(self, data: bytes) -> None:
        """More of the request's body; never empty, never after L{Call.pauseBody}."""

    def bodyEnded(self, trailers: Sequence[Field]) -> None:
        """The request is complete.  Called for every request, also without a body."""

    def pauseResponse(self) -> None:
        """The caller does not keep up: write no more than has to be."""

    def resumeResponse(self) -> None:
        """The caller has taken what was written."""

    def callLost(self, reason: str) -> None:
        """
        The caller is gone, or sent rubbish in place of the body's rest, before
        the response was finished.  Nothing more can be written.
        """


class Tunnelled(Protocol):
    """
    Who takes a connection over: a protocol of Twisted's, also an
    L{IHalfCloseableProtocol<twisted.internet.interfaces.IHalfCloseableProtocol>}.
    """

    def makeConnection(self, transport: Any, /) -> None:
        """It is its own from now on."""

    def dataReceived(self, data: bytes, /) -> None:
        """More has come."""

    def readConnectionLost(self) -> None:
        """No more will come."""

    def writeConnectionLost(self) -> None:
        """Nothing more can be written."""

    def connectionLost(self, reason: Any, /) -> None:
        """It is over."""


class Call:
    """
    One request, and the way to answer it.

    Methods do nothing once the call is over (finished, aborted or lost).

    @ivar request: its head.
    @ivar peer: the caller's address, empty where the transport has none.
    @ivar secure: the caller speaks TLS.
    @ivar writable: C{False} between C{pauseResponse} and C{resumeResponse}.
    @ivar responding: the head of the response was given.
    @ivar status: of the response; 0 before its head was given.
    @ivar written: bytes of the response's body that were given.
    @ivar amend: what becomes of the response's status and fields before they are given.
    """

    __slots__ = ("_connection", "amend", "peer", "request", "responding", "secure", "status", "written")

    def __init__(self, connection: Connection, request: Request, peer: str, secure: bool) -> None:
        self.request = request
        self.secure = secure
        self.peer = peer
        self.responding = False
        self.written = 0
        self.status = 0
        self.amend: Callable[[int, list[Field]], list[Field]] | None = None
        self._connection: Connection | None = connection

    @property
    def over(self) -> bool:
        """Nothing can be done with it any more."""
        return self._connection is None

    @property
    def gateway(self) -> str:
        """The URL, without a path, at which the caller has reached us; empty where there is none."""
        here = None if self._connection is None else self._connection.transport.getHost()
        host = str(getattr(here, "host", ""))
        if here is None or not host:
            return ""
        where = f"[{host}]" if ":" in host else host
        return f"{'https' if self.secure else 'http'}://{where}:{here.port}"

    @property
    def writable(self) -> bool:
        return self._connection is not None and self._connection.writable

    def serveBy(self, receiver: CallReceiver) -> None:
        """From now on this one serves it, whoever has until now."""
        if self._connection is not None:
            self._connection.serveBy(receiver)

    def continueBody(self) -> None:
        """Send C{100 (Continue)} if the caller waits for it."""
        if self._connection is not None:
            self._connection.sendContinue()

    def pauseBody(self) -> None:
        """Take no more of the body: the caller is held up."""
        if self._connection is not None:
            self._connection.pauseBody()

    def resumeBody(self) -> None:
        """Go on after L{pauseBody}; may call C{bodyReceived} before it returns."""
        if self._connection is not None:
            self._connection.resumeBody()

    def respond(self, status: int, reason: bytes, fields: Iterable[Field], length: int | None = None) -> None:
        """
        Give the response's head.

        @param fields: end-to-end ones only; how the body is framed, and whether
            the connection is kept, is added here; a Content-Length among them
            only says where C{length} is to stand.
        @param length: of the body, if it is known; also that of a body which
            HEAD or 304 leaves out.
        @raise BadResponse: status, reason or a field are not valid; nothing was written.
        """
        if self._connection is not None:
            self.status = status
            if self.amend is not None:
                fields = self.amend(status, list(fields))
            self._connection.respond(status, reason, fields, length)

    def write(self, data: bytes) -> None:
        """
        Give more of the response's body; left out where the response has none.

        @raise BadResponse: more than C{length}; the connection was aborted.
        """
        if self._connection is not None:
            self.written += len(data)
            self._connection.write(data)

    def tunnel(
        self, fields: Iterable[Field], protocol: Tunnelled, status: int = 200, reason: bytes = b"OK"
    ) -> None:
        """
        Answer, and hand the connection over: what comes from now on is the protocol's, and
        so is what it writes.  The call is over.

        @param status: 200 for CONNECT, 101 for Upgrade.
        @raise BadResponse: a field is not valid; nothing was written.
        """
        if self._connection is not None:
            head = response_head(status, reason, fields)
            self.status = status
            self._connection.tunnel(head, protocol)

    def finish(self, trailers: Iterable[Field] = ()) -> None:
        """
        The response is complete.

        @param trailers: left out where the body is not chunked.
        @raise BadResponse: less than C{length}, or bad trailers; the connection was aborted.
        """
        if self._connection is not None:
            self._connection.finish(trailers)

    def abort(self) -> None:
        """Cut the connection, so that the caller sees the response as incomplete."""
        if self._connection is not None:
            self._connection.abort()

    def detach(self) -> None:
        """For the connection: the call is over."""
        self._connection = None


class Indifferent:
    """A L{CallReceiver} that minds nothing; those to whom something matters inherit the rest."""

    __slots__ = ()

    def bodyReceived(self, data: bytes) -> None:
        """See L{CallReceiver}."""

    def bodyEnded(self, trailers: Sequence[Field]) -> None:
        """See L{CallReceiver}."""

    def pauseResponse(self) -> None:
        """See L{CallReceiver}."""

    def resumeResponse(self) -> None:
        """See L{CallReceiver}."""

    def callLost(self, reason: str) -> None:
        """See L{CallReceiver}."""


IGNORE: CallReceiver = Indifferent()
"""For what still comes of a request that was answered at once."""
