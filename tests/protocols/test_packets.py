"""Packets: what was sealed comes out, whole frames of what is damaged come out, nothing else ever does."""

from __future__ import annotations

import random
import struct
import tracemalloc
from bisect import bisect_right
from collections.abc import Sequence
from itertools import product

import hypothesis.strategies as st
from attrs import evolve
from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import PacketError, PacketReason
from hoft.protocols.control import Control
from hoft.protocols.layout import decode_records, encode_records
from hoft.protocols.packets import (
    DEFAULT_STRIDE,
    HEADER_SIZE,
    MAX_LENGTH,
    MAX_RECORD,
    MAX_STRIDE,
    MIN_STRIDE,
    RECORD_HEAD,
    BadFrame,
    ControlFrame,
    End,
    Event,
    Header,
    PacketReader,
    PacketWriter,
    Record,
    RecordFrame,
    capacity,
    packet_length,
    plan_frames,
)
from hoft.protocols.sealing import BOX, FRAME_OVERHEAD
from tests.protocols.samples import (
    FAR,
    NEAR,
    SUITES,
    THIRD,
    Agreed,
    Node,
    chance,
    grouped,
    packet,
    parts,
    read,
    writer,
)

CONTROL = Control(ack=7, sack=((9, 12),), limit=4096, clock=99, peer_clock=55).encode()


def _records(sizes: Sequence[int], first: int = 1) -> list[Record]:
    chance = random.Random(len(sizes))
    return [Record(first + at, at % 3, chance.randbytes(size)) for at, size in enumerate(sizes)]


def _events(control: bytes, frames: Sequence[Sequence[Record]]) -> list[Event]:
    """What is read in a whole packet."""
    found: list[Event] = [ControlFrame(control)]
    found += (RecordFrame(index, tuple(frame)) for index, frame in enumerate(frames, 1))
    return [*found, End()]


class Whole(SynchronousTestCase):
    """Packets as they were made."""

    def test_round_trip(self) -> None:
        """Control and records come out as they went in, with the header."""
        frames = grouped(_records([0, 1, 30_000, 40_000, 5, MAX_RECORD, 100]))
        self.assertEqual(len(frames), 4)
        reader = PacketReader(FAR.accept(NEAR))
        self.assertEqual(reader.feed(packet(CONTROL, frames)), _events(CONTROL, frames))
        assert reader.header is not None
        self.assertEqual(reader.header.sender, NEAR.uuid)
        self.assertEqual(reader.header.echo, 0x5555)
        self.assertEqual((reader.authenticated, reader.complete, reader.finished), (True, True, True))
        self.assertEqual(reader.missing(), [])

    def test_suites(self) -> None:
        """Every suite carries the same; only the header tells which."""
        frames = grouped(_records([0, 1, 30_000, 40_000, 5, MAX_RECORD, 100]))
        sizes = [[len(record.payload) for record in frame] for frame in frames]
        for name, agreed in SUITES.items():
            with self.subTest(name):
                made = writer(CONTROL, frames, suite=agreed(NEAR, FAR))
                data = b"".join(parts(made, frames))
                self.assertEqual(len(data), packet_length(len(CONTROL), sizes, made.header.suite))
                reader = PacketReader(FAR.accept(NEAR, agreed=agreed))
                self.assertEqual(reader.feed(data), _events(CONTROL, frames))
                readable = not name.startswith("box")
                self.assertEqual([record.payload in data for record in frames[0][2:]], [readable])

    def test_control_only(self) -> None:
        """A packet without records is small."""
        data = packet(CONTROL, [])
        self.assertEqual(read(data), [ControlFrame(CONTROL), End()])
        self.assertLess(len(data), 256)

    def test_length_is_known_from_the_start(self) -> None:
        """The header names the exact length, and C{packet_length} foresees it."""
        for sizes in ([], [0], [10], [MAX_RECORD], [MAX_RECORD, 0], [40_000] * 5):
            frames = grouped(_records(sizes))
            made = writer(CONTROL, frames)
            foreseen = packet_length(
                len(CONTROL), [[len(record.payload) for record in frame] for frame in frames], BOX
            )
            data = b"".join(parts(made, frames))
            self.assertEqual([len(data), made.header.length], [foreseen, foreseen])

    def test_pieces(self) -> None:
        """Each write is one frame; frames begin at multiples of the stride."""
        frames = grouped(_records([50_000, 50_000, 300]))
        made = writer(CONTROL, frames)
        lengths = [len(piece) for piece in parts(made, frames)]
        header = made.header
        self.assertEqual(lengths[0], header.prefix + len(CONTROL) + FRAME_OVERHEAD)
        self.assertEqual(lengths[1:], [DEFAULT_STRIDE, header.frame_length(2), FRAME_OVERHEAD])
        self.assertEqual(header.frame_length(2), 50_300 + 2 * RECORD_HEAD + FRAME_OVERHEAD)

    def test_one_record_fills_a_frame(self) -> None:
        """The largest record leaves nothing over."""
        data = packet(CONTROL, [_records([MAX_RECORD])])
        self.assertEqual(len(data), len(packet(CONTROL, [])) + DEFAULT_STRIDE)

    def test_every_stride(self) -> None:
        """Strides from the least to the most work, odd ones too."""
        for stride in (MIN_STRIDE, MIN_STRIDE + 1, 10_007, MAX_STRIDE):
            frames = grouped(_records([3000, 3000, 50, 4000, 20]), stride)
            self.assertEqual(read(packet(CONTROL, frames, stride=stride)), _events(CONTROL, frames))

    def test_padding_is_ignored(self) -> None:
        """Whatever follows END is not looked at, whether with it or later."""
        frames = [_records([10])]
        data = packet(CONTROL, frames)
        for padding in (b"\x00" * 100_000, b"\xff" * 7, data):
            reader = PacketReader(FAR.accept(NEAR))
            self.assertEqual(reader.feed(data + padding), _events(CONTROL, frames))
            self.assertEqual(reader.feed(padding), [])

    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(st.lists(st.integers(0, 3000), max_size=8), st.integers(0, 1 << 32))
    def test_any_cutting_is_the_same(self, sizes: list[int], seed: int) -> None:
        """Fed in pieces of whatever size and type, the events are those of the whole."""
        chance = random.Random(seed)
        frames = grouped(_records(sizes), MIN_STRIDE)
        data = packet(CONTROL, frames, stride=MIN_STRIDE) + b"padding"
        reader = PacketReader(FAR.accept(NEAR))
        found: list[Event] = []
        at = 0
        while at < len(data):
            piece = data[at : at + chance.choice([0, 1, 2, 15, 100, 4096, 9000])]
            at += len(piece)
            found += reader.feed(chance.choice([bytes, bytearray, memoryview])(piece))
        self.assertEqual(found, _events(CONTROL, frames))

    def test_byte_by_byte(self) -> None:
        """The smallest pieces of all."""
        frames = grouped(_records([100, 200]))
        reader = PacketReader(FAR.accept(NEAR))
        found = [event for byte in packet(CONTROL, frames) for event in reader.feed(bytes([byte]))]
        self.assertEqual(found, _events(CONTROL, frames))

    def test_memory(self) -> None:
        """Reading holds less than two strides besides the piece and what it gave out."""
        frames = grouped(_records([MAX_RECORD] * 30))
        data = packet(CONTROL, frames)
        reader = PacketReader(FAR.accept(NEAR))
        size = 10_000
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        tracemalloc.start()
        try:
            for piece in pieces:
                reader.feed(piece)
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess(held, DEFAULT_STRIDE + 20_000)
        # While a frame is opened: itself twice, its plaintext twice, the record, and the list.
        self.assertLess(peak, 5 * DEFAULT_STRIDE + 20_000)


class Writing(SynchronousTestCase):
    """What a writer refuses, and that keys never repeat."""

    def test_refused(self) -> None:
        """Nothing is sealed that a reader would not accept."""
        big = Record(1, 1, bytes(MAX_RECORD + 1))
        fine = Record(1, 1, b"a")
        self.assertRaises(ValueError, writer, CONTROL, [[big]])
        self.assertRaises(ValueError, writer, CONTROL, [[]])
        self.assertRaises(ValueError, writer, bytes(1 << 14), [])
        self.assertRaises(ValueError, writer, b"", [])
        self.assertRaises(ValueError, writer, CONTROL, [[fine]], stride=MIN_STRIDE - 1)
        self.assertRaises(ValueError, writer, CONTROL, [[fine]], stride=MAX_STRIDE + 1)
        self.assertRaises(ValueError, writer, CONTROL, [], number=1 << 64)
        self.assertRaises(ValueError, writer, CONTROL, [[Record(1, 1, bytes(MAX_RECORD))]] * 8193)
        for record in (Record(0, 1, b"a"), Record(1, 256, b"a"), Record(1 << 64, 1, b"a")):
            made = writer(CONTROL, [[record]])
            made.begin()
            self.assertRaises(ValueError, made.frame, [record])

    def test_order(self) -> None:
        """Begin, each frame with the records announced, end; each once."""
        frames = grouped(_records([100]))
        made = writer(CONTROL, frames)
        self.assertRaises(ValueError, made.frame, frames[0])
        self.assertRaises(ValueError, made.end)
        made.begin()
        self.assertRaises(ValueError, made.begin)
        self.assertRaises(ValueError, made.end)
        self.assertRaises(ValueError, made.frame, _records([99]))
        self.assertRaises(ValueError, made.frame, _records([100, 0]))
        made.frame(frames[0])
        self.assertRaises(ValueError, made.frame, frames[0])
        made.end()
        self.assertRaises(ValueError, made.end)

    def test_keys_do_not_repeat(self) -> None:
        """Entropy, header and hedge each make another key; the same three the same bytes."""

        def sealed_key(**other: int | bytes) -> bytes:
            made = writer(CONTROL, [], **other)  # type: ignore[arg-type]  # each is of its own type
            return made.begin()[HEADER_SIZE : made.header.prefix]

        keys = [sealed_key(), sealed_key(seed=1), sealed_key(number=2), sealed_key(hedge=b"now")]
        self.assertEqual(len(set(keys)), 4)
        # The salt is what would show a repetition on the wire.
        self.assertEqual(len({key[:24] for key in keys}), 4)
        self.assertEqual(sealed_key(), keys[0])

    def test_short_entropy(self) -> None:
        """A source that gives less than was asked for is not relied on."""
        made = writer(CONTROL, []).header
        self.assertRaises(
            ValueError,
            PacketWriter,
            NEAR.suite(FAR),
            lambda count: chance(1)(count - 1),
            CONTROL,
            [],
            sender=made.sender,
            recipient=made.recipient,
            incarnation=1,
            boot=1,
            recipient_incarnation=1,
            challenge=1,
            echo=1,
            number=1,
            hedge=b"",
        )


class Plans(SynchronousTestCase):
    """Records into frames."""

    def test_greedy(self) -> None:
        """Each frame takes as many of the next as fit, in order."""
        self.assertEqual(plan_frames([]), [])
        self.assertEqual(plan_frames([0]), [1])
        self.assertEqual(plan_frames([MAX_RECORD, 0, MAX_RECORD]), [1, 1, 1])
        half = (MAX_RECORD - RECORD_HEAD) // 2
        self.assertEqual(plan_frames([half, half, half]), [2, 1])
        self.assertEqual(plan_frames([half, half + 1, half]), [1, 1, 1])

    def test_too_large(self) -> None:
        """A record larger than a frame is refused."""
        self.assertRaises(ValueError, plan_frames, [MAX_RECORD + 1])
        self.assertRaises(ValueError, plan_frames, [MIN_STRIDE], MIN_STRIDE)

    @settings(derandomize=True, deadline=None, max_examples=100)
    @given(st.lists(st.integers(0, MIN_STRIDE - FRAME_OVERHEAD - RECORD_HEAD), max_size=40))
    def test_fits_and_is_greedy(self, sizes: list[int]) -> None:
        """All records are in; every frame fits; none would have taken one more."""
        counts = plan_frames(sizes, MIN_STRIDE)
        self.assertEqual(sum(counts), len(sizes))
        at = 0
        for count in counts:
            fill = sum(sizes[at : at + count]) + RECORD_HEAD * count
            self.assertLessEqual(fill, capacity(MIN_STRIDE))
            at += count
            if at < len(sizes):
                self.assertGreater(fill + RECORD_HEAD + sizes[at], capacity(MIN_STRIDE))


class Headers(SynchronousTestCase):
    """What is refused before anything is opened."""

    def setUp(self) -> None:
        self.frames = grouped(_records([50_000, 50_000, 100]))
        self.data = packet(CONTROL, self.frames)
        self.header = Header.decode(self.data)

    def assertRefused(self, data: bytes, reason: PacketReason) -> None:
        reader = PacketReader(FAR.accept(NEAR))
        error = self.assertRaises(PacketError, reader.feed, data)
        self.assertEqual(error.reason, reason)
        self.assertFalse(reader.authenticated)
        # It stays refused, whatever comes.
        self.assertIdentical(self.assertRaises(PacketError, reader.feed, b""), error)

    def test_round_trip(self) -> None:
        """A header is its own encoding."""
        self.assertEqual(self.header.encode(), self.data[:HEADER_SIZE])
        self.assertEqual(len(self.header.encode()), HEADER_SIZE)

    def test_short(self) -> None:
        """Less than a header says nothing; a stream waits for more, a whole file is too short."""
        for length in range(HEADER_SIZE):
            reader = PacketReader(FAR.accept(NEAR))
            self.assertEqual(reader.feed(self.data[:length]), [])
            self.assertIdentical(reader.header, None)
            error = self.assertRaises(PacketError, Header.decode, self.data[:length])
            self.assertEqual(error.reason, PacketReason.TOO_SHORT)

    def test_not_hoft(self) -> None:
        """Another magic is seen from the first bytes."""
        for data in (b"x", b"hofT", b"\x00" * 4, b"hofx" + self.data[4:], b"PK\x03\x04" + bytes(500)):
            self.assertRefused(data, PacketReason.NOT_HOFT)

    def test_version(self) -> None:
        """A later format is said to be one."""
        self.assertRefused(b"hoft\x02" + self.data[5:], PacketReason.VERSION)

    def test_suite(self) -> None:
        """A suite that does not exist, or is not the one agreed on, is refused."""
        for suite in (0, 4, 255):
            self.assertRefused(self.data[:5] + bytes([suite]) + self.data[6:], PacketReason.SUITE)

    def test_downgrade(self) -> None:
        """A packet of another suite than the agreed one is refused, whatever its header says of it."""
        for made, agreed in product(SUITES.items(), repeat=2):
            with self.subTest(made=made[0], agreed=agreed[0]):
                sealed = writer(CONTROL, self.frames, suite=made[1](NEAR, FAR))
                data = b"".join(parts(sealed, self.frames))
                number = agreed[1](FAR, NEAR).number
                same = sealed.header.suite == number
                for header in (sealed.header, evolve(sealed.header, suite=number)):
                    reader = PacketReader(FAR.accept(NEAR, agreed=agreed[1]))
                    if made == agreed:
                        self.assertEqual(reader.feed(data), _events(CONTROL, self.frames))
                        continue
                    forged = header.encode() + data[HEADER_SIZE:]
                    error = self.assertRaises(PacketError, reader.feed, forged)
                    if header.suite != number:
                        self.assertEqual(error.reason, PacketReason.SUITE)
                    elif same:  # a psk on one side only
                        self.assertEqual(error.reason, PacketReason.KEY)
                    self.assertFalse(reader.authenticated)

    def test_geometry(self) -> None:
        """Lengths that contradict each other or exceed a limit are refused from the header alone."""
        header = self.header
        one = evolve(header, frames=1, length=header.length - header.stride)
        cases = [
            evolve(header, stride=MIN_STRIDE - 1),
            evolve(header, stride=MAX_STRIDE + 1),
            evolve(header, stride=0),
            evolve(header, stride=(1 << 32) - 1),
            evolve(header, frames=0),
            evolve(header, frames=header.frames - 1),
            evolve(header, frames=header.frames + 1),
            evolve(header, frames=(1 << 32) - 1),
            evolve(header, length=0),
            evolve(header, length=HEADER_SIZE),
            evolve(header, length=header.length + header.stride),
            evolve(header, length=header.length - header.stride),
            evolve(header, length=(1 << 64) - 1),
            evolve(header, length=MAX_LENGTH + 1, frames=MAX_LENGTH // header.stride),
            evolve(header, control_length=0),
            evolve(header, control_length=FRAME_OVERHEAD),
            evolve(header, control_length=(1 << 14) + 1, length=header.length + (1 << 14)),
            evolve(header, control_length=(1 << 32) - 1),
            evolve(one, length=one.length - one.frame_length(1)),
            evolve(one, length=one.length - one.frame_length(1) + FRAME_OVERHEAD + RECORD_HEAD - 1),
        ]
        for case in cases:
            with self.subTest(case):
                self.assertRefused(case.encode(), PacketReason.GEOMETRY)

    def test_largest(self) -> None:
        """The longest packet there may be is one that can be described."""
        frames = 8191
        length = (
            self.header.prefix + self.header.control_length + frames * self.header.stride + FRAME_OVERHEAD
        )
        self.assertLessEqual(length, MAX_LENGTH)
        largest = evolve(self.header, frames=frames, length=length)
        self.assertEqual(Header.decode(largest.encode()).frame_length(frames), self.header.stride)

    def test_accept_refuses(self) -> None:
        """Reflected, for somebody else, from a stranger: refused by name, before any key is opened."""
        third_to_far = packet(CONTROL, [], sender=THIRD)
        cases: list[tuple[bytes, Node, PacketReason]] = [
            (self.data, NEAR, PacketReason.REFLECTED),
            (self.data, THIRD, PacketReason.RECIPIENT),
            (third_to_far, FAR, PacketReason.STRANGER),
        ]
        for data, at, reason in cases:
            others = [node for node in (NEAR, FAR) if node is not at]
            error = self.assertRaises(PacketError, read, data, at=at, peers=others)
            self.assertEqual(error.reason, reason)
            error = self.assertRaises(PacketError, read, data[:HEADER_SIZE], at=at, peers=others)
            self.assertEqual(error.reason, reason)

    def test_redirected(self) -> None:
        """A header changed so that it would be accepted belongs to no key or to no frame, in any suite."""
        for name, agreed in SUITES.items():
            made = writer(CONTROL, self.frames, suite=agreed(NEAR, FAR))
            data = b"".join(parts(made, self.frames))[HEADER_SIZE:]
            # Box has one key for both directions: the sealed key opens, the frame does not.
            keyless = PacketReason.FORGED if name == "checksum" else PacketReason.KEY
            cases: list[tuple[Header, Node, Node, PacketReason]] = [
                (evolve(made.header, sender=FAR.uuid, recipient=NEAR.uuid), NEAR, FAR, PacketReason.FORGED),
                (evolve(made.header, recipient=THIRD.uuid), THIRD, NEAR, keyless),
                (evolve(made.header, sender=THIRD.uuid), FAR, THIRD, keyless),
            ]
            for header, at, peer, reason in cases:
                with self.subTest(suite=name, at=at.uuid):
                    reader = PacketReader(at.accept(peer, agreed=agreed))
                    error = self.assertRaises(PacketError, reader.feed, header.encode() + data)
                    self.assertEqual(error.reason, reason)

    def test_header_is_bound_to_the_frames(self) -> None:
        """No field can be changed, nor another packet's key be put in, without frame 0 failing."""
        header = self.header
        cases = [
            evolve(header, incarnation=6),
            evolve(header, boot=6),
            evolve(header, recipient_incarnation=6),
            evolve(header, challenge=6),
            evolve(header, echo=6),
            evolve(header, number=6),
            evolve(header, key_id=header.key_id ^ 1),
        ]
        for case in cases:
            with self.subTest(case):
                self.assertRefused(case.encode() + self.data[HEADER_SIZE:], PacketReason.FORGED)
        prefix = self.header.prefix
        other = b"".join(parts(writer(CONTROL, self.frames, seed=5), self.frames))
        self.assertRefused(
            self.data[:HEADER_SIZE] + other[HEADER_SIZE:prefix] + self.data[prefix:], PacketReason.FORGED
        )


class Salvage(SynchronousTestCase):
    """What a cut or damaged packet still gives."""

    def setUp(self) -> None:
        self.frames = grouped(_records([3000, 500, 3000, 3000, 2000, 1000, 700]), MIN_STRIDE)
        self.made = writer(CONTROL, self.frames, stride=MIN_STRIDE)
        self.pieces = parts(self.made, self.frames)
        self.data = b"".join(self.pieces)
        self.events = _events(CONTROL, self.frames)
        self.assertEqual(len(self.pieces), 6)

    def test_each_frame_alone(self) -> None:
        """A damaged frame costs itself alone, and is named."""
        for index in range(1, len(self.frames) + 1):
            damaged = bytearray(self.pieces[index])
            damaged[index * 100] ^= 4
            reader = PacketReader(FAR.accept(NEAR))
            found = reader.feed(b"".join([*self.pieces[:index], damaged, *self.pieces[index + 1 :]]))
            bad = BadFrame(index, PacketReason.FORGED)
            self.assertEqual(found, [*self.events[:index], bad, *self.events[index + 1 :]])
            self.assertEqual(reader.missing(), [index])
            self.assertTrue(reader.complete)

    def test_all_frames_bad(self) -> None:
        """Even then control and END hold."""
        found = read(
            b"".join([self.pieces[0], *(bytes(len(piece)) for piece in self.pieces[1:-1]), self.pieces[-1]])
        )
        bad = [BadFrame(index, PacketReason.FORGED) for index in range(1, len(self.frames) + 1)]
        self.assertEqual(found, [self.events[0], *bad, End()])

    def test_swapped_frames(self) -> None:
        """Frames are valid in their own place only, control and END too, in each suite."""
        bad: list[Event] = [BadFrame(index, PacketReason.FORGED) for index in (1, 2)]
        for agreed in SUITES.values():
            made = writer(CONTROL, self.frames, stride=MIN_STRIDE, suite=agreed(NEAR, FAR))
            pieces = parts(made, self.frames)
            reader = PacketReader(FAR.accept(NEAR, agreed=agreed))
            found = reader.feed(b"".join([pieces[0], pieces[2], pieces[1], *pieces[3:]]))
            self.assertEqual(found, [self.events[0], *bad, *self.events[3:]])

    def test_frames_of_another_packet(self) -> None:
        """A frame of a packet of the same two nodes and of the same shape is no frame of this one."""
        other = parts(writer(CONTROL, self.frames, stride=MIN_STRIDE, seed=1), self.frames)
        found = read(b"".join([*self.pieces[:2], other[2], *self.pieces[3:]]))
        self.assertEqual(found[2], BadFrame(2, PacketReason.FORGED))
        found = read(b"".join([*self.pieces[:-1], other[-1]]))
        self.assertNotIn(End(), found)

    def test_every_prefix(self) -> None:
        """A prefix gives exactly the frames that lie in it whole; the rest is missing."""
        for name, agreed in SUITES.items():
            with self.subTest(name):
                pieces = parts(
                    writer(CONTROL, self.frames, stride=MIN_STRIDE, suite=agreed(NEAR, FAR)), self.frames
                )
                self.assertPrefixes(pieces, agreed)

    def assertPrefixes(self, pieces: Sequence[bytes], agreed: Agreed) -> None:
        data = b"".join(pieces)
        ends = [0]
        for piece in pieces:
            ends.append(ends[-1] + len(piece))
        reader = PacketReader(FAR.accept(NEAR, agreed=agreed))
        found: list[Event] = []
        for length in range(1, len(data) + 1):
            found += reader.feed(data[length - 1 : length])
            whole = bisect_right(ends, length) - 1
            if len(found) != whole or length in ends:
                self.assertEqual(found, self.events[:whole])
            self.assertEqual(reader.authenticated, whole > 0)
            self.assertEqual(reader.complete, length == len(data))
            if length >= HEADER_SIZE:
                self.assertEqual(reader.missing(), list(range(max(whole, 1), len(self.frames) + 1)))

    def test_bad_end(self) -> None:
        """With END damaged all is read, and known to be all, but not complete."""
        reader = PacketReader(FAR.accept(NEAR))
        self.assertEqual(reader.feed(self.data[:-1] + bytes([self.data[-1] ^ 1])), self.events[:-1])
        self.assertEqual((reader.complete, reader.finished, reader.missing()), (False, True, []))

    def test_nothing_before_frame_0(self) -> None:
        """With frame 0 damaged nothing is given, though all else would authenticate."""
        at = self.made.header.prefix
        damaged = self.data[:at] + bytes([self.data[at] ^ 1]) + self.data[at + 1 :]
        reader = PacketReader(FAR.accept(NEAR))
        error = self.assertRaises(PacketError, reader.feed, damaged)
        self.assertEqual(error.reason, PacketReason.FORGED)
        self.assertFalse(reader.authenticated)

    def test_malformed_by_the_sender(self) -> None:
        """An authenticated frame that is not made of records is bad, and costs itself alone."""
        fine = [Record(5, 2, b"x" * 50)]
        good = encode_records(fine, 0)
        cases = {
            "only zeros": bytes(64),
            "unknown flags": good[:9] + b"\x02" + good[10:],
            "no compressed payload": good[:9] + b"\x01" + good[10:],
            "beyond the frame": good[:10] + struct.pack(">I", 51) + good[14:],
            "far beyond the frame": good[:10] + b"\xff" * 4 + good[14:],
            "bytes after the records": good + b"\x00" * 13 + b"\x01",
            "a head's worth of bytes after the records": good + bytes(8) + b"\x01" + bytes(30),
            "half a head": good + b"\x00\x00\x00\x00\x00\x00\x00\x06",
        }
        for name, plaintext in cases.items():
            with self.subTest(name):
                error = self.assertRaises(PacketError, decode_records, plaintext)
                self.assertEqual(error.reason, PacketReason.MALFORMED)
                self.assertEqual(
                    read(self._with_last_frame(plaintext, fine)),
                    [ControlFrame(CONTROL), BadFrame(1, PacketReason.MALFORMED), End()],
                )

    def _with_last_frame(self, plaintext: bytes, records: list[Record]) -> bytes:
        """A packet as a peer that does not keep to the layout could seal it."""
        payload = bytes(len(plaintext) - RECORD_HEAD)
        made = writer(CONTROL, [[evolve(records[0], payload=payload)]])
        begin = made.begin()
        sealer = made._sealer
        return begin + sealer.seal(1, 1, plaintext) + sealer.seal(2, 2, b"")


class Flips(SynchronousTestCase):
    """Every single bit of every kind of small packet."""

    def assertHarmless(
        self, control: bytes, frames: Sequence[Sequence[Record]], stride: int, step: int
    ) -> None:
        """
        In each suite flip each C{step}th bit alone: the header or frame 0 hit, the
        packet is refused; another frame hit, that one is missing, and nothing is
        other than it was.
        """
        for name, agreed in SUITES.items():
            with self.subTest(name):
                made = writer(control, frames, stride=stride, suite=agreed(NEAR, FAR))
                self.assertBitsHarmless(parts(made, frames), control, frames, agreed, step)

    def assertBitsHarmless(
        self,
        pieces: Sequence[bytes],
        control: bytes,
        frames: Sequence[Sequence[Record]],
        agreed: Agreed,
        step: int,
    ) -> None:
        data = bytearray(b"".join(pieces))
        events = _events(control, frames)
        ends: list[int] = []
        for piece in pieces:
            ends.append(len(piece) + (ends[-1] if ends else 0))
        accept = FAR.accept(NEAR, agreed=agreed)
        for bit in range(0, 8 * len(data), step):
            data[bit // 8] ^= 1 << bit % 8
            hit = next(index for index, end in enumerate(ends) if bit // 8 < end)
            reader = PacketReader(accept)
            try:
                found: list[Event] | None = reader.feed(data)
            except PacketError:
                found = None
            data[bit // 8] ^= 1 << bit % 8
            if hit == 0:
                self.assertIdentical(found, None)
            elif hit <= len(frames):
                bad = BadFrame(hit, PacketReason.FORGED)
                self.assertEqual(found, [*events[:hit], bad, *events[hit + 1 :]])
            else:
                self.assertEqual(found, events[:-1])
                self.assertFalse(reader.complete)

    def test_control_only(self) -> None:
        """A packet that says what has arrived."""
        self.assertHarmless(CONTROL, [], DEFAULT_STRIDE, 1)

    def test_empty_control(self) -> None:
        """The smallest packet."""
        self.assertHarmless(Control().encode(), [], DEFAULT_STRIDE, 1)

    def test_one_record(self) -> None:
        """A small message."""
        self.assertHarmless(CONTROL, grouped(_records([40])), DEFAULT_STRIDE, 1)

    def test_several_records(self) -> None:
        """Records of several channels, an empty one, in one frame."""
        self.assertHarmless(CONTROL, grouped(_records([0, 100, 1, 700])), DEFAULT_STRIDE, 1)

    def test_several_frames(self) -> None:
        """Frames of the smallest stride, padded; a sample of the bits."""
        self.assertHarmless(CONTROL, grouped(_records([2500, 3000, 100]), MIN_STRIDE), MIN_STRIDE, 13)
