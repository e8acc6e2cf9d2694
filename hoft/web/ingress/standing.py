"""
Where calls are that are under way for callers here, and what they wait for: as C{hoft requests} shows it.

All here only looks.  What it gives out is ready for JSON and has nothing secret in it;
times are seconds since 1970, durations seconds, sizes bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hoft.interfaces import Delivery, ILink
from hoft.web.history import Ended, redacted, trace_of, unwell
from hoft.web.ingress.kept_rows import Stage

if TYPE_CHECKING:
    from hoft.web.ingress.caching.call import CachedCall
    from hoft.web.ingress.caching.fetch import Fetch
    from hoft.web.ingress.calls import Call
    from hoft.web.ingress.keeper import Keeper
    from hoft.web.ingress.keeping import Kept
    from hoft.web.ingress.waiting import Waiting


def of_waiting(waiting: Waiting | CachedCall, now: float, ahead: float, short: bool) -> dict[str, Any]:
    """
    A call whose caller is connected.

    @param now: (clock of the ingress)
    @param ahead: seconds that the wall clock is ahead of that.
    @param short: the disk has no room for more of a response.
    """
    call, link = waiting.call, waiting.link
    stage, why = _waiting_at(waiting, short)
    stages = {"receiving": waiting.begun + ahead}
    if waiting.accepted:
        stages["accepted"] = waiting.accepted + ahead
    return {
        "side": "ingress",
        "id": waiting.id.hex(),
        "peer": link.name,
        "caller": waiting.caller,
        "route": None if waiting.mount is None else waiting.mount.name,
        "method": call.request.method.decode("ascii", "replace"),
        "url": redacted(call.request.target),
        "stage": stage,
        "why": why,
        "kept": False,
        "age": now - waiting.begun,
        "left": waiting.due - now,
        "stages": stages,
        "status": call.status or None,
        "request_bytes": waiting.sizes[0],
        "response_bytes": waiting.sizes[1],
        "trace": trace_of(call.request.fields),
    }


def _waiting_at(waiting: Waiting | CachedCall, short: bool) -> tuple[str, str]:
    call, link = waiting.call, waiting.link
    if not waiting.requested:
        return "receiving", _WHY_RECEIVING[waiting.held_up_by]
    if call.responding:
        if not call.writable:
            return "responding", "its caller does not read on"
        if short:
            return "responding", _SHORT
        return "responding", f"{link.name} has not sent the rest of the response"
    if not waiting.accepted:
        return "receiving", "our journal has not taken all of the request yet"
    return _delivered(link, {waiting.first or 0, waiting.last})


_SHORT = "our disk has next to no room for more of the response: see 'hoft status'"

_WHY_RECEIVING = {
    None: "its caller has not sent all of the request",
    "journal": "our journal takes no more of the request yet",
    "peer": "the peer takes no more of the request yet",
}


def of_tunnel(
    ended: Ended,
    link: ILink | None,
    call: Call,
    sizes: tuple[int, int] | None,
    seconds: float,
    now: float,
    ahead: float,
) -> dict[str, Any]:
    """
    A call that makes a tunnel of its connection.

    @param ended: what will be told of it; C{seconds} is when it began.
    @param link: to its peer, if that is still one.
    @param sizes: bytes that have passed; C{None} while it is not connected.
    @param seconds: in which it must be.
    """
    peer, begun, request = ended.peer, ended.seconds, call.request
    stage, why = "executing", f"what is behind {peer} has not answered, or its answer has not come"
    if sizes is not None or call.status:
        stage, why = "responding", "it lasts until either side closes it"
    if link is not None:
        why += unwell(link)
    return {
        "side": "ingress",
        "id": ended.id.hex(),
        "peer": peer,
        "caller": ended.caller,
        "route": ended.route,
        "method": request.method.decode("ascii", "replace"),
        "url": redacted(request.target),
        "stage": stage,
        "why": why,
        "kept": False,
        "age": now - begun,
        "left": None if call.status else begun + seconds - now,
        "stages": {"executing": begun + ahead},
        "status": call.status or None,
        "request_bytes": 0 if sizes is None else sizes[0],
        "response_bytes": call.written if sizes is None else sizes[1],
        "trace": trace_of(request.fields),
    }


def of_kept(kept: Kept, keeper: Keeper, now: float, short: bool) -> dict[str, Any]:
    """One that goes on without its caller; C{short}: see L{of_waiting}."""
    link = keeper.link(kept)
    stage, why = _kept_at(kept, link, keeper.name(kept), short)
    return {
        "side": "ingress",
        "id": kept.id.hex(),
        "peer": keeper.name(kept),
        "caller": kept.caller,
        "route": kept.route,
        "method": kept.method.decode("ascii", "replace"),
        "url": redacted(kept.url.encode("ascii")),
        "stage": stage,
        "why": why,
        "kept": True,
        "age": now - kept.begun,
        "left": kept.due - now,
        "stages": dict(kept.stages),
        "status": kept.status,
        "request_bytes": kept.request_size,
        "response_bytes": kept.response_size,
        "trace": None,
    }


def of_fetch(fetch: Fetch, now: float, ahead: float) -> dict[str, Any]:
    """A call that goes on for the cache alone, since nobody waits for it."""
    link, leader = fetch.link, fetch.leader
    stage, why = _delivered(link, {fetch.first or 0, fetch.last})
    if fetch.entry is not None:
        stage, why = "responding", f"{link.name} has not sent the rest of the response{unwell(link)}"
    return {
        "side": "ingress",
        "id": fetch.id.hex(),
        "peer": link.name,
        "caller": leader.caller,
        "route": leader.mount.name,
        "method": "GET",
        "url": redacted(leader.call.request.target),
        "stage": stage,
        "why": why,
        "kept": True,
        "age": now - fetch.begun,
        "left": fetch.until - now,
        "stages": {"accepted": fetch.begun + ahead},
        "status": None,
        "request_bytes": 0,
        "response_bytes": 0 if fetch.entry is None else fetch.entry.size,
        "trace": None,
    }


def _kept_at(kept: Kept, link: ILink | None, peer: str, short: bool) -> tuple[str, str]:
    if link is None:
        return kept.stage.value, f"{peer} is not trusted any more"
    if kept.stage is Stage.ACCEPTED:
        return _delivered(link, kept.sent)
    if kept.stage is Stage.EXECUTING:
        return (
            "executing",
            f"the service behind {peer} has not answered, or its answer has not come{unwell(link)}",
        )
    if kept.stage is Stage.RESPONDING and short:
        return "responding", _SHORT
    if kept.stage is Stage.RESPONDING:
        return "responding", f"{peer} has not sent the rest of the response{unwell(link)}"
    return kept.stage.value, f"{peer} has the request, and has not said more{unwell(link)}"


def _delivered(link: ILink, records: Any) -> tuple[str, str]:
    """How far a request has come whose parts these records are."""
    ways = [link.delivery(record) for record in records]
    if Delivery.QUEUED in ways:
        waiting = f", with {link.backlog()} bytes for {link.name}"
        return "accepted", f"it waits for its turn{waiting}{unwell(link)}"
    if Delivery.SENT in ways:
        return "accepted", f"{link.name} has not acknowledged it{unwell(link)}"
    return (
        "acked",
        f"{link.name} has the request, and has not answered{unwell(link)}; see 'hoft requests' there",
    )
