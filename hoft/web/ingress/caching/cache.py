"""
The cache of an ingress: for routes that say so, and in front of all that crosses.

What it may do is for L{hoft.web.ingress.caching.policy} to say, what there is for L{CacheStore}; a
L{CachedCall} is one that may be answered with it, and a L{Fetch} what crosses for those that may not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve
from twisted.web.http import datetimeToString

from hoft.config import Caching
from hoft.errors import LocalError
from hoft.interfaces import ILink, LinkState
from hoft.web.http.fields import FieldList, values
from hoft.web.http.forwarding import crossing, deadline
from hoft.web.http.heads import Fields, ResponseHead
from hoft.web.http.preferences import wish
from hoft.web.http.problems import (
    Refused,
    headers_too_large,
    not_found,
    too_busy,
    unknown_route,
)
from hoft.web.http.targets import Mount, parse_target, parse_url
from hoft.web.http.targets import Route as RouteTarget
from hoft.web.ingress.caching.call import CachedCall
from hoft.web.ingress.caching.fetch import Fetch
from hoft.web.ingress.caching.keys import collapsing, partition, referred, url_of
from hoft.web.ingress.caching.policy import Asked, conditional
from hoft.web.ingress.caching.rows import Entry
from hoft.web.ingress.caching.store import CacheStore, Purge
from hoft.web.ingress.calls import Call, CallReceiver
from hoft.web.ingress.ends import stopped
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.routing import usable
from hoft.web.ingress.standing import of_fetch, of_waiting

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

MAX_CALLS: Final = 4096
"""The most that wait at once; where as many cross, the oldest that nobody waits for is given up."""

SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
"""Methods that change nothing (RFC 9110 section 9.2.1)."""

_COUNTED: Final = ("hits", "misses", "validated", "stale", "collapsed", "stored", "invalidated")


class Cache:
    """
    @ivar store: what is stored.
    @ivar counts: what was counted since the start.
    @ivar clock: monotonic seconds, and C{wall}: seconds since 1970.
    """

    def __init__(self, ingress: Ingress, clock: Callable[[], float], links: Mapping[str, ILink]) -> None:
        """@param links: by the names of the peers; looked into anew each time."""
        self.ingress = ingress
        self.clock = clock
        self.wall = time.time
        self.counts: Counter[str] = Counter()
        self.store = CacheStore(ingress)
        self.fetches: dict[bytes, Fetch] = {}
        self.send = ingress.send
        self.consume = ingress.consume
        self.links = links
        self.calls: set[CachedCall] = set()
        """Those that wait, or read what is stored."""
        self._joinable: dict[bytes, Fetch] = {}

    def load(self, entries: Iterable[Entry]) -> None:
        """What an earlier process has stored; before any record comes."""
        self.store.load(entries)

    def counters(self) -> dict[str, int]:
        """By a stable name each."""
        counted = {f"cache_{name}": self.counts[f"cache_{name}"] for name in _COUNTED}
        return counted | {"cache_entries": len(self.store), "cache_bytes": self.store.size}

    def under_way(self, now: float, ahead: float) -> Iterator[Callable[[], dict[str, Any]]]:
        """See L{hoft.web.ingress.ingress.Ingress.under_way}."""
        for call in list(self.calls):
            yield partial(of_waiting, call, now, ahead, self.ingress.room.short)
        for fetch in list(self.fetches.values()):
            if not (fetch.waiting or fetch.readers):
                yield partial(of_fetch, fetch, now, ahead)

    # --- calls ------------------------------------------------------------------------------

    def serve(self, call: Call, caller: str | None, target: RouteTarget, caching: Caching) -> CallReceiver:
        """
        A call at a route with a cache.

        @raise Refused: it gets no answer.
        """
        ingress, request = self.ingress, call.request
        routing = ingress.routing
        mount, peer = routing.mounts[target.name]
        service = mount.service(target.rest)
        asked = Asked.of(request.method, request.fields, request.length != 0)
        reason = asked.reason
        if reason is None and wish(request.fields, routing.result_ttl > 0) is not None:
            reason = "bypass"
        if reason is not None:
            changed = None if request.method in SAFE else partial(self._changed, mount, url_of(service))
            call.amend = self.note(f"fwd={reason}", changed)
            return ingress.cross(call, caller, target)
        link = self.links.get(peer) or usable(peer, self.links)
        if len(self.calls) >= MAX_CALLS:
            raise Refused(too_busy(f"{MAX_CALLS} calls are under way already"))
        scheme = "https" if call.secure else "http"
        host = f"{scheme}://{request.host}"
        who = partition(link.peer.bytes, mount.name, caller, caching.shared, request.fields, host)
        seconds = deadline(request, routing.deadline)
        id = ingress.entropy(16)
        cached = CachedCall(
            self, call, id, caller, target, mount, service, link, caching, asked, who, seconds
        )
        ingress.accounts.admit(id, caller, mount.name)
        self.calls.add(cached)
        try:
            cached.begin()
        except Refused as refused:
            cached.refuse(refused.problem)
        return cached

    def join(self, call: CachedCall) -> None:
        """
        Let it wait for what crosses already, or crosses now.

        @raise Refused: it cannot cross.
        """
        key = call.key + collapsing(call.call.request.fields)
        fetch = None if call.asked.no_cache else self._joinable.get(key)
        if fetch is None:
            fetch = self._fetch(call, key, call.id)
            call.crosses = True
        fetch.join(call)
        if call.fetch is not None:
            self.ingress.keeper.waiters.add(call)
            self.ingress.tickLater()

    def refresh(self, call: CachedCall) -> None:
        """
        Have it asked about what this call found; the call does not wait for that.

        @raise Refused: it cannot cross.
        """
        key = call.key + collapsing(call.call.request.fields)
        if key not in self._joinable:
            self._fetch(call, key, self.ingress.entropy(16)).lasts = True

    def _fetch(self, call: CachedCall, key: bytes, exchange: bytes) -> Fetch:
        ingress, found = self.ingress, call.found
        if found is not None and not found.stored.validated:
            found = None
        if len(self.fetches) >= MAX_CALLS:
            self._thin_out()
        request = call.call.request
        asking = evolve(request, fields=conditional(request.fields, None if found is None else found.stored))
        scheme = "https" if call.call.secure else "http"
        # It may go on when its caller has waited long enough.
        seconds = max(call.seconds, ingress.routing.deadline)
        caller, retry = call.call.peer, call.mount.retry
        head = crossing(asking, call.service, ingress.pseudonym, caller, scheme, seconds, False, retry)
        until = self.clock() + max(seconds, ingress.routing.async_deadline)
        fetch = Fetch(self, call, exchange, head, key, found, until)
        self.fetches[fetch.id] = self._joinable[key] = fetch
        try:
            fetch.start()
        except ValueError as error:
            fetch.over = True
            self.forget(fetch)
            raise Refused(headers_too_large(f"the head cannot cross: {error}")) from None
        return fetch

    def _thin_out(self) -> None:
        """Give up the oldest that nobody waits for: there are at least as many as may not wait."""
        for fetch in list(self.fetches.values()):
            if not (fetch.waiting or fetch.readers):
                fetch.expire()
                return

    def forget(self, fetch: Fetch) -> None:
        """Nobody is to join it; it is forgotten if it is over."""
        if self._joinable.get(fetch.key) is fetch:
            del self._joinable[fetch.key]
        if fetch.over and self.fetches.pop(fetch.id, None) is not None:
            self.ingress.remember(fetch.id)

    # --- fields -----------------------------------------------------------------------------

    def status(self, fields: FieldList, how: str) -> FieldList:
        """Fields of a response with ours in Cache-Status (RFC 9211)."""
        return [*fields, (b"Cache-Status", f'"{self.ingress.pseudonym}"; {how}'.encode("ascii"))]

    def note(
        self, how: str, changed: Callable[[int, Fields], None] | None = None
    ) -> Callable[[int, FieldList], FieldList]:
        """
        What a call that goes its own way has done to its response's head.

        @param changed: told of it, too.
        """

        def amend(status: int, fields: FieldList) -> FieldList:
            if changed is not None:
                changed(status, fields)
            return self.status(fields, how)

        return amend

    def dated(self, head: ResponseHead) -> ResponseHead:
        """With a Date: when it was here (RFC 9110 section 6.6.1)."""
        if any(name.lower() == b"date" for name, _ in head.headers):
            return head
        return evolve(head, headers=[*head.headers, (b"Date", datetimeToString(self.wall()))])

    # --- what is not true any more ----------------------------------------------------------

    def answered(self, kept: Kept, head: ResponseHead) -> None:
        """A call whose result is kept was answered."""
        if kept.route not in self.ingress.routing.caches or kept.method in SAFE:
            return
        mount = kept.mount
        if mount is not None:
            url = url_of(evolve(mount.base, target=kept.target))
            self._changed(mount, url, head.status, head.headers)

    def _changed(self, mount: Mount, url: bytes, status: int, fields: Fields) -> None:
        """An unsafe method has succeeded (RFC 9111 section 4.4)."""
        if not 200 <= status < 400:
            return
        named = [*values(fields, b"location"), *values(fields, b"content-location")]
        places = {url, *(referred(mount, url, value) for value in named)}
        for place in places:
            if place is not None:
                self.counts["cache_invalidated"] += self.store.invalidate(place)
        self._outdate(lambda fetch: fetch.leader.url in places)

    def purge(self, what: object) -> Purge:
        """
        Drop what is stored.

        @param what: the name of a route; a URL of the service, or a path below C{/svc/}, query
            included, or all that begins with what is before a final C{*}; C{None}: everything.
        @return: from now on none of it is used; what it is done with when it is over is gone.
        @raise LocalError: there is no such route, or that is no URL.
        """
        if what is None:
            self._outdate(lambda fetch: True)
            return self.store.remove(lambda entry: True)
        mounts = self.ingress.routing.mounts
        if what in mounts:
            self._outdate(lambda fetch: fetch.leader.mount.name == what)
            return self.store.remove(lambda entry: entry.route == what)
        try:
            below, place = str(what).endswith("*"), self._place(str(what).removesuffix("*"))
        except Refused as refused:
            raise LocalError(refused.problem.detail) from refused

        def named(url: bytes) -> bool:
            return url.startswith(place) if below else url == place

        self._outdate(lambda fetch: named(fetch.leader.url))
        return self.store.remove(lambda entry: named(entry.url))

    def _place(self, text: str) -> bytes:
        """What a URL, or a path here, is called in keys."""
        if "/" not in text:
            raise Refused(unknown_route(text, sorted(self.ingress.routing.mounts)))
        if not text.startswith("/"):
            return url_of(parse_url(text))
        target = parse_target(b"GET", text.encode("utf-8"))
        if not isinstance(target, RouteTarget):
            raise Refused(not_found("what is stored is below /svc/NAME/"))
        found = self.ingress.routing.mounts.get(target.name)
        if found is None:
            raise Refused(unknown_route(target.name, sorted(self.ingress.routing.mounts)))
        return url_of(found[0].service(target.rest))

    def _outdate(self, concerned: Callable[[Fetch], bool]) -> None:
        """What is under way may be of before."""
        for fetch in [fetch for fetch in self.fetches.values() if concerned(fetch)]:
            fetch.outdated = True
            self.forget(fetch)

    # --- events -----------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Give up what has been under way for too long, or is too much."""
        self.store.make_room()
        for fetch in [fetch for fetch in self.fetches.values() if fetch.until <= now]:
            fetch.expire()

    def linkChanged(self, link: ILink) -> None:
        """Who may have something stale need not wait for a peer that is late."""
        if link.state is LinkState.STOPPED:
            for fetch in self._of(link):
                fetch.fail(stopped(link.name))
        elif link.state in (LinkState.LATE, LinkState.DOWN):
            for fetch in self._of(link):
                fetch.late()

    def peerRolledBack(self, link: ILink, resent: frozenset[int]) -> None:
        """See L{hoft.interfaces.IRecordReceiver}."""
        for fetch in self._of(link):
            fetch.rolledBack(resent)

    def _of(self, link: ILink) -> list[Fetch]:
        return [fetch for fetch in self.fetches.values() if fetch.link is link]
