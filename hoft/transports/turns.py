"""
Whose file is read next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from uuid import UUID

from hoft.transports.reading import InboundFile, State


class Turns:
    """
    Who is next: one file of each sender in turn.  Those that are not among our
    peers share one turn, so that many false names gain nothing.

    @param known: whether a UUID is a peer's.
    """

    def __init__(self, known: Callable[[UUID], bool]) -> None:
        self._known = known
        self._queues: dict[UUID | None, deque[InboundFile]] = {}
        self.waiting = 0

    def sender(self, file: InboundFile) -> UUID | None:
        """On whose turn a file is read."""
        sender = file.entry.name.sender
        return sender if sender is not None and self._known(sender) else None

    def push(self, file: InboundFile) -> None:
        """Let it wait, behind its sender's other files."""
        self._queues.setdefault(self.sender(file), deque()).append(file)
        self.waiting += 1

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
            file = queue.popleft()
            self.waiting -= 1
            del self._queues[sender]
            if queue:
                self._queues[sender] = queue  # at the end: the others come first
            if file.state is State.READY:
                return file
        return None

    def others(self, sender: UUID | None) -> bool:
        """Whether anybody but C{sender} waits."""
        return any(other != sender for other in self._queues)
