"""
How the values of arguments are read: each reader is a C{type} or an C{action} of L{argparse}, whose complaint
becomes the one line that is said.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


class Once(argparse.Action):
    """Stores a value that is not said twice."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "given twice")
        setattr(namespace, self.dest, values)


def number(most: float, what: str) -> Callable[[str], float]:
    """What reads an option that is a number from 0 to C{most}."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}; wanted: {what} from 0 to {most:g}")
        return value

    return read


def whole(most: int) -> Callable[[str], int]:
    """What reads an option that is a whole number from 0 to C{most}."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or int(text) > most:
            raise argparse.ArgumentTypeError(f"{text!r}; wanted: a whole number from 0 to {most}")
        return int(text)

    return read


def path(text: str) -> Path:
    """What reads a path: to L{Path} nothing is the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("''; wanted: a path, such as . for the working folder")
    return Path(text)
