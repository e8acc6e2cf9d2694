"""
Where the layers meet.

Times are seconds, sizes bytes.  Unless a method says otherwise it is called
on the reactor thread and must not block there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from zope.interface import Attribute, Interface

T = TypeVar("T")

MAX_PIECE = 1 << 20
"""The most bytes one call hands over between a carrier and its user."""

PREFIX = 256
"""Bytes at a file's start that must not change while it grows: if they do, it is another file."""


class IWorker(Interface):
    """A thread (or, in a simulation, a moment) in which blocking work is done in order."""

    def call(function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """
        Run C{function(*arguments)} off the reactor thread, after everything
        given before it; fire with its result on the reactor thread.
        """

    def stop() -> Deferred[None]:
        """Finish what was given, then end the thread.  Later calls fail."""


# --- Layer 0 ---------------------------------------------------------------


class Verdict(Enum):
    """What a receiver says of (this much of) a file."""

    CONSUMED = "consumed"
    """All it brings is committed or known: the carrier may delete it."""
    MORE = "more"
    """Keep it; hand over what comes after this piece when it has come."""
    LATER = "later"
    """Not now (no room, not synchronised yet): hand it over again from 0 later."""
    REFUSED = "refused"
    """It can never be of use: the carrier takes it out of the way."""


class IFileReceiver(Interface):
    """Who reads what a carrier brings; the user of an L{ICarrier}."""

    def fileReceived(name: str, offset: int, piece: bytes, settled: bool) -> Deferred[Verdict]:
        """
        A file has appeared or grown.

        Pieces of one file come in order and one at a time: the next only after
        the Deferred of the last has fired.  Several files may be under way at
        once.  C{offset} 0 always starts a file anew, also when pieces of an
        earlier file of that name were seen.

        @param name: the base name; a hint, only the content decides.
        @param piece: at most L{MAX_PIECE} bytes from C{offset} on; empty when
            only C{settled} is news.
        @param settled: the carrier believes that no more will come.  The
            answer is then C{CONSUMED}, C{LATER} or C{REFUSED}; C{MORE} leaves
            the file until it changes.
        """

    def fileForgotten(name: str) -> None:
        """A file that was answered C{MORE} or C{LATER} is gone: drop its state."""

    def carrierUp() -> None:
        """Files can be read and written (again)."""

    def carrierDown(reason: str) -> None:
        """Files cannot be read or written; C{reason} is for the operator."""


class IFileTransport(ITransport):
    """
    Files to one recipient.

    C{write(data)} and C{writeSequence(pieces)} publish one whole file of at most
    L{MAX_PIECE} bytes under a fresh name, without waiting; a failure is counted
    and reported by L{IFileReceiver.carrierDown}, and else no different from a
    file that got lost.  C{loseConnection()} finishes what was given.
    """

    recipient: UUID = Attribute("whose inbox the files are for")

    def create() -> IFileWriter:
        """
        Begin one file of any size under a fresh name.  Called, like all methods
        of the writer, on the link's worker thread; may block.

        @raise CarrierError: the file could not be made.
        """

    def remove(names: Sequence[str]) -> None:
        """
        The recipient has acknowledged all that is in these files of ours: delete
        those that still lie there.  Best effort, without waiting.
        """


class IFileWriter(Interface):
    """One file being written; used on one worker thread, may block."""

    name: str = Attribute("the base name it will have or has")

    def write(piece: bytes) -> None:
        """
        Append at most L{MAX_PIECE} bytes.

        @raise CarrierError: no space, no right, no folder; then call L{abandon}.
        """

    def finish() -> None:
        """
        Make the file visible to the recipient.

        @raise CarrierError: it could not be published; then call L{abandon}.
        """

    def abandon() -> None:
        """Take back what was written, as far as that is possible.  Never raises."""


class ICarrier(Interface):
    """One node's access to whatever moves its files; made by an L{ICarrierMaker}."""

    def start(receiver: IFileReceiver) -> Deferred[None]:
        """
        Begin to read the files that arrive for this node.

        @raise ConfigurationError: (as failure) a root that does not exist or
            cannot be read at start, with what to do.
        """

    def stop() -> Deferred[None]:
        """Stop reading and writing; fires when no call to the receiver will follow."""

    def transport(recipient: UUID) -> IFileTransport:
        """Where files for C{recipient} go."""

    def wake() -> None:
        """Look again now, also at files answered C{LATER}: there is room, or we are synchronised."""

    def counters() -> dict[str, int]:
        """What was counted since the start, by a stable name each, for status displays."""


class ICarrierMaker(Interface):
    """Found through L{twisted.plugin}: makes carriers for one URL scheme."""

    scheme: str = Attribute("lower-case URL scheme, as in C{folder:/srv/exchange}")

    def carrier(reactor: Any, url: str, node: UUID, boot: int, clock: Callable[[], float]) -> ICarrier:
        """
        @param url: the whole transport URL.
        @param node: who we are: whose files to read.
        @param boot: 64 random bits of this process, part of every file name.
        @param clock: monotonic seconds.
        @raise ConfigurationError: the URL is not one this scheme understands.
        """


# --- Layer 1 ---------------------------------------------------------------


class LinkState(Enum):
    """How well the peer is heard."""

    UNKNOWN = "unknown"
    """Nothing was exchanged since this process started."""
    UP = "up"
    """Synchronised, and heard of lately."""
    LATE = "late"
    """Synchronised once, but what is under way takes longer than it should."""
    DOWN = "down"
    """The carrier is unusable, or the peer has long been silent."""
    STOPPED = "stopped"
    """A clone of one side runs beside it; a person must decide."""


@frozen
class Outgoing:
    """A record to send: what L{ILink.commit} takes."""

    payload: bytes
    channel: int
    urgency: int = 3
    """RFC 9218: 0 goes first, 7 last."""


@frozen
class Incoming:
    """
    A record that the peer committed and we have committed as received.

    It stays in the journal, and is handed up again after a restart, until it is
    named in L{ILink.commit}'s C{consume}.
    """

    id: int
    """Names it on this node, for C{consume} and C{read}; never reused."""
    channel: int
    size: int
    payload: bytes | None
    """C{None} where it is to be fetched with L{ILink.read} (a large one after a restart)."""


class ITransaction(Interface):
    """An open journal transaction, on the journal's worker thread."""

    def execute(sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Run one statement; the result iterates over rows."""


class ILink(Interface):
    """A reliable record log to one peer, as the layer above sees it."""

    peer: UUID = Attribute("the other node")
    name: str = Attribute("what our configuration calls it")
    state: LinkState = Attribute("how well it is heard")

    def commit(
        send: Sequence[Outgoing] = (),
        consume: Sequence[int] = (),
        also: Callable[[ITransaction], T] | None = None,
        durable: bool = False,
    ) -> Deferred[CommitResult[T]]:
        """
        Atomically: queue records for the peer, let go of received ones, and
        whatever C{also} writes to the tables of the layer above.

        Commits of one link take effect in the order of the calls, and records
        are sent in that order as far as urgency allows.

        @param also: called on the journal's thread inside the transaction, before the rest.
        @param durable: fire only once it would survive a power cut; otherwise
            once it would survive a crash of this process.
        @raise JournalFull: (as failure) no room; nothing was written.
        @raise LinkClosed: (as failure)
        """

    def read(ids: Sequence[int]) -> Deferred[list[bytes]]:
        """Payloads of received records that were not consumed yet, in the order asked."""

    def backlog() -> int:
        """Payload bytes committed for sending and not acknowledged yet."""


@frozen
class CommitResult(Generic[T]):
    """What L{ILink.commit} fires with."""

    value: T | None
    """What C{also} returned."""
    sent: Sequence[int]
    """Ids of the queued records, in order, as L{IRecordReceiver.recordsAcknowledged} will name them."""


class IRecordReceiver(Interface):
    """The layer above a link."""

    def recordsReceived(link: ILink, records: Sequence[Incoming]) -> None:
        """
        These are committed here.  Each is handed up once per process start until
        consumed; records of one commit of the peer may arrive in any order.
        """

    def recordsAcknowledged(link: ILink, ids: Sequence[int]) -> None:
        """The peer has committed these records of ours durably."""

    def linkChanged(link: ILink) -> None:
        """C{link.state} has changed."""

    def peerRolledBack(link: ILink, resent: Sequence[int]) -> None:
        """
        One side was restored from an older copy or lost its state.  Of all that was
        committed to the log before, nobody can say what the other side still knows;
        records not yet numbered are still sent and are named in C{resent}.

        What the receiver asks to be committed within this call is in the journal
        before the report counts as made; else it is made again after a restart.
        """
