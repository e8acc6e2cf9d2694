"""The figures of the long tests are those that the documentation tells."""

from __future__ import annotations

import os
import re
from pathlib import Path
from runpy import run_path

from twisted.trial.unittest import SynchronousTestCase

from tests.torture import figures
from tests.torture.mutants import MUTANTS
from tests.torture.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]

TOLD = {
    "test_lifetimes.py": "LIVES",
    "One seed": "LIVES_TWICE",
    "test_stateful.py": "MACHINES",
    "test_kill.py": "KILLS",
    "The same while": "KILLS_MIRRORED",
    "*Fuzzing*": "FUZZED",
    "test_restarts.py": "MODEL_STATES",
}
"""By what a row of the table has in it: the figure that its second and third column begin with."""


class FigureTests(SynchronousTestCase):
    def test_documented(self) -> None:
        """Each run's, and those of a soak."""
        text = (ROOT / "docs" / "testing.rst").read_text("utf-8")
        rows = [re.split(r"\n\s+- ", row) for row in re.split(r"\n\s+\* - ", text)[1:]]
        for column, soak in ((1, "1"), (2, "100")):
            self.patch(os, "environ", {**os.environ, "HOFT_SOAK": soak})
            found = run_path(figures.__file__)
            for row, figure in TOLD.items():
                [cells] = [cells for cells in rows if row in cells[0]]
                self.assertEqual(re.findall(r"[\d,]+\b", cells[column])[0], f"{found[figure]:,}", row)
        self.assertIn(f"each of {len(MUTANTS)} is", text)
        self.assertEqual(len(TARGETS), 11, "eleven, says the page")
