"""
How fast packets are sealed and opened, and what a small one costs; with the cipher alone as the yardstick.

C{python -m benchmarks.codec [--json FILE] [--megabytes N] [--rounds N]}
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt, crypto_scalarmult_base

from hoft.protocols.control import Control, Receipt
from hoft.protocols.packets import MAX_RECORD, PacketReader, PacketWriter, Record, RecordFrame, plan_frames
from hoft.protocols.sealing import BoxSuite

NEAR, FAR = bytes(16), bytes([1] * 16)


class Pair:
    """Two nodes' suites for each other."""

    def __init__(self) -> None:
        near, far = os.urandom(32), os.urandom(32)
        self.near = BoxSuite(near, crypto_scalarmult_base(far))
        self.far = BoxSuite(far, crypto_scalarmult_base(near))

    def write(self, control: bytes, records: Sequence[Record]) -> Iterator[bytes]:
        """One packet, piece by piece as it is written."""
        frames: list[Sequence[Record]] = []
        at = 0
        for count in plan_frames([len(record.payload) for record in records]):
            frames.append(records[at : at + count])
            at += count
        writer = PacketWriter(
            self.near,
            os.urandom,
            control,
            [[len(record.payload) for record in frame] for frame in frames],
            sender=NEAR,
            recipient=FAR,
            incarnation=1,
            boot=2,
            recipient_incarnation=3,
            challenge=4,
            echo=5,
            number=6,
            hedge=time.time_ns().to_bytes(8, "big"),
        )
        yield writer.begin()
        for frame in frames:
            yield writer.frame(frame)
        yield writer.end()

    def seal(self, control: bytes, records: Sequence[Record]) -> int:
        """The length of one packet, of which no more than a piece is ever held."""
        return sum(map(len, self.write(control, records)))

    def read(self, pieces: Sequence[bytes]) -> int:
        """How many records there are in a whole packet."""
        reader = PacketReader(lambda header: self.far)
        count = 0
        for piece in pieces:
            count += sum(len(event.records) for event in reader.feed(piece) if isinstance(event, RecordFrame))
        if not reader.complete:
            raise RuntimeError("the packet did not come through")
        return count


def seconds(rounds: int, call: Callable[[], object]) -> list[float]:
    """How long each of some calls took."""
    taken: list[float] = []
    for _ in range(rounds):
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    return taken


def measure(megabytes: int, rounds: int) -> dict[str, dict[str, object]]:
    """
    Every figure with its unit, its best, its median, and all that was measured.

    Bulk is in MB/s of payload, a single packet or control in microseconds.
    """
    pair = Pair()
    # Once glibc has seen a block of this size come and go it keeps the memory of frames, rather than
    # give it back and fault it in again for each: a node that reads files in such pieces is always in
    # that state, and 1.7 times as fast.
    del bytearray(b"x" * (1 << 20))[:]
    payload = os.urandom(MAX_RECORD)
    count = megabytes * 1_000_000 // MAX_RECORD
    bulk = [Record(number, 2, payload) for number in range(1, count + 1)]
    small = [Record(number, 2, os.urandom(1000)) for number in range(1, count * 50)]
    control = Control(ack=1000, sack=((1005, 1010),), limit=5000, clock=77, peer_clock=66).encode()
    receipts = tuple(Receipt(9, number, 16, ((5, 7),), 12) for number in range(1, 65))
    sack = tuple((3 * at, 3 * at + 1) for at in range(1, 257))
    long = Control(ack=1, sack=sack, limit=5000, receipts=receipts, clock=77)
    figures: dict[str, dict[str, object]] = {}

    def rate(name: str, size: int, call: Callable[[], object]) -> None:
        taken = seconds(rounds, call)
        raw = [size / one / 1e6 for one in taken]
        figures[name] = {"unit": "MB/s", "best": max(raw), "median": sorted(raw)[len(raw) // 2], "raw": raw}

    def each(name: str, call: Callable[[], object], times: int = 300) -> None:
        raw = [one * 1e6 for one in seconds(rounds * times, call)]
        figures[name] = {"unit": "us", "best": min(raw), "median": sorted(raw)[len(raw) // 2], "raw": raw}

    key, nonce = os.urandom(32), bytes(24)

    def cipher() -> None:
        for _ in range(count):
            crypto_aead_xchacha20poly1305_ietf_encrypt(payload, nonce, nonce, key)

    rate("cipher alone, 64 KiB at a time", count * MAX_RECORD, cipher)
    rate("seal, records of 64 KiB", count * MAX_RECORD, lambda: pair.seal(control, bulk))
    rate("seal, records of 1 KB", 1000 * len(small), lambda: pair.seal(control, small))
    data = b"".join(pair.write(control, bulk))
    for size in (4096, 65536, 1 << 20):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        rate(f"open, records of 64 KiB, in pieces of {size >> 10} KiB", len(data), partial(pair.read, pieces))
    pieces = list(pair.write(control, small))
    rate("open, records of 1 KB, by frames", 1000 * len(small), partial(pair.read, pieces))
    one = [Record(1, 2, os.urandom(300))]
    each("seal a packet of one record of 300 B", lambda: pair.seal(control, one))
    packet = [b"".join(pair.write(control, one))]
    each("open a packet of one record of 300 B", lambda: pair.read(packet))
    each("seal a packet without records", lambda: pair.seal(control, []))
    alone = [b"".join(pair.write(control, []))]
    each("open a packet without records", lambda: pair.read(alone))
    each("decode a usual control", lambda: Control.decode(control))
    longest = long.encode()
    each(f"encode a control of {len(longest)} B", long.encode, 20)
    each(f"decode a control of {len(longest)} B", lambda: Control.decode(longest), 20)
    return figures


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and keep the raw figures if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw figures there")
    parser.add_argument("--megabytes", type=int, default=50, help="size of a bulk packet (default 50)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (default 7)")
    options = parser.parse_args(arguments)
    figures = measure(options.megabytes, options.rounds)
    for name, figure in figures.items():
        print(f"{name:52} {figure['median']:8.1f} {figure['unit']:4}  (best {figure['best']:.1f})")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
