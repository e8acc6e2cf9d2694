"""Nodes as processes: C{hoft run}, from anywhere, once for each state folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft.running import running_process

from .processes import PATIENCE, command, end_if_late, environment, hoft


class RunTests(SynchronousTestCase):
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

    def wait_for(self, process: subprocess.Popen[str], words: str) -> None:
        """Until its log has these words."""
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if words in line:
                return
        assert process.stderr is not None
        raise self.failureException(f"{words!r} was never said, but: {''.join(said)}{process.stderr.read()}")

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
        for name, process in nodes.items():
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=PATIENCE)
            self.assertNotIn("Traceback", out + err)
            self.assertIsNone(running_process(self.folder / name))

    def test_a_second_process_on_one_node_says_so_at_once(self) -> None:
        first = self.start("near", self.folder / "exchange")
        self.wait_for(first, "starting on")
        begun = time.monotonic()
        second = self.start("near", self.folder / "exchange")
        _, err = second.communicate(timeout=PATIENCE)
        self.assertLess(time.monotonic() - begun, 3.0)
        self.assertEqual(second.returncode, 2)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertRegex(err, rf"\Ahoft: {re.escape(str(self.folder))}/near is in use by process {first.pid}")
        self.assertIsNone(first.poll())
