"""
What every carrier has to pass: a suite for those who write one.

Mix L{CarrierConformance} into a trial C{TestCase}, say how carriers are made, and
run it::

    class BucketConformance(CarrierConformance, TestCase):
        def makeCarrier(self, node, boot):
            return bucketCarrier(reactor, f"bucket:{self.name}", node, boot, time.monotonic)

Where files can be put in place behind the carrier's back, C{plant} lets the
suite test what careless mirrors do, too.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IAddress
from zope.interface.verify import verifyObject

from hoft.errors import CarrierError
from hoft.interfaces import MAX_PIECE, ICarrier, IFileTransport, IFileWriter, Verdict
from hoft.testing.careless import MirrorConformance
from hoft.testing.harness import ALICE, BOB, CAROL, RecordingReceiver, pattern


class CarrierConformance(MirrorConformance):
    """
    The tests, with those of L{MirrorConformance}.

    @cvar large: size of the largest file that is tried.
    @cvar many: number of the small files that are sent at once.
    @cvar soon: seconds within which C{wake} brings what was put off, unless the machine is busy; less than
        those after which it comes unasked.
    @cvar in_place: a file is seen while it is written.
    @cvar sweeps: what earlier processes of a node wrote can be told from what others did.
    """

    large = 5 * MAX_PIECE + 12345
    many = 100
    soon = 0.8
    in_place = False
    sweeps = True

    # -- the interfaces

    @inlineCallbacks
    def test_interfaces(self) -> Generator[Any, Any, None]:
        """Carrier, transport and writer provide what they promise."""
        carrier, _ = yield self.node(ALICE)
        transport = carrier.transport(BOB)
        verifyObject(ICarrier, carrier)
        verifyObject(IFileTransport, transport)
        self.assertEqual(transport.recipient, BOB)
        self.assertTrue(IAddress.providedBy(transport.getHost()))
        self.assertTrue(IAddress.providedBy(transport.getPeer()))
        self.assertNotEqual(transport.getHost(), transport.getPeer())
        writer = yield self.off(transport.create)
        verifyObject(IFileWriter, writer)
        yield self.off(writer.abandon)
        self.assertTrue(all(type(number) is int for number in carrier.counters().values()))
        self.assertLessEqual(set(carrier.examples()), set(carrier.counters()))

    @inlineCallbacks
    def test_upFromTheStart(self) -> Generator[Any, Any, None]:
        """The first report is that the carrier is up, once, before start has fired."""
        _, receiver = yield self.node(ALICE)
        self.assertEqual(receiver.health, ["up"])

    @inlineCallbacks
    def left(self, recipient: UUID, count: int) -> Generator[Any, Any, None]:
        """Wait until only so many files lie there, or where nobody sees that as long as it should take."""
        lying = self.lying
        if lying is None:
            yield self.rest(self.quiet)
        else:
            yield self.until(lambda: len(lying(recipient)) == count, f"{count} files are left")

    # -- carrying

    @inlineCallbacks
    def test_smallFile(self) -> Generator[Any, Any, None]:
        """What write() is given arrives as one file, in one piece."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        alice.transport(BOB).write(b"a small file")
        yield self.until(lambda: receiver.consumed, "the file arrives")
        self.assertEqual(list(receiver.consumed.values()), [b"a small file"])
        self.assertEqual(len(receiver.pieces), 1)

    @inlineCallbacks
    def test_sequenceIsOneFile(self) -> Generator[Any, Any, None]:
        """The pieces that writeSequence() is given are one file."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        alice.transport(BOB).writeSequence([b"one ", b"file"])
        yield self.until(lambda: receiver.consumed, "the file arrives")
        self.assertEqual(list(receiver.consumed.values()), [b"one file"])

    @inlineCallbacks
    def test_largeFile(self) -> Generator[Any, Any, None]:
        """A large file comes in pieces, in order, none too large."""
        content = pattern(self.large)
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: len(so_far) >= len(content)
        # Where its writer is held up in the midst of it, it may be said to have settled.
        receiver.answer = lambda name, offset, piece, settled: receiver.consume(name, offset, piece, False)
        name = yield self.send(alice.transport(BOB), content)
        yield self.until(lambda: name in receiver.consumed, "the file arrives")
        self.assertEqual(receiver.consumed[name], content)
        self.assertGreaterEqual(len(receiver.pieces), len(content) // MAX_PIECE)

    def test_tooLarge(self) -> Deferred[None]:
        """More than the largest piece is refused where it is given, not cut."""

        def started(both: tuple[ICarrier, RecordingReceiver]) -> None:
            with self.assertRaises(ValueError):
                both[0].transport(BOB).write(bytes(MAX_PIECE + 1))

        return self.node(ALICE).addCallback(started)

    @inlineCallbacks
    def test_manyFiles(self) -> Generator[Any, Any, None]:
        """Many files at once all arrive, each once and under a name of its own."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        transport = alice.transport(BOB)
        sent = {b"file %d" % number for number in range(self.many)}
        for content in sorted(sent):
            transport.write(content)
        yield self.until(lambda: len(receiver.consumed) == self.many, "all files arrive")
        self.assertEqual(set(receiver.consumed.values()), sent)
        yield self.rest(self.quiet)
        self.assertEqual(len(receiver.pieces), self.many)

    @inlineCallbacks
    def test_twoSenders(self) -> Generator[Any, Any, None]:
        """Files of several senders arrive, and each only at its recipient."""
        alice, at_alice = yield self.node(ALICE)
        bob, at_bob = yield self.node(BOB)
        carol, at_carol = yield self.node(CAROL)
        alice.transport(BOB).write(b"from alice to bob")
        carol.transport(BOB).write(b"from carol to bob")
        bob.transport(CAROL).write(b"from bob to carol")
        yield self.until(
            lambda: len(at_bob.consumed) == 2 and len(at_carol.consumed) == 1, "all files arrive"
        )
        self.assertEqual(set(at_bob.consumed.values()), {b"from alice to bob", b"from carol to bob"})
        self.assertEqual(list(at_carol.consumed.values()), [b"from bob to carol"])
        self.assertEqual(at_alice.pieces, [])

    @inlineCallbacks
    def test_namesAreNeverUsedAgain(self) -> Generator[Any, Any, None]:
        """Two transports and two processes of one node give different names."""
        first, _ = yield self.node(ALICE, boot=1)
        names = []
        for transport in (first.transport(BOB), first.transport(BOB), first.transport(CAROL)):
            names.append((yield self.send(transport, b"x")))
        yield first.stop()
        second, _ = yield self.node(ALICE, boot=2)
        names.append((yield self.send(second.transport(BOB), b"x")))
        self.assertEqual(len(set(names)), 4)
        self.assertEqual(names, [name.lower() for name in names])
        self.assertLessEqual(max(map(len, names)), 120)

    @inlineCallbacks
    def test_waitsForItsReader(self) -> Generator[Any, Any, None]:
        """What was written while the recipient was away is there when it starts."""
        alice, _ = yield self.node(ALICE)
        name = yield self.send(alice.transport(BOB), b"early")
        yield self.rest(self.quiet)
        _, receiver = yield self.node(BOB)
        yield self.until(lambda: name in receiver.consumed, "the file arrives")

    # -- verdicts

    @inlineCallbacks
    def test_consumedIsNotSeenAgain(self) -> Generator[Any, Any, None]:
        """A consumed file is gone, for the next process as well."""
        alice, _ = yield self.node(ALICE)
        bob, receiver = yield self.node(BOB)
        name = yield self.send(alice.transport(BOB), b"once")
        yield self.until(lambda: name in receiver.consumed, "the file arrives")
        yield self.left(BOB, 0)
        yield bob.stop()
        bob, again = yield self.node(BOB, boot=2)
        yield self.rest(self.quiet)
        self.assertEqual(again.pieces, [])
        self.assertEqual(receiver.forgotten, [])

    @inlineCallbacks
    def test_refusedGoesAway(self) -> Generator[Any, Any, None]:
        """A refused file is not handed over again, and is no obstacle to others."""
        alice, _ = yield self.node(ALICE)
        bob, receiver = yield self.node(BOB)
        receiver.answer = lambda name, offset, piece, settled: Verdict.REFUSED
        refused = yield self.send(alice.transport(BOB), pattern(MAX_PIECE + 100))
        before = len(receiver.pieces)
        yield self.until(lambda: receiver.pieces, "the file arrives")
        receiver.answer = receiver.consume
        name = yield self.send(alice.transport(BOB), b"good")
        yield self.until(lambda: name in receiver.consumed, "the next arrives")
        bob.wake()
        yield self.rest(self.quiet)
        offsets = [offset for file, offset, *_ in receiver.pieces if file == refused]
        if self.in_place:  # what was refused while it grew may be another file when it is to go away
            since = [offset for file, offset, *_ in receiver.pieces[before:] if file == refused]
            self.assertLessEqual(since.count(0), 1)
        else:
            self.assertEqual(offsets, [0])

    @inlineCallbacks
    def test_laterComesAgain(self) -> Generator[Any, Any, None]:
        """A file for later comes again from its start after wake()."""
        alice, _ = yield self.node(ALICE)
        bob, receiver = yield self.node(BOB)
        content = pattern(MAX_PIECE + 100)
        receiver.complete = lambda so_far: len(so_far) >= len(content)

        def later(name: str, offset: int, piece: bytes, settled: bool) -> Verdict:
            return Verdict.MORE if offset == 0 else Verdict.LATER

        receiver.answer = later
        name = yield self.send(alice.transport(BOB), content)

        @inlineCallbacks
        def woken() -> Generator[Any, Any, float]:
            """Seconds until the file comes again."""
            yield self.until(lambda: receiver.pieces and receiver.pieces[-1][1], "the file is put off")
            yield self.rest(0.05)
            begun, before = time.monotonic(), starts()
            bob.wake()
            yield self.until(lambda: starts() > before, "the file comes again")
            return time.monotonic() - begun

        def starts() -> int:
            return [offset for _, offset, *_ in receiver.pieces].count(0)

        # On a busy machine each may take long; unasked it always does.
        for _ in range(5):
            seconds = yield woken()
            if seconds < self.soon:
                break
        else:
            self.fail(f"not within {self.soon} s: the file comes again after wake()")
        receiver.answer = receiver.consume
        yield self.until(lambda: receiver.pieces[-1][1], "the rest of it comes")
        bob.wake()
        yield self.until(lambda: name in receiver.consumed, "the file comes once more")
        self.assertEqual(receiver.consumed[name], content)

    @inlineCallbacks
    def test_laterComesAgainUnasked(self) -> Generator[Any, Any, None]:
        """A file for later comes again by itself, too."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        receiver.answer = lambda name, offset, piece, settled: Verdict.LATER
        name = yield self.send(alice.transport(BOB), b"not now")
        yield self.until(lambda: receiver.pieces, "the file arrives")
        receiver.answer = receiver.consume
        yield self.until(lambda: name in receiver.consumed, "the file comes again")

    @inlineCallbacks
    def test_settles(self) -> Generator[Any, Any, None]:
        """A file of which more is wanted than comes is said to have settled, once."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        receiver.answer = lambda name, offset, piece, settled: Verdict.MORE
        yield self.send(alice.transport(BOB), b"half a fi")
        yield self.until(lambda: any(piece[3] for piece in receiver.pieces), "it settles")
        yield self.rest(self.quiet)
        self.assertEqual([piece[3] for piece in receiver.pieces].count(True), 1)
        self.assertEqual(sum(piece[2] for piece in receiver.pieces), len(b"half a fi"))

    @inlineCallbacks
    def test_oneAtATime(self) -> Generator[Any, Any, None]:
        """The next piece waits for the answer to the last; other files do not."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        waiting: Deferred[Verdict] = Deferred()
        large = yield self.off(alice.transport(BOB).create)
        receiver.answer = lambda name, offset, piece, settled: (
            waiting
            if name == large.name and offset == 0
            else Verdict.MORE
            if name == large.name and not settled
            else Verdict.CONSUMED
        )

        def write() -> None:
            for start in range(2):
                large.write(pattern(MAX_PIECE, start))
            large.finish()

        yield self.off(write)
        yield self.until(lambda: receiver.pieces, "the first piece arrives")
        alice.transport(BOB).write(b"another")
        yield self.until(lambda: len(receiver.pieces) == 2, "another file passes it")
        self.assertEqual([piece[0] for piece in receiver.pieces].count(large.name), 1)
        waiting.callback(Verdict.MORE)
        yield self.until(lambda: len(receiver.contents[large.name]) == 2 * MAX_PIECE, "the rest arrives")

    @inlineCallbacks
    def test_receiverThatFails(self) -> Generator[Any, Any, None]:
        """A receiver that raises costs a log entry; the file comes again."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)

        def fails(name: str, offset: int, piece: bytes, settled: bool) -> Verdict:
            receiver.thinking.discard(name)
            raise ZeroDivisionError("as intended by the test")

        receiver.answer = fails
        name = yield self.send(alice.transport(BOB), b"unlucky")
        yield self.until(lambda: receiver.pieces, "the file arrives")
        receiver.answer = receiver.consume
        yield self.until(lambda: name in receiver.consumed, "the file comes again")
        self.assertGreaterEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    # -- writing

    @inlineCallbacks
    def test_abandoned(self) -> Generator[Any, Any, None]:
        """What is abandoned leaves nothing behind."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        transport = alice.transport(BOB)
        writer = yield self.off(transport.create)
        yield self.off(writer.write, b"never mind")
        yield self.off(writer.abandon)
        yield self.off(writer.abandon)
        with self.assertRaises(CarrierError):
            yield self.off(writer.write, b"too late")
        with self.assertRaises(CarrierError):
            yield self.off(writer.finish)
        name = yield self.send(transport, b"the next")
        yield self.until(lambda: name in receiver.consumed, "the next file arrives")
        yield self.rest(self.quiet)
        if not self.in_place:
            self.assertEqual((set(receiver.contents), receiver.forgotten), ({name}, []))
        yield self.left(BOB, 0)

    @inlineCallbacks
    def test_removed(self) -> Generator[Any, Any, None]:
        """Own files that were not fetched can be removed; names that are not there do no harm."""
        alice, _ = yield self.node(ALICE)
        transport = alice.transport(BOB)
        first = yield self.send(transport, b"acknowledged by other means")
        second = yield self.send(transport, b"still wanted")
        yield self.rest(0.05)
        transport.remove([first, "no-such-name", "../" + second])
        yield self.left(BOB, 1)
        _, receiver = yield self.node(BOB)
        yield self.until(lambda: second in receiver.consumed, "the other file arrives")
        self.assertEqual(set(receiver.contents), {second})

    @inlineCallbacks
    def test_sweep(self) -> Generator[Any, Any, None]:
        """What earlier processes wrote can be cleared away; what this one, or another node, wrote stays."""
        first, _ = yield self.node(ALICE, boot=1)
        old = yield self.send(first.transport(BOB), b"of an earlier process")
        yield first.stop()
        carol, _ = yield self.node(CAROL)
        wanted = {(yield self.send(carol.transport(BOB), b"of another node"))}
        alice, _ = yield self.node(ALICE, boot=2)
        transport = alice.transport(BOB)
        wanted.add((yield self.send(transport, b"of this process")))
        yield self.rest(0.05)
        transport.sweep()
        yield self.left(BOB, 2 if self.sweeps else 3)
        _, receiver = yield self.node(BOB)
        yield self.until(lambda: wanted <= set(receiver.consumed), "the others arrive")
        yield self.rest(self.quiet)
        self.assertEqual(set(receiver.contents) - wanted, set() if self.sweeps else {old})

    @inlineCallbacks
    def test_removedWhileRead(self) -> Generator[Any, Any, None]:
        """When a file that more was wanted of goes away, the receiver is told."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        receiver.answer = lambda name, offset, piece, settled: Verdict.MORE
        transport = alice.transport(BOB)
        name = yield self.send(transport, b"some of it")
        yield self.until(lambda: receiver.pieces, "the file arrives")
        transport.remove([name])
        yield self.until(lambda: receiver.forgotten == [name], "it is forgotten")

    @inlineCallbacks
    def test_closedTransport(self) -> Generator[Any, Any, None]:
        """What was given before loseConnection() is carried, nothing after it."""
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        transport = alice.transport(BOB)
        transport.write(b"before")
        transport.loseConnection()
        transport.write(b"after")
        with self.assertRaises(CarrierError):
            yield self.off(transport.create)
        yield self.until(lambda: receiver.consumed, "the file arrives")
        yield self.rest(self.quiet)
        self.assertEqual(list(receiver.consumed.values()), [b"before"])

    # -- stopping

    @inlineCallbacks
    def test_stopIsFinal(self) -> Generator[Any, Any, None]:
        """After stop() has fired the receiver hears nothing, whatever still happens."""
        alice, _ = yield self.node(ALICE)
        bob, receiver = yield self.node(BOB)
        unanswered: Deferred[Verdict] = Deferred()
        receiver.answer = lambda name, offset, piece, settled: unanswered
        transport = alice.transport(BOB)
        transport.write(b"under way")
        yield self.until(lambda: receiver.pieces, "the file arrives")
        yield bob.stop()
        health = list(receiver.health)
        unanswered.callback(Verdict.MORE)
        transport.write(b"too late")
        bob.wake()
        yield self.rest(self.quiet)
        self.assertEqual(len(receiver.pieces), 1)
        self.assertEqual((receiver.forgotten, receiver.health), ([], health))

    @inlineCallbacks
    def test_stopTwice(self) -> Generator[Any, Any, None]:
        """Stopping a carrier that has stopped, or was never started, does nothing."""
        carrier, _ = yield self.node(ALICE)
        yield carrier.stop()
        yield carrier.stop()
        yield self.makeCarrier(BOB, 1).stop()
