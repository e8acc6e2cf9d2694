"""
Where the layers meet.

Times are seconds, sizes bytes.  Unless a method says otherwise it is called
on the reactor thread and must not block there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar
from uuid import UUID

from attrs import field, frozen
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

    def join(fire: bool = True) -> None:
        """
        Wait until all that was given is done, if that takes no more than a moment: two
        thousandths of a second, and for a while not at all after it was more.  The reactor
        stands still meanwhile.

        @param fire: fire for what is done, before this returns; otherwise as ever, in a
            turn of its own.
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
        """Files cannot be read or written; C{reason} is for the operator.  Again, if that is another one."""


class IFileTransport(ITransport):
    """
    Files to one recipient.

    C{write(data)} and C{writeSequence(pieces)} publish one whole file of at most
    L{MAX_PIECE} bytes under a fresh name, without waiting; a failure is counted
    and reported by L{IFileReceiver.carrierDown}, and else no different from a
    file that got lost.  C{loseConnection()} finishes what was given.
    """

    recipient: UUID = Attribute("whose inbox the files are for")
    max_file: int | None = Attribute("most bytes of a file that the carrier passes; None: no limit known")
    max_files: int | None = Attribute("most files of ours that may lie there at a time; None: no limit known")

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

    def sweep() -> None:
        """
        The recipient has synchronised with this process: what earlier ones of ours
        wrote for it counts no more.  Delete what still lies there of it, as C{remove}.
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

    def examples() -> dict[str, tuple[str, float]]:
        """By counters of what should not be: the last of it, for a person, and how many seconds ago."""


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


class Delivery(Enum):
    """How far a record of ours has come."""

    QUEUED = "queued"
    """It is in our journal, and in no file yet."""
    SENT = "sent"
    """It is in a file, and not acknowledged."""
    ACKNOWLEDGED = "acknowledged"
    """The peer has it, or it was taken back, or its log is another one now."""


@frozen
class Outgoing:
    """A record to send: what L{ILink.commit} takes."""

    payload: bytes
    channel: int
    urgency: int = 3
    """RFC 9218: 0 goes first, 7 last."""
    flow: int = 0
    """
    Records of equal urgency take turns by this: what belongs together has one number, and
    what does not another.  It is not kept: what a restart finds waiting is one flow.
    """
    expires: float | None = None
    """
    Seconds after the commit: if it has not begun to be sent by then, it never is, and
    the receiver is told (L{IExpiryReceiver}).  One that an earlier process may have sent stays.
    """
    compress_from: int | None = None
    """
    What is in it from this byte on may be sent compressed, if that pays: its length on the way then
    tells something of that.  So not where one party's secrets stand beside what another may choose.
    """
    again: bool = False
    """
    The receiver may be given it twice: if it loses its state while this is under way, it is sent
    again in the log that begins then.  Others are not, since nobody knows what became of them.
    """


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


class Arrival(Enum):
    """What becomes of a record that has come."""

    STORE = "store"
    """It is committed, then handed up."""
    AT_ONCE = "at once"
    """It is handed up while it is being committed, before all that this call leads to."""
    DONE = "done"
    """It has been dealt with: only that it came is committed, and it is not handed up."""


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

    def delivery(id: int) -> Delivery:
        """How far a record has come that was committed on this link, as L{CommitResult.sent} names it."""

    def cancel(ids: Sequence[int]) -> Deferred[list[int]]:
        """
        Take back records that have not begun to be sent.

        @param ids: as L{CommitResult.sent} names them; unknown ones are passed over.
        @return: fires with those that will never be delivered, nor be reported as
            acknowledged, once that is committed.  All others are sent as if nothing had been asked.
        @raise JournalError: (as failure) nothing was taken back.
        """


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

    def peerRolledBack(link: ILink, resent: Sequence[int]) -> Deferred[None] | None:
        """
        One side was restored from an older copy or lost its state.  Of all that was
        committed to the log before, nobody can say what the other side still knows;
        records not yet numbered are still sent and are named in C{resent}.

        What the receiver asks to be committed within this call, or until what it returns
        fires, is in the journal before the report counts as made; else it is made again
        after a restart.

        @return: fires, and never fails, once all that follows was asked for, where that is much.
        """


class IArrivalReceiver(IRecordReceiver):
    """A receiver that need not wait for the journal with every record; optional."""

    def recordArriving(link: ILink, record: Incoming) -> Arrival:
        """
        This has come from the peer and is about to be committed.

        If the process or its journal fails before that is done, the peer sends it again, and it is
        another record then: so whoever answers C{AT_ONCE} or C{DONE} can be given the same twice.
        What is handed up at once cannot be read with L{ILink.read} until it is committed. What is
        committed on the link from within this call comes before the record, so that must not name it.
        """


class IExpiryReceiver(IRecordReceiver):
    """A layer above a link that commits records with L{Outgoing.expires}."""

    def recordsExpired(link: ILink, ids: Sequence[int]) -> None:
        """These waited too long to be sent, and never will be."""


@frozen
class Lost:
    """
    A record that was to be sent and cannot be.

    @ivar id: as L{CommitResult.sent} named it.
    @ivar found: what the journal holds in place of its payload, which may tell whose it was;
        C{b""} where that tells nothing.
    """

    id: int
    channel: int
    found: bytes = field(repr=False)


class ILossReceiver(IRecordReceiver):
    """A layer above a link that wants to know what its journal has lost, as on a bad disk."""

    def recordsLost(link: ILink, lost: Sequence[Lost]) -> None:
        """
        These will not be sent, or not again: the peer may have each of them, or not.  They are
        of any channel.  What was received and is damaged, L{ILink.read} tells of.
        """


# --- Messages of programs, on layer 1 --------------------------------------


MAX_MESSAGE = 100_000_000
"""The most bytes of one message."""

MAX_WHOLE = 1 << 20
"""Up to this size a message is handed up as one C{bytes}; a larger one is read in parts."""

MAX_READ = 8 << 20
"""The most bytes that L{IMessage.read} gives at once."""


@frozen
class OutgoingMessage:
    """A message to send: what L{IMessageLink.commit} takes."""

    payload: bytes
    urgency: int = 3
    """RFC 9218: 0 goes first, 7 last."""
    expires: float | None = None
    """
    Seconds, as long as this process lives, after which it is withdrawn if any part of
    it has not begun to be sent by then.
    """


class IMessage(Interface):
    """
    A message from a peer, whole, intact, and in our journal.

    It stays there, and is handed up again after a restart, until it is consumed.
    """

    id: UUID = Attribute("names it for good, the same each time it is handed up")
    size: int = Attribute("bytes")
    payload: bytes | None = Attribute("all of it; C{None} if it is larger than L{MAX_WHOLE}")

    def read(offset: int = 0, size: int = MAX_READ) -> Deferred[bytes]:
        """
        Up to C{size} bytes from C{offset} on, fewer at the end.

        @param size: at most L{MAX_READ}.
        @raise PayloadLost: (as failure) it was consumed, or went with a journal
            that was restored.
        """

    def pieces(size: int = MAX_PIECE) -> AsyncIterator[bytes]:
        """All of it in order, C{size} bytes at a time; raises what L{read} fails with."""

    def consume(
        also: Callable[[ITransaction], T] | None = None, durable: bool = False
    ) -> Deferred[CommittedMessages[T]]:
        """L{IMessageLink.commit} of this message alone."""


class IMessageLink(Interface):
    """
    Reliable messages to and from one peer; C{Node.link} makes it.

    Messages may overtake each other.  How many bytes may wait at the peer, or on the
    way there, is bounded: beyond that L{commit} and L{send} wait until the program
    there has consumed some.
    """

    peer: UUID = Attribute("the other node")
    name: str = Attribute("what our configuration calls it")
    state: LinkState = Attribute("how well it is heard")

    def send(payload: bytes, urgency: int = 3, expires: float | None = None) -> Deferred[UUID]:
        """
        Send one message.

        @return: fires with the message's id once it is delivered: the peer's journal
            has all of it, on disk.  See L{ISentMessage.delivered} for failures.
        """

    def commit(
        send: Sequence[OutgoingMessage] = (),
        consume: Sequence[IMessage] = (),
        also: Callable[[ITransaction], T] | None = None,
        durable: bool = False,
    ) -> Deferred[CommittedMessages[T]]:
        """
        Atomically: put messages into the journal to be sent, let go of received
        ones, and whatever C{also} writes to the program's own tables there.  So what
        is done within one commit is done once, whatever crashes.

        @param also: called on the journal's thread inside the transaction.  It may be
            called again if the transaction has to be, so it does nothing but write.
        @param durable: fire only once it would survive a power cut; otherwise once
            it would survive a crash of this process.
        @raise MessageTooLarge: (as failure) one is larger than L{MAX_MESSAGE}, or
            all together than a peer ever takes at once.
        @raise MessageConsumed: (as failure) one of C{consume} was consumed before.
        @raise MessageExpired: (as failure) one of C{send} did before the peer had room.
        @raise MessageUncertain: (as failure) the log began anew in the midst of a large commit.
        @raise JournalFull: (as failure) no room here.
        @raise LinkClosed: (as failure) the link was closed before.

        With any of these, nothing was done.
        """


class ISentMessage(Interface):
    """A message that is committed here; it is sent until it is delivered, also after a restart."""

    id: UUID = Attribute("as L{IMessage.id} at the peer")

    def delivered() -> Deferred[UUID]:
        """
        Fires with C{id} once the peer's journal has all of it, on disk.

        @raise MessageExpired: (as failure) it was withdrawn, and will not be handed up.
        @raise MessageUncertain: (as failure) one side was restored or has lost its
            state: it may have been delivered or not, and is not sent again.
        @raise LinkClosed: (as failure) the link was closed first; the message is
            sent when it is open again.
        """


@frozen
class CommittedMessages(Generic[T]):
    """What L{IMessageLink.commit} fires with."""

    value: T | None
    """What C{also} returned."""
    sent: Sequence[ISentMessage]
    """In the order of C{send}."""


class IMessageReceiver(Interface):
    """A program that messages are for; given to C{makeNode}."""

    def messageReceived(link: IMessageLink, message: IMessage) -> None:
        """
        A message has come.  Consume it when it is dealt with: until then it counts
        against what the peer may send, and is handed up again after a restart.
        If this raises, it is logged, and the message stays.

        Of the messages of one peer, so many are handed up at once as their payloads
        fit into 16 MiB, 1024 at most; further ones when some were consumed.
        """

    def linkChanged(link: IMessageLink) -> None:
        """C{link.state} has changed."""

    def peerRolledBack(link: IMessageLink) -> None:
        """
        One side was restored from an older copy or lost its state.  Messages of
        which it is not known whether they were delivered fail with
        C{MessageUncertain}; those that an earlier process has sent are just as uncertain.

        What is committed within this call is in the journal before the report
        counts as made; else it is made again after a restart.
        """
