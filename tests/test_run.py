"""Nodes as processes: C{hoft run}, from anywhere, once for each state folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft.running import running_process

from .processes import PATIENCE, command, end_if_late, environment, hoft


class NodesCase(SynchronousTestCase):
    """Two nodes, C{near} and C{far}, that share a folder."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        (self.folder / "exchange").mkdir()
        for name in ("near", "far"):
            done = hoft(
                "init",
                self.folder / name,
                "--folder",
                self.folder / "exchange",
                "--listen",
                "tcp:0:interface=127.0.0.1",
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            card = self.folder / f"{name}.card"
            card.write_text(done.stdout)
        for name, other in (("near", "far"), ("far", "near")):
            self.assertEqual(hoft("trust", self.folder / name, self.folder / f"{other}.card").returncode, 0)

    def start(self, name: str, cwd: Path) -> subprocess.Popen[str]:
        """C{hoft run ../NAME} in C{cwd}; root's right to write everywhere is left behind."""
        arguments = command("run", f"../{name}")
        if os.geteuid() == 0:
            arguments = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *arguments]
        process = subprocess.Popen(
            arguments, env=environment(), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.addCleanup(process.communicate)
        end_if_late(self, process)
        return process

    def wait_for(self, process: subprocess.Popen[str], words: str) -> list[str]:
        """All lines of its log up to the one that has these words."""
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line.rstrip())
            if words in line:
                return said
        assert process.stderr is not None
        raise self.failureException(f"{words!r} was never said, but: {''.join(said)}{process.stderr.read()}")


class RunTests(NodesCase):
    def test_two_nodes_run_from_one_working_directory_that_cannot_be_written(self) -> None:
        cwd = self.folder / "closed"
        cwd.mkdir(mode=0o555)
        nodes = {name: self.start(name, cwd) for name in ("near", "far")}
        for name, process in nodes.items():
            self.wait_for(process, "is up")
            self.assertEqual(running_process(self.folder / name), process.pid)
        self.assertEqual(list(cwd.iterdir()), [])
        # What the commands change, the running node takes up at once.
        done = hoft("allow", self.folder / "far", "http://127.0.0.1:1")
        self.assertIn("the running node takes it up", done.stdout)
        self.wait_for(nodes["far"], "configuration taken up")
        for process, number in zip(nodes.values(), (signal.SIGTERM, signal.SIGINT), strict=True):
            process.send_signal(number)
        for name, process in nodes.items():
            out, err = process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, 0)
            self.assertNotIn("Traceback", out + err)
            self.assertIsNone(running_process(self.folder / name))

    def test_who_is_stopped_before_it_has_begun_ends_well(self) -> None:
        program = (
            "import sys, time, types\n"
            "def run():\n    print('begins', flush=True)\n    while True: time.sleep(0.02)\n"
            "sys.modules['twisted.scripts.twistd'] = types.SimpleNamespace(run=run)\n"
            "from hoft.cli import main\n"
            "main(['run', sys.argv[1]])\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(self.folder / "near")],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(process.communicate)
        end_if_late(self, process)
        self.wait_for(process, "begins")
        process.send_signal(signal.SIGINT)
        self.assertEqual((process.communicate(timeout=PATIENCE), process.returncode), (("", ""), 0))

    def test_a_second_process_on_one_node_says_so(self) -> None:
        first = self.start("near", self.folder / "exchange")
        self.wait_for(first, "takes calls")
        second = self.start("near", self.folder / "exchange")
        _, err = second.communicate(timeout=PATIENCE)
        self.assertEqual(second.returncode, 2)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertRegex(err, rf"\Ahoft: {re.escape(str(self.folder))}/near is in use by process {first.pid}")
        self.assertIsNone(first.poll())


class LogTests(NodesCase):
    """What an operator reads: a line where something happened, and nothing else."""

    def test_a_first_start_says_where_calls_are_taken_and_nothing_to_worry_about(self) -> None:
        hoft("route", self.folder / "near", "stock", "--peer", "far", "--url", "http://stock.example/secret")
        near = self.start("near", self.folder / "near")
        said = self.wait_for(near, "takes calls")
        self.assertRegex(
            said[-1], r"near takes calls at http://127\.0\.0\.1:\d+ \(peers: far; routes: stock\)$"
        )
        self.assertIn(f"up: folder {self.folder}/exchange", "\n".join(said))
        near.send_signal(signal.SIGTERM)
        out, err = near.communicate(timeout=PATIENCE)
        self.assertRegex(out, "near has stopped; .* next start")
        everything = "\n".join([*said, out, err])
        for words in ("#debug", "#warn", "#error", "#critical", "Errno", "Failed to", "secret", "Traceback"):
            self.assertNotIn(words, everything)

    def test_a_changed_configuration_is_shown_as_it_is_now(self) -> None:
        near = self.start("near", self.folder / "near")
        self.wait_for(near, "takes calls")
        hoft("route", self.folder / "near", "stock", "--peer", "far", "--url", "http://stock.example/")
        self.assertIn("(peers: far; routes: stock)", self.wait_for(near, "takes calls")[-1])
        hoft("untrust", self.folder / "near", "far")
        file = self.folder / "near" / "hoft.toml"
        file.write_text(re.sub("(?m)^listen = .*", "listen = []", file.read_text()))
        hoft("reload", self.folder / "near")
        self.assertRegex(
            self.wait_for(near, "takes no calls")[-1], r"near takes no calls \(peers: none; routes: none\)$"
        )

    def test_a_folder_that_vanishes_is_named_and_so_is_its_return(self) -> None:
        near, far = (self.start(name, self.folder / name) for name in ("near", "far"))
        self.wait_for(near, "link to far is up")
        (self.folder / "exchange").rename(self.folder / "elsewhere")
        said = self.wait_for(near, "link to far is down")
        self.assertRegex(
            "\n".join(said), f"carrier is down: (in|out)box {self.folder}/exchange: No such file"
        )
        self.assertIn("503", said[-1])
        (self.folder / "elsewhere").rename(self.folder / "exchange")
        said = self.wait_for(near, "link to far is up")
        self.assertIn(f"carrier is up: folder {self.folder}/exchange", "\n".join(said))
        self.assertNotIn("#debug", "\n".join(said))
        far.kill()
