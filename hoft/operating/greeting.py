"""
Whether peers answer, asked without the node: by a packet that binds nobody to anything.

A peer that hears of a boot it does not know echoes its challenge, whoever that is
and whatever its own state (C{docs/protocol.rst}, "Synchronisation").  The boot and
the incarnation of the packet are made up for this one question, so the peer
adopts nothing and doubts nothing; and only the peer itself, now, can have made
a packet with that echo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from hoft.errors import CarrierError, PacketError, PacketReason
from hoft.interfaces import ICarrier, IFileReceiver, Verdict
from hoft.protocols.control import Control
from hoft.protocols.packets import ControlFrame, Header, PacketReader, PacketWriter
from hoft.protocols.sealing import Suite
from hoft.protocols.synchronisation import random64


@implementer(IFileReceiver)
class Greeting:
    """
    One question to each peer.  For a node that does not run; used on the reactor
    thread, and blocks it while it writes.

    @param suites: by the UUID of the peer: what may be sealed with, by each of our keys.
    @ivar answers: seconds until each peer has answered; C{None} if it did not yet.
    """

    def __init__(
        self,
        reactor: Any,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        carrier: ICarrier,
        node: UUID,
        suites: Mapping[UUID, Sequence[Suite]],
    ) -> None:
        self.answers: dict[UUID, float | None] = dict.fromkeys(suites)
        self._reactor = reactor
        self._clock = clock
        self._entropy = entropy
        self._carrier = carrier
        self._node = node
        self._suites = suites
        self._boot = random64(entropy)
        self._challenge = random64(entropy)
        self._began = 0.0
        self._written: dict[UUID, list[str]] = {}
        self._answered: Deferred[None] = Deferred()

    def ask(self, patience: float) -> Deferred[Mapping[UUID, float | None]]:
        """
        Write the questions, wait until all are answered, take away what nobody took.

        @param patience: seconds.
        @return: fires with L{answers}, when the carrier has stopped.
        @raise hoft.errors.LocalError: (as failure) the carrier cannot be used.
        """
        return Deferred.fromCoroutine(self._ask(patience))

    async def _ask(self, patience: float) -> Mapping[UUID, float | None]:
        await self._carrier.start(self)
        self._began = self._clock()
        for peer, suites in self._suites.items():
            for suite in suites:
                self._write(peer, suite)
        alarm = self._reactor.callLater(patience, self._over)
        if None in self.answers.values():
            await self._answered
        if alarm.active():
            alarm.cancel()
        for peer, names in self._written.items():
            self._carrier.transport(peer).remove(names)
        await self._carrier.stop()
        return self.answers

    def _over(self) -> None:
        if not self._answered.called:
            self._answered.callback(None)

    def _write(self, peer: UUID, suite: Suite) -> None:
        written = self._written.setdefault(peer, [])
        made = PacketWriter(
            suite,
            self._entropy,
            Control(probe=True).encode(),
            [],
            sender=self._node.bytes,
            recipient=peer.bytes,
            incarnation=random64(self._entropy),
            boot=self._boot,
            recipient_incarnation=0,
            challenge=self._challenge,
            echo=0,
            number=len(written) + 1,
            hedge=time.time_ns().to_bytes(8, "big"),
        )
        try:
            writer = self._carrier.transport(peer).create()
        except CarrierError:
            return  # what keeps us from writing has been found already
        try:
            writer.write(made.begin() + made.end())
            writer.finish()
            written.append(writer.name)
        except CarrierError:
            writer.abandon()

    # --- IFileReceiver

    def fileReceived(self, name: str, offset: int, piece: bytes, settled: bool) -> Deferred[Verdict]:
        """See L{IFileReceiver.fileReceived}: all but the answers is left for the node."""
        reader = PacketReader(self._accept)
        try:
            answers = any(isinstance(event, ControlFrame) for event in reader.feed(piece))
        except PacketError:
            answers = False
        header = reader.header
        if not answers or offset or header is None or header.echo != self._challenge:
            return succeed(Verdict.LATER)
        peer = UUID(bytes=header.sender)
        if self.answers[peer] is None:
            self.answers[peer] = round(self._clock() - self._began, 3)
        if None not in self.answers.values():
            self._over()
        return succeed(Verdict.LATER if header.frames else Verdict.CONSUMED)

    def _accept(self, header: Header) -> Suite:
        suites = self._suites.get(UUID(bytes=header.sender))
        if suites is None or header.recipient != self._node.bytes:
            raise PacketError(PacketReason.STRANGER)
        for suite in suites:
            if suite.number == header.suite and suite.own_key_id == header.key_id:
                return suite
        raise PacketError(PacketReason.UNKNOWN_KEY)

    def fileForgotten(self, name: str) -> None:
        """See L{IFileReceiver.fileForgotten}."""

    def carrierUp(self) -> None:
        """See L{IFileReceiver.carrierUp}."""

    def carrierDown(self, reason: str) -> None:
        """See L{IFileReceiver.carrierDown}: the questions may be answered all the same."""
