"""
A life of two nodes for the eye: what happens, and what each packet says and comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hoft.protocols.control import Control
from hoft.protocols.packets import ControlFrame, PacketReader, RecordFrame
from hoft.protocols.sealing import BoxSuite

if TYPE_CHECKING:
    from tests.torture.node import Node


def short(value: int) -> str:
    """The first digits of 64 random bits tell them apart."""
    return f"{value >> 48:04x}" if value else "-"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: 1-5,7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts) or "none"


class Trace:
    """Writes one line for each event and for each packet."""

    def __init__(self, write: Callable[[str], object] = print) -> None:
        self._write = write

    def event(self, now: float, event: str) -> None:
        """Something other than a packet."""
        self._write(f"{now:10.3f}  *** {event}")

    def packet(
        self, now: float, recipient: Node, data: bytes, arrivals: Sequence[tuple[float, bytes]]
    ) -> None:
        """A packet is written, and arrives like that."""
        sender = recipient.peer
        suite = BoxSuite(bytes(recipient.key), bytes(sender.key.public_key))
        reader = PacketReader(lambda header: suite)
        events = reader.feed(data)
        header = reader.header
        assert header is not None
        [control] = [Control.decode(event.content) for event in events if isinstance(event, ControlFrame)]
        numbers = sorted(
            record.number for event in events if isinstance(event, RecordFrame) for record in event.records
        )
        says = [f"ack {control.ack}"]
        says += [f"sack {'+'.join(f'{start}-{end}' for start, end in control.sack)}"] * bool(control.sack)
        says += [f"{len(control.receipts)} receipts"] * bool(control.receipts)
        says += [f"retired {short(control.retired)}"] * bool(control.retired)
        says += ["probe"] * control.probe
        self._write(
            f"{now:10.3f}  {sender.name} {short(header.incarnation)}/{short(header.boot)} #{header.number}"
            f" -> {short(header.recipient_incarnation)}/{short(control.peer_boot)}"
            f" challenge {short(header.challenge)} echo {short(header.echo)}"
            f" clock {control.clock} knows {control.peer_clock}; {', '.join(says)};"
            f" records {ranges(numbers)}; {len(data)} bytes {_fate(data, arrivals)}"
        )


def _fate(data: bytes, arrivals: Sequence[tuple[float, bytes]]) -> str:
    fates = []
    for wait, arrived in arrivals:
        if arrived == data:
            fates.append(f"whole after {wait:.3f}")
        elif len(arrived) < len(data):
            fates.append(f"cut to {len(arrived)} after {wait:.3f}")
        else:
            fates.append(f"damaged after {wait:.3f}")
    return ", then ".join(fates) or "lost"
