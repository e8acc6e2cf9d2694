"""The command line: its words, what they print, and one line with exit code 2 for every mistake."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from base64 import b64encode
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from hoft import changing, cli, config
from hoft.cli import main
from hoft.command_parser import parser
from hoft.config import Allow, Allowance, Route
from hoft.identity import Card, Identity
from hoft.running import ask_to_reload, running_process
from hoft.tokens import hash_token

from .processes import PATIENCE, command, end_if_late, environment, hoft


class Command(SynchronousTestCase):
    """Runs commands in this process, with a folder of its own for each test."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.near = self.folder / "near"
        self.far = self.folder / "far"

    def run_in(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as exit:
                code = exit.code if isinstance(exit.code, int) else -1
        return code, out.getvalue(), err.getvalue()

    def well(self, *arguments: object) -> str:
        code, out, err = self.run_in(*arguments)
        self.assertEqual((code, err), (0, ""), f"hoft {arguments}")
        return out

    def refused(self, pattern: str, *arguments: object) -> None:
        code, out, err = self.run_in(*arguments)
        self.assertEqual((code, out), (2, ""), f"hoft {arguments}: {err}")
        self.assertRegex(err, pattern)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertTrue(err.startswith("hoft"), err)

    def make_pair(self) -> None:
        self.well("init", self.near, "--folder", self.folder / "exchange")
        self.well("init", self.far, "--folder", self.folder / "exchange")
        self.well("trust", self.near, self.well("card", self.far).strip())


class CallerTests(Command):
    """C{hoft caller}."""

    def setUp(self) -> None:
        super().setUp()
        self.well("init", self.near, "--folder", self.folder / "exchange")

    def tokens(self) -> tuple[str, ...]:
        [caller] = config.read(self.near / "hoft.toml").callers
        return caller.tokens

    def add(self, *arguments: object) -> str:
        code, out, err = self.run_in("caller", self.near, *arguments)
        self.assertEqual(code, 0, err)
        self.assertIn("not shown again", err)
        return out.strip()

    def test_a_token_is_shown_once_and_its_hash_kept(self) -> None:
        token = self.add("add", "billing", "--per-second", "2.5", "--bytes-per-day", "10 GiB")
        self.assertEqual(self.tokens(), (hash_token(token.encode()),))
        self.assertNotIn(token, (self.near / "hoft.toml").read_text())
        [caller] = config.read(self.near / "hoft.toml").callers
        self.assertEqual(caller.allowance, Allowance(per_second=2.5, bytes_per_day=10 << 30))
        self.assertRegex(
            self.well("list", self.near), r"billing +\(per_second 2.5, bytes_per_day 1.07374e\+10\)"
        )
        listed = json.loads(self.well("list", self.near, "--json"))["callers"]
        self.assertEqual(
            listed,
            [
                {
                    "name": "billing",
                    "tokens": 1,
                    "operator": False,
                    "limits": {"per_second": 2.5, "bytes_per_day": 10 << 30},
                }
            ],
        )

    def test_a_renewed_token_is_accepted_beside_the_last_one(self) -> None:
        made = [hash_token(self.add(*words, "billing").encode()) for words in (["add"], ["renew"], ["renew"])]
        self.assertEqual(self.tokens(), (made[2], made[1]))

    def test_the_last_to_go_opens_the_node_again_unless_others_could_reach_it(self) -> None:
        self.add("add", "billing")
        self.assertIn("anybody may", self.well("caller", self.near, "remove", "billing"))
        self.add("add", "billing")
        file = self.near / "hoft.toml"
        file.write_text(file.read_text().replace("tcp:8080:interface=127.0.0.1", "tcp:8080"))
        self.assertEqual(config.read(file).listen, ("tcp:8080",))
        self.refused("not a loopback address", "caller", self.near, "remove", "billing")
        self.assertEqual(len(self.tokens()), 1)

    def test_where_there_are_metrics_the_first_may_be_one_who_sees_them(self) -> None:
        file = self.near / "hoft.toml"
        file.write_text("metrics = true\n" + file.read_text())
        self.refused("'hoft caller DIR add NAME --operator'", "caller", self.near, "add", "billing")
        self.add("add", "watch", "--operator")
        self.add("add", "billing")
        self.assertEqual([one.operator for one in config.read(file).callers], [True, False])
        self.assertRegex(self.well("list", self.near), r"watch +\(operator\)\n +billing\n")

    def test_mistakes(self) -> None:
        self.add("add", "billing")
        self.refused("is there already.*renew", "caller", self.near, "add", "billing")
        self.refused("none is called 'shop'.*billing", "caller", self.near, "renew", "shop")
        self.refused("none is called 'shop'", "caller", self.near, "remove", "shop")
        self.refused("for 'add' are given", "caller", self.near, "renew", "billing", "--per-day", "3")
        for rate in ("0", "1e-320", "1e17", "nan"):
            self.refused(
                "per_second: .*; wanted: a number from 0.00001 .* to 1000000000000000",
                "caller", self.near, "add", "shop", "--per-second", rate,
            )  # fmt: skip
        self.refused("bytes_per_day.*bytes", "caller", self.near, "add", "shop", "--bytes-per-day", "much")
        self.assertEqual(len(self.tokens()), 1)


class InitTests(Command):
    def test_a_new_node_is_private_has_a_card_and_is_told_where_files_go(self) -> None:
        out = self.well(
            "init", self.near, "--name", "gate", "--folder", "/srv/a b",
            "--listen", "unix:/run/x", "--listen", "80",
        )  # fmt: skip
        text, fingerprint = out.splitlines()
        card = Card.parse(text)
        self.assertEqual(card.name, "gate")
        self.assertEqual(fingerprint, f"fingerprint {card.fingerprint}")
        made = config.read(self.near / "hoft.toml")
        self.assertEqual(
            (made.name, made.transport, made.listen),
            ("gate", "folder:/srv/a%20b", ("unix:/run/x", "tcp:80:interface=127.0.0.1")),
        )
        self.assertEqual(made.state, self.near)
        self.assertEqual(Identity.load(self.near / "identity").card("gate"), card)
        self.assertEqual(self.near.stat().st_mode & 0o777, 0o700)
        for file in ("hoft.toml", "identity", "journal.sqlite"):
            self.assertEqual((self.near / file).stat().st_mode & 0o777, 0o600, file)
        self.assertIn("# deadline = 60", (self.near / "hoft.toml").read_text())

    def test_what_is_commented_out_in_a_new_file_is_right_when_it_is_not(self) -> None:
        self.make_pair()
        text = (self.near / "hoft.toml").read_text()
        for line in text.splitlines():
            if line.startswith("# ") and " = " in line:
                text = text.replace(line, line[2:], 1)
        made = config.parse(text, self.near / "hoft.toml")
        plain = config.read(self.near / "hoft.toml")
        for key in ("deadline", "max_request_body", "max_response_header", "spool", "heartbeat"):
            self.assertEqual(getattr(made, key), getattr(plain, key), key)
        self.assertEqual(made.default_peer, "far")

    def test_the_ways_to_name_a_carrier(self) -> None:
        for number, (options, url) in enumerate(
            (
                (("--inbox", "/i", "--outbox", "/o"), "folder:?inbox=/i&outbox=/o"),
                (("--transport", "memory:x"), "memory:x"),
            )
        ):
            node = self.folder / str(number)
            self.well("init", node, *options)
            self.assertEqual(config.read(node / "hoft.toml").transport, url)

    def test_without_a_carrier_it_says_that_one_is_still_to_be_named(self) -> None:
        code, _, err = self.run_in("init", self.near)
        self.assertEqual(code, 0)
        self.assertRegex(err, "say in .*near/hoft.toml where files are exchanged")
        self.refused("transport: not given", "run", self.near)
        self.refused("transport: not given", "reload", self.near)

    def test_an_existing_node_is_left_alone(self) -> None:
        self.well("init", self.near, "--folder", "/x")
        before = (self.near / "identity").read_bytes()
        self.refused("there is a node already", "init", self.near, "--folder", "/y")
        (self.near / "hoft.toml").unlink()
        self.refused(r"there is a node already \(identity\)", "init", self.near, "--folder", "/y")
        self.assertEqual((self.near / "identity").read_bytes(), before)

    def test_a_folder_that_others_look_into_is_closed_if_empty_and_else_refused(self) -> None:
        self.near.mkdir(mode=0o755)
        self.well("init", self.near, "--folder", "/x")
        self.assertEqual(self.near.stat().st_mode & 0o777, 0o700)
        self.far.mkdir(mode=0o755)
        (self.far / "notes").touch()
        self.refused("others may look into it.*chmod 700", "init", self.far, "--folder", "/x")
        self.assertEqual(os.listdir(self.far), ["notes"])

    def test_bad_options_make_nothing(self) -> None:
        self.refused("--name: 'a b'", "init", self.near, "--name", "a b")
        self.refused("--name: ''", "init", self.near, "--name", "")
        self.refused("DIR is the node's name.*: 'a b'", "init", self.folder / "a b")
        self.refused("DIR: ''; wanted: a path", "init", "")
        self.refused("--folder: given twice", "init", self.near, "--folder", "/x", "--folder", "/y")
        self.refused("--listen: '99999' has no port", "init", self.near, "--listen", "99999")
        self.refused("--inbox: given alone", "init", self.near, "--inbox", "/x")
        self.refused(
            "--transport: given beside --folder",
            "init",
            self.near,
            "--folder",
            "/x",
            "--transport",
            "memory:",
        )
        self.refused("--listen: 'tcp:80' listens on every", "init", self.near, "--listen", "tcp:80")
        self.assertFalse(self.near.exists())
        blocked = self.folder / "file"
        blocked.touch()
        self.refused("cannot be made or used", "init", blocked / "near")


class NodeTests(Command):
    def setUp(self) -> None:
        super().setUp()
        self.make_pair()

    def read(self) -> config.Config:
        return config.read(self.near / "hoft.toml")

    def test_card_is_one_line(self) -> None:
        self.assertEqual(str(Card.parse(self.well("card", self.near))) + "\n", self.well("card", self.near))

    def test_trust_shows_the_fingerprints_that_people_compare(self) -> None:
        near, far = (Card.parse(self.well("card", node)) for node in (self.near, self.far))
        path = self.folder / "near.card"
        path.write_text(f"{near}\n")
        out = self.well("trust", self.far, path, "--name", "office")
        self.assertIn("office is trusted;", out)
        self.assertIn(near.fingerprint, out)
        self.assertIn(far.fingerprint, out)
        self.assertEqual([peer.name for peer in config.read(self.far / "hoft.toml").peers], ["office"])
        self.assertIn("already", self.well("trust", self.far, path, "--name", "office"))

    def test_trust_refuses_what_is_no_good_card(self) -> None:
        card = self.well("card", self.far).strip()
        self.refused("card is damaged", "trust", self.near, card[:-1] + "x")
        self.refused("neither a card .* nor a file", "trust", self.near, "far.card")
        self.refused("the node's own card", "trust", self.near, self.well("card", self.near).strip())
        self.refused("this node is there already", "trust", self.near, card, "--name", "twice")
        self.refused("'' is no name", "trust", self.near, card, "--name", "")

    def test_routes_and_allowances_come_and_go(self) -> None:
        self.well("route", self.near, "stock", "--peer", "far", "--url", "https://stock.example/api")
        self.well("allow", self.near, "http://127.0.0.1:8000")
        self.well("allow", self.near, "http://127.0.0.1:8000", "--peer", "far")
        self.assertEqual(self.read().routes, (Route("stock", "far", "https://stock.example/api"),))
        self.assertEqual(
            self.read().allowed, (Allow("http://127.0.0.1:8000"), Allow("http://127.0.0.1:8000", "far"))
        )
        self.assertIn(
            "far may reach http://wiki.lan, also at private addresses",
            self.well("allow", self.near, "http://wiki.lan", "--peer", "far", "--private"),
        )
        self.assertEqual(self.read().allowed[-1], Allow("http://wiki.lan", "far", private=True))
        self.refused("wiki.lan --peer far is not", "disallow", self.near, "http://wiki.lan", "--peer", "far")
        self.well("disallow", self.near, "http://wiki.lan", "--peer", "far", "--private")
        self.assertEqual(len(self.read().allowed), 2)
        self.well("disallow", self.near, "http://127.0.0.1:8000")
        self.assertIn("went with it: route stock", self.well("untrust", self.near, "far"))
        self.assertEqual((self.read().routes, self.read().allowed, self.read().peers), ((), (), ()))

    def test_mistakes_name_the_option_or_the_file(self) -> None:
        self.refused(
            "--peer: no peer is called 'fra'.*did you mean far",
            "route",
            self.near,
            "x",
            "--peer",
            "fra",
            "--url",
            "http://h",
        )
        self.refused("--url: 'h' is not http", "route", self.near, "x", "--peer", "far", "--url", "h")
        self.refused("'a/b' is no name", "route", self.near, "a/b", "--peer", "far", "--url", "http://h")
        self.refused("URL-PREFIX: 'h' is not http", "allow", self.near, "h")
        self.refused("--websocket with tcp://h:1", "allow", self.near, "tcp://h:1", "--websocket")
        self.refused("--peer: no peer is called 'x'", "allow", self.near, "http://h", "--peer", "x")
        self.refused("http://h is not allowed", "disallow", self.near, "http://h")
        self.refused("none is called 'x'", "unroute", self.near, "x")
        self.refused("none is called 'x'", "untrust", self.near, "x")
        self.refused("nowhere/hoft.toml: cannot be read", "card", self.folder / "nowhere")
        (self.near / "identity").chmod(0o644)
        self.refused("others may read this key", "card", self.near)
        (self.near / "hoft.toml").write_text("name = 'near'\ncolour = 'red'\n")
        self.refused("hoft.toml: colour: no such key", "list", self.near)

    def test_list_shows_all_for_people_and_for_programs(self) -> None:
        self.well("route", self.near, "stock", "--peer", "far", "--url", "https://stock.example/api")
        self.well("route", self.near, "chat", "--peer", "far", "--url", "http://chat.lan", "--websocket")
        self.well("allow", self.near, "http://127.0.0.1:8000")
        self.well("allow", self.near, "http://wiki.lan", "--private", "--websocket")
        with open(self.near / "hoft.toml", "a") as file:
            file.write("[routes.stock.cache]\nttl = 60\n")
            file.write("[[allow]]\nurl = 'http://a'\nretry = 'never'\n")
        near, far = (Card.parse(self.well("card", node)) for node in (self.near, self.far))
        out = self.well("list", self.near)
        for word in (
            str(near.uuid),
            far.fingerprint,
            "/svc/stock/",
            "https://stock.example/api",
            "(every peer)",
        ):
            self.assertIn(word, out)
        self.assertRegex(out, r"http://127\.0\.0\.1:8000\n")
        self.assertRegex(out, r"http://wiki\.lan +\(also private addresses, WebSocket\)\n")
        self.assertRegex(out, r"/svc/chat/ +far +http://chat\.lan +\(also WebSocket\)\n")
        self.assertRegex(out, r"/svc/stock/ .* \(cache\)\n")
        self.assertRegex(out, r"http://a +\(retry: never\)\n")
        self.assertEqual(
            json.loads(self.well("list", self.near, "--json")),
            {
                "name": "near",
                "uuid": str(near.uuid),
                "fingerprint": near.fingerprint,
                "card": str(near),
                "transport": f"folder:{self.folder}/exchange",
                "listen": ["tcp:8080:interface=127.0.0.1"],
                "default_peer": None,
                "peers": [
                    {
                        "name": "far",
                        "uuid": str(far.uuid),
                        "fingerprint": far.fingerprint,
                        "card": str(far),
                        "older_fingerprint": None,
                        "suite": "box",
                        "psk": False,
                    }
                ],
                "routes": [
                    {
                        "name": "stock",
                        "peer": "far",
                        "url": "https://stock.example/api",
                        "websocket": False,
                        "retry": "idempotent",
                        "cache": {"ttl": 60.0, "override": False, "shared": False, "stale_if_error": 0.0},
                        "limits": {},
                    },
                    {
                        "name": "chat",
                        "peer": "far",
                        "url": "http://chat.lan",
                        "websocket": True,
                        "retry": "idempotent",
                        "cache": None,
                        "limits": {},
                    },
                ],
                "callers": [],
                "callbacks": [],
                "allowed": [
                    {"url": url, "peer": None, "private": inside, "websocket": inside, "retry": retry}
                    for url, inside, retry in (
                        ("http://127.0.0.1:8000", False, None),
                        ("http://wiki.lan", True, None),
                        ("http://a", False, "never"),
                    )
                ],
                "forwards": [],
                "tcp": [],
            },
        )

    def test_what_was_agreed_on_with_a_peer_is_listed_and_its_secret_is_not(self) -> None:
        secret = b64encode(os.urandom(32)).decode()
        path = self.folder / "far.psk"
        card = self.well("card", self.far).strip()
        self.refused("far.psk: no key there; 'head", "trust", self.near, card, "--psk-file", path)
        path.write_text(secret)
        path.chmod(0o644)
        self.refused("others may read this key", "trust", self.near, card, "--psk-file", path)
        path.chmod(0o600)
        self.refused("a secret in place of its file's name", "trust", self.near, card, "--psk-file", secret)
        self.well("trust", self.near, card, "--suite", "authenticated", "--psk-file", path)
        [peer] = self.read().peers
        self.assertEqual((peer.suite, peer.psk_file), ("authenticated", path))
        shown = self.well("list", self.near)
        self.assertIn("(authenticated, psk)", shown)
        listed = self.well("list", self.near, "--json")
        self.assertEqual(
            [json.loads(listed)["peers"][0][key] for key in ("suite", "psk")], ["authenticated", True]
        )
        self.assertNotIn(secret, shown + listed + repr(self.read()))
        self.refused("invalid choice: 'none'", "trust", self.near, card, "--suite", "none")

    def test_a_secret_in_the_nodes_folder_moves_with_it(self) -> None:
        path = self.near / "far.psk"
        path.write_text(b64encode(os.urandom(32)).decode())
        path.chmod(0o600)
        self.well("trust", self.near, self.well("card", self.far).strip(), "--psk-file", path)
        self.assertIn('psk_file = "far.psk"', (self.near / "hoft.toml").read_text())

    def test_a_checksum_is_agreed_on_with_a_warning(self) -> None:
        card = self.well("card", self.far).strip()
        self.assertRegex(
            self.well("trust", self.near, card, "--suite", "checksum"), "take care: .* can make up packets"
        )

    def test_a_key_is_rotated_step_by_step(self) -> None:
        old = Card.parse(self.well("card", self.near))
        self.well("trust", self.far, str(old))
        self.assertRegex(
            self.well("key", self.near), rf"the +key +id [0-9a-f]{{4}} +fingerprint {old.fingerprint}"
        )
        self.refused("one key only; 'hoft key DIR rotate'", "key", self.near, "retire")
        said = self.well("key", self.near, "rotate")
        new = Card.parse(said)
        self.assertEqual((new.uuid, Card.parse(self.well("card", self.near))), (old.uuid, new))
        self.assertIn(f"fingerprint {new.fingerprint}", said)
        self.assertIn("'hoft trust' this card with --new-key", said)
        self.refused("two keys already; 'hoft key DIR retire'", "key", self.near, "rotate")
        shown = self.well("key", self.near)
        self.assertIn(old.fingerprint, shown)
        self.assertIn(new.fingerprint, shown)
        self.refused(f"{old.fingerprint}.*--new-key.*{new.fingerprint}", "trust", self.far, str(new))
        said = self.well("trust", self.far, str(new), "--new-key")
        for words in (old.fingerprint, new.fingerprint, f"hoft untrust {self.far} near --old"):
            self.assertIn(words, said)
        [peer] = config.read(self.far / "hoft.toml").peers
        self.assertEqual((peer.name, peer.card, peer.older_card), ("near", new, old))
        self.assertIn(old.fingerprint, self.well("list", self.far))
        self.refused("only the running node can tell.*--anyway", "key", self.near, "retire")
        self.assertEqual(len(Identity.load(self.near / "identity").secret_keys), 2)
        self.assertIn("'hoft untrust' near with --old", self.well("key", self.near, "retire", "--anyway"))
        self.assertEqual(len(Identity.load(self.near / "identity").secret_keys), 1)
        self.assertEqual(Card.parse(self.well("card", self.near)), new)
        self.assertIn("by its newest key only", self.well("untrust", self.far, "near", "--old"))
        [peer] = config.read(self.far / "hoft.toml").peers
        self.assertEqual((peer.card, peer.older_card), (new, None))
        self.refused("near: has no older key", "untrust", self.far, "near", "--old")

    def test_a_new_key_of_a_peer_is_taken_under_the_name_that_it_has_here(self) -> None:
        self.well("trust", self.far, self.well("card", self.near).strip(), "--name", "office")
        new = str(Card.parse(self.well("key", self.near, "rotate")))
        self.well("trust", self.far, new, "--new-key")
        self.assertEqual([peer.name for peer in config.read(self.far / "hoft.toml").peers], ["office"])

    def test_reload_without_a_running_node_says_so(self) -> None:
        self.refused("no node runs on", "reload", self.near)


class RunningNodeTests(Command):
    """Commands find the process that holds the lock, and tell it; here it is no node."""

    HOLDER = """
import fcntl, os, signal, sys
signal.signal(signal.SIGHUP, lambda *_: print("hangup", flush=True))
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(lock, b"%d\\n" % os.getpid())
print("locked", flush=True)
sys.stdin.read()
"""

    def setUp(self) -> None:
        super().setUp()
        self.make_pair()

    def start_holder(self, state: Path | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", self.HOLDER, str((state or self.near) / "lock")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(process.communicate)
        end_if_late(self, process)
        self.assertEqual(self.heard(process), "locked\n")
        return process

    def heard(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()

    def test_what_a_process_does_not_answer_to_is_not_changed_and_it_is_told_to_look_again(self) -> None:
        self.patch(changing, "PATIENCE", 0.3)
        holder = self.start_holder()
        self.assertEqual(running_process(self.near), holder.pid)
        before = (self.near / "hoft.toml").read_bytes()
        self.refused(f"nothing is changed: process {holder.pid} holds", "allow", self.near, "http://h")
        self.assertEqual((self.near / "hoft.toml").read_bytes(), before)
        self.assertEqual(self.heard(holder), "hangup\n")
        self.refused(f"process {holder.pid} holds", "reload", self.near)

    def test_a_file_with_a_mistake_is_not_sent_to_it(self) -> None:
        holder = self.start_holder()
        (self.near / "hoft.toml").write_text("name = 3")
        self.refused("hoft.toml: name: 3", "reload", self.near)
        os.kill(holder.pid, signal.SIGHUP)
        self.assertEqual(self.heard(holder), "hangup\n")
        holder.communicate()
        self.assertEqual(holder.returncode, 0)

    def test_a_process_that_was_killed_is_none(self) -> None:
        holder = self.start_holder()
        holder.kill()
        holder.wait()
        self.assertEqual((self.near / "lock").read_text().strip(), str(holder.pid))
        self.assertIsNone(running_process(self.near))
        self.assertFalse(ask_to_reload(self.near))

    def test_a_lock_that_is_a_folder_is_nobodys(self) -> None:
        (self.near / "lock").unlink()
        (self.near / "lock").mkdir()
        self.assertIsNone(running_process(self.near))

    def test_locks_without_a_process_id_are_nobodys(self) -> None:
        for content in (b"", b"x", b"-1\n", b"0x10"):
            (self.near / "lock").write_bytes(content)
            with open(self.near / "lock", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self.assertIsNone(running_process(self.near), content)

    def test_a_node_of_another_user_is_named_to_be_signalled_by_hand(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can be two users")
        # Outside of trial's folder, which the other user may be unable to enter.
        state = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, state)
        state.chmod(0o755)
        holder = self.start_holder(state)
        (state / "lock").chmod(0o644)
        probe = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from hoft.errors import LocalError\n"
            "from hoft.running import ask_to_reload\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: ask_to_reload(Path(sys.argv[1]))\n"
            "except LocalError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", probe, str(state)],
            env=environment(), capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        self.assertIn(f"the node runs as another user: 'kill -HUP {holder.pid}'", done.stdout, done.stderr)


class OutputTests(Command):
    """Where standard output or error cannot be written."""

    def run_to(self, redirection: str, *arguments: object) -> tuple[int, str]:
        """Exit code and standard error."""
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *command(*arguments)],
            env=environment(), cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def test_it_is_one_line_and_code_2(self) -> None:
        self.well("init", self.near, "--folder", self.folder / "exchange")
        before = (self.near / "hoft.toml").read_bytes()
        for redirection, pattern in (
            (">/dev/full", "hoft: standard output cannot be written .No space left on device.\n"),
            (">&-", "hoft: standard output is closed; .*\n"),
        ):
            for words in (("list", self.near), ("--help",)):
                code, said = self.run_to(redirection, *words)
                self.assertRegex(said, rf"\A{pattern}\Z")
                self.assertEqual(code, 2, words)
        code, said = self.run_to(">&-", "caller", self.near, "add", "eve")
        self.assertEqual((code, (self.near / "hoft.toml").read_bytes()), (2, before), said)

    def test_who_wants_no_errors_finds_none_in_the_output(self) -> None:
        self.well("init", self.near, "--folder", self.folder / "exchange")
        code, said = self.run_to("2>&-", "caller", self.near, "add", "eve")
        self.assertEqual(code, 0)
        self.assertRegex(said, r"\A[A-Za-z0-9_-]{43}\n\Z")


class ProcessTests(Command):
    def test_every_command_has_help_with_examples(self) -> None:
        code, out, _ = self.run_in("--help")
        self.assertEqual(code, 0)
        for word in (
            "init", "card", "trust", "untrust", "route", "unroute",
            "allow", "disallow", "callback", "callbacks", "list", "run", "reload",
            "status", "requests", "doctor", "packet", "restored", "completion", "mirror",
        ):  # fmt: skip
            self.assertRegex(out, rf"\n    {word}\s")
            code, text, _ = self.run_in(word, "--help")
            self.assertEqual(code, 0)
            self.assertIn(f"examples:\n  hoft {word} ", text)

    def test_what_does_a_commands_work_is_there(self) -> None:
        (words,) = (action for action in parser()._actions if action.metavar == "COMMAND")
        parsers = words.choices
        assert isinstance(parsers, dict)
        for one in parsers.values():
            self.assertTrue(callable(cli._command(one.get_default("command"))))

    def test_help_and_completion_wait_for_nothing_that_they_do_not_need(self) -> None:
        program = "import sys; from hoft.cli import parser; parser(); print(*sys.modules)"
        loaded = subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
        ).stdout.split()
        self.assertIn("hoft.cli", loaded)
        for dear in ("attrs", "hoft.config", "importlib.metadata", "nacl", "tomlkit", "twisted"):
            self.assertNotIn(dear, loaded)

    def test_bad_words_and_flags_are_one_line(self) -> None:
        self.refused("hoft: .*invalid choice: 'start'", "start")
        self.refused("required: COMMAND", *())
        self.refused(r"hoft trust: .*required: CARD \(see 'hoft trust --help'\)", "trust", "near")
        self.refused("unrecognized arguments: --x", "card", "near", "--x")

    def test_as_a_process_it_answers_the_same(self) -> None:
        done = hoft("--version")
        self.assertRegex(done.stdout, r"\Ahoft \d+\.\d+\.\d+\n\Z")
        done = hoft("card", "nowhere", cwd=self.folder)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertEqual(
            done.stderr,
            "hoft: nowhere/hoft.toml: cannot be read (No such file or directory); "
            "wanted: a configuration, as 'hoft init' makes it\n",
        )

    def test_the_first_seconds_of_a_person(self) -> None:
        """Card from one node to the other through a pipe, as the tutorial has it."""
        self.well("init", self.near, "--folder", "/x")
        self.well("init", self.far, "--folder", "/x")
        with subprocess.Popen(command("card", self.far), env=environment(), stdout=subprocess.PIPE) as card:
            done = hoft("trust", self.near, "/dev/stdin", stdin=card.stdout)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([peer.name for peer in config.read(self.near / "hoft.toml").peers], ["far"])

    def completed(self, line: str) -> list[str]:
        """What a shell is told when TAB is pressed at the end of this line."""
        path = self.folder / "completions"
        more = {
            "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\v", "COMP_LINE": line, "COMP_POINT": str(len(line)),
            "_ARGCOMPLETE_STDOUT_FILENAME": str(path),
        }  # fmt: skip
        done = subprocess.run(
            command(), env=environment(**more), cwd=self.folder, capture_output=True, timeout=PATIENCE
        )
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return [word.strip() for word in path.read_text().split("\v")]

    def test_shells_complete_words_options_and_names(self) -> None:
        self.make_pair()
        self.well("route", self.near, "stock", "--peer", "far", "--url", "https://stock.example/api")
        self.run_in("callback", self.near, "add", "shop", "--url", "https://shop.example/")
        self.well("forward", self.near, "2222", "far", "127.0.0.1:22")
        for line, words in (
            ("hoft unt", ["untrust"]),
            ("hoft untrust near ", ["far"]),
            ("hoft unroute near st", ["stock"]),
            ("hoft unforward near ", ["tcp:2222:interface=127.0.0.1"]),
            ("hoft allow near http://a --peer f", ["far"]),
            ("hoft status near --w", ["--watch"]),
            ("hoft requests near --route ", ["stock"]),
            ("hoft requests near 5", [""]),
            ("hoft callback near renew sh", ["shop"]),
            ("hoft untrust nowhere ", [""]),
        ):
            self.assertEqual(self.completed(line), words, line)

    def test_what_a_shell_evaluates_for_completions(self) -> None:
        for shell, words in (("bash", "complete "), ("zsh", "compdef ")):
            out = self.well("completion", shell)
            self.assertIn(words, out)
            self.assertIn("hoft", out)
        done = subprocess.run(["bash", "-n"], input=self.well("completion", "bash"), text=True)
        self.assertEqual(done.returncode, 0)

    def test_a_reader_that_has_seen_enough_is_no_mistake(self) -> None:
        self.well("init", self.near, "--folder", "/x")
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = subprocess.run(
                command("list", self.near),
                env=environment(),
                stdout=writer,
                stderr=subprocess.PIPE,
                timeout=PATIENCE,
            )
        finally:
            os.close(writer)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
