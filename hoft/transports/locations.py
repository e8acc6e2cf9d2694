"""
Where the folder carrier reads and writes: its transport URLs, and whether what they name is there.
"""

from __future__ import annotations

import errno
import os
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from attrs import frozen

from hoft.errors import CarrierDown, ConfigurationError
from hoft.transports.directories import Root
from hoft.transports.schemes import WHERE

_WANTED = "folder:/path or folder:?inbox=/path&outbox=/path, with absolute paths"
_SHORTEST_POLL = 0.01


@frozen
class FolderLocation:
    """
    Where a node reads and writes.

    @ivar inbox: files for us lie in C{inbox/<own uuid>/}, or flat in it.
    @ivar outbox: files for others go to C{outbox/<their uuid>/}.
    @ivar poll: seconds between two looks at an idle inbox.
    @ivar file_mode: of the packets we write; L{None} lets those read them who may
        list the folder.
    """

    inbox: str
    outbox: str
    poll: float = 1.0
    file_mode: int | None = None

    @property
    def folders(self) -> str:
        """Its folders, for messages."""
        if self.inbox == self.outbox:
            return f"folder {self.inbox}"
        return f"inbox {self.inbox}, outbox {self.outbox}"

    @classmethod
    def parse(cls, url: str) -> FolderLocation:
        """
        Take a C{folder:} URL apart.  What a path needs C{%}, C{?}, C{#} or C{&} for is percent-encoded.

        @raise ConfigurationError: naming the option that is wrong.
        """
        rest = url.partition(":")[2]
        if "#" in rest:
            raise _wrong("", url, "a URL without '#' (a '#' in a path is written %23)")
        path, asked, query = rest.partition("?")
        given = _options(query) if asked else {}
        if path:
            for option in ("inbox", "outbox"):
                if option in given:
                    raise _wrong(option, given[option], f"either a path or {option}=, not both")
            inbox = outbox = _path("", path)
        else:
            for option in ("inbox", "outbox"):
                if option not in given:
                    raise _wrong(option, "nothing", _WANTED)
            inbox = _path("inbox", given.pop("inbox"))
            outbox = _path("outbox", given.pop("outbox"))
        poll = _poll(given.pop("poll")) if "poll" in given else 1.0
        mode = _mode(given.pop("file_mode")) if "file_mode" in given else None
        for option, value in given.items():
            raise _wrong(option, value, "one of the options inbox, outbox, poll, file_mode")
        return cls(inbox, outbox, poll, mode)


def _wrong(option: str, given: str, wanted: str) -> ConfigurationError:
    return ConfigurationError(WHERE, option, repr(given), wanted)


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&"):
        option, equals, value = part.partition("=")
        if not equals:
            raise _wrong(option, part, "option=value")
        if option in options:
            raise _wrong(option, value, "each option once")
        options[option] = value
    return options


def _path(option: str, given: str) -> str:
    if given.startswith("//"):
        host, slash, local = given[2:].partition("/")
        if host or not slash:
            raise _wrong(option, given, "a path on this machine, as in folder:/srv/exchange")
        given = slash + local
    path = unquote_to_bytes(given)
    if not path.startswith(b"/") or b"\0" in path:
        raise _wrong(option, given, _WANTED)
    return os.path.normpath(os.fsdecode(path))


def _poll(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST_POLL <= seconds <= 86400:  # refuses nan, too
        raise _wrong("poll", given, f"seconds from {_SHORTEST_POLL} to 86400")
    return seconds


def _mode(given: str) -> int:
    try:
        mode = int(given, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777 or mode & 0o600 != 0o600 or mode & 0o111:
        raise _wrong("file_mode", given, "an octal mode from 0600 to 0666 with no execute bit")
    return mode


def check(inbox: Root, outbox: Root) -> None:
    """
    Are both folders there, and may we use them?  Blocks.

    @raise ConfigurationError: no; says which, why and what would do.
    """
    try:
        with inbox.opened(listable=True) as folder, os.scandir(folder) as entries:
            next(entries, None)
    except (CarrierDown, OSError) as error:
        _refuse(inbox, "listed", error)
    try:
        with outbox.opened() as folder:
            effective = os.access in os.supports_effective_ids
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=effective):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (CarrierDown, OSError) as error:
        _refuse(outbox, "written to", error)


def _refuse(root: Root, use: str, error: Exception) -> NoReturn:
    cause = error.__cause__ if isinstance(error, CarrierDown) else error
    why = cause.strerror if isinstance(cause, OSError) else str(error)
    raise ConfigurationError(
        WHERE,
        root.purpose,
        f"{root.path}: {why}",
        f"a directory that exists, is mounted and can be {use} by this user",
    ) from error
