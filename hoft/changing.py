"""
Changes to files of a node that are in force when they are done: a node that runs has taken them up, or the
files are as they were.

All here blocks, on the disk and on the node.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hoft import durable
from hoft.errors import ConfigurationError, LocalError, NodeNotRunning, NodeRefuses, NodeSilent
from hoft.local_socket import ask
from hoft.running import ask_to_reload

PATIENCE = 30.0
"""Seconds for which a node may be starting, or taking up its file."""

_AGAIN = 0.1
"""Seconds between two questions to a node that is starting or stopping."""


def have_taken_up(state: Path) -> bool:
    """
    Have the node that runs on this state folder read its file again, and wait until it is in force.

    @return: whether one runs.
    @raise NodeRefuses: it does not take it up, and goes on as before.
    @raise NodeSilent: it does not say in time.
    """
    late = time.monotonic() + PATIENCE
    while True:
        try:
            ask(state, "reload", max(_AGAIN, late - time.monotonic()))
            return True
        except NodeNotRunning:
            return False
        except NodeSilent:
            if time.monotonic() >= late:
                raise
            time.sleep(_AGAIN)


def nothing() -> None:
    """See L{replace}."""


def replace(path: Path, text: str, state: Path, then: Callable[[], None] = nothing) -> None:
    """
    Put another text into a file that a node reads, and have the one that runs take it up.

    @param path: is there, and is no link.
    @param text: may be what is there already: then only the node is told.
    @param state: where the node runs, if it does.
    @param then: called once it is in force.
    @raise LocalError: it cannot be written, or the node does not take it up, or C{then} says so:
        then the file is as it was.
    """
    before = path.read_text("utf-8")
    mode = stat.S_IMODE(path.stat().st_mode)
    if text != before:
        write(path, text, mode)
    undo = ask_to_reload
    try:
        _tell(state)
        undo = have_taken_up
        then()
    except BaseException as error:
        if text != before:
            write(path, before, mode)
            if not isinstance(error, NodeRefuses):
                with suppress(LocalError):
                    undo(state)
        raise


def _tell(state: Path) -> None:
    try:
        have_taken_up(state)
    except NodeRefuses as error:
        raise NodeRefuses(f"nothing is changed, for the running node refuses it: {error}") from None
    except LocalError as error:
        raise LocalError(f"nothing is changed: {error}") from None


def write(path: Path, text: str, mode: int) -> None:
    """
    Put a file in the place of what is there, if anything.

    @raise ConfigurationError: it cannot be written.
    """
    try:
        durable.replace(path, text, mode)
    except OSError as error:
        raise ConfigurationError(
            str(path), "", f"cannot be written ({error.strerror})", "a folder that can be written"
        ) from error
