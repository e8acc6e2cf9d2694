"""What a look at the inbox tells of."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft.testing.harness import ALICE, BOB
from hoft.transports.directories import Root
from hoft.transports.filenames import FileName
from hoft.transports.scanning import Scanner


class BudgetTests(SynchronousTestCase):
    """Whoever fills the folder does not get all of a look."""

    def test_several_looks(self) -> None:
        """No more new names than asked for; the others in the looks that follow, each once."""
        path = Path(self.mktemp()).absolute()
        names = [str(FileName(ALICE, BOB, 1, number)) for number in range(10)]
        for name in names:
            for folder in (path / str(BOB), path):
                folder.mkdir(parents=True, exist_ok=True)
            (path / (str(BOB) if name < names[5] else ".") / name).touch()
        scanner = Scanner(Root(str(path), "inbox"), BOB, lambda: 0.0)
        told: list[str] = []
        for expected in (4, 4, 2, 0):
            scan = scanner.scan([], 4)
            self.assertEqual((len(scan.added), scan.more), (expected, expected == 4))
            told += [entry.text for entry in scan.added]
        self.assertEqual(sorted(told), names)
        self.assertEqual(scanner.scan([], 0).added, [])


class LongListingTests(SynchronousTestCase):
    """A folder that takes long to list is not listed each time."""

    def setUp(self) -> None:
        path = Path(self.mktemp()).absolute()
        self.folder = path / str(BOB)
        self.folder.mkdir(parents=True)
        self.now = self.step = 0.0
        self.number = 0
        self.scanner = Scanner(Root(str(path), "inbox"), BOB, self.clock)

    def clock(self) -> float:
        """What is done between two looks at it takes a step."""
        self.now += self.step
        return self.now

    def finds(self, step: float) -> bool:
        """Whether a look at the inbox, whose listing takes so long, finds a file that has just come."""
        self.step = step
        self.number += 1
        name = str(FileName(ALICE, BOB, 1, self.number))
        (self.folder / name).touch()
        return name in [entry.text for entry in self.scanner.scan([], 100).added]

    def test_once(self) -> None:
        """A machine that stood still for a moment makes nobody blind."""
        self.assertTrue(self.finds(0.0001))
        self.assertTrue(self.finds(0.5))
        self.assertTrue(self.finds(0.0001))

    def test_again_and_again(self) -> None:
        """But one that always takes so long is left alone for a while."""
        self.assertTrue(self.finds(0.5))
        self.assertTrue(self.finds(0.5))
        self.assertFalse(self.finds(0.5))
        self.now += 10
        self.assertTrue(self.finds(0.5))
