"""
The commands that are the node's process, or tell it of changes: C{hoft run} and C{hoft reload}.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace

from hoft import config
from hoft.changing import have_taken_up
from hoft.config import CONFIGURATION_FILE
from hoft.errors import LocalError, NodeRefuses
from hoft.running import running_process


def run(options: Namespace) -> int:
    """C{hoft run}: be the node, in the foreground."""
    # Until the node has handlers of its own: nothing has begun yet that would have to be ended.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
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
    """C{hoft reload}: have a running node take up its file."""
    current = config.read(options.folder / CONFIGURATION_FILE)
    config.check_runnable(current)
    try:
        running = have_taken_up(current.state)
    except NodeRefuses as error:
        raise NodeRefuses(f"the running node goes on as before: {error}") from None
    if not running:
        raise LocalError(f"no node runs on {current.state}; 'hoft run {options.folder}' starts one")
    print("the running node has taken up its file")
    return 0
