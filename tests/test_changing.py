"""What commands change is in force in the running node when they end; if not, nothing is, and they say so."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from hoft import config
from hoft.cli import main
from hoft.identity import IDENTITY_FILE, Identity
from hoft.node import Node

Told = tuple[int, str, str]
"""Exit code, standard output, standard error."""

Steps = Generator[Deferred[Any], Any, None]


def told(*arguments: object, out: io.TextIOBase | None = None) -> Told:
    """What C{hoft ARGUMENTS} says, in this process."""
    shown, err = out or io.StringIO(), io.StringIO()
    with redirect_stdout(shown), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, shown.getvalue() if isinstance(shown, io.StringIO) else "", err.getvalue()


@contextmanager
def full() -> Iterator[io.TextIOBase]:
    """A standard output that takes nothing."""
    with open("/dev/full", "w") as device:
        try:
            yield device
        finally:
            # What is left in it goes where there is room.
            os.dup2(os.open(os.devnull, os.O_WRONLY), device.fileno())


class RunningNodeTests(TestCase):
    """Commands beside a node that runs."""

    timeout = 30

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute() / "near"
        exchange = self.folder.parent / "exchange"
        exchange.mkdir(parents=True)
        self.file = self.folder / "hoft.toml"
        self.well("init", self.folder, "--folder", exchange, "--listen", "0")
        self.well("trust", self.folder, Identity.generate(Random(2).randbytes).card("far"))

    def well(self, *arguments: object) -> str:
        code, out, err = told(*arguments)
        self.assertEqual(code, 0, err)
        return out

    @inlineCallbacks
    def run_node(self) -> Steps:
        self.node = Node(config.read(self.file), reactor)
        self.addCleanup(self.node.stopService)
        yield self.node.startService()

    def hoft(self, *arguments: object) -> Deferred[Told]:
        command, *rest = arguments
        return deferToThread(told, command, self.folder, *rest)

    @inlineCallbacks
    def refused(self, pattern: str, *arguments: object) -> Steps:
        """It says in one line why, and leaves the file as it was."""
        before = self.file.read_bytes()
        code, out, err = yield self.hoft(*arguments)
        self.assertEqual((code, out), (2, ""), err)
        self.assertRegex(err, pattern)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertEqual(self.file.read_bytes(), before)

    @inlineCallbacks
    def test_what_the_node_refuses_is_not_kept_and_is_in_nobodys_way(self) -> Steps:
        self.well("caller", self.folder, "add", "eve")
        yield self.run_node()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            yield self.refused(
                "nothing is changed.*tcp.listen.*[Aa]ddress already in use",
                "forward", port, "far", "127.0.0.1:22",
            )  # fmt: skip
        # Whom a later command shuts out is out when it ends.
        self.assertEqual([one.name for one in self.node._config.callers], ["eve"])
        code, out, err = yield self.hoft("caller", "remove", "eve")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("the running node takes it up", out)
        self.assertEqual(self.node._config.callers, ())

    @inlineCallbacks
    def test_ports_that_were_open_stay_so_if_others_cannot_be_opened(self) -> Steps:
        self.well("forward", self.folder, 0, "far", "127.0.0.1:22")
        yield self.run_node()
        open_before = self.node._ports.addresses("tcp.listen")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            text = self.file.read_text()
            endpoint = f'"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"'
            self.file.write_text(
                text.replace("127.0.0.1:22", "127.0.0.1:23")
                + f'[[tcp]]\nlisten = {endpoint}\npeer = "far"\nto = "127.0.0.1:24"\n'
            )
            code, out, err = yield self.hoft("reload")
        self.assertEqual((code, out), (2, ""))
        self.assertRegex(err, "hoft: the running node goes on as before: .*in use")
        self.assertEqual(self.node._ports.addresses("tcp.listen"), open_before)

    @inlineCallbacks
    def test_what_stands_in_the_way_of_a_revocation_is_said(self) -> Steps:
        self.well("caller", self.folder, "add", "eve")
        yield self.run_node()
        self.file.write_text(self.file.read_text().replace('name = "near"', 'name = "nearer"'))
        yield self.refused("nothing is changed.*name: cannot change", "caller", "remove", "eve")
        yield self.refused("nothing is changed.*name: cannot change", "untrust", "far")
        identity = (self.folder / IDENTITY_FILE).read_bytes()
        yield self.refused("nothing is changed.*name: cannot change", "key", "rotate")
        self.assertEqual((self.folder / IDENTITY_FILE).read_bytes(), identity)
        self.assertEqual(self.node._identity.older_key, None)

    @inlineCallbacks
    def test_a_reload_says_that_it_was_done_when_it_was(self) -> Steps:
        yield self.run_node()
        self.file.write_text("deadline = 7\n" + self.file.read_text())
        code, out, _ = yield self.hoft("reload")
        self.assertEqual((code, out), (0, "the running node has taken up its file\n"))
        self.assertEqual(self.node._config.deadline, 7.0)

    @inlineCallbacks
    def test_a_reload_takes_up_what_was_said_at_the_start_too(self) -> Steps:
        yield self.run_node()
        port = cast(IPv4Address, self.node._ports.addresses("listen")[0]).port
        before = self.file.read_text()
        changed = (
            "heartbeat = 7\ncompress = false\nmetrics = true\nquarantine = 5\n"
            'bytes_per_second = "2 MB"\npadding = 3\n'
        ) + before.replace("[peers.far]\n", "[peers.far]\nfiles_in_transit = 9\n")

        def found() -> list[object]:
            settings = self.node.links["far"].engine.settings
            limits = settings.limits
            return [
                *(settings.heartbeat, settings.compress, settings.padding, self.node._quarantine.most),
                *(limits.bytes_per_second, limits.files_in_transit),
            ]

        def scrape() -> int:
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            with closing(connection):
                connection.request("GET", "/_hoft/metrics")
                return connection.getresponse().status

        at_first = found()
        for text, values, status in (
            (changed, [7.0, False, 3, 5, 2_000_000, 9], 200),
            (before, at_first, 404),
        ):
            self.file.write_text(text)
            code, out, err = yield self.hoft("reload")
            self.assertEqual((code, out), (0, "the running node has taken up its file\n"), err)
            self.assertEqual(found(), values)
            self.assertEqual((yield deferToThread(scrape)), status)

    @inlineCallbacks
    def test_a_command_waits_for_a_node_that_is_starting(self) -> Steps:
        self.node = Node(config.read(self.file), reactor)
        self.addCleanup(self.node.stopService)
        starting = self.node.startService()
        code, out, _ = yield self.hoft("allow", "http://a.example")
        yield starting
        self.assertEqual(code, 0)
        self.assertEqual([one.url for one in config.read(self.file).allowed], ["http://a.example"])
        # Told of it at its start or afterwards: what the command saw decides.
        if "takes it up" in out:
            self.assertEqual([one.url for one in self.node._config.allowed], ["http://a.example"])

    @inlineCallbacks
    def test_a_secret_that_cannot_be_shown_is_none(self) -> Steps:
        self.well("caller", self.folder, "add", "bob")
        self.well("callback", self.folder, "add", "shop", "--url", "http://shop.example/")
        yield self.run_node()

        def files() -> dict[Path, bytes]:
            return {
                path: path.read_bytes() for end in ("toml", "secret") for path in self.folder.glob(f"*.{end}")
            }

        before = files()
        for arguments in (
            ("caller", "add", "eve"),
            ("caller", "renew", "bob"),
            ("callback", "add", "plant", "--url", "http://plant.example/"),
            ("callback", "renew", "shop"),
        ):
            with full() as device:
                command, *rest = arguments
                code, _, err = yield deferToThread(told, command, self.folder, *rest, out=device)
            self.assertEqual(code, 2, err)
            self.assertRegex(err, r"\Ahoft: nothing is changed.*standard output.*No space left")
            self.assertEqual(err.count("\n"), 1, err)
            self.assertEqual(files(), before, arguments)
            self.assertEqual([one.name for one in self.node._config.callers], ["bob"])
