"""
A node of L{tests.torture.lifetime} over all its lives: crashes, power cuts, backups, restores and copies.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import TYPE_CHECKING
from uuid import UUID

from nacl.public import PrivateKey

from hoft.protocols.database import DATABASE
from tests.torture.life import Doom, Life, repeatable

if TYPE_CHECKING:
    from tests.torture.lifetime import World


class Node:
    """
    A node across its lives, crashes, backups and restores.

    @ivar inbound: where its files lie.
    @ivar told: C{hoft restored} was run since the last life.
    @ivar dealt_with: messages that its program was given before they were committed.
    @ivar gone: it was stopped for good, in favour of its copy.
    """

    def __init__(self, world: World, name: str, uuid: UUID, key: PrivateKey) -> None:
        self.world = world
        self.name = name
        self.uuid = uuid
        self.key = key
        self.folder = world.folder / name
        self.inbound = world.carrier_folder
        self.backups: list[Path] = []
        self.on_disk: Path | None = None
        self.doomed: Doom | None = None
        self.told = False
        self.dealt_with: set[int] = set()
        self.gone = False
        self.peer: Node
        self.life: Life | None = None

    @classmethod
    def new(cls, world: World, name: str) -> Node:
        """One with nothing in its folder."""
        random = world.random
        node = cls(world, name, UUID(bytes=random.randbytes(16)), PrivateKey(random.randbytes(32)))
        node.folder.mkdir(mode=0o700)
        return node

    def clone(self, name: str) -> Node:
        """A copy of this one, as it is now or as it was once, on another machine with the same carrier."""
        node = Node(self.world, name, self.uuid, self.key)
        copy = self.world.random.choice([self.folder, self.folder, *self.backups])
        shutil.copytree(copy, node.folder)
        node.inbound = self.world.second_folder
        node.backups = list(self.backups)
        node.peer = self.peer
        return node

    def start(self) -> None:
        """A process starts."""
        if self.life is None and not self.gone:
            self.world.note(f"{self.name} starts")
            self.life = Life(self)
            self.world.replay(self)

    def crash(self) -> None:
        """It is killed."""
        if self.life is not None:
            self.world.note(f"{self.name} is killed")
            self.life.crash()
            self.life = None

    def ask(self) -> None:
        """It asks its peer for a sign of life, as a heartbeat does."""
        if self.life is not None and self.life.link is not None:
            self.life.link.ask()

    def doom(self, over: Doom) -> None:
        """It is to be killed over that."""
        self.doomed = over

    def is_at_work(self) -> bool:
        """Whether the journal, or the program, was given something that it has not done yet."""
        return self.life is not None and (self.life.workers[0].busy or bool(self.life.waiting))

    def crash_and_start(self) -> None:
        """It is killed, and started again a second later."""
        self.crash()
        self.world.clock.callLater(1.0, self.start)

    def may_double(self, message: int) -> bool:
        """Whether this node may be given a message that it was given before."""
        world = self.world
        return message in world.shared or (repeatable(message) and self.uuid in world.lost_state)

    def back_up(self) -> None:
        """Somebody copies the state folder of the running node."""
        target = self.world.folder / f"{self.name}-{len(self.backups)}"
        self.world.note(f"{self.name} is copied to {target.name}")
        shutil.copytree(self.folder, target)
        self.backups.append(target)

    def restore(self, told: bool) -> None:
        """
        The node is killed and an earlier copy put in the place of its state.

        @param told: and C{hoft restored} is run.
        """
        if self.backups:
            self.crash()
            copy = self.world.random.choice(self.backups)
            self.world.note(f"{self.name} is restored from {copy.name}{' and told so' * told}")
            self._put(copy)
            self.told = told
            self.world.rolled_back.add(self.uuid)

    def wipe(self) -> None:
        """The node is killed, and its journal is gone."""
        self.crash()
        self.world.note(f"{self.name} is wiped")
        shutil.rmtree(self.folder)
        self.folder.mkdir(mode=0o700)
        self.told = False
        self.world.restores += 1
        self.world.rolled_back.add(self.uuid)
        self.world.lost_state.add(self.uuid)

    def _put(self, copy: Path) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)
        self.world.restores += 1
        self.world.lost_state.add(self.uuid)

    def threaten(self) -> None:
        """The power is about to fail: note from now on what is on the disk."""
        self.on_disk = self.world.folder / f"{self.name}-disk"
        self.synced()

    def synced(self) -> None:
        """All that was committed by now is on the disk."""
        if self.on_disk is not None:
            shutil.rmtree(self.on_disk, ignore_errors=True)
            shutil.copytree(self.folder, self.on_disk)

    def cut_power(self) -> None:
        """The machine is gone, and with it what was not on the disk yet."""
        self.crash()
        if self.on_disk is not None:
            self.world.note(f"the power of {self.name} fails")
            self._put(self.on_disk)
            shutil.rmtree(self.on_disk)
            self.on_disk = None

    def unsent(self) -> set[int]:
        """Messages in its journal that have no number yet; for a node that does not run."""
        with closing(connect(self.folder / DATABASE)) as journal:
            if not journal.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'sent'").fetchone()[0]:
                return set()
            rows = journal.execute(
                "SELECT message FROM sent WHERE outbox IS NULL"
                " OR outbox IN (SELECT id FROM outbox WHERE number IS NULL)"
            ).fetchall()
        return {message for (message,) in rows}
