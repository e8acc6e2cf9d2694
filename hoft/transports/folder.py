"""
The polling folder: the carrier that reads and writes a directory which others move files through.

    - C{folder:/srv/exchange}: a folder that both nodes share.
    - C{folder:?inbox=/srv/in&outbox=/srv/out}: a mirror or a diode carries between.

All that touches the file system happens on daemon threads of this carrier's
own: a folder that hangs stops neither the process nor its exit.  The folder is
looked into every C{poll} seconds, more often while files keep coming that way;
where the system tells of new files (L{hoft.transports.noticing}) they are read
without waiting for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import CarrierDown
from hoft.interfaces import ICarrier, IFileReceiver, IWorker
from hoft.timers import Timers
from hoft.transports.delivery import Delivery
from hoft.transports.directories import Root
from hoft.transports.locations import FolderLocation, check
from hoft.transports.noticing import Notices
from hoft.transports.outbox import Outbox
from hoft.transports.reading import Inbox
from hoft.transports.scanning import MAX_ENTRIES, Condemned, Entry, Fate, Scan, Scanner
from hoft.transports.tally import Tally
from hoft.transports.writing import FolderTransport, probe
from hoft.worker import Worker

log = Logger()

QUICK = 0.05
"""Seconds between two looks right after files came that nobody told us of."""

LAST_WORDS = 5.0
"""Seconds that stopping waits for writes under way."""

NAMED = 5
"""Files that are no packets and are named in the log, each by itself."""

_DECAY = 1.5
_PROBES = (0.5, 10.0)
"""Seconds to the next trial whether a file can be written, at first and at most."""

_COUNTERS = (
    "files_written",
    "bytes_written",
    "files_removed",
    "write_errors",
    "files_read",
    "bytes_read",
    "files_deferred",
    "files_refused",
    "files_deleted",
    "files_ignored",
    "read_errors",
    "scans",
)


def carrier(reactor: Any, url: str, node: UUID, boot: int, clock: Callable[[], float]) -> FolderCarrier:
    """See L{hoft.interfaces.ICarrierMaker.carrier}."""
    return FolderCarrier(reactor, FolderLocation.parse(url), node, boot, clock)


@implementer(ICarrier)
class FolderCarrier:
    """
    One node's access to a folder; see L{ICarrier}.

    The first report to the receiver is C{carrierUp}, when L{start} fires (or
    C{carrierDown}, if the folder does not answer in time); from
    then on the two alternate.

    @param watch: use inotify where the system has it.
    @param workers: makes a worker of that name; L{None} makes threads.
    """

    def __init__(
        self,
        reactor: Any,
        location: FolderLocation,
        node: UUID,
        boot: int,
        clock: Callable[[], float],
        watch: bool = True,
        workers: Callable[[str], IWorker] | None = None,
    ) -> None:
        self._reactor = reactor
        self._location = location
        self._node = node
        self._clock = clock
        self._tally = Tally(clock, *_COUNTERS)
        self._make_worker = workers or (lambda name: Worker(reactor, f"folder {name}"))
        self._workers: dict[str, IWorker] = {}
        self._reads = Root(location.inbox, "inbox")
        self._inbox = Inbox(self._reads, location.naming.folder(node))
        self._scanner = Scanner(self._reads, node, clock, location.naming)
        self._outbox = Outbox(
            location, node, boot, self._tally, clock, self._outbox_reported, self._published
        )
        self._notices = Notices(
            reactor,
            location,
            node,
            watch,
            lambda: self._worker("scan"),
            self._appeared,
            lambda: self._look(0.0),
        )
        self._peers: set[UUID] = set()
        self._delivery: Delivery | None = None
        self._receiver: IFileReceiver | None = None
        self._troubles: dict[str, str] = {}
        self._down: bool | None = None
        self._timers = Timers(reactor)
        self._forgotten: set[str] = set()
        self._interval = location.poll
        self._scanning = False
        self._scan_again = False
        self._unannounced = True
        self._crowded = False
        self._left = 0
        self._left_told = 2 * NAMED
        self._probing = 0.0
        self._stopped = False
        self._stopping: list[Deferred[None]] = []

    # -- ICarrier

    def start(self, receiver: IFileReceiver) -> Deferred[None]:
        """See L{ICarrier.start}."""
        self._receiver = receiver
        self._delivery = Delivery(
            self._reactor,
            self._clock,
            self._inbox,
            receiver,
            lambda slot: self._worker(f"read {slot}"),
            self._delete,
            self._forgotten.add,
            lambda reason: self._trouble("inbox", reason),
            self._peers.__contains__,
            self._location.poll,
            self._tally,
        )
        started: Deferred[None] = Deferred()

        def unanswered() -> None:
            self._trouble("start", f"inbox {self._location.inbox} does not answer")
            started.callback(None)

        def prepared(result: Failure | None) -> None:
            self._timers.cancel("start")
            if isinstance(result, Failure) and not started.called:
                started.errback(result)
                return
            if isinstance(result, Failure):  # too late to refuse: it is down until it comes back
                self._trouble("inbox", result.getErrorMessage())
            self._mend("start")
            self._report()
            self._look(0.0)
            if not started.called:
                started.callback(None)

        self._timers.set("start", self._location.patience, unanswered)
        self._worker("scan").call(self._prepare).addBoth(prepared)
        return started

    def stop(self) -> Deferred[None]:
        """See L{ICarrier.stop}.  Waits for writes under way, but not for a folder that hangs."""
        stopped: Deferred[None] = Deferred()
        if self._stopped and not self._stopping:
            stopped.callback(None)
            return stopped
        self._stopping.append(stopped)
        if self._stopped:
            return stopped
        self._stopped = True
        if self._delivery is not None:
            self._delivery.stop()
        self._timers.stop()
        self._notices.stop()

        def done(_: object) -> None:
            if patience.active():
                patience.cancel()
            waiting, self._stopping = self._stopping, []
            for each in waiting:
                each.callback(None)

        patience: IDelayedCall = self._reactor.callLater(LAST_WORDS, done, None)
        DeferredList([worker.stop() for worker in self._workers.values()]).addCallback(done)
        return stopped

    def transport(self, recipient: UUID) -> FolderTransport:
        """See L{ICarrier.transport}."""
        self._peers.add(recipient)
        return FolderTransport(self._outbox, recipient, self._worker("write"))

    def wake(self) -> None:
        """See L{ICarrier.wake}."""
        if self._delivery is not None:
            self._delivery.wake()
            self._look(0.0)

    def counters(self) -> dict[str, int]:
        """See L{ICarrier.counters}."""
        return self._tally.snapshot()

    def examples(self) -> dict[str, tuple[str, float]]:
        """See L{ICarrier.examples}."""
        return self._tally.examples()

    # -- threads and timers

    def _worker(self, job: str) -> IWorker:
        worker = self._workers.get(job)
        if worker is None:
            worker = self._workers[job] = self._make_worker(job)
        return worker

    # -- is it there?

    def _prepare(self) -> None:
        """On a thread: what has to be so before files can be carried."""
        check(self._reads, self._outbox.root)
        self._notices.prepare()

    def _trouble(self, what: str, reason: str) -> None:
        """Something does not work."""
        if self._troubles.get(what) != reason:
            self._troubles[what] = reason
            self._report(news=True)

    def _mend(self, what: str) -> None:
        """It works again."""
        if self._troubles.pop(what, None) is not None:
            self._report()

    def _report(self, news: bool = False) -> None:
        """@param news: one of the troubles is another one."""
        down = bool(self._troubles)
        if self._stopped or self._receiver is None or (down == self._down and not (down and news)):
            return
        self._down = down
        if down:
            # Who is told says so in the log.
            self._receiver.carrierDown(next(iter(self._troubles.values())))
        else:
            log.info("The carrier is up: {folders}", folders=self._location.folders)
            self._receiver.carrierUp()

    # -- writing

    def _published(self) -> None:
        """On any thread that writes: a file is out, and an answer may come soon."""
        if self._unannounced:
            self._reactor.callFromThread(self._hurry)

    def _mind_writers(self) -> None:
        if self._outbox.blocked() > self._location.patience:
            self._trouble("hang", f"outbox {self._location.outbox} does not answer")
        else:
            self._mend("hang")

    def _outbox_reported(self, reason: str | None) -> None:
        """On any thread that writes."""
        self._reactor.callFromThread(self._outbox_changed, reason)

    def _outbox_changed(self, reason: str | None) -> None:
        if reason is None:
            self._timers.cancel("probe")
            self._mend("outbox")
            return
        self._trouble("outbox", reason)
        self._probe_later()

    def _probe_later(self) -> None:
        def again() -> None:
            self._worker("write").call(probe, self._outbox).addErrback(failed)

        def failed(failure: Failure) -> None:
            self._trouble("outbox", failure.getErrorMessage())
            self._probe_later()

        # Not reset by a probe that succeeds: a folder may have room for that and no more.
        self._probing = min(max(2 * self._probing, _PROBES[0]), _PROBES[1])
        self._timers.set("calm", 5 * _PROBES[1], self._calm)
        self._timers.set("probe", self._probing, again)

    def _calm(self) -> None:
        self._probing = 0.0

    # -- looking

    def _look(self, delay: float) -> None:
        self._timers.set("look", delay, self._scan)

    def _hurry(self) -> None:
        self._interval = min(QUICK, self._location.poll)
        self._look(self._interval)

    def _scan(self) -> None:
        self._mind_writers()
        if self._scanning or self._delivery is None:
            self._scan_again = True
            return
        self._scanning = True
        self._scan_again = False
        forgotten = list(self._forgotten)
        self._forgotten.clear()
        self._timers.set("patience", self._location.patience, self._impatient)
        scanning = self._worker("scan").call(self._scanner.scan, forgotten, self._delivery.room)
        scanning.addCallbacks(self._scanned, self._unscanned).addErrback(self._stumbled)

    def _impatient(self) -> None:
        self._trouble("inbox", f"inbox {self._location.inbox} does not answer")

    def _scanned(self, found: Scan) -> None:
        delivery = self._delivery
        if self._stopped or delivery is None:
            return
        self._scan_done()
        self._tally.add("scans")
        if "inbox" in self._troubles:
            self._mend("inbox")
            delivery.recovered()
        if found.strange:
            self._leave(found.strange)
        if bool(found.beyond) != self._crowded:
            self._crowded = bool(found.beyond)
            if self._crowded:
                log.warn(
                    "More than {most} files lie in {inbox}: {beyond} wait until others are removed",
                    most=MAX_ENTRIES,
                    inbox=self._location.inbox,
                    beyond=found.beyond,
                )
        for name, flat in found.vanished:
            delivery.vanished(name, flat)
        for name in found.replaced:
            delivery.replaced(name)
        news = [entry for entry in found.added if delivery.found(entry)]
        told = self._notices.watching and not news
        self._unannounced = not told or (self._unannounced and not found.added)
        self._notices.scanned(found, news)
        if news and not found.more:
            self._interval = min(QUICK, self._location.poll)
        else:
            self._interval = min(self._interval * _DECAY, self._location.poll)
        self._look(QUICK if found.more else 0.0 if self._scan_again else self._interval)

    def _leave(self, strange: Sequence[str]) -> None:
        """The first are named; then it is said how many there are, each time they have doubled."""
        inbox = self._location.inbox
        for name in strange:
            self._tally.note("files_ignored", f"{name}: no packet")
            self._left += 1
            if self._left <= NAMED:
                log.warn("{name} in {inbox} is left alone: it is no packet", name=name, inbox=inbox)
        if self._left >= self._left_told:
            self._left_told = 2 * self._left
            log.warn(
                "{count} files in {inbox} are left alone by now: they are no packets; {name} is one",
                count=self._left,
                inbox=inbox,
                name=strange[-1],
            )

    def _unscanned(self, failure: Failure) -> None:
        if self._stopped:
            return
        self._scan_done()
        error, why = failure.value, failure.getErrorMessage()
        if isinstance(error, OSError):
            within = f"/{error.filename}" if isinstance(error.filename, str) else ""
            why = f"inbox {self._location.inbox}{within}: {error.strerror or error}"
        elif failure.check(CarrierDown) is None:
            log.failure("scanning {inbox}", failure, inbox=self._location.inbox)
        self._tally.note("read_errors", why)
        self._trouble("inbox", why)
        self._interval = self._location.poll
        self._look(self._interval)

    def _stumbled(self, failure: Failure) -> None:
        """Who was told of what was found has raised: a mistake of ours, and no reason to look no more."""
        log.failure("telling of what lies in {inbox}", failure, inbox=self._location.inbox)
        self._look(self._location.poll)

    def _scan_done(self) -> None:
        self._scanning = False
        self._timers.cancel("patience")

    def _delete(self, condemned: list[Condemned]) -> Deferred[list[Fate]]:
        return self._worker("scan").call(self._scanner.delete, condemned)

    def _appeared(self, entry: Entry, complete: bool) -> None:
        if self._delivery is not None and not self._stopped and self._delivery.found(entry, complete):
            self._unannounced = False
