"""
How long to wait before a packet counts as lost; pure.

The estimator is that of RFC 6298 with three changes.  File carriers have heavy
tails, so the 99th percentile of recent samples also bounds the timeout; a verdict
that turns out wrong makes it longer, for a while, as in RFC 8985 (section 6.2); and
large packets are given the time that their size takes.  Only receipts give samples
(a record may be sent many times, a packet only once), so Karn's ambiguity does
not arise.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

from attrs import frozen

from hoft.protocols.estimates import Estimates

SAMPLES = 256
PATIENCE = 4
"""Unanswered probes before the waits between them grow."""
RATES = 64
"""Samples of the carrier's speed; the highest counts, since most are of a carrier with little to do."""

LOWEST_RISES = 1.001
"""A sample: slower than files can pile up in a carrier, so that a pile is never taken for the rule."""

REORDERING_STEP = 1.1
REORDERING_MOST = 2.0
REORDERING_KEPT = 0.998
"""How much of the caution that a wrong verdict has brought is left after each sample."""


@frozen
class TimingSettings:
    """Seconds; see C{docs/protocol.rst}, "Timers"."""

    first: float = 20.0
    """The timeout before anything is known of the carrier."""
    shortest: float = 0.2
    longest: float = 3600.0
    probe_longest: float = 900.0
    probe_factor: float = 1.5
    ack_shortest: float = 0.025
    """Less, and on a fast carrier files that only acknowledge one call get into the way of the next."""
    ack_longest: float = 1.0


class RoundTrips:
    """Round trip times of one link and the waits that follow from them."""

    def __init__(self, settings: TimingSettings, known: Estimates | None = None) -> None:
        """@param known: from an earlier process."""
        self._settings = settings
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._rates: deque[float] = deque(maxlen=RATES)
        self._reordering = 1.0
        self._hold = 0.0
        self._wait = 0.0
        self._bandwidth = float("inf")
        self._first = settings.first
        self.smoothed: float | None = None
        self.variation = 0.0
        self.lowest: float | None = None
        """The shortest round trip, with nothing waiting; it rises slowly where none is as short any more."""
        if known is not None:
            self.smoothed = known.smoothed
            self.variation = known.variation
            self._recent.append(known.slowest)
            self._sorted.append(known.slowest)
            self._estimate()

    def answered_within(self, seconds: float) -> None:
        """
        A greeting was answered within C{seconds}, or sooner: which of several it
        was is not known, so this is no sample, but it bounds the first timeout.
        """
        self._first = min(self._first, max(2 * seconds, self._settings.shortest))

    def sample(self, seconds: float, hold: float = 0.0) -> None:
        """
        One packet took C{seconds} there and its receipt back.

        @param hold: seconds for which the peer held it before that, not included.
        """
        seconds = max(seconds, 0.0)
        self._reordering = 1 + (self._reordering - 1) * REORDERING_KEPT
        # Smoothed, since a receipt that is heard only when it is repeated was held for any time.
        self._hold += (min(hold, self._settings.ack_longest) - self._hold) / 8
        if self.smoothed is None:
            self.smoothed = seconds
            self.variation = seconds / 2
        else:
            self.variation += (abs(self.smoothed - seconds) - self.variation) / 4
            self.smoothed += (seconds - self.smoothed) / 8
        if len(self._recent) == SAMPLES:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        self.lowest = seconds if self.lowest is None else min(self.lowest * LOWEST_RISES, seconds)
        self._estimate()

    def rate(self, bytes_per_second: float, busy: bool = True) -> None:
        """
        While a packet was under way, so much arrived.

        @param busy: there was more to send, so that this is what the carrier can do.
        """
        if busy or bytes_per_second > self._bandwidth:
            self._rates.append(bytes_per_second)
            self._bandwidth = max(max(self._rates), 1.0)

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second that the carrier was seen to bring lately."""
        return self._bandwidth if self._rates else None

    def in_a_round_trip(self) -> float:
        """Bytes that the carrier brings in one, as far as that is known."""
        return self._bandwidth * self.smoothed if self._rates and self.smoothed is not None else 0.0

    def spurious(self) -> None:
        """A packet that counted as lost has arrived after all."""
        self._reordering = min(self._reordering * REORDERING_STEP, REORDERING_MOST)
        self._estimate()

    @property
    def slowest(self) -> float:
        """Seconds: all but one in a hundred of the recent round trips were as short."""
        return self._sorted[min(len(self._sorted) - 1, (len(self._sorted) * 99) // 100)]

    def _estimate(self) -> None:
        if self.smoothed is not None:
            wait = max(self.smoothed + 4 * self.variation, 1.125 * self.slowest) * self._reordering
            self._wait = wait + max(self.ack_delay(), 2 * self._hold)

    def timeout(self, size: int = 0) -> float:
        """
        Seconds after which a packet that others have overtaken counts as lost.

        @param size: its bytes.
        """
        if self.smoothed is None:
            return self._first
        wait = self._wait + size / self._bandwidth
        return min(max(wait, self._settings.shortest), self._settings.longest)

    def probe_after(self, unanswered: int, size: int = 0) -> float:
        """
        Seconds of silence after which to probe, once C{unanswered} probes had no answer.

        @param size: bytes of the packet that is waited for.
        """
        timeout = self.timeout(size)
        if unanswered <= PATIENCE:
            return timeout
        return min(timeout * self.backoff(unanswered), max(self._settings.probe_longest, timeout))

    def backoff(self, unanswered: int) -> float:
        """
        By what to lengthen a wait after so many questions without an answer.  A
        carrier that loses a third each way leaves half of them unanswered: the
        first few say nothing of an outage.
        """
        if unanswered <= PATIENCE:
            return 1.0
        longer: float = self._settings.probe_factor ** min(unanswered - PATIENCE, 40)
        return longer

    def ack_delay(self) -> float:
        """Seconds an acknowledgement may wait for company."""
        if self.smoothed is None:
            return self._settings.ack_shortest
        return min(max(self.smoothed / 16, self._settings.ack_shortest), self._settings.ack_longest)
