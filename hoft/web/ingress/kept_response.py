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
from hoft.web.http.fields import FieldList
from hoft.web.http.heads import ResponseHead, decode_response
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.streaming import ResponseStream, source_of

SHARE = 1 << 18
"""Bytes of one that are in memory at a time."""


class _Reading:
    """One reading; a L{hoft.web.ingress.streaming.Awaiting}, and its own sink."""

    def __init__(
        self, kept: Kept, link: ILink, write: Callable[[bytes], None], taken: Callable[[], None]
    ) -> None:
        self.id = kept.id
        self.link = link
        self.over = False
        self.head: ResponseHead | None = None
        self.size = 0
        self.done: Deferred[_Reading] = Deferred(lambda _: self.stop())
        self._write = write
        self._tell = taken
        self._paused = False
        self._stream = ResponseStream(self, source_of(kept))

    def advance(self) -> None:
        if not self.over:
            self._stream.advance()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self.advance()

    def stop(self) -> None:
        self.over = True

    # --- Sink ---------------------------------------------------------------------------

    @property
    def call(self) -> _Reading:
        return self

    @property
    def writable(self) -> bool:
        return not self._paused

    @property
    def responding(self) -> bool:
        return self.head is not None

    def write(self, data: bytes) -> None:
        if data:
            self.size += len(data)
            self._write(data)
            self._tell()

    # --- Awaiting -----------------------------------------------------------------------

    def headReceived(self, encoded: bytes) -> int | None:
        self.head = head = decode_response(encoded)
        return head.length

    def finished(self, fields: FieldList) -> None:
        self.over = True
        self.done.callback(self)

    def contradicted(self, error: RecordError) -> None:
        self.unreadable(Failure(error))

    def unreadable(self, failure: Failure) -> None:
        self.over = True
        self.done.errback(failure)

    def handedOn(self, taken: int, accepted: int) -> None:
        """All of it is here."""

    def consume(self, records: list[int]) -> None:
        """It stays."""

    def share(self) -> int:
        return SHARE


@implementer(IBodyProducer)
class KeptResponse:
    """
    Reads a response from its head to its end, as often as it is asked to.

    @ivar head: of the response, after a reading.
    @ivar length: bytes of the body, as the last reading found.
    """

    def __init__(self, kept: Kept, link: ILink, taken: Callable[[], None]) -> None:
        """
        @param kept: is done, and stays so.
        @param taken: called after each piece.
        """
        self.head: ResponseHead | None = None
        self.length: Any = 0
        self._kept = kept
        self._link = link
        self._tell = taken
        self._reading: _Reading | None = None

    def read(self, write: Callable[[bytes], None]) -> Deferred[None]:
        """
        Hand the body to C{write}, piece by piece, the last one only after the digest
        of them all was found to be right.

        @return: fires after the last piece; fails with L{PayloadLost<hoft.errors.PayloadLost>} or
            L{RecordError} if there is no such response; may be cancelled.
        """
        reading = self._reading = _Reading(self._kept, self._link, write, self._tell)
        reading.advance()
        return reading.done.addCallback(self._read)

    def _read(self, reading: _Reading) -> None:
        self.head, self.length = reading.head, reading.size

    # --- IBodyProducer ------------------------------------------------------------------

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        return self.read(consumer.write)

    def pauseProducing(self) -> None:
        if self._reading is not None:
            self._reading.pause()

    def resumeProducing(self) -> None:
        if self._reading is not None:
            self._reading.resume()

    def stopProducing(self) -> None:
        if self._reading is not None:
            self._reading.stop()
