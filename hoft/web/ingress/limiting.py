"""
How much callers may ask for, and how much routes may be asked for.

A L{Meter} counts for one of them; a call must be admitted by each that applies to
it.  Calls and bytes of the day (UTC) survive a restart, as of the last L{save}.
Pure but for the statements of L{load} and L{save}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Final

from attrs import define, frozen

from hoft.config import Allowance
from hoft.interfaces import ITransaction
from hoft.protocols.schema import Schema
from hoft.web.http.problems import Refused, too_many_requests

DAY: Final = 86400

SCHEMA = Schema(
    "usage",
    (
        (
            "CREATE TABLE usage (meter TEXT PRIMARY KEY, day INTEGER NOT NULL, calls INTEGER NOT NULL,"
            " bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        ),
    ),
)


@frozen
class Usage:
    """
    What one meter has counted.

    @ivar day: (UTC) days since 1970.
    """

    day: int
    calls: int
    bytes: int


@define
class Meter:
    """
    Counts for one caller or route.

    @ivar what: whom it is for, as problems call it.
    """

    what: str
    allowance: Allowance
    in_flight: int = 0
    day: int = 0
    calls: int = 0
    bytes: int = 0
    dirty: bool = False
    _tokens: float = 1.0
    _filled: float = 0.0

    def check(self, now: float, wall: float) -> None:
        """
        @param now: monotonic seconds.
        @param wall: seconds since 1970.
        @raise Refused: one call more is too much.
        """
        limits = self.allowance
        self._begin_day(wall)
        if limits.in_flight is not None and self.in_flight >= limits.in_flight:
            raise self._refused(f"{limits.in_flight} calls at once", 1)
        if limits.per_second is not None:
            most = max(1.0, limits.per_second)
            self._tokens = min(most, self._tokens + (now - self._filled) * limits.per_second)
            self._filled = now
            if self._tokens < 1:
                wait = (1 - self._tokens) / limits.per_second
                raise self._refused(f"{limits.per_second:g} calls a second", wait)
        tomorrow = (self.day + 1) * DAY - wall
        if limits.per_day is not None and self.calls >= limits.per_day:
            raise self._refused(f"{limits.per_day} calls a day", tomorrow)
        if limits.bytes_per_day is not None and self.bytes >= limits.bytes_per_day:
            raise self._refused(f"{limits.bytes_per_day} bytes a day", tomorrow)

    def _refused(self, limit: str, wait: float) -> Refused:
        return Refused(too_many_requests(f"{self.what} may make {limit}", max(1, ceil(wait))))

    def _begin_day(self, wall: float) -> None:
        day = int(wall // DAY)
        if day != self.day:
            self.day, self.calls, self.bytes = day, 0, 0

    def begin(self) -> None:
        """A call that L{check} has let pass."""
        self.in_flight += 1
        self.calls += 1
        self._tokens -= 1
        self.dirty = True

    def end(self, size: int) -> None:
        """It is over, and took so many bytes of bodies."""
        self.in_flight -= 1
        self.bytes += size
        self.dirty = True


class Meters:
    """All meters of a node, by key."""

    def __init__(self, wall: Callable[[], float], clock: Callable[[], float]) -> None:
        """
        @param wall: seconds since 1970.
        @param clock: monotonic seconds.
        """
        self._wall = wall
        self._clock = clock
        self._meters: dict[str, Meter] = {}
        self._stored: Mapping[str, Usage] = {}

    def configure(self, allowances: Mapping[str, Allowance]) -> None:
        """
        Let these be in force; those without any limit are not metered.  What was
        counted so far stays.

        @param allowances: by what they are for, as problems call it.
        """
        limited = {what: allowance for what, allowance in allowances.items() if allowance != Allowance()}
        self._meters = {what: self._meters.get(what) or self._new(what) for what in limited}
        for what, allowance in limited.items():
            self._meters[what].allowance = allowance

    def _new(self, what: str) -> Meter:
        usage = self._stored.get(what, Usage(0, 0, 0))
        return Meter(what, Allowance(), 0, usage.day, usage.calls, usage.bytes)

    def load(self, stored: Mapping[str, Usage]) -> None:
        """What an earlier process has counted; before any call."""
        self._stored = stored
        allowances = {what: meter.allowance for what, meter in self._meters.items()}
        self._meters = {}
        self.configure(allowances)

    def admit(self, *whats: str | None) -> Sequence[Meter]:
        """
        One call.

        @return: what L{Meter.end} is to be called of when it is over.
        @raise Refused: it is too much for one of them; none has counted it.
        """
        meters = self._of(whats)
        if meters:
            now, wall = self._clock(), self._wall()
            for meter in meters:
                meter.check(now, wall)
            for meter in meters:
                meter.begin()
        return meters

    def resume(self, *whats: str | None) -> Sequence[Meter]:
        """As L{admit}, for a call of an earlier process that has counted it, and which goes on."""
        meters = self._of(whats)
        for meter in meters:
            meter.in_flight += 1
        return meters

    def _of(self, whats: Sequence[str | None]) -> Sequence[Meter]:
        return [meter for what in whats if what is not None and (meter := self._meters.get(what))]

    def unsaved(self) -> dict[str, Usage]:
        """What has changed since this was last called."""
        changed = {
            what: Usage(meter.day, meter.calls, meter.bytes)
            for what, meter in self._meters.items()
            if meter.dirty
        }
        for what in changed:
            self._meters[what].dirty = False
        return changed


def load(transaction: ITransaction) -> dict[str, Usage]:
    """What was saved."""
    rows = transaction.execute("SELECT meter, day, calls, bytes FROM usage").fetchall()
    return {meter: Usage(day, calls, size) for meter, day, calls, size in rows}


def save(transaction: ITransaction, usages: Mapping[str, Usage]) -> None:
    """Keep these, and forget what nobody has counted for since yesterday."""
    newest = 0
    for meter, usage in usages.items():
        newest = max(newest, usage.day)
        transaction.execute(
            "INSERT INTO usage (meter, day, calls, bytes) VALUES (?1, ?2, ?3, ?4)"
            " ON CONFLICT (meter) DO UPDATE SET day = ?2, calls = ?3, bytes = ?4",
            (meter, usage.day, usage.calls, usage.bytes),
        )
    transaction.execute("DELETE FROM usage WHERE day < ?", (newest - 1,))
