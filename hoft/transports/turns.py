"""
Whose file is read next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from uuid import UUID

from hoft.transports.reading import InboundFile, State

CROWD = 4
"""More files of a sender than this, and it is worth knowing which are short."""

IN_A_ROW = 16
"""So many short files at most before one that has waited longer."""


class Turns:
    """
    Who is next: one file of each sender in turn.  Those that are not among our
    peers share one turn, so that many false names gain nothing.  What is short among a
    sender's goes first, but for every L{IN_A_ROW}th turn.

    @param known: whether a UUID is a peer's.
    """

    def __init__(self, known: Callable[[UUID], bool]) -> None:
        self._known = known
        self._queues: dict[UUID | None, deque[InboundFile]] = {}
        self._short: dict[UUID | None, deque[InboundFile]] = {}
        self._in_a_row = 0
        self.waiting = 0

    def sender(self, file: InboundFile) -> UUID | None:
        """On whose turn a file is read."""
        sender = file.entry.name.sender
        return sender if sender is not None and self._known(sender) else None

    def push(self, file: InboundFile) -> None:
        """Let it wait, behind its sender's other files."""
        self._queues.setdefault(self.sender(file), deque()).append(file)
        self.waiting += 1

    def behind_others(self, file: InboundFile) -> bool:
        """Whether many files of its sender wait before this one."""
        return len(self._queues.get(self.sender(file), ())) > CROWD

    def hurry(self, file: InboundFile) -> None:
        """It waits, and is short: its turn comes before those of its sender's others."""
        self._short.setdefault(self.sender(file), deque()).append(file)

    def give_up(self, file: InboundFile) -> None:
        """Let it wait before its sender's other files, but behind all other senders."""
        sender = self.sender(file)
        queue = self._queues.pop(sender, deque())
        queue.appendleft(file)
        self._queues[sender] = queue
        self.waiting += 1

    def pop(self) -> InboundFile | None:
        """The next file; those that went away meanwhile are passed over."""
        while self._queues:
            sender, queue = next(iter(self._queues.items()))
            short = self._pop_short(sender) if self._in_a_row < IN_A_ROW else None
            self._in_a_row = 0 if short is None else self._in_a_row + 1
            if short is not None:
                if len(self._queues) > 1:
                    self._queues[sender] = self._queues.pop(sender)
                return short
            file = queue.popleft()
            self.waiting -= 1
            del self._queues[sender]
            if queue:
                self._queues[sender] = queue  # at the end: the others come first
            else:
                self._short.pop(sender, None)
            if file.state is State.READY:
                return file
        return None

    def pop_short(self) -> InboundFile | None:
        """The next of those that are short, whoever sent it; it is nobody's turn."""
        for sender in list(self._short):
            short = self._pop_short(sender)
            if short is not None:
                return short
        return None

    def _pop_short(self, sender: UUID | None) -> InboundFile | None:
        # It stays where it was in the other queue, where it is passed over.
        queue = self._short.get(sender)
        while queue:
            file = queue.popleft()
            if file.state is State.READY:
                return file
        return None

    def others(self, sender: UUID | None) -> bool:
        """Whether anybody but C{sender} waits."""
        return any(other != sender for other in self._queues)
