"""
What a stream has around it: its two ends, and what carries it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from hoft.streams.halves import Hold

if TYPE_CHECKING:
    from hoft.streams.stream import Stream


@implementer(IAddress)
@frozen
class StreamAddress:
    """
    One end of a stream.

    @ivar node: whose end; what our configuration calls it.
    @ivar target: what the stream was opened to, at the end that accepts it: C{tcp://HOST:PORT},
        or the name of a service; C{""} at the end that opens it.
    """

    node: str
    target: str = ""


class Surroundings(Protocol):
    """What a stream needs of what carries it: L{hoft.streams.multiplexer.Multiplexer}."""

    hold: Hold
    windows: Hold
    node: str
    peer: str
    epoch: int
    counts: Counter[str]

    def now(self) -> float:
        """Monotonic seconds."""

    def later(self, function: Any, *arguments: Any) -> None:
        """Call it in the next turn of the reactor."""

    def wake(self, stream: Stream) -> None:
        """It has something to send: ask for its C{parts} soon."""

    def consume(self, records: Iterable[int]) -> None:
        """Let go of these soon."""

    def answered(self, records: Iterable[int]) -> None:
        """Let go of these in the very commit of what is sent now."""

    def read(self, records: Sequence[int]) -> Deferred[list[bytes]]:
        """Their payloads."""

    def left(self, stream: Stream) -> None:
        """It is over."""
