"""Files that are whole or as they were."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
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

    def test_what_a_killed_process_left_is_gone_after_the_next_and_what_is_being_written_is_not(self) -> None:
        """A key that was replaced is to be had nowhere any more; somebody else's files are left alone."""
        program = (
            "import os, sys, time; from pathlib import Path; from hoft import durable\n"
            "os.fsync = lambda descriptor: print('written', flush=True) or time.sleep(60)\n"
            "durable.replace(Path(sys.argv[1]), 'a key')"
        )
        arguments = [sys.executable, "-c", program, str(self.file)]
        killed = self.enterContext(subprocess.Popen(arguments, stdout=subprocess.PIPE))
        self.addCleanup(killed.kill)
        assert killed.stdout is not None
        self.assertEqual(killed.stdout.readline(), b"written\n")
        others = [".file.1", "file.1.unfinished", ".dir.1.unfinished"]
        for name in others[:2]:
            (self.folder / name).write_text("somebody else's")
        (self.folder / others[2]).mkdir()
        left = f".file.{killed.pid}.unfinished"
        durable.replace(self.file, "after")
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(["file", left, *others]))
        killed.kill()
        killed.wait()
        self.assertEqual((self.folder / left).read_text(), "a key")
        durable.replace(self.file, "and again")
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(["file", *others]))

    def test_a_file_that_is_cleared_away_before_it_is_locked_is_made_once_more(self) -> None:
        lock = fcntl.flock

        def late(handle: int, operation: int) -> None:
            self.patch(fcntl, "flock", lock)
            durable.clear(self.folder)
            lock(handle, operation)

        self.patch(fcntl, "flock", late)
        durable.replace(self.file, "after")
        self.assertEqual((os.listdir(self.folder), self.file.read_text()), (["file"], "after"))
