"""The state folder: who may use it, where it may lie, and what happens when its disk is full."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import time
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SkipTest, TestCase

from hoft.errors import JournalError, JournalFull, JournalInUse
from hoft.protocols import statefolder
from hoft.protocols.journal import GROUP
from tests.mounting import mount

from .journals import InlineJournal, JournalCase, count, erase, notes, payload_of, write

ROOT = Path(__file__).parent.parent.parent


class FolderTests(JournalCase):
    def test_private(self) -> None:
        """Nobody else can read the state, whatever the folder's mode was and the umask is."""
        self.folder.mkdir(mode=0o755)
        before = os.umask(0)
        try:
            inline = self.opened(reserve=1 << 16)
            inline.do(write(1, bytes(9000)), durable=True)
        finally:
            os.umask(before)
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)
        for path in self.folder.rglob("*"):
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    def test_lock_tells_the_process(self) -> None:
        inline = self.opened()
        self.assertEqual((self.folder / "lock").read_text(), f"{os.getpid()}\n")
        inline.result(inline.journal.close())
        self.assertEqual((self.folder / "lock").read_text(), "")

    def test_second_user_refused(self) -> None:
        first = self.opened()
        second = InlineJournal(self.folder)
        refused = self.assertRaises(JournalInUse, second.result, second.journal.open())
        self.assertIn(str(os.getpid()), str(refused))
        first.do(write(1, b"unharmed"))
        first.crash()
        second.result(second.journal.open())
        self.assertEqual(list(second.do(notes)), [1])
        second.crash()

    def test_network_file_system_refused(self) -> None:
        self.folder.mkdir()
        mounts = Path("/proc/self/mountinfo")
        if not mounts.exists():
            raise SkipTest("needs /proc/self/mountinfo")
        kind = statefolder.file_system(mounts.read_text(), self.folder.stat().st_dev)
        if not kind:
            raise SkipTest("the file system of the working directory is not listed")
        self.patch(statefolder, "NETWORK_FILE_SYSTEMS", frozenset({kind}))
        inline = InlineJournal(self.folder)
        refused = self.assertRaises(JournalError, inline.result, inline.journal.open())
        self.assertIn(f"network file system ({kind})", str(refused))
        self.assertFalse((self.folder / "journal.sqlite").exists())

    def test_kind_of_file_system(self) -> None:
        mounts = (
            "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
            "30 27 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw\n"
            "31 30 0:47 / /home/some\\040one rw shared:9 - nfs4 server:/export rw,vers=4.2\n"
            "32 30 0:48 / /mnt rw - fuse.sshfs me@there: rw\n"
        )
        kinds = [statefolder.file_system(mounts, os.makedev(*n)) for n in ((8, 1), (0, 47), (0, 48), (9, 9))]
        self.assertEqual(kinds, ["ext4", "nfs4", "fuse.sshfs", ""])
        self.assertIn("nfs4", statefolder.NETWORK_FILE_SYSTEMS)
        self.assertIn("fuse.sshfs", statefolder.NETWORK_FILE_SYSTEMS)

    def test_a_folder_that_cannot_be(self) -> None:
        self.folder.write_text("a file")
        inline = InlineJournal(self.folder)
        refused = self.assertRaises(JournalError, inline.result, inline.journal.open())
        self.assertIn(str(self.folder), str(refused))

    def test_close(self) -> None:
        """What was given is committed and synced first; later calls are refused, and it opens again."""
        inline = self.opened(sync_delay=0.2)
        asked = [
            inline.journal.transact(write(number, b"x" * 5000), durable=number % 2 == 0)
            for number in range(GROUP + 20)
        ]
        closed = inline.journal.close()
        self.failureResultOf(inline.journal.transact(notes), JournalError)
        inline.result(closed)
        for deferred in asked:
            self.successResultOf(deferred)
        self.assertEqual(
            sorted(path.name for path in self.folder.iterdir()), ["journal.sqlite", "lock", "segments"]
        )
        inline.result(inline.journal.close())
        self.assertEqual(len(self.opened().do(notes)), GROUP + 20)

    def test_copy_of_the_folder(self) -> None:
        """Putting back a copy puts back the state, and the incarnation, of its time."""
        inline = self.opened()
        for number in range(10):
            inline.do(write(number, payload_of(number)))
        counted = inline.do(count)
        inline.result(inline.journal.close())
        shutil.copytree(self.folder, f"{self.folder}.copy")
        inline = self.opened()
        for number in range(10):
            inline.do(erase(number))
            inline.do(write(number + 50, payload_of(number + 50)))
        inline.do(count)
        incarnation = inline.journal.incarnation
        inline.crash()
        shutil.rmtree(self.folder)
        shutil.move(f"{self.folder}.copy", self.folder)
        inline = self.opened()
        self.assertEqual((inline.do(count), inline.journal.incarnation), (counted + 1, incarnation))
        places = inline.do(notes)
        self.assertEqual(list(places), list(range(10)))
        self.assertEqual(
            inline.result(inline.journal.load(list(places.values()))), [payload_of(n) for n in range(10)]
        )


class LookerTests(TestCase):
    """Somebody looks whether a node runs, just when it starts."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(mode=0o700)
        self.looker = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(self.looker, fcntl.LOCK_SH)

    def test_a_look_is_waited_for(self) -> None:
        self.patch(time, "sleep", lambda _: os.close(self.looker))
        state = statefolder.StateFolder(self.folder, reserve=0)
        state.lock()
        state.unlock()

    def test_a_stare_is_not(self) -> None:
        self.addCleanup(os.close, self.looker)
        naps: list[float] = []
        self.patch(time, "sleep", naps.append)
        self.assertRaises(JournalInUse, statefolder.StateFolder(self.folder, reserve=0).lock)
        self.assertLess(sum(naps), 0.2)


class FootprintTests(TestCase):
    def test_the_journal_counts_and_the_rest_of_the_folder_does_not(self) -> None:
        folder = Path(self.mktemp())
        (folder / "segments").mkdir(parents=True)
        for name, size in (("journal.sqlite", 1), ("journal.sqlite-wal", 20), ("segments/1.segment", 300)):
            (folder / name).write_bytes(bytes(size))
        (folder / "reserve").write_bytes(bytes(5000))
        found = statefolder.footprint(folder)
        self.assertEqual(found.size, 321)
        self.assertGreater(found.free, 0)


class FullDiskTests(TestCase):
    """On a file system of 24 MiB."""

    def setUp(self) -> None:
        self.mount = Path(self.mktemp())
        self.mount.mkdir()
        mount(self, self.mount, "24m")
        self.inline = self.opened()

    def opened(self) -> InlineJournal:
        inline = InlineJournal(self.mount / "state", reserve=statefolder.RESERVE, segment_size=1 << 20)
        inline.result(inline.journal.open())
        self.addCleanup(inline.crash)
        return inline

    def fill(self, size: int, first: int = 0) -> list[int]:
        """Write notes until there is no room; the numbers of those that were accepted."""
        accepted: list[int] = []
        for number in range(first, 10000):
            try:
                self.inline.do(write(number, random.Random(number).randbytes(size)))
            except JournalFull:
                return accepted
            accepted.append(number)
        raise self.failureException("it never got full")

    def check(self, size: int, accepted: list[int]) -> None:
        places = self.inline.do(notes)
        self.assertEqual(list(places), accepted)
        for number, place in places.items():
            self.assertEqual(self.inline.journal.segments.read(place), random.Random(number).randbytes(size))

    def through_a_full_disk(self, size: int) -> None:
        accepted = self.fill(size)
        self.assertGreater(len(accepted), 20)
        self.check(size, accepted)
        # While it is full: payloads are refused alone, the rest goes on.
        refused = self.inline.journal.transact(write(5000, bytes(size)))
        small = self.inline.journal.transact(count)
        self.inline.result(small)
        self.assertTrue(self.failureResultOf(refused, JournalFull))
        # A restart does no harm; what it frees of SQLite's log may be used.
        self.inline.crash()
        self.inline = self.opened()
        self.check(size, accepted)
        # Acknowledgements free room, and with that, everything goes on unaided.
        for number in accepted:
            self.inline.do(erase(number))
            self.inline.do(count)
        again = range(len(accepted) // 2)
        for number in again:
            self.inline.do(write(number, random.Random(number).randbytes(size)))
        self.check(size, list(again))

    def test_large_payloads(self) -> None:
        self.through_a_full_disk(30000)

    def test_small_payloads(self) -> None:
        self.through_a_full_disk(3000)

    def test_by_another_hand(self) -> None:
        """The disk is filled by somebody else, to the last byte, and emptied again; the log says both."""
        with capturedLogs() as events:
            self.by_another_hand()
        said = [str(formatEvent(event)) for event in events]
        [full] = [line for line in said if f"The disk of {self.mount}" in line]
        self.assertIn("full", full)
        self.assertIn(f"There is room in {self.mount / 'state'} again", said)

    def by_another_hand(self) -> None:
        for number in range(5):
            self.inline.do(write(number, random.Random(number).randbytes(6000)))
        with open(self.mount / "other", "wb", buffering=0) as other:
            try:
                while True:
                    other.write(bytes(4096))
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
        self.fill(6000, first=5)
        for number in list(self.inline.do(notes)):
            self.inline.do(erase(number))
        (self.mount / "other").unlink()
        self.inline.do(write(7, random.Random(7).randbytes(6000)), durable=True)
        self.check(6000, [7])
