"""Records that are taken back before they are sent."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hoft.errors import JournalError, LinkClosed
from hoft.interfaces import IExpiryReceiver, ILink, Outgoing
from tests.protocols.nodes import Node, Pair, Program, lost


@implementer(IExpiryReceiver)
class Impatient(Program):
    """A program that is told what has expired."""

    def __init__(self) -> None:
        super().__init__()
        self.expired: list[int] = []

    def recordsExpired(self, link: ILink, ids: Sequence[int]) -> None:
        self.expired += ids


class WithdrawalTestCase(SynchronousTestCase):
    """With two nodes, of which near has a program that is told."""

    def setUp(self) -> None:
        self.pair = Pair(self)
        self.near, self.far = self.pair.near, self.pair.far
        self.program = self.near.program = Impatient()

    def hold(self) -> None:
        """Near writes nothing from now on."""
        self.near.link.carrier_down()

    def go_on(self) -> None:
        self.near.link.carrier_up()
        self.pair.advance(10)

    def cancel(self, *ids: int) -> list[int]:
        return self.pair.result(self.near.link.cancel(ids))

    def send(self, *payloads: bytes, expires: float | None = None) -> list[int]:
        outgoing = [Outgoing(payload, 1, expires=expires) for payload in payloads]
        return list(self.pair.result(self.near.link.commit(outgoing)).sent)

    def assertArrives(self, *payloads: bytes) -> None:
        """These and no others, and nothing is left anywhere."""
        self.assertEqual(sorted(filter(None, self.far.program.payloads)), sorted(payloads))
        self.assertEqual((self.near.rows("outbox"), self.far.rows("inbox")), (0, 0))
        self.assertEqual(self.near.link.backlog(), 0)
        self.assertEqual(len(self.near.link.engine.sender.records), 0)


def without_gaps(node: Node) -> bool:
    """Whether all record numbers that this node has received are one range."""
    return len(node.link.engine.receiver._known) == 1


class CancelTests(WithdrawalTestCase):
    """What the layer above does not want any more."""

    def test_before_it_is_sent(self) -> None:
        """It never arrives, is not reported as acknowledged, and leaves no gap."""
        self.pair.start()
        self.hold()
        ids = self.send(b"one", b"two", b"three")
        self.assertEqual(self.cancel(ids[1]), [ids[1]])
        self.assertEqual(self.near.link.backlog(), len(b"onethree"))
        self.go_on()
        self.assertArrives(b"one", b"three")
        self.assertEqual(self.program.acknowledged, [ids[0], ids[2]])
        self.assertTrue(without_gaps(self.far))
        self.assertEqual(self.near.link.counters["records_cancelled"], 1)

    def test_before_the_peer_is_known(self) -> None:
        """What has no number yet simply goes."""
        self.near.start()
        ids = self.send(b"one", b"two")
        self.assertEqual(self.cancel(ids[0]), [ids[0]])
        self.assertEqual(self.near.rows("outbox"), 1)
        self.far.start()
        self.pair.advance(10)
        self.assertArrives(b"two")

    def test_sent_already(self) -> None:
        """Nobody knows what became of it: it is not taken back."""
        self.pair.start()
        self.pair.deliver = lost
        ids = self.send(b"one")
        self.pair.advance(1)
        self.assertEqual(self.cancel(*ids), [])
        self.near.crash()
        self.near.program = Program()
        self.near.start()
        self.assertEqual(self.cancel(*ids), [])

    def test_unknown(self) -> None:
        """Ids of nothing, of what is acknowledged, or named twice."""
        self.pair.start()
        [old] = self.send(b"old")
        self.pair.advance(5)
        self.hold()
        [id] = self.send(b"one")
        self.assertEqual(self.cancel(id, id, old, 77), [id])
        self.assertEqual(self.cancel(id), [])
        self.go_on()
        self.assertArrives(b"old")

    def test_crash_after_it(self) -> None:
        """It stays taken back."""
        self.pair.start()
        self.hold()
        ids = self.send(b"one", b"two")
        self.assertEqual(self.cancel(ids[0]), [ids[0]])
        self.near.crash()
        self.near.start()
        self.pair.advance(30)
        self.assertArrives(b"two")
        self.assertTrue(without_gaps(self.far))

    def test_while_the_peer_is_adopted(self) -> None:
        """Whichever the journal does first."""
        for wait in range(12):
            pair = self.pair = Pair(self, seed=wait + 2)
            self.near, self.far = pair.near, pair.far
            self.near.start()
            ids = self.send(b"one", b"two")
            self.far.start()
            while not self.near.link._adoption.under_way:
                pair.clock.step()
            for _ in range(wait):
                pair.clock.step()
            taken = self.cancel(ids[0])
            pair.advance(30)
            self.assertArrives(*([b"two"] if taken else [b"one", b"two"]))
            self.assertTrue(without_gaps(self.far))

    def test_a_journal_that_refuses(self) -> None:
        """It is told, and all is sent."""
        self.pair.start()
        self.hold()
        ids = self.send(b"one")
        self.near.journal._refusal = JournalError("no")
        self.assertRaises(JournalError, self.cancel, *ids)
        self.near.journal._refusal = None
        self.go_on()
        self.assertArrives(b"one")

    def test_closed(self) -> None:
        """A link that is closed does nothing."""
        self.pair.start()
        self.near.link.close()
        self.failureResultOf(self.near.link.cancel([1]), LinkClosed)


class ExpiryTests(WithdrawalTestCase):
    """What is of no use any more."""

    def test_too_late(self) -> None:
        """It is taken back once its time has come, and the program is told; what has none waits."""
        self.pair.start()
        self.hold()
        ids = self.send(b"one", expires=5.0)
        self.send(b"two")
        self.pair.advance(4)
        self.assertEqual(self.program.expired, [])
        self.pair.advance(2)
        self.assertEqual(self.program.expired, ids)
        self.go_on()
        self.assertArrives(b"two")

    def test_in_time(self) -> None:
        """What was sent before is not taken back, though nothing is heard of it for long."""
        self.pair.start()
        self.pair.deliver, deliver = lost, self.pair.deliver
        self.send(b"one", expires=5.0)
        self.pair.advance(60)
        self.pair.deliver = deliver
        self.pair.advance(60)
        self.assertArrives(b"one")
        self.assertEqual(self.program.expired, [])

    def test_across_a_restart(self) -> None:
        """By the wall clock, where the peer was not heard of in between."""
        self.near.start()
        ids = self.send(b"one", expires=50.0)
        self.near.crash()
        self.program = self.near.program = Impatient()
        self.near.start()
        self.pair.advance(40)
        self.assertEqual(self.program.expired, [])
        self.pair.advance(20)
        self.assertEqual(self.program.expired, ids)
        self.far.start()
        self.send(b"two")
        self.pair.advance(30)
        self.assertArrives(b"two")

    def test_nobody_to_tell(self) -> None:
        """A program that does not ask to be told is not."""
        self.near.program = Program()
        self.pair.start()
        self.hold()
        self.send(b"one", expires=1.0)
        self.pair.advance(5)
        self.go_on()
        self.assertArrives()
