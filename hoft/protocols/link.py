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
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft.errors import LinkClosed
from hoft.interfaces import (
    CommitResult,
    Delivery,
    IFileTransport,
    ILink,
    IRecordReceiver,
    ITransaction,
    LinkState,
    Outgoing,
)
from hoft.protocols import log
from hoft.protocols.accepting import Acceptance
from hoft.protocols.adopting import Adoption
from hoft.protocols.compression import Compressor
from hoft.protocols.control import Control
from hoft.protocols.damage import Damage
from hoft.protocols.keyring import Keyring
from hoft.protocols.link_log import LinkLog
from hoft.protocols.link_state import next_change, state_of, status_of
from hoft.protocols.log_writing import VOID, Commit, Committed
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.packets import Header, Record
from hoft.protocols.publishing import Publisher
from hoft.protocols.queueing import OutgoingRecord
from hoft.protocols.replication import Replication
from hoft.protocols.sealing import BOX, Suite
from hoft.protocols.settings import Settings
from hoft.protocols.synchronisation import Judgement, Sighting
from hoft.protocols.waking import AckSync
from hoft.protocols.withdrawing import Withdrawals
from hoft.timers import Alarm, Soon

T = TypeVar("T")

SETTLE = 0.001
"""
Seconds from something that happened to when the timer is set by it, once for all that happens
until then: who waits for an answer does not wait for that.
"""


@implementer(ILink)
class Link:
    """
    A reliable record log to one peer (L{ILink}).

    Life: C{await link.open()}, L{makeConnection}, then until L{close}.

    @ivar engine: for status displays; read only.
    """

    _log = Logger()

    def __init__(
        self,
        parts: NodeParts,
        peer: UUID,
        name: str,
        keys: Keyring,
        receiver: IRecordReceiver,
        settings: Settings,
    ) -> None:
        """
        @param name: what the configuration calls the peer.
        @param keys: how packets of this link are sealed; may be changed while it runs.
        @param receiver: the layer above.
        @param settings: until L{reconfigure} is told of others.
        """
        self.peer = peer
        self.name = name
        self.keys = keys
        self.state = LinkState.UNKNOWN
        self.engine: Replication
        self.counters = {
            "records_sent": 0,
            "records_acknowledged": 0,
            "records_received": 0,
            "records_cancelled": 0,
            "packets_read": 0,
            "packets_cut": 0,
            "frames_bad": 0,
            "rollbacks": 0,
        }
        self._parts = parts
        self._journal = parts.journal
        self._receiver = receiver
        self._settings = settings
        self._publisher: Publisher | None = None
        self._records = LinkLog(parts, peer, name)
        self._acceptance = Acceptance(self, self._records, receiver, parts.clock, self.pump, self.counters)
        self._withdrawals = Withdrawals(
            self,
            self._records,
            receiver,
            lambda: self.engine.sender.records,
            self.pump,
            self._lost,
            self.counters,
        )
        self._damage = Damage(self, self._records, receiver, lambda: self.engine.sender.records, self._lost)
        self._adoption = Adoption(self, self._records, receiver, self._lost)
        self._alarm = Alarm(parts.reactor, self.tick)
        self._ack_sync = AckSync(
            parts.clock,
            lambda: self._journal.transact(_nothing, durable=True),
            lambda failure: self._lost(failure, "nothing can be acknowledged"),
            self.pump,
        )
        # Once for all that happens in one turn of the reactor.
        self._settling = Soon(parts.reactor, SETTLE, self._settle)
        self._closed = False
        self._carrier_up = True

    # --- life

    def open(self) -> Deferred[None]:
        """Load the log from the journal."""
        return self._records.open(self._now()).addCallback(self._opened)

    def _opened(self, opened: log.Opened) -> None:
        self._withdrawals.watch(opened.outbox, self._wall_clock_ahead())
        parts = self._parts
        self.engine = Replication(
            self._settings,
            incarnation=self._journal.incarnation,
            boot=parts.boot,
            log=opened.state,
            entropy=parts.entropy,
            packet_numbers=parts.packet_numbers[self.peer],
            now=parts.clock(),
        )
        if opened.outbox:
            self.engine.greet(parts.clock())
        if opened.rolled_back:
            self._adoption.tell(self._records.outbox.ids())

    def makeConnection(self, transport: IFileTransport) -> None:
        """Begin to write files."""
        self._publisher = Publisher(self._parts, self.peer, self.name, self.keys, transport)
        self.engine.path.restrict(transport.max_file, transport.max_files)
        self.pump()

    def reconfigure(self, settings: Settings) -> None:
        """Behave so from now on."""
        if settings != self.engine.settings:
            self.engine.reconfigure(settings)
            if self._publisher is not None:
                transport = self._publisher.transport
                self.engine.path.restrict(transport.max_file, transport.max_files)
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
        self._acceptance.close()
        self._withdrawals.close()
        self._records.close()
        self._alarm.cancel()
        self._settling.cancel()
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
        asked = Commit(send, consume, also, self._parts.wall_clock(), self._compressor())

        def committed(done: Committed) -> CommitResult[T]:
            if send:
                self._enqueued(done, send)
                self._withdrawals.watch(done.records, self._wall_clock_ahead())
            return CommitResult(done.value, [queued.id for queued in done.records])

        return self._records.commit(asked, durable).addCallback(committed)

    def _compressor(self) -> Compressor | None:
        # Whoever agreed on another suite wants what crosses to be readable on the way.
        agreed = self.engine.settings.compress and self.keys.suite.number == BOX
        return self._parts.compressor if agreed else None

    def _enqueued(self, done: Committed, send: Sequence[Outgoing]) -> None:
        self.counters["records_sent"] += len(send)
        numbered = self._records.outbox.add(done.records, send, done.payloads, self._now())
        for record in numbered:
            self.engine.queue(record)
        if not numbered:
            self.engine.greet(self._now())
        self._journal.once_told(self.pump)

    def read(self, ids: Sequence[int]) -> Deferred[list[bytes]]:
        """See L{ILink.read}."""
        return self._records.read(ids).addErrback(self._damage.unreadable)

    def backlog(self) -> int:
        """See L{ILink.backlog}."""
        return self._records.outbox.backlog

    def delivery(self, id: int) -> Delivery:
        """See L{ILink.delivery}."""
        return self._records.outbox.delivery(id)

    def cancel(self, ids: Sequence[int]) -> Deferred[list[int]]:
        """See L{ILink.cancel}."""
        if self._closed:
            return fail(LinkClosed(f"the link to {self.name} is closed"))
        return self._withdrawals.withdraw(ids)

    def _wall_clock_ahead(self) -> float:
        return self._parts.wall_clock() - self._now()

    def status(self) -> dict[str, Any]:
        """What there is to know of the link, ready for JSON; times in seconds, sizes in bytes."""
        oldest = self._records.outbox.oldest()
        return {
            "peer": str(self.peer),
            "state": self.state.value,
            "suite": self.keys.suite.name,
            "own_key": f"{self.keys.suite.own_key_id:04x}",
            **status_of(self.engine, self._now()),
            "unacknowledged_bytes": self._records.outbox.backlog,
            "oldest_unacknowledged": None if oldest is None else self._now() - oldest,
            "packets_written": 0 if self._publisher is None else self._publisher.packets,
            "write_error": None if self._publisher is None else self._publisher.trouble,
            "payloads_damaged": self._damage.payloads,
            **self.counters,
        }

    # --- what the router brings

    def hear(self, header: Header, control: Control) -> Deferred[Judgement]:
        """
        The control frame of a packet has authenticated.

        @return: fires with C{CURRENT} if the records of the packet count, else
            with what the engine made of it.
        """
        if self._adoption.under_way:
            return self._hear_after(self._adoption.wait(), header, control)
        if self.keys.heard(header):
            self._log.info(
                "{peer} has key {id} of this node; packets to it are sealed with that from now on",
                peer=self.name,
                id=f"{header.key_id:04x}",
            )
        heard = self.engine.hear(header, control, self._now())
        if heard.judgement is Judgement.ADOPT:
            adoption = self._adoption.begin(heard.sighting, self._adopted)
            return self._hear_after(adoption.addCallback(self._adoption_over), header, control)
        if heard.judgement is Judgement.CLONE:
            self._log.critical(
                "A copy of {peer} runs beside it: the link is stopped. Stop one of the two for good,"
                " then restart this node: it goes on with the other one, and if that is not the one it"
                " listened to, calls that were under way are reported as uncertain.",
                peer=self.name,
            )
        if heard.acknowledged is not None:
            self._acknowledged(heard.acknowledged.records, heard.acknowledged.files, control.clock)
        self.pump()
        return succeed(heard.judgement)

    def _hear_after(self, adoption: Deferred[bool], header: Header, control: Control) -> Deferred[Judgement]:
        return adoption.addCallback(lambda adopted: self.hear(header, control) if adopted else Judgement.VOID)

    def is_current(self, header: Header) -> bool:
        """Whether records of a packet that was current still count."""
        return not self._adoption.under_way and self.engine.is_current(header)

    def accept(self, clock: int, records: Sequence[Record]) -> Deferred[None]:
        """
        Records of a current packet: commit those that are new and hand them up.

        @param clock: the peer's clock, from the packet's control frame.
        @return: fires once all of them are committed.
        @raise JournalFull: (as failure) they may be given again later.
        """
        return self._acceptance.accept(self.engine.receiver, clock, records)

    def packet_read(self, header: Header, missing: Sequence[int], complete: bool) -> None:
        """A current packet was read as far as it will ever go."""
        self.counters["packets_read"] += 1
        if not complete:
            self.counters["packets_cut"] += 1
        self.engine.packet_read(header, missing, self._now())
        self.pump()

    def _acknowledged(self, records: Sequence[OutgoingRecord], files: Sequence[str], clock: int) -> None:
        self._remove(files)
        known = self._records.outbox.forget(records)
        if not known:
            return
        self.counters["records_acknowledged"] += len(known)
        ids = [queued.id for queued in known if queued.channel != VOID]
        done = self._records.acknowledge(clock, known)
        done.addCallback(lambda _: self._receiver.recordsAcknowledged(self, ids))
        done.addErrback(self._lost, "acknowledgements were not noted; they will be asked for again")

    # --- who the peer is

    def _adopted(self, adopted: log.Adopted, sighting: Sighting) -> None:
        known = self.engine.synchronisation.peer_incarnation != 0
        sender = self.engine.sender
        left = [queued for queued in adopted.outbox if not self._withdrawals.is_withdrawn(queued.id)]
        new = self.engine.adopt(sighting, self._records.outbox.numbered(left), self._now())
        if new:
            self._remove(sender.give_up())
        if new and known:
            self._rolled_back(adopted)
        self._acceptance.hand_up(self._records.leftovers())

    def _adoption_over(self, adopted: bool) -> bool:
        if adopted and self._publisher is not None:
            self._publisher.sweep()
        self.pump()
        return adopted

    def _rolled_back(self, adopted: log.Adopted) -> None:
        self.counters["rollbacks"] += 1
        self._adoption.rolled_back(adopted)

    def reincarnated(self, begun: log.Adopted) -> None:
        """Our own journal was restored and has minted an incarnation: the log is a new one."""
        self._records.begun(begun)
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
        self._withdrawals.expire(now)
        self._ack_sync.sync_if_due(self.engine, now)
        may = self._carrier_up and not self._adoption.under_way and now >= publisher.not_before
        if may and not publisher.busy:
            plan = self.engine.next_packet(self._records.clock, now)
            if plan is not None:
                publisher.publish(plan, self.engine, self._records.outbox, self.pump, self._damage.unsendable)
        self._settling.ask()

    def _settle(self) -> None:
        if not self._closed:
            now = self._now()
            self._update_state()
            changes = next_change(self.engine, self.state, now)
            self._alarm.set(min(self._next_deadline(now), changes), now)
            kept = self._records.keep_estimates(self.engine.path, now)
            if kept is not None:
                kept.addErrback(self._lost, "what was learned of the carrier is not kept")

    def _remove(self, names: Sequence[str]) -> None:
        if self._publisher is not None:
            self._publisher.remove(names)

    # --- time and state

    def _now(self) -> float:
        return self._parts.clock()

    @property
    def due(self) -> float:
        """(clock) Before this L{tick} has nothing to do."""
        return self._alarm.due

    def _next_deadline(self, now: float) -> float:
        """When there will be something to do, as far as that does not wait for something else."""
        publisher, expiry = self._publisher, self._withdrawals.next_due()
        deadline = math.inf if expiry is None else max(expiry, now + 0.0005)
        if publisher is None or publisher.busy or not self._carrier_up:
            return deadline
        engine = self._ack_sync.deadline(self.engine, now)
        return min(deadline, max(engine, publisher.not_before, now + 0.0005))

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
        failing = self._publisher is not None and self._publisher.trouble is not None
        state = state_of(self.engine, self._carrier_up and not failing, self._now())
        if state is not self.state:
            self.state = state
            self._receiver.linkChanged(self)

    def _lost(self, failure: Failure, what: str) -> None:
        self._log.failure("Link to {peer}: {what}", failure, peer=self.name, what=what)


def _nothing(_: Any) -> None:
    """What is asked of the journal when only its sync is wanted."""
