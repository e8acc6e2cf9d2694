"""Strict CBOR: one encoding for each value, and bombs that cost nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
import uuid
from decimal import Decimal
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from hoft.cbor import MAX_DEPTH, MAX_ITEMS, CborError, decode_strict, encode
from hoft.errors import PeerError
from tests.effort import least_seconds

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(1 << 64), max_value=(1 << 64) - 1)
    | st.binary(max_size=300)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text("abcé", max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)


def _array(count: int) -> bytes:
    return b"\x9a" + count.to_bytes(4, "big")


BOMBS: dict[str, bytes] = {
    "nested arrays": b"\x81" * 100_000,
    "nested maps": b"\xa1\x61a" * 30_000,
    "nested tags": b"\xc1" * 100_000,
    "nested shared values (tag 28)": b"\xd8\x1c" * 50_000,
    "a cycle (tags 28 and 29)": bytes.fromhex("d81c81d81d00"),
    "a cycle as a map's value": bytes.fromhex("d81ca16161d81d00"),
    "a regular expression (tag 35)": b"\xd8\x23\x78\x1d" + b"(a*)*" * 5 + b"b$$$",
    "a long regular expression (tag 35)": b"\xd8\x23\x7a\x00\x01\x00\x00" + b"(" * 65_536,
    "a regular expression of many choices (tag 35)": b"\xd8\x23\x7a\x00\x0c\x35\x00" + b"(a|b)" * 160_000,
    "a bignum (tag 2)": b"\xc2\x5a\x00\x01\x00\x00" + b"\xff" * 65_536,
    "a decimal (tag 4)": bytes.fromhex("c4821b7fffffffffffffff01"),
    "a bigfloat (tag 5)": bytes.fromhex("c5821b7fffffffffffffff01"),
    "string references (tags 25 and 256)": bytes.fromhex("d90100")
    + _array(2)
    + b"\x68"
    + b"a" * 8
    + b"\xd8\x19\x00",
    "maps with bignum keys whose hashes collide": b"\xb9\x4e\x20"
    + b"".join(
        b"\xc2\x4a" + (1 + at * ((1 << 61) - 1)).to_bytes(10, "big") + b"\x00" for at in range(20_000)
    ),
    "maps with integer keys": b"\xb9\x4e\x20"
    + b"".join(b"\x19" + at.to_bytes(2, "big") + b"\x00" for at in range(20_000)),
    "an array of 2**64-1": bytes.fromhex("9bffffffffffffffff"),
    "an array of 2**32-1": bytes.fromhex("9bffffffff") + b"\x00" * 4 + b"\x00" * 1000,
    "arrays of 2**31 in each other": b"\x9a\x7f\xff\xff\xff" * 8,
    "a map of 2**63": bytes.fromhex("bb8000000000000000"),
    "bytes of 2**64-1": bytes.fromhex("5bffffffffffffffff"),
    "bytes of 16 GiB": bytes.fromhex("5b0000000400000000") + b"\x00" * 1000,
    "text of 16 GiB": bytes.fromhex("7b0000000400000000") + b"\x00" * 1000,
    "an endless array": b"\x9f" + b"\x00" * 100_000,
    "endless bytes in endless bytes": b"\x5f" * 100_000,
    "an endless map": b"\xbf" + b"\x61a\x00" * 30_000,
    "empty arrays by the million": _array(1_000_000) + b"\x80" * 1_000_000,
    "empty maps by the million": _array(1_000_000) + b"\xa0" * 1_000_000,
    "small integers by the million": _array(1_000_000) + b"\x01" * 1_000_000,
    "text keys by the thousand": b"\xb9\x4e\x20" + b"".join(b"\x64%04x\x00" % at for at in range(20_000)),
    "breaks": b"\xff" * 100_000,
}
"""Documents of up to 1 MB that cost a careless decoder its time, its memory or its stack."""


class StrictCbor(SynchronousTestCase):
    """One value, one encoding."""

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(VALUES)
    def test_values_survive(self, value: Any) -> None:
        """Every permitted value comes back equal and of the same types."""
        again = decode_strict(encode(value), limit=1 << 20)
        self.assertEqual(again, value)
        self.assertEqual(encode(again), encode(value))

    @settings(derandomize=True, deadline=None, max_examples=500)
    @given(st.binary(max_size=40))
    def test_what_is_accepted_is_the_one_encoding(self, data: bytes) -> None:
        """Bytes are refused, or are exactly what their value encodes to."""
        try:
            value = decode_strict(data, limit=40)
        except CborError:
            return
        self.assertEqual(encode(value), data)

    def test_keys_are_sorted(self) -> None:
        """As RFC 8949 section 4.2.1 has it: shorter first, then by bytes."""
        self.assertEqual(encode({"b": 1, "aa": 2, "a": 3}).hex(), "a361610361620162616102")

    def test_refused(self) -> None:
        """All that has a second encoding, or no place here."""
        cases = {
            "nothing": "",
            "trailing bytes": "0000",
            "a cut array": "8201",
            "a long head": "1800",
            "a long length": "58024142",
            "an endless array": "9f01ff",
            "endless text": "7f6161ff",
            "a duplicate key": "a2616101616102",
            "unsorted keys": "a2616201616101",
            "an integer key": "a10101",
            "a bytes key": "a1416101",
            "an array as key": "a18001",
            "a boolean key": "a1f501",
            "half a float": "f93c00",
            "a float": "fb3ff0000000000000",
            "not a number": "f97e00",
            "undefined": "f7",
            "a simple value": "f0",
            "an invalid simple value": "f818",
            "a reserved head": "1c",
            "a break": "ff",
            "text that is not UTF-8": "61ff",
            "a surrogate": "63eda080",
            "a tag that means nothing": "d9d9f700",
            "a date": "c11a514b67b0",
            "an unknown tag": "dbffffffffffffffff00",
            "a bignum": "c249010000000000000000",
            "a UUID": "d82550" + "00" * 16,
            "a set": "d90102818001",
        }
        for name, data in cases.items():
            with self.subTest(name):
                self.assertRaises(CborError, decode_strict, bytes.fromhex(data), limit=100)

    def test_depth(self) -> None:
        """So many containers in each other and not one more, both ways."""
        deepest: Any = 0
        for _ in range(MAX_DEPTH):
            deepest = [deepest]
        self.assertEqual(decode_strict(encode(deepest), limit=100), deepest)
        self.assertRaises(TypeError, encode, [deepest])
        self.assertRaises(CborError, decode_strict, b"\x81" + encode(deepest), limit=100)

    def test_items(self) -> None:
        """So many items and not one more, both ways; bytes in strings do not count."""
        most: list[Any] = [0] * (MAX_ITEMS - 1)
        self.assertEqual(decode_strict(encode(most), limit=1 << 20), most)
        self.assertRaises(ValueError, encode, [*most, 0])
        data = _array(MAX_ITEMS)[:1] + MAX_ITEMS.to_bytes(4, "big") + b"\x00" * MAX_ITEMS
        self.assertRaises(CborError, decode_strict, data, limit=1 << 20)
        long = [b"\x80" * 50_000, "é" * 50_000, {"a": None}]
        self.assertEqual(decode_strict(encode(long), limit=1 << 20), long)

    def test_limit(self) -> None:
        """The limit is the last length that passes."""
        data = encode("a" * 50)
        self.assertEqual(decode_strict(data, limit=len(data)), "a" * 50)
        self.assertRaises(CborError, decode_strict, data, limit=len(data) - 1)

    def test_encode_refuses_what_would_not_come_back(self) -> None:
        """Also where cbor2 by itself would find an encoding."""

        class Colour(IntEnum):
            RED = 1

        for value in (1.5, 1 << 64, -(1 << 64) - 1, [1, 1 << 64], {1: 2}, {b"a": 1}, {"a": {1, 2}}):
            self.assertRaises(TypeError, encode, value)
        for other in (Colour.RED, [Colour.RED], uuid.UUID(int=1), Decimal(1), bytearray(b"a"), object()):
            self.assertRaises(TypeError, encode, other)
        self.assertRaises(ValueError, encode, "\ud800")

    def test_blame(self) -> None:
        """It is the peer's fault, and a value error besides."""
        self.assertTrue(issubclass(CborError, PeerError))
        self.assertTrue(issubclass(CborError, ValueError))

    def test_a_tuple_is_a_list(self) -> None:
        """Tuples are encoded as arrays, which come back as lists."""
        self.assertEqual(decode_strict(encode(((1, 2), ())), limit=100), [[1, 2], []])


class Bombs(SynchronousTestCase):
    """What was made to hurt a decoder."""

    def test_no_time(self) -> None:
        """Each is refused in a few milliseconds, where a careless decoder takes up to three seconds."""
        for name, bomb in BOMBS.items():
            with self.subTest(name):
                refused = partial(self.assertRaises, CborError, decode_strict, bomb, limit=1 << 21)
                self.assertLess(least_seconds(refused), 0.25)

    def test_no_memory(self) -> None:
        """All of them together raise the peak of a process by less than 16 MB, the decoder's own counted."""
        program = "from tests.test_cbor import grow; print(*grow())"
        root = Path(__file__).parent.parent
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        refused, growth = done.stdout.split()
        self.assertEqual(int(refused), len(BOMBS))
        self.assertLess(int(growth), 16_000)


def grow() -> tuple[int, int]:
    """How many bombs are refused, and by how many KiB that raises the peak; for a process of its own."""
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in BOMBS.values():
        try:
            decode_strict(bomb, limit=1 << 21)
        except CborError:
            refused += 1
    return refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
