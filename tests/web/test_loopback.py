"""The links that the tests of layer 2 stand on keep what ILink promises."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyClass, verifyObject

from hoft.errors import JournalFull, LinkClosed
from hoft.interfaces import CommitResult, ILink, Incoming, IRecordReceiver, ITransaction, LinkState, Outgoing
from tests.web.loopback import LoopbackLink, Transaction, pair


@implementer(IRecordReceiver)
class Recorder:
    def __init__(self) -> None:
        self.received: list[Incoming] = []
        self.acknowledged: list[int] = []
        self.changes: list[LinkState] = []

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        self.received.extend(records)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        self.acknowledged.extend(ids)

    def linkChanged(self, link: ILink) -> None:
        self.changes.append(link.state)

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> None:
        self.acknowledged.append(-1)


class LoopbackTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.near, self.far = pair(self.clock, seed=3)
        self.at_near, self.at_far = Recorder(), Recorder()
        self.near.attach(self.at_near)
        self.far.attach(self.at_far)

    def pump(self) -> None:
        while self.clock.getDelayedCalls():
            self.clock.advance(0)

    def test_it_is_a_link(self) -> None:
        verifyObject(ILink, self.near)
        verifyClass(ITransaction, Transaction)
        verifyObject(IRecordReceiver, self.at_near)

    def test_every_record_comes_out_once_and_is_acknowledged(self) -> None:
        payloads = [b"%d" % one for one in range(50)]
        result: Deferred[CommitResult[None]] = self.near.commit([Outgoing(one, 2) for one in payloads])
        self.assertNoResult(result)
        self.pump()
        sent = self.successResultOf(result).sent
        came = [record.payload for record in self.at_far.received]
        self.assertEqual(sorted(filter(None, came)), sorted(payloads))
        self.assertNotEqual(came, payloads)
        self.assertEqual(sorted(self.at_near.acknowledged), list(sent))
        self.assertEqual(self.near.backlog(), 0)

    def test_one_seed_has_one_order(self) -> None:
        orders = []
        for _ in range(2):
            near, far = pair(self.clock, seed=9)
            recorder = Recorder()
            far.attach(recorder)
            near.commit([Outgoing(b"%d" % one, 2) for one in range(30)])
            self.pump()
            orders.append([record.payload for record in recorder.received])
        self.assertEqual(orders[0], orders[1])

    def test_also_is_part_of_the_commit(self) -> None:
        def write(transaction: ITransaction) -> int:
            transaction.execute("CREATE TABLE t (n)")
            transaction.execute("INSERT INTO t VALUES (?)", (7,))
            return 5

        result = self.near.commit(also=write)
        self.pump()
        self.assertEqual(self.successResultOf(result).value, 5)
        self.assertEqual(self.near.database.execute("SELECT n FROM t").fetchall(), [(7,)])

    def test_a_failing_also_takes_everything_back(self) -> None:
        def write(transaction: ITransaction) -> None:
            transaction.execute("CREATE TABLE t (n)")
            raise ZeroDivisionError

        result = self.near.commit([Outgoing(b"x", 2)], also=write)
        self.pump()
        self.failureResultOf(result, ZeroDivisionError)
        self.assertEqual(self.at_far.received, [])
        self.assertEqual(self.near.database.execute("SELECT * FROM sqlite_master").fetchall(), [])

    def test_what_was_not_consumed_comes_again_after_a_restart(self) -> None:
        self.near.commit([Outgoing(b"small", 2), Outgoing(b"large" * 2000, 2), Outgoing(b"done", 2)])
        self.pump()
        done = next(record.id for record in self.at_far.received if record.payload == b"done")
        self.far.commit(consume=[done])
        again = Recorder()
        self.far.attach(again)
        self.pump()
        self.assertEqual({record.payload for record in again.received}, {b"small", None})
        large = next(record.id for record in again.received if record.payload is None)
        self.assertEqual(self.read(self.far, large), b"large" * 2000)
        self.assertEqual(self.far.unconsumed(), 2)

    def read(self, link: LoopbackLink, one: int) -> bytes:
        result = link.read([one])
        self.pump()
        return self.successResultOf(result)[0]

    def test_nothing_passes_a_cut_until_it_is_healed(self) -> None:
        self.near.open = False
        self.near.commit([Outgoing(b"x", 2)])
        self.pump()
        self.assertEqual((self.at_far.received, self.near.backlog()), ([], 1))
        self.near.heal()
        self.pump()
        self.assertEqual([record.payload for record in self.at_far.received], [b"x"])

    def test_full_and_closed_refuse(self) -> None:
        self.near.full = True
        self.failureResultOf(self.near.commit([Outgoing(b"x", 2)]), JournalFull)
        self.near.close()
        self.failureResultOf(self.near.commit(), LinkClosed)
        self.failureResultOf(self.near.read([1]), LinkClosed)

    def test_consuming_what_is_not_there_is_a_mistake(self) -> None:
        with self.assertRaises(AssertionError):
            self.near.commit(consume=[1])
