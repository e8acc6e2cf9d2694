"""Records that may be compressed cross smaller, and arrive as they were."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from hoft.interfaces import Outgoing
from hoft.protocols.packets import MAX_RECORD
from hoft.protocols.sealing import AuthenticatedSuite
from tests.protocols.nodes import SETTINGS, Pair, lost
from tests.protocols.test_compression import NOISE, TEXT


class CompressedLinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = Pair(self)
        self.near, self.far = self.pair.near, self.pair.far
        self.pair.start()
        self.pair.crossed.clear()

    def send(self, *payloads: bytes, compress_from: int | None = 0) -> list[int]:
        records = [Outgoing(payload, 1, compress_from=compress_from) for payload in payloads]
        return list(self.pair.result(self.near.link.commit(records)).sent)

    def crossed(self) -> int:
        """Bytes in all files of near's."""
        return sum(len(data) for sender, _, data in self.pair.crossed if sender == self.near.uuid)

    def test_smaller(self) -> None:
        """Texts shrink, what does not pay stays as it is, and what is not marked stays, too."""
        texts = [TEXT[start : start + MAX_RECORD] for start in range(0, 60_000, 20_000)]
        self.send(*texts, NOISE, b"small")
        self.pair.advance(5)
        self.assertEqual({*self.far.program.payloads}, {*texts, NOISE, b"small"})
        self.assertLess(self.crossed(), len(NOISE) + sum(map(len, texts)) // 2)
        self.assertEqual(self.near.rows("outbox"), 0)
        self.assertEqual(self.near.link.backlog(), 0)
        self.pair.crossed.clear()
        self.send(*texts, compress_from=None)
        self.pair.advance(5)
        self.assertGreater(self.crossed(), sum(map(len, texts)))

    def test_not_any_more(self) -> None:
        """Nothing shrinks from when that is not wanted until it is again."""
        text = TEXT[:20_000]
        for compress in (False, True):
            self.pair.crossed.clear()
            self.near.link.reconfigure(evolve(SETTINGS, compress=compress))
            self.send(text)
            self.pair.advance(5)
            self.assertEqual(self.crossed() < len(text), compress)
        self.assertEqual(self.far.program.payloads, [text, text])

    def test_with_something_before(self) -> None:
        """That crosses as it is, the rest smaller, and both arrive as they were; also from the journal."""
        payload = NOISE[:500] + TEXT[:20_000]
        self.send(payload, compress_from=500)
        self.pair.advance(5)
        self.assertLess(self.crossed(), 10_000)
        self.pair.deliver = lost
        self.send(payload, compress_from=500)
        self.pair.advance(1)
        self.near.crash()
        self.pair.deliver = lambda *file: ((0.0, file[3]),)
        self.near.start()
        self.pair.advance(30)
        self.assertEqual(self.far.program.payloads, [payload, payload])

    def test_from_the_journal(self) -> None:
        """What is sent by a later process, or again, is read as what it is."""
        self.pair.deliver = lost
        self.send(TEXT[:MAX_RECORD], TEXT[:2000])
        self.pair.advance(1)
        self.near.crash()
        self.pair.deliver = lambda *file: ((0.0, file[3]),)
        self.near.start()
        self.pair.advance(30)
        self.assertEqual(self.far.program.payloads, [TEXT[:MAX_RECORD], TEXT[:2000]])

    def test_before_the_peer_is_known(self) -> None:
        """Compressed when it is queued; sent, and taken out of the journal, once there is somebody."""
        self.pair.stop()
        self.near.start()
        self.send(TEXT[:MAX_RECORD])
        self.assertLess(self.near.link.backlog(), MAX_RECORD / 3)
        self.far.start()
        self.pair.advance(60)
        self.assertEqual(self.far.program.payloads, [TEXT[:MAX_RECORD]])
        self.assertEqual(self.near.rows("outbox"), 0)

    def test_readable_suites(self) -> None:
        """Whoever looks inside on the way finds it as it was given."""
        for node, peer in ((self.near, self.far), (self.far, self.near)):
            node.link.rekey([AuthenticatedSuite(bytes(node.key), bytes(peer.key.public_key))])
        self.send(TEXT[:2000])
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [TEXT[:2000]])
        self.assertTrue([data for _, _, data in self.pair.crossed if TEXT[:2000] in data])

    def test_suite_changed_in_between(self) -> None:
        """What was compressed before arrives all the same."""
        self.pair.deliver = lost
        self.send(TEXT[:2000])
        self.pair.advance(0.1)
        for node, peer in ((self.near, self.far), (self.far, self.near)):
            node.link.rekey([AuthenticatedSuite(bytes(node.key), bytes(peer.key.public_key))])
        self.pair.deliver = lambda *file: ((0.0, file[3]),)
        self.pair.advance(60)
        self.assertEqual(self.far.program.payloads, [TEXT[:2000]])

    def test_taken_back(self) -> None:
        """What stands in its place is not taken for something compressed."""
        self.pair.deliver = lost
        self.near.transport.broken = True
        self.send(b"first")
        ids = self.send(TEXT[:2000], TEXT[:3000])
        self.assertEqual(self.pair.result(self.near.link.cancel(ids[:1])), ids[:1])
        self.near.transport.broken = False
        self.pair.deliver = lambda *file: ((0.0, file[3]),)
        self.pair.advance(120)
        self.assertEqual(self.far.program.payloads, [b"first", TEXT[:3000]])
        self.assertEqual(self.far.link.counters["frames_bad"], 0)
