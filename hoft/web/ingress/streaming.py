"""
A response that crosses in parts, on its way from the log to the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import evolve
from twisted.python.failure import Failure

from hoft.errors import RecordError
from hoft.interfaces import ILink
from hoft.protocols.packets import MAX_RECORD
from hoft.web.crossing.exchange import (
    Kind,
    Part,
    Side,
    body_digest,
    data_cost,
    decode_end,
    decode_message,
    decode_part,
    decode_trailers,
)
from hoft.web.crossing.reassembly import Reassembler, Taken
from hoft.web.http.fields import FieldList
from hoft.web.http.intermediary import trailers
from hoft.web.http.requests import BadResponse

CONSUME = 1 << 20
"""Bytes of one response after which its records leave the journal."""


class Sink(Protocol):
    """Where the response goes: a L{hoft.web.ingress.calls.Call}, or what is like one so far."""

    @property
    def writable(self) -> bool:
        """It takes more of the body."""

    @property
    def responding(self) -> bool:
        """It has the head."""

    def write(self, data: bytes) -> None:
        """More of the body."""


class Awaiting(Protocol):
    """Who waits for the response."""

    link: ILink
    over: bool

    @property
    def call(self) -> Sink:
        """Where it goes."""

    def headReceived(self, encoded: bytes) -> int | None:
        """
        Give the caller the head.

        @return: the length that it declares.
        @raise RecordError: it is none.
        """

    def finished(self, fields: FieldList) -> None:
        """The body was written: give the caller these trailers, and be done."""

    def contradicted(self, error: RecordError) -> None:
        """What came is not a response."""

    def unreadable(self, failure: Failure) -> None:
        """The journal did not give what is in it."""

    def handedOn(self, taken: int, accepted: int) -> None:
        """
        The caller has so much, in all, of what has come, as
        L{data_cost<hoft.web.crossing.exchange.data_cost>}: the far side may send more.
        """

    def consume(self, records: list[int]) -> None:
        """Let go of records soon."""

    def share(self) -> int:
        """Bytes of it that may be in memory now."""


class Stored(Protocol):
    """A response whose parts lie in the journal."""

    @property
    def records(self) -> Sequence[int]:
        """Their ids, in order; more may come."""


def source_of(stored: Stored) -> Callable[[int], list[Taken]]:
    """What L{ResponseStream} takes the parts from: each is yet to be fetched."""
    taken = 0

    def take(most: int) -> list[Taken]:
        nonlocal taken
        first, records = taken, stored.records[taken : taken + max(1, most // MAX_RECORD)]
        taken += len(records)
        return [Taken(record, number, None) for number, record in enumerate(records, first)]

    return take


class ResponseStream:
    """
    Puts the parts into order and hands the caller as much as it takes.  Of the others a share is
    in memory and as much at most is fetched at once; the rest stays in the journal.
    """

    def __init__(self, waiting: Awaiting, source: Callable[[int], Sequence[Taken]] | None = None) -> None:
        """@param source: gives the next parts, as L{Reassembler.take} does, where nothing is to be added."""
        self._waiting = waiting
        self._reassembler = Reassembler(Side.EGRESS)
        self._source = source or self._reassembler.take
        self._ready: deque[Taken] = deque()
        self._fetching = False
        self._advancing = False
        self._pieces: list[bytes] = []
        self._digest = body_digest()
        self._trailers: FieldList = []
        self._spent: list[int] = []
        self._spent_size = 0
        self._taken = 0
        self._left: int | None = None
        self._last = b""

    @property
    def handed_on(self) -> int:
        """What of the credit was used up by DATA that the caller has."""
        return self._taken

    def add(self, record: int, part: Part) -> None:
        """
        A part has come; L{advance} follows once all that came with it were given.

        @raise RecordError: it contradicts the others; its record is yet to be consumed.
        """
        self._reassembler.hold = self._waiting.share()
        if not self._reassembler.add(record, part):
            self._waiting.consume([record])

    @property
    def accepted(self) -> int:
        """What of the credit was used up by all that has come."""
        return self._reassembler.accepted

    def drain(self) -> list[int]:
        """Give it up, or be done: the records of all that came, to be consumed."""
        records = self._spent + [taken.record for taken in self._ready] + self._reassembler.drain()
        self._spent = []
        self._ready.clear()
        return records

    def advance(self) -> None:
        """Hand the caller as much of the response as is here and it takes."""
        if self._advancing:
            return
        self._advancing = True
        waiting = self._waiting
        try:
            while not waiting.over and (waiting.call.writable or not waiting.call.responding):
                if not self._ready:
                    self._ready.extend(self._source(waiting.share()))
                    if not self._ready:
                        break
                taken = self._ready[0]
                if taken.part is None:
                    self._fetch()
                    break
                self._ready.popleft()
                self._take(taken.record, taken.part)
        except RecordError as error:
            waiting.contradicted(error)
        except BadResponse as error:
            waiting.contradicted(RecordError(str(error)))
        finally:
            self._advancing = False
        if not waiting.over:
            waiting.handedOn(self._taken, self._reassembler.accepted)
            if self._spent_size >= CONSUME:
                waiting.consume(self._spent)
                self._spent, self._spent_size = [], 0

    def _fetch(self) -> None:
        """Read what is ready but not in memory."""
        if self._fetching:
            return
        self._fetching = True
        missing = [taken.record for taken in self._ready if taken.part is None]
        self._waiting.link.read(missing).addCallbacks(self._fetched, self._not_fetched)

    def _fetched(self, payloads: list[bytes]) -> None:
        self._fetching = False
        if self._waiting.over:
            return
        found = iter(payloads)
        try:
            self._ready = deque(
                taken if taken.part is not None else evolve(taken, part=decode_part(next(found)))
                for taken in self._ready
            )
        except RecordError as error:
            self._waiting.contradicted(error)
        else:
            self.advance()

    def _not_fetched(self, failure: Failure) -> None:
        self._fetching = False
        if not self._waiting.over:
            self._waiting.unreadable(failure)

    def _take(self, record: int, part: Part) -> None:
        self._spent.append(record)
        self._spent_size += part.size
        if part.kind is Kind.DATA:
            self._data(part.body)
        elif part.kind is Kind.HEAD:
            self._pieces.append(part.body)
            if not part.more:
                self._left = self._waiting.headReceived(b"".join(self._pieces))
        elif part.kind is Kind.TRAILERS:
            self._trailers = trailers(decode_trailers(part))
        elif part.kind is Kind.MESSAGE:
            head, body = decode_message(part)
            self._waiting.headReceived(head)
            self._waiting.call.write(body)
            self._waiting.finished([])
        elif decode_end(part).digest != self._digest.digest():
            raise RecordError("a body that is not the one that was sent")
        else:
            self._waiting.call.write(self._last)
            self._waiting.finished(self._trailers)

    def _data(self, body: bytes) -> None:
        self._digest.update(body)
        self._taken += data_cost(len(body))
        if self._left is not None:
            self._left -= len(body)
        if self._left == 0:
            # With these bytes the caller would take the response for complete: END is to prove it first.
            self._last = body
        else:
            self._waiting.call.write(body)
