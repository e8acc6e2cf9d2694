"""
The folder in memory in virtual time: what happens on the way is up to one function.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hoft.interfaces import Verdict
from hoft.testing.harness import ALICE, BOB, RecordingReceiver
from hoft.transports.memory import MemoryCarrier, MemoryFolder


class MemoryFolderTests(SynchronousTestCase):
    """Loss, delay, growth and duplicates, as C{deliver} says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.fates: list[list[tuple[float, bytes]]] = []
        self.asked: list[tuple[UUID, UUID, str, bytes]] = []
        self.folder = MemoryFolder(self.clock, self.deliver)
        self.receiver = RecordingReceiver()
        self.receiver.complete = lambda content: content.endswith(b".")
        self.alice = self.folder.carrier(ALICE, 1, self.clock.seconds)
        self.start()

    def start(self) -> MemoryCarrier:
        bob = self.folder.carrier(BOB, 1, self.clock.seconds)
        self.successResultOf(bob.start(self.receiver))
        return bob

    def deliver(self, sender: UUID, recipient: UUID, name: str, data: bytes) -> Iterable[tuple[float, bytes]]:
        self.asked.append((sender, recipient, name, data))
        return self.fates.pop(0)

    def send(self, content: bytes, *fate: tuple[float, bytes]) -> str:
        self.fates.append(list(fate))
        writer = self.alice.transport(BOB).create()
        writer.write(content)
        writer.finish()
        return writer.name

    def run_for(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds / 0.01))

    def test_asked(self) -> None:
        """The function is told who sends what to whom."""
        name = self.send(b"lost.")
        self.assertEqual(self.asked, [(ALICE, BOB, name, b"lost.")])
        self.run_for(2)
        self.assertEqual(self.receiver.pieces, [])

    def test_delayed(self) -> None:
        """A file arrives when the function says, not before."""
        name = self.send(b"late.", (1.0, b"late."))
        self.run_for(0.9)
        self.assertEqual(self.receiver.pieces, [])
        self.run_for(0.2)
        self.assertEqual(self.receiver.consumed, {name: b"late."})

    def test_growth(self) -> None:
        """Several entries are growth, handed on from where it stopped."""
        self.send(b"one two.", (0.0, b"one"), (0.2, b"one two."))
        self.run_for(1)
        self.assertEqual([piece[1:] for piece in self.receiver.pieces], [(0, 3, False), (3, 5, False)])

    def test_truncated(self) -> None:
        """A file that stays short settles."""
        name = self.send(b"one two.", (0.0, b"one"))
        self.run_for(1)
        self.assertEqual([piece[1:] for piece in self.receiver.pieces], [(0, 3, False), (3, 0, True)])
        self.assertEqual(self.receiver.consumed, {name: b"one"})

    def test_duplicate(self) -> None:
        """A file that comes again after it was consumed is handed over again."""
        self.send(b"twice.", (0.0, b"twice."), (1.0, b"twice."))
        self.run_for(2)
        self.assertEqual([piece[1:] for piece in self.receiver.pieces], [(0, 6, False)] * 2)

    def test_outlivesCarriers(self) -> None:
        """What was not consumed is there for the next carrier, from its start."""
        self.receiver.answer = lambda name, offset, piece, settled: Verdict.LATER
        bob = self.start()
        name = self.send(b"kept.", (0.0, b"kept."))
        self.run_for(0.1)
        self.assertEqual(len(self.receiver.pieces), 1)
        self.successResultOf(bob.stop())
        self.receiver = RecordingReceiver()
        self.start()
        self.run_for(0.1)
        self.assertEqual(self.receiver.consumed, {name: b"kept."})
        self.assertEqual(self.folder.inboxes[BOB], {})

    def test_nothingIsLeftRunning(self) -> None:
        """When all is consumed no timer runs: a simulation can end."""
        self.send(b"one.", (0.0, b"one."))
        self.send(b"half", (0.0, b"half"))
        self.run_for(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
