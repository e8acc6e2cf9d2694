"""What is a node's own must lie apart from the folders by which it exchanges files."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hoft import exposure
from hoft.config import Callback, Config, Credential, Peer
from hoft.errors import ConfigurationError
from hoft.identity import Identity
from hoft.operating.places import Place

from .test_cli import Command

FAR = Identity.generate(Random(1).randbytes).card("far")


class ExposureTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.out, self.into, self.state = (self.folder / name for name in ("out", "in", "state"))
        for one in (self.out, self.into, self.state):
            one.mkdir(parents=True)

    def configured(self, state: Path | None = None, **others: Any) -> Config:
        transport = f"folder:?inbox={self.into}&outbox={self.out}"
        return Config("near", state or self.state, transport, **others)

    def refused(self, config: Config, key: str, words: str) -> None:
        error = self.assertRaises(ConfigurationError, exposure.check, config)
        self.assertEqual(error.key, key)
        self.assertIn(words, error.given)

    def test_a_folder_of_its_own_is_well_whether_it_is_there_or_not(self) -> None:
        for state in (self.state, self.folder / "state-to-be", self.folder / "outer" / "in"):
            exposure.check(self.configured(state))
        exposure.check(Config("near", self.state))
        exposure.check(Config("near", self.state, "memory:x"))

    def test_the_state_is_no_exchanged_folder_nor_within_nor_around_one(self) -> None:
        for state, words in (
            (self.out, "is the outbox"),
            (self.into, "is the inbox"),
            (self.into / "a" / "b", "lies in the inbox"),
            (self.folder, "holds the outbox"),
        ):
            self.refused(self.configured(state), "--state", words)
        one = Config("near", self.out / "near", f"folder:{self.out}", self.folder / "hoft.toml")
        self.refused(one, "state", f"lies in the folder {self.out}, which others see")

    def test_links_lead_to_where_it_really_is(self) -> None:
        (self.folder / "link").symlink_to(self.out)
        self.refused(self.configured(self.folder / "link" / "state"), "--state", "lies in the outbox")
        (self.state / "within").mkdir()
        self.out.rmdir()
        self.out.symlink_to(self.state / "within")
        self.refused(self.configured(), "--state", "holds the outbox")

    def test_secrets_and_the_file_are_held_to_the_same(self) -> None:
        secret, well = self.out / "secret", self.state / "secret"
        cases: tuple[tuple[dict[str, Any], str], ...] = (
            ({"peers": (Peer("far", FAR, psk_file=secret),)}, "peers.far.psk_file"),
            ({"callbacks": (Callback("shop", "https://a", secret),)}, "callbacks.shop.secret_file"),
            ({"path": self.out / "hoft.toml"}, ""),
            *(
                ({"credentials": (Credential("c", kind, secret_file=secret),)}, f"credentials.c.{key}")
                for kind, key in (
                    ("headers", "headers_file"),
                    ("login", "form_file"),
                    ("client_credentials", "client_secret_file"),
                )
            ),
            (
                {"credentials": (Credential("c", "refresh_token", "", "", None, False, well, secret),)},
                "credentials.c.refresh_token_file",
            ),
        )
        for others, key in cases:
            self.refused(self.configured(**others), key, "in the outbox")
        exposure.check(self.configured(peers=(Peer("far", FAR, psk_file=well),)))

    def test_a_transport_that_no_node_could_use_is_refused(self) -> None:
        for url in ("folder:/x?poll=nan", "folder:relative", "http://[::1"):
            error = self.assertRaises(ConfigurationError, exposure.check, Config("near", self.state, url))
            self.assertEqual(error.where, "transport")

    def test_a_folder_that_hangs_is_judged_by_its_name(self) -> None:
        hung, real = Event(), os.path.realpath
        self.addCleanup(hung.set)

        def hang(path: Any) -> str:
            if str(path) == str(self.into):
                hung.wait(60)
            return str(real(path))

        self.patch(exposure, "PATIENCE", 0.01)
        self.patch(os.path, "realpath", hang)
        exposure.check(self.configured())
        self.refused(self.configured(self.into / "state"), "--state", "lies in the inbox")


class CommandTests(Command):
    """Commands refuse it before anything is made or changed."""

    def test_init_makes_nothing_where_files_are_exchanged(self) -> None:
        out, into = self.folder / "out", self.folder / "in"
        out.mkdir(mode=0o755)
        for state in (out, out / "near", into, self.folder):
            self.refused(
                r"command line: DIR: \S+ (is|lies in|holds) the (in|out)box .*; wanted: .*",
                "init", state, "--name", "near", "--inbox", into, "--outbox", out,
            )  # fmt: skip
        self.assertEqual((os.listdir(self.folder), os.listdir(out)), (["out"], []))
        self.assertEqual(out.stat().st_mode & 0o777, 0o755)

    def test_init_refuses_a_transport_that_no_node_could_be_run_with(self) -> None:
        for url, words in (
            ("folder:/x?poll=nan", "poll: 'nan'"),
            ("folder:/x?bogus=1", "bogus: '1'"),
            ("folder:/x?file_mode=7777", "file_mode: '7777'"),
            ("folder:relative", "absolute paths"),
            ("folder://host/x", "a path on this machine"),
            ("memory:a?b", "memory:NAME"),
            ("http://[::1", "begins with one of folder:"),
        ):
            self.refused(words, "init", self.near, "--transport", url)
        self.assertFalse(self.near.exists())

    def test_all_that_reads_the_file_refuses_it(self) -> None:
        self.make_pair()
        file, secret = self.near / "hoft.toml", self.folder / "exchange" / "far.psk"
        secret.parent.mkdir()
        secret.write_text("A" * 43)
        secret.chmod(0o600)
        card = self.well("card", self.far).strip()
        before = file.read_text()
        self.refused("--psk-file: .* lies in the folder", "trust", self.near, card, "--psk-file", secret)
        self.assertEqual(file.read_text(), before)
        file.write_text(before.replace("/exchange", "/near/exchange"))
        self.refused("hoft.toml: state: .* holds the folder", "list", self.near)
        error = self.assertRaises(ConfigurationError, Place.of, self.near)
        self.assertEqual(error.key, "state")
