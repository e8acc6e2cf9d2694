"""
Calls after which the caller's connection is one to something behind a peer: CONNECT
(RFC 9110 section 9.3.6) to a TCP port, and WebSocket (RFC 6455) to a service that a
route leads to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import RecordError
from hoft.interfaces import ILink
from hoft.web.history import Ended
from hoft.web.http import websocket
from hoft.web.http.forwarding import crossing, deadline, returned
from hoft.web.http.heads import Field, RequestHead, Retry, decode_response, encode_head
from hoft.web.http.problems import (
    REQUEST_ID,
    Refused,
    bad_response,
    headers_too_large,
    internal_error,
    not_allowed,
    not_implemented,
)
from hoft.web.http.requests import BadResponse
from hoft.web.http.targets import Mount, Service, Tunnel
from hoft.web.http.targets import Route as RouteTarget
from hoft.web.ingress.calls import Call, Indifferent, Tunnelled
from hoft.web.ingress.routing import usable
from hoft.web.ingress.standing import of_tunnel
from hoft.web.ingress.waiting import Outcome

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

Over = Callable[[int, int], None]
"""Called when all is over, with how many bytes the caller has sent and was sent."""


class Joined(Tunnelled, Protocol):
    """The caller's end of a tunnel."""

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes that the caller has sent and was sent."""


class Behind(Protocol):
    """A connection behind a peer, to which nobody is connected yet."""

    @property
    def answer(self) -> bytes:
        """What was answered to what was asked."""

    def join(self, over: Over) -> Joined:
        """Let a caller have it; the protocol for the caller's connection."""

    def attach(self, protocol: IProtocol, /) -> None:
        """Let this protocol have it."""

    def abort(self) -> None:
        """Nobody wants it."""


class Tunnels(Protocol):
    """
    What makes connections behind peers.

    The Deferreds fail with L{Refused}, and may be cancelled.  C{within} is how many
    seconds it may take.
    """

    def connect(self, peer: str, exchange: bytes, to: Tunnel, within: float) -> Deferred[Behind]:
        """
        To a TCP port.

        @param exchange: the id of the call, 16 bytes.
        """

    def upgrade(self, peer: str, exchange: bytes, request: bytes, within: float) -> Deferred[Behind]:
        """
        To a service that speaks WebSocket.

        @param exchange: as of L{connect}.
        @param request: of the handshake, as L{encode_head} makes it.
        @return: fires with what has the head of its response as C{answer}.
        """


class Tunnelling:
    """All such calls of one node."""

    def __init__(
        self,
        ingress: Ingress,
        links: Mapping[str, ILink],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        tunnels: Tunnels | None,
    ) -> None:
        """
        @param clock: monotonic seconds.
        @param entropy: so many random bytes.
        @param tunnels: without them such calls are refused.
        """
        self.ingress = ingress
        self.clock = clock
        self._links = links
        self._entropy = entropy
        self._tunnels = tunnels
        self._counts: Counter[str] = Counter()
        self._now: dict[bytes, Connecting] = {}

    def counters(self) -> dict[str, int]:
        """What was counted since the start, and how many there are now."""
        return {"tunnelled": len(self._now)} | {
            name: self._counts[name] for name in ("tunnels", "websockets")
        }

    def under_way(self, now: float, ahead: float) -> Iterator[Callable[[], dict[str, Any]]]:
        """
        What C{hoft requests} shows of each.

        @param ahead: seconds that the wall clock is ahead of ours, which says C{now}.
        """
        for one in list(self._now.values()):
            yield partial(one.described, self._links, now, ahead)

    def connect(self, call: Call, caller: str | None, target: Tunnel) -> Connecting:
        """
        CONNECT: what may be reached is the peer's to say.

        @raise Refused:
        """
        if self._tunnels is None or call.request.length != 0:
            raise Refused(not_implemented("CONNECT with a body, or where nothing makes connections"))
        routing = self.ingress.routing
        peer = usable(routing.peer_for(target.host, self._links), self._links).name
        seconds = deadline(call.request, routing.deadline)
        ended = self._begin("tunnels", call, peer, caller, None)
        one = self._now[ended.id] = Connecting(self, call, ended, seconds)
        one.begin(self._tunnels.connect(peer, ended.id, target, seconds))
        return one

    def upgrade(self, call: Call, caller: str | None, target: RouteTarget | Service) -> Connecting:
        """
        The handshake of WebSocket.

        @raise Refused:
        """
        ingress, request = self.ingress, call.request
        # Whoever sends frames before there is an answer must not have them read as a request.
        request.persistent = False
        mount, service, link = ingress.routing.resolve(target, self._links)
        if mount is None or not mount.websocket:
            where = "by a route alone" if mount is None else "by routes that say so"
            raise Refused(not_allowed(f"WebSocket is carried {where}; see 'hoft route --websocket'"))
        if self._tunnels is None or request.length != 0:
            raise Refused(not_implemented("WebSocket with a body, or where nothing makes connections"))
        websocket.key(request.fields)
        scheme = "https" if call.secure else "http"
        seconds = deadline(request, ingress.routing.deadline)
        head = crossing(request, service, ingress.pseudonym, call.peer, scheme, seconds, retry=Retry.NEVER)
        try:
            asked = encode_head(head)
        except ValueError as error:
            raise Refused(headers_too_large(f"the head cannot cross: {error}")) from None
        ended = self._begin("websockets", call, link.name, caller, mount.name)
        one = self._now[ended.id] = Upgrading(self, call, ended, seconds, mount, head)
        one.begin(self._tunnels.upgrade(link.name, ended.id, asked, seconds))
        return one

    def _begin(self, what: str, call: Call, peer: str, caller: str | None, route: str | None) -> Ended:
        """
        Count it, as calls are.

        @return: what is known now of what will be told of it.
        @raise Refused: it is too much for its caller or its route.
        """
        exchange, request = self._entropy(16), call.request
        self.ingress.accounts.admit(exchange, caller, route)
        self._counts[what] += 1
        return Ended(
            "ingress", exchange, peer, caller, route, request.method, request.target,
            Outcome.GONE.value, 0, None, 0, 0, self.clock(),
        )  # fmt: skip

    def over(self, call: Call, ended: Ended) -> None:
        """One has ended."""
        del self._now[ended.id]
        ended.seconds = self.clock() - ended.seconds
        ended.status = call.status
        self.ingress.accounts.tunnel_ended(ended, call.request.fields)


class Connecting(Indifferent):
    """
    A call with CONNECT, until it is answered; a L{hoft.web.ingress.calls.CallReceiver}.  It has no
    body: what its caller sends is kept until there is a connection.
    """

    _log = Logger()

    def __init__(self, all: Tunnelling, call: Call, ended: Ended, seconds: float) -> None:
        """
        @param ended: C{seconds} is when it began, all else is as if the caller left now.
        @param seconds: in which it must be answered.
        """
        self._all = all
        self._ingress = all.ingress
        self._call = call
        self._ended = ended
        self._seconds = seconds
        self._joined: Joined | None = None
        self._connecting: Deferred[Any]

    def begin(self, connecting: Deferred[Behind]) -> None:
        """This fires with what is to be made of it."""
        self._connecting = connecting
        connecting.addCallback(self._connected).addErrback(self._failed)

    def described(self, links: Mapping[str, ILink], now: float, ahead: float) -> dict[str, Any]:
        """See L{Tunnelling.under_way}."""
        return of_tunnel(
            self._ended,
            links.get(self._ended.peer or ""),
            self._call,
            None if self._joined is None else self._joined.sizes,
            self._seconds,
            now,
            ahead,
        )

    def _connected(self, behind: Behind) -> None:
        id = self._ended.id.hex().encode("ascii")
        self._join(behind, [(b"Date", self._ingress.date()), (REQUEST_ID, id)])

    def _join(
        self, behind: Behind, fields: Sequence[Field], status: int = 200, reason: bytes = b"OK"
    ) -> None:
        self._joined = behind.join(self._over)
        self._call.tunnel(fields, self._joined, status, reason)

    def _over(self, sent: int, received: int, outcome: Outcome = Outcome.ANSWERED) -> None:
        """There was an answer, and all that came after it is over."""
        self._ended.outcome = outcome.value
        self._ended.request_size, self._ended.response_size = sent, received
        self._all.over(self._call, self._ended)

    def _failed(self, failure: Failure) -> None:
        if failure.check(Refused):
            assert isinstance(failure.value, Refused)
            problem = failure.value.problem
        else:
            self._log.failure("A tunnel failed", failure)
            problem = internal_error("the log of this node says why")
        if not self._call.over:
            self._ingress.answer(self._call, problem.during(self._ended.id))
            self._ended.outcome, self._ended.problem = Outcome.PROBLEM.value, problem.kind
        self._all.over(self._call, self._ended)

    def callLost(self, reason: str) -> None:
        """The caller is gone: nobody wants the connection."""
        self._connecting.cancel()


class Upgrading(Connecting):
    """The handshake of WebSocket, until it is answered, and an answer that is none to it."""

    def __init__(
        self,
        all: Tunnelling,
        call: Call,
        ended: Ended,
        seconds: float,
        mount: Mount,
        head: RequestHead,
    ) -> None:
        """@param head: as it crosses."""
        super().__init__(all, call, ended, seconds)
        self._mount = mount
        self._head = head
        self._response: Response | None = None

    def _connected(self, behind: Behind) -> None:
        ingress, call, target = self._ingress, self._call, self._head.target
        try:
            head = decode_response(behind.answer, upgraded=True)
            date, id = ingress.date(), self._ended.id
            fields = returned(head, ingress.pseudonym, date, self._mount, target, call.secure, id)
            if head.status == websocket.SWITCHING:
                self._join(behind, websocket.with_upgrade(fields), head.status, head.reason)
            else:
                call.respond(head.status, head.reason, fields, head.length)
                self._response = Response(call, self._responded)
                behind.attach(self._response)
        except (RecordError, BadResponse) as error:
            behind.abort()
            raise Refused(bad_response(f"what came from the far node is no response: {error}")) from error

    def _responded(self, whole: bool) -> None:
        if not whole:
            self._ended.problem = "response-incomplete"
        self._over(0, self._call.written, Outcome.ANSWERED if whole else Outcome.CUT)

    def pauseResponse(self) -> None:
        """The caller does not keep up."""
        if self._response is not None:
            self._response.transport.pauseProducing()

    def resumeResponse(self) -> None:
        """It has caught up."""
        if self._response is not None:
            self._response.transport.resumeProducing()

    def callLost(self, reason: str) -> None:
        """The caller is gone."""
        super().callLost(reason)
        if self._response is not None:
            self._response.transport.abortConnection()


@implementer(IHalfCloseableProtocol)
class Response(protocol.Protocol):
    """Gives a caller the body of a response, which is all that comes."""

    transport: Any

    def __init__(self, call: Call, over: Callable[[bool], None]) -> None:
        """
        @param call: whose response has begun.
        @param over: called when nothing more comes; says whether the caller has all.
        """
        self._call = call
        self._over = over
        self._whole = False

    def dataReceived(self, data: bytes) -> None:
        try:
            self._call.write(data)
        except BadResponse:  # which has cut the caller's connection
            self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        try:
            self._call.finish()
            self._whole = True
            self.transport.loseConnection()
        except BadResponse:
            self.transport.abortConnection()

    def writeConnectionLost(self) -> None:
        """Nothing is written."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._call.abort()
        self._over(self._whole)
