"""
Two links in one process, for tests of the layer above: records of each come out of
the other, in shuffled order, some reactor turns later.

Everything L{ILink} promises is kept, with a real SQLite database behind C{also};
what the real link does below that (files, sealing, loss) is not here.  The order of
delivery depends on the seed alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from hoft.errors import JournalFull, LinkClosed, PayloadDamaged, PayloadLost
from hoft.interfaces import (
    Arrival,
    CommitResult,
    Delivery,
    IArrivalReceiver,
    ILink,
    Incoming,
    IRecordReceiver,
    ITransaction,
    LinkState,
    Outgoing,
)
from hoft.protocols.packets import MAX_RECORD
from hoft.protocols.schema import Schema

T = TypeVar("T")


@implementer(ITransaction)
class Transaction:
    """Statements inside a commit; of no use after it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database: sqlite3.Connection | None = database

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        if self._database is None:
            raise AssertionError("a transaction was used after its commit")
        return self._database.execute(sql, parameters)

    def close(self) -> None:
        self._database = None


@implementer(ILink)
class LoopbackLink:
    """
    One end.

    @ivar other: the end that what is committed here comes out of.
    @ivar database: the journal of this node, for C{also} and for tests to look into.
    @ivar open: C{False} holds back what was committed here; see L{heal}.
    @ivar full: commits that send are refused with L{JournalFull}.
    @ivar withheld: share of records that are handed up without their payload.
    @ivar damaged: records received here that the journal has, but not as they were stored.
    @ivar durable: how many commits asked to be durable.
    @ivar records: payloads of all records ever committed here, in order.
    """

    def __init__(self, reactor: IReactorTime, peer: UUID, name: str, seed: int) -> None:
        self.peer = peer
        self.name = name
        self.state = LinkState.UP
        self.other = self
        self.database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.open = True
        self.full = False
        self.withheld = 0.0
        self.damaged: set[int] = set()
        self.durable = 0
        self.records: list[bytes] = []
        self._reactor = reactor
        self._random = Random(seed)
        self._receiver: IRecordReceiver | None = None
        self._asked: IArrivalReceiver | None = None
        self._closed = False
        self._ids = 0
        self._unacknowledged: dict[int, bytes] = {}
        self._under_way: list[tuple[int, Outgoing]] = []
        self._received: dict[int, tuple[int, bytes]] = {}
        self._scheduled = False

    # --- ILink

    def commit(
        self,
        send: Sequence[Outgoing] = (),
        consume: Sequence[int] = (),
        also: Callable[[ITransaction], T] | None = None,
        durable: bool = False,
    ) -> Deferred[CommitResult[T]]:
        if self._closed:
            return fail(LinkClosed(f"the link to {self.name} is closed"))
        if self.full and send:
            return fail(JournalFull("no room"))
        for record in send:
            if len(record.payload) > MAX_RECORD:
                raise AssertionError(f"a record of {len(record.payload)} bytes")
        unknown = [one for one in consume if one not in self._received]
        if unknown or len(set(consume)) != len(consume):
            raise AssertionError(f"consumed twice or never received: {unknown or consume}")
        value: T | None = None
        transaction = Transaction(self.database)
        self.database.execute("BEGIN IMMEDIATE")
        try:
            if also is not None:
                value = also(transaction)
        except Exception:
            self.database.execute("ROLLBACK")
            return fail()
        finally:
            transaction.close()
        self.database.execute("COMMIT")
        self.durable += durable
        sent = []
        for record in send:
            self._ids += 1
            sent.append(self._ids)
            self.records.append(record.payload)
            self._unacknowledged[self._ids] = record.payload
            self._under_way.append((self._ids, record))
        for one in consume:
            del self._received[one]
        self._schedule()
        done: Deferred[CommitResult[T]] = Deferred()
        self._reactor.callLater(0, done.callback, CommitResult(value, sent))
        return done

    def read(self, ids: Sequence[int]) -> Deferred[list[bytes]]:
        if self._closed:
            return fail(LinkClosed(f"the link to {self.name} is closed"))
        if not self._received.keys() >= set(ids):
            return fail(PayloadLost(f"records of {self.name} were consumed, or went with their log"))
        for one in self.damaged.intersection(ids):
            found = self._received[one][1][:-1] + b"\xff"
            return fail(PayloadDamaged(f"record {one} is not what was stored", found))
        done: Deferred[list[bytes]] = Deferred()
        self._reactor.callLater(0, done.callback, [self._received[one][1] for one in ids])
        return done

    def backlog(self) -> int:
        return sum(map(len, self._unacknowledged.values()))

    def delivery(self, id: int) -> Delivery:
        if any(one == id for one, _ in self._under_way):
            return Delivery.QUEUED
        return Delivery.SENT if id in self._unacknowledged else Delivery.ACKNOWLEDGED

    def cancel(self, ids: Sequence[int]) -> Deferred[list[int]]:
        wanted = set(ids)
        taken = [one for one, _ in self._under_way if one in wanted]
        self._under_way = [(one, record) for one, record in self._under_way if one not in wanted]
        for one in taken:
            del self._unacknowledged[one]
        done: Deferred[list[int]] = Deferred()
        self._reactor.callLater(0, done.callback, taken)
        return done

    # --- For tests

    def create(self, schema: Schema) -> None:
        """Make the tables of a layer above."""
        for migration in schema.migrations:
            for statement in migration:
                self.database.execute(statement)

    def attach(self, receiver: IRecordReceiver) -> None:
        """
        A receiver starts, or starts again after a crash: all that was not consumed is
        handed up, large ones without their payload as after a restart.
        """
        self._receiver = receiver
        self._asked = receiver if IArrivalReceiver.providedBy(receiver) else None
        again = [
            Incoming(one, channel, len(payload), payload if len(payload) <= 4096 else None)
            for one, (channel, payload) in self._received.items()
        ]
        self._random.shuffle(again)
        if again:
            self._reactor.callLater(0, self._hand_up, receiver, again)

    def detach(self) -> None:
        """The receiver's process is gone: what comes waits for L{attach}."""
        self._receiver = None
        self._asked = None

    def unconsumed(self) -> int:
        """How many received records lie in the journal."""
        return len(self._received)

    def unconsumed_bytes(self) -> int:
        """How many bytes they have."""
        return sum(len(payload) for _, payload in self._received.values())

    def change(self, state: LinkState) -> None:
        """Set C{state} and say so."""
        self.state = state
        if self._receiver is not None:
            self._receiver.linkChanged(self)

    def heal(self) -> None:
        """Let through what was held back while C{open} was C{False}."""
        self.open = True
        self._schedule()

    def lose_state(self) -> None:
        """The other node was restored from an old copy: nothing is known of what was under way."""
        resent = [(one, record) for one, record in self._under_way if record.again]
        for one, record in self._under_way:
            if not record.again:
                del self._unacknowledged[one]
        self._under_way = resent
        if self._receiver is not None:
            self._receiver.peerRolledBack(self, [one for one, _ in resent])

    def lose_inbox(self) -> None:
        """This node was restored: what it had received is gone."""
        self._received.clear()

    def close(self) -> Deferred[None]:
        """Later commits fail."""
        self._closed = True
        return succeed(None)

    # --- Delivery

    def _schedule(self) -> None:
        if self._under_way and self.open and not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._deliver)

    def _deliver(self) -> None:
        """Hand a random number of random records to the other side."""
        self._scheduled = False
        if not self.open or self.other._closed or not self._under_way:
            return
        count = self._random.randint(1, len(self._under_way))
        self._random.shuffle(self._under_way)
        passing, self._under_way = self._under_way[:count], self._under_way[count:]
        self.other._arrived([record for _, record in passing])
        self._reactor.callLater(0, self._acknowledged, [one for one, _ in passing])
        self._schedule()

    def _acknowledged(self, ids: list[int]) -> None:
        for one in ids:
            del self._unacknowledged[one]
        if self._receiver is not None:
            self._receiver.recordsAcknowledged(self, ids)

    def _arrived(self, records: list[Outgoing]) -> None:
        incoming = []
        for record in records:
            self._ids += 1
            self._received[self._ids] = record.channel, record.payload
            withheld = self._random.random() < self.withheld
            payload = None if withheld else record.payload
            one = Incoming(self._ids, record.channel, len(record.payload), payload)
            if self._asked is not None and self._asked.recordArriving(self, one) is Arrival.DONE:
                del self._received[one.id]
            else:
                incoming.append(one)
        if self._receiver is not None:
            self._receiver.recordsReceived(self, incoming)

    def _hand_up(self, receiver: IRecordReceiver, incoming: list[Incoming]) -> None:
        if receiver is self._receiver:
            receiver.recordsReceived(self, [one for one in incoming if one.id in self._received])


def pair(
    reactor: IReactorTime, seed: int = 0, near: str = "near", far: str = "far"
) -> tuple[LoopbackLink, LoopbackLink]:
    """
    @param near: name of the node that has the first link.
    @param far: name of the node that has the second one.
    @return: the near node's link to the far one, and the far node's to the near one;
        give each its receiver with L{LoopbackLink.attach}.
    """
    here = LoopbackLink(reactor, UUID(int=2), far, seed * 2)
    there = LoopbackLink(reactor, UUID(int=1), near, seed * 2 + 1)
    here.other, there.other = there, here
    return here, there
