"""What attackers and old files can do to two nodes; C{docs/security.rst} has the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.packets import HEADER_SIZE
from hoft.protocols.sealing import BoxSuite
from hoft.transports.filenames import FileName
from tests.torture.figures import SOAK
from tests.torture.lifetime import Plan, World
from tests.torture.node import Node

FORGERIES = 1000 * min(SOAK, 10)
POINTS = 6 * min(SOAK, 17)
"""Moments at which a node is restored."""

SALT = slice(HEADER_SIZE, HEADER_SIZE + 24)
"""Of a file in the suite C{box}: the nonce of its sealed key."""

KEEP = 1e-9
"""Replays nothing, but has the world keep all files."""


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often anything was opened, by what: the costly part of reading a file."""
    counts: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., bytes]:
        original = getattr(BoxSuite, name)

        def count(self: BoxSuite, *arguments: Any) -> bytes:
            counts[name] += 1
            opened: bytes = original(self, *arguments)
            return opened

        return count

    with (
        patch.object(BoxSuite, "open_key", counting("open_key")),
        patch.object(BoxSuite, "open_frame", counting("open_frame")),
    ):
        yield counts


class ThreatTests(SynchronousTestCase):
    """One world each."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def world(self, messages: int, seed: int = 1, **plan: Any) -> World:
        """Two nodes that will send so many messages over a carrier without faults."""
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        world = World(Plan(seed, messages, replays=KEEP, seconds=messages / 10, **plan), folder)
        for node in world.nodes():
            self.addCleanup(node.crash)
        world.arrange()
        return world

    def received(self, node: Node) -> int:
        assert node.life is not None and node.life.link is not None
        return node.life.link.counters["records_received"]

    def refused(self, node: Node) -> Counter[str]:
        assert node.life is not None
        return Counter(node.life.router.refusals.counts)

    def name(self, node: Node, chance: Random, sender: UUID | None = None) -> str:
        return str(
            FileName(sender or node.peer.uuid, node.uuid, chance.getrandbits(64), chance.getrandbits(64))
        )

    def test_forgeries(self) -> None:
        """
        Among many more forged files all real ones are delivered; a forgery costs
        at most the opening of one key and one frame, and leaves nothing.
        """
        alone, world = self.world(100), self.world(100)
        with counted() as real:
            alone.advance(15)
            alone.settle()
        chance = Random(2)
        world.advance(2)
        [first, *_] = [data for _, data in world.crossed[world.far.uuid]]
        for _ in range(FORGERIES):
            forged = (
                lambda: chance.randbytes(300),
                lambda: first[:HEADER_SIZE] + chance.randbytes(300),
                lambda: chance.choice(world.crossed[world.far.uuid])[1][:150] + chance.randbytes(100),
                lambda: first[:12] + chance.randbytes(32) + first[44:],
            )[chance.randrange(4)]()
            world.clock.callLater(
                chance.random() * 10,
                world.carrier_folder.put,
                world.far.uuid,
                self.name(world.far, chance),
                forged,
            )
        with counted() as forgeries:
            world.advance(15)
            world.settle()
        self.assertLessEqual(forgeries["open_key"], real["open_key"] + 2 * FORGERIES)
        self.assertLessEqual(forgeries["open_frame"], 2 * real["open_frame"] + 2 * FORGERIES)
        self.assertEqual(world.rollbacks, 0)

    def test_names(self) -> None:
        """Whatever a file is called, its header decides."""
        world = self.world(100)
        chance = Random(3)

        def renamed(sender: UUID, recipient: UUID, name: str, data: bytes) -> list[tuple[float, bytes]]:
            node = world.near if recipient == world.near.uuid else world.far
            other = self.name(node, chance, UUID(int=chance.getrandbits(128)))
            world.clock.callLater(chance.random(), world.carrier_folder.put, recipient, other, data)
            return []

        world.carrier_folder.deliver = renamed
        world.advance(60)
        self.assertGreater(self.received(world.near) + self.received(world.far), 95)
        world.settle()

    def put_back(self, world: World, node: Node) -> None:
        """Every file that was ever sent to C{node} lies there again, under its own name and another."""
        chance = Random(4)
        for name, data in list(world.crossed[node.uuid]):
            world.carrier_folder.put(node.uuid, name, data)
            world.carrier_folder.put(node.uuid, self.name(node, chance), data)

    def test_replay(self) -> None:
        """All files of a run again, at once, after a restart, and after the journal was wiped."""
        world = self.world(60)
        world.advance(10)
        far = world.far
        before = self.received(far)
        self.put_back(world, far)
        world.advance(30)
        self.assertEqual(self.received(far), before)
        for action in (far.crash, far.wipe, far.crash, far.wipe):
            action()
            self.put_back(world, far)
            far.start()
            world.advance(30)
            self.put_back(world, far)
            world.advance(30)
            self.assertEqual(self.received(far), 0)
        world.settle()

    def test_files_of_others(self) -> None:
        """A file that is put before its own sender, or before anybody else, is not accepted."""
        world, other = self.world(40), self.world(40, seed=2)
        for one in (world, other):
            one.advance(8)
        nodes = (*world.nodes(), *other.nodes())
        before = [self.received(node) for node in nodes]
        chance = Random(5)
        files = [
            (UUID(int=recipient.int), data)
            for one in (world, other)
            for recipient, crossed in one.crossed.items()
            for _, data in crossed
        ]
        expected = 0
        for node in nodes:
            for recipient, data in files:
                if recipient != node.uuid:
                    expected += 1
                    node.world.carrier_folder.put(node.uuid, self.name(node, chance), data)
        for one in (world, other):
            one.advance(60)
        self.assertEqual([self.received(node) for node in nodes], before)
        refused = sum((self.refused(node) for node in nodes), Counter())
        self.assertEqual(refused["reflected"] + refused["recipient"], expected, refused)
        for one in (world, other):
            one.settle()

    def test_restored_at_any_point(self) -> None:
        """Either side at many moments, with a burst at once after it: no nonce and no message comes twice."""
        for point in range(POINTS):
            world = self.world(20, seed=point)
            node = (world.near, world.far)[point % 2]
            world.clock.callLater(1.5, node.back_up)
            world.advance(1.6)
            while world.files < 10 + 3 * point and world.clock.seconds() < 10:
                world.advance(0.01)
            node.restore(told=False)
            node.start()
            world.burst(node, world.clock.seconds())
            world.advance(10)
            world.settle()
            salts = [data[SALT] for files in world.crossed.values() for _, data in files]
            self.assertEqual(len(set(salts)), len(salts))
