"""Compressed payloads: what comes out is what went in; what costs more than it should is refused."""

from __future__ import annotations

import tracemalloc
from functools import partial
from random import Random

import hypothesis.strategies as st
from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import PacketError, PacketReason
from hoft.protocols.compression import (
    GAIN,
    LEAST,
    MOST_EXPANSION,
    PROBE,
    Compressor,
    expand,
    expand_from,
    zstd,
)
from hoft.protocols.layout import COMPRESSED, MAX_RECORD, Record, decode_records, encode_records
from tests.effort import least_seconds, steps

TEXT = b"".join(b'{"number": %d, "name": "item %d", "stock": true},\n' % (at, at * at) for at in range(2000))
NOISE = Random(1).randbytes(MAX_RECORD)


def packed_by_others(payload: bytes) -> bytes:
    """As any implementation may do it."""
    return zstd.compress(payload, 19).ljust(-(-len(payload) // MOST_EXPANSION), b"\0")


def _with_window(log: int) -> zstd.ZstdCompressor:
    """One whose frames need a window of C{1 << log} bytes, and do not say how much is in them."""
    return zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})


class Packing(SynchronousTestCase):
    """What is compressed, and what had better not be."""

    def setUp(self) -> None:
        self.compressor = Compressor()

    def test_text(self) -> None:
        """It becomes much smaller, and what it was again."""
        for size in (LEAST, PROBE, PROBE + 1, 30_000, MAX_RECORD):
            packed = self.compressor.pack(TEXT[:size])
            assert packed is not None
            self.assertLess(len(packed), size / 2)
            self.assertEqual(expand(packed, MAX_RECORD), TEXT[:size])

    def test_from_somewhere(self) -> None:
        """What is before stays as it is, and says nothing of the rest nor the rest of it."""
        for start in (1, 16, 5000, MAX_RECORD - LEAST):
            payload = NOISE[:start] + TEXT[: MAX_RECORD - start]
            packed = self.compressor.pack(payload, start)
            assert packed is not None
            self.assertLess(len(packed), start + (MAX_RECORD - start) / 2)
            self.assertEqual(packed[2 : 2 + start], NOISE[:start])
            self.assertEqual(packed[2 + start :], self.compressor.pack(TEXT[: MAX_RECORD - start]))
            self.assertEqual(expand_from(packed, MAX_RECORD), payload)
        self.assertIdentical(self.compressor.pack(TEXT[:MAX_RECORD], MAX_RECORD - LEAST + 1), None)
        self.assertIdentical(self.compressor.pack(TEXT[:5000] + NOISE[:5000], 5000), None)

    def test_alone(self) -> None:
        """It does not depend on what was compressed before."""
        packed = self.compressor.pack(TEXT[:5000])
        self.compressor.pack(TEXT[5000:9000])
        self.assertEqual(self.compressor.pack(TEXT[:5000]), packed)
        self.assertEqual(Compressor().pack(TEXT[:5000]), packed)

    def test_what_does_not_pay(self) -> None:
        """Small payloads and such as do not become smaller stay as they are."""
        for payload in (b"", TEXT[: LEAST - 1], NOISE, NOISE[:LEAST], NOISE[:PROBE] + TEXT):
            self.assertIdentical(self.compressor.pack(payload), None)
        some = NOISE[: int(LEAST / GAIN)]
        self.assertIdentical(self.compressor.pack(some + bytes(LEAST - len(some))), None)

    def test_at_most_so_much(self) -> None:
        """What would shrink to almost nothing is filled up, so that readers may refuse bombs."""
        for size in (LEAST, LEAST + 1, MAX_RECORD):
            packed = self.compressor.pack(bytes(size))
            assert packed is not None
            self.assertEqual(len(packed), -(-size // MOST_EXPANSION))
            self.assertEqual(expand(packed, MAX_RECORD), bytes(size))

    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(st.integers(0, MAX_RECORD), st.integers(0, 255), st.integers(0, 1 << 32))
    def test_anything(self, size: int, variety: int, seed: int) -> None:
        """Either it stays as it is, or comes out as it was, and has become smaller by enough."""
        payload = bytes(at & variety for at in Random(seed).randbytes(size))
        packed = self.compressor.pack(payload)
        if packed is not None:
            self.assertLessEqual(len(packed) * GAIN, size + GAIN * MOST_EXPANSION)
            self.assertEqual(expand(packed, MAX_RECORD), payload)


class Refusing(SynchronousTestCase):
    """What a peer may make up."""

    def assertRefused(self, packed: bytes) -> None:
        error = self.assertRaises(PacketError, expand, packed, MAX_RECORD)
        self.assertEqual(error.reason, PacketReason.MALFORMED)

    def test_damaged(self) -> None:
        """Cut anywhere, followed by something, or no Zstandard at all."""
        packed = packed_by_others(TEXT[:2000])
        self.assertEqual(expand(packed, MAX_RECORD), TEXT[:2000])
        for length in range(len(packed)):
            self.assertRefused(packed[:length])
        for more in (b"x", b"\0x", packed):
            self.assertRefused(packed + more)
        for other in (b"", bytes(1000), TEXT[:2000], NOISE[:2000]):
            self.assertRefused(other)

    def test_beginnings(self) -> None:
        """More that stays as it is than there is, or than leaves room for the rest; and all of the above."""
        packed = packed_by_others(TEXT[:3000])
        begun = b"\x00\x03abc" + packed
        self.assertEqual(expand_from(begun, MAX_RECORD), b"abc" + TEXT[:3000])
        full = packed_by_others(TEXT[: MAX_RECORD - 3])
        self.assertEqual(len(expand_from(b"\x00\x03abc" + full, MAX_RECORD)), MAX_RECORD)
        for wrong in (
            b"",
            b"\x00",
            b"\x00\x03ab",
            b"\xff\xff" + NOISE[:60_000],
            begun[:-40],
            begun + b"x",
            b"\x00\x04abcd" + full,
            b"\xff\xe2" + NOISE[:MAX_RECORD] + packed,
        ):
            error = self.assertRaises(PacketError, expand_from, wrong, MAX_RECORD)
            self.assertEqual(error.reason, PacketReason.MALFORMED)

    def test_too_short(self) -> None:
        """Many that are hardly anything would cost more than they bring."""
        self.assertRefused(packed_by_others(TEXT[: LEAST - 1]))
        self.assertEqual(expand(packed_by_others(TEXT[:LEAST]), MAX_RECORD), TEXT[:LEAST])

    def test_too_long(self) -> None:
        """More than a record may have, or more than eight times what came."""
        self.assertEqual(expand(packed_by_others(TEXT[:MAX_RECORD]), MAX_RECORD), TEXT[:MAX_RECORD])
        self.assertRefused(packed_by_others(TEXT[: MAX_RECORD + 1]))
        short = zstd.compress(bytes(9000), 1)
        self.assertRefused(short)
        self.assertRefused(short.ljust(9000 // MOST_EXPANSION - 1, b"\0"))
        self.assertEqual(expand(short.ljust(9000 // MOST_EXPANSION, b"\0"), MAX_RECORD), bytes(9000))

    def test_bombs(self) -> None:
        """Gigabytes in a kilobyte, huge windows, frames in frames: refused at once, with little memory."""
        gigabyte, within_the_window = (
            b"".join(endless.compress(bytes(1 << 20)) for _ in range(1 << 10)) + endless.flush()
            for endless in (zstd.ZstdCompressor(19), _with_window(17))
        )
        window = zstd.compress(
            bytes(1 << 22),
            options={
                zstd.CompressionParameter.window_log: 27,
                zstd.CompressionParameter.content_size_flag: 0,
            },
        )
        bombs = [
            gigabyte[:MAX_RECORD],
            gigabyte[:128],
            within_the_window,
            within_the_window[:MAX_RECORD],
            within_the_window[:128],
            window.ljust(MAX_RECORD, b"\0"),
            # Says that it has 2^63 bytes (RFC 8878, section 3.1.1.1), and so in one segment.
            bytes.fromhex("28b52ffde0 0000000000000080") + bytes(1000),
            b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + bytes(MAX_RECORD - 8),
        ]
        for bomb in bombs:
            # Of what is expanded as far as it goes a gigabyte takes more than a second; this less than a ms.
            self.assertLess(least_seconds(partial(self.assertRefused, bomb)), 0.25)
            tracemalloc.start()
            try:
                self.assertRefused(bomb)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            self.assertLess(peak, 1 << 20)

    def test_window(self) -> None:
        """A frame that needs more than 128 KiB beside it, whatever is in it."""
        for log, refused in ((17, False), (18, True), (27, True)):
            compressor = _with_window(log)
            packed = (compressor.compress(TEXT[:4000]) + compressor.flush()).ljust(500, b"\0")
            if refused:
                self.assertRefused(packed)
            else:
                self.assertEqual(expand(packed, MAX_RECORD), TEXT[:4000])

    def test_a_frame_full(self) -> None:
        """As many compressed records as a frame takes: eight times its size, and no more steps for each."""
        packed = packed_by_others(bytes(LEAST))
        records = [Record(number, 1, packed, COMPRESSED) for number in range(1, 460)]
        plaintext = encode_records(records, 0)
        self.assertLess(len(plaintext), 1 << 16)
        few, all_of_them = (
            steps(partial(decode_records, encode_records(records[:count], 0))) for count in (51, 459)
        )
        self.assertLess(all_of_them, 1.5 * 9 * few)
        found = decode_records(plaintext)
        self.assertEqual({record.payload for record in found}, {bytes(LEAST)})
        self.assertEqual({record.flags for record in found}, {0})

    def test_flags(self) -> None:
        """A flag that nobody knows is refused; one that is not true, too."""
        for flags in (2, 3, 128, COMPRESSED):
            frame = encode_records([Record(1, 1, TEXT[:2000], flags)], 0)
            error = self.assertRaises(PacketError, decode_records, frame)
            self.assertEqual(error.reason, PacketReason.MALFORMED)
