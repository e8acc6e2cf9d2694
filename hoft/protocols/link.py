"""
A link: the engine, its journal and its transport, as a Twisted protocol.

All methods are called on the reactor thread.  Data walks

- out: L{Link.commit} -> journal -> engine -> L{Publisher} -> transport;
- in: L{LinkRouter<hoft.protocols.router.LinkRouter>} -> L{Link.hear} and
  L{Link.accept} -> engine -> journal -> the L{IRecordReceiver} above.

One timer wakes the link when the engine's deadline has come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import LinkClosed, PayloadLost
from hoft.interfaces import (
    CommitResult,
    IFileTransport,
    ILink,
    Incoming,
    IRecordReceiver,
    ITransaction,
    LinkState,
    Outgoing,
)
from hoft.protocols import log, log_writing
from hoft.protocols.control import Control
from hoft.protocols.journal import Transaction
from hoft.protocols.keyring import Keyring
from hoft.protocols.log_writing import Accept, Accepted, Acknowledge, Commit, Committed, Step
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.outbox import Outbox, for_engine
from hoft.protocols.packets import Header, Record
from hoft.protocols.publishing import Publisher
from hoft.protocols.queueing import OutgoingRecord
from hoft.protocols.replication import LogState, Replication
from hoft.protocols.sealing import Suite
from hoft.protocols.synchronisation import Judgement, Sighting

T = TypeVar("T")

SYNC_AGAIN = 60.0
"""Seconds after which a journal that could not be synced is asked again."""

LATE_AFTER = 30.0
"""Seconds after which an unacknowledged record makes the link late, however slow the carrier."""


@implementer(ILink)
class Link:
    """
    A reliable record log to one peer (L{ILink}).

    Life: C{await link.open()}, L{makeConnection}, then until L{close}.

    @ivar engine: for status displays; read only.
    @ivar due: (clock) before this L{tick} has nothing to do.
    """

    _log = Logger()

    def __init__(
        self, parts: NodeParts, peer: UUID, name: str, keys: Keyring, receiver: IRecordReceiver
    ) -> None:
        """
        @param name: what the configuration calls the peer.
        @param keys: how packets of this link are sealed; may be changed while it runs.
        @param receiver: the layer above.
        """
        self.peer = peer
        self.name = name
        self.keys = keys
        self.state = LinkState.UNKNOWN
        self.engine: Replication
        self._parts = parts
        self._journal = parts.journal
        self._receiver = receiver
        self._publisher: Publisher | None = None
        self._link = 0
        self._generation = 0
        self._clock = 0
        self._outbox = Outbox()
        self._inbox: dict[int, log.Held] = {}
        self._leftovers: list[log.Held] = []
        self._adopting: Deferred[bool] | None = None
        self._syncing = False
        self._sync_not_before = float("-inf")
        self._timer: IDelayedCall | None = None
        self._timer_at = 0.0
        self.due = float("-inf")
        self._settling: IDelayedCall | None = None
        self._closed = False
        self._carrier_up = True
        self.counters = {
            "records_sent": 0,
            "records_acknowledged": 0,
            "records_received": 0,
            "packets_read": 0,
            "packets_cut": 0,
            "frames_bad": 0,
            "rollbacks": 0,
        }

    # --- life

    def open(self) -> Deferred[None]:
        """Load the log from the journal."""
        operation = partial(log.open_log, peer=self.peer.bytes, boot=self._parts.boot)
        # Durable, because all that it finds as received is acknowledged from now on.
        return self._journal.transact(operation, durable=True).addCallback(self._opened)

    def _opened(self, opened: log.Opened) -> None:
        self._link = opened.link
        self._generation = opened.generation
        self._clock = opened.clock
        self._outbox = Outbox(opened.outbox)
        self._inbox = {held.id: held for held in opened.inbox}
        self._leftovers = list(opened.inbox)
        parts = self._parts
        self.engine = Replication(
            parts.settings,
            incarnation=self._journal.incarnation,
            boot=parts.boot,
            log=LogState(
                clock=opened.clock,
                peer_incarnation=opened.peer_incarnation,
                peer_clock=opened.peer_clock,
                peer_boot=opened.peer_boot,
                retired=opened.retired,
                boots=opened.boots,
                received=opened.received,
            ),
            entropy=parts.entropy,
            packet_numbers=parts.packet_numbers[self.peer],
            now=parts.clock(),
        )
        if opened.rolled_back:
            self._tell_rolled_back(self._outbox.ids())

    def makeConnection(self, transport: IFileTransport) -> None:
        """Begin to write files."""
        self._publisher = Publisher(self._parts, self.peer, self.name, self.keys, transport)
        self.pump()

    def rekey(self, suites: Sequence[Suite]) -> None:
        """
        Seal and open with these from now on; the peer soon sees a packet that is sealed so.

        @param suites: as L{Keyring} takes them.
        """
        if self.keys.replace(suites) and self.engine.synchronised:
            self.engine.receiver.owe(self._now())
            self.pump()

    def close(self) -> None:
        """Stop at once; what is committed goes on when the link is opened again."""
        self._closed = True
        self._cancel_timer()
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if self._publisher is not None:
            self._publisher.close()

    # --- what the layer above asks

    def commit(
        self,
        send: Sequence[Outgoing] = (),
        consume: Sequence[int] = (),
        also: Callable[[ITransaction], T] | None = None,
        durable: bool = False,
    ) -> Deferred[CommitResult[T]]:
        """See L{ILink.commit}."""
        if self._closed:
            return fail(LinkClosed(f"the link to {self.name} is closed"))
        generation = self._generation
        consumed = [held for id in consume if (held := self._inbox.pop(id, None)) is not None]
        size = sum(len(record.payload) for record in send)
        self._outbox.backlog += size

        def committed(done: Committed) -> CommitResult[T]:
            self._outbox.backlog -= size
            self._raise_clock(done.clock, done.generation)
            if send:
                self._enqueued(done.records, send)
            return CommitResult(done.value, [queued.id for queued in done.records])

        def failed(failure: Failure) -> Failure:
            self._outbox.backlog -= size
            if generation == self._generation:
                self._inbox.update((held.id, held) for held in consumed)
            return failure

        committing = self._write(Commit(send, consume, also), durable)
        return committing.addCallbacks(committed, failed)

    def _write(self, step: Step, durable: bool = False) -> Deferred[Any]:
        return self._journal.transact_together(self._take_steps, step, durable)

    def _take_steps(self, transaction: Transaction, steps: Sequence[Step]) -> Sequence[Any]:
        """On the journal's thread."""
        return log_writing.write(transaction, self._link, self._parts.boot, steps)

    def _raise_clock(self, clock: int, generation: int) -> None:
        if generation == self._generation:
            self._clock = max(self._clock, clock)

    def _enqueued(self, queued: Sequence[log.Queued], send: Sequence[Outgoing]) -> None:
        self.counters["records_sent"] += len(send)
        for record in self._outbox.add(queued, send):
            self.engine.queue(record)
        self.pump()

    def read(self, ids: Sequence[int]) -> Deferred[list[bytes]]:
        """See L{ILink.read}."""
        held = [self._inbox.get(id) for id in ids]
        gone = [id for id, one in zip(ids, held, strict=True) if one is None]
        if gone:
            return fail(PayloadLost(f"records {gone} of {self.name} were consumed, or went with their log"))
        return self._journal.load([one.location for one in held if one is not None])

    def backlog(self) -> int:
        """See L{ILink.backlog}."""
        return self._outbox.backlog

    def status(self) -> dict[str, Any]:
        """What there is to know of the link, ready for JSON; times in seconds, sizes in bytes."""
        engine = self.engine
        sender = engine.sender
        now = self._now()
        return {
            "peer": str(self.peer),
            "state": self.state.value,
            "suite": self.keys.suite.name,
            "own_key": f"{self.keys.suite.own_key_id:04x}",
            "round_trip": engine.round_trips.smoothed,
            "timeout": engine.round_trips.timeout(),
            "heard": None if engine.last_heard is None else now - engine.last_heard,
            "unacknowledged_records": sender.unacknowledged(),
            "unacknowledged_bytes": self._outbox.backlog,
            "retransmitted_records": dict(sender.retransmitted),
            "lost_packets": sender.lost_packets,
            "cut_packets": sender.cut_packets,
            "duplicate_records": engine.receiver.duplicates,
            "packets_written": 0 if self._publisher is None else self._publisher.packets,
            **self.counters,
        }

    # --- what the router brings

    def hear(self, header: Header, control: Control) -> Deferred[Judgement]:
        """
        The control frame of a packet has authenticated.

        @return: fires with C{CURRENT} if the records of the packet count, else
            with what the engine made of it.
        """
        if self._adopting is not None:
            waiting: Deferred[Judgement] = Deferred()

            def over(adopted: bool) -> bool:
                again = self.hear(header, control) if adopted else succeed(Judgement.VOID)
                again.chainDeferred(waiting)
                return adopted

            self._adopting.addCallback(over)
            return waiting
        if self.keys.heard(header):
            self._log.info(
                "{peer} has key {id} of this node; packets to it are sealed with that from now on",
                peer=self.name,
                id=f"{header.key_id:04x}",
            )
        heard = self.engine.hear(header, control, self._now())
        if heard.judgement is Judgement.ADOPT:
            adopting = self._adopt(heard.sighting)
            return adopting.addCallback(
                lambda adopted: self.hear(header, control) if adopted else Judgement.VOID
            )
        if heard.judgement is Judgement.CLONE:
            self._log.critical(
                "A copy of {peer} runs beside it: the link is stopped. Stop one of the two for good,"
                " then restart this node: the log begins anew with the other one, and calls that"
                " were under way are reported as uncertain.",
                peer=self.name,
            )
            # Neither can go on with this log, in which both have written.
            both = [header.incarnation, self.engine.synchronisation.peer_incarnation]
            retired = self._journal.transact(partial(log.retire, link=self._link, incarnations=both))
            retired.addErrback(self._lost, "that the log with this peer must begin anew was not noted")
        if heard.acknowledged is not None:
            self._acknowledged(heard.acknowledged.records, heard.acknowledged.files, control.clock)
        self.pump()
        return succeed(heard.judgement)

    def is_current(self, header: Header) -> bool:
        """Whether records of a packet that was current still count."""
        return self._adopting is None and self.engine.is_current(header)

    def accept(self, header: Header, clock: int, records: Sequence[Record]) -> Deferred[None]:
        """
        Records of a current packet: commit those that are new and hand them up.

        @param clock: the peer's clock, from the packet's control frame.
        @return: fires once all of them are committed.
        @raise JournalFull: (as failure) they may be given again later.
        """
        receiver = self.engine.receiver
        new = receiver.accept([record.number for record in records])
        fresh = []
        for record in records:
            if record.number in new:
                new.discard(record.number)
                fresh.append(record)
        numbers = [record.number for record in fresh]
        if not fresh:
            receiver.owe(self._now())
            return succeed(None)

        generation = self._generation

        def committed(accepted: Accepted | None) -> None:
            if accepted is None:
                return
            self._raise_clock(accepted.clock, generation)
            receiver.committed(numbers, self._now())
            self._hand_up(accepted.records, [record.payload for record in fresh])
            self.pump()

        def failed(failure: Failure) -> Failure:
            receiver.refused(numbers)
            return failure

        return self._write(Accept(generation, clock, fresh)).addCallbacks(committed, failed)

    def packet_read(self, header: Header, missing: Sequence[int], complete: bool) -> None:
        """A current packet was read as far as it will ever go."""
        self.counters["packets_read"] += 1
        if not complete:
            self.counters["packets_cut"] += 1
        self.engine.packet_read(header, missing, self._now())
        self.pump()

    def _hand_up(self, held: Sequence[log.Held], payloads: Sequence[bytes | None]) -> None:
        if self._closed:
            return
        self.counters["records_received"] += len(held)
        for one in held:
            self._inbox[one.id] = one
        incoming = [
            Incoming(one.id, one.channel, one.size, payload)
            for one, payload in zip(held, payloads, strict=True)
        ]
        self._receiver.recordsReceived(self, incoming)

    def _acknowledged(self, records: Sequence[OutgoingRecord], files: Sequence[str], clock: int) -> None:
        self._remove(files)
        known = self._outbox.forget(records)
        if not known:
            return
        self.counters["records_acknowledged"] += len(known)
        ids = [queued.id for queued in known]
        done = self._write(Acknowledge(self._generation, clock, known))
        done.addCallback(lambda _: self._receiver.recordsAcknowledged(self, ids))
        done.addErrback(self._lost, "acknowledgements were not noted; they will be asked for again")

    # --- who the peer is

    def _adopt(self, sighting: Sighting) -> Deferred[bool]:
        """Fires once it is over with whether the sender of what was seen is adopted."""
        adoption = self._adopting = Deferred()
        mine: Deferred[bool] = Deferred()
        adoption.addCallback(_also, mine)
        operation = partial(
            log.adopt,
            link=self._link,
            boot=self._parts.boot,
            incarnation=sighting.incarnation,
            peer_boot=sighting.boot,
            clock=sighting.clock,
        )
        done = self._journal.transact(operation).addCallback(self._adopted, sighting)
        done.addErrback(self._not_adopted).addCallback(self._adoption_over)
        return mine

    def _adopted(self, adopted: log.Adopted, sighting: Sighting) -> bool:
        known = self.engine.synchronisation.peer_incarnation != 0
        sender = self.engine.sender
        self._generation = adopted.generation
        self._clock = adopted.clock
        self._outbox.replace(adopted)
        new = self.engine.adopt(sighting, map(for_engine, adopted.outbox), self._now())
        if new:
            self._remove(sender.give_up())
        if new and known:
            self._rolled_back(adopted)
        # Those who know of them by what they have written themselves may have consumed some.
        leftovers = [held for held in self._leftovers if held.id in self._inbox]
        self._leftovers = []
        if leftovers:
            self._hand_up(leftovers, [None] * len(leftovers))
        return True

    def _not_adopted(self, failure: Failure) -> bool:
        self._lost(failure, "the peer could not be noted; it will greet again")
        return False

    def _adoption_over(self, adopted: bool) -> None:
        adopting, self._adopting = self._adopting, None
        self.pump()
        if adopting is not None:
            adopting.callback(adopted)

    def _rolled_back(self, adopted: log.Adopted) -> None:
        self.counters["rollbacks"] += 1
        self._log.warn(
            "The log with {peer} begins anew, because one side was restored from an older copy or lost"
            " its state; {dropped} records of ours were under way and their fate is unknown.",
            peer=self.name,
            dropped=len(adopted.dropped),
        )
        self._tell_rolled_back([queued.id for queued in adopted.outbox])

    def _tell_rolled_back(self, resent: Sequence[int]) -> None:
        self._receiver.peerRolledBack(self, resent)
        # After whatever that has just asked to be committed: a crash before this tells it again.
        told = self._journal.transact(partial(log.rollback_told, link=self._link))
        told.addErrback(self._lost, "that the log began anew will be told again")

    def reincarnated(self, begun: log.Adopted) -> None:
        """Our own journal was restored and has minted an incarnation: the log is a new one."""
        self._generation = begun.generation
        self._clock = begun.clock
        self._inbox.clear()
        self._leftovers = []
        self._outbox.replace(begun)
        self._remove(self.engine.sender.give_up())
        self.engine.reincarnate(self._journal.incarnation, begun.clock, self._now())
        self._rolled_back(begun)
        self.pump()

    # --- writing

    def carrier_up(self) -> None:
        """Files can be written again."""
        if not self._carrier_up:
            self._carrier_up = True
            if self._publisher is not None:
                self._publisher.resume()
            self.engine.resume(self._now())
            self.pump()

    def carrier_down(self) -> None:
        """Files cannot be written: nothing is sent, nothing counts as lost."""
        self._carrier_up = False
        self.engine.suspend(self._now())
        self._update_state()

    def pump(self) -> None:
        """Write what is due and set the timer for what is not.  Cheap where there is nothing to do."""
        publisher = self._publisher
        if self._closed or publisher is None:
            return
        now = self._now()
        self._sync_if_due(now)
        may = self._carrier_up and self._adopting is None and now >= publisher.not_before
        if may and not publisher.busy:
            plan = self.engine.next_packet(self._clock, now)
            if plan is not None:
                publisher.publish(plan, self.engine, self._outbox, self.pump)
        if self._settling is None:
            # Once for all that happens in this turn of the reactor.
            self._settling = self._parts.reactor.callLater(0, self._settle)

    def _settle(self) -> None:
        self._settling = None
        if not self._closed:
            now = self._now()
            self._update_state()
            self.due = min(self._next_deadline(now), self._late_at(now))
            self._set_timer(now)

    def _sync_if_due(self, now: float) -> None:
        if self._syncing or now < self._sync_not_before or not self.engine.wants_sync(now):
            return
        self._syncing = True
        receiver = self.engine.receiver
        count = receiver.to_sync()

        def synced(_: object) -> None:
            self._syncing = False
            receiver.durable(count, self._now())

        def failed(failure: Failure) -> None:
            self._syncing = False
            self._sync_not_before = self._now() + SYNC_AGAIN
            self._lost(failure, "nothing can be acknowledged")

        done = self._journal.transact(_nothing, durable=True)
        done.addCallbacks(synced, failed)
        done.addCallback(lambda _: self.pump())

    def _remove(self, names: Sequence[str]) -> None:
        if self._publisher is not None:
            self._publisher.remove(names)

    # --- time and state

    def _now(self) -> float:
        return self._parts.clock()

    def _next_deadline(self, now: float) -> float:
        """When the engine wants to be asked again, as far as that does not wait for something else."""
        publisher, deadline = self._publisher, self.engine.deadline()
        if deadline is None or publisher is None or publisher.busy or not self._carrier_up:
            return math.inf
        if self._syncing:
            # The answer that is due waits for the sync, which pumps when it is over.
            deadline = self.engine.deadline_without_answer()
            if deadline is None:
                return math.inf
        elif now < self._sync_not_before:
            others = self.engine.deadline_without_answer()
            deadline = self._sync_not_before if others is None else min(others, self._sync_not_before)
        return max(deadline, publisher.not_before, now + 0.0005)

    def _late_at(self, now: float) -> float:
        """When the link will be late if nothing is heard."""
        silence = self.engine.silence(now)
        if not silence or self.state is not LinkState.UP:
            return math.inf
        return now + max(self._patience() - silence, 0.0005)

    def _patience(self) -> float:
        return max(LATE_AFTER, 4 * self.engine.round_trips.timeout())

    def _set_timer(self, now: float) -> None:
        if self.due == math.inf:
            return
        if self._timer is not None:
            if self._timer_at <= self.due:
                return  # it rings too early, and is set anew then: cheaper than moving it each time
            self._cancel_timer()
        self._timer_at = self.due
        self._timer = self._parts.reactor.callLater(max(0.0, self.due - now), self._timed_out)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _timed_out(self) -> None:
        self._timer = None
        self.tick()

    def tick(self) -> None:
        """
        Called when C{due} has come, also by somebody with a monotonic clock, so that
        nothing rests on C{callLater}, whose wall clock may be set back.
        """
        if not self._closed and self._publisher is not None:
            if self._carrier_up:
                self.engine.tick(self._now())
            self.pump()

    def ask(self) -> None:
        """Ask the peer for a sign of life at once; C{engine.last_heard} tells when it came."""
        self.engine.ask(self._now())
        self.pump()

    def _update_state(self) -> None:
        state = self._current_state()
        if state is not self.state:
            self.state = state
            self._receiver.linkChanged(self)

    def _current_state(self) -> LinkState:
        engine = self.engine
        if engine.synchronisation.stopped:
            return LinkState.STOPPED
        if not self._carrier_up or (self._publisher is not None and self._publisher.failing):
            return LinkState.DOWN
        if not engine.synchronised:
            return LinkState.UNKNOWN
        silence = engine.silence(self._now())
        if silence > self._patience():
            return LinkState.LATE
        return LinkState.UP

    def _lost(self, failure: Failure, what: str) -> None:
        self._log.failure("Link to {peer}: {what}", failure, peer=self.name, what=what)


def _also(result: T, waiting: Deferred[T]) -> T:
    """Tell C{waiting} as well."""
    waiting.callback(result)
    return result


def _nothing(_: Any) -> None:
    """What is asked of the journal when only its sync is wanted."""
