"""What C{hoft doctor} finds."""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen


class Level(IntEnum):
    """How bad it is; also the exit code, if nothing is worse."""

    OK = 0
    WARN = 1
    """It works, but not as well as it could, or it cannot be told."""
    FAIL = 2
    """Calls do not arrive before this is mended."""


@frozen
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    """What was found."""
    then: str = ""
    """What to do about it; empty where nothing is to be done."""

    def __str__(self) -> str:
        return f"{self.level.name.lower()}: {self.what}" + (f": {self.then}" if self.then else "")


def ok(what: str) -> Finding:
    """It is as it should be."""
    return Finding(Level.OK, what)


def warn(what: str, then: str) -> Finding:
    """See L{Level.WARN}."""
    return Finding(Level.WARN, what, then)


def fail(what: str, then: str) -> Finding:
    """See L{Level.FAIL}."""
    return Finding(Level.FAIL, what, then)
