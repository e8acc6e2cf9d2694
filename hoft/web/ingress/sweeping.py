"""
Housekeeping of an ingress that may be much, as when a hundred thousand results expire at once: a
little of it in a turn of the reactor, and no more before the journal has taken what
came of that, so that calls are committed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from hoft.timers import Soon

TURN: Final = 100
"""How many rows are seen to in a turn: about 4 ms of it, and as much of the journal's time."""

Step = Callable[[], bool]
"""Does some of the work; whether there is more."""


class Sweeper:
    """Of one ingress."""

    def __init__(self, reactor: IReactorTime, commits: Callable[[], Sequence[Deferred[object]]]) -> None:
        """@param commits: see L{hoft.web.ingress.committing.Batches.commits}."""
        self._commits = commits
        self._steps: dict[Step, None] = {}
        self._next = Soon(reactor, 0, self._turn)
        self._waiting = False

    def begin(self, step: Step) -> None:
        """Do the first of it now, and the rest soon; one that is under way already goes on."""
        if step not in self._steps and step():
            self._steps[step] = None
            self._go_on()

    def stop(self) -> None:
        """The rest is for the next process."""
        self._steps.clear()
        self._next.cancel()

    def _go_on(self) -> None:
        if self._steps and not self._waiting:
            self._waiting = True
            gatherResults(self._commits()).addCallback(self._committed)

    def _committed(self, _: object) -> None:
        self._waiting = False
        if self._steps:
            self._next.ask()

    def _turn(self) -> None:
        for step in list(self._steps):
            if not step():
                del self._steps[step]
        self._go_on()
