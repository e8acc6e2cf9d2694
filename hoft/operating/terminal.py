"""What commands show on a terminal, once or again and again."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from hoft.operating.screen import Paint

Lines = Callable[[int, Paint], Sequence[str]]
"""What is to be shown in so many columns."""

_COLOURS = {"up": "32", "unknown": "33", "late": "33", "down": "31", "stopped": "31"}
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def show(lines: Lines) -> None:
    """Print them."""
    print(*lines(*_terminal()), sep="\n", flush=True)


def tell(line: str, stream: TextIO) -> None:
    """Print it: a line for programs; on a terminal as many as it takes, each of whole words."""
    lines = [line]
    if stream.isatty():
        width = shutil.get_terminal_size().columns
        lines = textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False) or lines
    print(*lines, sep="\n", file=stream, flush=True)


def redraw(lines: Lines) -> None:
    """In place of what stands there; below it, where nobody looks."""
    shown = list(lines(*_terminal()))
    if sys.stdout.isatty():
        rows = shutil.get_terminal_size().lines
        if len(shown) > rows - 1:
            hidden = len(shown) - (rows - 2)
            shown = [*shown[: rows - 2], f"... {hidden} lines more: make the window larger"]
        text = "".join(f"{line}{_CLEAR_LINE}\n" for line in shown)
        print(_HOME + text + _CLEAR_BELOW, end="", flush=True)
    else:
        print(*shown, "", sep="\n", flush=True)


def watch(every: float, look: Callable[[], None]) -> None:
    """Do it again and again, so many seconds apart, until C{^C}."""
    try:
        while True:
            look()
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _terminal() -> tuple[int, Paint]:
    """Columns, and colours where there is somebody to see them (https://no-color.org)."""
    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return shutil.get_terminal_size().columns, _plain if plain else _coloured


def _coloured(state: str, text: str) -> str:
    return f"\x1b[{_COLOURS.get(state, '0')}m{text}\x1b[0m"


def _plain(_: str, text: str) -> str:
    return text
