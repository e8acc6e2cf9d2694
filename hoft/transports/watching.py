"""
Linux tells when files appear (inotify): only a wake-up, the folder carrier's polling is the truth.

Nothing is told of what is written on the other side of a network mount, and
when too much happens at once some of it is not told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct
from typing import Any
from uuid import UUID

from twisted.internet.error import ConnectionDone
from twisted.internet.fdesc import readFromFD
from twisted.internet.inotify import (  # raises ImportError where there is no inotify
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE_SELF,
    IN_DONT_FOLLOW,
    IN_MOVED_TO,
    IN_ONLYDIR,
    INotify,
    INotifyError,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from hoft.transports.filenames import LONG, Naming
from hoft.transports.scanning import Entry

log = Logger()

_COMPLETE = IN_MOVED_TO | IN_CLOSE_WRITE

_EVENT = Struct("=iIII")
"""What stands before each name: whose it is, what happened, a cookie, the length of the name (inotify(7))."""


class _Notifier(INotify):
    """
    An L{INotify} that gives names as they come, since making a L{FilePath} of each takes longer than all
    else that is done about a file before it is read.  And it can be closed twice: it closes itself when
    what it watches is deleted.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._told: dict[int, Callable[[bytes, int], None]] = {}

    def tell(self, folder: FilePath[str], mask: int, told: Callable[[bytes, int], None]) -> None:
        """
        Watch a folder.

        @param told: called with the name, and with what happened to it.
        @raise INotifyError: it cannot be watched.
        """
        self._told[self.watch(folder, mask)] = told

    def doRead(self) -> None:
        """Something has happened."""
        readFromFD(self.fileno(), self._read)

    def _read(self, events: bytes) -> None:
        offset = 0
        while offset < len(events):
            watched, mask, _, size = _EVENT.unpack_from(events, offset)
            start, offset = offset + _EVENT.size, offset + _EVENT.size + size
            told = self._told.get(watched)
            if told is not None and size:
                told(events[start:offset].rstrip(b"\0"), mask)
            if mask & IN_DELETE_SELF:
                self.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Close the descriptor, once."""
        if not self.disconnected:
            super().connectionLost(reason)


class Watch:
    """
    Tells of files as they appear, in an inbox and our subfolder of it.

    It is made on a worker thread, where looking up the folders may block, and
    then used on the reactor thread alone.

    @param appeared: told of each packet for us and whether its writer is done
        with it.
    @param changed: told that our subfolder was made.
    @param naming: how files are called.
    @param begun: tell also of files that begin in our subfolder, for those that are there whole at
        once, by link(2), are told of in no other way.
    @raise OSError: inotify is not to be had, for instance for want of watches.
    """

    def __init__(
        self,
        reactor: Any,
        inbox: str,
        node: UUID,
        appeared: Callable[[Entry, bool], None],
        changed: Callable[[], None],
        naming: Naming = LONG,
        begun: bool = False,
    ) -> None:
        self._node = node
        self._naming = naming
        self._own = os.fsencode(naming.folder(node))
        self._mark = os.fsencode(naming.mark(node))
        self._appeared = appeared
        self._changed = changed
        try:
            self._notifier = _Notifier(reactor)
        except INotifyError as error:
            raise OSError(f"no inotify: {error}") from error
        try:
            root = FilePath(inbox)
            self._notifier.tell(root, IN_CREATE | _COMPLETE | IN_ONLYDIR, self._in_root)
            try:
                own = root.child(naming.folder(node))
                # Not of files that are begun there, as a rule: each is told again when it is whole, and
                # the next scan finds what takes its time.
                events = _COMPLETE | IN_ONLYDIR | IN_DONT_FOLLOW | (IN_CREATE if begun else 0)
                self._notifier.tell(own, events, self._in_subfolder)
            except INotifyError as error:
                # Before the first file for us it is not there; L{_in_root} will tell.
                if own.exists():
                    log.warn("New files in {own} are found by polling: {error}", own=own.path, error=error)
        except INotifyError as error:
            os.close(self._notifier.fileno())
            raise OSError(f"{inbox} cannot be watched: {error}") from error

    @property
    def alive(self) -> bool:
        """Whether it still tells; no more once what it watches was deleted."""
        return not (self._notifier.disconnected or self._notifier.disconnecting)

    def start(self) -> None:
        """Begin to tell."""
        self._notifier.startReading()

    def close(self) -> None:
        """Tell nothing more."""
        if not self._notifier.disconnected:
            self._notifier.stopReading()
            self._notifier.connectionLost(Failure(ConnectionDone()))

    def _in_root(self, name: bytes, mask: int) -> None:
        if name == self._own:
            self._changed()
        elif self._mark in name:
            self._tell(name, mask, flat=True)

    def _in_subfolder(self, name: bytes, mask: int) -> None:
        self._tell(name, mask, flat=False)

    def _tell(self, name_bytes: bytes, mask: int, flat: bool) -> None:
        text = os.fsdecode(name_bytes)
        name = None if self._naming.is_temporary(text) else self._naming.parse(text)
        if name is not None and name.recipient in (None, self._node):
            self._appeared(Entry(text, name, flat), bool(mask & _COMPLETE))
