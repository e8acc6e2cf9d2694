"""Real processes, for tests of what runs as one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

PATIENCE = 60.0
"""Seconds after which a process that should have ended is ended, and the test fails."""


def environment(**more: str) -> dict[str, str]:
    """This process's, with the project importable from any working directory."""
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8", **more}


def hoft(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run C{hoft} to its end."""
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=PATIENCE, **options
    )


def command(*arguments: object) -> list[str]:
    """The command line of C{hoft ARGUMENTS} under the Python that runs the tests."""
    return [sys.executable, "-m", "hoft.cli", *map(str, arguments)]


def twistd(*arguments: object) -> list[str]:
    """The command line of C{twistd -n --pidfile= ARGUMENTS}."""
    program = "from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", program, "-n", "--pidfile=", *map(str, arguments)]


def end_if_late(test: SynchronousTestCase, process: subprocess.Popen[str]) -> None:
    """Kill it at the end of the test, and after L{PATIENCE} seconds, so that no test waits for ever."""
    timer = threading.Timer(PATIENCE, process.kill)
    timer.daemon = True
    timer.start()
    test.addCleanup(process.kill)
    test.addCleanup(timer.cancel)
