"""
Files that a crash or a power cut leaves either as they were or as they are to be.  Blocks on the disk.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

_UNFINISHED = ".unfinished"
"""What names of files end in that are being written; nobody else's do."""


def sync_folder(folder: Path) -> None:
    """
    Bring a folder's entries to disk.

    @raise OSError: that failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, text: str, mode: int = 0o600) -> None:
    """
    Put a file in the place of what is there, at once or not at all.

    @param mode: its permissions; while it is written only its owner has any.
    @raise OSError: it could not be written; what was there is as it was.
    """
    clear(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    handle = _begun(temporary)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(path.parent)


def _begun(temporary: Path) -> int:
    """The file, which is ours as long as it is open."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        handle = os.open(temporary, flags, 0o600)
        try:
            with suppress(OSError):  # not all file systems have locks; who clears finds none either
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # it was cleared away before it was locked


def clear(folder: Path) -> None:
    """
    Remove what processes left in this folder that were killed while they wrote: there may be a key in it
    that is to be had nowhere any more.  What somebody writes at this time stays, and so does what cannot go.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(".") and name.endswith(_UNFINISHED):
                with suppress(OSError):
                    _remove(folder / name)


def _remove(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where somebody writes it
            os.unlink(path)
    finally:
        os.close(handle)
