"""
Where callers are: takes their HTTP calls, sends them to the peer that is to make
them, and hands back the responses.

Nothing of a plain call is kept here beyond its connection: a caller whose node stops
has lost its connection, and would not know an answer that came later for its own.
What the far side still sends for such a call is taken out of the journal, and
answered with one CANCEL.  Where the result is to stay, for those who ask for it later,
the exchange is in the hands of L{hoft.web.ingress.keeper.Keeper}.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http import datetimeToString
from zope.interface import implementer

from hoft.errors import RecordError
from hoft.interfaces import Arrival, IArrivalReceiver, ILink, ILossReceiver, Incoming, LinkState, Lost
from hoft.timers import Soon
from hoft.web.crossing.exchange import (
    Side,
    decode_part,
    whole_of,
)
from hoft.web.crossing.memory import share
from hoft.web.http.forwarding import crossing, deadline
from hoft.web.http.heads import Field, Retry
from hoft.web.http.intermediary import max_forwards
from hoft.web.http.preferences import wish, without_ours
from hoft.web.http.problems import (
    Problem,
    Refused,
    headers_too_large,
    not_implemented,
    too_busy,
    too_large,
)
from hoft.web.http.responses import phrase
from hoft.web.http.targets import Own, Service, Tunnel, parse_target
from hoft.web.http.targets import Route as RouteTarget
from hoft.web.http.websocket import is_handshake
from hoft.web.ingress.accounting import Accounts
from hoft.web.ingress.arriving import Arriving
from hoft.web.ingress.asking import REQUESTS as OWN_REQUESTS
from hoft.web.ingress.asking import Asking
from hoft.web.ingress.caching.cache import Cache
from hoft.web.ingress.caching.rows import Entry
from hoft.web.ingress.callbacks.callbacks import Callbacks
from hoft.web.ingress.callers import Unauthenticated
from hoft.web.ingress.calls import Call, CallReceiver
from hoft.web.ingress.committing import Batches
from hoft.web.ingress.ends import stopped, stopping
from hoft.web.ingress.handover import Handover
from hoft.web.ingress.keeper import Keeper
from hoft.web.ingress.kept_rows import Row
from hoft.web.ingress.limiting import Meters
from hoft.web.ingress.own_pages import OwnPages
from hoft.web.ingress.room import Room
from hoft.web.ingress.routing import Routing
from hoft.web.ingress.server_factory import ServerFactory
from hoft.web.ingress.standing import of_kept, of_waiting
from hoft.web.ingress.submitting import Repetition, Submission
from hoft.web.ingress.sweeping import Sweeper
from hoft.web.ingress.tunnelling import Tunnelling, Tunnels
from hoft.web.ingress.waiting import Outcome, Waiting
from hoft.web.measuring import Metrics
from hoft.web.slices import Slices

MAX_WAITING = 4096
"""The most exchanges under way at once."""

TICK = 0.1
"""Seconds between looks at deadlines."""

GRACE = 2.0
"""Seconds that responses and callbacks under way get when the node stops."""

_COUNTED = ("requests", "stray_parts", "malformed_parts")


@implementer(IArrivalReceiver, ILossReceiver)
class Ingress:
    """
    @ivar factory: for any number of listening ports, on any kind of endpoint.
    @ivar routing: what is in force for new calls.
    @ivar pseudonym: what this node calls itself in Via and Proxy-Status.
    @ivar room: for responses that are coming.
    @ivar keeper: holds the exchanges whose results stay here.
    @ivar handover: brings them there.
    @ivar asking: answers who asks for them.
    @ivar callbacks: sends them to who wants to have them sent.
    @ivar cache: what routes that have one answer calls with.
    @ivar sweeper: for what is much, and is to be committed.
    @ivar slices: for what is much, and is to be shown.
    @ivar accounts: what calls come to, and C{history}: those that have ended.
    @ivar send: asks, as C{consume}, C{take_back}, C{also} and C{commits} do, for something to be
        committed, and C{commit_failed} says that something was not: see L{Batches}.
    @ivar entropy: so many random bytes.
    @ivar later: see L{IReactorTime.callLater<twisted.internet.interfaces.IReactorTime.callLater>}.
    @ivar tickLater: to be called where somebody waits.
    @ivar read: finds out whose records are, and C{remember} that an exchange has ended: see L{Arriving}.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        links: Mapping[str, ILink],
        routing: Routing,
        pseudonym: str,
        status: Callable[[], Deferred[dict[str, Any]]],
        meters: Meters | None = None,
        metrics: Metrics | None = None,
        tunnels: Tunnels | None = None,
        room: Room | None = None,
    ) -> None:
        """
        @param clock: monotonic seconds.
        @param entropy: so many random bytes.
        @param links: by the names of the peers; looked into anew for each call.
        @param status: what C{GET /_hoft/status} shows, ready for JSON.
        @param meters: hold callers and routes to what they may.
        @param metrics: see L{Accounts.measure}.
        @param tunnels: make the connections that CONNECT asks for.
        @param room: on the journal's disk; without it there is always some.
        """
        self.factory = ServerFactory(reactor, clock, self._serve, self.answer)
        self.routing = routing
        self.pseudonym = pseudonym
        self._clock = clock
        self.entropy = entropy
        self._links = links
        self._meters = meters or Meters(time.time, clock)
        self._meters.configure(routing.allowances())
        self.accounts = Accounts(clock, self._meters, metrics)
        self.history = self.accounts.history
        self._tunnelling = Tunnelling(self, links, clock, entropy, tunnels)
        self._waiting: dict[bytes, Waiting] = {}
        self._arriving = Arriving(self, self._waiting)
        self.read = self._arriving.read
        self.remember = self._arriving.remember
        self._counts = self.accounts.counts
        self._ticking = Soon(reactor, TICK, self._ticked)
        self.tickLater = self._ticking.ask
        self._batches = batches = Batches(reactor, self.tickLater)
        self.send = batches.send
        self.consume = batches.consume
        self.take_back = batches.take_back
        self.also = batches.also
        self.commit_failed = batches.failed
        self.later = reactor.callLater
        self.commits = batches.commits
        self.sweeper = Sweeper(reactor, batches.commits)
        self.slices = Slices(reactor)
        self._date = (0, b"")
        self.room = room or Room()
        self.keeper = Keeper(self, clock, links)
        self.handover = Handover(self)
        self.callbacks = Callbacks(self, reactor)
        self.cache = Cache(self, clock, links)
        self.asking = Asking(self)
        self._pages = OwnPages(self, status)

    def load(self, rows: Sequence[Row], stored: Sequence[Entry] = ()) -> None:
        """What an earlier process has kept, and C{stored} in the cache; before any link brings anything."""
        self.keeper.load(rows)
        self.cache.load(stored)

    def reconfigure(self, routing: Routing) -> None:
        """Let C{routing} be in force from now on; calls under way go on as they began."""
        self.routing = routing
        self._meters.configure(routing.allowances())
        self.cache.store.make_room()

    def under_way(self, ahead: float) -> Iterator[Callable[[], dict[str, Any]] | None]:
        """See L{hoft.web.listing.Side.under_way}."""
        now, keeper = self._clock(), self.keeper
        short = self.room.short
        for waiting in list(self._waiting.values()):
            yield partial(of_waiting, waiting, now, ahead, short)
        yield from self._tunnelling.under_way(now, ahead)
        yield from self.cache.under_way(now, ahead)
        for kept in list(keeper.kept.values()):
            yield None if kept.over else partial(of_kept, kept, keeper, now, short)

    def counters(self) -> dict[str, int]:
        """What was counted since the start, by a stable name each."""
        counts = self.accounts.counters() | dict.fromkeys(_COUNTED, 0) | self._counts
        waiting = len(self._waiting) + len(self.cache.calls)
        counts["connections_turned_away"] = self.factory.turned_away
        now = {"waiting": waiting, "connections": self.factory.connections}
        parts = self._tunnelling.counters() | self.keeper.counters() | self.cache.counters()
        return counts | now | parts

    def stop(self) -> Deferred[None]:
        """
        Answer who waits with 503, let responses and callbacks under way come to their
        end for L{GRACE} seconds, then cut what is left.

        @return: fires when no caller is connected any more.
        """
        stopped = self.factory.drain(GRACE)
        for waiting in list(self._waiting.values()):
            if not waiting.responding:
                waiting.fail(stopping(waiting.link.name))
        self.keeper.stop()
        ends = gatherResults([stopped, self.callbacks.stop(GRACE)])
        return ends.addCallback(lambda _: self._stopped())

    def _stopped(self) -> None:
        self.sweeper.stop()
        self.slices.stop()
        self._batches.flush()
        self._ticking.cancel()

    # --- calls --------------------------------------------------------------------

    def _serve(self, call: Call) -> CallReceiver | None:
        self._counts["requests"] += 1
        request = call.request
        caller: str | None = None
        try:
            target = parse_target(request.method, request.target)
            proxied = isinstance(target, Tunnel) or (isinstance(target, Service) and target.absolute)
            caller, request.fields = self.routing.known_callers.identify(request.fields, proxied)
            goes_on, request.fields = max_forwards(request.method, request.fields)
            if isinstance(target, Own) and target.path.startswith(OWN_REQUESTS):
                return self.asking.serve(call, caller, target.path)
            elif isinstance(target, Own):
                self._pages.serve(call, caller, target.path.partition(b"?")[0])
            elif isinstance(target, Tunnel):
                return self._tunnelling.connect(call, caller, target)
            elif not goes_on:
                self._last(call)
            elif request.upgrade and is_handshake(request):
                return self._tunnelling.upgrade(call, caller, target)
            elif (
                self.routing.caches and isinstance(target, RouteTarget) and target.name in self.routing.caches
            ):
                return self.cache.serve(call, caller, target, self.routing.caches[target.name])
            else:
                return self.cross(call, caller, target)
        except Unauthenticated as unknown:
            self._refuse(call, caller, unknown.problem, unknown.challenges)
        except Refused as refused:
            self._refuse(call, caller, refused.problem)
        return None

    def _refuse(self, call: Call, caller: str | None, problem: Problem, fields: Sequence[Field] = ()) -> None:
        """Answer a call that has not begun; it gets an id all the same, under which the log knows it."""
        exchange = self.entropy(16)
        self.answer(call, problem.during(exchange), fields)
        self.accounts.refused(call, exchange, caller, problem)

    def cross(
        self, call: Call, caller: str | None, target: RouteTarget | Service, admitted: bytes | None = None
    ) -> CallReceiver:
        """
        A call goes to the peer that is to make it.

        @param admitted: the id by which it counts already.
        @raise Refused: it does not.
        """
        routing, request = self.routing, call.request
        wanted = wish(request.fields, routing.result_ttl > 0)
        if wanted is not None and wanted.callback is not None:
            self.callbacks.check(wanted.callback, caller)
        detached = wanted is not None and wanted.detached
        mount, service, link = routing.resolve(target, self._links, waits=not detached)
        seconds = deadline(request, routing.async_deadline if detached else routing.deadline)
        if request.length is not None and request.length > routing.max_request_body:
            raise Refused(too_large(f"the body is larger than {routing.max_request_body} bytes"))
        if len(self._waiting) >= MAX_WAITING:
            raise Refused(too_busy(f"{MAX_WAITING} calls are under way already"))
        scheme = "https" if call.secure else "http"
        if detached:
            request.fields = without_ours(request.fields)
        told = wanted is not None
        retry = Retry.IDEMPOTENT if mount is None else mount.retry
        head = crossing(request, service, self.pseudonym, call.peer, scheme, seconds, told, retry)
        due, exchange = self._clock() + seconds, admitted or self.entropy(16)
        try:
            if wanted is None:
                waiting = Waiting(self, link, call, exchange, head, mount, due, caller)
            elif (before := self.keeper.before(caller, wanted.key, link)) is not None:
                call.continueBody()
                return Repetition(self, before, call, head, self.asking.accepted)
            else:
                waiting = Submission(self, link, call, exchange, head, mount, due, caller, wish=wanted)
        except ValueError as error:
            raise Refused(headers_too_large(f"the head cannot cross: {error}")) from None
        if admitted is None:
            self.accounts.admit(exchange, caller, None if mount is None else mount.name)
        if wanted is not None:
            self.keeper.reserve(caller, wanted.key)
        self._waiting[waiting.id] = waiting
        self.tickLater()
        call.continueBody()
        return waiting

    def _last(self, call: Call) -> None:
        """OPTIONS or TRACE that Max-Forwards has end here (RFC 9110 section 7.6.2)."""
        if call.request.method == b"TRACE":
            raise Refused(not_implemented("TRACE is not answered by this gateway itself"))
        self.respond(call, 204, [(b"Allow", b"*")], b"")

    def answer(self, call: Call, problem: Problem, fields: Sequence[Field] = ()) -> None:
        """Respond with a problem."""
        status, described, body = problem.response(self.pseudonym)
        self._counts[f"problem_{status}"] += 1
        self.respond(call, status, [*described, *fields], body)

    def respond(self, call: Call, status: int, fields: list[Field], body: bytes) -> None:
        """Answer for the gateway itself."""
        length = len(body)
        call.respond(status, phrase(status), [*fields, (b"Date", self.date())], length)
        call.write(body)
        call.finish()

    def date(self) -> bytes:
        """Now, as Date wants it."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, datetimeToString(now))
        return self._date[1]

    # --- for the exchanges ---------------------------------------------------------

    def share(self) -> int:
        """Bytes of its response that each may have in memory."""
        return share(len(self._waiting) + len(self.cache.calls))

    def ended(self, waiting: Waiting, outcome: Outcome) -> None:
        """Nothing more will come of it."""
        del self._waiting[waiting.id]
        self.remember(waiting.id)
        self.accounts.ended(waiting)
        self.accounts.told(waiting, outcome)

    def adopt(self, waiting: Waiting, records: Sequence[int]) -> None:
        """
        Somebody else's exchange is that of a caller who waits.

        @param records: that have come of its response.
        """
        self._waiting[waiting.id] = waiting
        self.tickLater()
        self.read(waiting.link, records)

    def give_up(self, waiting: Waiting) -> None:
        """Somebody else has the exchange from now on."""
        del self._waiting[waiting.id]

    # --- time ------------------------------------------------------------------------

    def tick(self) -> None:
        """
        Let go of callers that have waited long enough.  Called by our own timer;
        whoever has a better one (the reactor's stands still after its clock was
        set back) may call it as well.
        """
        now = self._clock()
        for waiting in list(self._waiting.values()):
            if waiting.due <= now:
                waiting.expire()
        self.keeper.tick(now)
        self.room.tick(now)
        self.cache.tick(now)
        self.callbacks.tick(now)
        self._batches.flush()

    def _ticked(self) -> None:
        self.tick()
        if self._waiting or self._batches.waiting or not self.keeper.quiet:
            self.tickLater()

    # --- IRecordReceiver ---------------------------------------------------------------

    def recordArriving(self, link: ILink, record: Incoming) -> Arrival:
        """
        See L{IArrivalReceiver}: a whole response goes to the caller that is connected, and
        need not be there after this process.
        """
        exchange = whole_of(record.payload)
        waiting = None if exchange is None else self._waiting.get(exchange)
        if waiting is None or waiting.link is not link or not waiting.answerable or record.payload is None:
            return Arrival.STORE
        try:
            message = decode_part(record.payload, Side.EGRESS)
        except RecordError:
            return Arrival.STORE  # where what is malformed is told of
        waiting.answered(message)
        return Arrival.DONE

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        """See L{IRecordReceiver}: parts of responses."""
        self._arriving.received(link, records)

    def recordsLost(self, link: ILink, lost: Sequence[Lost]) -> None:
        """See L{ILossReceiver}: parts of requests."""
        self._arriving.lost(link, lost)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        """A call is over when it is answered, not when it has arrived; but one may want to know."""
        self.keeper.recordsAcknowledged(link, ids)

    def linkChanged(self, link: ILink) -> None:
        """
        While it is only down, what is under way may yet be answered in time; what
        was stopped waits for a person.
        """
        if link.state is LinkState.STOPPED:
            for waiting in self._of(link):
                waiting.fail(stopped(link.name))
        self.cache.linkChanged(link)

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> Deferred[None]:
        """See L{IRecordReceiver}."""
        self._arriving.forget()
        still = frozenset(resent)
        for waiting in self._of(link):
            waiting.rolledBack(still)
        self.cache.peerRolledBack(link, still)
        decided = self.keeper.peerRolledBack(link, still)
        self._batches.flush()
        return decided

    def _of(self, link: ILink) -> list[Waiting]:
        return [waiting for waiting in self._waiting.values() if waiting.link is link]
