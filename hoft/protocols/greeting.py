"""
When a peer is written to though there is nothing to send it: before it is known in this boot, and
in long silences; pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hoft.protocols.settings import Settings
from hoft.protocols.synchronisation import random64
from hoft.protocols.timing import RoundTrips

HELLOS_EVERY = 2.0
"""Seconds from one time to the next at which a node with many peers greets some."""


class Greeting:
    """
    Of a peer that is not known in this boot, or in doubt.

    @ivar settings: the link's.
    @ivar due: (clock) when the next goes out.
    """

    def __init__(
        self, settings: Settings, round_trips: RoundTrips, entropy: Callable[[int], bytes], now: float
    ) -> None:
        self.settings = settings
        self._round_trips = round_trips
        self._entropy = entropy
        self._sent = 0
        self._met = False
        self._written_at: float | None = None
        self.due = self._first(now)

    def _first(self, now: float) -> float:
        spread = self.settings.hello_spread
        if not spread:
            return now
        at = now + spread * random64(self._entropy) / (1 << 64)
        # Several together cost less than each at a time of its own.
        return math.ceil(at / HELLOS_EVERY) * HELLOS_EVERY

    def sent(self, now: float) -> None:
        """One goes out because it is due."""
        settings = self.settings
        wait = settings.hello_first * self._round_trips.backoff(self._sent)
        if not self._met:
            wait = max(wait, settings.hello_spread * 2.0 ** min(self._sent, 40))
        self.due = now + min(wait, settings.timing.probe_longest)
        self._sent += 1

    def written(self, now: float) -> None:
        """A packet goes out to a peer that is not known yet."""
        if self._written_at is None:
            self._written_at = now

    def met(self, now: float) -> None:
        """Something of the peer's has authenticated."""
        if not self._met:
            self._met = True
            self.due = min(self.due, now + self.settings.hello_first)

    def answered(self, now: float) -> None:
        """The peer is known."""
        if self._written_at is not None:
            self._round_trips.answered_within(now - self._written_at)

    @property
    def begun(self) -> bool:
        """One was sent, and the peer may be about to answer."""
        return self._sent > 0

    def hurry(self, now: float) -> None:
        """It matters now."""
        self.due = min(self.due, now)

    def begin_anew(self, now: float) -> None:
        """What the peer was told and has answered counts no more."""
        self.due = now
        self._sent = 0

    def reincarnated(self, now: float) -> None:
        """Nor is it known how long it takes to answer."""
        self._written_at = None
        self.begin_anew(now)

    def resume(self, now: float) -> None:
        """The carrier works again."""
        self.due = now if self._met else self._first(now)


class Heartbeat:
    """
    Of a peer that is known and silent.

    @ivar settings: the link's.
    @ivar last_heard: (clock) when it was; None: not in this boot.
    @ivar unanswered: how often it was asked for since then.
    """

    def __init__(self, settings: Settings, round_trips: RoundTrips, now: float) -> None:
        self.settings = settings
        self.last_heard: float | None = None
        self._round_trips = round_trips
        self._from = now
        self.unanswered = 0

    def heard(self, now: float) -> None:
        """A sign of life."""
        self.last_heard = self._from = now
        self.unanswered = 0

    @property
    def due(self) -> float | None:
        """(clock) When to ask for one; None is never."""
        every = self.settings.heartbeat
        if not every:
            return None
        longest = max(self.settings.timing.probe_longest, every)
        return self._from + min(every * self._round_trips.backoff(self.unanswered), longest)

    def sent(self, now: float) -> None:
        """It is asked for."""
        self._from = now
        self.unanswered += 1

    def silence(self, now: float) -> float:
        """Seconds for which the answer is overdue."""
        return 0.0 if self.last_heard is None else now - self.last_heard - self.settings.heartbeat
