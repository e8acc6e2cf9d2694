"""The disk fails at any call, once or for good: nothing that was answered is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import JournalError
from hoft.protocols import database, segments, statefolder
from tests.processes import environment
from tests.protocols.journals import InlineJournal, erase, notes, payload_of, write
from tests.torture.figures import SOAK

CALLS = frozenset(
    ("open", "pwritev", "pwrite", "pread", "fdatasync", "fsync", "truncate", "ftruncate", "posix_fallocate")
)
"""Calls of the system that a disk can make fail, as far as they are not SQLite's own."""

NOTES = 14


class FailingOs:
    """
    The module C{os}, some of whose calls fail.

    @ivar calls: how many were made that can fail.
    """

    def __init__(self, at: int, code: int, for_good: bool) -> None:
        self.calls = 0
        self._at, self._code, self._for_good = at, code, for_good

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._failing(real) if name in CALLS else real

    def _failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **rest: Any) -> Any:
            self.calls += 1
            if self.calls == self._at or (self._for_good and self.calls > self._at > 0):
                raise OSError(self._code, os.strerror(self._code))
            return real(*arguments, **rest)

        return call

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """For the journal."""
        with (
            patch.object(segments, "os", self),
            patch.object(database, "os", self),
            patch.object(statefolder, "os", self),
        ):
            yield


class DiskTests(SynchronousTestCase):
    """A journal with payloads of all sizes."""

    def work(self, folder: Path) -> tuple[set[int], set[int]]:
        """What the journal says that it has written, and erased, until the process is gone."""
        written: set[int] = set()
        erased: set[int] = set()
        inline = InlineJournal(folder, segment_size=1 << 15)
        try:
            inline.result(inline.journal.open())
            for number in range(NOTES):
                durable = number % 3 == 0
                with contextlib.suppress(JournalError):
                    inline.do(write(number, payload_of(number), durable), durable)
                    written.add(number)
                if number - 5 in written:
                    with contextlib.suppress(JournalError):
                        inline.do(erase(number - 5))
                        erased.add(number - 5)
        except JournalError:
            pass
        inline.crash()
        return written, erased

    def check(self, folder: Path, written: set[int], erased: set[int], what: str) -> None:
        inline = InlineJournal(folder, segment_size=1 << 15)
        inline.result(inline.journal.open())
        self.addCleanup(inline.crash)
        places = inline.do(notes)
        # An erasure that was not answered may have been made.
        asked = {number for number in written if number + 5 < NOTES}
        self.assertEqual(written - erased - asked - places.keys(), set(), what)
        self.assertEqual(erased & places.keys(), set(), what)
        for number, place in places.items():
            self.assertEqual(inline.journal.segments.read(place), payload_of(number), what)
        self.assertEqual(inline.journal.segments.verify(), 0, what)
        inline.do(write(1000, payload_of(1)))
        inline.crash()

    def folder(self) -> Path:
        return Path(self.mktemp()).absolute()

    def test_at_any_call(self) -> None:
        """Of the journal's own calls: the segments', the lock's, the syncs'."""
        count = FailingOs(0, 0, False)
        with count.installed():
            written, _ = self.work(self.folder())
        self.assertEqual(len(written), NOTES)
        self.assertGreater(count.calls, 2 * NOTES)
        ways = [(errno.EIO, False), (errno.ENOSPC, True), (errno.ENOSPC, False), (errno.EIO, True)]
        for at in range(1, count.calls + 1):
            for code, for_good in ways if SOAK > 1 else [ways[at % 4]]:
                folder = self.folder()
                failing = FailingOs(at, code, for_good)
                with failing.installed():
                    written, erased = self.work(folder)
                self.check(folder, written, erased, f"call {at}, {os.strerror(code)}, {for_good}")

    def test_files_that_cannot_grow(self) -> None:
        """SQLite's calls too, in a process whose files may have so many blocks and no more."""
        for blocks in (40, 200) if SOAK == 1 else range(8, 600, 48):
            folder = self.folder()
            done = subprocess.run(
                [
                    "/bin/sh",
                    "-c",
                    f'ulimit -f {blocks}; exec "$@"',
                    "sh",
                    sys.executable,
                    "-m",
                    "tests.protocols.journals",
                    str(folder),
                    *("0", "200", "5", "0"),
                ],
                env=environment(),
                capture_output=True,
                text=True,
            )
            lines = done.stdout.splitlines()
            written = {int(line[1:]) for line in lines if line[0] in "+*"}
            erased = {int(line[1:]) for line in lines if line[0] == "-"}
            inline = InlineJournal(folder)
            inline.result(inline.journal.open())
            places = inline.do(notes) if lines else {}
            inline_lost = {number for number in written - erased - places.keys() if number + 40 not in places}
            for number, place in places.items():
                self.assertEqual(inline.journal.segments.read(place), payload_of(number))
            inline.crash()
            self.assertEqual((inline_lost, erased & places.keys()), (set(), set()), f"{blocks} blocks")
