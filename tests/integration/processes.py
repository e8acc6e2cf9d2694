"""
Processes that do not outlive the tests: all are in one process group, and a shell
in it kills the group once the tests' own process is gone, however that ended.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.processes import PATIENCE, environment

_keeper: subprocess.Popen[bytes] | None = None


def spawn(
    arguments: Sequence[str], more: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """
    Start a process that does not outlive this one.

    @param more: for its environment.
    """
    global _keeper
    if _keeper is None or _keeper.poll() is not None:
        # It reads from a pipe whose other end only we hold: that closes when we are gone.
        script = ["/bin/sh", "-c", "read nothing; kill -KILL 0"]
        _keeper = subprocess.Popen(script, stdin=subprocess.PIPE, process_group=0)
    return subprocess.Popen(
        arguments,
        # Names that nobody knows are given up soon, also where no name server answers.
        env=environment(RES_OPTIONS="timeout:1 attempts:1", **(more or {})),
        stdin=subprocess.DEVNULL,
        process_group=_keeper.pid,
        **options,
    )


def end(process: subprocess.Popen[bytes], patience: float = PATIENCE) -> int:
    """SIGTERM, and SIGKILL if that does not do it in time; the exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


_chance = random.Random(os.getpid())
_given: set[int] = set()


def free_port() -> int:
    """
    A port that nobody listens on, and from which the system makes no connections of
    its own; another each time, since whoever it is for may not listen yet.
    """
    while True:
        # Several runs of the tests at once: each begins at a place of its own.
        port = 20000 + (_chance.randrange(2000) + 1999 * os.getpid()) % 10000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if port not in _given:
                    _given.add(port)
                    return port


def wait_until(
    condition: Callable[[], Any], what: str, patience: float = PATIENCE, every: float = 0.02
) -> Any:
    """
    What C{condition} returns, once that is true.

    @raise AssertionError: it was not within C{patience} seconds.
    """
    late = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > late:
            raise AssertionError(f"not within {patience:g} s: {what}")
        time.sleep(every)
