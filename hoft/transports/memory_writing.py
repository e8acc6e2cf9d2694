"""
How files are written into a folder in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from hoft.errors import CarrierError
from hoft.interfaces import MAX_PIECE, IFileTransport, IFileWriter

if TYPE_CHECKING:
    from hoft.transports.memory import MemoryCarrier


@implementer(IAddress)
@frozen
class MemoryAddress:
    """One node of a memory folder."""

    node: UUID


@implementer(IFileWriter)
class MemoryWriter:
    """
    One file under way; see L{IFileWriter}.

    @ivar name: see L{IFileWriter}.
    """

    def __init__(self, carrier: MemoryCarrier, recipient: UUID) -> None:
        self.name = carrier.name_for(recipient)
        self._carrier = carrier
        self._recipient = recipient
        self._pieces: list[bytes] | None = []

    def write(self, piece: bytes) -> None:
        """See L{IFileWriter.write}."""
        if len(piece) > MAX_PIECE:
            raise ValueError(f"a piece of {len(piece)} bytes: at most {MAX_PIECE}")
        if self._pieces is None:
            raise CarrierError(f"{self.name} is not being written any more")
        self._pieces.append(bytes(piece))

    def finish(self) -> None:
        """See L{IFileWriter.finish}."""
        if self._pieces is None:
            raise CarrierError(f"{self.name} is not being written any more")
        data = b"".join(self._pieces)
        self._pieces = None
        # Writers work on a thread where there are threads; a virtual clock has none.
        on_reactor_thread = getattr(self._carrier.folder.reactor, "callFromThread", None)
        if on_reactor_thread is None:
            self._carrier.publish(self._recipient, self.name, data)
        else:
            on_reactor_thread(self._carrier.publish, self._recipient, self.name, data)

    def abandon(self) -> None:
        """See L{IFileWriter.abandon}.  What is published already stays."""
        self._pieces = None


@implementer(IFileTransport)
class MemoryTransport:
    """
    Files to one recipient; see L{IFileTransport}.

    @ivar recipient: see L{IFileTransport}.
    @ivar disconnecting: L{loseConnection} was called.
    """

    max_file: int | None = None
    max_files: int | None = None

    def __init__(self, carrier: MemoryCarrier, recipient: UUID) -> None:
        self.recipient = recipient
        self.disconnecting = False
        self._carrier = carrier

    def write(self, data: bytes) -> None:
        """Publish one file; see L{IFileTransport}."""
        if len(data) > MAX_PIECE:
            raise ValueError(f"{len(data)} bytes: at most {MAX_PIECE}, use create() for larger files")
        if not self.disconnecting:
            self._carrier.publish(self.recipient, self._carrier.name_for(self.recipient), bytes(data))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Publish all these pieces as one file; see L{IFileTransport}."""
        self.write(b"".join(data))

    def create(self) -> MemoryWriter:
        """See L{IFileTransport.create}."""
        if self.disconnecting:
            raise CarrierError("this transport was closed")
        return MemoryWriter(self._carrier, self.recipient)

    def remove(self, names: Sequence[str]) -> None:
        """See L{IFileTransport.remove}."""
        self._carrier.remove(self.recipient, names)

    def sweep(self) -> None:
        """See L{IFileTransport.sweep}."""
        self._carrier.sweep(self.recipient)

    def loseConnection(self) -> None:
        """Take nothing more."""
        self.disconnecting = True

    def getHost(self) -> MemoryAddress:
        """Us."""
        return MemoryAddress(self._carrier.node)

    def getPeer(self) -> MemoryAddress:
        """The recipient."""
        return MemoryAddress(self.recipient)
