"""
How commands on this machine ask a node that runs: a Unix socket in its state folder.

A connection is one question and one answer, each a JSON object on a line of its own::

    {"ask": "status"}
    {"answer": {...}}   or   {"error": "why there is none"}

Who closes it before the answer has come, or its own half of it, does not wait for
the answer any more.

Whoever may use the state folder may ask (the folder has mode 0700, the socket 0600).
L{hoft.local_server} is the other side.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

from hoft.errors import LocalError, NodeNotRunning, NodeRefuses, NodeSilent
from hoft.running import running_process

SOCKET_FILE = "socket"
"""The socket's name within the state folder."""

LONGEST_QUESTION = 4096
LONGEST_ANSWER = 64 << 20
"""Bytes, line ends included.  The status of a thousand peers is about 2 MB."""

PATIENCE = 10.0
"""Seconds for which an answer is waited for, if nothing else is said."""

_LONGEST_ADDRESS = 103
"""Bytes that C{sun_path} holds on every system (108 on Linux, 104 on others) beside its final zero."""


class SocketAddress:
    """
    Where the socket of a state folder is, in a form that fits a socket address
    however long the folder's path is; valid until L{close}.

    @raise OSError: the folder cannot be opened.
    """

    def __init__(self, state: Path) -> None:
        self._folder = -1
        self.path = os.fspath(state / SOCKET_FILE)
        if len(os.fsencode(self.path)) > _LONGEST_ADDRESS:
            # A path through a descriptor is short (proc(5)); where there is no /proc, it does not exist.
            self._folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.path = f"/proc/self/fd/{self._folder}/{SOCKET_FILE}"

    def close(self) -> None:
        """The path is of no use any more."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def ask(state: Path, question: str, patience: float = PATIENCE, **details: Any) -> Any:
    """
    Ask the node that runs on this state folder.  Blocks.

    @param question: what C{"ask"} says; C{details} go beside it.
    @param patience: seconds for the whole of it.
    @return: its answer.
    @raise NodeNotRunning: none does.
    @raise NodeSilent: one does, but takes no questions, or does not answer in time.
    @raise NodeRefuses: it says why it has no answer.
    @raise LocalError: we may not ask.
    """
    line = json.dumps({"ask": question, **details}).encode("ascii") + b"\n"
    try:
        address = SocketAddress(state)
    except OSError:
        raise _not_running(state) from None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(patience)
            connection.connect(address.path)
            connection.sendall(line)
            with connection.makefile("rb") as lines:
                answered = lines.readline(LONGEST_ANSWER)
    except TimeoutError:
        raise NodeSilent(f"{_holder(state)} does not answer within {patience:g} s") from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise LocalError(f"{state}: the node runs as another user; ask as that user") from None
        raise _not_running(state) from None
    finally:
        address.close()
    return _unpacked(state, answered)


def _unpacked(state: Path, line: bytes) -> Any:
    if not line.endswith(b"\n"):
        raise NodeSilent(f"{_holder(state)} broke off before it had answered")
    answer = json.loads(line)
    if "answer" not in answer:
        raise NodeRefuses(str(answer.get("error", "the node gave no answer")))
    return answer["answer"]


def _holder(state: Path) -> str:
    process = running_process(state)
    return f"the node on {state}" + (f" (process {process})" if process is not None else "")


def _not_running(state: Path) -> LocalError:
    process = running_process(state)
    if process is None:
        return NodeNotRunning(f"no node runs on {state}; start it with 'hoft run' or its service")
    return NodeSilent(
        f"process {process} holds {state} and takes no questions: it is starting or stopping, or no node"
    )
