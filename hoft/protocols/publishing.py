"""
One link's packets on their way into files: one at a time, and after a failure not
at once again.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import CarrierError, CarrierFull, PayloadLost, RecordDamaged
from hoft.interfaces import IFileTransport
from hoft.protocols.keyring import Keyring
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.outbox import Outbox
from hoft.protocols.packet_writing import PacketJob, write_packet
from hoft.protocols.queueing import SHORT
from hoft.protocols.replication import PacketPlan, Replication
from hoft.timers import Soon

CONTROL_FILES = 4
"""Files without records that may lie in the folder, for each peer."""

GATHER = 0.02
"""Seconds in which files to be removed gather: nobody waits for it, and a thread is woken for each time."""

RETRY_FIRST = 0.5
RETRY_LONGEST = 10.0
"""Seconds between two tries: whoever mends a folder waits for no more than that."""


class Publisher:
    """
    Writes the packets of one link.

    @ivar busy: a packet is being written.
    @ivar not_before: (clock) when the next may be begun.
    @ivar packets: how many were written.
    @ivar transport: where they are written to.
    @ivar trouble: why the last one could not be written; L{None} if it was.
    """

    _log = Logger()

    def __init__(
        self,
        parts: NodeParts,
        peer: UUID,
        name: str,
        keys: Keyring,
        transport: IFileTransport,
    ) -> None:
        """@param name: what the configuration calls the peer."""
        self.busy = False
        self.not_before = float("-inf")
        self.packets = 0
        self.trouble: str | None = None
        self._parts = parts
        self._peer = peer
        self._name = name
        self._keys = keys
        self.transport = transport
        self._retry: float | None = None
        self._control_files: list[str] = []
        self._to_remove: list[str] = []
        self._removing = Soon(parts.reactor, GATHER, self._remove)
        self._swept = False
        self._closed = False

    def publish(
        self,
        plan: PacketPlan,
        engine: Replication,
        outbox: Outbox,
        over: Callable[[], None],
        damaged: Callable[[RecordDamaged], None],
    ) -> None:
        """
        Seal and write a packet.

        @param over: called when that was done or has failed.
        @param damaged: called before that if a record in it cannot be sent, now or ever.
        """
        self.busy = True
        parts = self._parts
        now = parts.clock()
        job = PacketJob(
            plan=plan,
            frames=outbox.payloads(plan.frames),
            suite=self._keys.for_sealing(asking=plan.control.probe),
            sender=parts.node.bytes,
            recipient=self._peer.bytes,
            boot=parts.boot,
            stride=engine.settings.stride,
            hedge=parts.wall_clock().hex().encode(),
            padding=engine.settings.padding,
        )
        engine.sending(plan, job.length, now)
        sender = engine.sender

        def written(name: str) -> None:
            self._works()
            self.packets += 1
            outbox.written(plan.frames)
            if plan.frames:
                self.remove(sender.named(plan.number, name))
            else:
                self._control_files.append(name)
                self.remove(self._control_files[:-CONTROL_FILES])
                del self._control_files[:-CONTROL_FILES]

        def failed(failure: Failure) -> None:
            if self._closed:
                return  # the transport was closed with it; the next start writes what is committed
            sender.not_written(plan.number)
            engine.not_written(parts.clock())
            if failure.check(PayloadLost) and overtaken():
                return
            if isinstance(failure.value, RecordDamaged):
                damaged(failure.value)
            elif isinstance(failure.value, CarrierFull) and sender.no_room(failure.value.written):
                self._log.info(
                    "{why}, for a file of {size} bytes: shorter and fewer ones go to {peer}",
                    why=failure.getErrorMessage(),
                    size=job.length,
                    peer=self._name,
                )
            else:
                self._wait(failure)

        def overtaken() -> bool:
            # What was to go once more has been acknowledged, or went with its log, and left the journal.
            return sender is not engine.sender or any(
                record.settled for frame in plan.frames for record in frame
            )

        def done(_: object) -> None:
            self.busy = False
            over()

        writing = parts.writing.call(
            write_packet, job, self.transport, parts.journal.segments.read, parts.entropy
        )
        if job.length <= SHORT:
            parts.writing.join(fire=False)
        writing.addCallbacks(written, failed)
        writing.addBoth(done)

    def _works(self) -> None:
        if self.trouble is not None:
            self._retry = self.trouble = None
            self._log.info("Files for {peer} can be written again", peer=self._name)

    def _wait(self, failure: Failure) -> None:
        self._retry = min(2 * (self._retry or RETRY_FIRST / 2), RETRY_LONGEST)
        self.not_before = self._parts.clock() + self._retry
        told, self.trouble = self.trouble, failure.getErrorMessage()
        if self.trouble == told:
            return
        if failure.check(CarrierError):
            self._log.warn(
                "No file can be written for {peer}: {why}; it is tried every {wait:.0f} s",
                peer=self._name,
                why=self.trouble,
                wait=RETRY_LONGEST,
            )
        else:
            self._log.failure("A packet for {peer} could not be made", failure, peer=self._name)

    def remove(self, names: Sequence[str]) -> None:
        """These files of ours carry nothing any more: they are removed together, soon."""
        self._to_remove += names
        if self._closed:
            self._remove()
        elif self._to_remove:
            self._removing.ask()

    def _remove(self) -> None:
        names, self._to_remove = self._to_remove, []
        if names:
            self.transport.remove(names)

    def sweep(self) -> None:
        """The peer is known in this boot: what earlier ones of ours wrote is cleared away, once."""
        if not self._swept:
            self._swept = True
            self.transport.sweep()

    def resume(self) -> None:
        """The carrier works again: wait no longer."""
        self.not_before = float("-inf")

    def close(self) -> None:
        """Finish what is being written, and no more."""
        self._closed = True
        self._removing.now()
        self.transport.loseConnection()
