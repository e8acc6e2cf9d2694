"""
The commands that are the node's process, or signal it: C{hoft run} and C{hoft reload}.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from hoft import config
from hoft.config import CONFIGURATION_FILE
from hoft.errors import LocalError
from hoft.running import ask_to_reload, running_process


def run(options: Namespace) -> int:
    """C{hoft run}: be the node, in the foreground."""
    current = config.read(options.folder / CONFIGURATION_FILE)
    config.check_runnable(current)
    process = running_process(current.state)
    if process is not None:  # the lock would say so, too, once all is imported
        raise LocalError(f"{current.state} is in use by process {process}: stop that one first")
    # In this process: signals, exit code and process id are the node's own.
    file = os.path.realpath(options.folder / CONFIGURATION_FILE)
    sys.argv = ["twistd", "-n", "--pidfile=", "hoft", "--config", file]
    from twisted.scripts.twistd import run as run_twistd

    run_twistd()
    return 0


def reload(options: Namespace) -> int:
    """C{hoft reload}: have a running node re-read its file."""
    current = config.read(options.folder / CONFIGURATION_FILE)
    config.check_runnable(current)
    if not ask_to_reload(current.state):
        raise LocalError(f"no node runs on {current.state}; 'hoft run {options.folder}' starts one")
    print("the running node re-reads its file")
    return 0
