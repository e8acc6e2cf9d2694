"""A small file system of its own, for tests of what happens on a full one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

CAP_SYS_ADMIN = 21
"""See capabilities(7): who has it may mount."""


def mount(test: SynchronousTestCase, where: str | Path, size: str) -> None:
    """
    Mount a tmpfs of C{size} until the end of the test.  Without the right to it the
    test is skipped; with the right, but without success, it fails where CI is set.
    """
    if not may_mount():
        raise SkipTest("mounting takes CAP_SYS_ADMIN")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", where],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = f"no tmpfs, though we may mount: {done.stderr.strip()}"
        raise test.failureException(said) if os.environ.get("CI") else SkipTest(said)
    test.addCleanup(subprocess.run, ["umount", "-l", where], capture_output=True)


def may_mount() -> bool:
    """Whether this process has the right to."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return False
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)
