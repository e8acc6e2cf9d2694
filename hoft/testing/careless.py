"""
What careless mirrors do to files, as every carrier has to bear it: a part of
L{hoft.testing.conformance}.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any
from uuid import UUID

from twisted.internet.defer import inlineCallbacks

from hoft.interfaces import MAX_PIECE, Verdict
from hoft.testing.harness import ALICE, BOB, CAROL, CarrierHarness, pattern
from hoft.transports.filenames import LONG, FileName, Naming


class MirrorConformance(CarrierHarness):
    """
    The tests, which are skipped where files cannot be put in place.

    @cvar plant: C{plant(recipient, name, content)} puts a file with that content,
        or that file with more or other content, where C{recipient} will find it,
        without any carrier; L{None} where that cannot be done.
    @cvar lying: C{lying(recipient)} tells the names of all that lies there for
        C{recipient}; L{None} where that cannot be seen.
    @cvar naming: how files are called that the suite puts in place.
    """

    naming: Naming = LONG
    plant: Callable[[UUID, str, bytes], None] | None = None
    lying: Callable[[UUID], list[str]] | None = None

    def planted(self, recipient: UUID, name: str, content: bytes) -> None:
        """Put a file in place, or skip the test where that cannot be done."""
        if self.plant is None:
            self.skipTest("files cannot be put in place behind this carrier's back")
        self.plant(recipient, name, content)

    @inlineCallbacks
    def test_growing(self) -> Generator[Any, Any, None]:
        """A file that grows is handed on from where it stopped."""
        content = pattern(3000)
        name = self.naming.text(FileName(ALICE, BOB, 1, 1))
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: len(so_far) >= len(content)
        arrived = receiver.contents.get
        for size in (100, 1000, 3000):
            self.planted(BOB, name, content[:size])
            yield self.until(partial(lambda size: len(arrived(name, b"")) == size, size), f"{size} bytes")
        self.assertEqual(receiver.consumed[name], content)
        self.assertEqual([piece[1:3] for piece in receiver.pieces], [(0, 100), (100, 900), (1000, 2000)])

    @inlineCallbacks
    def test_growsAfterItSettled(self) -> Generator[Any, Any, None]:
        """A file of which more was wanted after it settled goes on when it changes."""
        content = pattern(3000)
        name = self.naming.text(FileName(ALICE, BOB, 1, 1))
        _, receiver = yield self.node(BOB)
        receiver.answer = lambda name, offset, piece, settled: (
            receiver.consume(name, offset, piece, settled) if offset + len(piece) == 3000 else Verdict.MORE
        )
        self.planted(BOB, name, content[:1000])
        yield self.until(lambda: receiver.pieces and receiver.pieces[-1][3], "it settles")
        self.planted(BOB, name, content)
        yield self.until(lambda: name in receiver.consumed, "the rest arrives")
        self.assertEqual(receiver.consumed[name], content)

    @inlineCallbacks
    def test_otherContent(self) -> Generator[Any, Any, None]:
        """A file that begins with other bytes than before is another: it comes from 0."""
        name = self.naming.text(FileName(ALICE, BOB, 1, 1))
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: len(so_far) >= 3000
        self.planted(BOB, name, pattern(1000, seed=1))
        yield self.until(lambda: receiver.pieces, "it arrives")
        self.planted(BOB, name, pattern(3000, seed=2))
        yield self.until(lambda: name in receiver.consumed, "the other arrives")
        self.assertEqual(receiver.consumed[name], pattern(3000, seed=2))

    @inlineCallbacks
    def test_zerosHaveNotArrived(self) -> Generator[Any, Any, None]:
        """Zeros at the end are space that was reserved, until the file has settled."""
        content = pattern(2000)
        name = self.naming.text(FileName(ALICE, BOB, 1, 1))
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: so_far == content
        self.planted(BOB, name, content[:500] + bytes(1500))
        yield self.until(lambda: receiver.pieces, "its beginning arrives")
        self.assertEqual(receiver.pieces[0][2], 500)
        self.planted(BOB, name, content)
        yield self.until(lambda: name in receiver.consumed, "the rest arrives")
        self.assertEqual(receiver.consumed[name], content)

    @inlineCallbacks
    def test_zerosThatStay(self) -> Generator[Any, Any, None]:
        """Once it has settled, some zeros may come, in case they were data; a tail of them costs nothing."""
        content = pattern(500) + bytes(MAX_PIECE + 1000)
        name = self.naming.text(FileName(ALICE, BOB, 1, 1))
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: False
        self.planted(BOB, name, content)
        yield self.until(lambda: name in receiver.consumed, "it settles")
        self.assertEqual(receiver.pieces[0][2], 500)
        arrived = receiver.consumed[name]
        self.assertEqual(content[: len(arrived)], arrived)
        self.assertGreater(len(arrived), 500)

    @inlineCallbacks
    def test_strangeNames(self) -> Generator[Any, Any, None]:
        """What is not named as a packet for us is left alone."""
        good, bad = (self.naming.text(FileName(ALICE, BOB, 1, number)) for number in (1, 2))
        strange = [
            f"{bad}.part",
            f"{bad}~",
            f"{bad}.sync-conflict-20260101-120000-ABCDEFG.hoft",
            f".{bad}",
            f"{ALICE}--{BOB}--{1:016x}-{1:016x}.HOFT",
            f"{ALICE}--{CAROL}--{1:016x}-{1:016x}.hoft",
            "CON",
            "desktop.ini",
        ]
        _, receiver = yield self.node(BOB)
        for name in strange:
            self.planted(BOB, name, b"not for hoft")
        self.planted(BOB, good, b"for hoft")
        yield self.until(lambda: good in receiver.consumed, "the packet arrives")
        yield self.rest(self.quiet)
        self.assertEqual(set(receiver.contents), {good})
        lying = self.lying
        if lying is not None:
            yield self.until(lambda: sorted(lying(BOB)) == sorted(strange), "nothing but those are left")
