"""
Puts the pieces of one peer's messages together, by what they say of themselves; pure.

What is held is bounded: an honest peer keeps to its credit
(L{hoft.messages.pieces.WINDOW}), and of one that does not L{BOUND} is taken.  The
two differ since credit begins anew with each log, while messages of earlier
logs may still wait for the program.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from hoft.errors import RecordError
from hoft.messages.pieces import PIECE, WINDOW, Piece, cost, count

BOUND = 4 * WINDOW
"""L{cost} of the most that is held of one peer."""

REMEMBERED = 1024
"""Withdrawn messages of one peer of which late pieces are known for what they are."""


@define(eq=False)
class Gathered:
    """
    A message as far as it has come.

    @ivar records: by the piece's number, which record of the link holds it.
    @ivar counted: whether it was paid for with credit of the present log.
    """

    id: bytes
    total: int
    counted: bool
    records: dict[int, int] = field(factory=dict)

    @property
    def complete(self) -> bool:
        """Nothing is missing."""
        return len(self.records) == count(self.total)

    def holding(self, start: int, end: int) -> list[int]:
        """The records that hold these bytes, in order."""
        return [self.records[number] for number in range(start // PIECE, -(-end // PIECE) or 1)]


class Gathering:
    """
    Messages that have not all come, or were not consumed.

    @ivar held: their L{cost} together.
    """

    def __init__(self, withdrawn: Iterable[bytes] = ()) -> None:
        """@param withdrawn: remembered from before, the oldest first."""
        self.held = 0
        self._messages: dict[bytes, Gathered] = {}
        self._withdrawn = dict.fromkeys(withdrawn)

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, piece: Piece, record: int, counted: bool) -> Gathered | None:
        """
        A piece has come.

        @param record: which record of the link it is.
        @param counted: see L{Gathered}.
        @return: the message, if that was the last that was missing.
        @raise RecordError: it is none that an honest peer would have sent.
        """
        message = self._messages.get(piece.message)
        if message is None:
            price = cost(piece.total)
            if self.held + price > BOUND:
                raise RecordError(f"a message of {piece.total} bytes, beyond what may be sent")
            self.held += price
            message = self._messages[piece.message] = Gathered(piece.message, piece.total, counted)
        number = piece.offset // PIECE
        if message.total != piece.total or number in message.records:
            raise RecordError(f"piece {number} of {piece.message.hex()} contradicts an earlier one")
        message.records[number] = record
        return message if message.complete else None

    def withdraw(self, id: bytes) -> Gathered | None:
        """
        Its sender gave a message up, and no later piece of it is wanted.

        @return: what had come of it.
        """
        self._withdrawn[id] = None
        while len(self._withdrawn) > REMEMBERED:
            del self._withdrawn[next(iter(self._withdrawn))]
        message = self._messages.get(id)
        if message is not None:
            self.forget(message)
        return message

    def is_withdrawn(self, id: bytes) -> bool:
        """Whether pieces of that message are of no use any more."""
        return id in self._withdrawn

    def is_complete(self, id: bytes) -> bool:
        """Whether that message is here as a whole."""
        return id in self._messages and self._messages[id].complete

    def begin_anew(self) -> None:
        """A new log has begun: what is here was paid for in an earlier one."""
        for message in self._messages.values():
            message.counted = False

    def forget_broken(self) -> list[Gathered]:
        """
        Let go of what an earlier log has left incomplete, for it stays so.

        @return: that.
        """
        broken = [one for one in self._messages.values() if not one.counted and not one.complete]
        for message in broken:
            self.forget(message)
        return broken

    def forget(self, message: Gathered) -> None:
        """It was consumed, or is of no use."""
        if self._messages.pop(message.id, None) is not None:
            self.held -= cost(message.total)
