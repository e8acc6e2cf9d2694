"""
The carriers that come with hoft pass the suite that is shipped for others.
"""

from __future__ import annotations

import os
import time
from uuid import UUID

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hoft.interfaces import ICarrier
from hoft.testing.conformance import CarrierConformance
from hoft.transports.folder import FolderCarrier
from hoft.transports.locations import FolderLocation
from hoft.transports.memory import MemoryFolder


class FolderConformanceTests(CarrierConformance, TestCase):
    """The folder, told of files by the system."""

    watch = True
    timeout = 20
    quiet = 0.08

    def setUp(self) -> None:
        super().setUp()
        self.root = self.mktemp()
        os.mkdir(self.root)

    def makeCarrier(self, node: UUID, boot: int) -> ICarrier:
        location = FolderLocation(os.path.abspath(self.root), os.path.abspath(self.root), poll=0.05)
        return FolderCarrier(reactor, location, node, boot, time.monotonic, watch=self.watch)

    def plant(self, recipient: UUID, name: str, content: bytes) -> None:
        os.makedirs(os.path.join(self.root, str(recipient)), exist_ok=True)
        path = os.path.join(self.root, str(recipient), name)
        with open(path, "r+b" if os.path.exists(path) else "wb") as file:
            file.write(content)
            file.truncate()

    def lying(self, recipient: UUID) -> list[str]:
        return os.listdir(os.path.join(self.root, str(recipient)))


class PolledFolderConformanceTests(FolderConformanceTests):
    """The folder, where polling is all there is."""

    watch = False


class MemoryConformanceTests(CarrierConformance, TestCase):
    """The folder in memory, on a real reactor."""

    quiet = 0.08
    timeout = 20

    def setUp(self) -> None:
        super().setUp()
        self.folder = MemoryFolder(reactor)

    def makeCarrier(self, node: UUID, boot: int) -> ICarrier:
        return self.folder.carrier(node, boot, time.monotonic)

    def plant(self, recipient: UUID, name: str, content: bytes) -> None:
        self.folder.put(recipient, name, content)

    def lying(self, recipient: UUID) -> list[str]:
        return list(self.folder.inbox(recipient))
