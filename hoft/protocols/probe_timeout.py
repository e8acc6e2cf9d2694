"""
When to ask a silent peer for a sign of life (RFC 9002 section 6.2); pure.
"""

from __future__ import annotations

from hoft.protocols.timing import RoundTrips


class ProbeTimeout:
    """
    It runs while something waits for the peer.

    @ivar unanswered: how many probes were sent since anything was heard.
    """

    def __init__(self, round_trips: RoundTrips) -> None:
        self.unanswered = 0
        self._round_trips = round_trips
        self._heard_at = float("-inf")
        self._probed_at = float("-inf")

    def wait(self, now: float) -> None:
        """From now on something is under way, and nothing was before: its silence begins."""
        self._heard_at = max(self._heard_at, now)

    def heard(self, now: float) -> None:
        """What is under way was heard of."""
        self._heard_at = now
        self.unanswered = 0

    def probed(self, now: float) -> None:
        """A probe goes out."""
        self._probed_at = now
        self.unanswered += 1

    def resume(self, now: float) -> None:
        """Nothing could be heard before."""
        self._heard_at = now

    def due(self, size: int) -> float:
        """
        When to probe unless something is heard.

        @param size: bytes of the packet that is waited for.
        """
        wait = self._round_trips.probe_after(self.unanswered, size)
        return max(self._heard_at, self._probed_at) + wait

    def silence(self, now: float) -> float:
        """Seconds since something was heard."""
        return now - self._heard_at
