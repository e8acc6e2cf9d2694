"""Who produces what goes into a stream, and is held up while much of it waits."""

from __future__ import annotations

from typing import Any

BUFFER = 256 << 10
"""Bytes that wait to be committed above which a producer is paused."""


class Feeder:
    """The producer of a stream, if it has one; see L{twisted.internet.interfaces.IConsumer}."""

    def __init__(self) -> None:
        self._producer: Any = None
        self._streaming = True
        self._paused = False

    def __bool__(self) -> bool:
        """There is one."""
        return self._producer is not None

    def register(self, producer: Any, streaming: bool) -> None:
        """@raise RuntimeError: there is one already."""
        if self._producer is not None:
            raise RuntimeError("a stream has one producer at a time")
        self._producer, self._streaming = producer, streaming
        self._paused = not streaming
        if not streaming:
            producer.resumeProducing()

    def unregister(self) -> None:
        """It is done."""
        self._producer = None

    def wrote(self, waiting: int) -> None:
        """So many bytes wait now."""
        if waiting > BUFFER and self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def drained(self, waiting: int) -> None:
        """Some went; so many still wait."""
        if self._producer is not None and self._paused and waiting <= BUFFER // 2:
            self._paused = not self._streaming
            self._producer.resumeProducing()

    def stop(self) -> None:
        """Nothing more is wanted of it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
