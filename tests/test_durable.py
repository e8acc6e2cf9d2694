"""Files that are whole or as they were."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft import durable


class ReplaceTests(SynchronousTestCase):
    """A file in the place of another."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "file"
        self.file.write_text("before")

    def test_it_has_the_new_text_and_the_mode_that_was_asked_for(self) -> None:
        durable.replace(self.file, "after\n", 0o640)
        self.assertEqual(self.file.read_text(), "after\n")
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o640)
        self.assertEqual(os.listdir(self.folder), ["file"])

    def test_where_that_fails_it_is_as_it_was_and_nothing_lies_beside_it(self) -> None:
        def fails(descriptor: int) -> None:
            raise OSError("no space")

        self.patch(os, "fsync", fails)
        self.assertRaises(OSError, durable.replace, self.file, "after")
        self.assertEqual(self.file.read_text(), "before")
        self.assertEqual(os.listdir(self.folder), ["file"])
