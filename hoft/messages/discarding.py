"""
Commits that only let go of something, of one link.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import JournalFull, LinkClosed
from hoft.interfaces import ILink
from hoft.messages.ledger import Note


class Discards:
    """A disk may be too full even for that: then it is done once there is room."""

    _log = Logger()

    def __init__(self, link: ILink, again: Callable[[], None]) -> None:
        """@param again: asks for L{tick} to be called later."""
        self._link = link
        self._again = again
        self._refused: list[tuple[int, Sequence[int], Note | None]] = []
        self._logs = 0

    def commit(self, consume: Sequence[int], note: Note | None) -> None:
        """
        @param consume: received records.
        @param note: what is written with it, if that is still of the present log.
        """
        logs = self._logs

        def failed(failure: Failure) -> None:
            if failure.check(JournalFull):
                self._refused.append((logs, consume, note))
                self._again()
            elif not failure.check(LinkClosed):
                self._log.failure("The journal did not take a commit", failure)

        self._link.commit((), consume, note).addErrback(failed)

    def tick(self) -> None:
        """Try again what was refused."""
        refused, self._refused = self._refused, []
        for logs, consume, note in refused:
            self.commit(consume, note if logs == self._logs else None)

    def rolled_back(self) -> None:
        """The log begins anew, and all counting with it."""
        self._logs += 1
