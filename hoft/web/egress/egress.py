"""
Where services are: takes requests that peers send, performs them, and sends back
the responses.

Executing once
==============
A request is performed only when it has arrived as a whole.  If it must not be
repeated, a row that says so is on disk before a connection is made
(L{hoft.web.egress.executions}).  The records of a request stay in the journal until the
commit that queues the last part of its response, so that after a crash

 - a request without a row is performed, (again) if it was under way: it is repeatable;
 - one that was started is answered with C{outcome-unknown};
 - one whose response had begun to cross is broken off with an ABORT;
 - one that was answered is gone, but for records that had not arrived in time, which
   are dropped as they come.

When a peer rolled back
=======================
That is: its state or ours is an older copy, or none.  Parts that had a number in the
old log may never arrive, and it may send requests again, under the ids they had.

 - What has come of requests is kept: what comes again is the same, part by part, and
   is dropped.
 - What runs goes on, and its response crosses in the new log, unless a part of it
   was in the old one: then no whole response can arrive, so the service is cut off
   and an ABORT says so, which needs none of the other parts.
 - A request that comes again after it was answered is performed again if it is
   repeatable; else its row makes the answer C{outcome-unknown}.
 - What stays incomplete because the peer knows nothing of it any more is found by
   poking: when nothing has come for a while we tell it how much it may send, and it
   cancels what it does not know.  So is what a peer that was killed left incomplete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from sys import maxsize
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from hoft.interfaces import Arrival, IArrivalReceiver, ILink, ILossReceiver, Incoming, Lost
from hoft.web.client.agent import ExactAgent
from hoft.web.client.policy import Policy
from hoft.web.crossing.exchange import RESPONSES
from hoft.web.crossing.memory import share
from hoft.web.egress.credentials import Credentials
from hoft.web.egress.executions import TICK
from hoft.web.egress.peer_exchanges import PeerExchanges
from hoft.web.egress.surroundings import Limits
from hoft.web.history import History


@implementer(IArrivalReceiver, ILossReceiver)
class Egress:
    """
    Performs what peers ask for.

    @ivar policy: what they may reach.
    @ivar counts: what was counted since the start.
    @ivar left: for the peers: bytes that requests may still take of the journal's disk.
    @ivar history: of calls that were performed, or were not.
    @ivar stopping: nothing is begun any more.
    """

    def __init__(
        self,
        reactor: Any,
        clock: Callable[[], float],
        policy: Policy,
        pseudonym: str,
        limits: Limits | None = None,
        agent: ExactAgent | None = None,
        credentials: Mapping[str, Credentials] | None = None,
        left: Callable[[], int] = lambda: maxsize,
    ) -> None:
        """
        @param clock: monotonic seconds.
        @param pseudonym: what this node calls itself in Via and Proxy-Status.
        @param agent: makes the connections to services.
        @param credentials: by the names that C{policy} knows them by.
        @param left: bytes that requests may still take of the journal's disk; called often.
        """
        self.left = left
        self.reactor = reactor
        self.clock = clock
        self.policy = policy
        self.pseudonym = pseudonym
        self.limits = limits or Limits()
        self.agent = agent or ExactAgent(reactor)
        self.agent.head_limit = self.limits.response_header
        self.credentials = credentials or {}
        self.counts: Counter[str] = Counter()
        self.history = History()
        self.stopping = False
        self._peers: dict[UUID, PeerExchanges] = {}
        self._ticking: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None
        self._stop_by: float | None = None
        self._last: IDelayedCall | None = None
        self._aged = clock()

    def attach(self, link: ILink) -> Deferred[None]:
        """
        Begin to serve a peer; once for each link, at best before it brings anything.

        @return: fires when what a crash interrupted has been dealt with.
        """
        if self._ticking is None:
            self._ticking = self.reactor.callLater(TICK, self._tick_again)
        peer = self._peers[link.peer] = PeerExchanges(self, link)
        return peer.recover()

    def detach(self, link: ILink) -> None:
        """The peer is not trusted any more: cut off what runs for it."""
        peer = self._peers.pop(link.peer, None)
        if peer is not None:
            peer.stop()

    def reconfigure(
        self,
        policy: Policy,
        credentials: Mapping[str, Credentials] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """
        Let these be in force for requests that come from now on.

        @param limits: without it those that were.
        """
        self.policy = policy
        self.limits = limits or self.limits
        self.agent.head_limit = self.limits.response_header
        self.credentials = credentials or {}
        self.agent.drop_idle()

    def under_way(self, ahead: float) -> Iterator[Callable[[], dict[str, Any]]]:
        """See L{hoft.web.listing.Side.under_way}."""
        now = self.clock()
        return chain.from_iterable(peer.under_way(now, ahead) for peer in list(self._peers.values()))

    def counters(self) -> dict[str, int]:
        """What was counted since the start, by a stable name each, and how many run and wait now."""
        names = ("requests", "performed", "failed", "refused", "cancelled", "interrupted", "malformed_parts")
        peers = self._peers.values()
        return {
            **{name: self.counts[name] for name in names},
            "running": sum(peer.turns.running for peer in peers),
            "queued": sum(peer.turns.queued for peer in peers),
            **self.agent.counters(),
        }

    def stop(self) -> Deferred[None]:
        """
        Begin nothing more; what runs gets C{limits.grace} seconds to end, then it is
        cut off and dealt with at the next start as after a crash.
        """
        self.stopping = True
        if self._ticking is not None and self._ticking.active():
            self._ticking.cancel()
        if self._stopped is None:
            self._stopped = Deferred()
            self._stop_by = self.clock() + self.limits.grace
            self._last = self.reactor.callLater(self.limits.grace, self._cut)
            self.settled()
        return self._stopped

    def share(self) -> int:
        """For the peers: bytes of its response that each exchange may have in memory."""
        return share(sum(peer.turns.running for peer in self._peers.values()))

    def settled(self) -> None:
        """For the peers: something has ended."""
        stopped = self._stopped
        if stopped is not None and not stopped.called and not any(p.busy for p in self._peers.values()):
            self._cut()

    def _cut(self) -> None:
        if self._last is not None and self._last.active():
            self._last.cancel()
        self._stop_by = self._last = None
        for peer in list(self._peers.values()):
            peer.stop()
        self._peers.clear()
        self.agent.stop()
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def tick(self) -> None:
        """
        Do what is due.  Called by our own timer, seldom; whoever has one that does not
        stand still after the wall clock was set back calls it more often.
        """
        now = self.clock()
        aged = now - self._aged >= TICK
        for peer in [peer for peer in self._peers.values() if aged or not peer.quiet]:
            peer.tick(now)
            if aged:
                peer.age()
        if aged:
            self._aged = now
        if self._stop_by is not None and now >= self._stop_by:
            self._cut()

    def _tick_again(self) -> None:
        self._ticking = self.reactor.callLater(TICK, self._tick_again)
        self.tick()

    def _peer(self, link: ILink) -> PeerExchanges:
        peer = self._peers.get(link.peer)
        if peer is None or peer.link is not link:
            self.attach(link)
            peer = self._peers[link.peer]
        return peer

    # --- IRecordReceiver -----------------------------------------------------------------

    def recordArriving(self, link: ILink, record: Incoming) -> Arrival:
        return self._peer(link).arriving(record)

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        if not self.stopping:
            self._peer(link).received(records)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        if link.peer in self._peers:
            self._peers[link.peer].resume()

    def recordsLost(self, link: ILink, lost: Sequence[Lost]) -> None:
        """See L{ILossReceiver}: parts of responses."""
        for one in lost:
            if one.channel == RESPONSES:
                self._peer(link).lost(one)

    def linkChanged(self, link: ILink) -> None:
        """Requests are performed whether or not their peer can be heard."""

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> None:
        if not self.stopping:
            self._peer(link).rolledBack(frozenset(resent))
