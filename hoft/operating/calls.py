"""
A node's calls as plain text for a terminal; pure.

What is shown is what L{hoft.web.listing.Listing} answers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hoft.operating.screen import Paint
from hoft.operating.wording import counted, duration, printable, size

ID = 8
"""The digits of an id that a table shows: C{hoft requests DIR ID} finds a call by them."""

LEAST = 24
"""Columns that a call has, however narrow the terminal is."""

_DISPENSABLE = ("RESPONSE", "REQUEST", "CALLER", "SIDE", "PEER")
"""What is left out, in this order, where there is no room."""

Call = Mapping[str, Any]
_Column = tuple[str, Callable[[Call], str]]

_LAST: tuple[_Column, ...] = (
    ("REQUEST", lambda call: _size(call["request_bytes"])),
    ("RESPONSE", lambda call: _size(call["response_bytes"])),
    ("ID", lambda call: call["id"][:ID]),
)
_COMMON: tuple[_Column, ...] = (
    ("SIDE", lambda call: call["side"]),
    ("PEER", lambda call: _or_dash(call["peer"])),
    ("CALLER", lambda call: _or_dash(call["caller"])),
)


def lines(name: str, answer: Mapping[str, Any], width: int, paint: Paint) -> list[str]:
    """
    All that is under way, with what each call waits for, and what has ended lately.

    @param name: of the node.
    """
    under_way, ended, left = answer["under_way"], answer["ended"], answer["left_off"]
    count = len(under_way) + left["under_way"]
    shown = [f"{name}  {counted(count, 'call')} under way, {len(ended) + left['ended']} ended lately"]
    if under_way:
        columns = (
            ("AGE", lambda call: duration(call["age"])),
            ("STAGE", lambda call: call["stage"]),
            *_COMMON, *_LAST,
        )  # fmt: skip
        heading, *rows = _table(columns, under_way, width)
        shown += ["", heading]
        for call, row in zip(under_way, rows, strict=True):
            state = "late" if call["left"] is not None and call["left"] < call["age"] else "up"
            shown.append(paint(state, row))
            shown += _wrapped(printable(call["why"]), width)
        shown += _more(left["under_way"])
    if ended:
        columns = (
            ("ENDED", lambda call: f"{duration(max(0.0, answer['now'] - call['ended']))} ago"),
            ("STATUS", lambda call: _or_dash(call["status"])),
            ("TOOK", lambda call: duration(call["seconds"])),
            *_COMMON, *_LAST,
        )  # fmt: skip
        heading, *rows = _table(columns, ended, width)
        shown += ["", heading]
        for call, row in zip(ended, rows, strict=True):
            shown.append(paint("up" if _well(call) else "down", row))
            if call["outcome"] not in ("answered", "done"):
                problem = f": {printable(call['problem'])}" if call["problem"] else ""
                shown += _wrapped(_OUTCOMES.get(call["outcome"], call["outcome"]) + problem, width)
        shown += _more(left["ended"])
    return shown


_OUTCOMES = {
    "problems": "answered with a problem",
    "refused": "refused before it had begun",
    "cut": "broken off in the midst of the response",
    "callers_gone": "its caller left",
    "cancelled": "cancelled",
    "failed": "a problem is kept in place of a response",
}


def _well(call: Call) -> bool:
    return call["status"] is not None and call["status"] < 500 and call["outcome"] != "cut"


def details(answer: Mapping[str, Any], width: int, paint: Paint) -> list[str]:
    """Everything there is to tell of each call."""
    shown: list[str] = []
    for call in [*answer["under_way"], *answer["ended"]]:
        shown += [*([""] if shown else []), f"{call['id']}  {_what(call)}"]
        for key, text in _facts(call, answer["now"]):
            shown += textwrap.wrap(
                f"  {key:<10}{printable(text)}", width, subsequent_indent=" " * 12, break_on_hyphens=False
            )
    return shown


def _facts(call: Call, now: float) -> Iterator[tuple[str, str]]:
    yield "side", _SIDES[call["side"]].format(peer=_or_dash(call["peer"]))
    for key in ("caller", "route", "trace"):
        if call.get(key) is not None:
            yield key, call[key]
    if call["stage"] == "ended":
        yield "ended", f"{_clock(call['ended'])}, {duration(max(0.0, now - call['ended']))} ago"
        yield "outcome", _OUTCOMES.get(call["outcome"]) or call["outcome"]
        yield "took", duration(call["seconds"])
        if call["executing"] is not None:
            yield "executing", f"{duration(call['executing'])} of that, at the far node"
    else:
        yield "stage", f"{call['stage']}: {call['why']}"
        yield "age", duration(call["age"])
        if call["left"] is not None:
            yield "deadline", f"in {duration(call['left'])}" if call["left"] > 0 else "is over"
        for stage, at in call["stages"].items():
            yield stage, f"{_clock(at)}, {duration(max(0.0, now - at))} ago"
        if call["kept"]:
            yield "kept", "goes on without its caller, and its result is kept"
    for key in ("status", "problem"):
        if call.get(key) is not None:
            yield key, str(call[key])
    yield "request", f"{call['request_bytes']} bytes"
    yield "response", f"{call['response_bytes']} bytes"


_SIDES = {
    "ingress": "ingress: it was made here, for a service behind {peer}",
    "egress": "egress: {peer} has sent it, for a service here",
}


def _what(call: Call) -> str:
    if call["method"] is None:
        return "(its head has not come)"
    return printable(f"{call['method']} {call['url']}")


def _table(columns: Sequence[_Column], calls: Sequence[Call], width: int) -> list[str]:
    """A heading and a row for each call, which has what is left of the width."""
    cells = {heading: [heading, *(printable(cell(call)) for call in calls)] for heading, cell in columns}
    whats = ["CALL", *map(_what, calls)]
    longest = max(map(len, whats))
    for heading in _DISPENSABLE:
        if _room(cells, width) >= min(longest, LEAST):
            break
        del cells[heading]
    room = min(max(LEAST, _room(cells, width)), longest)
    shown = []
    for *row, what in zip(*cells.values(), whats, strict=True):
        padded = [
            f"{cell:<{max(map(len, column))}}" for cell, column in zip(row, cells.values(), strict=True)
        ]
        padded.insert(-sum(heading in cells for heading, _ in _LAST), f"{_cut(what, room):<{room}}")
        shown.append("  ".join(padded).rstrip())
    return shown


def _room(cells: Mapping[str, Sequence[str]], width: int) -> int:
    """What these columns leave of the width."""
    return width - sum(2 + max(map(len, column)) for column in cells.values())


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 3] + "..."


def _more(count: int) -> list[str]:
    return [f"... and {count} more: --limit, or --peer, --route, --caller, --stage"] if count else []


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def _size(count: int) -> str:
    return size(count) if count else "-"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
