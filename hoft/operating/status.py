"""
C{hoft status}: what a node does, and what waits in its journal if it does not run.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from argparse import Namespace
from typing import Any
from uuid import UUID

from hoft.errors import JournalError, NodeNotRunning, NodeSilent
from hoft.local_socket import ask
from hoft.operating import screen
from hoft.operating.places import Place

WELL, UNWELL, NOT_RUNNING = 0, 1, 2
"""Exit codes."""

_COLOURS = {"up": "32", "unknown": "33", "late": "33", "down": "31", "stopped": "31"}
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def status(options: Namespace) -> int:
    """C{hoft status}."""
    place = Place.of(options.folder)
    if options.watch is None:
        look = look_at(place)
        lines = [json.dumps(look.as_json(), indent=1)] if options.json else look.lines(*_terminal())
        print(*lines, sep="\n", flush=True)
        for problem in look.problems:
            print(f"hoft: {problem}", file=sys.stderr)
        return look.code
    code = WELL
    try:
        while True:
            look = look_at(place)
            code = look.code
            if options.json:
                print(json.dumps(look.as_json()), flush=True)
            else:
                _redraw(look)
            time.sleep(options.watch)
    except KeyboardInterrupt:
        return code


class Look:
    """
    What there was to be seen.

    @ivar code: the exit code that says it in short.
    @ivar problems: what is not as it should be, a line each.
    """

    def __init__(self, place: Place, node: dict[str, Any] | None, journal: dict[str, Any], why: str) -> None:
        self._name = place.config.name if place.config is not None else str(place.state)
        self._node = node
        self._journal = journal
        if node is not None:
            self.problems = screen.problems(node)
            self.code = UNWELL if self.problems else WELL
        else:
            self.problems = [why]
            self.code = NOT_RUNNING if journal else UNWELL

    def as_json(self) -> dict[str, Any]:
        """See C{docs/reference-command-line.rst}."""
        if self._node is not None:
            return {"running": True, "problems": self.problems, "node": self._node}
        return {"running": not self._journal, "problems": self.problems, "journal": self._journal or None}

    def lines(self, width: int, paint: screen.Paint) -> list[str]:
        """For people."""
        if self._node is not None:
            return screen.running(self._node, width, paint)
        if self._journal:
            return screen.stopped(self._name, self._journal)
        return [f"{self._name}  does not answer"]


def look_at(place: Place) -> Look:
    """Ask the node; if none runs, read its journal.  Blocks."""
    try:
        return Look(place, ask(place.state, "status"), {}, "")
    except NodeSilent as error:
        return Look(place, None, {}, str(error))
    except NodeNotRunning as error:
        return Look(place, None, _journal(place), str(error))


def _journal(place: Place) -> dict[str, Any]:
    # Imported here: a node that runs can be asked without all that a journal needs.
    from hoft.protocols.inspection import holdings
    from hoft.protocols.statefolder import footprint

    try:
        disk = footprint(place.state)
    except OSError as error:
        raise JournalError(f"{place.state}: cannot be looked at ({error.strerror})") from error
    held = holdings(place.state)
    names = place.names()
    return {
        "bytes": disk.size,
        "free": disk.free,
        "written_ago": round(time.time() - held.written, 3),
        "peers": {
            names.get(peer, f"{UUID(bytes=peer)} (not trusted now)"): {
                "records": one.records,
                "bytes": one.payload,
                "received": one.received,
            }
            for peer, one in held.peers.items()
        },
    }


def _terminal() -> tuple[int, screen.Paint]:
    """Columns, and colours where there is somebody to see them (https://no-color.org)."""
    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return shutil.get_terminal_size().columns, _plain if plain else _coloured


def _coloured(state: str, text: str) -> str:
    return f"\x1b[{_COLOURS.get(state, '0')}m{text}\x1b[0m"


def _plain(_: str, text: str) -> str:
    return text


def _redraw(look: Look) -> None:
    width, paint = _terminal()
    head, *rest = look.lines(width, paint)
    lines = [head, *(paint("down", problem) for problem in look.problems), *rest]
    if sys.stdout.isatty():
        rows = shutil.get_terminal_size().lines
        if len(lines) > rows - 1:
            hidden = len(lines) - (rows - 2)
            lines = [*lines[: rows - 2], f"... {hidden} lines more: make the window larger"]
        print(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW, end="", flush=True)
    else:
        print(*lines, "", sep="\n", flush=True)
