"""Which file belongs to which link, and what the carrier is told of each."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from nacl.public import PrivateKey
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from hoft.interfaces import LinkState, Verdict
from hoft.protocols.keyring import Keyring
from hoft.protocols.layout import HEADER_SIZE
from hoft.protocols.link import Link
from hoft.protocols.packets import Header
from hoft.protocols.router import OPEN_INLINE, TOGETHER
from hoft.protocols.sealing import BoxSuite
from hoft.recurring import EVERY
from tests.protocols.nodes import Node, Pair, lost


class RouterTestCase(SynchronousTestCase):
    """Near has sent far packets that the carrier keeps; they are handed over by hand."""

    def setUp(self) -> None:
        self.pair = Pair(self)
        self.near, self.far = self.pair.near, self.pair.far
        self.pair.start()
        self.pair.deliver = lost
        self.pair.crossed.clear()

    def packet(self, *payloads: bytes, sender: Node | None = None) -> bytes:
        """A packet of near's with these records."""
        sender = sender or self.near
        before = len(self.pair.crossed)
        sender.send(*payloads)
        self.pair.advance(0.005)
        written = [data for by, _, data in self.pair.crossed[before:] if by == sender.uuid]
        return next(data for data in written if Header.decode(data[:HEADER_SIZE]).frames)

    def assertRefused(self, data: bytes, reason: str) -> None:
        refusals = self.far.router.refusals
        before = refusals.counts[reason]
        self.assertIs(self.pair.give(self.far, "x", data), Verdict.REFUSED)
        self.assertEqual(refusals.counts[reason], before + 1)
        last = refusals.last()[reason]
        self.assertTrue(last["example"].startswith(f"x: {reason}"), last)
        self.assertEqual(last["ago"], 0)
        self.assertEqual(self.far.program.payloads, [])
        self.assertEqual(self.far.router._arrivals, {})


class ManyLinksTests(RouterTestCase):
    """One node with many peers."""

    def test_the_carrier_is_up_again(self) -> None:
        """All go on, some after others, so that nobody waits for all of them."""
        near, pair = self.near, self.pair
        for number in range(2 * TOGETHER + 5):
            peer = UUID(int=number + 1)
            suite = BoxSuite(bytes(near.key), bytes(PrivateKey(pair.random.randbytes(32)).public_key))
            link = Link(near.parts, peer, f"peer-{number}", Keyring([suite]), near.program, pair.settings)
            pair.result(link.open())
            near.router.add(link)
            link.makeConnection(near.carrier.transport(peer))
            self.addCleanup(link.close)
        pair.advance(0.5)
        near.router.carrierDown("unplugged")
        before = len(pair.crossed)
        pair.advance(30)
        self.assertEqual(len(pair.crossed), before)
        near.router.carrierUp()
        up = [link for link in near.router.links.values() if link.state is not LinkState.DOWN]
        self.assertLessEqual(len(up), TOGETHER)
        near.router.tick()
        near.router.tick()
        pair.advance(0.5)
        up = [link for link in near.router.links.values() if link.state is not LinkState.DOWN]
        self.assertEqual(len(up), len(near.router.links))
        self.assertGreaterEqual(len(pair.crossed) - before, len(near.router.links) - 1)


class TickTests(RouterTestCase):
    """By a clock that nobody sets, in place of timers that stand still."""

    def setUp(self) -> None:
        super().setUp()
        self.ticked = 0
        tick = self.near.link.tick

        def count() -> None:
            self.ticked += 1
            tick()

        self.patch(self.near.link, "tick", count)

    def test_nothing_to_do(self) -> None:
        """A link that waits for nothing is left alone."""
        self.pair.advance(5)
        self.ticked = 0
        for _ in range(10):
            self.near.router.tick()
        self.assertEqual(self.ticked, 0)

    def test_timers_that_stand_still(self) -> None:
        """What is under way is sent again, and the link is late in time, by ticks alone."""
        self.near.send(b"one")
        self.pair.advance(0.01)
        self.near.link._alarm.cancel()
        call_later = self.pair.clock.callLater
        self.patch(
            self.pair.clock,
            "callLater",
            lambda delay, *rest: call_later(delay if delay < 0.01 else 1e9, *rest),
        )
        before = len(self.pair.crossed)
        for _ in range(70):
            self.pair.clock.callLater(0.0, lambda: None)
            call_later(0.5, self.near.router.tick)
            self.pair.clock.advance(0.5)
        self.assertGreater(len(self.pair.crossed) - before, 3)
        self.assertIs(self.near.link.state, LinkState.LATE)
        self.assertLess(self.ticked, 60)


class VerdictTests(RouterTestCase):
    """Files as they come."""

    def test_whole(self) -> None:
        """Consumed, once its records are committed."""
        data = self.packet(b"one", b"two")
        before = self.far.link.counters["packets_read"]
        self.assertIs(self.pair.give(self.far, "x", data), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, [b"one", b"two"])
        self.assertEqual(self.far.rows("inbox"), 0)
        self.assertEqual(self.far.link.counters["packets_read"], before + 1)
        self.assertEqual(self.far.link.counters["packets_cut"], 0)

    def test_again(self) -> None:
        """Consumed, and nothing of it is new."""
        data = self.packet(b"one")
        for _ in range(3):
            self.assertIs(self.pair.give(self.far, "x", data), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, [b"one"])
        self.assertEqual(self.far.link.engine.receiver.duplicates, 2)

    def test_names(self) -> None:
        """The header decides: whatever the files are called, the same is delivered."""
        files = [self.packet(b"%d" % number) for number in range(8)]
        for number, data in enumerate(reversed(files)):
            name = f"{self.near.uuid}--{self.near.uuid}--{number:016x}-{number:016x}.hoft"
            self.assertIs(self.pair.give(self.far, name, data), Verdict.CONSUMED)
        self.assertEqual(sorted(self.far.program.payloads), [b"%d" % number for number in range(8)])

    def test_reflected(self) -> None:
        """Our own packets come back to us."""
        data = self.packet(b"one", sender=self.far)
        self.assertRefused(data, "reflected")

    def test_for_somebody_else(self) -> None:
        """A packet to another node."""
        data = self.packet(b"one")
        self.assertRefused(data[:28] + bytes(16) + data[44:], "recipient")

    def test_a_stranger(self) -> None:
        """From a node that is no peer, or none any more."""
        data = self.packet(b"one")
        self.assertRefused(data[:12] + bytes(16) + data[28:], "stranger")
        self.far.router.remove(self.near.uuid)
        self.assertRefused(data, "stranger")

    def test_forged(self) -> None:
        """Any bit of what is authenticated: header, key, control."""
        data = self.packet(b"one")
        control = Header.decode(data[:HEADER_SIZE])
        end = control.prefix + control.control_length
        for at in (60, 84, 70, 110, 150, control.prefix, end - 1):
            flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            self.assertRefused(flipped, "key" if HEADER_SIZE <= at < control.prefix else "forged")
        self.assertIs(self.pair.give(self.far, "x", data), Verdict.CONSUMED)

    def test_no_packet(self) -> None:
        """Anything else that lies there."""
        self.assertRefused(b"PK\3\4 some archive" * 20, "not-hoft")
        self.assertRefused(b"hoft", "too-short")
        self.assertRefused(b"", "too-short")

    def test_strangers_cost_nothing(self) -> None:
        """
        Two thousand forgeries: no state, no rows, no answer, and in the log the first, and then
        how many more; the real one among them is delivered.
        """
        said: list[LogEvent] = []
        observer = cast(ILogObserver, said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        data = self.packet(b"real")
        forged = bytearray(data)
        forged[-1] ^= 1
        forged[200] ^= 1
        self.pair.crossed.clear()
        for number in range(2000):
            forged[90] = number & 255
            self.pair.give(self.far, f"f{number}", bytes(forged))
        self.assertEqual(self.far.router._arrivals, {})
        self.pair.advance(1)
        self.assertEqual([sender for sender, _, _ in self.pair.crossed if sender == self.far.uuid], [])
        self.pair.give(self.far, "another reason", b"PK\3\4 some archive" * 20)
        self.assertIs(self.pair.give(self.far, "x", data), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, [b"real"])
        self.pair.advance(EVERY)
        self.far.router.tick()
        first, other, more = [line for event in said if "refused" in (line := formatEvent(event))]
        self.assertEqual(first, "f0 is refused: forged: frame 0 does not authenticate")
        self.assertEqual(other, "another reason is refused: not-hoft")
        self.assertTrue(more.startswith("f1999 is refused: forged"), more)
        self.assertTrue(
            more.endswith("; so were 1998 other files of near since the last that was named"), more
        )


class CutTests(RouterTestCase):
    """Files that end early, are damaged, or grow."""

    def setUp(self) -> None:
        super().setUp()
        self.payloads = [bytes([number]) * 60_000 for number in range(5)]
        self.data = self.packet(*self.payloads)
        self.header = Header.decode(self.data[:HEADER_SIZE])
        self.records = self.header.prefix + self.header.control_length

    def test_cut(self) -> None:
        """What is whole is delivered, and the sender is told of the rest."""
        cut = self.data[: self.records + 2 * self.header.stride + 100]
        self.assertIs(self.pair.give(self.far, "x", cut), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, self.payloads[:2])
        self.assertEqual(self.far.link.counters["packets_cut"], 1)
        self.pair.folder.deliver = lambda *file: ((0.0, file[3]),)
        self.pair.advance(1)
        self.assertEqual(self.far.program.payloads, self.payloads)
        self.assertEqual(self.near.link.engine.sender.path.retransmitted["cut"], 3)

    def test_every_frame_but_no_end(self) -> None:
        """END proves that nothing follows; that all frames are here is enough, settled or not."""
        cut = self.data[:-16]
        self.assertIs(self.pair.give(self.far, "x", cut, settled=False), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, self.payloads)

    def test_a_damaged_frame(self) -> None:
        """It costs itself alone."""
        at = self.records + self.header.stride + 500
        data = self.data[:at] + bytes([self.data[at] ^ 1]) + self.data[at + 1 :]
        self.assertIs(self.pair.give(self.far, "x", data), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, [self.payloads[0], *self.payloads[2:]])
        self.assertEqual(self.far.link.counters["frames_bad"], 1)

    def test_in_pieces(self) -> None:
        """A file that grows is read on from where it was, and its frames count as they come."""
        size = 50_000
        for offset in range(0, len(self.data), size):
            piece = self.data[offset : offset + size]
            last = offset + size >= len(self.data)
            verdict = self.pair.result(self.far.router.fileReceived("x", offset, piece, False))
            self.assertIs(verdict, Verdict.CONSUMED if last else Verdict.MORE)
            whole = max(0, (offset + len(piece) - self.records) // self.header.stride)
            self.pair.advance(0.005)
            if not last:
                self.assertEqual(len(self.far.program.payloads), whole)
        self.assertEqual(self.far.program.payloads, self.payloads)
        self.assertEqual(self.far.router._arrivals, {})

    def test_byte_by_byte(self) -> None:
        """However small the pieces."""
        data = self.packet(b"tiny")
        for offset in range(len(data)):
            verdict = self.pair.result(
                self.far.router.fileReceived("x", offset, data[offset : offset + 1], False)
            )
            if verdict is Verdict.CONSUMED:
                break
            self.assertIs(verdict, Verdict.MORE)
        self.assertEqual(self.far.program.payloads, [b"tiny"])

    def test_settles_later(self) -> None:
        """Nothing more comes: what was there counts, and the rest is reported."""
        cut = self.data[: self.records + self.header.stride]
        self.assertIs(self.pair.give(self.far, "x", cut, settled=False), Verdict.MORE)
        verdict = self.pair.result(self.far.router.fileReceived("x", len(cut), b"", True))
        self.assertIs(verdict, Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, self.payloads[:1])
        self.assertEqual(self.far.link.counters["packets_cut"], 1)

    def test_another_file_by_that_name(self) -> None:
        """Offset 0 begins anew; a piece that does not follow on what was read is asked for again from 0."""
        router = self.far.router
        self.pair.give(self.far, "x", b"hoft" + bytes(30), settled=False)
        self.assertIs(self.pair.give(self.far, "x", self.data[:1000], settled=False), Verdict.MORE)
        again = router.fileReceived("x", 5000, b"?", False)
        self.assertIs(self.pair.result(again), Verdict.LATER)
        self.assertIs(self.pair.give(self.far, "x", self.data), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, self.payloads)

    def test_forgotten(self) -> None:
        """A file that is gone leaves nothing behind."""
        self.pair.give(self.far, "x", self.data[:1000], settled=False)
        self.far.router.fileForgotten("x")
        self.assertEqual(self.far.router._arrivals, {})

    def test_not_yet_a_packet(self) -> None:
        """What looks wrong may be unfinished: until it settles it is only put off."""
        for data in (b"ho", bytes(2000), self.data[: self.records - 1] + b"\0"):
            self.assertIsNot(self.pair.give(self.far, "x", data, settled=False), Verdict.REFUSED)
            self.assertIs(self.pair.give(self.far, "x", data), Verdict.REFUSED)

    def test_large(self) -> None:
        """Pieces too large for the reactor thread are opened on the worker, with the same result."""
        self.assertGreater(len(self.data), OPEN_INLINE)
        self.assertIs(self.pair.give(self.far, "x", self.data), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, self.payloads)


class LaterTests(RouterTestCase):
    """Files that must wait."""

    def test_before_synchronised(self) -> None:
        """Records that may yet count stay; greetings are consumed."""
        data = self.packet(b"one")
        self.far.crash()
        self.far.start()
        self.assertIs(self.pair.give(self.far, "x", data), Verdict.LATER)
        self.assertEqual(self.far.program.payloads, [])
        self.near.crash()
        self.pair.crossed.clear()
        self.near.start()
        self.pair.advance(5)
        hello = next(data for sender, _, data in self.pair.crossed if sender == self.near.uuid)
        self.assertIs(self.pair.give(self.far, "y", hello), Verdict.CONSUMED)

    def test_then_void(self) -> None:
        """Once another boot is adopted, files of the one before are of no use."""
        data = self.packet(b"one")
        self.near.crash()
        self.near.start()
        self.pair.folder.deliver = lambda *file: ((0.0, file[3]),)
        self.pair.advance(10)
        self.assertIs(self.pair.give(self.far, "x", data), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, [b"one"])
        self.assertEqual(self.far.link.engine.receiver.duplicates, 0)

    def test_a_receiver_that_fails(self) -> None:
        """A mistake of ours costs no file: it stays, and is reported."""

        def broken(header: object, control: object) -> None:
            raise ZeroDivisionError

        data = self.packet(b"one")
        self.far.link.hear = broken  # type: ignore[method-assign,assignment]  # a mistake
        self.assertIs(self.pair.give(self.far, "x", data), Verdict.LATER)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        del self.far.link.hear
        self.assertIs(self.pair.give(self.far, "x", data), Verdict.CONSUMED)
        self.assertEqual(self.far.program.payloads, [b"one"])


class MintTests(RouterTestCase):
    """Minting concerns all links of a node."""

    def test_journal_lost(self) -> None:
        """Begun anew by order: the incarnation changes, the peer learns it, both are told."""
        self.pair.folder.deliver = lambda *file: ((0.0, file[3]),)
        self.near.send(b"one")
        self.pair.advance(5)
        before = self.near.journal.incarnation
        self.pair.result(self.near.router.begin_anew("a test"))
        self.near.send(b"two")
        self.pair.advance(30)
        self.assertNotEqual(self.near.journal.incarnation, before)
        self.assertEqual(self.near.link.engine.synchronisation.incarnation, self.near.journal.incarnation)
        self.assertEqual(len(self.near.program.rollbacks), 1)
        self.assertEqual(len(self.far.program.rollbacks), 1)
        self.assertEqual(self.far.program.payloads, [b"one", b"two"])
        self.assertEqual(self.far.rows("retired"), 1)


class RoutingTests(RouterTestCase):
    """Links come and go."""

    def test_added_while_down(self) -> None:
        """A link learns at once that the carrier is down."""
        self.near.router.carrierDown("gone")
        removed = self.near.router.remove(self.far.uuid)
        assert removed is not None
        removed.close()
        self.near.open_link()
        self.near.send(b"one")
        self.pair.advance(60)
        self.assertEqual(self.near.transport.tries, [])

    def test_removed(self) -> None:
        """What is not there is not removed twice."""
        self.assertIsNone(self.near.router.remove(UUID(int=7)))
        self.assertIs(self.near.router.remove(self.far.uuid), self.near.link)
        self.assertIsNone(self.near.router.remove(self.far.uuid))
