"""
CBOR (RFC 8949), the small and strict part of it that hoft speaks.

Values are C{None}, C{bool}, C{int} of 64 bits and a sign, C{bytes}, C{str},
C{list} and C{dict} with C{str} keys, nested at most L{MAX_DEPTH} deep, at most
L{MAX_ITEMS} in all.  Each value has exactly one encoding, the core deterministic one (RFC 8949 section
4.2.1), and nothing else is accepted: no tags (so no bignums, dates, regular
expressions, shared references), no floats, C{undefined} or other simple values,
no indefinite lengths, no duplicate or unsorted keys, no longer than shortest
heads, no trailing bytes.

This is only ever applied to what was authenticated; it is strict so that a peer
that was taken over cannot stall or fill us either.

Pure: no I/O, no clock.  Callable on any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

import cbor2

from hoft.errors import PeerError

MAX_DEPTH: Final = 8
"""Containers in containers, the outermost counted."""

MAX_ITEMS: Final = 8192
"""Values in one document, keys and containers counted."""

_MAX_INT: Final = (1 << 64) - 1
_MIN_INT: Final = -(1 << 64)


class CborError(PeerError, ValueError):
    """Bytes that are not the one encoding of a permitted value."""


class _NoTags(Mapping[int, Callable[[Any, bool], Any]]):
    """
    A decoder for every tag there is, which refuses it.

    A mapping rather than a dictionary: tags have 64 bits, and one that is not
    found in C{semantic_decoders} is decoded by cbor2's own decoder.
    """

    def __getitem__(self, tag: int) -> Callable[[Any, bool], Any]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(range(1 << 64))

    def __len__(self) -> int:
        return 1 << 62  # only ever asked whether it is empty


def _refuse_tag(*_arguments: Any) -> NoReturn:
    raise CborError("a tag")


_NO_TAGS: Final = _NoTags()
_LEAVES: Final = frozenset((int, str, bytes, bool, type(None)))


def _foreign(value: Any, depth: int = 0) -> str:
    """What in C{value} has no place in this CBOR, or C{""}."""
    kind = type(value)
    if kind is list or kind is tuple:
        members = value
    elif kind is dict:
        members = list(value.values())
        if not all(type(key) is str for key in value):
            return "a map key that is not text"
    elif kind in _LEAVES:
        members = (value,)
    else:
        return f"a value of type {kind.__name__}"
    if kind not in _LEAVES:
        depth += 1
        if depth > MAX_DEPTH:
            return f"more than {MAX_DEPTH} containers in each other"
    kinds = set(map(type, members))
    if int in kinds:
        numbers = members if len(kinds) == 1 else [one for one in members if type(one) is int]
        if max(numbers) > _MAX_INT or min(numbers) < _MIN_INT:
            return "an integer beyond 64 bits"
    if kinds <= _LEAVES:
        return ""
    for member in members:
        if type(member) not in _LEAVES and (what := _foreign(member, depth)):
            return what
    return ""


def _too_many(data: bytes) -> bool:
    """
    Whether C{data} begins more than L{MAX_ITEMS} items.

    A byte of an empty map is a hundred once it is decoded, and the decoder cannot be
    told to stop.  Whatever is odd in C{data} is left for it to complain about.
    """
    at, size, items = 0, len(data), 0
    if size <= MAX_ITEMS:
        return False
    while at < size and items <= MAX_ITEMS:
        items += 1
        kind, value = data[at] >> 5, data[at] & 31
        at += 1
        if 24 <= value <= 27:
            width = 1 << (value - 24)
            value = int.from_bytes(data[at : at + width], "big")
            at += width
        if kind in (2, 3):  # byte and text strings
            at += value
    return items > MAX_ITEMS


def _permitted(value: Any) -> None:
    """
    @raise TypeError: C{value} contains what this CBOR has no place for.
    """
    if what := _foreign(value):
        raise TypeError(f"hoft's CBOR has no place for {what}")


def encode(value: Any, *, known: bool = False) -> bytes:
    """
    The one encoding of C{value}; a tuple counts as a list.

    @param known: the caller vouches for the types of all that is in C{value}: there is no look at them.
    @raise TypeError: C{value} contains what this CBOR has no place for, such
        as a float, an integer beyond 64 bits or a subclass of a permitted type.
    @raise ValueError: too many items, or text that is not Unicode (a surrogate).
    """
    if not known:
        _permitted(value)
    data = cbor2.dumps(value, canonical=True)
    if _too_many(data):
        raise ValueError(f"more than {MAX_ITEMS} items")
    return data


def decode_strict(data: bytes, *, limit: int, check: Callable[[Any], None] = _permitted) -> Any:
    """
    The value that C{data} is the encoding of.

    Takes time and memory for at most L{MAX_ITEMS} small values and thrice C{limit}.

    @param limit: the most bytes that C{data} may have.
    @param check: called with the value before it counts: raises an exception of its own
        where it is not what is expected.  It stands in for the general look at the types
        of all that is in a value, so it must leave none of them in doubt: any but exactly
        the permitted ones must make it raise.
    @raise CborError: too long, or not the one encoding of a permitted value.
    """
    if len(data) > limit:
        raise CborError(f"{len(data)} bytes where at most {limit} are allowed")
    if _too_many(data):
        raise CborError(f"more than {MAX_ITEMS} items")
    try:
        value = cbor2.loads(
            data,
            semantic_decoders=_NO_TAGS,
            str_errors="strict",
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
        check(value)
        # What loads() lets pass and is of a permitted type all the same (trailing bytes,
        # long heads, unsorted keys) does not come out the same again.
        again = cbor2.dumps(value, canonical=True)
    except (cbor2.CBORError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CborError(str(error)) from error
    if again != data:
        raise CborError("not in deterministic encoding, or followed by more bytes")
    return value
