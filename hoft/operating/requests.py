"""
C{hoft requests}: the calls of a node that runs, and what they wait for.
"""

from __future__ import annotations

import json
import re
from argparse import Namespace
from functools import partial
from typing import Any

from hoft.errors import LocalError
from hoft.local_socket import ask
from hoft.operating import calls, terminal
from hoft.operating.places import Place

LIMIT = 20
"""Calls under way, and as many that have ended, that people are shown."""


def requests(options: Namespace) -> int:
    """C{hoft requests}."""
    place = Place.of(options.folder)
    if options.id is not None and not re.fullmatch("[0-9A-Fa-f]{1,32}", options.id):
        raise LocalError(f"{options.id!r} is no id: wanted hexadecimal digits, as Hoft-Request-Id has them")
    if options.watch is None:
        _show(options, place, terminal.show)
    else:
        terminal.watch(options.watch, partial(_show, options, place, terminal.redraw))
    return 0


def _show(options: Namespace, place: Place, show: Any) -> None:
    answer = _asked(options, place)
    if options.json:
        print(json.dumps(answer, indent=1 if options.watch is None else None), flush=True)
    elif options.id is not None:
        show(partial(calls.details, answer))
    else:
        name = place.config.name if place.config is not None else str(place.state)
        show(partial(calls.lines, name, answer))


def _asked(options: Namespace, place: Place) -> dict[str, Any]:
    question = {key: getattr(options, key) for key in ("id", "side", "peer", "route", "caller", "stage")}
    limit = options.limit
    if limit is None and not options.json:
        limit = LIMIT
    if limit is not None:
        question["limit"] = limit
    given = {key: value for key, value in question.items() if value is not None}
    answer: dict[str, Any] = ask(place.state, "requests", **given)
    if options.id is not None and not (answer["under_way"] or answer["ended"]):
        raise LocalError(
            f"no call whose id begins with {options.id} is under way here, or among the last that ended;"
            " the node's log may know of it"
        )
    return answer
