"""
How many exchanges are kept at once, and whose they are; pure.

A place is taken for long: by a request until its peer is there or its deadline, by a result until it
expires.  So, where there are several, no peer and no caller may have more places than are left for all
others (as the dynamic thresholds of Choudhury and Hahne, 1998, share a buffer): one that is greedy leaves
half of them, two leave a third.
"""

from __future__ import annotations

from hoft.web.ingress.shares import Shares

MAX_KEPT = 100_000
"""The most exchanges that are kept at once, whatever became of them."""


class Places:
    """Of one ingress."""

    def __init__(self) -> None:
        self._callers: Shares[str | None] = Shares()
        self._peers: Shares[bytes] = Shares()

    @property
    def taken(self) -> int:
        """How many are."""
        return self._peers.total

    def take(self, caller: str | None, peer: bytes) -> None:
        """One more is kept."""
        self._callers.take(caller, 1)
        self._peers.take(peer, 1)

    def free(self, caller: str | None, peer: bytes) -> None:
        """One of theirs is not kept any more."""
        self._callers.take(caller, -1)
        self._peers.take(peer, -1)

    def refusal(self, caller: str | None, callers: int, peer: bytes, name: str, peers: int) -> str | None:
        """
        Why there is no place for one more; C{None}: there is.

        @param callers: how many there are, and C{peers}.
        @param name: of the peer.
        """
        left = MAX_KEPT - self.taken
        if left <= 0:
            return f"{MAX_KEPT} requests are kept already{_REMEDY}"
        if peers > 1 and self._peers.of(peer) >= left:
            return _share(self._peers.of(peer), f"for {name}")
        if callers > 1 and self._callers.of(caller) >= left:
            return _share(self._callers.of(caller), f"of caller {caller}")
        return None


_REMEDY = ": DELETE some at /_hoft/requests/ID, or come again when some have expired"


def _share(has: int, whose: str) -> str:
    others = "which is as many as are left for all others"
    return f"{has} of the {MAX_KEPT} requests that may be kept are {whose}, {others}{_REMEDY}"
