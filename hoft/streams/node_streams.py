"""The streams of one node: all its links, what they may reach, and what they are counted as."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import LinkClosed
from hoft.interfaces import CommitResult, ILink, Incoming, IRecordReceiver
from hoft.streams import registry
from hoft.streams.calls import StreamCalls
from hoft.streams.epochs import Epochs
from hoft.streams.failures import StreamRefused, StreamReset, StreamTimedOut
from hoft.streams.multiplexer import Accepted, Multiplexer
from hoft.streams.parts import ID, MAX_SAID, TCP
from hoft.streams.reaching import TcpPolicy, TcpTargets, tcp_target
from hoft.streams.splicing import Splice
from hoft.streams.stream import Stream
from hoft.streams.surroundings import StreamAddress
from hoft.streams.websockets import Calling, WebSocketServices
from hoft.web.history import History
from hoft.web.http import websocket
from hoft.web.http.problems import (
    Refused,
    connection_terminated,
    headers_too_large,
    not_allowed,
    peer_silent,
    peer_unavailable,
)
from hoft.web.http.targets import Tunnel
from hoft.web.ingress.tunnelling import Behind, Joined, Over

GRACE = 1.0
"""Seconds that peers get to hear that the node stops."""


@frozen
class _Opened:
    """A stream that was accepted; see L{Behind}."""

    stream: Stream
    answer: bytes

    def join(self, over: Over) -> Joined:
        caller, far = Splice(over), Splice()
        caller.join(far)
        self.stream.attach(far)
        return caller

    def attach(self, protocol: IProtocol) -> None:
        self.stream.attach(protocol)

    def abort(self) -> None:
        self.stream.abortConnection()


COUNTED = (
    "opened",
    "offered",
    "accepted",
    "refused",
    "bytes_sent",
    "bytes_received",
    "stale_parts",
    "malformed_parts",
)


@implementer(IRecordReceiver)
class NodeStreams:
    """
    @ivar name: what the node calls itself.
    @ivar targets: what peers may reach by TCP.
    @ivar history: of streams that were opened for programs and ports.
    """

    def __init__(
        self,
        name: str,
        reactor: Any,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        policy: TcpPolicy,
        calling: Calling,
    ) -> None:
        """
        @param clock: monotonic seconds.
        @param entropy: so many random bytes.
        @param calling: what is in force for calls that this node makes for peers.
        """
        self.name = name
        self.targets = TcpTargets(reactor, policy)
        self.history = History()
        self._websockets = WebSocketServices(calling)
        self._opened = StreamCalls("ingress", self.history, clock)
        self._offered = StreamCalls("egress", calling.history, clock)
        self._reactor = reactor
        self._clock = clock
        self._entropy = entropy
        self._links: dict[UUID, Multiplexer] = {}
        self._counts: Counter[str] = Counter()

    def attach(self, link: ILink) -> Deferred[None]:
        """Take up a link that is open; fires when streams to the peer can be opened."""
        streams = self._links[link.peer] = Multiplexer(
            link, self.name, self._reactor, self._clock, self._entropy, self._accept, self._counts
        )
        return streams.begin()

    def detach(self, link: ILink) -> None:
        """The peer is not trusted any more: its streams are lost."""
        streams = self._links.pop(link.peer, None)
        if streams is not None:
            streams.close()

    def stop(self) -> Deferred[None]:
        """
        Reset all streams.

        @return: fires when the peers know, or after L{GRACE} seconds.
        """
        waiting = gatherResults([streams.stop() for streams in self._links.values()])
        done: Deferred[None] = Deferred()
        late: IDelayedCall = self._reactor.callLater(GRACE, done.callback, None)

        def told(_: object) -> None:
            if late.active():
                late.cancel()
                done.callback(None)

        waiting.addCallback(told)
        return done.addCallback(self._close)

    def _close(self, _: object) -> None:
        for streams in self._links.values():
            streams.close()
        self._links.clear()

    def open(self, peer: str, target: str, within: float, through: str | None = None) -> Stream:
        """
        Open a stream that is a call of its own.

        @param peer: what our configuration calls it.
        @param target: see L{StreamAddress}.
        @param within: seconds in which it must be accepted.
        @param through: what it is for, if that has a name.
        @raise StreamRefused: there is no use in trying.
        """
        streams = self._to(peer)
        stream = streams.open(target, within, self._entropy(ID))
        self._opened.begin(stream, streams.link, through)
        return stream

    def _to(self, peer: str) -> Multiplexer:
        for streams in self._links.values():
            if streams.peer == peer:
                return streams
        raise StreamRefused(peer_unavailable(peer, "this node does not trust it, or not any more"))

    def under_way(self, ahead: float) -> Iterator[Callable[[], dict[str, Any]]]:
        """See L{hoft.web.listing.Side.under_way}."""
        return chain(self._opened.under_way(ahead), self._offered.under_way(ahead))

    def connect(self, peer: str, exchange: bytes, to: Tunnel, within: float) -> Deferred[Behind]:
        """See L{hoft.web.ingress.tunnelling.Tunnels.connect}."""
        return self._reach(peer, tcp_target(to.host, to.port), within, exchange)

    def upgrade(self, peer: str, exchange: bytes, request: bytes, within: float) -> Deferred[Behind]:
        """See L{hoft.web.ingress.tunnelling.Tunnels.upgrade}."""
        asked = exchange + request
        if len(asked) > MAX_SAID:
            return fail(Refused(headers_too_large(f"a handshake has at most {MAX_SAID} bytes")))
        return self._reach(peer, websocket.TARGET, within, asked)

    def _reach(self, peer: str, target: str, within: float, asked: bytes) -> Deferred[Behind]:
        def accepted(answer: bytes) -> Behind:
            return _Opened(stream, answer)

        def failed(failure: Failure) -> Failure:
            if failure.check(StreamRefused):
                assert isinstance(failure.value, StreamRefused)
                return Failure(Refused(failure.value.problem))
            if failure.check(StreamTimedOut):
                return Failure(Refused(peer_silent(peer, within)))
            if failure.check(StreamReset):
                detail = f"{peer} gave it up: {failure.getErrorMessage()}"
                return Failure(Refused(connection_terminated(detail)))
            return failure

        try:
            stream = self._to(peer).open(target, within, asked)
        except StreamRefused:
            return fail(failed(Failure()))
        return stream.when_accepted().addCallbacks(accepted, failed)

    def tick(self) -> None:
        """Called now and then, by a monotonic clock."""
        for streams in [streams for streams in self._links.values() if not streams.quiet]:
            streams.tick()

    def counters(self) -> dict[str, int]:
        """What was counted since the start, by a stable name each, and how many are open."""
        streams = sum(streams.open_streams for streams in self._links.values())
        return {"open": streams, **{name: self._counts[name] for name in COUNTED}}

    def _accept(self, peer: str, stream: Stream, asked: bytes) -> Deferred[Accepted]:
        """See L{hoft.streams.multiplexer.Acceptor}."""
        call = self._offered.begin(stream, self._to(peer).link)
        if stream.target == websocket.TARGET:
            accepting = maybeDeferred(self._websockets.connect, peer, call, asked[ID:])
        else:
            accepting = maybeDeferred(self._connect, peer, stream.target)
        return accepting.addErrback(call.refused)

    def _connect(self, peer: str, target: str) -> Deferred[Accepted]:
        if target.startswith(TCP):
            return self.targets.connect(peer, target)
        service = registry.service(target, self.name, peer)
        address = StreamAddress(peer)
        protocol = service.factory.buildProtocol(address) if service is not None else None
        if protocol is None:
            raise Refused(not_allowed(f"the far node offers no service {target[:60]!r} to {peer}"))
        return succeed(Accepted(protocol))

    # --- IRecordReceiver -----------------------------------------------------------------

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        """See L{IRecordReceiver}."""
        self._links[link.peer].received(records)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        """See L{IRecordReceiver}."""
        streams = self._links.get(link.peer)
        if streams is not None:
            streams.acknowledged(ids)

    def linkChanged(self, link: ILink) -> None:
        """Streams wait for as long as it takes."""

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> None:
        """See L{IRecordReceiver}."""
        streams = self._links.get(link.peer)
        if streams is not None:
            streams.rolled_back()
        else:
            # It is told when the link is opened, too.
            marking: Deferred[CommitResult[int]] = link.commit((), (), Epochs(link.peer.bytes).begin_log)
            marking.addErrback(lambda failure: failure.trap(LinkClosed))
