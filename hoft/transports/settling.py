"""
When a file that ends early is judged to be truncated, rather than late.

Nothing but its content tells a complete file; these rules only say how long to
wait for the rest.  Too short costs a retransmission, too long costs time.
"""

from __future__ import annotations

from collections import deque

ZERO_TAIL = 16
"""
So many zero bytes at a file's end count as space that was reserved and not yet
written.  Fewer may well be data: one sealed file in 256 ends with a zero byte,
one in 2^128 with sixteen.  Once the file has settled, that many of them are
handed over.
"""

SETTLE = 0.25
"""Seconds without change after which a file may have settled, at the least."""

LONGEST_SETTLE = 60.0
"""Seconds: what growth in slow steps can raise the wait to, at the most."""

_SAMPLES = 64
_FEWEST = 4


def without_zero_tail(data: bytes) -> bytes:
    """C{data} without the zeros at its end, if there are L{ZERO_TAIL} or more of them."""
    if not data.endswith(bytes(ZERO_TAIL)):
        return data
    return data.rstrip(b"\0")


class Settling:
    """
    How long a file must be unchanged to count as settled, learned from how files grew.

    @param polls: seconds that two looks at the folder take; a file whose
        writer was not seen to close it must stay unchanged that long.
    """

    def __init__(self, polls: float) -> None:
        self._polls = polls
        self._gaps: deque[float] = deque(maxlen=_SAMPLES)
        self._slow = 0.0

    def grew(self, gap: float) -> None:
        """A file grew, C{gap} seconds after it was last seen to change."""
        self._gaps.append(gap)
        if len(self._gaps) >= _FEWEST:
            ordered = sorted(self._gaps)
            self._slow = min(4 * ordered[(len(ordered) * 95 - 1) // 100], LONGEST_SETTLE)

    def wait(self, closed: bool) -> float:
        """
        Seconds without change to wait for.

        @param closed: the system told us that its writer closed or renamed it
            after the last change.
        """
        return max(SETTLE, self._slow, 0.0 if closed else self._polls)
