"""The exchanged folder is a network mount: sshfs over the loopback, with a server that hangs."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from unittest import SkipTest

from tests.processes import PATIENCE

from .gateway import Gateway, GatewayCase, Node
from .processes import free_port, spawn, wait_until
from .services import SocketService, respond

SSHD = "/usr/sbin/sshd"


class SshfsTests(GatewayCase):
    """The near node sees the folder through sshfs, the far one directly."""

    def setUp(self) -> None:
        super().setUp()
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise SkipTest("FUSE cannot be had here")
        self.need(shutil.which("sshfs") and os.path.exists(SSHD), "sshfs or the OpenSSH server is not there")
        self.folder = self.new_folder()
        self.served, self.mounted = self.folder / "served", self.folder / "mounted"
        self.served.mkdir()
        self.mounted.mkdir()
        self.server = self.serve()
        self.addCleanup(self.unmount)

    def serve(self) -> subprocess.Popen[bytes]:
        """An OpenSSH server for this user alone, and the folder mounted from it."""
        keys = self.folder / "keys"
        keys.mkdir(mode=0o700)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / key], check=True)
        port = free_port()
        (keys / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {keys / 'host'}\n"
            f"AuthorizedKeysFile {keys / 'user.pub'}\nPidFile none\nStrictModes no\nUsePAM no\n"
            "Subsystem sftp internal-sftp\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with open(self.folder / "sshd.log", "wb") as log:
            server = spawn([SSHD, "-D", "-e", "-f", str(keys / "sshd_config")], stdout=log, stderr=log)
        options = (
            f"IdentityFile={keys / 'user'},UserKnownHostsFile=/dev/null,StrictHostKeyChecking=no,"
            "cache_timeout=1,auto_unmount"
        )
        where = f"{getpass.getuser()}@127.0.0.1:{self.served}"
        command = ["sshfs", "-p", str(port), "-o", options, where, str(self.mounted)]
        said = ""

        def mounts() -> bool:
            nonlocal said
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            said = done.stderr
            return done.returncode == 0

        try:
            wait_until(mounts, "it can be mounted", 10, every=0.3)
        except AssertionError:
            server.kill()
            server.wait()
            raise SkipTest(f"sshfs cannot mount here: {said}") from None
        return server

    def unmount(self) -> None:
        for process in self.sessions():
            os.kill(process, signal.SIGCONT)
        for program in ("fusermount3", "fusermount"):
            if shutil.which(program):
                subprocess.run([program, "-u", "-z", self.mounted], capture_output=True, timeout=PATIENCE)
                break
        self.server.kill()
        self.server.wait()

    def sessions(self) -> list[int]:
        """The processes of the server that have to do with the mount."""
        found, new = [], [self.server.pid]
        while new:
            parent = new.pop()
            path = Path(f"/proc/{parent}/task/{parent}/children")
            children = [int(child) for child in path.read_text().split()] if path.exists() else []
            found += children
            new += children
        return found

    def test_hungServer(self) -> None:
        """
        While the server hangs the link is down, the gateway answers, and a call
        is refused at once; when the server goes on so do calls, without help.
        """
        url = f"folder:{self.mounted}?poll=0.2&patience=2"
        near = Node.make(self.folder, "near", "--transport", url)
        far = Node.make(self.folder, "far", "--folder", self.served)
        gateway = self.keep(Gateway.trusting(self.folder, near, far))
        service = SocketService(lambda connection, head: respond(connection, b"over a network mount"))
        self.addCleanup(service.close)
        gateway.route("service", service.url)
        gateway.start()
        self.assertEqual(near.call("GET", "/svc/service/").body, b"over a network mount")
        sessions = self.sessions()
        self.assertTrue(sessions)
        for process in sessions:
            os.kill(process, signal.SIGSTOP)
        near.await_status(lambda now: now["peers"]["far"]["state"] == "down", "the link is down")
        self.assertIn("does not answer", near.status()["carrier_down"])
        began = time.monotonic()
        answer = near.call("GET", "/svc/service/")
        self.assertEqual(answer.status, 503)
        self.assertLess(time.monotonic() - began, 30)  # of the 60 that a call may take
        for process in sessions:
            os.kill(process, signal.SIGCONT)
        gateway.await_up()
        self.assertEqual(near.call("GET", "/svc/service/").body, b"over a network mount")
