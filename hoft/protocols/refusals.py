"""
Files that were not accepted.  All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from hoft.errors import PacketError
from hoft.recurring import Recurring


class Refusals:
    """
    They are counted, and told in the log: who fills the folder with forgeries does not fill that.

    @ivar counts: by reason.
    """

    _log = Logger()

    def __init__(self, clock: Callable[[], float]) -> None:
        """@param clock: monotonic seconds."""
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._last: dict[str, tuple[str, float]] = {}
        # By peer and reason: what a file says of its sender counts only where that is a peer.
        self._recurring = Recurring[tuple[str, str]](self._tell)

    def add(self, name: str, peer: str, error: PacketError) -> None:
        """
        @param name: the file's.
        @param peer: whose it says it is, as our configuration calls that; C{""}: no peer's.
        """
        now, reason = self._clock(), error.reason.value
        self.counts[reason] += 1
        self._last[reason] = (f"{name}: {error}", now)
        self._recurring.came((peer, reason), f"{name} is refused: {error}", now)

    def look(self) -> None:
        """To be called now and then: say what there is to say."""
        self._recurring.look(self._clock())

    def _tell(self, kind: tuple[str, str], what: str, more: int) -> None:
        if more > 1:
            self._log.info(
                "{what}; so were {others} other files{whose} since the last that was named",
                what=what,
                others=more - 1,
                whose=f" of {kind[0]}" if kind[0] else "",
            )
        else:
            self._log.info("{what}", what=what)

    def last(self) -> dict[str, dict[str, Any]]:
        """By reason, the last file, and how many seconds ago that was; ready for JSON."""
        now = self._clock()
        return {
            reason: {"example": example, "ago": round(now - at, 3)}
            for reason, (example, at) in self._last.items()
        }
