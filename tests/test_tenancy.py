"""Many nodes over the same folders: each hears those it trusts, and nobody else."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from hoft.config import Config, Peer
from hoft.errors import JournalInUse
from hoft.identity import IDENTITY_FILE, Identity
from hoft.interfaces import LinkState
from hoft.node import Node, makeNode
from tests.messages.programs import MessageProgram


class TenancyTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.identities: dict[str, Identity] = {}
        self.programs: dict[str, MessageProgram] = {}
        self.nodes: dict[str, Node] = {}

    def identity(self, name: str) -> Identity:
        return self.identities.setdefault(name, Identity.generate(Random(name).randbytes))

    def config(self, name: str, transport: str, peers: str) -> Config:
        """Of a node that trusts these."""
        state = self.folder / f"state {name}"
        if not state.is_dir():
            state.mkdir(mode=0o700)
            self.identity(name).save(state / IDENTITY_FILE)
        cards = tuple(Peer(peer, self.identity(peer).card(peer)) for peer in peers)
        return Config(name, state, transport, listen=(), peers=cards)

    async def start(self, name: str, transport: str, peers: str) -> None:
        self.programs[name] = MessageProgram()
        node = makeNode(self.config(name, transport, peers), reactor, self.programs[name])
        self.nodes[name] = node
        self.addCleanup(node.stopService)
        await node.startService()

    async def all_to_all(self, pairs: list[tuple[str, str]]) -> None:
        """Each of these sends one, and it comes where it belongs, once."""
        sent = [self.nodes[one].link(other).send(f"{one} to {other}".encode()) for one, other in pairs]
        await gatherResults(sent)
        for name, program in self.programs.items():
            expected = sorted(f"{one} to {other}".encode() for one, other in pairs if other == name)
            while len(program.payloads) < len(expected):
                await deferLater(reactor, 0.01, lambda: None)
            self.assertEqual(sorted(filter(None, program.payloads)), expected)

    def folders(self, *names: str) -> list[Path]:
        paths = [self.folder / name for name in names]
        for path in paths:
            path.mkdir(parents=True)
        return paths

    def test_any_to_any_in_one_folder(self) -> Deferred[None]:
        """Six nodes, all of which trust all others."""

        async def live() -> None:
            [exchange] = self.folders("exchange")
            names = "abcdef"
            for name in names:
                await self.start(name, f"folder:{exchange}", names.replace(name, ""))
            await self.all_to_all(list(permutations(names, 2)))
            for node in self.nodes.values():
                self.assertEqual(node.status()["refused"], {})

        return Deferred.fromCoroutine(live())

    def test_in_parallel_over_the_same_pair_of_folders(self) -> Deferred[None]:
        """Two nodes here and two there; what those of one side write for each other goes the long way."""

        async def live() -> None:
            one, other = self.folders("one", "other")
            for name in "ab":
                await self.start(name, f"folder:?inbox={one}&outbox={other}", "xy")
            for name in "xy":
                await self.start(name, f"folder:?inbox={other}&outbox={one}", "ab")
            await self.all_to_all([(a, x) for a, x in permutations("abxy", 2) if (a in "ab") != (x in "ab")])

        return Deferred.fromCoroutine(live())

    def test_trust_has_to_be_mutual(self) -> Deferred[None]:
        """A node that is not listed is heard by nobody, and no obstacle to the others."""

        async def live() -> None:
            [exchange] = self.folders("exchange")
            await self.start("a", f"folder:{exchange}", "b")
            await self.start("b", f"folder:{exchange}", "a")
            await self.start("s", f"folder:{exchange}", "ab")
            pushed = self.nodes["s"].link("a").send(b"let me in")
            pushed.addErrback(lambda failure: None)  # when the node is stopped
            await self.all_to_all([("a", "b"), ("b", "a")])
            while not self.nodes["a"].status()["refused"].get("stranger"):
                await deferLater(reactor, 0.01, lambda: None)
            self.assertIs(self.nodes["s"].link("a").state, LinkState.UNKNOWN)
            self.assertEqual(self.programs["a"].payloads, [b"b to a"])

        return Deferred.fromCoroutine(live())

    def test_one_process_for_each_node(self) -> Deferred[None]:
        """A second one on the same state is refused, and the first goes on."""

        async def live() -> None:
            [exchange] = self.folders("exchange")
            await self.start("a", f"folder:{exchange}", "b")
            await self.start("b", f"folder:{exchange}", "a")
            second = makeNode(self.config("a", f"folder:{exchange}", "b"), reactor)
            self.addCleanup(second.stopService)
            refused: Deferred[Any] = self.assertFailure(second.startService(), JournalInUse)
            await refused
            await self.all_to_all([("a", "b"), ("b", "a")])

        return Deferred.fromCoroutine(live())
