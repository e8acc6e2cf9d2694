"""
Links over the folder carrier, in virtual time over a file system in memory: what the
layer above sees of what the carrier goes through.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from random import Random
from types import SimpleNamespace
from uuid import UUID

from hoft.interfaces import ICarrier, LinkState
from hoft.testing.worker import InlineWorker
from hoft.transports.armour import MARK
from hoft.transports.filenames import ShortNaming
from hoft.transports.folder import FolderCarrier
from hoft.transports.locations import FolderLocation
from tests.protocols.nodes import Pair

from .filesystem import ROOT, VirtualFolderTestCase

SOAK = int(os.environ.get("HOFT_SOAK", "0"))


class FolderLinkTests(VirtualFolderTestCase):
    """Two nodes with real journals whose files go through a folder."""

    def linked(self, options: str = "?poll=1") -> Pair:
        """A pair, not started."""
        self.begin()
        pair = Pair(self)
        pair.clock = self.clock
        location = FolderLocation.parse(f"folder:{ROOT}{options}")
        pair.max_file, pair.max_files = location.max_content, location.max_files

        def carrier(node: UUID, boot: int, clock: Callable[[], float]) -> ICarrier:
            return FolderCarrier(
                self.clock,
                location,
                node,
                boot,
                clock,
                watch=False,
                workers=lambda name: InlineWorker(self.clock, 0.0001),
            )

        self.patch(pair, "folder", SimpleNamespace(carrier=carrier))
        return pair

    def test_full(self) -> None:
        """While the folder is full messages stay in the outbox; once there is room they go, without help."""
        pair = self.linked()
        pair.start()
        self.files.room = 0
        pair.near.send(*(b"%d" % number for number in range(20)), b"x" * 50_000)
        pair.advance(2000)
        self.assertEqual(pair.near.rows("outbox"), 21)
        self.assertIs(pair.near.link.state, LinkState.DOWN)
        self.assertEqual(pair.far.program.payloads, [])
        self.assertEqual(self.files.folder(pair.far.uuid), {})
        self.files.room = 1 << 40
        pair.advance(130)
        self.assertEqual(len(pair.far.program.payloads), 21)
        self.assertEqual(pair.near.rows("outbox"), 0)

    def test_oddCarrier(self) -> None:
        """Through text armour, short names, few and small files all arrives, within these limits."""
        pair = self.linked("?poll=1&armour=base85&names=short&rename=no&max_file=131072&max_files=8")
        pair.start()
        payloads = [Random(number).randbytes(60_000) for number in range(40)]
        pair.near.send(*payloads)
        pair.far.crash()
        pair.advance(100)
        pair.far.start()
        while len(pair.far.program.payloads) < 40:
            folder = self.files.folder(ShortNaming().folder(pair.far.uuid))
            for name, file in folder.items():
                self.assertRegex(name, "^[a-z2-7]{8}[.]hof$")
                self.assertLessEqual(len(file.data), 131072)
                self.assertTrue(file.data.startswith(MARK) or not file.data)
            self.assertLessEqual(len(folder), 8)
            self.assertTrue(self.clock.step(self.clock.seconds() + 100))
        self.assertEqual(sorted(pair.far.program.payloads), sorted(payloads))

    def test_powerCuts(self) -> None:
        """Machines that lose power, and with it any part of what lies in the folder, lose no message."""
        for seed in range(2 * (1 + SOAK)):
            random = Random(seed)
            pair = self.linked()
            pair.start()
            sent: list[bytes] = []
            for cut in range(4):
                payloads = [
                    b"%d %d" % (cut, number) + bytes(random.randrange(30_000)) for number in range(10)
                ]
                sent += payloads
                pair.near.send(*payloads, durable=True)
                pair.advance(random.random() * 3)
                arrived = pair.far.program.payloads
                which = random.choice([pair.near, pair.far])
                which.crash()
                self.files.cut_power(random)
                which.start()
                sent = [each for each in sent if which is pair.near or each not in arrived]
                pair.advance(random.random() * 100)
            pair.advance(2000)
            self.assertEqual(pair.near.rows("outbox"), 0)
            self.assertLessEqual(set(sent), set(pair.far.program.payloads))

    def tenth(self, random: Random, _: str) -> int | None:
        """One call in ten fails, in one way or another."""
        errors = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EBUSY, errno.ESTALE)
        return random.choice(errors) if random.random() < 0.1 else None

    def test_everyError(self) -> None:
        """A folder where every tenth call fails delays messages; none is lost or handed up twice."""
        for seed in range(2 * (1 + SOAK)):
            pair = self.linked()
            pair.start()
            random = Random(seed)
            self.files.fault = partial(self.tenth, random)
            sent = [b"%d" % number for number in range(50)]
            for payload in sent:
                pair.near.send(payload)
                pair.advance(2)
            pair.advance(3000)
            self.assertEqual(sorted(pair.far.program.payloads), sorted(sent))
            self.files.fault = lambda _: None
            pair.advance(100)
            self.assertEqual(self.files.open_files, {})
            pair.stop()
