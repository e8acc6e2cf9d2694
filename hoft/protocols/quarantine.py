"""
What is kept of files that were refused, for a person to look at.

It lies in the node's own state folder: the inbox may be shared, or read-only.  Of
each file its first L{HEAD} bytes are kept; whatever a file is refused for is told
by less.  Those who fill the folder with forgeries get neither the disk nor its
time: there are bounds on number, bytes and rate.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import WorkerStopped
from hoft.interfaces import IWorker

HEAD = 1 << 20
"""Bytes of a file that are kept."""

MOST_FILES = 1000

_AT_ONCE = 100
_A_SECOND = 1.0
"""How many files may be kept in a row, and how quickly that number grows again."""


class Quarantine:
    """
    The folder of what was refused.  Its files are called
    C{<time>-<reason>-<the name that the file had>}.

    @ivar most: bytes of all files together; 0 keeps none.  May be changed.
    @param folder: made when there is something to keep.
    @param worker: where files are written.
    @param clock: monotonic seconds.
    @param wall_clock: seconds since 1970, for names.
    """

    _log = Logger()

    def __init__(
        self,
        folder: Path,
        most: int,
        worker: IWorker,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._folder = folder
        self.most = most
        self._worker = worker
        self._clock = clock
        self._wall_clock = wall_clock
        self._tokens = float(_AT_ONCE)
        self._filled_at = clock()
        self._sizes: dict[str, int] | None = None

    def keep(self, name: str, reason: str, head: bytes) -> None:
        """
        A file was refused.  On the reactor thread; does not wait.

        @param head: what it begins with.
        """
        now = self._clock()
        self._tokens = min(_AT_ONCE, self._tokens + (now - self._filled_at) * _A_SECOND)
        self._filled_at = now
        if self._tokens < 1 or not self.most:
            return
        self._tokens -= 1
        when = datetime.fromtimestamp(self._wall_clock(), UTC).strftime("%Y%m%dT%H%M%S.%f")
        # A name comes from whoever wrote the file.
        safe = re.sub("[^A-Za-z0-9._-]", "_", name)[:150]
        text = f"{when}-{reason}-{safe}"
        self._worker.call(self._store, text, head[: min(HEAD, self.most)]).addErrback(self._failed, name)

    def _failed(self, failure: Failure, name: str) -> None:
        if not failure.check(WorkerStopped):
            self._log.warn("{name} was not kept: {why}", name=name, why=failure.getErrorMessage())

    def _store(self, text: str, head: bytes) -> None:
        """On the worker's thread."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._sizes is None:
            with os.scandir(self._folder) as entries:
                found = sorted((entry.name, entry.stat(follow_symlinks=False).st_size) for entry in entries)
            self._sizes = dict(found)
        self._make_room(len(head))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._folder / text, flags, 0o600), "wb") as file:
            self._sizes[text] = len(head)
            file.write(head)

    def _make_room(self, size: int) -> None:
        """Delete the oldest until C{size} more bytes have their place."""
        assert self._sizes is not None
        while self._sizes and (
            len(self._sizes) >= MOST_FILES or sum(self._sizes.values()) + size > self.most
        ):
            oldest = next(iter(self._sizes))
            (self._folder / oldest).unlink(missing_ok=True)
            del self._sizes[oldest]
