"""What keeps a node from starting is said in one line, and the exit code is 2."""

from __future__ import annotations

import os
import re
import shutil
import socket

from tests.processes import command, twistd

from .gateway import Gateway, GatewayCase, refuses


class StartTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.keep(Gateway.on_one_folder(self.new_folder()))
        self.near = self.gateway.near
        self.exchange = self.gateway.folder / "exchange"

    def without_the_rights_of_root(self) -> None:
        """Have the near node run so that mode bits count for it."""
        if os.geteuid() == 0:
            self.need(shutil.which("setpriv"), "setpriv is not there")
            self.near.wrapper = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")

    def test_a_missing_root(self) -> None:
        self.exchange.rmdir()
        said = self.near.refuses()
        self.assertIn(str(self.exchange), said)
        self.assertRegex(said, "transport: inbox: .*No such file.*wanted: a directory that exists")

    def test_a_folder_that_cannot_be_read(self) -> None:
        self.without_the_rights_of_root()
        self.exchange.chmod(0)
        self.addCleanup(self.exchange.chmod, 0o755)
        self.assertIn(str(self.exchange), self.near.refuses())

    def test_a_folder_that_cannot_be_written(self) -> None:
        self.without_the_rights_of_root()
        self.exchange.chmod(0o555)
        self.addCleanup(self.exchange.chmod, 0o755)
        self.assertIn(str(self.exchange), self.near.refuses())

    def test_a_key_that_others_may_read(self) -> None:
        for mode in (0o644, 0o640, 0o604):
            (self.near.folder / "identity").chmod(mode)
            said = self.near.refuses()
            self.assertIn(str(self.near.folder / "identity"), said)
            self.assertIn("others may read this key", said)
            self.assertIn("chmod 600", said)

    def test_a_second_process_on_the_same_state(self) -> None:
        self.near.start()
        assert self.near.process is not None
        # It does not wait for the first; that it hardly waits at all is in tests/protocols/test_journal.py.
        self.assertIn(f"in use by process {self.near.process.pid}", self.near.refuses())
        self.assertEqual(self.near.status()["name"], "near")

    def test_a_card_that_was_damaged_on_its_way(self) -> None:
        card = self.gateway.far.card
        uuid = card.split(":")[2]
        damaged = card.replace(uuid, uuid[:-1] + ("0" if uuid[-1] != "0" else "1"))
        self.assertIn(
            "card is damaged", refuses(command("trust", self.near.folder, damaged, "--name", "other"))
        )
        self.near.file.write_text(self.near.file.read_text().replace(card, damaged))
        said = self.near.refuses()
        self.assertIn(f"{self.near.file}: peers.far.card: card is damaged", said)

    def test_its_own_card_as_a_peers(self) -> None:
        said = refuses(command("trust", self.near.folder, self.near.card))
        self.assertIn("own card", said)

    def test_a_port_that_is_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", self.near.port)):
            said = self.near.refuses()
        self.assertIn(f"tcp:{self.near.port}:", said)
        self.assertIn("in use", said)

    def test_options_that_there_are_not(self) -> None:
        self.assertIn("--fast", refuses(command("run", self.near.folder, "--fast")))
        self.assertIn("invalid choice: 'walk'", refuses(command("walk")))
        self.assertIn("--fast", refuses(twistd("hoft", "--fast")))

    def test_mistakes_in_the_file(self) -> None:
        text = self.near.file.read_text()
        for mistake, pattern in (
            ("dedline = 5\n", r"dedline: no such key.*deadline"),
            ('deadline = "soon"\n', r"deadline: 'soon'; wanted: seconds"),
            ("deadline = \n", r"\(at line 1"),
            ('default_peer = "fra"\n', r"default_peer: no peer is called 'fra'.*did you mean far"),
        ):
            self.near.file.write_text(mistake + text)
            self.assertRegex(self.near.refuses(), re.escape(f"hoft: {self.near.file}: ") + ".*" + pattern)

    def test_a_url_that_no_carrier_understands(self) -> None:
        state = self.gateway.folder / "state"
        said = refuses(
            twistd("hoft", "--transport", "pigeon:/loft", "--state", state, "--peer", self.gateway.far.card)
        )
        self.assertIn("pigeon", said)
        self.assertIn("folder", said.partition("wanted:")[2])
        said = refuses(
            twistd(
                "hoft", "--transport", "folder:/x?pole=1", "--state", state, "--peer", self.gateway.far.card
            )
        )
        self.assertIn("pole", said)

    def test_what_was_refused_once_starts_when_it_is_mended(self) -> None:
        self.exchange.rmdir()
        self.near.refuses()
        self.exchange.mkdir()
        self.near.start()

    def test_a_journal_of_something_else(self) -> None:
        (self.near.folder / "journal.sqlite").write_bytes(b"not a database at all" * 300)
        self.assertIn("journal", self.near.refuses())

    def test_a_key_that_is_not_there(self) -> None:
        (self.near.folder / "identity").unlink()
        self.assertIn("no key there", self.near.refuses())
