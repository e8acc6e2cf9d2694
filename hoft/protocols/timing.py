"""
How long to wait before a packet counts as lost; pure.

The estimator is that of RFC 6298 with one change: file carriers have heavy
tails, so the 99th percentile of recent samples also bounds the timeout.  Only
packets that answer a receipt give samples (a record may be sent many times, a
packet only once), so Karn's ambiguity does not arise.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

from attrs import frozen

SAMPLES = 256


@frozen
class TimingSettings:
    """Seconds; see C{docs/protocol.rst}, "Timers"."""

    first: float = 20.0
    """The timeout before anything is known of the carrier."""
    shortest: float = 0.2
    longest: float = 3600.0
    probe_longest: float = 900.0
    probe_factor: float = 1.5
    ack_shortest: float = 0.005
    ack_longest: float = 1.0


class RoundTrips:
    """Round trip times of one link and the waits that follow from them."""

    def __init__(self, settings: TimingSettings) -> None:
        self._settings = settings
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self.smoothed: float | None = None
        self.variation = 0.0

    def sample(self, seconds: float) -> None:
        """One packet took C{seconds} there and its receipt back, the peer's holding time excluded."""
        seconds = max(seconds, 0.0)
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

    def timeout(self) -> float:
        """Seconds after which a packet that others have overtaken counts as lost."""
        if self.smoothed is None:
            return self._settings.first
        slowest = self._sorted[min(len(self._sorted) - 1, (len(self._sorted) * 99) // 100)]
        wait = max(self.smoothed + 4 * self.variation, 1.125 * slowest)
        return min(max(wait + self.ack_delay(), self._settings.shortest), self._settings.longest)

    def probe_after(self, unanswered: int) -> float:
        """Seconds of silence after which to probe, once C{unanswered} probes had no answer."""
        backed_off: float = self.timeout() * self._settings.probe_factor ** min(unanswered, 40)
        return min(backed_off, max(self._settings.probe_longest, self.timeout()))

    def ack_delay(self) -> float:
        """Seconds an acknowledgement may wait for company."""
        if self.smoothed is None:
            return self._settings.ack_shortest
        return min(max(self.smoothed / 16, self._settings.ack_shortest), self._settings.ack_longest)
