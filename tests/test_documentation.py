"""What the documentation shows works as it is shown, and what it lists is all there is."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import tomllib
from pathlib import Path
from urllib.request import urlopen

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from hoft import config
from hoft.command_parser import parser
from hoft.errors import ConfigurationError
from tests.documents import PATIENCE, ROOT, Block, Session, blocks, pages

CARD = (
    "hoft-card:far:f976ca22-a976-4b00-a215-f62e3b9438ac"
    ":vJXrKYzootqcMn2xqg-doGA7FpaXbJ0JOWb6kaOAFzE:fd8d15cb7e"
)
"""Of a node that is no more."""

PEERS = f'[peers.far]\ncard = "{CARD}"\n'

_OTHERS = {"twisted/plugins/maildir_plugin.py"}
"""Files that a reader makes."""

STORED = ROOT / "hoft.toml"
"""What configurations in the text are read as; it need not be there."""


def need(program: str) -> None:
    """Skip where an outside tool is absent, but not where CI is set."""
    if shutil.which(program) is None and not os.environ.get("CI"):
        raise SkipTest(f"there is no {program} on this machine")


def runs(block: Block) -> bool:
    """Whether it is something to do, here."""
    program = block.word("where")
    if program and shutil.which(program) is None:
        return False
    return not block.not_run and (block.language == "console" or block.word("file") is not None)


def _members(value: object) -> set[str]:
    """The names of all members of a JSON value."""
    if not isinstance(value, dict):
        return set()
    return set(value).union(*map(_members, value.values()))


class Examples(SynchronousTestCase):
    """Each page's examples, from its top to its bottom, in an empty folder."""

    def follow(self, name: str) -> Session:
        """Do what a page says; what it starts runs until the test ends."""
        need("bash")
        need("curl")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        session = Session(folder)
        self.addCleanup(session.close)
        for block in filter(runs, blocks(ROOT / name)):
            session.run(block)
        return session

    def test_readme(self) -> None:
        """Two nodes in ten minutes."""
        self.follow("README.md")

    def test_tutorial(self) -> None:
        """Two nodes, a mirror that works, and one that does not."""
        self.follow("docs/tutorial.rst")

    def test_install(self) -> None:
        """Two zones, and a mirror between them."""
        self.follow("docs/how-to-install.rst")

    def test_container(self) -> None:
        """A node that is told by options."""
        self.follow("docs/how-to-container.rst")

    def test_lossyCarrier(self) -> None:
        """The careless mirror, by itself."""
        self.follow("docs/how-to-lossy-carrier.rst")

    def test_run(self) -> None:
        """A node that was restored."""
        self.follow("docs/how-to-run.rst")

    def test_stuck(self) -> None:
        """A node whose peer is not there."""
        self.follow("docs/how-to-stuck.rst")

    def test_oddCarriers(self) -> None:
        """A carrier for text."""
        self.follow("docs/how-to-odd-carriers.rst")

    def test_tls(self) -> None:
        """A route to a service with TLS."""
        self.follow("docs/how-to-tls.rst")

    def test_keys(self) -> None:
        """A key is replaced while both nodes run."""
        self.follow("docs/how-to-keys.rst")

    def test_wait(self) -> None:
        """An answer that is fetched later."""
        self.follow("docs/how-to-wait.rst")

    def test_cache(self) -> None:
        """A route with a cache, whose service is stopped."""
        self.follow("docs/how-to-cache.rst")

    def test_callers(self) -> None:
        """Two callers, one with little to spend."""
        self.follow("docs/how-to-callers.rst")

    def test_clients(self) -> None:
        """Programs in several languages that call through a node."""
        self.follow("docs/how-to-clients.rst")

    def test_credentials(self) -> None:
        """The file of a key."""
        self.follow("docs/how-to-credentials.rst")

    def test_psk(self) -> None:
        """A secret is agreed on."""
        self.follow("docs/how-to-psk.rst")

    def test_scanner(self) -> None:
        """What ClamAV finds in a packet."""
        need("clamscan")
        self.follow("docs/how-to-scanner.rst")

    def test_transport(self) -> None:
        """The conformance suite, for a carrier of one's own."""
        self.follow("docs/how-to-transport.rst")

    def test_program(self) -> None:
        """A node within another program."""
        self.follow("docs/how-to-program.rst")

    def test_messages(self) -> None:
        """Two programs that send each other messages, over a careless mirror."""
        self.follow("docs/how-to-messages.rst")

    def test_tcp(self) -> None:
        """A port that leads to a service behind the peer."""
        self.follow("docs/how-to-tcp.rst")

    def test_websocket(self) -> None:
        """A service that speaks WebSocket, and a client of it."""
        self.follow("docs/how-to-websocket.rst")

    def test_endpoints(self) -> None:
        """Two programs that speak AMP."""
        self.follow("docs/how-to-endpoints.rst")

    def test_commandLine(self) -> None:
        """The reference shows each command's help."""
        self.follow("docs/reference-command-line.rst")

    def test_status(self) -> None:
        """The status of a node that runs; the page has every member of it."""
        session = self.follow("docs/reference-status.rst")
        with urlopen(f"http://127.0.0.1:{session.port('8080')}/_hoft/status", timeout=PATIENCE) as response:
            status = json.load(response)
        text = (ROOT / "docs" / "reference-status.rst").read_text("utf-8")
        described = set(re.findall(r"``([a-z_]+)``", text))
        members = {"far", *described}
        self.assertEqual(sorted(_members(status) - members), [])

    def test_all(self) -> None:
        """No page has examples that nobody runs."""
        source = Path(__file__).read_text("utf-8")
        for page in pages():
            if any(map(runs, blocks(page))):
                self.assertIn(f'self.follow("{page.relative_to(ROOT)}")', source)

    def test_reasons(self) -> None:
        """What is not run says why."""
        for page in pages():
            for block in blocks(page):
                if block.language == "console" and block.not_run:
                    self.assertGreater(len(block.words), len("not run: "), str(block))


class Blocks(SynchronousTestCase):
    """Blocks that are not run are what they look like."""

    def test_toml(self) -> None:
        """Each TOML block is a configuration, or a part of one."""
        found = 0
        for page in pages():
            for block in blocks(page):
                if block.language == "toml":
                    text = block.text
                    if block.word("fragment") is not None:
                        text = f'name = "near"\n{text}{PEERS}'
                    config.parse(text, STORED)
                    found += 1
        self.assertGreater(found, 3)

    def test_python(self) -> None:
        """Each Python block can be compiled."""
        for page in pages():
            for block in blocks(page):
                if block.language == "python":
                    ast.parse(block.text, str(block))


class Places(SynchronousTestCase):
    """Where the pages say that things live, they do."""

    def test_files(self) -> None:
        """Each file of ours that a page names is there."""
        packages = [path.parent for path in (ROOT / "hoft").rglob("__init__.py")]
        folders = [ROOT, *packages, *(path for path in (ROOT / "tests").iterdir() if path.is_dir())]
        for page in pages():
            text = page.read_text("utf-8")
            for name in re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`", text):
                if name in _OTHERS:
                    continue
                found = [folder for folder in folders if (folder / name).is_file()]
                self.assertTrue(found, f"{page.name}: {name}")


class ConfigurationReference(SynchronousTestCase):
    """The reference has every key there is, and no other, with its default."""

    def setUp(self) -> None:
        text = (ROOT / "docs" / "reference-configuration.rst").read_text("utf-8")
        terms = re.findall(r"^(``[a-z_.`, ]+``)\n   \*(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
        self.described = {key.strip("`"): said for keys, said in terms for key in keys.split(", ")}

    def _keys(self, table: str, text: str) -> set[str]:
        """The keys that a table takes, from what is said of one that it does not take."""
        error = self.assertRaises(ConfigurationError, config.parse, f'name = "near"\n{text}', STORED)
        self.assertEqual(error.given, "no such key")
        keys = error.wanted.removeprefix("one of ").partition(" (")[0].split(", ")
        return {f"{table}.{key}" if table else key for key in keys}

    def test_keys(self) -> None:
        """Keys of the file and of each kind of table."""
        keys = self._keys("", "zzz = 1\n")
        of_peers = self._keys("peers", f'[peers.far]\ncard = "{CARD}"\nzzz = 1\n')
        # Some are for all peers where they stand at the top.
        keys |= {key for key in of_peers if key.removeprefix("peers.") not in keys}
        keys |= self._keys("callers", f'[callers.a]\ntoken = "sha256:{64 * "0"}"\nzzz = 1\n')
        keys |= self._keys("callbacks", '[callbacks.a]\nurl = "http://a/"\nsecret_file = "a"\nzzz = 1\n')
        route = f'{PEERS}[routes.a]\npeer = "far"\nurl = "http://a/"\n'
        keys |= self._keys("routes", f"{route}zzz = 1\n")
        keys |= self._keys("routes.cache", f"{route}[routes.a.cache]\nzzz = 1\n")
        keys |= self._keys("allow", 'allow = [{ url = "http://a/", zzz = 1 }]\n')
        secret = 'client_id = "a"\nclient_secret_file = "a"\nrefresh_token_file = "a"\n'
        for kind, rest in (
            ("headers", 'headers_file = "a"\n'),
            ("login", 'login_url = "http://a/"\nform_file = "a"\n'),
            ("refresh_token", f'token_url = "http://a/"\n{secret}'),
        ):
            keys |= self._keys("credentials", f'[credentials.a]\nkind = "{kind}"\n{rest}zzz = 1\n')
        keys |= self._keys("tcp", f'{PEERS}[[tcp]]\nlisten = "unix:/s"\npeer = "far"\nto = "h:1"\nzzz = 1\n')
        keys |= self._keys("forward", f'{PEERS}[[forward]]\nmatch = "*"\npeer = "far"\nzzz = 1\n')
        self.assertEqual(set(self.described), keys)

    def test_defaults(self) -> None:
        """A default that is shown is the one that holds."""
        usual = config.parse(f'name = "near"\n{PEERS}', STORED)
        found = 0
        for key, description in self.described.items():
            shown = re.search(r"default\* ``(.*?)``", description)
            if shown is not None:
                found += 1
                given = config.parse(f'name = "near"\n{key} = {shown[1]}\n{PEERS}', STORED)
                self.assertEqual(given, usual, key)
                tomllib.loads(f"x = {shown[1]}")
        self.assertEqual(found, 19)


class CommandLineReference(SynchronousTestCase):
    """The reference has every command."""

    def test_commands(self) -> None:
        """Each has a section, and its help."""
        text = (ROOT / "docs" / "reference-command-line.rst").read_text("utf-8")
        (words,) = (action for action in parser()._actions if action.metavar == "COMMAND")
        commands = [f"hoft {name}" for name in words.choices or ()]
        self.assertIn("hoft init", commands)
        shown = re.findall(r"^   \$ (.*) --help$", text, re.MULTILINE)
        self.assertEqual(sorted(shown), sorted([*commands, "twistd hoft"]))


class Dependencies(SynchronousTestCase):
    """The page has what is installed."""

    def test_packages(self) -> None:
        """Each with the lower bound that it has, and no other."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        wanted = {}
        for requirements in (project["dependencies"], *project["optional-dependencies"].values()):
            for requirement in requirements:
                found = re.match(r"([\w.-]+)(?:\[.*\])?(?:>=([0-9.]+))?", requirement)
                assert found is not None
                if found[1] != "hoft":
                    wanted[found[1].lower()] = found[2] or ""
        text = (ROOT / "docs" / "dependencies.rst").read_text("utf-8")
        row = r"^(?:``[a-z]+`` +)?([A-Za-z][\w.-]+) .*? (?:([0-9][0-9.]*) +)?[0-9.]+ +20\d\d-\d\d$"
        listed = {package.lower(): bound for package, bound in re.findall(row, text, re.MULTILINE)}
        self.assertEqual(listed, wanted)
