"""What is printed where somebody looks, and where a program reads."""

from __future__ import annotations

import os
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from hoft.operating.terminal import tell


class Terminal(StringIO):
    """Somebody looks at it."""

    def isatty(self) -> bool:
        return True


class TellTests(SynchronousTestCase):
    LINE = "fail: far is late: it was last heard 4 min ago: " + "see whether its node runs " * 5

    def test_a_terminal_gets_whole_words(self) -> None:
        self.patch(os, "environ", {"COLUMNS": "60"})
        terminal = Terminal()
        tell(self.LINE, terminal)
        first, *others = terminal.getvalue().splitlines()
        self.assertTrue(all(len(line) <= 60 for line in (first, *others)))
        self.assertEqual(" ".join(line.strip() for line in (first, *others)), self.LINE.strip())

    def test_a_program_gets_a_line(self) -> None:
        file = StringIO()
        tell(self.LINE, file)
        self.assertEqual(file.getvalue(), self.LINE + "\n")
