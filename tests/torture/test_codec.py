"""
The parsers of layer 1 under fire: 100,000 inputs, times C{HOFT_SOAK}.

Only L{PacketError} (or L{CborError}) is raised, nothing but what was sealed comes out, and no
input takes long.
"""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from hoft.cbor import CborError, decode_strict, encode
from hoft.errors import PacketError, PacketReason
from hoft.protocols.compression import MOST_EXPANSION, Compressor, expand, expand_from
from hoft.protocols.control import Control, Receipt
from hoft.protocols.layout import decode_records, encode_records
from hoft.protocols.packets import (
    HEADER_SIZE,
    MAX_RECORD,
    MIN_STRIDE,
    BadFrame,
    ControlFrame,
    Event,
    Header,
    PacketReader,
    Record,
    RecordFrame,
)
from hoft.protocols.sealing import Suite
from tests.effort import least_seconds
from tests.protocols.samples import FAR, NEAR, SUITES, Agreed, grouped, parts, writer
from tests.torture.figures import CODEC

LONGEST = 0.05
"""Seconds of processor time that no input may take; those here take less than half a millisecond."""

T = TypeVar("T")


class Mutation:
    """Damages bytes as carriers and attackers do; repeats with its seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def damage(self, data: bytes, others: list[bytes]) -> bytes:
        chance = self.random
        out = bytearray(data)
        for _ in range(chance.choice([1, 1, 1, 2, 5])):
            at = chance.randrange(len(out)) if out else 0
            end = min(len(out), at + chance.choice([1, 2, 4, 8, 16, 300]))
            what = chance.randrange(8)
            if what == 0 and out:
                out[at] ^= 1 << chance.randrange(8)
            elif what == 1:
                out[at:end] = chance.randbytes(end - at)
            elif what == 2:
                out[at:end] = bytes(end - at)
            elif what == 3:
                del out[at:]
            elif what == 4:
                del out[at:end]
            elif what == 5:
                out[at:at] = chance.randbytes(chance.choice([1, 2, 8]))
            elif what == 6:
                other = chance.choice(others)
                out[at:end] = other[at:end]
            else:
                out[at:end] = b"\xff" * (end - at)
        return bytes(out)


def _read(accept: Callable[[Header], Suite], *pieces: bytes) -> tuple[PacketReader, list[Event]]:
    """A reader, and what it finds in a packet that comes in pieces."""
    reader = PacketReader(accept)
    return reader, [event for piece in pieces for event in reader.feed(piece)]


def _in_vain(decode: Callable[[], object]) -> None:
    with contextlib.suppress(PacketError, CborError):
        decode()


class Fuzz(SynchronousTestCase):
    """Seeded, and so repeated exactly."""

    def setUp(self) -> None:
        # What other tests of this process have left behind is not looked at for garbage meanwhile.
        gc.freeze()
        self.addCleanup(gc.unfreeze)

    def soon(self, decode: Callable[[], T]) -> T:
        """What C{decode} returns or raises, which does not take long: not each time that it is called."""
        before = time.thread_time()
        try:
            return decode()
        finally:
            if time.thread_time() - before > LONGEST:
                self.assertLess(least_seconds(partial(_in_vain, decode)), LONGEST)

    def test_damaged_packets(self) -> None:
        """Nothing comes out of a damaged packet but what was put into it, where it was put."""
        mutation = Mutation(1)
        chance = mutation.random
        suites = list(SUITES.values())
        packets: list[tuple[bytes, Agreed, bytes, list[list[Record]]]] = []
        for seed in range(8 * len(suites)):
            count = (0, 1, 1, 2, 3, 5, 2, 0)[seed % 8]
            agreed = suites[seed // 8]
            records = [
                Record(1 + at, at % 3, chance.randbytes(chance.choice([0, 9, 700]))) for at in range(count)
            ]
            if seed % 8 == 6:
                records = [Record(at, 2, chance.randbytes(3000)) for at in (1, 2)]
            frames = grouped(records, MIN_STRIDE)
            control = Control(ack=seed, limit=seed, clock=1 << seed).encode()
            made = writer(control, frames, stride=MIN_STRIDE, seed=seed, suite=agreed(NEAR, FAR))
            packets.append((b"".join(parts(made, frames)), agreed, control, frames))
        others = [data for data, _, _, _ in packets]
        accepts = {agreed: FAR.accept(NEAR, agreed=agreed) for agreed in suites}
        for _ in range(CODEC):
            data, agreed, control, frames = chance.choice(packets)
            damaged = mutation.damage(data, others)
            cut = chance.randrange(len(damaged) + 1)
            try:
                reader, events = self.soon(partial(_read, accepts[agreed], damaged[:cut], damaged[cut:]))
            except PacketError:
                continue
            if not reader.authenticated:
                self.assertEqual(events, [])
                continue
            # What authenticates is one of ours, from its first byte, and of the suite agreed on.
            assert reader.header is not None
            begin = reader.header.prefix
            control, frames = next(
                (c, f) for d, a, c, f in packets if a is agreed and damaged.startswith(d[:begin])
            )
            for event in events:
                if isinstance(event, ControlFrame):
                    self.assertEqual(event.content, control)
                elif isinstance(event, RecordFrame):
                    self.assertEqual(list(event.records), frames[event.index - 1])
                elif isinstance(event, BadFrame):
                    self.assertEqual(event.reason, PacketReason.FORGED)

    def test_headers(self) -> None:
        """A header that passes describes a packet whose frames add up to its length."""
        mutation = Mutation(2)
        chance = mutation.random
        frames = grouped([Record(1, 1, bytes(3000)), Record(2, 1, bytes(3000))], MIN_STRIDE)
        data = writer(b"\xa0", frames, stride=MIN_STRIDE).begin()[:HEADER_SIZE]
        passed = 0
        for _ in range(CODEC):
            damaged = data[:8] + mutation.damage(data[8:], [chance.randbytes(HEADER_SIZE)])
            if chance.random() < 0.5:  # lengths that nearly agree
                step = chance.choice([-1, 1, MIN_STRIDE, -MIN_STRIDE])
                length = max(0, int.from_bytes(data[-8:], "big") + step)
                damaged = (
                    data[:-16]
                    + chance.randrange(4).to_bytes(4, "big")
                    + data[-12:-8]
                    + length.to_bytes(8, "big")
                )
            try:
                header = self.soon(partial(Header.decode, damaged))
            except PacketError:
                continue
            passed += 1
            self.assertEqual(header.encode(), damaged[:HEADER_SIZE])
            record_frames = max(header.frames - 1, 0) * header.stride
            if header.frames:
                record_frames += header.frame_length(header.frames)
            ends = header.control_length + record_frames + header.frame_length(header.frames + 1)
            self.assertEqual(header.prefix + ends, header.length)
        self.assertGreater(passed, CODEC // 100)

    def test_record_frames(self) -> None:
        """Authenticated plaintext that a peer made up: records of its own bytes, or refused."""
        mutation = Mutation(3)
        chance = mutation.random
        frames = [
            encode_records(
                [Record(1 + at, at % 3, chance.randbytes(size)) for at, size in enumerate(sizes)], 900
            )
            for sizes in ([0], [10, 0, 20], [800], [1] * 40)
        ]
        passed = 0
        for _ in range(CODEC):
            damaged = mutation.damage(chance.choice(frames), frames)
            try:
                records = self.soon(partial(decode_records, damaged))
            except PacketError as error:
                self.assertEqual(error.reason, PacketReason.MALFORMED)
                continue
            passed += 1
            again = encode_records(records, 0)
            self.assertEqual(again + bytes(len(damaged) - len(again)), damaged)
        self.assertGreater(passed, CODEC // 100)

    def test_compressed_payloads(self) -> None:
        """What a peer made up for a compressed payload: expanded within its bounds, or refused."""
        mutation = Mutation(6)
        chance = mutation.random
        payloads = [
            b"hoft" * 500,
            bytes(3000),
            bytes(at & 3 for at in chance.randbytes(2000)),
            b"text, " * 9000,
        ]
        for start, expander in ((0, expand), (700, expand_from)):
            packed = [one for one in (Compressor().pack(payload, start) for payload in payloads) if one]
            self.assertEqual(len(packed), len(payloads))
            self.expanded(mutation, packed, expander)

    def expanded(
        self, mutation: Mutation, packed: list[bytes], expander: Callable[[bytes, int], bytes]
    ) -> None:
        chance = mutation.random
        passed = 0
        for _ in range(CODEC // 20):
            damaged = mutation.damage(chance.choice(packed), packed)
            try:
                payload = self.soon(partial(expander, damaged, MAX_RECORD))
            except PacketError as error:
                self.assertEqual(error.reason, PacketReason.MALFORMED)
                continue
            passed += 1
            self.assertLessEqual(len(payload), min(MAX_RECORD, MOST_EXPANSION * len(damaged)))
        self.assertGreater(passed, CODEC // 1000)

    def test_controls(self) -> None:
        """Authenticated controls that a peer made up: legal with one encoding, or refused."""
        mutation = Mutation(4)
        chance = mutation.random
        receipts = (Receipt(7, 8, 9, ((1, 2), (5, 9)), 10), Receipt(7, 9, 0))
        controls = [
            Control().encode(),
            Control(ack=300, sack=((302, 302), (400, 70_000)), limit=1 << 33, probe=True).encode(),
            Control(ack=1, receipts=receipts, clock=1 << 40, peer_clock=5, retired=1 << 63).encode(),
        ]
        passed = 0
        for _ in range(CODEC):
            damaged = mutation.damage(chance.choice(controls), controls)
            try:
                control = self.soon(partial(Control.decode, damaged))
            except PacketError as error:
                self.assertEqual(error.reason, PacketReason.MALFORMED)
                continue
            passed += 1
            self.assertEqual(control.encode(), damaged)
        self.assertGreater(passed, CODEC // 100)

    def test_cbor(self) -> None:
        """Bytes at random, heads preferred: one encoding of a value, or refused."""
        chance = random.Random(5)
        heads = bytes(
            [0x00, 0x18, 0x20, 0x41, 0x5F, 0x61, 0x81, 0x82, 0x98, 0x9F, 0xA1, 0xB8, 0xC2, 0xD8, 0xF6, 0xF9]
        )
        passed = 0
        for _ in range(CODEC):
            data = bytes(chance.choices(heads, k=chance.randrange(6))) + chance.randbytes(
                chance.randrange(12)
            )
            try:
                value = self.soon(partial(decode_strict, data, limit=100))
            except CborError:
                continue
            passed += 1
            self.assertEqual(encode(value), data)
        self.assertGreater(passed, CODEC // 200)
