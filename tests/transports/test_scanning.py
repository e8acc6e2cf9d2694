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
