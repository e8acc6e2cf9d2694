"""
Making one packet into one file, on the writing worker's thread.

Each frame is sealed and written at once; a packet is never gathered in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import field, frozen

from hoft.errors import PayloadDamaged, RecordDamaged
from hoft.interfaces import IFileTransport
from hoft.protocols.packets import PacketWriter, Record, packet_length
from hoft.protocols.replication import PacketPlan
from hoft.protocols.sealing import Suite
from hoft.protocols.segments import Location

GATHER = 16 << 10
"""Smaller pieces are joined to one write; joining larger ones costs more than another call."""


@frozen
class Payload:
    """A record to be sent: its payload, or where it is in the journal."""

    number: int
    channel: int
    size: int
    source: bytes | Location = field(repr=False)
    flags: int = 0


@frozen
class PacketJob:
    """All that is needed to write a packet."""

    plan: PacketPlan
    frames: Sequence[Sequence[Payload]]
    suite: Suite
    sender: bytes
    recipient: bytes
    boot: int
    stride: int
    hedge: bytes
    padding: int = 0
    """Bytes after the end of the packet."""
    control: bytes = field(init=False, repr=False)

    @control.default
    def _encode_control(self) -> bytes:
        return self.plan.control.encode()

    @property
    def length(self) -> int:
        """Bytes of the file."""
        length = packet_length(len(self.control), self._sizes(), self.suite.number, self.stride)
        return length + self.padding

    def _sizes(self) -> list[list[int]]:
        return [[payload.size for payload in frame] for frame in self.frames]

    def writer(self, entropy: Callable[[int], bytes]) -> PacketWriter:
        """The packet, sealed piece by piece."""
        return PacketWriter(
            self.suite,
            entropy,
            self.control,
            self._sizes(),
            sender=self.sender,
            recipient=self.recipient,
            incarnation=self.plan.incarnation,
            boot=self.boot,
            recipient_incarnation=self.plan.recipient_incarnation,
            challenge=self.plan.challenge,
            echo=self.plan.echo,
            number=self.plan.number,
            hedge=self.hedge,
            stride=self.stride,
        )


def write_packet(
    job: PacketJob,
    transport: IFileTransport,
    load: Callable[[Location], bytes],
    entropy: Callable[[int], bytes],
) -> str:
    """
    Write a packet.  Called on the writing worker's thread.

    @param load: reads a payload from the journal.
    @return: the file's name.
    @raise hoft.errors.CarrierError: it could not be written; nothing is left of it.
    @raise hoft.errors.RecordDamaged: a payload is not what was stored; likewise.
    @raise hoft.errors.JournalError: one could not be read; likewise.
    """
    packet = job.writer(entropy)
    file = transport.create()
    try:
        gathered = packet.begin()
        for frame in job.frames:
            records = [
                Record(
                    payload.number,
                    payload.channel,
                    payload.source
                    if isinstance(payload.source, bytes)
                    else _load(payload, payload.source, load),
                    payload.flags,
                )
                for payload in frame
            ]
            sealed = packet.frame(records)
            if gathered and len(gathered) + len(sealed) > GATHER:
                file.write(gathered)
                gathered = b""
            if len(sealed) > GATHER:
                file.write(sealed)
            else:
                gathered += sealed
        # No zeros: those count as not arrived.
        file.write(gathered + packet.end() + b"\xff" * job.padding)
        file.finish()
    except BaseException:
        file.abandon()
        raise
    return file.name


def _load(payload: Payload, location: Location, load: Callable[[Location], bytes]) -> bytes:
    try:
        return load(location)
    except PayloadDamaged as error:
        raise RecordDamaged(payload.number, error) from error
