"""What is kept of refused files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft.interfaces import Verdict
from hoft.protocols.quarantine import HEAD, MOST_FILES, Quarantine
from hoft.testing.clock import HeapClock
from hoft.testing.worker import InlineWorker

from .nodes import Pair


class QuarantineTests(SynchronousTestCase):
    """A bounded folder, for the node's user only."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.clock = HeapClock()

    def quarantine(self, most: int = 10_000) -> Quarantine:
        clock = self.clock
        return Quarantine(
            self.folder, most, InlineWorker(clock), clock.seconds, lambda: 1.8e9 + clock.seconds()
        )

    def kept(self) -> list[str]:
        self.clock.advance(1)
        return sorted(os.listdir(self.folder)) if self.folder.exists() else []

    def test_kept(self) -> None:
        """Time, reason and name are told, the content is the file's, and nobody else reads it."""
        self.quarantine().keep("x.hoft", "forged", b"content")
        self.assertEqual(self.kept(), ["20270115T080000.000000-forged-x.hoft"])
        path = self.folder / self.kept()[0]
        self.assertEqual(path.read_bytes(), b"content")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

    def test_bytes(self) -> None:
        """The oldest goes first, also what an earlier process kept; of large files the beginning is kept."""
        for number in range(4):
            self.quarantine().keep(f"{number}", "forged", b"x" * 4000)
            self.clock.advance(1)
        self.assertEqual([name[-1] for name in self.kept()], ["2", "3"])
        self.quarantine(3 * HEAD).keep("4", "forged", b"x" * (HEAD + 1))
        self.assertEqual((self.folder / self.kept()[-1]).stat().st_size, HEAD)
        self.quarantine().keep("5", "forged", b"x" * 20_000)
        self.assertEqual([name[-1] for name in self.kept()], ["5"])
        self.assertEqual((self.folder / self.kept()[0]).stat().st_size, 10_000)

    def test_count(self) -> None:
        """Nor are there ever more than so many files."""
        quarantine = self.quarantine(1 << 30)
        for number in range(MOST_FILES + 10):
            quarantine.keep(f"{number}", "forged", b"")
            self.clock.advance(1)
        self.assertEqual(len(self.kept()), MOST_FILES)
        self.assertTrue(self.kept()[0].endswith("-10"))

    def test_flood(self) -> None:
        """Of ten thousand at once a hundred are kept, later one a second."""
        quarantine = self.quarantine(1 << 30)
        for number in range(10_000):
            quarantine.keep(f"{number}", "forged", b"")
        self.assertEqual(len(self.kept()), 100)
        self.clock.advance(9)
        for number in range(100):
            quarantine.keep(f"later-{number}", "forged", b"")
        self.assertEqual(len(self.kept()), 110)

    def test_off(self) -> None:
        """With no bytes to keep there is not even a folder."""
        self.quarantine(0).keep("x", "forged", b"content")
        self.assertEqual(self.kept(), [])

    def test_names(self) -> None:
        """A name leads nowhere else, and is not too long; what cannot be kept is no failure."""
        quarantine = self.quarantine()
        quarantine.keep("../../etc/passwd\n", "forged", b"")
        quarantine.keep("x" * 300, "forged", b"")
        self.assertEqual(len(self.kept()), 2)
        self.assertIn("-forged-.._.._etc_passwd_", "".join(self.kept()))
        self.folder.chmod(0o500)
        for name in self.kept():
            (self.folder / name).unlink(missing_ok=True)
        self.folder.rmdir()
        self.folder.write_bytes(b"in the way")
        self.quarantine().keep("x", "forged", b"")
        self.clock.advance(1)
        self.assertEqual(self.folder.read_bytes(), b"in the way")


class RefusedTests(SynchronousTestCase):
    """Where links put what they refuse."""

    def test_refused(self) -> None:
        """A file that is no packet is kept whole, under the reason that is counted; packets are not."""
        pair = Pair(self)
        pair.start()
        pair.near.send(b"a message")
        pair.advance(5)
        router, folder = pair.far.router, pair.path / "quarantine"
        router.quarantine = Quarantine(
            folder, 1 << 20, pair.far.opening, pair.clock.seconds, pair.clock.seconds
        )
        packet = next(data for sender, _, data in pair.crossed if sender == pair.near.uuid)
        forged = packet[:200] + bytes(len(packet) - 200)
        refused = [b"not a packet at all", packet[:200], b"", forged]
        for number, content in enumerate(refused):
            self.assertIs(pair.give(pair.far, f"{number}.hoft", content), Verdict.REFUSED)
        self.assertIs(pair.give(pair.far, "packet.hoft", packet), Verdict.CONSUMED)
        cut = f"{pair.near.uuid}--{pair.far.uuid}--{1:016x}-{1:016x}.hoft"
        pair.folder.put(pair.far.uuid, cut, packet[:10])
        pair.advance(30)
        kept = {path.name.split("-", 1)[1]: path.read_bytes() for path in folder.iterdir()}
        self.assertEqual(
            kept,
            {
                "not-hoft-0.hoft": refused[0],
                "too-short-1.hoft": refused[1],
                "too-short-2.hoft": refused[2],
                "forged-3.hoft": refused[3],
                f"too-short-{cut}": packet[:10],
            },
        )
        self.assertEqual(router.refusals.counts, {"not-hoft": 1, "too-short": 3, "forged": 1})
