"""Frame 0: what is said of the log, in one way, within bounds."""

from __future__ import annotations

from functools import partial
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from hoft import cbor
from hoft.errors import PacketError, PacketReason
from hoft.protocols.control import (
    MAX_ENCODED,
    MAX_GAPS,
    MAX_GAPS_TOGETHER,
    MAX_RANGES,
    MAX_RECEIPTS,
    Control,
    Ranges,
    Receipt,
    select_receipts,
)
from hoft.protocols.layout import MAX_CONTROL, MAX_FRAMES
from hoft.protocols.ranges import RangeSet
from hoft.protocols.sealing import FRAME_OVERHEAD
from tests.effort import least_seconds
from tests.test_cbor import BOMBS

U64 = (1 << 64) - 1
U32 = (1 << 32) - 1
NUMBERS = st.integers(0, 30) | st.integers(0, U64)


def _ranges(steps: list[tuple[int, int]], after: int, top: int) -> Ranges:
    ranges: list[tuple[int, int]] = []
    for gap, length in steps:
        start, after = after + 1 + gap, after + gap + length
        if after > top:
            break
        ranges.append((start, after))
    return tuple(ranges)


STEPS = st.tuples(st.integers(1, 1 << 20), st.integers(1, 1 << 20))


@st.composite
def _receipts(draw: st.DrawFn, boot: int) -> Receipt:
    frames = draw(st.integers(0, MAX_FRAMES))
    missing = _ranges(draw(st.lists(STEPS, max_size=2)), -1, frames)
    return Receipt(boot, draw(NUMBERS), frames, missing, draw(st.integers(0, U32)))


@st.composite
def _controls(draw: st.DrawFn) -> Control:
    ack = draw(NUMBERS)
    return Control(
        ack=ack,
        sack=_ranges(draw(st.lists(STEPS, max_size=20)), ack, U64),
        limit=draw(NUMBERS),
        receipts=tuple(draw(st.lists(_receipts(draw(NUMBERS)), max_size=8))),
        clock=draw(NUMBERS),
        peer_clock=draw(NUMBERS),
        peer_boot=draw(NUMBERS),
        retired=draw(NUMBERS),
        probe=draw(st.booleans()),
    )


def _frames(receipt: Receipt) -> set[int]:
    """The frames that a receipt says are missing."""
    return {index for start, end in receipt.missing for index in range(start, end + 1)}


class Controls(SynchronousTestCase):
    """Encoding and strict decoding."""

    def assertMalformed(self, data: bytes) -> None:
        error = self.assertRaises(PacketError, Control.decode, data)
        self.assertEqual(error.reason, PacketReason.MALFORMED)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(_controls())
    def test_round_trip(self, control: Control) -> None:
        """Every legal control comes back equal, and within the bound."""
        data = control.encode()
        self.assertLessEqual(len(data), MAX_ENCODED)
        self.assertEqual(Control.decode(data), control)

    def test_what_says_nothing_is_small(self) -> None:
        """Zero and empty fields are left out."""
        self.assertEqual(Control().encode(), b"\xa0")
        self.assertEqual(Control.decode(b"\xa0"), Control())
        self.assertLess(len(Control(ack=1000, limit=2000, clock=500, peer_clock=400).encode()), 40)

    def test_bound_holds_for_the_longest(self) -> None:
        """The longest of legal controls keeps the bound, and fits its frame."""
        step = 1 << 55
        sack = tuple((at * step + (1 << 54), at * step + step - 2) for at in range(MAX_RANGES))
        self.assertTrue(all(number > U32 for number in (1 << 54, step - (1 << 54) - 2)))
        gaps = ((65_537, 131_072),)
        each = MAX_GAPS_TOGETHER // MAX_RECEIPTS
        receipts = [Receipt(U64, U64 - at, MAX_FRAMES, gaps * (each > 0), U32) for at in range(MAX_RECEIPTS)]
        longest = Control(
            sack=sack,
            limit=U64,
            receipts=tuple(receipts),
            clock=U64,
            peer_clock=U64,
            peer_boot=U64,
            retired=U64,
            probe=True,
        )
        # Ranges take at most 9 + 9 bytes, gaps 5 + 5: what this example leaves out.
        more = 10 * (MAX_GAPS_TOGETHER - MAX_RECEIPTS) + len(Control(ack=U64).encode())
        length = len(longest.encode())
        self.assertGreater(length, 5000)
        self.assertLessEqual(length + more, MAX_ENCODED)
        self.assertLessEqual(MAX_ENCODED + FRAME_OVERHEAD, MAX_CONTROL)
        self.assertEqual(Control.decode(longest.encode()), longest)

    def test_illegal_values(self) -> None:
        """No control is made, and so none sent, that the peer would refuse."""
        receipt = Receipt(1, 2, 3)
        cases: list[dict[str, Any]] = [
            {"ack": -1},
            {"ack": 1 << 64},
            {"limit": 1 << 64},
            {"clock": 1 << 64},
            {"peer_clock": 1 << 64},
            {"retired": 1 << 64},
            {"ack": 5, "sack": ((6, 7),)},  # then ack would be 7
            {"ack": 5, "sack": ((4, 4),)},
            {"ack": 5, "sack": ((8, 7),)},
            {"sack": ((2, 3), (3, 5))},
            {"sack": ((2, 3), (4, 5))},
            {"sack": ((7, 8), (2, 3))},
            {"sack": ((2, 1 << 64),)},
            {"sack": tuple((2 * at, 2 * at) for at in range(1, MAX_RANGES + 2))},
            {"receipts": (receipt,) * (MAX_RECEIPTS + 1)},
            {"receipts": (receipt, Receipt(2, 2, 3))},
            {"receipts": (Receipt(1, 2, 100, tuple((2 * at, 2 * at) for at in range(1, 17))),) * 9},
        ]
        for values in cases:
            with self.subTest(values):
                self.assertRaises(ValueError, Control, **values)

    def test_malformed(self) -> None:
        """What is not the encoding of a control is refused, whatever else it may be."""
        cases: list[object] = [
            None,
            0,
            [],
            "ack",
            {"ack": None},
            {"ack": 0},
            {"ack": "1"},
            {"ack": True},
            {"ack": -1},
            {"ack": [1]},
            {"probe": False},
            {"probe": 1},
            {"unknown": 1},
            {"sack": []},
            {"sack": [1]},
            {"sack": [0, 1]},
            {"sack": [1, 0]},
            {"sack": [1, -1]},
            {"sack": [1, True]},
            {"sack": [1, U64]},
            {"sack": [1, 1] * (MAX_RANGES + 1)},
            {"sack": {"a": 1}},
            {"sack": [[1, 1]]},
            {"receipts": []},
            {"receipts": [1]},
            {"receipts": [1, 1]},
            {"receipts": [1, []]},
            {"receipts": [1, [1, 1]]},
            {"receipts": [None, [1, 1, 1]]},
            {"receipts": [True, [1, 1, 1]]},
            {"receipts": [1, [1, 1, True]]},
            {"receipts": [1, [1, 1, 1 << 32]]},
            {"receipts": [1, [1, -1, 1]]},
            {"receipts": [1, [1, MAX_FRAMES + 1, 1]]},
            {"receipts": [1, [1, 3, 1, 1]]},
            {"receipts": [1, [1, 3, 1, 0, 1]]},
            {"receipts": [1, [1, 3, 1, 1, 4]]},
            {"receipts": [1, [1, 3, 1, 2, 3]]},
            {"receipts": [1, [1, 100, 1, *([1, 1] * (MAX_GAPS + 1))]]},
            {"receipts": [1, *([[1, 1, 1]] * (MAX_RECEIPTS + 1))]},
        ]
        for value in cases:
            with self.subTest(repr(value)[:80]):
                self.assertMalformed(cbor.encode(value))

    def test_damaged(self) -> None:
        """No prefix and nothing longer is a control; a flipped bit makes another one, or none."""
        data = Control(
            ack=300,
            sack=((302, 302), (400, 70_000)),
            limit=9,
            receipts=(Receipt(7, 8, 9, ((1, 2), (5, 9)), 10), Receipt(7, 9, 0)),
            clock=1 << 40,
            probe=True,
        ).encode()
        for length in range(len(data)):
            self.assertMalformed(data[:length])
        self.assertMalformed(data + b"\x00")
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            try:
                again = Control.decode(bytes(flipped))
            except PacketError as error:
                self.assertEqual(error.reason, PacketReason.MALFORMED)
            else:
                self.assertEqual(again.encode(), bytes(flipped))

    def test_bombs(self) -> None:
        """
        What hurts a careless CBOR decoder is refused at once, alone and as a field: in half a millisecond,
        of the seconds that it would take without the limit of a control's length.
        """
        for bomb in BOMBS.values():
            for hurtful in (bomb, bomb[: MAX_ENCODED - 10], b"\xa1\x64sack" + bomb[: MAX_ENCODED - 10]):
                self.assertLess(least_seconds(partial(self.assertMalformed, hurtful)), 0.25)

    def test_ranges_of_the_log(self) -> None:
        """What a RangeSet gives as the part above its prefix is a legal sack."""
        numbers = RangeSet([(1, 5), (7, 9), (11, 11), (20, 30)])
        control = Control(ack=numbers.prefix(), sack=numbers.above(numbers.prefix(), MAX_RANGES))
        self.assertEqual(control.sack, ((7, 9), (11, 11), (20, 30)))
        self.assertEqual(Control.decode(control.encode()), control)


class Receipts(SynchronousTestCase):
    """What arrived of a packet."""

    def test_of_a_whole_packet(self) -> None:
        """Nothing missing, everything intact."""
        receipt = Receipt.of(1, 2, 10, [], 250)
        self.assertEqual((receipt.missing, receipt.intact, receipt.hold), ((), 10, 250))

    def test_of_a_damaged_packet(self) -> None:
        """Missing frames are gathered to ranges."""
        receipt = Receipt.of(1, 2, 10, [1, 2, 3, 7, 9, 10], 0)
        self.assertEqual(receipt.missing, ((1, 3), (7, 7), (9, 10)))
        self.assertEqual(receipt.intact, 4)

    def test_many_gaps_are_joined_at_the_narrowest(self) -> None:
        """No frame that is missing counts as intact; of the intact the fewest count as missing."""
        missing = [10 * at for at in range(1, MAX_GAPS + 1)] + [500, 502, 504]
        receipt = Receipt.of(1, 2, 600, missing, 0)
        self.assertEqual(len(receipt.missing), MAX_GAPS)
        self.assertTrue(set(missing) <= _frames(receipt))
        # 500, 502 and 504 become one range for 2 frames more, and 10 and 20 another for 9.
        self.assertEqual(receipt.intact, 600 - len(missing) - 2 - 9)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.sets(st.integers(1, 200), max_size=120))
    def test_any_loss_is_covered(self, lost: set[int]) -> None:
        """Whatever is missing, the receipt is legal and covers it, exactly where it can."""
        receipt = Receipt.of(1, 2, 200, sorted(lost), 0)
        said = _frames(receipt)
        self.assertTrue(lost <= said)
        if len(RangeSet((one, one) for one in lost)) <= MAX_GAPS:
            self.assertEqual(said, lost)
        self.assertEqual(Control.decode(Control(receipts=(receipt,)).encode()).receipts, (receipt,))

    def test_hold_has_bounds(self) -> None:
        """A clock that went back or stood for ever is no reason to fail."""
        self.assertEqual(Receipt.of(1, 2, 3, [], -1).hold, 0)
        self.assertEqual(Receipt.of(1, 2, 3, [], 1 << 40).hold, U32)

    def test_illegal_values(self) -> None:
        """Gaps out of the packet, out of order or too many; a packet beyond all limits."""
        cases: list[tuple[int, Ranges]] = [
            (3, ((0, 1),)),
            (3, ((3, 4),)),
            (3, ((2, 1),)),
            (9, ((1, 2), (3, 4))),
            (0, ((1, 1),)),
            (MAX_FRAMES + 1, ()),
            (-1, ()),
            (99, tuple((2 * at, 2 * at) for at in range(1, MAX_GAPS + 2))),
        ]
        for frames, missing in cases:
            self.assertRaises(ValueError, Receipt, 1, 2, frames, missing)

    def test_selection(self) -> None:
        """Whatever is due, one control's worth is taken of it: one boot, in the order given."""
        many_gaps = tuple((2 * at, 2 * at) for at in range(1, MAX_GAPS + 1))
        due = [Receipt(1 + at % 2, at, 100, many_gaps if at % 3 else ()) for at in range(400)]
        chosen = select_receipts(due)
        self.assertEqual(Control(receipts=chosen).receipts, chosen)
        self.assertEqual(chosen[0], due[0])
        self.assertEqual([r.number for r in chosen], sorted(r.number for r in chosen))
        self.assertEqual(sum(len(receipt.missing) for receipt in chosen), MAX_GAPS_TOGETHER)
        self.assertEqual(len(chosen), MAX_RECEIPTS)
        self.assertEqual(select_receipts([]), ())
