"""
One call that a cache may have an answer to.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, ClassVar

from attrs import define, evolve, field
from twisted.python.failure import Failure

from hoft.config import Caching
from hoft.errors import PayloadLost, RecordError
from hoft.interfaces import ILink, LinkState
from hoft.web.http.fields import FieldList, without
from hoft.web.http.forwarding import returned
from hoft.web.http.heads import ResponseHead
from hoft.web.http.problems import (
    Problem,
    Refused,
    bad_response,
    internal_error,
    not_stored,
    peer_silent,
)
from hoft.web.http.requests import BadResponse
from hoft.web.http.targets import Mount, Service
from hoft.web.http.targets import Route as RouteTarget
from hoft.web.ingress.caching.keys import url_of
from hoft.web.ingress.caching.policy import Asked, Use, judge, not_modified, unchanged, usable_on_error
from hoft.web.ingress.caching.rows import Entry
from hoft.web.ingress.calls import IGNORE, Call, CallReceiver, Indifferent
from hoft.web.ingress.ends import stopping
from hoft.web.ingress.routing import usable
from hoft.web.ingress.streaming import ResponseStream, source_of
from hoft.web.ingress.waiting import Outcome

if TYPE_CHECKING:
    from hoft.web.ingress.caching.cache import Cache
    from hoft.web.ingress.caching.fetch import Fetch
    from hoft.web.ingress.ingress import Ingress


@define(eq=False, repr=False)
class CachedCall(Indifferent):
    """
    A L{hoft.web.ingress.calls.CallReceiver}: answered with what is stored, or with what a L{Fetch} brings,
    or it goes its own way, as a call on a route without cache.

    @ivar call: the caller's end of it.
    @ivar asked: what it says to caches.
    @ivar url: of the service, with C{partition} the key.
    @ivar due: (clock of the ingress) when its caller has waited long enough.
    @ivar over: nothing will come of it any more, from here.
    @ivar crosses: a L{Fetch} is known to the peer by its id.
    @ivar found: what was stored when it came, and may be of use yet.
    @ivar fetch: what it waits for, and C{live}: what it reads while that is being stored.
    @ivar spent: records of a response that were handed on.
    """

    requested: ClassVar = True
    held_up_by: ClassVar = None

    _cache: Cache
    call: Call
    id: bytes
    caller: str | None
    _target: RouteTarget
    mount: Mount
    service: Service
    link: ILink
    caching: Caching
    asked: Asked
    partition: bytes
    seconds: float
    url: bytes = field(init=False)
    begun: float = field(init=False)
    due: float = field(init=False)
    crosses: bool = field(default=False, init=False)
    found: Entry | None = field(default=None, init=False)
    fetch: Fetch | None = field(default=None, init=False)
    live: Fetch | None = field(default=None, init=False)
    executing: float | None = field(default=None, init=False)
    problem: str | None = field(default=None, init=False)
    spent: int = field(default=0, init=False)
    over: bool = field(default=False, init=False)
    _ingress: Ingress = field(init=False)
    _delegate: CallReceiver = field(default=IGNORE, init=False)
    _head: ResponseHead = field(init=False)
    _fields: FieldList = field(factory=list, init=False)
    _entry: Entry | None = field(default=None, init=False)
    _stream: ResponseStream | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._ingress = self._cache.ingress
        self.url = url_of(self.service)
        self.begun = self._cache.clock()
        self.due = self.begun + self.seconds

    @property
    def key(self) -> bytes:
        """Of what is stored for it."""
        return self.partition + self.url

    @property
    def accepted(self) -> float:
        """(clock of the ingress) when what it waits for was in the journal; 0: it is not yet."""
        return self.begun if self.fetch is None else self.fetch.accepted

    @property
    def first(self) -> int | None:
        """The id of the first record of the request that crosses, and C{last} that of its last."""
        return None if self.fetch is None else self.fetch.first

    @property
    def last(self) -> int:
        """See C{first}."""
        return 0 if self.fetch is None else self.fetch.last

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of both bodies, so far."""
        return 0, self.call.written

    def took(self, now: float) -> float:
        """Seconds since it began."""
        return now - self.begun

    # --- what to do -----------------------------------------------------------------------

    def begin(self) -> None:
        """Answer it from what is stored, or see to it that it is answered."""
        cache, request = self._cache, self.call.request
        self.found = found = cache.store.find(self.url, self.partition, request.fields)
        if found is not None:
            use = judge(found.stored, self.asked, self.caching, cache.wall())
            if use is not Use.CHECK:
                if use is Use.REFRESH:
                    cache.refresh(self)
                self._hit(found)
                return
        if self.asked.only_if_cached:
            self.refuse(not_stored())
            return
        try:
            usable(self.link.name, cache.links)
        except Refused as refused:
            self.fail(refused.problem)
            return
        if self.link.state is LinkState.LATE and self.usable_stale:
            cache.refresh(self)
            self.serve_stale()
        elif request.method == b"HEAD":
            self.alone("uri-miss" if found is None else "stale")
        else:
            cache.join(self)

    def _hit(self, entry: Entry) -> None:
        self._cache.counts["cache_hits"] += 1
        self.serve(entry, "hit")

    @property
    def usable_stale(self) -> bool:
        """What was found is better than an error."""
        found = self.found
        return (
            found is not None
            and not found.dropped
            and usable_on_error(found.stored, self.asked, self.caching, self._cache.wall())
        )

    def serve_stale(self, forwarded: int | None = None) -> None:
        """Answer it with what was found: there is nothing better."""
        assert self.found is not None
        self._cache.counts["cache_stale"] += 1
        how = "hit" if forwarded is None else f"fwd=stale; fwd-status={forwarded}"
        self.serve(self.found, f"{how}; detail=stale-if-error")

    def fail(self, problem: Problem) -> None:
        """There is no answer but this: or what is stored."""
        if self.usable_stale:
            self.serve_stale()
        else:
            self.refuse(problem)

    def refuse(self, problem: Problem) -> None:
        """Answer it with a problem."""
        self._leave()
        self.problem = problem.kind
        self._ingress.answer(self.call, problem.during(self.id))
        self._end(Outcome.PROBLEM)

    def alone(self, forward: str) -> None:
        """
        Let it go as on a route without cache.

        @param forward: why (RFC 9211 section 2.2).
        """
        self._leave()
        self._done()
        if self.crosses:
            self.id = self._ingress.accounts.renamed(self.id, self._ingress.entropy(16))
        self.call.amend = self._cache.note(f"fwd={forward}")
        try:
            self._delegate = self._ingress.cross(self.call, self.caller, self._target, self.id)
        except Refused as refused:
            self.refuse(refused.problem)
        else:
            self._delegate.bodyEnded(())

    def adopted(self, receiver: CallReceiver) -> None:
        """Somebody else answers it, by its id."""
        self._leave()
        self._done()
        self._delegate = receiver

    # --- answers --------------------------------------------------------------------------

    def serve(self, entry: Entry, how: str, live: Fetch | None = None, aged: bool = True) -> None:
        """
        Answer it with what is stored.

        @param how: for Cache-Status.
        @param live: it is being stored by this.
        @param aged: the service has not made or confirmed it for this call.
        """
        if entry.dropped:
            self.alone("miss")
            return
        try:
            if self._headed(entry, how, aged):
                return
        except (RecordError, BadResponse) as error:
            self._cache.store.drop(entry)
            self.contradicted(RecordError(str(error)))
            return
        self._leave()
        self._entry, self.live = entry, live
        self._cache.store.take(entry)
        if live is not None:
            live.readers.add(self)
            self._ingress.keeper.waiters.add(self)
        self._stream = ResponseStream(self, source_of(entry))
        self._stream.advance()

    def whole(self, entry: Entry, body: bytes, how: str, aged: bool) -> None:
        """
        As L{serve}, of a response whose body is here.

        @raise RecordError: it is none.
        """
        try:
            if self._headed(entry, how, aged):
                return
            self.call.respond(self._head.status, self._head.reason, self._fields, self._head.length)
            self.call.write(body)
            self.finished([])
        except BadResponse as error:
            raise RecordError(str(error)) from error

    def _headed(self, entry: Entry, how: str, aged: bool) -> bool:
        """
        See what its head is to be.

        @return: that was all there is to answer.
        """
        now, stored, call, ingress = self._cache.wall(), entry.stored, self.call, self._ingress
        head = self._head = entry.head
        target, secure = self.service.target, call.secure
        fields = returned(head, ingress.pseudonym, ingress.date(), self.mount, target, secure, self.id)
        if aged:
            fields = [*without(fields, (b"age",)), (b"Age", b"%d" % stored.age(now))]
            left = stored.left(self.caching, now)
            how += f"; ttl={int(left)}" if isfinite(left) else ""
        self._fields = fields = self._cache.status(fields, how)
        if unchanged(stored, self.asked):
            call.respond(304, b"Not Modified", not_modified(fields), None)
        elif call.request.method == b"HEAD":
            call.respond(head.status, head.reason, fields, head.length)
        else:
            return False
        self.finished([])
        return True

    # --- Awaiting -------------------------------------------------------------------------

    def headReceived(self, encoded: bytes) -> int | None:
        """See L{hoft.web.ingress.streaming.Awaiting}: what is stored apart is newer than that."""
        head = self._head
        self.call.respond(head.status, head.reason, self._fields, head.length)
        return head.length

    def finished(self, fields: FieldList) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}."""
        self.call.finish(fields)
        self._leave()
        self._end(Outcome.ANSWERED)

    def contradicted(self, error: RecordError) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}."""
        self._ingress.log.warn("What was stored is no response: {error}", error=error)
        self._break(bad_response(f"what was stored is not a response: {error}"))

    def unreadable(self, failure: Failure) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}."""
        if failure.check(PayloadLost):
            if self._entry is not None:
                self._entry.records = self._entry.records[:0]
            self._drop()
            if self.call.responding:
                self.cut()
            else:
                self._release()
                self.alone("miss")
        else:
            self._ingress.log.failure("What is stored could not be read from the journal", failure)
            self._break(internal_error("what is stored could not be read from the journal"))

    def _drop(self) -> None:
        """What it reads is of no use."""
        if self._entry is not None:
            self._cache.store.drop(self._entry)
        if self.live is not None:
            self.live.outdated = True

    def _break(self, problem: Problem) -> None:
        self._drop()
        if self.call.responding:
            self.cut()
        else:
            self.refuse(problem)

    def cut(self) -> None:
        """What comes is not what it began as."""
        self.call.abort()
        self._end(Outcome.CUT)

    def handedOn(self, taken: int, accepted: int) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}: what it has let go of counts."""

    def consume(self, records: list[int]) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}: they stay, for the next who asks."""
        self.spent += len(records)
        if self.live is not None:
            self.live.passed()

    def share(self) -> int:
        """See L{hoft.web.ingress.streaming.Awaiting}."""
        return self._ingress.share()

    def advance(self) -> None:
        """More of what it reads is here."""
        if self._stream is not None and not self.over:
            self._stream.advance()

    @property
    def handed_on(self) -> int:
        """What of the credit of its response it has used up."""
        return 0 if self._stream is None else self._stream.handed_on

    # --- Waiter ---------------------------------------------------------------------------

    def expire(self) -> None:
        """Its caller has waited long enough: what it waited for may be of use to the next."""
        if self.fetch is not None:
            self.fetch.lasts = True
            detail = (
                f"no answer through {self.link.name} within {self.seconds:g} s; the call goes on, and its"
            )
            problem = peer_silent(self.link.name, self.seconds)
            self.fail(
                evolve(problem, detail=f"{detail} answer is for whoever asks next, if it may be stored")
            )
        elif self.live is None or self.live.over:
            self._ingress.keeper.waiters.discard(self)
        else:
            self.cut()

    def stop(self) -> None:
        """The node stops."""
        if self._stream is None:
            self.refuse(stopping(self.link.name))

    # --- CallReceiver ---------------------------------------------------------------------

    def pauseResponse(self) -> None:
        self._delegate.pauseResponse()

    def resumeResponse(self) -> None:
        self._delegate.resumeResponse()
        self.advance()

    def callLost(self, reason: str) -> None:
        self._delegate.callLost(reason)
        if not self.over:
            self._leave()
            self._end(Outcome.GONE)

    # --- ends -----------------------------------------------------------------------------

    def _leave(self) -> None:
        """Wait no more."""
        self._ingress.keeper.waiters.discard(self)
        fetch, self.fetch = self.fetch, None
        if fetch is not None:
            fetch.left(self)

    def _release(self) -> None:
        """Read no more."""
        self._ingress.keeper.waiters.discard(self)
        entry, live = self._entry, self.live
        self._entry = self._stream = self.live = None
        if entry is not None:
            self._cache.store.release(entry)
        if live is not None:
            live.readerLeft(self)

    def _done(self) -> None:
        self.over = True
        self._cache.calls.discard(self)

    def _end(self, outcome: Outcome) -> None:
        self._done()
        self._release()
        self._ingress.accounts.ended(self)
        self._ingress.accounts.told(self, outcome)
