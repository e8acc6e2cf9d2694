"""
How a caller wants to wait: C{Prefer} (RFC 7240), C{Hoft-Callback} and C{Idempotency-Key}
(draft-ietf-httpapi-idempotency-key-header).  Pure.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from hoft.web.http.fields import MEMBER, FieldList, values
from hoft.web.http.problems import Refused, callback_refused, malformed_request

PREFER: Final = b"prefer"
KEY: Final = b"idempotency-key"
CALLBACK: Final = b"hoft-callback"

MAX_KEY: Final = 255
"""The most bytes of an Idempotency-Key."""

MAX_PREFER: Final = 1024
"""Bytes of a Prefer field above which nobody looks into it: it is a wish, not a duty."""

LONGEST_WAIT: Final = 86400
"""The most seconds that C{wait} means."""

_SAYING: Final = frozenset((PREFER, KEY, CALLBACK))
_VALUE = re.compile(rb"""[ \t]*=[ \t]*(?:"([^"\\]*)"|([^\s;,"]+))""")


@frozen
class Wish:
    """
    @ivar preferred: the caller does not want to be held until the response is there.
    @ivar wait: but for so many seconds.
    @ivar key: under which it would bring the same request again.
    @ivar callback: the URL that it wants the response to be sent to.
    """

    preferred: bool = False
    wait: int | None = None
    key: bytes | None = None
    callback: str | None = None

    @property
    def detached(self) -> bool:
        """The caller is not to be held, but for C{wait} seconds."""
        return self.preferred or self.callback is not None

    @property
    def applied(self) -> FieldList:
        """Preference-Applied (RFC 7240 section 3), where it was a preference."""
        if not self.preferred:
            return []
        value = b"respond-async" if self.wait is None else b"respond-async, wait=%d" % self.wait
        return [(b"Preference-Applied", value)]


def wish(fields: FieldList, kept: bool = True) -> Wish | None:
    """
    What a request says of it, C{None} where that is nothing.

    @param kept: results are kept here; if not, there is nothing to choose.
    @raise Refused: a callback where nothing is kept; two keys or callbacks, or a key that is none.
    """
    # Of nearly all requests this loop is all there is to do.
    for name, _ in fields:
        if name.lower() in _SAYING:
            break
    else:
        return None
    callbacks = values(fields, CALLBACK)
    if not kept:
        if callbacks:
            raise Refused(callback_refused("this node keeps no results (result_ttl = 0)"))
        return None
    preferences = _preferences(fields)
    keys = values(fields, KEY)
    if len(keys) > 1 or (keys and not 0 < len(keys[0]) <= MAX_KEY):
        raise Refused(malformed_request(f"Idempotency-Key must be one, of at most {MAX_KEY} bytes"))
    key = keys[0] if keys else None
    if len(callbacks) > 1:
        raise Refused(malformed_request("Hoft-Callback must be one URL"))
    callback = callbacks[0].decode("latin-1") if callbacks else None
    if b"respond-async" in preferences:
        wait = preferences.get(b"wait", b"")
        seconds = min(int(wait), LONGEST_WAIT) if re.fullmatch(rb"[0-9]{1,9}", wait) else None
        return Wish(True, seconds, key, callback)
    return None if key is None and callback is None else Wish(key=key, callback=callback)


def without_ours(fields: FieldList) -> FieldList:
    """The fields as they cross: what this gateway has taken on is not asked of the service again."""
    kept: FieldList = []
    for name, value in fields:
        if name.lower() == PREFER and len(value) <= MAX_PREFER:
            others = [
                match[0].strip(b" \t,")
                for match in MEMBER.finditer(value)
                if match[1].lower() not in (b"respond-async", b"wait")
            ]
            if not others:
                continue
            value = b", ".join(others)
        kept.append((name, value))
    return kept


def _preferences(fields: FieldList) -> dict[bytes, bytes]:
    """By lower-case name; of those given twice the first counts (RFC 7240 section 2)."""
    found: dict[bytes, bytes] = {}
    for value in values(fields, PREFER):
        if len(value) > MAX_PREFER:
            continue
        for match in MEMBER.finditer(value):
            given = _VALUE.match(match[2])
            found.setdefault(match[1].lower(), (given[1] or given[2] or b"") if given else b"")
    return found
