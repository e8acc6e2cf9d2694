"""
What a shared cache may store, for how long that is fresh, and for which requests it may be used:
RFC 9111, with stale-if-error and stale-while-revalidate of RFC 5861.

Where the RFC leaves a choice, less is stored, and nothing is guessed: a response whose freshness
neither the service nor the route tells is stale at once, and is asked about each time.  Stricter
than the RFC: where cookies are in play, the service must have said itself that others may have
the response.  Times are seconds since 1970.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import inf
from typing import Final

from attrs import evolve, frozen

from hoft.config import Caching
from hoft.web.http.fields import FieldList, elements, values, without
from hoft.web.http.heads import Fields, ResponseHead
from hoft.web.ingress.caching.fields import age, date, directives, seconds, tags
from hoft.web.ingress.caching.keys import MAX_VARY, varying

SET_BACK: Final = 60.0
"""Seconds by which the clock may have been set back before nobody knows how old things are."""

UNDERSTOOD: Final = frozenset(
    {
        *range(200, 206),
        *range(300, 304),
        305,
        307,
        308,
        *range(400, 418),
        421,
        422,
        426,
        451,
        *range(500, 506),
    }
)
"""Statuses whose rules for caches are known here; all of RFC 9110 but 206, which is not put together."""

DURABLE: Final = frozenset((200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501))
"""Statuses that may be stored without a word about it (RFC 9110 section 15.1)."""

ERRORS: Final = frozenset((500, 502, 503, 504))
"""What stale-if-error takes for an error (RFC 5861 section 4)."""

CONDITIONS: Final = (b"if-none-match", b"if-modified-since")
"""Fields by which a request asks whether something has changed."""

_WHOLE: Final = frozenset((b"range", b"if-range", b"if-match", b"if-unmodified-since", b"upgrade"))
"""Fields of requests that only the service can answer."""

_ENDLESS: Final = (b"text/event-stream", b"multipart/x-mixed-replace")

_NOT_UPDATED: Final = frozenset(
    (b"content-encoding", b"content-length", b"content-range", b"content-type", b"transfer-encoding")
)
"""Fields of the body as it is stored, which a 304 leaves as they are (RFC 9111 section 3.2)."""

_OF_304: Final = frozenset(
    (
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-range",
        b"content-type",
        b"set-cookie",
    )
)
"""Fields that are not in a 304 of ours (RFC 9110 section 15.4.5)."""


class Use(Enum):
    """What a stored response is good for."""

    FRESH = "fresh"
    STALE = "stale"
    """It is stale, and the caller takes it."""
    REFRESH = "refresh"
    """It is stale, and may be used while it is asked about."""
    CHECK = "check"
    """Not without asking about it."""


@frozen
class Asked:
    """
    What a request says to caches.

    @ivar reason: why a cache has no part in it, C{None} if it has one.
    @ivar max_stale: seconds, 0 unless said.
    @ivar none_match: see L{tags}.
    """

    reason: str | None
    no_cache: bool
    only_if_cached: bool
    max_age: float | None
    min_fresh: float
    max_stale: float
    stale_if_error: float | None
    authorized: bool
    cookie: bool
    none_match: Sequence[bytes] | None
    modified_since: float | None

    @classmethod
    def of(cls, method: bytes, fields: Fields, body: bool) -> Asked:
        """@param body: it has one."""
        said = directives(fields)
        names = {name.lower() for name, _ in fields}
        reason = None
        if method not in (b"GET", b"HEAD"):
            reason = "method"
        elif body or b"no-store" in said or not names.isdisjoint(_WHOLE):
            reason = "bypass"
        max_age = seconds(said.get(b"max-age"))
        pragma = b"pragma" in names and b"cache-control" not in names
        stale = b"max-stale" in said
        return cls(
            reason,
            b"no-cache" in said or max_age == 0 or (pragma and b"no-cache" in elements(fields, b"pragma")),
            b"only-if-cached" in said,
            max_age,
            seconds(said.get(b"min-fresh")) or 0.0,
            (inf if said[b"max-stale"] is None else seconds(said[b"max-stale"]) or 0.0) if stale else 0.0,
            seconds(said.get(b"stale-if-error")),
            b"authorization" in names,
            b"cookie" in names,
            tags(fields, b"if-none-match"),
            date(fields, b"if-modified-since"),
        )


@frozen
class Stored:
    """
    What a response says to caches, and when it came.

    @ivar initial_age: how old it was when it came.
    @ivar delay: seconds of that for which it was on its way.
    @ivar said: seconds for which the service says it is fresh, C{None} if it says nothing.
    @ivar open: the service says that others than who asked may have it.
    @ivar no_cache: it is to be asked about each time.
    @ivar no_stale: it must not be used when it is stale.
    @ivar modified: the value of Last-Modified.
    @ivar changed: when it was last modified, or made.
    """

    status: int
    received: float
    initial_age: float
    delay: float
    said: float | None
    open: bool
    no_cache: bool
    no_stale: bool
    stale_if_error: float
    stale_while: float
    etag: bytes | None
    modified: bytes | None
    changed: float

    @classmethod
    def of(cls, head: ResponseHead, requested: float, received: float) -> Stored:
        """
        @param requested: when it was asked for.
        @param received: when it was here.
        """
        fields = head.headers
        said = directives(fields)
        made = date(fields, b"date")
        delay = max(0.0, received - requested)
        apparent = 0.0 if made is None else max(0.0, received - made)
        lifetime = _lifetime(fields, received if made is None else made)
        etag, modified = values(fields, b"etag"), values(fields, b"last-modified")
        shared = b"s-maxage" in said
        return cls(
            head.status,
            received,
            max(apparent, age(fields) + delay),
            delay,
            lifetime,
            lifetime is not None or b"public" in said,
            b"no-cache" in said or (b"cache-control" not in _names(fields) and _pragma(fields)),
            shared or b"must-revalidate" in said or b"proxy-revalidate" in said,
            seconds(said.get(b"stale-if-error")) or 0.0,
            seconds(said.get(b"stale-while-revalidate")) or 0.0,
            etag[0] if len(etag) == 1 else None,
            modified[0] if len(modified) == 1 and date(fields, b"last-modified") is not None else None,
            date(fields, b"last-modified") or made or received,
        )

    def age(self, now: float) -> float:
        """RFC 9111 section 4.2.3."""
        return self.initial_age + max(0.0, now - self.received)

    def left(self, caching: Caching, now: float) -> float:
        """
        Seconds for which it is still fresh; negative: for so long it is not.

        What the route says counts from when the response was here, whatever it took to get here.
        """
        if now < self.received - SET_BACK:
            return -inf
        if caching.ttl is not None and (caching.override or self.said is None):
            return caching.ttl - max(0.0, now - self.received)
        return (self.said or 0.0) - self.age(now)

    def prohibited(self, caching: Caching) -> bool:
        """It must not be used without asking when it is stale."""
        return not caching.override and (self.no_cache or self.no_stale)

    @property
    def validated(self) -> bool:
        """The service can be asked whether it has changed."""
        return self.etag is not None or self.modified is not None


def _names(fields: Fields) -> set[bytes]:
    return {name.lower() for name, _ in fields}


def _pragma(fields: Fields) -> bool:
    return b"no-cache" in elements(fields, b"pragma")


def _lifetime(fields: Fields, made: float) -> float | None:
    """RFC 9111 section 4.2.1; what cannot be read is stale."""
    said = directives(fields)
    for name in (b"s-maxage", b"max-age"):
        if name in said:
            return seconds(said[name]) or 0.0
    if b"expires" not in _names(fields):
        return None
    expires = date(fields, b"expires")
    return 0.0 if expires is None else max(0.0, expires - made)


# --- Storing --------------------------------------------------------------------------


def storable(asked: Asked, head: ResponseHead, caching: Caching) -> bool:
    """May this response to a GET be stored (RFC 9111 section 3), and would it be of any use?"""
    said, fields, status = directives(head.headers), head.headers, head.status
    names = _names(fields)
    if status not in UNDERSTOOD or b"private" in said:
        return False
    if b"no-store" in said and b"must-understand" not in said:
        return False
    if asked.authorized and said.keys().isdisjoint((b"public", b"must-revalidate", b"s-maxage")):
        return False
    if b"set-cookie" in names and said.keys().isdisjoint((b"public", b"s-maxage")):
        return False
    vary = varying(fields)
    if b"*" in vary or len(vary) > MAX_VARY:
        return False
    if any(kind.lower().startswith(_ENDLESS) for kind in values(fields, b"content-type")):
        return False
    stored = Stored.of(head, 0.0, 0.0)
    if not stored.open and (asked.cookie or status not in DURABLE):
        return False
    fresh = stored.left(caching, 0.0) + stored.age(0.0) > 0 and (caching.override or not stored.no_cache)
    return bool(fresh or stored.validated or stored.stale_if_error or caching.stale_if_error)


# --- Using ----------------------------------------------------------------------------


def judge(stored: Stored, asked: Asked, caching: Caching, now: float) -> Use:
    """May this stored response answer the request (RFC 9111 section 4)?"""
    if asked.no_cache or (stored.no_cache and not caching.override) or (asked.cookie and not stored.open):
        return Use.CHECK
    if asked.max_age is not None and stored.age(now) > asked.max_age:
        return Use.CHECK
    left = stored.left(caching, now)
    if left > 0:
        return Use.FRESH if left >= asked.min_fresh else Use.CHECK
    if stored.prohibited(caching) or asked.min_fresh:
        return Use.CHECK
    if -left <= asked.max_stale and asked.max_stale:
        return Use.STALE
    return Use.REFRESH if -left <= stored.stale_while and stored.stale_while else Use.CHECK


def shareable(stored: Stored, asked: Asked, caching: Caching) -> bool:
    """
    May it answer a request that waited while it was on its way for another?  It may have become
    stale on that way: one of the request's own would be as old.  Where nobody says how long it is
    fresh, that is long enough for this.
    """
    said = inf if stored.said is None else stored.said
    as_made = evolve(stored, said=said, initial_age=stored.initial_age - stored.delay)
    return judge(as_made, asked, caching, stored.received) in (Use.FRESH, Use.STALE)


def usable_on_error(stored: Stored, asked: Asked, caching: Caching, now: float) -> bool:
    """May it be used since there is no better answer (RFC 5861 section 4)?"""
    if asked.no_cache or stored.prohibited(caching) or (asked.cookie and not stored.open):
        return False
    window = max(stored.stale_if_error, caching.stale_if_error)
    return -stored.left(caching, now) <= (window if asked.stale_if_error is None else asked.stale_if_error)


def unchanged(stored: Stored, asked: Asked) -> bool:
    """Does the caller have it already, so that the answer is 304 (RFC 9110 section 13.1)?"""
    if stored.status != 200:
        return False
    if asked.none_match is not None:
        mine = [] if stored.etag is None else tags([(b"etag", stored.etag)], b"etag") or []
        return asked.none_match == [b"*"] or any(tag in asked.none_match for tag in mine)
    return asked.modified_since is not None and stored.changed <= asked.modified_since


# --- Asking again -----------------------------------------------------------------------


def conditional(fields: Fields, stored: Stored | None) -> FieldList:
    """A request's fields as they go on: asking only for what is not stored, whatever the caller has."""
    asking = without(fields, CONDITIONS)
    if stored is not None and stored.etag is not None:
        asking.append((b"If-None-Match", stored.etag))
    if stored is not None and stored.modified is not None:
        asking.append((b"If-Modified-Since", stored.modified))
    return asking


def confirms(head: ResponseHead, stored: Stored) -> bool:
    """Is this 304 about what is stored (RFC 9111 section 4.3.4)?"""
    said, mine = tags(head.headers, b"etag"), stored.etag
    return not said or mine is None or said == tags([(b"etag", mine)], b"etag")


def freshened(old: ResponseHead, new: ResponseHead) -> ResponseHead:
    """A stored head with what a 304 says anew (RFC 9111 section 3.2)."""
    updates = without(new.headers, _NOT_UPDATED)
    kept = without(old.headers, _names(updates) | {b"age"})
    return evolve(old, headers=[*kept, *updates])


def not_modified(fields: Fields) -> FieldList:
    """The fields of a 304 of ours."""
    return without(fields, _OF_304)
