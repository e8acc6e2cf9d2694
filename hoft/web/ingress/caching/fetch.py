"""
One GET that crosses for all who wait for the same (collapsed forwarding), and what is stored of
its response.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from hoft.errors import RecordError
from hoft.interfaces import CommitResult, ILink, Outgoing
from hoft.web.crossing.exchange import (
    REQUESTS,
    WINDOW,
    Kind,
    Part,
    PartWriter,
    Side,
    decode_abort,
    decode_message,
    encode_cancel,
    encode_credit,
    flow_of,
)
from hoft.web.crossing.reassembly import Reassembler
from hoft.web.http.forwarding import repeatable
from hoft.web.http.heads import RequestHead, ResponseHead, decode_response, encode_head
from hoft.web.http.problems import Problem, bad_response, peer_silent
from hoft.web.ingress.caching.call import CachedCall
from hoft.web.ingress.caching.keys import variant, varying
from hoft.web.ingress.caching.policy import ERRORS, confirms, freshened, shareable, storable
from hoft.web.ingress.caching.rows import Entry
from hoft.web.ingress.ends import not_committed, restored
from hoft.web.ingress.room import STEP
from hoft.web.ingress.waiting import Waiting

if TYPE_CHECKING:
    from hoft.web.ingress.caching.cache import Cache


AT_ONCE: Final = 64
"""Calls that are answered in one turn of the reactor."""


class Fetch:
    """
    Its response is known by its head: what may be stored is taken in as fast as it comes, and read
    from the journal by each who waits at a pace of its own.  What may not goes to the first who
    waits, as on a route without cache, and the others go their own way.

    @ivar id: of the exchange.
    @ivar key: of the requests that may wait for it.
    @ivar checked: what is stored already, and is asked about.
    @ivar waiting: those who wait for the head; C{leader} is whose request crosses.
    @ivar readers: those who read what is being stored.
    @ivar entry: what is being stored.
    @ivar over: nothing more comes of it.
    @ivar lasts: it goes on also when nobody waits.
    @ivar outdated: what comes must not be stored, since something has changed.
    @ivar first: the id of the request's first record, and C{last} of its last, once they are committed.
    @ivar begun: (clock of the ingress) when it began; C{accepted}, when they were.
    @ivar until: (clock of the ingress) when it is given up.
    """

    def __init__(
        self,
        cache: Cache,
        leader: CachedCall,
        id: bytes,
        head: RequestHead,
        key: bytes,
        checked: Entry | None,
        until: float,
    ) -> None:
        self.id = id
        self.link: ILink = leader.link
        self.key = key
        self.checked = checked
        self.leader = leader
        self.waiting: dict[CachedCall, None] = {}
        self.readers: set[CachedCall] = set()
        self.entry: Entry | None = None
        self.lasts = self.outdated = False
        self.until = until
        self._cache = cache
        self._head = head
        self._requested = cache.wall()
        self.begun = cache.clock()
        self.accepted = 0.0
        self.first: int | None = None
        self.last = 0
        self._parts = Reassembler(Side.EGRESS, 0)
        self._known = False
        """What its response is: nobody waits for that any more."""
        self.over = False
        self._passing = False
        self._let_go = 0
        self._offered = WINDOW

    def start(self) -> None:
        """
        Send the request.

        @raise ValueError: its head is too large to cross.
        """
        writer = PartWriter(self.id, Side.INGRESS)
        payloads = writer.head(self._head) + writer.end()
        urgency, again = self._head.urgency, repeatable(self._head)
        sent: Deferred[CommitResult[None]] = self.link.commit(
            [Outgoing(one, REQUESTS, urgency, flow_of(one), again=again) for one in payloads]
        )
        sent.addCallbacks(self._committed, self._not_committed)

    def _committed(self, result: CommitResult[None]) -> None:
        self.first, self.last = result.sent[0], result.sent[-1]
        self.accepted = self._cache.clock()

    def _not_committed(self, failure: Failure) -> None:
        self.fail(not_committed(failure, self.link.name, self.id), cancel=False)

    # --- who waits --------------------------------------------------------------------------

    def join(self, call: CachedCall) -> None:
        """It may wait for this; if its response is coming already, it gets that, or goes its own way."""
        if self.entry is None:
            call.fetch = self
            self.waiting[call] = None
        else:
            self._share(call, self.entry)

    def left(self, call: CachedCall) -> None:
        """One does not wait any more."""
        self.waiting.pop(call, None)
        if not (self._known or self.waiting or self.lasts):
            self._end(cancel=True)

    def late(self) -> None:
        """The peer is: who may have something stale gets that, and this goes on."""
        better = [call for call in self.waiting if call.usable_stale]
        self.lasts = self.lasts or bool(better)
        self._in_turns(better, CachedCall.serve_stale)

    def _in_turns(self, calls: Sequence[CachedCall], answer: Callable[[CachedCall], None]) -> None:
        """Answer those of these who wait still: there may be thousands."""
        for call in calls[:AT_ONCE]:
            if call.fetch is self:
                try:
                    answer(call)
                except RecordError as error:
                    self.outdated = True
                    call.contradicted(error)
        if len(calls) > AT_ONCE:
            self._cache.ingress.later(0, self._in_turns, calls[AT_ONCE:], answer)

    def readerLeft(self, call: CachedCall) -> None:
        """One does not read any more."""
        self.readers.discard(call)
        if not self._passing or self.readers:
            self.passed()
        elif self.over and self.entry is not None:
            self._cache.consume(self.link, self.entry.records[self._let_go :].tolist())
        else:
            self._end(cancel=True)

    # --- what comes -------------------------------------------------------------------------

    def received(self, record: int, part: Part) -> None:
        """A part of the response is here; L{advance} follows once all that came with it were given."""
        consume = self._cache.consume
        if self.over or part.kind in (Kind.CREDIT, Kind.EXECUTING, Kind.ABORT):
            consume(self.link, [record])
        try:
            if self.over or part.kind in (Kind.CREDIT, Kind.EXECUTING):
                return
            if part.kind is Kind.ABORT:
                self.fail(decode_abort(part), cancel=False)
            elif not self._parts.add(record, part):
                consume(self.link, [record])
            elif part.kind is Kind.MESSAGE:
                encoded, body = decode_message(part)
                self._answered(decode_response(encoded), record, part, body)
            elif part.number == 0 and part.more:
                self._pass_on(record, part)
            elif part.number == 0:
                self._answered(decode_response(part.body), record, part, None)
        except RecordError as error:
            if part.kind is not Kind.ABORT:
                consume(self.link, [record])
            self._cache.ingress.log.warn("Exchange {id} given up: {error}", id=self.id.hex(), error=error)
            detail = f"what came from {self.link.name} is not a response: {error}"
            self.fail(bad_response(detail), but=record)

    def advance(self) -> None:
        """See to what came."""
        entry, parts = self.entry, self._parts
        if entry is None or self.over:
            return
        entry.size = parts.accepted
        short = self._cache.ingress.room.short and entry.size > STEP
        if (short or entry.size > self._cache.store.largest) and not self._passing:
            # From now on it comes no faster than who reads it, and what they have is let go of.
            self._passing = True
            self._cache.forget(self)
        if self._passing and not self.readers:
            self._end(cancel=not parts.complete)
        elif parts.complete:
            self._complete(entry)
        elif self._passing:
            self.passed()
        else:
            self._offer(parts.accepted, 0)
        for reader in list(self.readers):
            reader.advance()

    def _offer(self, taken: int, least: int) -> None:
        room, accepted = self._cache.ingress.room, self._parts.accepted
        total = room.offer(self._offered, accepted, taken + WINDOW, least)
        if total is not None:
            self._offered = total
            self._cache.send(self.link, encode_credit(self.id, Side.INGRESS, total))

    @property
    def held(self) -> int:
        """See L{hoft.web.ingress.room.Coming}: what is to be stored need not be, and is not given up."""
        return self._parts.accepted - self._handed_on if self._passing else 0

    @property
    def _handed_on(self) -> int:
        """What all who read it have."""
        return min((reader.handed_on for reader in self.readers), default=0)

    def offer(self) -> None:
        """See L{hoft.web.ingress.room.Coming}."""
        self.advance()

    def passed(self) -> None:
        """Those who read it have got further."""
        if not self._passing or not self.readers or self.entry is None:
            return
        if not self.over:
            taken = self._handed_on
            self._offer(taken, taken + 2 * STEP)
        spent = min(reader.spent for reader in self.readers)
        if spent > self._let_go:
            self._cache.consume(self.link, self.entry.records[self._let_go : spent].tolist())
            self._let_go = spent

    # --- what it is -------------------------------------------------------------------------

    def _answered(self, head: ResponseHead, record: int, part: Part, body: bytes | None) -> None:
        """
        @param part: the first of the response, which has the head.
        @param body: all of the body, if it is in it.
        """
        self._known = True
        executing, checked = dict(head.stages).get("head"), self.checked
        for call in self.waiting:
            call.executing = executing
        if head.status == 304 and checked is not None and body is not None:
            self._confirmed(head, checked)
            return
        if head.status in ERRORS:
            better = [call for call in self.waiting if call.usable_stale]
            for call in better:
                del self.waiting[call]
            self._in_turns(better, lambda call: call.serve_stale(head.status))
        elif checked is not None:
            self._cache.store.drop(checked)
        worse = head.status in ERRORS and self.leader.found is not None
        large = head.length is not None and head.length > self._cache.store.largest
        if not (worse or large) and storable(self.leader.asked, head, self.leader.caching):
            self.entry = self._to_be_stored(head)
        if self.entry is None:
            self._pass_on(record, part)
            return
        entry = self.entry
        if body is None:
            self._cache.ingress.room.come(self)
        self._in_turns(list(self.waiting), lambda call: self._share(call, entry, body))

    def _to_be_stored(self, head: ResponseHead) -> Entry | None:
        leader, names = self.leader, varying(head.headers)
        try:
            encoded = encode_head(self._cache.dated(head))
        except ValueError:
            return None  # with a Date it is larger than a head may be
        return Entry(
            caller=leader.caller,
            exchange=self.id,
            peer=self.link.peer.bytes,
            route=leader.mount.name,
            url=leader.url,
            partition=leader.partition,
            vary=b" ".join(names).decode("ascii"),
            variant=variant(names, leader.call.request.fields),
            encoded=encoded,
            requested=self._requested,
            received=self._cache.wall(),
            records=self._parts.in_order,
        )

    def _share(self, call: CachedCall, entry: Entry, body: bytes | None = None) -> None:
        """Answer one with what is being stored, if it may have that."""
        leads = call is self.leader
        selected = leads or entry.selected(call.call.request.fields)
        if not (leads or (selected and shareable(entry.stored, call.asked, call.caching))):
            call.alone("miss" if selected else "vary-miss")
            return
        self._cache.counts["cache_misses" if leads else "cache_collapsed"] += 1
        how = f"{self._forward}; fwd-status={entry.stored.status}; stored" + ("" if leads else "; collapsed")
        if body is not None:
            call.whole(entry, body, how, not leads)
        else:
            call.serve(entry, how, self, not leads)

    @property
    def _forward(self) -> str:
        """Why it crosses, for Cache-Status."""
        return "fwd=uri-miss" if self.leader.found is None else "fwd=stale"

    def _confirmed(self, head: ResponseHead, checked: Entry) -> None:
        """304: what is stored is good."""
        cache, calls = self._cache, list(self.waiting)
        self._end()
        if checked.dropped or not (confirms(head, checked.stored) and self._freshened(head, checked)):
            cache.store.drop(checked)
            self._in_turns(calls, lambda call: call.alone("stale"))
            return
        cache.counts["cache_validated"] += 1
        self._in_turns(calls, lambda call: self._share_again(call, checked))

    def _share_again(self, call: CachedCall, checked: Entry) -> None:
        """Answer one with what was confirmed, if it may have that."""
        leads = call is self.leader
        if leads or shareable(checked.stored, call.asked, call.caching):
            how = "fwd=stale; fwd-status=304" + ("" if leads else "; collapsed")
            call.serve(checked, how, aged=not leads)
        else:
            call.alone("stale")

    def _freshened(self, head: ResponseHead, checked: Entry) -> bool:
        cache, before = self._cache, checked.footprint
        try:
            checked.freshen(freshened(checked.head, cache.dated(head)), self._requested, cache.wall())
        except ValueError:
            return False  # both together are larger than a head may be
        cache.store.changed(checked, before)
        return True

    def _pass_on(self, record: int, part: Part) -> None:
        """It is not stored: one gets it, the others go their own way."""
        self._known = True
        cache, calls = self._cache, list(self.waiting)
        if not calls:
            self._end(cancel=part.kind is not Kind.MESSAGE)
            return
        first = self.leader if self.leader in calls else calls[0]
        cache.counts["cache_misses"] += 1
        first.call.amend = cache.note(self._forward)
        ingress = cache.ingress
        first.id = ingress.accounts.renamed(first.id, self.id)
        head = evolve(self._head, deadline=first.seconds)
        waiting = Waiting(ingress, self.link, first.call, self.id, head, first.mount, first.due, first.caller)
        waiting.takeOver(self.first)
        records = [one for one in self._parts.drain() if one != record]
        self.over = True
        cache.forget(self)
        first.adopted(waiting)
        ingress.adopt(waiting, records)
        waiting.received(record, part)
        waiting.advance()
        self._in_turns(calls, lambda call: call.alone("miss"))

    def _complete(self, entry: Entry) -> None:
        entry.records = array("q", self._parts.drain())
        self.over = True
        self._cache.ingress.room.leave(self)
        self._cache.forget(self)
        if self._passing:
            return  # who reads it lets go of it
        if self.outdated:
            self._cache.store.discard(entry)
        else:
            self._cache.counts["cache_stored"] += 1
            self._cache.store.add(entry)

    # --- ends -------------------------------------------------------------------------------

    def expire(self) -> None:
        """L{until} has come."""
        self.fail(peer_silent(self.link.name, self._head.deadline))

    def rolledBack(self, resent: frozenset[int]) -> None:
        """
        One of the nodes was restored.

        @param resent: records of ours that are sent all the same.
        """
        if self.first is not None and self.first not in resent:
            self.fail(restored(), cancel=False)

    def fail(self, problem: Problem, cancel: bool = True, but: int | None = None) -> None:
        """
        Give it up.

        @param problem: for those who wait and have nothing better.
        @param cancel: the far node is to know.
        @param but: a record that was let go of already.
        """
        if self.over:
            return
        self._known = True
        calls, readers = list(self.waiting), list(self.readers)
        self._end(cancel, but)
        self._in_turns(calls, lambda call: call.fail(problem))
        for reader in readers:
            reader.cut()

    def _end(self, cancel: bool = False, but: int | None = None) -> None:
        """Nothing more comes of it."""
        if self.over:
            return
        self.over = True
        self._cache.ingress.room.leave(self)
        self._cache.forget(self)
        if cancel:
            self._cache.send(self.link, encode_cancel(self.id))
        if self.entry is not None:
            self.entry.dropped = True
        # Who reads it is cut off in this turn.
        self._cache.consume(self.link, [one for one in self._parts.drain()[self._let_go :] if one != but])
