"""
Being told of files as they appear: a L{hoft.transports.watching.Watch} on the directories that are there.

A file that is renamed or closed is whole, so that is what is asked of the system.  Carriers that
publish by link(2), as into a maildir, do neither: they show when a scan finds what nobody has told of, and
from then on files are told of when they begin as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any
from uuid import UUID

from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.interfaces import IWorker
from hoft.transports.locations import FolderLocation
from hoft.transports.scanning import Entry, Scan

if TYPE_CHECKING:
    from hoft.transports.watching import Watch

log = Logger()

_STALE_SCANS = 2
"""Scans that may still find what was there before the watch: one under way when it began, and the next."""


class Notices:
    """
    Those that one carrier gets; used on the reactor thread, where nothing else is said.

    @param wanted: use inotify where the system has it.
    @param worker: where folders are looked up.
    @param appeared: see L{Watch}.
    @param look: has the inbox looked at now.
    """

    def __init__(
        self,
        reactor: Any,
        location: FolderLocation,
        node: UUID,
        wanted: bool,
        worker: Callable[[], IWorker],
        appeared: Callable[[Entry, bool], None],
        look: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._location = location
        self._node = node
        self._wanted = wanted
        self._worker = worker
        self._report = appeared
        self._look = look
        self._watch: Watch | None = None
        self._places: tuple[tuple[int, int], ...] | None = None
        self._scans = 0
        self._untold: set[str] = set()
        self._begun = False
        self._stopped = False

    @property
    def watching(self) -> bool:
        """Whether the system tells of files."""
        return self._watch is not None

    def prepare(self) -> None:
        """On a thread: find out what the system has."""
        if self._wanted:
            try:
                # Here and not above: not every system has it, and importing it takes a while.
                import hoft.transports.watching  # noqa: F401  # what follows finds it imported
            except ImportError:
                log.info(
                    "This system does not tell of new files: {inbox} is looked at every {poll:g} s",
                    inbox=self._location.inbox,
                    poll=self._location.poll,
                )
                self._wanted = False

    def scanned(self, found: Scan, news: Collection[Entry]) -> None:
        """
        The inbox was looked at.

        @param news: what was found there and not known.
        """
        self._scans += 1
        linked = bool(self._untold) and not self._begun
        self._begun |= linked
        # Of what comes all at once some is not told; and what lies flat is told of when it begins anyway.
        sure = self._watch is not None and self._scans > _STALE_SCANS and not found.more
        self._untold = {entry.text for entry in news if not entry.flat} if sure and not self._begun else set()
        lost = self._watch is not None and not self._watch.alive
        if linked or lost or found.places != self._places:
            self._places = found.places
            if self._wanted:
                self._worker().call(self._make_watch).addCallbacks(self._watching, self._unwatched)

    def stop(self) -> None:
        """Tell nothing more."""
        self._stopped = True
        if self._watch is not None:
            self._watch.close()

    def _make_watch(self) -> Watch:
        """On a thread, since it looks up the folders."""
        from hoft.transports.watching import Watch

        return Watch(
            self._reactor,
            self._location.inbox,
            self._node,
            self._appeared,
            self._look,
            self._location.naming,
            self._begun,
        )

    def _appeared(self, entry: Entry, complete: bool) -> None:
        self._untold.discard(entry.text)
        self._report(entry, complete)

    def _watching(self, watch: Watch) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = None if self._stopped else watch
        if self._stopped:
            watch.close()
        else:
            watch.start()
            self._scans = 0
            self._look()  # for what came between the scan and the watch

    def _unwatched(self, failure: Failure) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if not self._stopped:
            log.warn(
                "New files in {inbox} are looked for every {poll:g} s, for the system does not tell of them:"
                " {reason}",
                inbox=self._location.inbox,
                poll=self._location.poll,
                reason=failure.getErrorMessage(),
            )
