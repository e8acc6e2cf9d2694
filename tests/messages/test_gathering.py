"""How messages are put together from pieces in any order, and what is refused."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import RecordError
from hoft.messages.gathering import BOUND, REMEMBERED, Gathering
from hoft.messages.pieces import MIN_COST, PIECE, Piece, count

ONE, TWO = b"1" * 16, b"2" * 16


def pieces(message: bytes, total: int) -> list[Piece]:
    """All of a message of zeros."""
    return [
        Piece(message, total, number * PIECE, bytes(min(PIECE, total - number * PIECE)))
        for number in range(count(total))
    ]


class GatheringTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gathering = Gathering()

    def test_pieces_of_several_messages_in_any_order(self) -> None:
        parts = pieces(ONE, 3 * PIECE) + pieces(TWO, 4 * PIECE + 1)
        Random(1).shuffle(parts)
        whole = []
        for record, piece in enumerate(parts):
            message = self.gathering.add(piece, record, True)
            if message is not None:
                whole.append(message)
        self.assertEqual({message.id for message in whole}, {ONE, TWO})
        for message in whole:
            offsets = [parts[record].offset for record in message.holding(0, message.total)]
            self.assertEqual(offsets, [number * PIECE for number in range(count(message.total))])
            self.assertTrue(all(parts[record].message == message.id for record in message.holding(0, 1)))

    def test_which_records_hold_what(self) -> None:
        for record, piece in enumerate(pieces(ONE, 3 * PIECE)):
            message = self.gathering.add(piece, record, True)
        assert message is not None
        for start, end, records in (
            (0, 1, [0]),
            (0, PIECE, [0]),
            (PIECE - 1, PIECE + 1, [0, 1]),
            (2 * PIECE, 3 * PIECE, [2]),
            (0, 0, [0]),
            (3 * PIECE, 3 * PIECE, []),
        ):
            self.assertEqual(message.holding(start, end), records, (start, end))

    def test_an_empty_message_is_one_piece(self) -> None:
        [piece] = pieces(ONE, 0)
        message = self.gathering.add(piece, 7, True)
        assert message is not None
        self.assertEqual(message.holding(0, 0), [7])
        self.assertEqual(self.gathering.held, MIN_COST)
        self.gathering.forget(message)
        self.assertEqual((self.gathering.held, len(self.gathering)), (0, 0))

    def test_a_piece_twice_or_of_another_size_is_refused(self) -> None:
        first = pieces(ONE, 2 * PIECE)[0]
        self.gathering.add(first, 1, True)
        for contradiction in (first, pieces(ONE, 3 * PIECE)[1]):
            with self.assertRaises(RecordError):
                self.gathering.add(contradiction, 2, True)

    def test_no_more_is_held_than_the_bound(self) -> None:
        size = 64 << 20
        for number in range(BOUND // size):
            self.gathering.add(pieces(b"%16d" % number, size)[0], number, True)
        self.assertEqual(self.gathering.held, BOUND)
        with self.assertRaises(RecordError):
            self.gathering.add(pieces(ONE, 0)[0], 99, True)

    def test_of_a_withdrawn_message_nothing_is_kept(self) -> None:
        self.gathering.add(pieces(ONE, 2 * PIECE)[0], 1, True)
        broken = self.gathering.withdraw(ONE)
        assert broken is not None
        self.assertEqual([*broken.records.values()], [1])
        self.assertEqual(self.gathering.held, 0)
        self.assertTrue(self.gathering.is_withdrawn(ONE))
        self.assertIs(self.gathering.withdraw(TWO), None)

    def test_only_so_many_withdrawn_ones_are_remembered(self) -> None:
        for number in range(REMEMBERED + 1):
            self.gathering.withdraw(b"%16d" % number)
        self.assertFalse(self.gathering.is_withdrawn(b"%16d" % 0))
        self.assertTrue(self.gathering.is_withdrawn(b"%16d" % 1))

    def test_what_a_former_log_left_incomplete_is_let_go_of(self) -> None:
        self.gathering.add(pieces(ONE, 2 * PIECE)[0], 1, True)
        whole = self.gathering.add(pieces(TWO, 5)[0], 2, True)
        assert whole is not None
        self.gathering.begin_anew()
        self.assertEqual([message.id for message in self.gathering.forget_broken()], [ONE])
        self.assertFalse(whole.counted)
        self.assertTrue(self.gathering.is_complete(TWO))
