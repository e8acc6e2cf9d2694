"""What can be told of a file, whatever it holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import PacketReason
from hoft.operating.dissection import Dissection, as_json, dissect
from hoft.protocols.control import Control
from hoft.protocols.packets import Header, Record
from hoft.protocols.sealing import Suite
from tests.protocols.samples import FAR, NEAR, SUITES, THIRD, Node, grouped, packet, parts, writer

STRIDE = 4096
CONTROL = Control(ack=7, limit=100, clock=3, probe=True)
RECORDS = [Record(number, 2, bytes([number]) * 1500) for number in range(1, 8)]
FRAMES = grouped(RECORDS, STRIDE)
DATA = packet(CONTROL.encode(), FRAMES, stride=STRIDE)


def keys_of(own: Node, *peers: Node) -> Any:
    """What a node with these peers would try."""
    known = {peer.uuid: own.suite(peer) for peer in peers}

    def candidates(header: Header) -> Sequence[Suite]:
        found = known.get(header.sender) or known.get(header.recipient)
        return () if found is None else (found,)

    return candidates


def opened(data: bytes, *, own: Node = FAR, peer: Node = NEAR) -> Dissection:
    return dissect([data], keys_of(own, peer))


class DissectionTests(SynchronousTestCase):
    def test_the_recipient_and_the_sender_can_open_it_and_nobody_else(self) -> None:
        for own, peer in ((FAR, NEAR), (NEAR, FAR)):
            found = opened(DATA, own=own, peer=peer)
            self.assertTrue(found.sound)
            self.assertEqual(found.control, CONTROL)
            numbers = [record for frame in found.frames for record in frame.records]
            self.assertEqual(numbers, [(record.number, 2, 1500) for record in RECORDS])
            self.assertEqual((found.cut, found.bad, found.padding, found.complete), (False, [], 0, True))
        found = opened(DATA, own=THIRD, peer=NEAR)
        assert found.error is not None and found.header is not None
        self.assertEqual(found.error.reason, PacketReason.KEY)
        self.assertEqual(found.header.frames, len(FRAMES))
        found = opened(DATA, own=FAR, peer=THIRD)
        assert found.error is not None
        self.assertEqual(found.error.reason, PacketReason.STRANGER)

    def test_frames_lie_where_it_says(self) -> None:
        found = opened(DATA)
        for frame in found.frames:
            flipped = bytearray(DATA)
            for at, bad in ((frame.offset, [frame.index]), (frame.offset + frame.length - 1, [frame.index])):
                flipped[at] ^= 1
                self.assertEqual(opened(bytes(flipped)).bad, bad)
                flipped[at] ^= 1
        last = found.frames[-1]
        self.assertEqual(found.spans[-1][1], last.offset + last.length)

    def test_every_suite(self) -> None:
        for name, agreed in SUITES.items():
            frames = FRAMES[:1]
            data = b"".join(parts(writer(CONTROL.encode(), frames, suite=agreed(NEAR, FAR)), frames))
            found = dissect([data], lambda header, agreed=agreed: (agreed(FAR, NEAR),))  # type: ignore[misc]  # a default binds the loop's variable
            self.assertTrue(found.sound, name)
            assert found.suite is not None
            other = dissect([data], lambda header: (SUITES["checksum"](FAR, NEAR),))
            self.assertEqual(other.sound, found.suite.name == "checksum")

    def test_every_prefix_says_where_it_is_cut(self) -> None:
        places: list[str] = []
        for length in (*range(400), *range(400, len(DATA), 101), len(DATA) - 1):
            found = opened(DATA[:length])
            self.assertTrue(found.cut)
            self.assertFalse(found.sound)
            if not places or places[-1] != found.cut_in():
                places.append(found.cut_in())
            json.dumps(as_json(found))
        frames = [f"frame {number + 1}" for number in range(len(FRAMES))]
        self.assertEqual(places, ["the header", "the sealed key", "frame 0 (control)", *frames, "END"])

    def test_no_flipped_bit_goes_unnoticed_or_raises(self) -> None:
        data = packet(CONTROL.encode(), [[Record(1, 2, b"one")]])
        for at in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[at // 8] ^= 1 << at % 8
            found = opened(bytes(flipped))
            self.assertFalse(found.sound, at)
            json.dumps(as_json(found))

    def test_padding_and_zeros_that_have_not_arrived(self) -> None:
        found = opened(DATA + bytes(500) + b"x" * 10)
        self.assertEqual((found.sound, found.padding, found.zeros), (True, 510, 0))
        arrived = len(DATA) - 1000
        found = opened(DATA[:arrived] + bytes(1000))
        self.assertEqual((found.sound, found.cut), (False, False))
        self.assertGreaterEqual(found.zeros, 1000)
        self.assertEqual(found.bad, [len(FRAMES)])
        found = opened(bytes(5000))
        self.assertEqual((found.zeros, found.header), (5000, None))

    def test_an_authentic_packet_with_a_malformed_control(self) -> None:
        found = opened(packet(b"\xa1", FRAMES, stride=STRIDE))
        self.assertIsNotNone(found.control_error)
        self.assertFalse(found.sound)
        self.assertEqual(len(found.frames), len(FRAMES))

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.data())
    def test_how_it_is_cut_into_pieces_does_not_matter(self, data: st.DataObject) -> None:
        length = data.draw(st.integers(0, len(DATA)))
        whole = bytearray(DATA[:length])
        for at in data.draw(st.lists(st.integers(0, max(0, length - 1)), max_size=3)):
            if length:
                whole[at] ^= 0x40
        cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=5)))
        bounds = zip([0, *cuts], [*cuts, length], strict=True)
        pieces = [bytes(whole[low:high]) for low, high in bounds]
        candidates = keys_of(FAR, NEAR)
        self.assertEqual(as_json(dissect(pieces, candidates)), as_json(dissect([bytes(whole)], candidates)))

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(st.binary(max_size=400), st.booleans())
    def test_rubbish_is_told_for_what_it_is(self, rubbish: bytes, disguised: bool) -> None:
        found = opened(b"hoft" + rubbish if disguised else rubbish)
        self.assertFalse(found.sound)
        self.assertIsNotNone(found.error)
        json.dumps(as_json(found))
