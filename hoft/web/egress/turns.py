"""
Whose turn it is at the services: requests of one peer that are complete, and those that are performed; pure.

Each service has so many turns of its own, and they take turns with each other, so that
one which does not answer for hours holds up those who want it, and nobody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """
    @ivar running: how many have a turn now.
    @ivar queued: how many wait for one.
    """

    def __init__(self) -> None:
        self.running = 0
        self.queued = 0
        self._queues: dict[Hashable, deque[T]] = {}
        """By service; none is empty."""
        self._taken: dict[Hashable, int] = {}

    def of(self, service: Hashable) -> int:
        """How many have a turn at this one."""
        return self._taken.get(service, 0)

    def enqueue(self, service: Hashable, one: T) -> None:
        """It wants one."""
        self._queues.setdefault(service, deque()).append(one)
        self.queued += 1

    def withdraw(self, service: Hashable, one: T) -> None:
        """If it waits for one, it does not want it any more."""
        queue = self._queues.get(service)
        if queue is not None and one in queue:
            queue.remove(one)
            self.queued -= 1
            if not queue:
                del self._queues[service]

    def clear(self) -> None:
        """Nobody waits any more."""
        self._queues.clear()
        self.queued = 0

    def take(self, each: int, all: int) -> T | None:
        """
        Give the next its turn.

        @param each: how many have one at most at one service, and C{all}, at all together.
        """
        if self.running >= all:
            return None
        for service, queue in self._queues.items():
            if self.of(service) < each:
                one = queue.popleft()
                del self._queues[service]
                if queue:
                    self._queues[service] = queue  # after the others
                self.queued -= 1
                self.running += 1
                self._taken[service] = self.of(service) + 1
                return one
        return None

    def release(self, service: Hashable) -> None:
        """One has had its turn."""
        self.running -= 1
        self._taken[service] -= 1
        if not self._taken[service]:
            del self._taken[service]
