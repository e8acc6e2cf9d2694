"""
Whether a node runs on a state folder, and how to have it re-read its file.

The node's process holds C{flock} on the file C{lock} in its state folder and
writes its process id there; SIGHUP makes it re-read its configuration.
"""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

from hoft.errors import LocalError

LOCK_FILE = "lock"


def running_process(state: Path) -> int | None:
    """The id of the process that runs a node on this state folder, C{None} if none does."""
    try:
        handle = os.open(state / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        try:
            text = os.pread(handle, 32, 0).strip()
        except OSError:  # a folder
            return None
        if not text.isdigit():
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return int(text)
        # Nobody holds it: what is written there is from a process that was killed.
        return None
    finally:
        os.close(handle)


def ask_to_reload(state: Path) -> bool:
    """
    Have the node that runs on this state folder re-read its configuration.

    @return: whether one runs.
    @raise LocalError: one does, but we may not signal it.
    """
    process = running_process(state)
    if process is None:
        return False
    try:
        os.kill(process, signal.SIGHUP)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise LocalError(
            f"the node runs as another user: 'kill -HUP {process}' as that user makes it re-read its file"
        ) from None
    return True
