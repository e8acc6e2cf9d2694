"""
Messages of all sizes between two nodes that crash, lose their state and have a
careless carrier: each is dealt with once, what is delivered is dealt with, what has
expired is not, and in the end nothing is left over, no credit either.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import HoftError, MessageExpired
from hoft.interfaces import IMessage, IMessageLink, ITransaction
from hoft.messages import incoming, outgoing
from hoft.messages.pieces import PIECE
from hoft.testing.channel import Faults, FaultyChannel
from hoft.transports.memory import unchanged
from tests.messages.programs import MessageNode, MessagePair, MessageProgram
from tests.torture.figures import SOAK

SEEDS = 10 * SOAK
WINDOW = 1 << 20
STEPS = 60
SIZES = (4, 300, 5000, PIECE, PIECE + 1, 3 * PIECE, 400_000)


class Booking(MessageProgram):
    """Notes each message in the transaction that consumes it; sometimes late, sometimes never."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.undone: list[IMessage] = []

    def messageReceived(self, link: IMessageLink, message: IMessage) -> None:
        self.undone.append(message)
        if self.random.random() < 0.7:
            self.deal(message)

    def deal(self, message: IMessage) -> None:
        self.undone.remove(message)
        reading = message.read(0, 4)
        reading.addCallback(lambda head: message.consume(lambda t: self.note(t, head)))
        reading.addErrback(lambda failure: failure.trap(HoftError))

    def note(self, transaction: ITransaction, head: bytes) -> None:
        transaction.execute("INSERT INTO note VALUES (?)", (str(int.from_bytes(head, "big")),))

    def deal_with_all(self) -> None:
        for message in list(self.undone):
            self.deal(message)


class Life:
    """What happens, from a seed."""

    def __init__(self, case: SynchronousTestCase, seed: int) -> None:
        self.case = case
        self.seed = seed
        self.random = Random(f"messages {seed}")
        self.pair = MessagePair(case, seed)
        self.near, self.far = self.pair.near, self.pair.far
        self.outcomes: dict[int, Any] = {}
        self.lost_at = 0
        """Messages up to this one may have been known to a state of far's that is lost."""
        self.far.mind = Booking(self.random)
        self.pair.start()
        chance = self.random.random
        faults = Faults(
            lose=chance() * 0.3,
            truncate=chance() * 0.4,
            duplicate=chance() * 0.2,
            flip=chance() * 0.05,
            delay=self.random.choice((0.01, 0.3, 2.0)),
            spread=chance(),
        )
        self.pair.deliver = FaultyChannel(Random(f"channel {seed}"), faults)

    def restart(self, node: MessageNode, wiped: bool = False) -> None:
        node.crash()
        if node is self.far:
            node.mind = Booking(self.random)
        if wiped:
            for path in sorted(node.folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            self.lost_at = len(self.outcomes) if node is self.far else self.lost_at
        node.start()

    def send(self) -> None:
        number = len(self.outcomes)
        size = self.random.choice(SIZES)
        expires = self.random.choice((None, None, None, 5.0, 50.0))
        self.outcomes[number] = None
        sending = self.near.messenger.send(number.to_bytes(4, "big") + bytes(size - 4), expires=expires)

        def over(result: Any) -> None:
            if isinstance(result, Failure):
                result.trap(HoftError)
            self.outcomes[number] = result

        sending.addBoth(over)

    def pass_time(self, seconds: float) -> None:
        while seconds > 0:
            part = min(seconds, 0.5)
            self.pair.advance(part)
            self.near.messages.tick()
            self.far.messages.tick()
            seconds -= part

    def live(self) -> None:
        wipes = self.seed % 2 == 0
        for _ in range(STEPS):
            what = self.random.random()
            if what < 0.55:
                for _ in range(self.random.randint(1, 5)):
                    self.send()
            elif what < 0.65:
                self.restart(self.near)
            elif what < 0.75:
                self.restart(self.far)
            elif what < 0.78 and wipes:
                self.restart(self.random.choice((self.near, self.far)), wiped=True)
            elif what < 0.9:
                assert isinstance(self.far.mind, Booking)
                self.far.mind.deal_with_all()
            self.pass_time(self.random.choice((0.002, 0.05, 1.0, 10.0)))
        self.pair.deliver = unchanged
        for _ in range(40):
            self.pass_time(60)
            assert isinstance(self.far.mind, Booking)
            self.far.mind.deal_with_all()

    def check(self) -> None:
        case, notes = self.case, [int(text) for text in self.far.notes()]
        case.assertEqual(len(notes), len(set(notes)), "dealt with twice")
        for number, outcome in self.outcomes.items():
            if isinstance(outcome, Failure):
                if outcome.check(MessageExpired):
                    case.assertNotIn(number, notes, "expired, and dealt with")
            elif outcome is not None and number >= self.lost_at:
                case.assertIn(number, notes, "delivered, and lost")
        for node, table in ((self.far, "inbox"), (self.near, "outbox"), (self.near, "message_unfinished")):
            case.assertEqual(node.rows(table), 0, f"{table} of {node.name}")
        case.assertEqual(self.near.messages.counters()["waiting_for_peers"], 0)
        case.assertEqual(self.far.messages.counters()["waiting_for_program"], 0)
        spent, released = self.sum(self.near, "sent"), self.sum(self.far, "released")
        case.assertLessEqual(spent - released, 0, "credit is lost")
        sender, receiver = self.near.messenger._outgoing, self.far.messenger._incoming
        case.assertEqual((sender._spent, receiver._released), (spent, released), "memory and journal differ")
        # Released may be more: what was under way when a log began anew is not paid for in the next.
        untold = WINDOW - (sender._allowed - sender._spent)
        case.assertLess(untold, incoming.CREDIT_STEP, "credit that the sender was not told of")

    def sum(self, node: MessageNode, column: str) -> int:
        """Of the present log's credit."""
        reading = node.journal.transact(
            lambda t: t.execute(f"SELECT {column} FROM message_flow").fetchone()[0]
        )
        return int(self.pair.result(reading))


class MessageLives(SynchronousTestCase):
    def test_lives(self) -> None:
        self.patch(outgoing, "WINDOW", WINDOW)
        self.patch(outgoing, "COMMIT_BYTES", 2 * PIECE)
        self.patch(incoming, "WINDOW", WINDOW)
        self.patch(incoming, "CREDIT_STEP", WINDOW // 4)
        for seed in range(SEEDS):
            life = Life(self, seed)
            try:
                life.live()
                life.check()
            except BaseException:
                print(f"replay: tests/torture/test_messages.py, seed {seed}")
                raise
            life.pair.stop()
