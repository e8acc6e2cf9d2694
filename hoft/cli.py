"""
The command C{hoft}, as a process: its exit codes, and what becomes of output that nobody takes.  What does
the work is imported when it is asked for: some of it brings much with it, and a shell that completes words
waits for the rest.

Every command answers bad input with one line on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module

from hoft.command_parser import parser
from hoft.errors import LocalError


def main(arguments: Sequence[str] | None = None) -> int:
    """
    @param arguments: those after the program's name; C{None} for the process's own.
    @return: the exit code.
    """
    if sys.stderr is None:
        # Else what is for people would go where programs read.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # as long as the process
    if sys.stdout is None:
        return _refuse("standard output is closed; wanted: >/dev/null, if nobody is to read it")
    try:
        code = _work(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read it has seen enough.
        _discard_output()
        return 0
    except LocalError as error:
        return _refuse(str(error))
    except OSError as error:
        _discard_output()
        what = "standard output cannot be written" if error.filename is None else error.filename
        return _refuse(f"{what} ({error.strerror or error})")
    except KeyboardInterrupt:
        return 130


def _work(arguments: Sequence[str] | None) -> int:
    try:
        options = parser().parse_args(arguments)
    except SystemExit:
        sys.stdout.flush()  # of help
        raise
    return _command(options.command)(options)


def _refuse(why: str) -> int:
    print(f"hoft: {why}", file=sys.stderr)
    return 2


def _discard_output() -> None:
    """What could not be written is not tried again when the interpreter ends, which would complain of it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    """
    What does a command's work.

    @param name: its module within C{hoft}, a point, and the function.
    """
    module, _, function = name.rpartition(".")
    command: Callable[[argparse.Namespace], int] = getattr(import_module(f"hoft.{module}"), function)
    return command


if __name__ == "__main__":
    sys.exit(main())
