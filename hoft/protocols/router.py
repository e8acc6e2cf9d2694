"""
All links of one node: which arriving file belongs to which link.

The name of a file is a hint for the carrier; here its header decides, and the
header counts for nothing before the control frame has authenticated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import HoftError, PacketError, PacketReason
from hoft.interfaces import IFileReceiver, IWorker, Verdict
from hoft.protocols import log
from hoft.protocols.control import Control
from hoft.protocols.link import Link
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.packets import (
    BadFrame,
    ControlFrame,
    Event,
    Header,
    PacketReader,
    Record,
    RecordFrame,
)
from hoft.protocols.quarantine import Quarantine
from hoft.protocols.refusals import Refusals
from hoft.protocols.sealing import Suite
from hoft.protocols.synchronisation import Judgement

T = TypeVar("T")

OPEN_INLINE = 65536
"""Pieces up to this size are opened on the reactor thread, larger ones on the worker."""

TOGETHER = 20
"""Links that go on in one turn of the reactor when the carrier is up again."""

UNCOMMITTED_BYTES = 4 << 20
"""Of one file: beyond this, reading waits for the journal."""


@define
class _Arrival:
    """A file that is being read."""

    reader: PacketReader
    head: list[bytes] = field(factory=list)
    """The pieces so far, until one of its frames has authenticated."""
    offset: int = 0
    link: Link | None = None
    clock: int = 0
    verdict: Verdict | None = None
    uncommitted: int = 0
    failed: bool = False
    committing: int = 0
    idle: list[Deferred[None]] = field(factory=list)


@implementer(IFileReceiver)
class LinkRouter:
    """
    The receiver of a node's carrier, and the home of its links.

    @ivar links: by the peer's UUID as bytes.
    @ivar refusals: the files that were not accepted.
    @ivar quarantine: where the beginnings of refused files are kept, if they are.
    @ivar trouble: why no files can be read or written, None while they can.
    """

    _log = Logger()

    def __init__(
        self,
        parts: NodeParts,
        opening: IWorker,
        wake: Callable[[], None],
        quarantine: Quarantine | None = None,
    ) -> None:
        """
        @param opening: where large pieces are opened.
        @param wake: asks the carrier to look again at files that were to come later.
        """
        self.quarantine = quarantine
        self._wake = wake
        self.links: dict[bytes, Link] = {}
        self.refusals = Refusals(parts.clock)
        self.trouble: str | None = None
        self._parts = parts
        self._opening = opening
        self._arrivals: dict[str, _Arrival] = {}
        self._to_resume: deque[Link] = deque()
        self._minting: Deferred[None] | None = None
        self._up = True

    # --- links

    def add(self, link: Link) -> None:
        """Route to C{link}, which is open."""
        self.links[link.peer.bytes] = link
        if not self._up:
            link.carrier_down()

    def remove(self, peer: UUID) -> Link | None:
        """Route to that peer's link no more; closing it is the caller's."""
        return self.links.pop(peer.bytes, None)

    def tick(self) -> None:
        """To be called about twice a second, by a monotonic clock; links with nothing to do cost nothing."""
        now = self._parts.clock()
        self._resume()
        self.refusals.look()
        for link in [link for link in self.links.values() if link.due <= now]:
            link.tick()

    # --- IFileReceiver

    def carrierUp(self) -> None:
        """See L{IFileReceiver.carrierUp}."""
        self._up = True
        self.trouble = None
        self._to_resume = deque(self.links.values())
        self._resume()

    def _resume(self) -> None:
        """
        Tell some links that the carrier is up.  Each may write a file at once, and what it does
        comes again and again at the same time, so not for all in one go.
        """
        for _ in range(min(TOGETHER, len(self._to_resume))):
            self._to_resume.popleft().carrier_up()
        if self._to_resume:
            self._parts.reactor.callLater(0, self._resume)

    def carrierDown(self, reason: str) -> None:
        """See L{IFileReceiver.carrierDown}."""
        if reason != self.trouble:
            self._log.warn("The carrier is down: {reason}", reason=reason)
        was_up, self._up, self.trouble = self._up, False, reason
        if not was_up:
            return
        self._to_resume.clear()
        for link in list(self.links.values()):
            link.carrier_down()

    def fileForgotten(self, name: str) -> None:
        """See L{IFileReceiver.fileForgotten}."""
        self._arrivals.pop(name, None)

    def fileReceived(self, name: str, offset: int, piece: bytes, settled: bool) -> Deferred[Verdict]:
        """See L{IFileReceiver.fileReceived}."""
        if offset == 0:
            self._arrivals[name] = _Arrival(PacketReader(self._accept))
        arrival = self._arrivals.get(name)
        if arrival is None or arrival.offset != offset:
            self._arrivals.pop(name, None)
            return succeed(Verdict.LATER)
        arrival.offset += len(piece)
        if not arrival.reader.authenticated:
            arrival.head.append(piece)
        return Deferred.fromCoroutine(self._receive(name, arrival, piece, settled))

    async def _receive(self, name: str, arrival: _Arrival, piece: bytes, settled: bool) -> Verdict:
        try:
            if len(piece) <= OPEN_INLINE:
                events = arrival.reader.feed(piece)
            else:
                events = await self._opening.call(arrival.reader.feed, piece)
            await self._act(arrival, events)
            if arrival.reader.authenticated:
                arrival.head.clear()
            return await self._conclude(name, arrival, settled)
        except PacketError as error:
            return self._refuse(name, arrival, error, settled)
        except Exception:  # whatever it is, the file is still there and the others must go on
            self._log.failure("{name} could not be taken in", name=name)
            self._arrivals.pop(name, None)
            return Verdict.LATER

    def _accept(self, header: Header) -> Suite:
        """Called by the reader, with a header that is not authenticated, on either thread."""
        if header.sender == self._parts.node.bytes:
            raise PacketError(PacketReason.REFLECTED)
        if header.recipient != self._parts.node.bytes:
            raise PacketError(PacketReason.RECIPIENT)
        link = self.links.get(header.sender)
        if link is None:
            raise PacketError(PacketReason.STRANGER, str(UUID(bytes=header.sender)))
        return link.keys.for_opening(header)

    def _refuse(self, name: str, arrival: _Arrival, error: PacketError, settled: bool) -> Verdict:
        """What looks wrong may only be unfinished, as long as the file has not settled."""
        self._arrivals.pop(name, None)
        if not settled:
            return Verdict.LATER
        header = arrival.reader.header
        link = None if header is None else self.links.get(header.sender)
        self.refusals.add(name, "" if link is None else link.name, error)
        if self.quarantine is not None:
            self.quarantine.keep(name, error.reason.value, b"".join(arrival.head))
        return Verdict.REFUSED

    # --- what is in a file

    async def _act(self, arrival: _Arrival, events: Sequence[Event]) -> None:
        """Act on what has become readable; done when more may be read."""
        records: list[Record] = []
        for event in events:
            if isinstance(event, ControlFrame):
                await self._hear(arrival, Control.decode(event.content))
            if arrival.verdict is not None:
                return
            if isinstance(event, RecordFrame):
                records += event.records
            elif isinstance(event, BadFrame):
                assert arrival.link is not None
                arrival.link.counters["frames_bad"] += 1
        if records:
            self._take(arrival, records)
        if arrival.uncommitted > UNCOMMITTED_BYTES:
            await self._committed(arrival)

    async def _hear(self, arrival: _Arrival, control: Control) -> None:
        header = arrival.reader.header
        assert header is not None
        link = self.links.get(header.sender)
        if link is None:  # removed while the file was opened
            raise PacketError(PacketReason.STRANGER)
        arrival.link = link
        arrival.clock = control.clock
        await self._judge(arrival, link, header, control)

    async def _judge(self, arrival: _Arrival, link: Link, header: Header, control: Control) -> None:
        was_synchronised = link.engine.synchronised
        judgement = await link.hear(header, control)
        if judgement is Judgement.MINT:
            await self._mint()
            judgement = await link.hear(header, control)
        if judgement is not Judgement.CURRENT:
            # Until we are synchronised, records may yet turn out to count.
            keep = header.frames and not link.engine.synchronised
            arrival.verdict = Verdict.LATER if keep else Verdict.CONSUMED
        if link.engine.synchronised and not was_synchronised:
            self._wake()

    def _mint(self) -> Deferred[None]:
        """Our journal is an older copy: a new incarnation for all links."""
        waiting: Deferred[None] = Deferred()
        if self._minting is not None:
            self._minting.addBoth(lambda _: waiting.callback(None))
            return waiting
        self._minting = Deferred()

        def over(result: T) -> T:
            minting, self._minting = self._minting, None
            assert minting is not None
            minting.callback(None)
            return result

        done = self.begin_anew("a peer knows more of this node than its journal does")
        return done.addBoth(over)

    def begin_anew(self, why: str) -> Deferred[None]:
        """
        The journal is not what it was: mint an incarnation, begin every log anew.

        @param why: for the operator.
        """
        self._log.warn(
            "The journal was restored from an older copy, is one of two copies, or lost a part: {why}."
            " Beginning anew; calls that were under way are reported as uncertain.",
            why=why,
        )

        def begun(logs: dict[bytes, log.Adopted]) -> None:
            for peer, link in self.links.items():
                link.reincarnated(logs[peer])

        operation = partial(log.begin_all_logs, restored=self._parts.outboxes_at_start)
        return self._parts.journal.transact(operation).addCallback(begun)

    def _take(self, arrival: _Arrival, records: Sequence[Record]) -> None:
        link, header = arrival.link, arrival.reader.header
        assert link is not None and header is not None
        if not link.is_current(header):
            arrival.verdict = Verdict.CONSUMED if link.engine.synchronised else Verdict.LATER
            return
        size = sum(len(record.payload) for record in records)
        arrival.uncommitted += size
        arrival.committing += 1

        def over(result: object) -> None:
            arrival.uncommitted -= size
            arrival.committing -= 1
            if isinstance(result, Failure):
                arrival.failed = True
                if not result.check(HoftError):
                    self._log.failure("Records could not be committed", result)
            if not arrival.committing:
                idle, arrival.idle = arrival.idle, []
                for deferred in idle:
                    deferred.callback(None)

        link.accept(arrival.clock, records).addBoth(over)

    def _committed(self, arrival: _Arrival) -> Deferred[None]:
        if not arrival.committing:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        arrival.idle.append(idle)
        return idle

    async def _conclude(self, name: str, arrival: _Arrival, settled: bool) -> Verdict:
        """What the carrier is told, once all that was readable so far has been acted on."""
        reader = arrival.reader
        if arrival.verdict is not None:
            self._arrivals.pop(name, None)
            return arrival.verdict
        # Once every frame is here, END and padding have nothing to add.
        if not settled and not reader.finished and not (reader.authenticated and not reader.missing()):
            return Verdict.MORE
        if not reader.authenticated:
            return self._refuse(name, arrival, PacketError(PacketReason.TOO_SHORT), settled)
        await self._committed(arrival)
        self._arrivals.pop(name, None)
        if arrival.failed:
            return Verdict.LATER
        assert arrival.link is not None and reader.header is not None
        if arrival.link.is_current(reader.header):
            arrival.link.packet_read(reader.header, reader.missing(), reader.complete)
        return Verdict.CONSUMED
