"""
The carriers that come with hoft pass the suite that is shipped for others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import Any
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from hoft.interfaces import MAX_PIECE, ICarrier
from hoft.testing.conformance import CarrierConformance
from hoft.testing.harness import ALICE, BOB
from hoft.transports.armour import LINE, MARK
from hoft.transports.filenames import FileName, LongNaming, ShortNaming
from hoft.transports.folder import FolderCarrier
from hoft.transports.locations import FolderLocation
from hoft.transports.memory import MemoryFolder


class FolderConformanceTests(CarrierConformance, TestCase):
    """The folder, told of files by the system."""

    options = ""
    watch = True
    timeout = 120
    patience = 60.0
    quiet = 0.08

    def setUp(self) -> None:
        super().setUp()
        self.root = self.mktemp()
        os.mkdir(self.root)

    def makeCarrier(self, node: UUID, boot: int) -> ICarrier:
        location = FolderLocation.parse(f"folder:{os.path.abspath(self.root)}?poll=0.05{self.options}")
        return FolderCarrier(reactor, location, node, boot, time.monotonic, watch=self.watch)

    def plant(self, recipient: UUID, name: str, content: bytes) -> None:
        folder = os.path.join(self.root, self.naming.folder(recipient))
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, name)
        with open(path, "r+b" if os.path.exists(path) else "wb") as file:
            file.write(content)
            file.truncate()

    def lying(self, recipient: UUID) -> list[str]:
        return os.listdir(os.path.join(self.root, self.naming.folder(recipient)))


class PolledFolderConformanceTests(FolderConformanceTests):
    """The folder, where polling is all there is."""

    watch = False


class ArmouredFolderConformanceTests(FolderConformanceTests):
    """The folder for text, with names that a filter for text lets pass."""

    options = "&armour=base85&prefix=tx_&suffix=.txt"
    naming = LongNaming("tx_", ".txt")
    large = MAX_PIECE + 12345

    @inlineCallbacks
    def test_lines_too_short(self) -> Generator[Any, Any, None]:
        """Each but the last counts as a whole one, and still no piece is larger than any may be."""
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: False
        lines = MAX_PIECE // 20
        name = self.naming.text(FileName(ALICE, BOB, 1, 1))
        self.plant(BOB, name, MARK + b"\n" + b"!\n" * lines)
        yield self.until(lambda: name in receiver.consumed, "it settles")
        self.assertEqual(receiver.consumed[name], bytes((lines - 1) * LINE))


class NoRenameConformanceTests(FolderConformanceTests):
    """The folder of a carrier that has no rename: files are written in place."""

    options = "&rename=no"
    in_place = True


class ShortNamesConformanceTests(FolderConformanceTests):
    """The folder with names as short as can be."""

    options = "&names=short"
    naming = ShortNaming()
    sweeps = False


class MemoryConformanceTests(CarrierConformance, TestCase):
    """The folder in memory, on a real reactor."""

    quiet = 0.08
    timeout = 120
    patience = 60.0

    def setUp(self) -> None:
        super().setUp()
        self.folder = MemoryFolder(reactor)

    def makeCarrier(self, node: UUID, boot: int) -> ICarrier:
        return self.folder.carrier(node, boot, time.monotonic)

    def plant(self, recipient: UUID, name: str, content: bytes) -> None:
        self.folder.put(recipient, name, content)

    def lying(self, recipient: UUID) -> list[str]:
        return list(self.folder.inbox(recipient))
