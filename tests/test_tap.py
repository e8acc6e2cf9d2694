"""C{twistd hoft}: its options, what it says of mistakes, and SIGHUP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from hoft.config import Allow, Peer, Route
from hoft.errors import ConfigurationError
from hoft.identity import Card, Identity
from hoft.tap import Options

from .processes import PATIENCE, end_if_late, environment, twistd

FAR = Identity.generate(Random(1).randbytes).card("far")


class OptionTests(SynchronousTestCase):
    def parse(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(list(arguments))
        return options

    def test_options_become_a_configuration(self) -> None:
        made = self.parse(
            "--folder", "/srv/exchange", "--name", "near", "--state", "/var/near", "--peer", str(FAR),
            "--allow", "http://a", "--allow=http://b", "--route", "stock=far=http://stock",
            "--listen", "0", "--listen", "unix:/run/x",
        ).described()  # fmt: skip
        self.assertEqual(
            (made.name, made.state, made.transport), ("near", Path("/var/near"), "folder:/srv/exchange")
        )
        self.assertEqual(made.listen, ("tcp:0:interface=127.0.0.1", "unix:/run/x"))
        self.assertEqual(made.peers, (Peer("far", FAR),))
        self.assertEqual(made.allowed, (Allow("http://a"), Allow("http://b")))
        self.assertEqual(made.routes, (Route("stock", "far", "http://stock"),))

    def test_a_file_says_all_or_nothing(self) -> None:
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('name = "near"\n')
        self.assertEqual(self.parse("--config", str(path)).described().name, "near")
        for option, value in (
            ("--folder", "/x"),
            ("--name", "n"),
            ("--peer", str(FAR)),
            ("--listen", "unix:/x"),
        ):
            with self.assertRaisesRegex(ConfigurationError, f"{option}: given beside --config"):
                self.parse("--config", str(path), option, value).described()

    def test_two_nodes_do_not_share_their_lists(self) -> None:
        self.parse("--allow", "http://a")
        self.assertEqual(self.parse("--folder", "/x").described().allowed, ())


class ProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def refused(self, pattern: str, *arguments: object) -> None:
        """C{twistd hoft ARGUMENTS} ends at once with code 2 and says one line."""
        done = subprocess.run(
            twistd("hoft", *arguments), env=environment(XDG_STATE_HOME=str(self.folder / "state")),
            cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
        self.assertRegex(done.stderr, pattern)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_mistakes_are_one_line_and_exit_code_2(self) -> None:
        self.refused(r"\Ahoft: option --bogus not recognized", "--bogus")
        self.refused(r"\Ahoft: 'start' is not an option", "--folder", "/x", "start")
        self.refused(r"\Ahoft: command line: --folder: not given")
        self.refused(
            r"\Ahoft: command line: --listen: 'tcp:80' listens on every",
            "--folder",
            "/x",
            "--listen",
            "tcp:80",
        )
        exchange = self.folder / "exchange"
        self.refused("--state: .* lies in the folder", "--folder", exchange, "--state", exchange / "near")
        self.assertFalse(exchange.exists())
        path = self.folder / "hoft.toml"
        path.write_text('name = "near"\ntransport = "folder:/x"\ncolour = 1\n')
        self.refused(rf"\Ahoft: {re.escape(str(path))}: colour: no such key", "--config", path)
        path.write_text('name = "near"\ntransport = "folder:/x"\n')
        self.refused(r"identity: no key there; 'hoft init' makes one", "--config", path)
        Identity.generate(os.urandom).save(self.folder / "identity")
        (self.folder / "identity").chmod(0o640)
        self.refused("others may read this key", "--config", path)

    def test_where_it_may_open_few_files_the_log_says_how_many_callers_there_can_be(self) -> None:
        program = (
            "import resource, sys\n"
            "from hoft.tap import _allow_open_files\n"
            "from twisted.logger import globalLogBeginner, textFileLogObserver\n"
            "globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 1000))\n"
            "_allow_open_files()\n"
            "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
        ).stdout
        self.assertRegex(said, r"may open 1000 files, so 500 callers may be connected at once")
        self.assertIn("(1000, 1000)", said)

    def test_a_node_told_by_options_only_makes_its_key_once_and_prints_its_card_while_it_has_no_peers(
        self,
    ) -> None:
        cards = []
        for _ in range(2):
            process = subprocess.Popen(
                twistd("hoft", "--folder", self.folder / "exchange", "--name", "near", "--listen", "unix:x"),
                env=environment(XDG_STATE_HOME=str(self.folder / "state")),
                cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            end_if_late(self, process)
            assert process.stdout is not None
            cards.append(Card.parse(process.stdout.readline()))
            process.kill()
            process.communicate()
        self.assertEqual(cards[0], cards[1])
        self.assertEqual(cards[0].name, "near")
        state = self.folder / "state" / "hoft" / "near"
        self.assertEqual(Identity.load(state / "identity").card("near"), cards[0])
        self.assertEqual(state.stat().st_mode & 0o777, 0o700)


class GatewayTests(SynchronousTestCase):
    """L{hoft.tap.Gateway} in twistd, around the service of C{tap_application.py}."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.file = self.folder / "hoft.toml"
        self.write("first")

    def write(self, name: str) -> None:
        self.file.write_text(f'name = "{name}"\ntransport = "memory:"\n')

    def start(self, behaviour: str) -> subprocess.Popen[str]:
        application = Path(__file__).with_name("tap_application.py")
        process = subprocess.Popen(
            twistd("--python", application),
            env=environment(HOFT_FILE=str(self.file), HOFT_BEHAVIOUR=behaviour),
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(process.communicate)
        end_if_late(self, process)
        return process

    def wait_for(self, process: subprocess.Popen[str], words: str) -> str:
        """The first line of its log that has these words."""
        assert process.stdout is not None
        for line in process.stdout:
            if words in line:
                return line
        raise self.failureException(f"{words!r} was never said; {process.stderr and process.stderr.read()}")

    def test_hangup_has_the_node_take_up_the_file_and_a_bad_one_changes_nothing(self) -> None:
        process = self.start("well")
        self.wait_for(process, "started")
        self.write("second")
        process.send_signal(signal.SIGHUP)
        self.wait_for(process, "took up second")
        self.file.write_text('nam = "third"\n')
        process.send_signal(signal.SIGHUP)
        line = self.wait_for(process, "configuration unchanged")
        self.assertIn(f"{self.file}: name: is missing", line)
        self.write("fourth")
        process.send_signal(signal.SIGHUP)
        self.wait_for(process, "took up fourth")
        process.send_signal(signal.SIGTERM)
        self.wait_for(process, "stopped")
        process.communicate(timeout=PATIENCE)

    def test_hangups_in_a_burst_end_with_the_newest_file(self) -> None:
        process = self.start("well")
        self.wait_for(process, "started")
        for number in range(20):
            self.write(f"n{number}")
            process.send_signal(signal.SIGHUP)
        self.wait_for(process, "took up n19")

    def test_what_the_node_refuses_to_take_up_is_said(self) -> None:
        process = self.start("picky")
        self.wait_for(process, "started")
        process.send_signal(signal.SIGHUP)
        self.assertIn("hoft.toml: name: changed; wanted: a restart", self.wait_for(process, "unchanged"))

    def test_a_node_that_cannot_start_ends_with_one_line_and_code_2(self) -> None:
        for behaviour in ("raises", "fails"):
            process = self.start(behaviour)
            _, err = process.communicate(timeout=PATIENCE)
            self.assertEqual((process.returncode, err), (2, "hoft: somebody was here before\n"), behaviour)
