"""
A kept response on its way from the journal to somebody else than a caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from hoft.errors import RecordError
from hoft.interfaces import ILink
from hoft.protocols.packets import MAX_RECORD
from hoft.web.fields import FieldList
from hoft.web.heads import ResponseHead, decode_response
from hoft.web.keeping import Kept
from hoft.web.reassembly import Taken
from hoft.web.streaming import ResponseStream

SHARE = 1 << 18
"""Bytes of one that are in memory at a time."""


@implementer(IBodyProducer)
class KeptResponse:
    """
    Reads a response from its head to its end, as often as it is asked to; a
    L{hoft.web.streaming.Awaiting}, and its own sink.

    @ivar head: of the response, once a reading has come so far.
    @ivar length: bytes of the body, as the last reading found.
    """

    def __init__(self, kept: Kept, link: ILink) -> None:
        """@param kept: is done, and stays so."""
        self.id = kept.id
        self.link = link
        self.over = True
        self.head: ResponseHead | None = None
        self.length: Any = 0
        self._kept = kept
        self._size = 0
        self._taken = 0
        self._paused = False
        self._begun = False
        self._write: Callable[[bytes], None]
        self._stream: ResponseStream
        self._done: Deferred[None]

    def read(self, write: Callable[[bytes], None]) -> Deferred[None]:
        """
        Hand the body to C{write}, piece by piece, the last one only after the digest
        of them all was found to be right.

        @return: fires after the last piece; fails with L{PayloadLost<hoft.errors.PayloadLost>} or
            L{RecordError} if there is no such response; may be cancelled.
        """
        self._write = write
        self._size = self._taken = 0
        self._paused = self._begun = self.over = False
        done = self._done = Deferred(lambda _: self.stopProducing())
        self._stream = ResponseStream(self, self._take)
        self._stream.advance()
        return done

    def _take(self, most: int) -> list[Taken]:
        first = self._taken
        records = self._kept.records[first : first + max(1, most // MAX_RECORD)]
        self._taken += len(records)
        return [Taken(record, first + at, None) for at, record in enumerate(records)]

    # --- IBodyProducer ------------------------------------------------------------------

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        return self.read(consumer.write)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if not self.over:
            self._stream.advance()

    def stopProducing(self) -> None:
        self.over = True

    # --- Awaiting, and its Sink -----------------------------------------------------------

    @property
    def call(self) -> KeptResponse:
        return self

    @property
    def writable(self) -> bool:
        return not self._paused

    @property
    def responding(self) -> bool:
        return self._begun

    def write(self, data: bytes) -> None:
        if data:
            self._size += len(data)
            self._write(data)

    def headReceived(self, encoded: bytes) -> int | None:
        self.head = head = decode_response(encoded)
        self._begun = True
        # The length that a response to HEAD has is of a body which is not there.
        return 0 if self._kept.method == b"HEAD" else head.length

    def finished(self, fields: FieldList) -> None:
        self.over = True
        self.length = self._size
        self._done.callback(None)

    def contradicted(self, error: RecordError) -> None:
        self._fail(Failure(error))

    def unreadable(self, failure: Failure) -> None:
        self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        self.over = True
        self._done.errback(failure)

    def send(self, payload: bytes) -> None:
        """All that was sent is here."""

    def consume(self, records: list[int]) -> None:
        """It stays."""

    def share(self) -> int:
        return SHARE
