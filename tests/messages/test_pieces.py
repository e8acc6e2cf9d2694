"""The records of channel 1: what they hold, and that nothing else is taken."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import RecordError
from hoft.interfaces import MAX_MESSAGE
from hoft.messages.gathering import BOUND, REMEMBERED
from hoft.messages.incoming import CREDIT_STEP
from hoft.messages.pieces import (
    MIN_COST,
    PIECE,
    WINDOW,
    Credit,
    Piece,
    Withdrawal,
    count,
    decode,
    encode_credit,
    encode_piece,
    encode_withdrawal,
)
from hoft.protocols.packets import MAX_RECORD
from tests.documents import ROOT

ID = bytes(range(16))


class PieceTests(SynchronousTestCase):
    def test_pieces_joined_are_the_message(self) -> None:
        for size in (0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE):
            payload = Random(size).randbytes(size)
            encoded = [encode_piece(ID, payload, number) for number in range(count(size))]
            self.assertLessEqual(max(map(len, encoded)), MAX_RECORD)
            joined = b""
            for record in encoded:
                piece = decode(record)
                assert isinstance(piece, Piece)
                self.assertEqual((piece.message, piece.total, piece.offset), (ID, size, len(joined)))
                joined += piece.data
            self.assertEqual(joined, payload)

    def test_a_whole_message_fits_one_record_as_long_as_it_can(self) -> None:
        self.assertEqual([count(size) for size in (0, 1, PIECE, PIECE + 1)], [1, 1, 1, 2])
        self.assertEqual(len(encode_piece(ID, bytes(PIECE), 0)), MAX_RECORD)

    def test_the_protocol_page_has_the_same_figures(self) -> None:
        page = (ROOT / "docs" / "protocol.rst").read_text("utf-8")
        text = " ".join(page.partition("Messages of programs\n----")[2].partition("\n----")[0].split())
        for words in (
            f"up to {MAX_MESSAGE:,} bytes",
            f"multiples of {PIECE} bytes",
            f"its length, at least {MIN_COST}",
            f"or {WINDOW} ({WINDOW >> 20} MiB) before any",
            f"whenever that is {CREDIT_STEP >> 20} MiB or more",
            f"more than {BOUND >> 20} MiB",
            f"the latest {REMEMBERED} withdrawals",
        ):
            self.assertIn(words, text)

    def test_withdrawals_and_credit(self) -> None:
        self.assertEqual(decode(encode_withdrawal(ID, 70_000)), Withdrawal(ID, 70_000))
        self.assertEqual(decode(encode_credit(1 << 40)), Credit(1 << 40))

    def test_what_is_cut_otherwise_is_refused(self) -> None:
        total = 2 * PIECE + 5
        head = b"\x01" + ID
        for offset, size in (
            (1, PIECE),
            (PIECE, PIECE - 1),
            (2 * PIECE, 6),
            (2 * PIECE, 0),
            (3 * PIECE, 0),
        ):
            record = head + total.to_bytes(4, "big") + offset.to_bytes(4, "big") + bytes(size)
            with self.assertRaises(RecordError, msg=f"{size} at {offset}"):
                decode(record)

    def test_what_is_too_large_is_refused(self) -> None:
        for encoded in (
            b"\x01" + ID + (MAX_MESSAGE + 1).to_bytes(4, "big") + bytes(4) + bytes(PIECE),
            encode_withdrawal(ID, MAX_MESSAGE + 1),
        ):
            with self.assertRaises(RecordError):
                decode(encoded)

    @given(
        st.binary(max_size=64) | st.builds(bytes.__add__, st.sampled_from([b"\1", b"\2", b"\3"]), st.binary())
    )
    def test_any_bytes_are_one_of_these_or_refused(self, payload: bytes) -> None:
        try:
            part = decode(payload)
        except RecordError:
            return
        match part:
            case Piece():
                self.assertEqual(len(payload), 25 + len(part.data))
            case Withdrawal():
                self.assertEqual(encode_withdrawal(part.message, part.total), payload)
            case Credit():
                self.assertEqual(encode_credit(part.allowed), payload)
