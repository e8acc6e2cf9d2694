"""
C{hoft status}: what a node does, and what waits in its journal if it does not run.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from argparse import Namespace
from typing import Any
from uuid import UUID

from hoft.errors import JournalError, NodeNotRunning, NodeSilent
from hoft.local_socket import ask
from hoft.operating import screen, terminal
from hoft.operating.diagnosis import troubles
from hoft.operating.places import Place

WELL, UNWELL, NOT_RUNNING = 0, 1, 2
"""Exit codes."""


def status(options: Namespace) -> int:
    """C{hoft status}."""
    place = Place.of(options.folder)
    if options.watch is None:
        look = look_at(place)
        if options.json:
            print(json.dumps(look.as_json(), indent=1), flush=True)
        else:
            terminal.show(look.lines)
        for problem in look.problems:
            terminal.tell(f"hoft: {problem}", sys.stderr)
        return look.code
    code = WELL

    def again() -> None:
        nonlocal code
        look = look_at(place)
        code = look.code
        if options.json:
            print(json.dumps(look.as_json()), flush=True)
        else:
            terminal.redraw(look.lines_with_problems)

    terminal.watch(options.watch, again)
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
            mistakes = [] if place.mistake is None else [f"{place.mistake}: 'hoft reload' takes nothing up"]
            self.problems = [*mistakes, *map(str, troubles(node))]
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

    def lines_with_problems(self, width: int, paint: screen.Paint) -> list[str]:
        """The same, with the problems where they are seen first."""
        head, *rest = self.lines(width, paint)
        told = [textwrap.wrap(one, width, subsequent_indent="    ") for one in self.problems]
        return [head, *(paint("down", line) for lines in told for line in lines), *rest]


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
