"""TCP through two real nodes: much at once, OpenSSH, and nodes that are killed."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from hoft.testing.harness import pattern
from tests.processes import PATIENCE

from .gateway import Gateway, GatewayCase
from .processes import free_port, spawn, wait_until

MANY = (4 << 20) * int(os.environ.get("HOFT_SOAK", "1"))
"""Bytes each way; C{HOFT_SOAK=24} makes 100 MB of it."""

PIECE = 1 << 20


class Echo:
    """A TCP server that gives back what it gets, in a thread for each connection."""

    def __init__(self, serve: Callable[[socket.socket], None] | None = None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._serve = serve or self._echo
        self.port = self._listening.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(PIECE):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listening.close()
        for connection in self.connections:
            connection.close()


def both_ways(connection: socket.socket, size: int) -> tuple[str, str]:
    """Send so much and end, and read to the end at once; the digests of both."""
    block = pattern(PIECE)
    sent, received = sha256(), sha256()

    def send() -> None:
        left = size
        while left:
            piece = block[: min(left, PIECE)]
            connection.sendall(piece)
            sent.update(piece)
            left -= len(piece)
        connection.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    while data := connection.recv(PIECE):
        received.update(data)
    sending.join()
    return sent.hexdigest(), received.hexdigest()


class ForwardTests(GatewayCase):
    def server(self, serve: Callable[[socket.socket], None] | None = None) -> Echo:
        echo = Echo(serve)
        self.addCleanup(echo.close)
        return echo

    def forward(self, gateway: Gateway, port: int) -> int:
        """Allow that port at far, lead one of near's to it, and say which."""
        gateway.far.hoft("allow", f"tcp://127.0.0.1:{port}")
        local = free_port()
        gateway.near.hoft("forward", local, "far", f"127.0.0.1:{port}")
        return local

    @contextlib.contextmanager
    def connected(self, port: int) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            yield connection

    def test_much_goes_both_ways_at_once_and_ends_each_by_itself(self) -> None:
        gateway = self.shared_pair()
        local = self.forward(gateway, self.server().port)
        with self.connected(local) as connection:
            sent, received = both_ways(connection, MANY)
        self.assertEqual(sent, received)
        for node in gateway.nodes:
            node.await_status(lambda status: not status["streams"]["open"], "the stream is over")

    def test_ten_at_once(self) -> None:
        gateway = self.shared_pair()
        local = self.forward(gateway, self.server().port)
        digests: list[tuple[str, str]] = []

        def one(number: int) -> None:
            with self.connected(local) as connection:
                digests.append(both_ways(connection, 300_000 + number))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(len(digests), 10)
        for sent, received in digests:
            self.assertEqual(sent, received)

    def test_what_is_taken_back_listens_no_more(self) -> None:
        gateway = self.shared_pair()
        local = self.forward(gateway, self.server().port)
        gateway.near.hoft("unforward", local)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", local))

    def test_when_either_node_is_killed_its_connections_are_cut_and_new_ones_work(self) -> None:
        gateway = self.pair()
        gateway.start()
        ended = threading.Semaphore(0)

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := connection.recv(PIECE):
                    connection.sendall(data)
            ended.release()

        local = self.forward(gateway, self.server(serve).port)
        for node in gateway.nodes:
            with self.connected(local) as connection:
                connection.sendall(b"one")
                self.assertEqual(connection.recv(10), b"one")
                node.kill()
                node.start()
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(connection.recv(10), b"", f"{node.name} was killed")
            self.assertTrue(ended.acquire(timeout=PATIENCE), "the service has seen the end")
            gateway.await_up()
            with self.connected(local) as connection:
                connection.sendall(b"two")
                self.assertEqual(connection.recv(10), b"two")
            self.assertTrue(ended.acquire(timeout=PATIENCE))

    def test_openssh_runs_commands_and_copies_through_it(self) -> None:
        server = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        for program in ("ssh", "ssh-keygen"):
            self.need(shutil.which(program), program)
        self.need(server, "sshd")
        assert server is not None
        gateway = self.shared_pair()
        keys = self.new_folder()
        port = self.sshd(server, keys)
        local = self.forward(gateway, port)
        ssh = [
            "ssh", "-F", "none", "-p", str(local), "-i", str(keys / "user"), "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={keys / 'known'}", "-o", "StrictHostKeyChecking=accept-new",
            "-o", "IdentitiesOnly=yes", f"{getpass.getuser()}@127.0.0.1",
        ]  # fmt: skip
        data = pattern(2_000_000)
        done = subprocess.run([*ssh, "cat"], input=data, capture_output=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, data)
        done = subprocess.run([*ssh, "exit 7"], capture_output=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 7, done.stderr)

    def sshd(self, program: str, keys: Path) -> int:
        """A server with keys of its own, that lets in whoever runs this test; its port."""
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True
            )
        (keys / "authorized").write_bytes((keys / "user.pub").read_bytes())
        port = free_port()
        (keys / "config").write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {keys / 'host'}\nPidFile none\n"
            f"AuthorizedKeysFile {keys / 'authorized'}\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        if os.getuid() == 0:
            # Where sshd separates privileges; packages make it when the service starts.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        log = keys / "sshd.log"
        with open(log, "wb") as out:
            process = spawn([program, "-D", "-e", "-f", str(keys / "config")], stdout=out, stderr=out)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)

        def listens() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                return False
            return True

        wait_until(listens, "sshd listens")
        return port
