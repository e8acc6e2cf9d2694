"""Records that the layer above takes before they are committed."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hoft.errors import JournalFull, PayloadLost
from hoft.interfaces import Arrival, IArrivalReceiver, ILink, Incoming, IRecordReceiver
from hoft.protocols.database import Asked, Done
from tests.protocols.nodes import Node, Pair, Program, refuse


@implementer(IArrivalReceiver)
class EarlyProgram(Program):
    """What the payload begins with says how it is to be handed up."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes | None] = []

    def recordArriving(self, link: ILink, record: Incoming) -> Arrival:
        assert record.payload is not None
        if record.payload.startswith(b"done"):
            self.taken.append(record.payload)
            return Arrival.DONE
        return Arrival.AT_ONCE if record.payload.startswith(b"at once") else Arrival.STORE


class EarlyNode(Node):
    """With an L{EarlyProgram}."""

    early: EarlyProgram

    def receiver(self) -> IRecordReceiver:
        self.early = self.program = EarlyProgram()
        return self.program


class ArrivalTests(SynchronousTestCase):
    """Two nodes, one of which need not wait for the journal."""

    near: EarlyNode
    far: EarlyNode

    def setUp(self) -> None:
        self.pair = Pair(self, kind=EarlyNode)
        self.near, self.far = self.pair.near, self.pair.far  # type: ignore[assignment]  # of that kind
        self.pair.start()
        self.far.program.keep = True

    def _until_received(self) -> None:
        while not self.far.program.received:
            self.pair.clock.step()

    def test_done(self) -> None:
        """It never lies in the inbox, is acknowledged like any other, and a duplicate for ever."""
        self.pair.deliver = lambda sender, recipient, name, data: [(0.001, data), (3.0, data)]
        ids = self.near.send(b"done 1", b"stored", b"done 2")
        self.pair.advance(30)
        self.assertEqual(self.far.early.taken, [b"done 1", b"done 2"])
        self.assertEqual(self.far.program.payloads, [b"stored"])
        self.assertEqual((self.near.rows("outbox"), self.far.rows("inbox")), (0, 1))
        self.assertEqual(self.near.program.acknowledged, ids)
        self.far.crash()
        self.far.start()
        self.near.send(b"done 3")
        self.pair.advance(60)
        self.assertEqual(self.far.early.taken, [b"done 3"])

    def test_at_once(self) -> None:
        """It is handed up while the journal is at work, once, and stays until it is consumed."""
        self.near.send(b"at once", b"later")
        self._until_received()
        self.assertEqual(self.far.program.payloads, [b"at once"])
        [record] = self.far.program.received
        self.failureResultOf(self.far.link.read([record.id]), PayloadLost)
        self.pair.advance(5)
        self.assertEqual(self.far.program.payloads, [b"at once", b"later"])
        self.assertEqual(self.far.rows("inbox"), 2)
        self.assertEqual(self.pair.result(self.far.link.read([record.id])), [b"at once"])
        self.far.crash()
        self.near.crash()
        self.far.start()
        self.near.start()
        self.pair.advance(30)
        self.assertEqual(self.far.program.payloads, [None, None])

    def test_it_is_one_commit_with_what_is_asked_for_next(self) -> None:
        """Also where the journal has nothing else to do, and is waited for."""
        sizes: list[int] = []
        database = self.far.journal._database
        commit = database.commit

        def counted(batch: Sequence[Asked]) -> Done:
            sizes.append(len(batch))
            return commit(batch)

        self.patch(self.far.workers[0], "_delay", 0.0)
        self.patch(database, "commit", counted)
        self.near.send(b"at once")
        self._until_received()
        sizes.clear()
        self.successResultOf(self.far.link.commit(consume=[self.far.program.received[0].id]))
        self.assertEqual(sizes, [2])

    def test_consumed_before_it_is_committed(self) -> None:
        """Nothing remains of it."""
        self.far.program.keep = False
        self.near.send(b"at once")
        self._until_received()
        self.pair.advance(5)
        self.assertEqual(self.far.rows("inbox"), 0)
        [record] = self.far.program.received
        self.failureResultOf(self.far.link.read([record.id]), PayloadLost)

    def test_a_crash_before_the_commit(self) -> None:
        """The peer sends it again."""
        self.near.send(b"at once")
        self._until_received()
        self.far.crash()
        self.far.start()
        self.pair.advance(60)
        self.assertEqual(self.far.program.payloads, [b"at once"])
        self.assertEqual(self.near.rows("outbox"), 0)

    def test_no_room(self) -> None:
        """It comes again, as another record; as long as there is none, nothing more is handed up early."""
        full = refuse(self, self.far.journal, JournalFull("no room"))
        self.near.send(b"at once", b"done", b"later")
        self.pair.advance(1)
        self.assertEqual(self.far.program.payloads, [b"at once"])
        full.restore()
        self.far.carrier.wake()
        self.pair.advance(120)
        self.assertEqual(self.far.program.payloads, [b"at once", b"at once", b"done", b"later"])
        self.assertEqual(self.far.early.taken, [b"done"])
        first, again, *_ = self.far.program.received
        self.assertNotEqual(first.id, again.id)
        self.failureResultOf(self.far.link.read([first.id]), PayloadLost)
        self.assertEqual(self.far.rows("inbox"), 3)

    def test_a_log_that_is_over(self) -> None:
        """Its log was replaced before the commit: what was handed up is in no inbox."""
        self.pair.result(self.far.journal.transact(lambda t: t.execute("UPDATE link SET generation = 7")))
        self.near.send(b"at once")
        self._until_received()
        self.pair.advance(1)
        [record] = self.far.program.received
        self.assertEqual(self.far.rows("inbox"), 0)
        self.failureResultOf(self.far.link.read([record.id]), PayloadLost)
