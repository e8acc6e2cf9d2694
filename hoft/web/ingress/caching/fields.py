"""
The header fields that say what a cache may do (RFC 9111 section 5), as values.  Pure.

They come from services and callers alike, so what is malformed is read in the way that stores less.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from hoft.web.http.fields import MEMBER, elements, values
from hoft.web.http.heads import Fields

MAX_CACHE_CONTROL: Final = 1024
"""Bytes of Cache-Control above which nobody looks into it: then it means no-store."""

LONGEST: Final = 1 << 31
"""Seconds; whatever is more means this (RFC 9111 section 1.2.2)."""

_ARGUMENT = re.compile(rb"""=(?:"([^"\\]*)"|([^\s;,"]+))[ \t]*""")
_SECONDS = re.compile(rb"[0-9]{1,64}")
_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_MONTHS: Final = (
    b"jan",
    b"feb",
    b"mar",
    b"apr",
    b"may",
    b"jun",
    b"jul",
    b"aug",
    b"sep",
    b"oct",
    b"nov",
    b"dec",
)
_DAY, _MONTH = rb"(?:mon|tue|wed|thu|fri|sat|sun)", rb"(" + b"|".join(_MONTHS) + rb")"
_TIME = rb"([0-2][0-9]):([0-5][0-9]):([0-6][0-9])"
_IMF = re.compile(_DAY + rb", ([0-3][0-9]) " + _MONTH + rb" ([0-9]{4}) " + _TIME + rb" gmt")
_RFC850 = re.compile(
    rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day, ([0-3][0-9])-"
    + _MONTH
    + rb"-([0-9]{2}) "
    + _TIME
    + rb" gmt"
)
_ASCTIME = re.compile(_DAY + rb" " + _MONTH + rb" ([ 1-3][0-9]) " + _TIME + rb" ([0-9]{4})")

Directives = Mapping[bytes, bytes | None]
"""Of Cache-Control: arguments, C{None} where there is none that can be read, by lower-case name."""


def directives(fields: Fields) -> Directives:
    """What Cache-Control says; of a directive that is given twice the first counts."""
    value = b",".join(values(fields, b"cache-control"))
    if len(value) > MAX_CACHE_CONTROL:
        return {b"no-store": None}
    found: dict[bytes, bytes | None] = {}
    for match in MEMBER.finditer(value):
        argument = _ARGUMENT.fullmatch(match[2])
        found.setdefault(match[1].lower(), None if argument is None else argument[1] or argument[2] or b"")
    return found


def seconds(argument: bytes | None) -> float | None:
    """A delta-seconds (RFC 9111 section 1.2.2); C{None} if it is none."""
    if argument is None or not _SECONDS.fullmatch(argument):
        return None
    return float(min(int(argument), LONGEST))


def age(fields: Fields) -> float:
    """What Age says: the first of several, 0 if it is no number (RFC 9111 section 5.1)."""
    given = elements(fields, b"age")
    return (seconds(given[0]) or 0.0) if given else 0.0


def date(fields: Fields, name: bytes) -> float | None:
    """
    Seconds since 1970 that a field with an HTTP-date says, in any of the three forms of RFC 9110
    section 5.6.7; C{None} if there is no such field, or several, or it is no date.
    """
    given = values(fields, name)
    return http_date(given[0]) if len(given) == 1 else None


def http_date(text: bytes) -> float | None:
    """Seconds since 1970, C{None} if it is no HTTP-date."""
    lowered = text.lower()
    if match := _IMF.fullmatch(lowered):
        day, month, year, *time = match.groups()
    elif match := _RFC850.fullmatch(lowered):
        day, month, short, *time = match.groups()
        year = (b"20" if short < b"70" else b"19") + short
    elif match := _ASCTIME.fullmatch(lowered):
        month, day, *time, year = match.groups()
    else:
        return None
    hour, minute, second = map(int, time)
    try:
        # A leap second is the one before it.
        at = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59), tzinfo=UTC
        )
    except ValueError:
        return None
    return at.timestamp()


def tags(fields: Fields, name: bytes) -> list[bytes] | None:
    """
    The entity-tags in a field, without what marks them as weak: all comparisons here are weak ones
    (RFC 9110 section 8.8.3.2).  C{[b"*"]} stands for any; C{None}: there is no such field.
    """
    given = values(fields, name)
    if not given:
        return None
    joined = b",".join(given)
    return [b"*"] if joined.strip() == b"*" else [match[1] for match in _TAG.finditer(joined)]
