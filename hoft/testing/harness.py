"""
What tests of carriers need: a receiver that writes down what it hears, nodes that
are looked after, and patience.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from hoft.interfaces import MAX_PIECE, ICarrier, IFileReceiver, IFileTransport, Verdict

if TYPE_CHECKING:
    from collections.abc import Generator

    from twisted.trial.unittest import TestCase

    _Base = TestCase
else:
    _Base = object

T = TypeVar("T")

ALICE = UUID("a11ce000-0000-4000-8000-000000000001")
BOB = UUID("b0b00000-0000-4000-8000-000000000002")
CAROL = UUID("ca201000-0000-4000-8000-000000000003")


@implementer(IFileReceiver)
class RecordingReceiver:
    """
    A receiver that writes down what it is told.

    @ivar answer: what to say of each piece; by default everything is consumed
        as soon as C{settled}, or C{complete} says that nothing is missing.
    @ivar pieces: all that was handed over, in order: name, offset, size and settled.
    @ivar contents: by name, what was put together of the last handing over.
    @ivar consumed: by name, the contents when it was consumed.
    @ivar forgotten: names that C{fileForgotten} was called with.
    @ivar health: C{"up"} and C{"down"} in turn; C{reasons} of the latter, each that was given.
    @ivar faults: what this receiver saw that no carrier may do.
    """

    def __init__(self, complete: Callable[[bytes], bool] = lambda content: True) -> None:
        self.complete = complete
        self.answer: Callable[[str, int, bytes, bool], Any] = self.consume
        self.pieces: list[tuple[str, int, int, bool]] = []
        self.contents: dict[str, bytearray] = {}
        self.consumed: dict[str, bytes] = {}
        self.forgotten: list[str] = []
        self.health: list[str] = []
        self.reasons: list[str] = []
        self.faults: list[str] = []
        self.thinking: set[str] = set()

    def consume(self, name: str, offset: int, piece: bytes, settled: bool) -> Verdict:
        """Consume what is complete or settled."""
        content = self.contents[name]
        if not settled and not self.complete(bytes(content)):
            return Verdict.MORE
        self.consumed[name] = bytes(content)
        return Verdict.CONSUMED

    def fileReceived(self, name: str, offset: int, piece: bytes, settled: bool) -> Deferred[Verdict]:
        """See L{IFileReceiver.fileReceived}."""
        if name in self.thinking:
            self.faults.append(f"{name}: the next piece came before the last was answered")
        if len(piece) > MAX_PIECE:
            self.faults.append(f"{name}: a piece of {len(piece)} bytes")
        if not piece and not settled:
            self.faults.append(f"{name}: an empty piece that settles nothing")
        if offset == 0:
            self.contents[name] = bytearray()
        if name not in self.contents or len(self.contents[name]) != offset:
            self.faults.append(f"{name}: offset {offset} does not continue what came before")
        self.contents.setdefault(name, bytearray()).extend(piece)
        self.pieces.append((name, offset, len(piece), settled))
        self.thinking.add(name)
        answer = self.answer(name, offset, piece, settled)
        result: Deferred[Verdict] = answer if isinstance(answer, Deferred) else succeed(answer)

        def answered(verdict: Verdict) -> Verdict:
            self.thinking.discard(name)
            return verdict

        return result.addCallback(answered)

    def fileForgotten(self, name: str) -> None:
        """See L{IFileReceiver.fileForgotten}."""
        self.forgotten.append(name)

    def carrierUp(self) -> None:
        """See L{IFileReceiver.carrierUp}."""
        self.health.append("up")

    def carrierDown(self, reason: str) -> None:
        """See L{IFileReceiver.carrierDown}."""
        if self.health[-1:] != ["down"]:
            self.health.append("down")
        self.reasons.append(reason)


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere, so that a piece in the wrong place shows."""
    block = b"".join(blake2b(f"{seed} {index}".encode()).digest() for index in range(1024))
    out = bytearray()
    while len(out) < size:
        out += block
        out += len(out).to_bytes(8, "big")
    return bytes(out[:size])


class CarrierHarness(_Base):
    """
    What tests of carriers need: nodes that are looked after, and patience.
    C{setUp} and C{tearDown} of a class that mixes this in must call those here,
    if it has its own.

    @cvar patience: seconds after which something that has to happen counts as
        not happening.
    @cvar quiet: seconds without news after which nothing more is expected.
    @cvar threads: writers work on threads; false where there are none.
    """

    patience = 10.0
    quiet = 0.3
    threads = True

    def makeCarrier(self, node: UUID, boot: int) -> ICarrier:
        """One node's access to what all carriers of one test share; not started."""
        raise NotImplementedError

    def setUp(self) -> None:
        """No carriers yet."""
        self.carriers: list[ICarrier] = []
        self.receivers: list[RecordingReceiver] = []

    @inlineCallbacks
    def tearDown(self) -> Generator[Any, Any, None]:  # type: ignore[override]  # trial waits for Deferreds
        """Stop all carriers; none may have done what none may do."""
        for carrier in self.carriers:
            yield carrier.stop()
        for receiver in self.receivers:
            self.assertEqual(receiver.faults, [])

    @inlineCallbacks
    def node(self, uuid: UUID, boot: int = 1) -> Generator[Any, Any, tuple[ICarrier, RecordingReceiver]]:
        """A started carrier and its receiver; both are looked after."""
        receiver = RecordingReceiver()
        self.receivers.append(receiver)
        carrier = self.makeCarrier(uuid, boot)
        self.carriers.append(carrier)
        yield carrier.start(receiver)
        return carrier, receiver

    @inlineCallbacks
    def until(self, true: Callable[[], Any], what: str) -> Generator[Any, Any, None]:
        """Wait until it is so; fail if it does not become so."""
        limit = time.monotonic() + self.patience
        while not true():
            if time.monotonic() > limit:
                self.fail(f"not within {self.patience} s: {what}")
            yield self.rest(0.005)

    def rest(self, seconds: float) -> Deferred[None]:
        """Let time pass."""
        return deferLater(reactor, seconds, lambda: None)

    def off(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Do what only worker threads may do."""
        if self.threads:
            return deferToThread(function, *arguments)
        return succeed(function(*arguments))

    def send(self, transport: IFileTransport, content: bytes) -> Deferred[str]:
        """Write a file piece by piece; fires with its name."""

        def write() -> str:
            writer = transport.create()
            for start in range(0, len(content), MAX_PIECE):
                writer.write(content[start : start + MAX_PIECE])
            writer.finish()
            return writer.name

        return self.off(write)
