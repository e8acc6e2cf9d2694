"""
A folder in memory: the carrier of tests and simulations.

It runs in whatever reactor it is given, a virtual clock as well, without threads
and with no chance of its own: the same calls at the same times give the same
life.  What happens to a file on its way is up to one function, see L{MemoryFolder}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any
from urllib.parse import unquote
from uuid import UUID
from weakref import WeakValueDictionary

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from hoft.errors import ConfigurationError
from hoft.interfaces import (
    MAX_PIECE,
    PREFIX,
    ICarrier,
    IFileReceiver,
    Verdict,
)
from hoft.transports import WHERE
from hoft.transports.filenames import FileName
from hoft.transports.memory_writing import MemoryTransport
from hoft.transports.settling import ZERO_TAIL, Settling, without_zero_tail

log = Logger()

Deliver = Callable[[UUID, UUID, str, bytes], Iterable[tuple[float, bytes]]]
"""
Given sender, recipient, name and content: what lies in the recipient's inbox
under that name, and after how many seconds.  Several entries are growth, change
or duplicates; none is a loss.
"""

CONCURRENT = 4
"""Files under way at once."""

_LATER = (1.0, 60.0)

_folders: WeakValueDictionary[str, MemoryFolder] = WeakValueDictionary()


def carrier(reactor: Any, url: str, node: UUID, boot: int, clock: Callable[[], float]) -> MemoryCarrier:
    """
    See L{hoft.interfaces.ICarrierMaker.carrier}.  C{memory:NAME} is one folder
    for all in this process who use that name at the same time.
    """
    name = unquote(url.partition(":")[2])
    if not name or "?" in name or "/" in name:
        raise ConfigurationError(WHERE, "", repr(url), "memory:NAME, without options")
    folder = _folders.get(name)
    if folder is None:
        folder = _folders[name] = MemoryFolder(reactor)
    return folder.carrier(node, boot, clock)


def unchanged(sender: UUID, recipient: UUID, name: str, data: bytes) -> Iterable[tuple[float, bytes]]:
    """A L{Deliver} that brings every file whole and at once."""
    return ((0.0, data),)


class MemoryFolder:
    """
    What lies in the inboxes of all nodes that share it.  It outlives carriers: a
    node that starts again finds what was not consumed.

    @param reactor: C{callLater} is all that is used of it.
    @param deliver: what becomes of each file that is published.
    @ivar inboxes: by recipient, what lies there, by name.
    """

    def __init__(self, reactor: Any, deliver: Deliver = unchanged) -> None:
        self.reactor = reactor
        self.deliver = deliver
        self.inboxes: dict[UUID, dict[str, bytes]] = {}
        self._readers: dict[UUID, MemoryCarrier] = {}

    def carrier(self, node: UUID, boot: int, clock: Callable[[], float]) -> MemoryCarrier:
        """One node's access; see L{hoft.interfaces.ICarrierMaker.carrier}."""
        return MemoryCarrier(self, node, boot, clock)

    def inbox(self, node: UUID) -> dict[str, bytes]:
        """What lies there for C{node}, by name."""
        return self.inboxes.setdefault(node, {})

    def publish(self, sender: UUID, recipient: UUID, name: str, data: bytes) -> None:
        """Send a file on its way."""
        for delay, content in self.deliver(sender, recipient, name, data):
            self.reactor.callLater(delay, self.put, recipient, name, content)

    def put(self, recipient: UUID, name: str, content: bytes) -> None:
        """Something arrives, in place of what lies there under that name."""
        inbox = self.inbox(recipient)
        news = inbox.get(name) != content
        inbox[name] = content
        reader = self._readers.get(recipient)
        if news and reader is not None:
            reader.appeared(name)

    def take(self, recipient: UUID, name: str) -> None:
        """It is deleted."""
        if self.inbox(recipient).pop(name, None) is not None and recipient in self._readers:
            self._readers[recipient].vanished(name)

    def attach(self, node: UUID, reader: MemoryCarrier) -> None:
        """C{reader} is told from now on of what arrives for C{node}."""
        self._readers[node] = reader

    def detach(self, node: UUID, reader: MemoryCarrier) -> None:
        """And now not any more."""
        if self._readers.get(node) is reader:
            del self._readers[node]


@define(eq=False)
class _File:
    """What a reader knows of a file; see L{hoft.transports.reading.InboundFile}."""

    name: str
    seen: bytes = b""
    offset: int = 0
    changed: float = 0.0
    settled: bool = False
    whole: bool = False
    told: bool = False
    later: bool = False
    busy: bool = False
    queued: bool = False
    delay: float = 0.0
    timer: IDelayedCall | None = None


@implementer(ICarrier)
class MemoryCarrier:
    """
    One node's access to a memory folder; see L{ICarrier}.  It is up from its
    start and never down.
    """

    def __init__(self, folder: MemoryFolder, node: UUID, boot: int, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.node = node
        self._boot = boot
        self._clock = clock
        self._numbers = count(1)
        self._receiver: IFileReceiver | None = None
        self._files: dict[str, _File] = {}
        self._waiting: deque[_File] = deque()
        self._busy = 0
        self._filling = False
        self._settling = Settling(0.0)
        self._counters = dict.fromkeys(
            (
                "files_written",
                "bytes_written",
                "files_removed",
                "files_read",
                "bytes_read",
                "files_deferred",
                "files_refused",
                "files_ignored",
            ),
            0,
        )

    # -- ICarrier

    def start(self, receiver: IFileReceiver) -> Deferred[None]:
        """See L{ICarrier.start}."""
        self._receiver = receiver
        self.folder.attach(self.node, self)
        receiver.carrierUp()
        for name in sorted(self.folder.inbox(self.node)):
            self.appeared(name)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See L{ICarrier.stop}."""
        self._receiver = None
        self.folder.detach(self.node, self)
        for file in self._files.values():
            self._cancel(file)
        self._waiting.clear()
        return succeed(None)

    def transport(self, recipient: UUID) -> MemoryTransport:
        """See L{ICarrier.transport}."""
        return MemoryTransport(self, recipient)

    def wake(self) -> None:
        """See L{ICarrier.wake}."""
        for file in list(self._files.values()):
            if file.later and not file.busy:
                file.delay = 0.0
                self._queue(file)

    def counters(self) -> dict[str, int]:
        """See L{ICarrier.counters}."""
        return dict(self._counters)

    def examples(self) -> dict[str, tuple[str, float]]:
        """See L{ICarrier.examples}: there are none."""
        return {}

    # -- for transports and writers

    def name_for(self, recipient: UUID) -> str:
        """A name that was never used."""
        return str(FileName(self.node, recipient, self._boot, next(self._numbers)))

    def publish(self, recipient: UUID, name: str, data: bytes) -> None:
        """Count a file and send it on its way."""
        self._counters["files_written"] += 1
        self._counters["bytes_written"] += len(data)
        self.folder.publish(self.node, recipient, name, data)

    def remove(self, recipient: UUID, names: Iterable[str]) -> None:
        """Delete files of ours that still lie there."""
        for name in names:
            parsed = FileName.parse(name)
            if parsed is not None and parsed.sender == self.node and name in self.folder.inbox(recipient):
                self._counters["files_removed"] += 1
                self.folder.take(recipient, name)

    def sweep(self, recipient: UUID) -> None:
        """Delete what our earlier processes left there."""
        names = map(FileName.parse, list(self.folder.inbox(recipient)))
        self.remove(recipient, [str(name) for name in names if name is not None and name.boot != self._boot])

    # -- for the folder

    def appeared(self, name: str) -> None:
        """A file has come or has changed."""
        parsed = FileName.parse(name)
        if parsed is None or parsed.recipient != self.node:
            self._counters["files_ignored"] += 1
            return
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = _File(name)
        if not file.later:
            self._queue(file)

    def vanished(self, name: str) -> None:
        """A file was deleted."""
        file = self._files.get(name)
        if file is not None and not file.busy:
            self._drop(file)

    # -- reading

    def _queue(self, file: _File) -> None:
        """It is to be looked at, as soon as it is its turn."""
        self._cancel(file)
        if not file.queued and self._receiver is not None:
            file.queued = True
            self._waiting.append(file)
            self.folder.reactor.callLater(0, self._fill)

    def _fill(self) -> None:
        if self._filling:
            return  # an answer that came at once: the loop below goes on
        self._filling = True
        try:
            for _ in range(len(self._waiting)):
                if self._receiver is None or self._busy >= CONCURRENT or not self._waiting:
                    return  # an answer that came at once has emptied it
                file = self._waiting.popleft()
                if file.busy:
                    self._waiting.append(file)  # changed while the receiver thinks
                    continue
                file.queued = False
                if self._files.get(file.name) is file:
                    self._look(file)
        finally:
            self._filling = False

    def _look(self, file: _File) -> None:
        receiver = self._receiver
        content = self.folder.inbox(self.node).get(file.name)
        if receiver is None:
            return
        if content is None:
            self._drop(file)
            return
        now = self._clock()
        if content != file.seen:
            self._changed(file, content, now)
        arrived = without_zero_tail(content)
        if file.whole:
            arrived = content[: len(arrived) + ZERO_TAIL]
        piece = arrived[file.offset : file.offset + MAX_PIECE]
        at_end = file.offset + len(piece) >= len(arrived)
        settled = at_end and not file.settled and self._quiet(file, now) <= 0
        if settled and len(arrived) < len(content) and not file.whole:
            file.whole = True
            self._look(file)
        elif piece or settled:
            file.settled = settled
            file.busy = file.told = True
            self._busy += 1
            self._counters["bytes_read"] += len(piece)
            answer = maybeDeferred(receiver.fileReceived, file.name, file.offset, piece, settled)
            answer.addErrback(
                lambda failure: log.failure("the receiver of {name} failed", failure, name=file.name)
            )
            file.offset += len(piece)
            answer.addCallback(self._answered, file, at_end)
        elif not file.settled:
            self._again(file, self._quiet(file, now))

    def _changed(self, file: _File, content: bytes, now: float) -> None:
        if file.seen:
            self._settling.grew(now - file.changed)
        prefix = min(PREFIX, file.offset)
        if file.whole or len(content) < file.offset or content[:prefix] != file.seen[:prefix]:
            file.offset = 0
        file.seen, file.changed = content, now
        file.whole = file.settled = False

    def _quiet(self, file: _File, now: float) -> float:
        """Seconds that are left until it counts as settled."""
        return file.changed + self._settling.wait(closed=True) - now

    def _answered(self, verdict: Verdict | None, file: _File, at_end: bool) -> None:
        self._busy -= 1
        file.busy = False
        if self._receiver is None:
            return
        if verdict is Verdict.MORE:
            file.later = False
            if self.folder.inbox(self.node).get(file.name) is None:
                self._drop(file)
            elif not at_end:
                # Before those that have not begun: few files are under way at once.
                if not file.queued:
                    file.queued = True
                    self._waiting.appendleft(file)
                    self.folder.reactor.callLater(0, self._fill)
            elif not file.settled:
                self._again(file, self._quiet(file, self._clock()))
        elif verdict in (Verdict.CONSUMED, Verdict.REFUSED):
            self._counters["files_read" if verdict is Verdict.CONSUMED else "files_refused"] += 1
            file.told = False
            inbox = self.folder.inbox(self.node)
            changed = inbox.get(file.name, file.seen) != file.seen
            self._drop(file)
            if changed:
                self.appeared(file.name)
            else:
                inbox.pop(file.name, None)
        else:
            self._counters["files_deferred"] += 1
            file.later = True
            file.offset = 0
            file.whole = file.settled = False
            file.delay = min(max(2 * file.delay, _LATER[0]), _LATER[1])
            self._again(file, file.delay)
        # In a call of its own: answers that come at once would nest without end.
        if self._waiting:
            self.folder.reactor.callLater(0, self._fill)

    def _again(self, file: _File, delay: float) -> None:
        self._cancel(file)
        file.timer = self.folder.reactor.callLater(max(delay, 0.001), self._due, file)

    def _due(self, file: _File) -> None:
        file.timer = None
        self._queue(file)

    def _cancel(self, file: _File) -> None:
        if file.timer is not None:
            file.timer.cancel()
            file.timer = None

    def _drop(self, file: _File) -> None:
        self._cancel(file)
        del self._files[file.name]
        if file.told and self._receiver is not None:
            self._receiver.fileForgotten(file.name)
