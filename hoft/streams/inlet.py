"""What comes in on one end of a stream, on its way to the protocol: as fast as that takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.streams.halves import Receiving, Taken
from hoft.streams.parts import decode
from hoft.streams.surroundings import Surroundings

TURN = 1 << 20
"""Bytes handed to a protocol before others have their turn."""

FETCHED = 256 << 10
"""Bytes read back from the journal at once."""


class Owner(Protocol):
    """Whose inlet it is: L{hoft.streams.stream.Stream}."""

    @property
    def taking(self) -> bool:
        """There is a protocol that takes what comes."""

    def hand_on(self, data: bytes) -> None:
        """Give this to the protocol; raises nothing."""

    def let_go(self, records: Iterable[int]) -> None:
        """These are of no use any more."""

    def grant(self, total: int) -> None:
        """Tell the peer to send so much, in all."""

    def settle(self) -> None:
        """Something was handed on, or could not be."""

    def reset(self, reason: str) -> None:
        """Give the stream up."""


class Inlet:
    """One end's."""

    _log = Logger()

    def __init__(self, around: Surroundings, owner: Owner) -> None:
        self._around = around
        self._owner = owner
        self._receiving = Receiving(around.hold, around.windows)
        self._next: deque[Taken] = deque()
        """In order, and not handed on."""
        self._fetching = False
        self._advancing = False
        self.paused = False
        """Nothing is to be handed on now."""

    @property
    def complete(self) -> bool:
        """No more need come."""
        return self._receiving.over

    @property
    def over(self) -> bool:
        """And all of it was handed on."""
        return self._receiving.over and not self._next and not self._fetching

    @property
    def taken(self) -> int:
        """Bytes that were on their way to the protocol, or are there."""
        return self._receiving.taken

    def add(self, record: int, offset: int, body: bytes) -> None:
        """
        DATA has come.

        @raise RecordError: it contradicts what came before, or was not granted.
        """
        if self._receiving.add(record, offset, body):
            self.advance()
        else:
            self._owner.let_go([record])

    def end(self, total: int) -> None:
        """
        The peer sends so many bytes in all; call L{advance}.

        @raise RecordError: it has said something else, or sent more.
        """
        self._receiving.end(total)

    def drop(self) -> list[int]:
        """
        Nothing more is wanted.

        @return: the records of what was not handed on.
        """
        records = [taken.record for taken in self._next] + self._receiving.stop()
        self._next.clear()
        return records

    def advance(self) -> None:
        """Hand on what is there, unless the protocol has enough."""
        if self._advancing:
            return
        self._advancing = True
        left, owner = TURN, self._owner
        try:
            while owner.taking and not self.paused and not self._fetching:
                self._next.extend(() if self._next else self._receiving.take(1))
                if not self._next:
                    break
                if left <= 0:
                    self._around.later(self.advance)
                    break
                taken = self._next[0]
                if taken.body is None:
                    self._fetch()
                    break
                self._next.popleft()
                left -= taken.size
                self._around.counts["bytes_received"] += taken.size
                owner.let_go([taken.record])
                total = self._receiving.grant()
                if total is not None:
                    owner.grant(total)
                owner.hand_on(taken.body)
        finally:
            self._advancing = False
        owner.settle()

    def _fetch(self) -> None:
        """Read back what there was no room for when it came."""
        self._fetching = True
        self._next.extend(self._receiving.take(FETCHED))
        wanted = [taken.record for taken in self._next if taken.body is None]

        def came(payloads: list[bytes]) -> None:
            self._fetching = False
            bodies = dict(zip(wanted, payloads, strict=True))
            self._next = deque(
                Taken(one.record, one.size, decode(bodies[one.record]).body) if one.body is None else one
                for one in self._next
            )
            self.advance()

        def failed(failure: Failure) -> None:
            self._log.warn("{owner!r}: {error}", owner=self._owner, error=failure.getErrorMessage())
            self._owner.reset("what was received cannot be read back")

        self._around.read(wanted).addCallbacks(came, failed)
