"""How well a peer is heard, and what there is to tell of a link; pure."""

from __future__ import annotations

import math
from typing import Any

from hoft.interfaces import LinkState
from hoft.protocols.replication import Replication

LATE_AFTER = 30.0
"""Seconds after which an unacknowledged record makes the link late, however slow the carrier."""

DOWN_AFTER = 3600.0
"""Seconds of silence after which the peer counts as down."""


def _late_after(engine: Replication) -> float:
    return max(LATE_AFTER, 4 * engine.round_trips.timeout())


def _down_after(engine: Replication) -> float:
    return max(DOWN_AFTER, 16 * engine.round_trips.timeout())


def state_of(engine: Replication, carrier_works: bool, now: float) -> LinkState:
    """The state of the link at C{now}."""
    if engine.synchronisation.stopped:
        return LinkState.STOPPED
    if not carrier_works:
        return LinkState.DOWN
    if not engine.synchronised:
        return LinkState.UNKNOWN
    silence = engine.silence(now)
    if silence > _down_after(engine):
        return LinkState.DOWN
    return LinkState.LATE if silence > _late_after(engine) else LinkState.UP


def next_change(engine: Replication, state: LinkState, now: float) -> float:
    """When C{state} will be another one if nothing is heard."""
    silence = engine.silence(now)
    patience = {LinkState.UP: _late_after, LinkState.LATE: _down_after}.get(state)
    if not silence or patience is None:
        return math.inf
    return now + max(patience(engine) - silence, 0.0005)


def status_of(engine: Replication, now: float) -> dict[str, Any]:
    """What the engine knows, ready for JSON; times in seconds, sizes in bytes."""
    sender, path, trips = engine.sender, engine.path, engine.round_trips
    cost = path.cost.cost
    return {
        "round_trip": trips.smoothed,
        "timeout": trips.timeout(),
        "heard": None if engine.last_heard is None else now - engine.last_heard,
        "bytes_per_second": trips.bandwidth,
        "packet_size": path.sizes.current,
        "packet_size_reason": path.sizes.reason(),
        "seconds_per_file": cost.per_file or None,
        "files_in_transit": sender.files_in_transit(),
        "bytes_in_transit": sender.bytes_in_transit(),
        "files_in_transit_limit": path.pace.files(),
        "bytes_in_transit_limit": path.most_bytes(),
        "bytes_per_second_limit": path.pace.limits.bytes_per_second or None,
        "unacknowledged_records": len(sender.records),
        "held_records": sender.records.blocked,
        "peer_full": sender.peer_full,
        "retransmitted_records": dict(path.retransmitted),
        "lost_packets": path.lost_packets,
        "spurious_packets": path.spurious_packets,
        "cut_packets": path.cut_packets,
        "duplicate_records": engine.receiver.duplicates,
    }
