"""
Planted bugs: each breaks one rule of the log, and the lifetimes must find it.

A mutant is a context manager that patches the implementation for as long as it
is entered.  One that nothing finds means that the world of
L{tests.torture.lifetime} is too kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from hoft.interfaces import Incoming
from hoft.protocols import link_log, log, log_writing
from hoft.protocols.flight import Packet
from hoft.protocols.link_log import LinkLog
from hoft.protocols.log_writing import Step
from hoft.protocols.packets import PacketReader
from hoft.protocols.queueing import Frames, OutgoingRecord
from hoft.protocols.ranges import RangeSet
from hoft.protocols.receiving import Receiver
from hoft.protocols.replication import Replication
from hoft.protocols.router import LinkRouter
from hoft.protocols.sending import Sender
from hoft.protocols.synchronisation import Judgement, Sighting, Synchronisation

Mutant = Callable[[], AbstractContextManager[object]]


def ack_before_commit() -> AbstractContextManager[object]:
    """A record is acknowledged as soon as it is read: a crash before the commit loses it."""
    accept = Receiver.accept

    def mutated(self: Receiver, numbers: Iterable[int]) -> set[int]:
        new = accept(self, numbers)
        for number in new:
            self._acknowledged.add(number)
        self._answer_ready = bool(new) or self._answer_ready
        return new

    return patch.object(Receiver, "accept", mutated)


def small_window() -> AbstractContextManager[object]:
    """Only the latest sixteen numbers are remembered: what is late comes twice."""
    accept = Receiver.accept

    def mutated(self: Receiver, numbers: Iterable[int]) -> set[int]:
        numbers = list(numbers)
        latest = max((end for _, end in self._known), default=0)
        for number in numbers:
            if number <= latest - 16:
                self._known.discard(number)
        return accept(self, numbers)

    return patch.object(Receiver, "accept", mutated)


@contextmanager
def give_up() -> Iterator[None]:
    """What went twice is not sent a third time."""
    send_again = Sender._send_again

    def mutated(self: Sender, packet: Packet, frames: Iterable[int]) -> list[OutgoingRecord]:
        kept = [f for f in frames if all(r.settled or len(r.packets) < 2 for r in packet.frames[f])]
        return send_again(self, packet, kept)

    with (
        patch.object(Sender, "_send_again", mutated),
        patch.object(Sender, "probe", no_probe),
    ):
        yield


def no_probe(self: Sender, most: int, now: float, stride: int) -> Frames:
    """A probe that only asks."""
    self._timeout.probed(now)
    return Frames(0, stride)


@contextmanager
def no_timers() -> Iterator[None]:
    """Only receipts make anything go again: what is lost without a trace stays lost."""
    with (
        patch.object(Sender, "lose_overdue", lambda self, now: None),
        patch.object(Sender, "next_loss", lambda self: None),
        patch.object(Sender, "probe", no_probe),
    ):
        yield


def _receipts_settle() -> AbstractContextManager[object]:
    receipt = Sender.receipt

    def mutated(
        self: Sender, number: int, missing: Sequence[tuple[int, int]], hold: float, now: float
    ) -> None:
        packet = self._flight.packets.get(number)
        receipt(self, number, missing, hold, now)
        if packet is not None:
            bad = {frame for start, end in missing for frame in range(start - 1, end)}
            for index, frame in enumerate(packet.frames):
                for sent in frame if index not in bad else ():
                    for record in self.records.acknowledge(0, [(sent.number, sent.number)]):
                        self._settle(record, [], now)

    return patch.object(Sender, "receipt", mutated)


@contextmanager
def receipts_settle() -> Iterator[None]:
    """A receipt is given before the commit, and what it does not call missing counts as delivered."""
    with _receipts_settle(), patch.object(LinkRouter, "_committed", lambda self, arrival: succeed(None)):
        yield


@contextmanager
def truncation_accepted() -> Iterator[None]:
    """A cut packet passes for whole, and a whole one for delivered."""
    with _receipts_settle(), patch.object(PacketReader, "missing", lambda self: []):
        yield


def adopt_without_echo() -> AbstractContextManager[object]:
    """Whoever speaks last is whom we talk to: late files move the link."""
    judge = Synchronisation.judge

    def mutated(self: Synchronisation, seen: Sighting) -> Judgement:
        judgement = judge(self, seen)
        if judgement is Judgement.VOID and (seen.incarnation, seen.boot) != self.adopted:
            return Judgement.ADOPT
        return judgement

    return patch.object(Synchronisation, "judge", mutated)


def no_mint() -> AbstractContextManager[object]:
    """A restored node goes on as if it were the one that was lost, and gives numbers twice."""
    return patch.object(Synchronisation, "_knows_more", lambda self, seen: False)


def forget_retired() -> AbstractContextManager[object]:
    """That incarnations of the peer were given up is forgotten at each start."""
    opened = log.open_log

    def mutated(*arguments: Any, **rest: Any) -> log.Opened:
        found = opened(*arguments, **rest)
        return evolve(found, state=evolve(found.state, retired=[]))

    return patch.object(log, "open_log", mutated)


def keep_suspects() -> AbstractContextManager[object]:
    """After a restore, what waited without a number in the copy is sent, though it may have been before."""
    begin = log.begin_all_logs
    return patch.object(log, "begin_all_logs", lambda transaction, restored: begin(transaction, {}))


def _kept_through_restores(table: str, which: str, but: str) -> AbstractContextManager[object]:

    def mutated(transaction: Any, restored: Any) -> dict[bytes, log.Adopted]:
        transaction.execute(f"UPDATE {table} SET {but} WHERE {which}")
        rows = transaction.execute(f"DELETE FROM {table} WHERE {which} RETURNING *").fetchall()
        begun = begin(transaction, restored)
        for row in rows:
            transaction.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
        return begun

    begin = log.begin_all_logs
    return patch.object(log, "begin_all_logs", mutated)


def keep_inbox() -> AbstractContextManager[object]:
    """After a restore, what lay in the copy's inbox is handed up, though it may have been acted on."""
    return _kept_through_restores("inbox", "true", "channel = channel")


def forget_received() -> AbstractContextManager[object]:
    """What was received is not remembered across a restart, and handed up again."""
    return patch.object(log, "decode_received", lambda encoded: RangeSet())


@contextmanager
def accept_unsynchronised() -> Iterator[None]:
    """Records count before the peer has proven to be alive."""
    judge = Synchronisation.judge

    def mutated(self: Synchronisation, seen: Sighting) -> Judgement:
        if (
            self.adopted is None
            and seen.incarnation == self.peer_incarnation
            and seen.recipient_incarnation == self.incarnation
            and seen.echo != self.challenge
        ):
            self._remember(seen, retired=0)
            return Judgement.CURRENT
        return judge(self, seen)

    with (
        patch.object(Synchronisation, "judge", mutated),
        patch.object(Replication, "is_current", lambda self, header: True),
    ):
        yield


def number_at_once() -> AbstractContextManager[object]:
    """Records get numbers before the peer is known: a restored node gives some that were given."""
    write = log_writing.write

    def mutated(transaction: Any, link: int, boot: int, steps: Any) -> list[Any]:
        (before,) = transaction.execute("SELECT boot FROM link WHERE id = ?", (link,)).fetchone()
        transaction.execute("UPDATE link SET boot = ? WHERE id = ?", (log.word(boot), link))
        done = write(transaction, link, boot, steps)
        transaction.execute("UPDATE link SET boot = ? WHERE id = ?", (before, link))
        return done

    return patch.object(log_writing, "write", mutated)


def rollback_told_too_soon() -> AbstractContextManager[object]:
    """That the log began anew counts as told before the program has committed what follows."""
    adopt = log.adopt
    begin = log.begin_all_logs

    def adopted(transaction: Any, link: int, **rest: Any) -> log.Adopted:
        done = adopt(transaction, link=link, **rest)
        log.rollback_told(transaction, link)
        return done

    def begun(transaction: Any, restored: Any) -> dict[bytes, log.Adopted]:
        done = begin(transaction, restored)
        transaction.execute("UPDATE link SET rolled_back = 0")
        return done

    return patch.multiple(log, adopt=adopted, begin_all_logs=begun)


@contextmanager
def dealt_with_is_acknowledged() -> Iterator[None]:
    """What the program deals with at once is acknowledged before it is committed, which is left for later."""
    accept = LinkLog.accept

    def mutated(
        self: LinkLog, clock: int, numbers: Sequence[int], early: Sequence[Incoming], late: Sequence[Incoming]
    ) -> Deferred[bool]:
        accepting = accept(self, clock, numbers, early, late)
        return accepting if late else succeed(True)

    with patch.object(LinkLog, "accept", mutated), patch.object(link_log, "ALONE_AFTER", 2.0):
        yield


def consumed_before_it_came() -> AbstractContextManager[object]:
    """What is handed up while it is being committed can be let go of before that is done."""

    def mutated(self: LinkLog, step: Step, durable: bool = False) -> Deferred[Any]:
        return self._journal.transact_together(self._take_steps, step, durable)

    return patch.object(LinkLog, "write", mutated)


def repeatable_dropped() -> AbstractContextManager[object]:
    """A peer that has lost its state is not sent again what may be."""
    return patch.object(log, "AGAIN", 0)


def repeated_by_the_restored() -> AbstractContextManager[object]:
    """A node that has lost its own state sends again what may be, though its peer has it."""
    return _kept_through_restores("outbox", f"channel & {log.AGAIN}", "number = NULL")


MUTANTS: Sequence[Mutant] = (
    ack_before_commit,
    small_window,
    give_up,
    no_timers,
    receipts_settle,
    truncation_accepted,
    adopt_without_echo,
    no_mint,
    forget_retired,
    keep_suspects,
    keep_inbox,
    forget_received,
    accept_unsynchronised,
    number_at_once,
    rollback_told_too_soon,
    dealt_with_is_acknowledged,
    consumed_before_it_came,
    repeatable_dropped,
    repeated_by_the_restored,
)
