"""What the links of a node share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from uuid import UUID

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from hoft.interfaces import IWorker
from hoft.protocols.compression import Compressor
from hoft.protocols.journal import Journal


@frozen
class NodeParts:
    """What the links of a node share."""

    node: UUID
    boot: int
    journal: Journal
    writing: IWorker
    """Where packets are sealed and written."""
    reactor: IReactorTime
    clock: Callable[[], float]
    """Monotonic seconds."""
    entropy: Callable[[int], bytes]
    wall_clock: Callable[[], float]
    """Seconds; tells two runs of one resumed snapshot apart, decides nothing."""
    outboxes_at_start: Mapping[int, int]
    """L{hoft.protocols.log.last_outbox_ids} when this process had opened the journal."""
    compressor: Compressor | None = None
    """Of the journal's thread, for records that ask for it; None: nothing is compressed."""
    packet_numbers: defaultdict[UUID, Iterator[int]] = field(
        factory=lambda: defaultdict(lambda: count(1)), init=False, repr=False
    )
    """By peer: a link that is closed and opened again must not use a number twice in one boot."""
