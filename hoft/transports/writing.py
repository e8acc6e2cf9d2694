"""
The folder carrier's outbox: files are written under a hidden name, then renamed.

Packets are not flushed to the disk: what a power cut takes is retransmitted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from threading import Lock
from uuid import UUID

from attrs import frozen
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import CarrierDown, CarrierError, WorkerStopped
from hoft.interfaces import MAX_PIECE, IFileTransport, IFileWriter, IWorker
from hoft.transports.directories import (
    Root,
    close,
    create_regular,
    make_subfolder,
    open_subfolder,
    packet_mode,
    publish,
    subfolder,
    unlink,
)
from hoft.transports.filenames import FileName, published
from hoft.transports.tally import Tally

log = Logger()

MAX_WAITING = 1000
"""Small files that may wait for a folder that hangs; further ones count as lost."""

_ONE_RECIPIENT = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.EEXIST)
"""Errors that may be of one subfolder alone."""

_PROBE = 65536
"""Bytes that must find room before a full folder counts as usable again."""


@implementer(IAddress)
@frozen
class FolderAddress:
    """Where the files of one node lie."""

    folder: str
    node: UUID


class Outbox:
    """
    The folder into which a node's files go, for all recipients.

    All methods but L{name_for} block; they may be called on several threads.

    @param mode: of packets; L{None} follows the folder's own.
    @param reported: told, on the thread that noticed, what fails for which
        recipient; L{None} as the reason once something works again.
    """

    def __init__(
        self,
        root: Root,
        node: UUID,
        boot: int,
        mode: int | None,
        tally: Tally,
        reported: Callable[[UUID, str | None], None],
    ) -> None:
        self.root = root
        self.node = node
        self.tally = tally
        self._boot = boot
        self._mode = mode
        self._reported = reported
        self._numbers = count(1)
        self._lock = Lock()
        self._recipients: set[UUID] = set()
        self._failing: set[UUID] = set()
        self._stumps: dict[UUID, list[str]] = {}
        self._broken = False
        self._down = False

    def serve(self, recipient: UUID) -> None:
        """There will be files for C{recipient}."""
        with self._lock:
            self._recipients.add(recipient)

    def name_for(self, recipient: UUID) -> str:
        """A name that was never used."""
        with self._lock:
            number = next(self._numbers)
        return str(FileName(self.node, recipient, self._boot, number))

    def write_file(self, recipient: UUID, data: bytes) -> None:
        """Publish one whole file; failures are reported and counted, not raised."""
        writer = FolderWriter(self, recipient)
        try:
            writer.begin()
            writer.write(data)
            writer.finish()
        except CarrierError:
            writer.abandon()

    def probe(self, recipient: UUID) -> None:
        """
        Try whether a file could be written now, and report if so.

        @raise CarrierError: it could not.
        """
        writer = FolderWriter(self, recipient)
        try:
            writer.begin()
            writer.write(bytes(_PROBE))
        finally:
            writer.abandon()
        self.works(recipient)

    def remove(self, recipient: UUID, names: Iterable[str]) -> None:
        """Delete files of ours that still lie in C{recipient}'s subfolder."""
        try:
            with self.root.opened() as root, subfolder(root, str(recipient)) as folder:
                for name in names:
                    parsed = FileName.parse(name)
                    if parsed is not None and parsed.sender == self.node and unlink(folder, name):
                        self.tally.add("files_removed")
        except (OSError, CarrierError):
            # They stay, if they are there at all; the recipient knows them as duplicates.  What keeps
            # us from them keeps us from writing, which is reported.
            return

    def sweep(self, recipient: UUID) -> None:
        """Delete what our earlier processes were writing when they died."""
        try:
            with self.root.opened() as root, subfolder(root, str(recipient), listable=True) as folder:
                for name in os.listdir(folder):
                    left = published(name)
                    if left is not None and left.sender == self.node and left.boot != self._boot:
                        unlink(folder, name)
        except (OSError, CarrierError):
            # Without a subfolder there is nothing to sweep, and who may only write there cannot look.
            return

    def left_behind(self, recipient: UUID, hidden: str) -> None:
        """A temporary file could not be deleted: that is tried again once something works."""
        with self._lock:
            stumps = self._stumps.setdefault(recipient, [])
            if len(stumps) < MAX_WAITING:
                stumps.append(hidden)

    def works(self, recipient: UUID) -> None:
        """Something was published."""
        with self._lock:
            self._failing.discard(recipient)
            self._broken = False
            was_down, self._down = self._down, False
            stumps = self._stumps.pop(recipient, ())
        if was_down:
            self._reported(recipient, None)
        if stumps:
            self._clear(recipient, stumps)

    def _clear(self, recipient: UUID, stumps: Iterable[str]) -> None:
        try:
            with self.root.opened() as root, subfolder(root, str(recipient)) as folder:
                stumps = [hidden for hidden in stumps if not unlink(folder, hidden)]
        except FileNotFoundError:
            return
        except (OSError, CarrierError):
            log.debug("not cleared away yet: {stumps}", stumps=stumps)
        for hidden in stumps:
            self.left_behind(recipient, hidden)

    def fails(self, recipient: UUID, error: OSError | CarrierError) -> CarrierError:
        """Something could not be written; returns what to raise."""
        self.tally.add("write_errors")
        if isinstance(error, OSError):
            where = f"{self.root.purpose} {self.root.path}"
            failure = CarrierError(f"{where}: {error.strerror or error}")
        else:
            failure = error
        with self._lock:
            self._failing.add(recipient)
            # What somebody put in the place of one recipient's subfolder must not stop the others.
            self._broken |= not isinstance(error, OSError) or error.errno not in _ONE_RECIPIENT
            was_down = self._down
            self._down = self._broken or self._failing >= self._recipients
            is_down = self._down
        if is_down and not was_down:
            self._reported(recipient, str(failure))
        elif not is_down:
            log.warn("cannot write for {recipient}: {failure}", recipient=recipient, failure=failure)
        return failure

    def mode_in(self, folder: int) -> int:
        """The mode for a packet in this subfolder."""
        return packet_mode(folder) if self._mode is None else self._mode


@implementer(IFileWriter)
class FolderWriter:
    """
    One file under way; see L{IFileWriter}.  L{begin} comes first.

    @ivar name: see L{IFileWriter}.
    """

    def __init__(self, outbox: Outbox, recipient: UUID) -> None:
        self.name = outbox.name_for(recipient)
        self._outbox = outbox
        self._recipient = recipient
        self._hidden = "." + self.name
        self._file = -1
        self._folder = -1
        self._size = 0

    def begin(self) -> None:
        """
        Make the file under its hidden name.

        @raise CarrierError: it could not be made; then call L{abandon}.
        """
        outbox, name = self._outbox, str(self._recipient)
        try:
            with outbox.root.opened() as root:
                try:
                    self._begin_in(root, name)
                except FileNotFoundError:
                    self._close()
                    make_subfolder(root, name)
                    self._begin_in(root, name)
        except (OSError, CarrierDown) as error:
            raise outbox.fails(self._recipient, error) from error

    def _begin_in(self, root: int, name: str) -> None:
        self._folder = open_subfolder(root, name)
        self._file = create_regular(self._folder, self._hidden, self._outbox.mode_in(self._folder))

    def write(self, piece: bytes) -> None:
        """See L{IFileWriter.write}."""
        if len(piece) > MAX_PIECE:
            raise ValueError(f"a piece of {len(piece)} bytes: at most {MAX_PIECE}")
        if self._file < 0:
            raise CarrierError(f"{self.name} is not being written any more")
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise self._outbox.fails(self._recipient, error) from error
        self._size += len(piece)

    def finish(self) -> None:
        """See L{IFileWriter.finish}."""
        if self._file < 0:
            raise CarrierError(f"{self.name} is not being written any more")
        file, self._file = self._file, -1
        try:
            os.close(file)  # where some file systems first tell that there was no space
            publish(self._folder, self._hidden, self.name)
        except OSError as error:
            raise self._outbox.fails(self._recipient, error) from error
        self._close()
        self._outbox.tally.add("files_written")
        self._outbox.tally.add("bytes_written", self._size)
        self._outbox.works(self._recipient)

    def abandon(self) -> None:
        """See L{IFileWriter.abandon}.  What is published already stays."""
        if self._folder >= 0 and not unlink(self._folder, self._hidden):
            self._outbox.left_behind(self._recipient, self._hidden)
        self._close()

    def _close(self) -> None:
        for descriptor in (self._file, self._folder):
            if descriptor >= 0:
                close(descriptor)
        self._file = self._folder = -1


@implementer(IFileTransport)
class FolderTransport:
    """
    Files to one recipient; see L{IFileTransport}.

    @ivar recipient: see L{IFileTransport}.
    @ivar disconnecting: L{loseConnection} was called.
    """

    def __init__(
        self,
        outbox: Outbox,
        recipient: UUID,
        worker: IWorker,
        sent: Callable[[], None],
    ) -> None:
        self.recipient = recipient
        self.disconnecting = False
        self._outbox = outbox
        self._worker = worker
        self._sent = sent
        self._waiting = 0
        outbox.serve(recipient)
        self._do(outbox.sweep, recipient)

    def write(self, data: bytes) -> None:
        """Publish one file; see L{IFileTransport}."""
        if len(data) > MAX_PIECE:
            raise ValueError(f"{len(data)} bytes: at most {MAX_PIECE}, use create() for larger files")
        if self.disconnecting:
            return
        if self._waiting >= MAX_WAITING:
            self._outbox.tally.add("write_errors")
            return
        self._do(self._outbox.write_file, self.recipient, data)
        self._sent()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Publish all these pieces as one file; see L{IFileTransport}."""
        self.write(b"".join(data))

    def create(self) -> FolderWriter:
        """See L{IFileTransport.create}; blocks, for any thread."""
        if self.disconnecting:
            raise CarrierError("this transport was closed")
        writer = FolderWriter(self._outbox, self.recipient)
        try:
            writer.begin()
        except CarrierError:
            writer.abandon()
            raise
        return writer

    def remove(self, names: Sequence[str]) -> None:
        """See L{IFileTransport.remove}."""
        self._do(self._outbox.remove, self.recipient, tuple(names))

    def loseConnection(self) -> None:
        """Take nothing more; what was given is still published."""
        self.disconnecting = True

    def getHost(self) -> FolderAddress:
        """Where files for us would be written by a node with the same folders."""
        return FolderAddress(self._outbox.root.path, self._outbox.node)

    def getPeer(self) -> FolderAddress:
        """Where our files for the recipient go."""
        return FolderAddress(self._outbox.root.path, self.recipient)

    def _do(self, function: Callable[..., None], *arguments: object) -> None:
        self._waiting += 1
        self._worker.call(function, *arguments).addErrback(self._failed).addCallback(self._done)

    def _failed(self, failure: Failure) -> None:
        if failure.check(WorkerStopped) is None:
            log.failure("writing for {recipient}", failure, recipient=self.recipient)

    def _done(self, _: None) -> None:
        self._waiting -= 1
