"""A journal is read from outside without being touched."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import JournalError
from hoft.protocols.database import DATABASE
from hoft.protocols.inspection import Waiting, holdings

from .nodes import Pair, lost


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files, with their times of change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


class HoldingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = Pair(self)
        self.pair.start()
        self.near, self.far = self.pair.near, self.pair.far
        self.far.program.keep = True
        self.near.send(b"arrives", b"arrives too")
        self.pair.advance(10)
        self.pair.deliver = lost
        self.near.send(b"x" * 1000, b"y" * 50_000)
        self.pair.advance(1)

    def test_what_a_killed_process_left_is_counted_peer_by_peer(self) -> None:
        for node in (self.near, self.far):
            left = node.folder.with_name(f"{node.name} killed")
            shutil.copytree(node.folder, left)
            self.assertGreater((left / f"{DATABASE}-wal").stat().st_size, 0)
            node.folder = left
        self.check()

    def test_what_a_stopped_process_left_is_the_same(self) -> None:
        for node in (self.near, self.far):
            self.pair.result(node.journal.close())
            node.crash()
            self.assertFalse((node.folder / f"{DATABASE}-wal").exists())
        self.check()

    def check(self) -> None:
        before = contents(self.near.folder), contents(self.far.folder)
        held = holdings(self.near.folder)
        self.assertEqual(held.peers, {self.far.uuid.bytes: Waiting(2, 51_000, 0)})
        self.assertLess(abs(held.written - time.time()), 60)
        self.assertEqual(holdings(self.far.folder).peers, {self.near.uuid.bytes: Waiting(0, 0, 2)})
        self.assertEqual((contents(self.near.folder), contents(self.far.folder)), before)

    def test_a_journal_in_use_can_be_looked_at_and_goes_on(self) -> None:
        self.assertEqual(holdings(self.near.folder).peers[self.far.uuid.bytes].records, 2)
        self.near.send(b"goes on")
        self.assertEqual(holdings(self.near.folder).peers[self.far.uuid.bytes].records, 3)

    def test_what_is_no_journal_is_one_line(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.assertIn("is not there", str(self.assertRaises(JournalError, holdings, folder)))
        (folder / DATABASE).write_bytes(b"rubbish" * 1000)
        self.assertIn("cannot read", str(self.assertRaises(JournalError, holdings, folder)))
