"""
Whose file is read next.
"""

from __future__ import annotations

from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from hoft.transports.filenames import FileName
from hoft.transports.reading import InboundFile, State
from hoft.transports.scanning import Entry
from hoft.transports.turns import IN_A_ROW, Turns

ALICE, BOB = UUID(int=1), UUID(int=2)


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = Turns(lambda sender: True)

    def file(self, number: int) -> InboundFile:
        """One of Alice's that waits."""
        name = FileName(BOB, ALICE, 1, number)
        file = InboundFile(Entry(str(name), name, flat=False))
        self.turns.push(file)
        return file

    def test_many_short_files_let_a_long_one_by_now_and_then(self) -> None:
        """Also while others of the short ones are read beside them."""
        long = self.file(0)
        for number in range(1, 4 * IN_A_ROW):
            self.turns.hurry(self.file(number))
        read = []
        for _ in range(IN_A_ROW + 1):
            for file in (self.turns.pop_short(), self.turns.pop()):
                assert file is not None
                file.state = State.ACTIVE
            read.append(file)
        self.assertIs(read[IN_A_ROW], long)
        self.assertNotIn(long, read[:IN_A_ROW])
