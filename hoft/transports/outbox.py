"""
The folder into which a node's files go: what is there of them, what works and what does not.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from itertools import count
from threading import Lock
from uuid import UUID

from attrs import frozen
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from zope.interface import implementer

from hoft.errors import CarrierDown, CarrierError, CarrierFull
from hoft.transports.directories import Root, check_writable, packet_mode, subfolder, unlink
from hoft.transports.filenames import FileName
from hoft.transports.locations import FolderLocation
from hoft.transports.tally import Tally

log = Logger()

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""There is no room, or not for so much."""

PROBE = 65536
"""Bytes that must find room before a full folder counts as usable again."""

_MOST_STUMPS = 1000
"""Temporary files for one recipient that could not be deleted and are remembered."""


def of_one_subfolder(error: BaseException | None) -> bool:
    """Whether others may well be written to in spite of this."""
    wrong = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.EEXIST)
    return isinstance(error, OSError) and error.errno in wrong


@implementer(IAddress)
@frozen
class FolderAddress:
    """Where the files of one node lie."""

    folder: str
    node: UUID


class Outbox:
    """
    The folder into which a node's files go, for all recipients.

    Methods block, but for those that only remember or tell; they may be called on several threads.

    @param clock: monotonic seconds.
    @param reported: told, on the thread that noticed, why nothing can be written;
        L{None} once something can.
    @param published: told, on the thread that wrote it, that a file is there to be read.
    """

    def __init__(
        self,
        location: FolderLocation,
        node: UUID,
        boot: int,
        tally: Tally,
        clock: Callable[[], float],
        reported: Callable[[str | None], None],
        published: Callable[[], None],
    ) -> None:
        self.root = Root(location.outbox, "outbox")
        self.location = location
        self.node = node
        self.tally = tally
        self._clock = clock
        self.published = published
        self._boot = boot
        self._naming = location.naming
        self._reported = reported
        self._numbers = count(1)
        self._lock = Lock()
        self._recipients: set[UUID] = set()
        self._failing: set[UUID] = set()
        self._stumps: dict[UUID, list[str]] = {}
        self._broken = False
        self._down = False
        self._asked: dict[object, float] = {}
        """When, by those who wait for the folder to answer."""

    def asked(self, writer: object) -> None:
        """From now on the writer waits for the folder."""
        with self._lock:
            self._asked[writer] = self._clock()

    def answered(self, writer: object) -> None:
        """The folder has answered it."""
        with self._lock:
            del self._asked[writer]

    def blocked(self) -> float:
        """Seconds for which the folder has not answered a writer."""
        with self._lock:
            since = min(self._asked.values(), default=None)
        return 0.0 if since is None else self._clock() - since

    def serve(self, recipient: UUID) -> None:
        """There will be files for C{recipient}."""
        with self._lock:
            self._recipients.add(recipient)

    def name_for(self, recipient: UUID) -> str:
        """A name that was never used."""
        with self._lock:
            number = next(self._numbers)
        return self._naming.text(FileName(self.node, recipient, self._boot, number))

    def folder_for(self, recipient: UUID) -> str:
        """The name of C{recipient}'s subfolder."""
        return self._naming.folder(recipient)

    def remove(self, recipient: UUID, names: Iterable[str]) -> None:
        """Delete files of ours that still lie in C{recipient}'s subfolder."""
        try:
            with self.root.opened() as root, subfolder(root, self.folder_for(recipient)) as folder:
                for name in names:
                    parsed = self._naming.parse(name)
                    if parsed is None or parsed.sender not in (None, self.node):
                        continue
                    if unlink(folder, name):
                        self.tally.add("files_removed")
        except (OSError, CarrierError):
            # They stay, if they are there at all; the recipient knows them as duplicates.  What keeps
            # us from them keeps us from writing, which is reported.
            return

    def sweep(self, recipient: UUID, published: bool) -> None:
        """
        Delete what our earlier processes were writing when they died.

        @param published: and what they wrote.
        """
        naming = self._naming
        try:
            with (
                self.root.opened() as root,
                subfolder(root, self.folder_for(recipient), listable=True) as folder,
            ):
                for text in os.listdir(folder):
                    name = naming.published(text) or (naming.parse(text) if published else None)
                    if name is None or name.sender != self.node or name.boot == self._boot:
                        continue
                    if unlink(folder, text):
                        self.tally.add("files_removed")
        except (OSError, CarrierError):
            # Without a subfolder there is nothing to sweep, and who may only write there cannot look.
            return

    def left_behind(self, recipient: UUID, hidden: str) -> None:
        """A temporary file could not be deleted: that is tried again once something works."""
        with self._lock:
            stumps = self._stumps.setdefault(recipient, [])
            if len(stumps) < _MOST_STUMPS:
                stumps.append(hidden)

    def failing(self) -> tuple[UUID, ...]:
        """The recipients for whom the last file could not be written."""
        with self._lock:
            return tuple(self._failing)

    def check(self, recipient: UUID) -> None:
        """
        Could a file be made for C{recipient}, as far as that can be told without making one?

        @raise CarrierError: no.
        """
        try:
            with self.root.opened() as root:
                try:
                    with subfolder(root, self.folder_for(recipient)) as folder:
                        check_writable(folder)
                except FileNotFoundError:
                    check_writable(root)
        except (OSError, CarrierDown) as error:
            raise self.fails(recipient, error) from error

    def works(self, recipient: UUID) -> None:
        """Something was published."""
        with self._lock:
            self._failing.discard(recipient)
            self._broken = False
            was_down, self._down = self._down, False
            stumps = self._stumps.pop(recipient, ())
        if was_down:
            self._reported(None)
        if stumps:
            self._clear(recipient, stumps)

    def _clear(self, recipient: UUID, stumps: Iterable[str]) -> None:
        try:
            with self.root.opened() as root, subfolder(root, self.folder_for(recipient)) as folder:
                stumps = [hidden for hidden in stumps if not unlink(folder, hidden)]
        except FileNotFoundError:
            return
        except (OSError, CarrierError):
            log.debug("not cleared away yet: {stumps}", stumps=stumps)
        for hidden in stumps:
            self.left_behind(recipient, hidden)

    def fails(self, recipient: UUID, error: OSError | CarrierError, written: int = 0) -> CarrierError:
        """
        Something could not be written; returns what to raise.

        @param written: bytes of it that were.
        """
        failure: CarrierError
        if isinstance(error, OSError):
            where = self.root.path
            if of_one_subfolder(error):
                where = os.path.join(where, self.folder_for(recipient))
            told = f"{self.root.purpose} {where}: {error.strerror or error}"
            full = error.errno in FULL
            failure = CarrierFull(told, written) if full else CarrierError(told)
        else:
            failure = error
        self.tally.note("write_errors", str(failure))
        if isinstance(failure, CarrierFull) and written >= PROBE:
            return failure  # for shorter ones there is room
        with self._lock:
            self._failing.add(recipient)
            # What somebody put in the place of one recipient's subfolder must not stop the others.
            self._broken |= not of_one_subfolder(error)
            was_down = self._down
            self._down = self._broken or self._failing >= self._recipients
            is_down = self._down
        if is_down and not was_down:
            self._reported(str(failure))
        return failure  # which tells who writes for this recipient, where the others do not fail

    def mode_in(self, folder: int) -> int:
        """The mode for a packet in this subfolder."""
        mode = self.location.file_mode
        return packet_mode(folder) if mode is None else mode
