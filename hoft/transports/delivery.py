"""
Handing the files of a folder to their receiver: whose turn it is, what follows from
the answers, and when to look again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from heapq import heappop, heappush
from itertools import count
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import CarrierDown, WorkerStopped
from hoft.interfaces import IFileReceiver, IWorker, Verdict
from hoft.timers import Alarm, Soon
from hoft.transports.directories import NotAFile
from hoft.transports.reading import InboundFile, Inbox, State, Step, TooLarge, judge
from hoft.transports.scanning import Condemned, Entry, Fate
from hoft.transports.settling import Settling
from hoft.transports.tally import Tally
from hoft.transports.turns import Turns

log = Logger()

CONCURRENT = 4
"""Files under way at once, and one more that is short."""

MAX_READY = 4000
"""Files that may wait for their turn; further ones are left for a later scan."""

GATHER = 0.02
"""Seconds in which files to be deleted gather: nobody waits for it, and a thread is woken for each time."""

_VISIT = 0.05
"""Seconds after which a file that is still arriving is looked at again, at the least."""

_RETRY = (0.1, 60.0)
_LATER = (1.0, 60.0)
_KEPT = (1.0, 900.0)
_KEPT_LOOKS = 50
"""A second: at files that are done with and that we may not delete."""


class Delivery:
    """
    Reads the files that were found and does what their receiver answers.  All
    methods are called on the reactor thread.

    @param delete: deletes a batch, off the reactor thread.
    @param rescan: asks for names to be told of again, if they are still there.
    @param trouble: told that the inbox is down.
    """

    def __init__(
        self,
        reactor: Any,
        clock: Callable[[], float],
        inbox: Inbox,
        receiver: IFileReceiver,
        workers: Callable[[int], IWorker],
        delete: Callable[[list[Condemned]], Deferred[list[Fate]]],
        rescan: Callable[[str], None],
        trouble: Callable[[str], None],
        known: Callable[[UUID], bool],
        poll: float,
        tally: Tally,
    ) -> None:
        self._clock = clock
        self._inbox = inbox
        self._receiver = receiver
        self._workers = workers
        self._delete = delete
        self._rescan = rescan
        self._trouble = trouble
        self._poll = poll
        self._tally = tally
        self._settling = Settling(2 * poll)
        self._files: dict[str, InboundFile] = {}
        self._turns = Turns(known)
        self._slots: dict[int, InboundFile] = {}
        self._due: list[tuple[float, int, InboundFile]] = []
        self._tickets = count(1)
        self._alarm = Alarm(reactor, self._ring)
        self._condemned: list[InboundFile] = []
        self._execution = Soon(reactor, GATHER, self._execute)
        self._deleting = False
        self._stopped = False

    @property
    def room(self) -> int:
        """How many more files a scan may bring."""
        return max(0, MAX_READY - self._turns.waiting)

    def found(self, entry: Entry, closed: bool = False) -> bool:
        """
        There is such a file, and perhaps something happened to it.

        @param closed: its writer closed or renamed it.
        @return: whether it was news.
        """
        if self._stopped:
            return False
        file = self._files.get(entry.text)
        if file is None:
            if self._turns.waiting >= 2 * MAX_READY:
                return False
            file = self._files[entry.text] = InboundFile(entry)
            file.closing = closed
            crowded = self._turns.behind_others(file)
            self._turns.push(file)
            if crowded:
                self._measure(file)
            self._fill()
            return True
        if entry.flat == file.entry.flat:
            file.closing |= closed
            self._poke(file)
        return False

    def replaced(self, name: str) -> None:
        """Another file is there under this name."""
        file = self._files.get(name)
        if file is not None:
            self._poke(file)

    def vanished(self, name: str, flat: bool) -> None:
        """It is not there any more."""
        file = self._files.get(name)
        if file is None or file.entry.flat != flat:
            return
        if file.state in (State.ACTIVE, State.DELETING):
            file.poked = True  # the next look will tell
        else:
            self._drop(file)

    def wake(self) -> None:
        """Look again at all that was to come later."""
        for file in list(self._files.values()):
            if file.later and file.state is State.IDLE:
                file.delay = 0.0
                self._ready(file)
        self._fill()

    def recovered(self) -> None:
        """The inbox is back: look again at what could not be read."""
        for file in list(self._files.values()):
            if file.state is State.IDLE and not file.settled and not file.later:
                self._poke(file)

    def stop(self) -> None:
        """Nothing is handed over any more."""
        self._execution.now()
        self._stopped = True
        self._alarm.cancel()

    def _running(self) -> bool:
        return not self._stopped

    # -- taking turns

    def _poke(self, file: InboundFile) -> None:
        if file.state is State.IDLE:
            if file.finished:
                self._condemn(file)
            elif not file.later:
                self._ready(file)
                self._fill()
        else:
            file.poked = True

    def _ready(self, file: InboundFile) -> None:
        file.state = State.READY
        self._turns.push(file)

    def _measure(self, file: InboundFile) -> None:
        """It waits behind many: if it is short, it need not."""

        def measured(short: bool) -> None:
            if short and file.state is State.READY:
                self._turns.hurry(file)
                self._fill()

        def unmeasured(failure: Failure) -> None:
            failure.trap(OSError, CarrierDown, NotAFile, WorkerStopped)  # its turn will tell

        measuring = self._workers(CONCURRENT).call(self._inbox.is_short, file.entry)
        measuring.addCallback(measured).addErrback(unmeasured)

    def _fill(self) -> None:
        for slot in range(CONCURRENT + 1):
            if self._stopped:
                return
            if slot not in self._slots:
                file = self._turns.pop() if slot < CONCURRENT else self._turns.pop_short()
                if file is None:
                    return
                file.state = State.ACTIVE
                self._slots[slot] = file
                self._attend(file, self._workers(slot)).addBoth(self._attended, slot, file)

    def _attended(self, result: object, slot: int, file: InboundFile) -> None:
        del self._slots[slot]
        if isinstance(result, Failure) and not self._stopped:
            self._failed(file, result)
        if file.state is State.ACTIVE:
            self._idle(file, self._poll)
        self._fill()

    @inlineCallbacks
    def _attend(self, file: InboundFile, worker: IWorker) -> Generator[Deferred[Any], Any, None]:
        """Hand over what there is of one file, until it is up to somebody else."""
        while self._running():
            file.poked = False
            look = yield worker.call(
                self._inbox.look, file.entry, file.offset, file.prefix, file.whole, file.text
            )
            if not self._running():
                return
            step = judge(file, look, self._settling, self._clock())
            if step is Step.LOOK_AGAIN:
                continue
            if step is Step.WAIT:
                self._rest(file)
                return
            file.told = True
            settled = step is Step.HAND_OVER_SETTLED
            try:
                verdict = yield self._receiver.fileReceived(file.name, look.offset, look.data, settled)
            except Exception:
                log.failure("the receiver of {name} failed", name=file.name)
                verdict = Verdict.LATER
            self._tally.add("bytes_read", len(look.data))
            file.offset, file.text = look.offset + len(look.data), look.text
            if not self._running() or not self._obey(file, verdict):
                return

    def _obey(self, file: InboundFile, verdict: Verdict) -> bool:
        """Do what the receiver says; tells whether to read on at once."""
        if verdict is Verdict.MORE:
            file.later = False
            if not file.caught_up or file.poked:
                return not self._yields(file)
            self._rest(file)
        elif verdict is Verdict.LATER:
            file.restart()
            file.later = True
            self._tally.add("files_deferred")
            self._idle(file, self._backoff(file, _LATER))
        else:
            self._tally.add("files_read" if verdict is Verdict.CONSUMED else "files_refused")
            self._finish(file)
        return False

    def _yields(self, file: InboundFile) -> bool:
        """A sender that holds several places gives one up where another has none."""
        sender = self._turns.sender(file)
        held = sum(self._turns.sender(other) == sender for other in self._slots.values())
        if held < 2 or not self._turns.others(sender):
            return False
        file.state = State.READY
        self._turns.give_up(file)
        return True

    # -- looking again

    def _rest(self, file: InboundFile) -> None:
        """All there is was handed over: wait for it to grow or to settle."""
        if file.poked:
            self._ready(file)
            return
        if file.settled:
            self._idle(file, self._backoff(file, (self._poll, _RETRY[1])))
            return
        quiet = self._clock() - file.changed
        left = self._settling.wait(file.closed) - quiet
        self._idle(file, max(0.002, min(left, max(_VISIT, quiet / 2), max(_VISIT, self._poll))))

    def _backoff(self, file: InboundFile, limits: tuple[float, float]) -> float:
        file.delay = min(max(2 * file.delay, limits[0]), limits[1])
        return file.delay

    def _idle(self, file: InboundFile, delay: float) -> None:
        file.state = State.IDLE
        now = self._clock()
        file.ticket = next(self._tickets)
        heappush(self._due, (now + delay, file.ticket, file))
        self._set_alarm(now)

    def _set_alarm(self, now: float) -> None:
        if self._due and not self._stopped:
            self._alarm.set(self._due[0][0], now)

    def _ring(self) -> None:
        """Some files are due."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, ticket, file = heappop(self._due)
            if file.state is State.IDLE and file.ticket == ticket:
                if file.finished:
                    self._condemn(file)
                else:
                    self._ready(file)
        self._fill()
        self._set_alarm(now)

    # -- letting go

    def _failed(self, file: InboundFile, failure: Failure) -> None:
        if failure.check(FileNotFoundError):
            self._drop(file)
        elif isinstance(failure.value, TooLarge):
            file.size, file.modified = failure.value.size, failure.value.modified
            self._tally.note("files_refused", failure.getErrorMessage())
            log.warn("Refused and deleted: {reason}", reason=failure.getErrorMessage())
            self._forgotten(file)
            self._finish(file)
        elif failure.check(NotAFile):
            self._tally.note("files_ignored", failure.getErrorMessage())
            log.warn("Left alone: {reason}", reason=failure.getErrorMessage())
            self._drop(file)
        else:
            if failure.check(CarrierDown):
                self._trouble(failure.getErrorMessage())
            elif failure.check(OSError) is None:
                log.failure("reading {name}", failure, name=file.name)
            self._tally.note("read_errors", f"{file.name}: {failure.getErrorMessage()}")
            self._idle(file, self._backoff(file, _RETRY))

    def _finish(self, file: InboundFile) -> None:
        file.finished = True
        file.later = file.told = False
        file.prefix = b""
        file.delay = 0.0
        self._condemn(file)

    def _condemn(self, file: InboundFile) -> None:
        file.state = State.DELETING
        self._condemned.append(file)
        self._execution.ask()

    def _execute(self) -> None:
        """Delete what is to be deleted, all that has gathered at once."""
        if self._deleting or self._stopped or not self._condemned:
            return
        batch, self._condemned = self._condemned, []
        self._deleting = True
        deleting = self._delete([file.condemned() for file in batch])
        deleting.addErrback(self._not_deleted, batch).addCallback(self._executed, batch)

    def _not_deleted(self, failure: Failure, batch: Iterable[InboundFile]) -> list[Fate]:
        failure.trap(CarrierDown, OSError, WorkerStopped)
        return [Fate.KEPT for _ in batch]

    def _executed(self, fates: Iterable[Fate], batch: Iterable[InboundFile]) -> None:
        self._deleting = False
        for file, fate in zip(batch, fates, strict=True):
            if fate is Fate.GONE:
                self._tally.add("files_deleted")
                self._drop(file)
            elif fate is Fate.CHANGED:
                file.finished = False
                file.restart()
                self._ready(file)
            else:
                # Where nobody may delete, many lie there for long: look at few of them a second.
                self._idle(file, max(self._backoff(file, _KEPT), len(self._files) / _KEPT_LOOKS))
        if not self._execution.pending:
            self._execute()
        self._fill()

    def _drop(self, file: InboundFile) -> None:
        """It is gone."""
        file.state = State.GONE
        del self._files[file.name]
        self._rescan(file.name)
        self._forgotten(file)

    def _forgotten(self, file: InboundFile) -> None:
        if file.told and not self._stopped:
            file.told = False
            try:
                self._receiver.fileForgotten(file.name)
            except Exception:
                log.failure("the receiver of {name} failed", name=file.name)
