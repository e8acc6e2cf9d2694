"""System calls in a folder where anybody may have put anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from hoft.transports import directories
from hoft.transports.directories import NotAFile, create_regular, make_subfolder, open_regular, publish


class DirectoriesTestCase(SynchronousTestCase):
    """With a folder, and a file outside of it."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.mkdir(parents=True)
        self.outside = self.path.parent / f"{self.path.name}-outside"
        self.outside.write_bytes(b"not for others")
        self.folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, self.folder)


class SubfolderTests(DirectoriesTestCase):
    """Made for a recipient."""

    def test_its_reader_may_list_it_from_the_first(self) -> None:
        """Who comes upon it before its mode is set must not take the carrier for down."""
        os.chmod(self.path, 0o1777)
        self.addCleanup(os.umask, os.umask(0o022))
        modes: list[int] = []
        real = os.chmod

        def recorded(made: int, mode: int) -> None:
            modes.append(os.fstat(made).st_mode & 0o7777)
            real(made, mode)

        with patch.object(os, "chmod", recorded):
            make_subfolder(self.folder, "made")
        modes.append(os.stat(self.path / "made").st_mode & 0o7777)
        self.assertEqual([oct(mode) for mode in modes], ["0o1755", "0o1777"])


class OpenTests(DirectoriesTestCase):
    """For reading."""

    def test_looked_at_first(self) -> None:
        """What is no file is not even opened: that alone lets a FIFO's writer go on, or winds a tape."""
        (self.path / "link").symlink_to(self.outside)
        os.mkfifo(self.path / "fifo")
        (self.path / "folder").mkdir()
        (self.path / "file").write_bytes(b"x")
        opened: list[str] = []
        real = os.open

        def recorded(name: str, *arguments: Any, **rest: Any) -> int:
            opened.append(name)
            return real(name, *arguments, **rest)

        with patch.object(os, "open", recorded):
            for name in ("link", "fifo", "folder"):
                self.assertRaises(NotAFile, open_regular, self.folder, name)
            os.close(open_regular(self.folder, "file"))
        self.assertEqual(opened, ["file"])

    def test_changed_after_the_look(self) -> None:
        """What takes its place between the look and the opening is not followed, nor waited for."""
        (self.path / "link").symlink_to(self.outside)
        os.mkfifo(self.path / "fifo")
        (self.path / "file").write_bytes(b"x")
        as_if = os.stat(self.path / "file")
        for name in ("link", "fifo"):
            with patch.object(os, "stat", lambda *_, **__: as_if):
                self.assertRaises(NotAFile, open_regular, self.folder, name)


class CreateTests(DirectoriesTestCase):
    """For writing."""

    def test_nothing_is_written_over(self) -> None:
        """Neither a file that is there, nor one that a link which is there leads to."""
        (self.path / "file").write_bytes(b"here before")
        (self.path / "link").symlink_to(self.outside)
        (self.path / "dangling").symlink_to(self.path.parent / "made")
        for name in ("file", "link", "dangling"):
            self.assertRaises(FileExistsError, create_regular, self.folder, name, 0o600)
        self.assertEqual((self.path / "file").read_bytes(), b"here before")
        self.assertEqual(self.outside.read_bytes(), b"not for others")
        self.assertFalse((self.path.parent / "made").exists())

    def test_nothing_is_replaced(self) -> None:
        """Nor by the rename, whether the system can be told so or not; and what can be renamed is."""
        for available in (True, False):
            if not available:
                self.patch(directories, "_renameat2", None)
            (self.path / "temporary").write_bytes(b"new")
            (self.path / "file").write_bytes(b"here before")
            self.assertRaises(FileExistsError, publish, self.folder, "temporary", "file")
            self.assertEqual((self.path / "file").read_bytes(), b"here before")
            publish(self.folder, "temporary", f"published {available}")
            self.assertEqual((self.path / f"published {available}").read_bytes(), b"new")
