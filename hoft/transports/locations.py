"""
Where the folder carrier reads and writes: its transport URLs, and whether what they name is there.
"""

from __future__ import annotations

import os
import re
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from attrs import frozen

from hoft.errors import CarrierDown, ConfigurationError
from hoft.transports import WHERE
from hoft.transports.armour import capacity
from hoft.transports.directories import Root, check_writable
from hoft.transports.filenames import LONG, SUFFIX, FileName, LongNaming, Naming, ShortNaming

_WANTED = "folder:/path or folder:?inbox=/path&outbox=/path, with absolute paths"
_SHORTEST_POLL = 0.01
_LEAST_FILE = 128 << 10
_FEWEST_FILES = 8
_MOST_AFFIXED = 11
"""Characters that prefix and suffix of names may have, so that names have at most 120."""


@frozen
class FolderLocation:
    """
    Where a node reads and writes.

    @ivar inbox: files for us lie in C{inbox/<own uuid>/}, or flat in it.
    @ivar outbox: files for others go to C{outbox/<their uuid>/}.
    @ivar poll: seconds between two looks at an idle inbox.
    @ivar file_mode: of the packets we write; L{None} lets those read them who may
        list the folder.
    @ivar patience: seconds after which a folder that does not answer counts as down.
    @ivar naming: how files are called that are read and written.
    @ivar rename: files are written under another name first.
    @ivar armoured: what is written is text.
    @ivar max_file: bytes of the largest file that is carried.
    @ivar max_files: how many files of one sender may lie in a folder.
    """

    inbox: str
    outbox: str
    poll: float = 1.0
    file_mode: int | None = None
    patience: float = 30.0
    naming: Naming = LONG
    rename: bool = True
    armoured: bool = False
    max_file: int | None = None
    max_files: int | None = None

    @property
    def folders(self) -> str:
        """Its folders, for messages."""
        if self.inbox == self.outbox:
            return f"folder {self.inbox}"
        return f"inbox {self.inbox}, outbox {self.outbox}"

    @property
    def max_content(self) -> int | None:
        """The most bytes that a file may bring, where there is a limit."""
        if self.max_file is None or not self.armoured:
            return self.max_file
        return capacity(self.max_file)

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
        location = cls(
            inbox,
            outbox,
            poll=_seconds("poll", given, 1.0),
            file_mode=_mode(given.pop("file_mode")) if "file_mode" in given else None,
            patience=_seconds("patience", given, 30.0),
            naming=_naming(given),
            rename=_choice("rename", given, {"yes": True, "no": False}, True),
            armoured=_choice("armour", given, {"base85": True, "none": False}, False),
            max_file=_number("max_file", given, _LEAST_FILE, "bytes"),
            max_files=_number("max_files", given, _FEWEST_FILES, "files"),
        )
        for option, value in given.items():
            raise _wrong(option, value, f"one of the options {_OPTIONS}")
        return location


_OPTIONS = (
    "inbox, outbox, poll, file_mode, patience, names, prefix, suffix, rename, armour, max_file, max_files"
)


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


def _seconds(option: str, given: dict[str, str], default: float) -> float:
    text = given.pop(option, None)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST_POLL <= seconds <= 86400:  # refuses nan, too
        raise _wrong(option, text, f"seconds from {_SHORTEST_POLL} to 86400")
    return seconds


def _choice(option: str, given: dict[str, str], meanings: dict[str, bool], default: bool) -> bool:
    text = given.pop(option, None)
    if text is None:
        return default
    if text not in meanings:
        raise _wrong(option, text, " or ".join(meanings))
    return meanings[text]


def _number(option: str, given: dict[str, str], least: int, unit: str) -> int | None:
    text = given.pop(option, None)
    if text is None:
        return None
    number = int(text) if re.fullmatch("[0-9]{1,15}", text) else 0
    if number < least:
        raise _wrong(option, text, f"a number of {unit}, {least} or more")
    return number


def _naming(given: dict[str, str]) -> Naming:
    short = _choice("names", given, {"long": False, "short": True}, False)
    prefix, suffix = given.pop("prefix", ""), given.pop("suffix", None)
    if suffix is not None and not re.fullmatch("[.][a-z0-9]{1,10}", suffix):
        raise _wrong("suffix", suffix, "a dot and one to ten lower-case letters and digits, such as .txt")
    if short:
        if prefix:
            raise _wrong("prefix", prefix, "no prefix beside names=short")
        naming = ShortNaming() if suffix is None else ShortNaming(suffix)
        if len(naming.suffix) > 4 or naming.is_temporary(naming.text(FileName(None, None, 0, 0))):
            raise _wrong("suffix", naming.suffix, "one of three characters beside names=short, and not .tmp")
        return naming
    if not re.fullmatch("([a-z0-9][a-z0-9_-]*)?", prefix):
        raise _wrong("prefix", prefix, "lower-case letters, digits, - and _")
    long = LongNaming(prefix, SUFFIX if suffix is None else suffix)
    if len(long.prefix) + len(long.suffix) > _MOST_AFFIXED:
        wanted = f"with the suffix {long.suffix} at most {_MOST_AFFIXED} characters"
        raise _wrong("prefix", prefix, wanted)
    return long


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
            check_writable(folder)
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
