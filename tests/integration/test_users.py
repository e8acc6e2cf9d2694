"""What others than the node's user may read: packets, but neither key nor state."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.processes import PATIENCE, command, environment

from .gateway import Gateway, GatewayCase, Node
from .processes import spawn
from .services import SocketService, respond

OTHER = 65534
"""The uid of nobody, by custom."""

_COPY = """
while :; do
    for file in $(find "$1" -type f ! -name '.*'); do
        target=$2${file#"$1"}
        [ -e "$target" ] && continue
        mkdir -p "${target%/*}" && cp "$file" "$target.part" && mv "$target.part" "$target"
    done
    sleep 0.05
done
"""
"""A mirror for a user who may not use this Python: it copies all that is not there yet."""


class UserTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.need(os.geteuid() == 0, "only root can have processes of two users")
        self.need(shutil.which("setpriv"), "setpriv is not there")
        # Not below a folder that only we may enter, as trial's may be.
        self.folder = Path(tempfile.mkdtemp(prefix="hoft-users-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)

    def other(self, *arguments: object) -> list[str]:
        """The command line, as the other user runs it."""
        return [
            "setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "--bounding-set=-all",
            *map(str, arguments),
        ]  # fmt: skip

    def make(self) -> Gateway:
        """Each node's outbox is its own, its inbox the other user's."""
        nodes = []
        for name in ("near", "far"):
            inbox, outbox = self.folder / f"{name}-inbox", self.folder / f"{name}-outbox"
            inbox.mkdir()
            os.chown(inbox, OTHER, OTHER)
            outbox.mkdir()
            outbox.chmod(0o755)
            nodes.append(Node.make(self.folder, name, "--inbox", inbox, "--outbox", outbox))
        return self.keep(Gateway.trusting(self.folder, *nodes))

    def carry(self, gateway: Gateway) -> None:
        """The other user carries from each outbox to the other's inbox."""
        tried = subprocess.run(
            self.other(*command("--version")),
            env=environment(),
            cwd="/",
            capture_output=True,
            timeout=PATIENCE,
        )
        for source, target in (("near", "far"), ("far", "near")):
            boxes = (self.folder / f"{source}-outbox", self.folder / f"{target}-inbox")
            if tried.returncode == 0:
                arguments = command("mirror", *boxes, "--copy", "--every", 0.05)
            else:
                arguments = ["/bin/sh", "-c", _COPY, "mirror", *map(str, boxes)]
            with open(self.folder / f"mirror-{source}.log", "wb") as log:
                process = spawn(self.other(*arguments), cwd="/", stdout=log, stderr=log)
            gateway.mirrors.append(process)
        print(
            "the other user carries with", "hoft mirror" if tried.returncode == 0 else "cp", file=sys.stderr
        )

    def reads(self, path: Path) -> bool:
        """Whether the other user may."""
        word = "ls" if path.is_dir() else "cat"
        done = subprocess.run(
            self.other(word, path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            timeout=PATIENCE,
        )
        if done.returncode:
            self.assertIn(b"Permission denied", done.stderr)
        return done.returncode == 0

    def test_another_users_mirror_carries_calls_but_reads_neither_key_nor_state(self) -> None:
        gateway = self.make()
        service = SocketService(lambda connection, head: respond(connection, b"x" * 300_000))
        self.addCleanup(service.close)
        gateway.route("any", service.url)
        self.carry(gateway)
        gateway.start()
        for _ in range(5):
            answer = gateway.near.call("POST", "/svc/any/", b"y" * 300_000)
            self.assertEqual((answer.status, len(answer.body)), (200, 300_000))
        for node in gateway.nodes:
            self.assertFalse(self.reads(node.folder))
            inside = [path for path in node.folder.rglob("*") if path.is_file()]
            self.assertIn(node.folder / "identity", inside)
            self.assertIn(node.folder / "journal.sqlite", inside)
            self.assertEqual([path for path in inside if self.reads(path)], [])
            # Nor if somebody opened the folder itself.
            for path in inside:
                self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    def test_a_closed_outbox_keeps_its_packets_closed(self) -> None:
        gateway = self.make()
        outbox = self.folder / "near-outbox"
        outbox.chmod(0o700)
        gateway.near.start()
        gateway.near.await_status(lambda now: now["carrier"]["files_written"] > 0, "it writes")
        packets = [path for path in outbox.rglob("*") if path.is_file()]
        self.assertTrue(packets)
        for path in packets:
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)
