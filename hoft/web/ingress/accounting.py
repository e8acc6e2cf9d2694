"""
What calls of an ingress come to: counted, measured, held to what they may, remembered
and logged when they end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from hoft.interfaces import ILink
from hoft.web.history import Ended, History
from hoft.web.http.heads import Fields
from hoft.web.http.problems import Problem
from hoft.web.http.targets import Mount
from hoft.web.ingress.calls import Call
from hoft.web.ingress.kept_rows import Stage
from hoft.web.ingress.limiting import Meter, Meters
from hoft.web.ingress.routing import meter_of_caller, meter_of_route
from hoft.web.ingress.waiting import Outcome
from hoft.web.measuring import Metrics

if TYPE_CHECKING:
    from hoft.web.ingress.keeping import Kept


class Told(Protocol):
    """A call whose caller waits: a C{Waiting} or a C{CachedCall}."""

    id: bytes
    call: Call
    link: ILink
    caller: str | None
    problem: str | None
    executing: float | None

    @property
    def mount(self) -> Mount | None:
        """The route that was called."""

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of both bodies, so far."""

    def took(self, now: float) -> float:
        """Seconds since it began."""


class Accounts:
    """
    Of one ingress.

    @ivar counts: what was counted since the start.
    @ivar history: of calls that have ended.
    @ivar metrics: what somebody measures of calls, if anybody does; see L{measure}.
    """

    def __init__(self, clock: Callable[[], float], meters: Meters, metrics: Metrics | None) -> None:
        """
        @param clock: monotonic seconds.
        @param meters: hold callers and routes to what they may.
        """
        self.counts: Counter[str] = Counter()
        self.history = History()
        self._clock = clock
        self._meters = meters
        self.metrics = metrics
        self._metered: dict[bytes, Sequence[Meter]] = {}
        self._measured: dict[bytes, tuple[str | None, str | None]] = {}
        """Caller and route of the exchanges under way that somebody measures."""

    def counters(self) -> dict[str, int]:
        """What was counted since the start, by a stable name each."""
        outcomes = (outcome.value for outcome in Outcome)
        names = [*outcomes, *(f"kept_{stage.value}" for stage in Stage if stage.last)]
        return dict.fromkeys(names, 0) | self.counts

    def measure(self, metrics: Metrics | None) -> None:
        """
        What begins from now on counts there, if anywhere.

        @param metrics: what C{GET /_hoft/metrics} shows.
        """
        if metrics is not self.metrics:
            self.metrics = metrics
            self._measured.clear()

    # --- while they are under way -----------------------------------------------------------

    def admit(self, exchange: bytes, caller: str | None, route: str | None) -> None:
        """
        A call begins.

        @raise Refused: it may not now.
        """
        metered = self._meters.admit(*_meters(caller, route))
        if metered:
            self._metered[exchange] = metered
        if self.metrics is not None:
            self._measured[exchange] = (caller, route)

    def take(self, exchange: bytes) -> Sequence[Meter]:
        """The meters that count a call, which are somebody else's business from now on."""
        return self._metered.pop(exchange, ())

    def give_back(self, exchange: bytes, meters: Sequence[Meter]) -> None:
        """What L{take} gave."""
        self._metered[exchange] = meters

    def resume(self, caller: str | None, route: str | None) -> Sequence[Meter]:
        """Of an earlier process's: the meters that count it as under way."""
        return self._meters.resume(*_meters(caller, route))

    # --- when they end --------------------------------------------------------------------------

    def refused(self, call: Call, exchange: bytes, caller: str | None, problem: Problem) -> None:
        """A call ended before it had begun; C{exchange} is the id that its caller is told."""
        request = call.request
        ended = Ended(
            "ingress", exchange, None, caller, None, request.method, request.target,
            "refused", problem.status, problem.kind, 0, 0, 0.0,
        )  # fmt: skip
        self.history.add(ended, request.fields)

    def renamed(self, before: bytes, exchange: bytes) -> bytes:
        """A call that is under way has another id from now on; that."""
        if before in self._metered:
            self._metered[exchange] = self._metered.pop(before)
        if before in self._measured:
            self._measured[exchange] = self._measured.pop(before)
        return exchange

    def ended(self, waiting: Told) -> None:
        """It does not count as under way any more."""
        for meter in self.take(waiting.id):
            meter.end(sum(waiting.sizes))

    def told(self, waiting: Told, outcome: Outcome) -> None:
        """Its caller has been told all that it will be."""
        self.counts[outcome.value] += 1
        call, sizes, seconds = waiting.call, waiting.sizes, waiting.took(self._clock())
        mount, request = waiting.mount, call.request
        ended = Ended(
            "ingress", waiting.id, waiting.link.name, waiting.caller, None if mount is None else mount.name,
            request.method, request.target, outcome.value, call.status, waiting.problem,
            *sizes, seconds, waiting.executing,
        )  # fmt: skip
        self.history.add(ended, request.fields)
        if self.metrics is not None and (measured := self._measured.pop(waiting.id, None)) is not None:
            self.metrics.called(*measured, call.status, seconds, waiting.executing, sizes)

    def tunnel_ended(self, ended: Ended, fields: Fields) -> None:
        """
        The caller's connection is over, or nothing has become of it.

        @param fields: of the request.
        """
        sizes = (ended.request_size, ended.response_size)
        for meter in self.take(ended.id):
            meter.end(sum(sizes))
        self.counts[ended.outcome] += 1
        self.history.add(ended, fields)
        if self.metrics is not None and (measured := self._measured.pop(ended.id, None)) is not None:
            self.metrics.called(*measured, ended.status, ended.seconds, None, sizes)

    def kept_ended(self, kept: Kept, peer: str, stage: Stage) -> None:
        """Nothing more will come of it."""
        sizes = (kept.request_size, kept.response_size)
        meters, kept.meters = kept.meters, ()
        for meter in meters:
            meter.end(sum(sizes))
        self.counts[f"kept_{stage.value}"] += 1
        problem, seconds = kept.problem, self._clock() - kept.begun
        status = problem.status if problem is not None else kept.status or 0
        ended = Ended(
            "ingress", kept.id, peer, kept.caller, kept.route, kept.method, kept.url.encode("ascii"),
            stage.value, status, None if problem is None else problem.kind, *sizes, seconds, kept.executing,
        )  # fmt: skip
        self.history.add(ended)
        if self._measured.pop(kept.id, None) is not None and self.metrics is not None:
            self.metrics.called(kept.caller, kept.route, status, seconds, kept.executing, sizes)


def _meters(caller: str | None, route: str | None) -> tuple[str | None, str | None]:
    """What counts for them is called."""
    return (
        None if caller is None else meter_of_caller(caller),
        None if route is None else meter_of_route(route),
    )
