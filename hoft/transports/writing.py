"""
Writing into the folder carrier's outbox: under a temporary name, which is then changed.

Packets are not flushed to the disk: what a power cut takes is retransmitted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import CarrierDown, CarrierError, WorkerStopped
from hoft.interfaces import MAX_PIECE, IFileTransport, IFileWriter, IWorker
from hoft.transports.armour import Armour
from hoft.transports.directories import (
    close,
    create_regular,
    make_subfolder,
    open_subfolder,
    publish,
    unlink,
)
from hoft.transports.outbox import PROBE, FolderAddress, Outbox, of_one_subfolder

log = Logger()

P = ParamSpec("P")
T = TypeVar("T")

NAMES = 100
"""So many names are tried where something that is not ours has the first one."""

MAX_WAITING = 1000
"""Small files that may wait for a folder that hangs; further ones count as lost."""


def write_file(outbox: Outbox, recipient: UUID, data: bytes) -> None:
    """Publish one whole file; failures are reported and counted, not raised."""
    writer = FolderWriter(outbox, recipient)
    try:
        writer.begin()
        writer.write(data)
        writer.finish()
    except CarrierError:
        writer.abandon()


def probe(outbox: Outbox) -> None:
    """
    Try whether a file could be written now, for any recipient, and report if so.
    Where files are written in place that would show: whether one could be made is looked at,
    and the next packet is the trial.

    @raise CarrierError: none could.
    """
    failure = None
    for recipient in outbox.failing():
        try:
            if outbox.location.rename:
                _try(FolderWriter(outbox, recipient))
            else:
                outbox.check(recipient)
        except CarrierError as error:
            failure = failure or error
            if not of_one_subfolder(error.__cause__):
                break
        else:
            outbox.works(recipient)
            return
    if failure is not None:
        raise failure


def _try(writer: FolderWriter) -> None:
    try:
        writer.begin()
        writer.write(bytes(PROBE))
    finally:
        writer.abandon()


def _waits(
    method: Callable[Concatenate[FolderWriter, P], T],
) -> Callable[Concatenate[FolderWriter, P], T]:
    """While this runs the outbox knows for how long the folder has not answered."""

    @wraps(method)
    def waiting(writer: FolderWriter, /, *arguments: P.args, **named: P.kwargs) -> T:
        outbox = writer._outbox
        outbox.asked(writer)
        try:
            return method(writer, *arguments, **named)
        finally:
            outbox.answered(writer)

    return waiting


@implementer(IFileWriter)
class FolderWriter:
    """
    One file under way; see L{IFileWriter}.  L{begin} comes first.

    @ivar name: see L{IFileWriter}.
    """

    def __init__(self, outbox: Outbox, recipient: UUID) -> None:
        self._outbox = outbox
        self._recipient = recipient
        location = outbox.location
        self.name = self._temporary = ""
        self._next_name()
        self._armour = Armour() if location.armoured else None
        self._file = -1
        self._folder = -1
        self._size = 0

    def _next_name(self) -> None:
        naming = self._outbox.location.naming
        self.name = self._outbox.name_for(self._recipient)
        self._temporary = naming.temporary(self.name) if self._outbox.location.rename else self.name

    @_waits
    def begin(self) -> None:
        """
        Make the file under its temporary name.

        @raise CarrierError: it could not be made; then call L{abandon}.
        """
        outbox = self._outbox
        name = outbox.folder_for(self._recipient)
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
        mode = self._outbox.mode_in(self._folder)
        for _ in range(NAMES):
            try:
                self._file = create_regular(self._folder, self._temporary, mode)
            except FileExistsError:
                self._next_name()
            else:
                return
        raise FileExistsError(errno.EEXIST, f"what is there has the names of {NAMES} of our files")

    def write(self, piece: bytes) -> None:
        """See L{IFileWriter.write}."""
        if len(piece) > MAX_PIECE:
            raise ValueError(f"a piece of {len(piece)} bytes: at most {MAX_PIECE}")
        if self._file < 0:
            raise CarrierError(f"{self.name} is not being written any more")
        self._write(piece if self._armour is None else self._armour.put_on(piece))

    @_waits
    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            written = self._size + len(data) - len(rest)
            raise self._outbox.fails(self._recipient, error, written) from error
        self._size += len(data)

    def finish(self) -> None:
        """See L{IFileWriter.finish}."""
        if self._file < 0:
            raise CarrierError(f"{self.name} is not being written any more")
        if self._armour is not None:
            self._write(self._armour.close())
        self._publish()
        self._outbox.tally.add("files_written")
        self._outbox.tally.add("bytes_written", self._size)
        self._outbox.works(self._recipient)
        self._outbox.published()

    @_waits
    def _publish(self) -> None:
        file, self._file = self._file, -1
        try:
            os.close(file)  # where some file systems first tell that there was no space
            if self._temporary != self.name:
                self._rename()
        except OSError as error:
            raise self._outbox.fails(self._recipient, error, self._size) from error
        self._close()

    def _rename(self) -> None:
        for left in reversed(range(NAMES)):
            try:
                publish(self._folder, self._temporary, self.name)
            except FileExistsError:
                if not left:
                    raise
                self.name = self._outbox.name_for(self._recipient)
            else:
                return

    @_waits
    def abandon(self) -> None:
        """See L{IFileWriter.abandon}.  What is published already stays."""
        if self._folder >= 0 and not unlink(self._folder, self._temporary):
            self._outbox.left_behind(self._recipient, self._temporary)
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

    @ivar recipient: see L{IFileTransport}; so C{max_file} and C{max_files}.
    @ivar disconnecting: L{loseConnection} was called.
    """

    def __init__(
        self,
        outbox: Outbox,
        recipient: UUID,
        worker: IWorker,
    ) -> None:
        self.recipient = recipient
        self.max_file = outbox.location.max_content
        self.max_files = outbox.location.max_files
        self.disconnecting = False
        self._outbox = outbox
        self._worker = worker
        self._waiting = 0
        outbox.serve(recipient)
        self._do(outbox.sweep, recipient, False)

    def write(self, data: bytes) -> None:
        """Publish one file; see L{IFileTransport}."""
        if len(data) > MAX_PIECE:
            raise ValueError(f"{len(data)} bytes: at most {MAX_PIECE}, use create() for larger files")
        if self.disconnecting:
            return
        if self._waiting >= MAX_WAITING:
            self._outbox.tally.note("write_errors", f"{MAX_WAITING} files wait already")
            return
        self._do(write_file, self._outbox, self.recipient, data)

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

    def sweep(self) -> None:
        """See L{IFileTransport.sweep}.  Short names do not tell whose they are: such files stay."""
        self._do(self._outbox.sweep, self.recipient, True)

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
