"""How packets are sealed, between nodes that run: agreed on by people, changed while calls go on."""

from __future__ import annotations

import shutil
import subprocess
import threading
import uuid
from base64 import b64encode
from functools import partial
from os import urandom
from pathlib import Path
from typing import Any

from hoft.config import read
from hoft.identity import Card, Identity
from hoft.protocols.packets import PacketWriter
from hoft.protocols.sealing import BoxSuite
from tests.processes import PATIENCE

from .gateway import Gateway, GatewayCase, Node
from .processes import wait_until
from .services import CountingServer, content, digest

MARKER = b"what-no-scanner-must-miss"
CALLERS = 2


def id_of(node: Node) -> str:
    """As folders are called."""
    return str(Card.parse(node.card).uuid)


def refused_since(before: dict[str, int], reason: str, status: dict[str, Any]) -> bool:
    """Whether more is refused for that reason."""
    return bool(status["refused"].get(reason, 0) > before.get(reason, 0))


class SuiteTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.service = CountingServer()
        self.addCleanup(self.service.close)

    def post(self, node: Node, peer: str, body: bytes, deadline: float = PATIENCE) -> int:
        """The status of a call through C{peer}; 200 says that its body came as it was."""
        answer = node.call(
            "POST",
            f"/svc/{peer}/",
            body,
            headers={"X-Id": str(uuid.uuid4()), "Hoft-Deadline": f"{deadline:g}"},
        )
        if answer.status == 200:
            self.assertEqual(answer.body, digest(body))
        return answer.status

    def serve(self, near: Node, far: Node) -> None:
        """A route of far's name leads to the service behind it."""
        near.hoft("route", far.name, "--peer", far.name, "--url", self.service.url)
        far.hoft("allow", self.service.url)

    def test_one_node_speaks_several_and_a_scanner_finds_what_is_to_be_found(self) -> None:
        clamscan = shutil.which("clamscan")
        self.need(clamscan, "clamscan is not there")
        gateway = self.pair()
        near, boxed = gateway.nodes
        exchange = gateway.folder / "exchange"
        others = {"box": boxed}
        for suite in ("authenticated", "checksum"):
            others[suite] = Node.make(gateway.folder, suite, "--folder", exchange)
        psk = gateway.folder / "psk"
        psk.write_bytes(b64encode(urandom(32)))
        psk.chmod(0o600)
        agreed = {suite: ["--suite", suite] for suite in others}
        agreed["box"] += ["--psk-file", str(psk)]
        for suite, node in others.items():
            near.hoft("trust", node.card, *agreed[suite])
            node.hoft("trust", near.card, *agreed[suite])
            self.serve(near, node)
        gateway.others += [node.launch() for node in others.values() if node is not boxed]
        gateway.start()
        for node in others.values():
            self.assertEqual(self.post(near, node.name, content(100_000)), 200)
        status = near.status()
        self.assertEqual(
            {peer["suite"] for peer in status["peers"].values()}, {"box", "authenticated", "checksum"}
        )
        near.await_log("Packets of checksum have a checksum only")
        # Files for nodes that do not run stay where they are.
        for node in others.values():
            node.kill()
        for node in others.values():
            self.assertEqual(self.post(near, node.name, b"a " + MARKER, deadline=0.5), 504)
        signatures = gateway.folder / "marker.ndb"
        signatures.write_text(f"Test.Marker:0:*:{MARKER.hex()}\n")
        scan = [str(clamscan), "--database", str(signatures), "--recursive", "--no-summary", str(exchange)]
        done = subprocess.run(scan, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 1, done)
        for suite, node in others.items():
            lines = [line for line in done.stdout.splitlines() if f"/{id_of(node)}/" in line]
            self.assertTrue(lines, suite)
            found = any(line.endswith(": Test.Marker.UNOFFICIAL FOUND") for line in lines)
            self.assertIs(found, suite != "box", done.stdout)

    def running_pair(self) -> Gateway:
        """Two nodes for all tests of the class, that speak C{box} and have one key each."""
        gateway = self.shared_pair()
        self.serve(gateway.near, gateway.far)
        return gateway

    def agree(self, node: Node, peer: Node, suite: str) -> None:
        """One side of it."""
        node.hoft("trust", peer.hoft("card").strip(), "--suite", suite)

    def test_what_only_one_side_has_agreed_on_is_refused_and_lost_is_nothing(self) -> None:
        near, far = self.running_pair().nodes
        self.assertEqual(self.post(near, "far", b"before"), 200)
        self.agree(near, far, "authenticated")
        self.assertEqual(self.post(near, "far", b"in between", deadline=0.5), 504)
        far.await_status(
            lambda status: status["refused"].get("suite"), "a packet of another suite is refused"
        )
        answers: list[int] = []
        calling = threading.Thread(target=lambda: answers.append(self.post(near, "far", b"meanwhile")))
        calling.start()
        self.agree(far, near, "authenticated")
        calling.join()
        self.assertEqual(answers, [200])
        self.agree(near, far, "box")
        self.agree(far, near, "box")

    def test_keys_are_rotated_on_both_sides_and_no_call_notices(self) -> None:
        gateway = self.running_pair()
        near, far = gateway.nodes
        stop = threading.Event()
        statuses: list[int] = []

        def call() -> None:
            while not stop.wait(0.02):
                statuses.append(self.post(near, "far", content(20_000)))

        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        try:
            stolen = [self.rotate(near, far, restart=False), self.rotate(far, near, restart=True)]
            wait_until(lambda: len(statuses) > 20, "calls go on")
        finally:
            stop.set()
            for caller in callers:
                caller.join()
        self.assertEqual(set(statuses), {200})
        self.assertEqual(max(self.service.arrivals.values()), 1)
        # Each node's first key with the other's first and second, towards either side: nobody hears it.
        before = {node.name: node.status()["refused"] for node in gateway.nodes}
        for number, (thief, victim) in enumerate(((near, far), (far, near))):
            own, theirs = stolen[number], Identity.load(victim.folder / "identity")
            for key in (theirs.secret_key, stolen[1 - number].secret_key):
                self.plant(victim, thief, BoxSuite(own.secret_key, Identity(theirs.uuid, key).public_key))
        for node in gateway.nodes:
            for reason in ("key", "unknown-key"):
                node.await_status(partial(refused_since, before[node.name], reason), f"refused: {reason}")

    def rotate(self, one: Node, other: Node, restart: bool) -> Identity:
        """All steps, at C{one} and its peer; what its key was."""
        stolen = Identity.load(one.folder / "identity")
        card = one.folder / "new.card"
        card.write_text(one.hoft("key", "rotate"))
        if restart:
            # Calls that wait here would be cut; the other side's go on.
            one.stop()
            one.start()
        other.hoft("trust", card, "--new-key")
        wait_until(lambda: f"{other.name} has the new key" in one.hoft("key"), "it shows in what comes")
        one.hoft("key", "retire")
        other.hoft("untrust", one.name, "--old")
        return stolen

    def plant(self, victim: Node, thief: Node, suite: BoxSuite) -> None:
        """A packet from whoever has the thief's keys."""
        [peer] = [peer for peer in read(victim.file).peers if peer.name == thief.name]
        sender, recipient = peer.card.uuid, Card.parse(victim.card).uuid
        packet = PacketWriter(
            suite, urandom, b"\xa0", [], sender=sender.bytes, recipient=recipient.bytes, incarnation=1,
            boot=1, recipient_incarnation=0, challenge=1, echo=0, number=1, hedge=b"",
        )  # fmt: skip
        folder: Path = victim.folder.parent / "exchange" / str(recipient)
        name = f"{sender}--{recipient}--{urandom(8).hex()}-{1:016x}.hoft"
        (folder / name).write_bytes(packet.begin() + packet.end())
