"""
Where calls are that are under way, and what they wait for: as C{hoft requests} shows it.

All here only looks.  What it gives out is ready for JSON and has nothing secret in it;
times are seconds since 1970, durations seconds, sizes bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hoft.interfaces import Delivery, ILink, LinkState
from hoft.web.history import Ended, redacted, trace_of
from hoft.web.kept_rows import Stage as KeptStage
from hoft.web.surroundings import Limits, Stage

if TYPE_CHECKING:
    from hoft.web.cache_call import CachedCall
    from hoft.web.cache_fetch import Fetch
    from hoft.web.calls import Call
    from hoft.web.keeper import Keeper
    from hoft.web.keeping import Kept
    from hoft.web.performing import Exchange
    from hoft.web.waiting import Waiting

# --- ingress ------------------------------------------------------------------------------


def of_waiting(waiting: Waiting | CachedCall, now: float, ahead: float) -> dict[str, Any]:
    """
    A call whose caller is connected.

    @param now: (clock of the ingress)
    @param ahead: seconds that the wall clock is ahead of that.
    """
    call, link = waiting.call, waiting.link
    stage, why = _waiting_at(waiting)
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


def _waiting_at(waiting: Waiting | CachedCall) -> tuple[str, str]:
    call, link = waiting.call, waiting.link
    if not waiting.requested:
        return "receiving", _WHY_RECEIVING[waiting.held_up_by]
    if call.responding:
        if not call.writable:
            return "responding", "its caller does not read on"
        return "responding", f"{link.name} has not sent the rest of the response"
    if not waiting.accepted:
        return "receiving", "our journal has not taken all of the request yet"
    return _delivered(link, {waiting.first or 0, waiting.last})


_WHY_RECEIVING = {
    None: "its caller has not sent all of the request",
    "journal": "our journal takes no more of the request yet",
    "peer": "the peer takes no more of the request yet",
}


def of_tunnel(
    ended: Ended, call: Call, sizes: tuple[int, int] | None, seconds: float, now: float, ahead: float
) -> dict[str, Any]:
    """
    A call that makes a tunnel of its connection.

    @param ended: what will be told of it; C{seconds} is when it began.
    @param sizes: bytes that have passed; C{None} while it is not connected.
    @param seconds: in which it must be.
    """
    peer, begun, request = ended.peer, ended.seconds, call.request
    stage, why = "executing", f"what is behind {peer} has not answered, or its answer has not come"
    if sizes is not None or call.status:
        stage, why = "responding", "it lasts until either side closes it"
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


def of_kept(kept: Kept, keeper: Keeper, now: float) -> dict[str, Any]:
    """One that goes on without its caller."""
    link = keeper.link(kept)
    stage, why = _kept_at(kept, link, keeper.name(kept))
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
        "stages": {stage.value: at for stage, at in kept.stages.items()},
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
        stage, why = "responding", f"{link.name} has not sent the rest of the response{_unwell(link)}"
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


def _kept_at(kept: Kept, link: ILink | None, peer: str) -> tuple[str, str]:
    if link is None:
        return kept.stage.value, f"{peer} is not trusted any more"
    if kept.stage is KeptStage.ACCEPTED:
        return _delivered(link, kept.sent)
    if kept.stage is KeptStage.EXECUTING:
        return (
            "executing",
            f"the service behind {peer} has not answered, or its answer has not come{_unwell(link)}",
        )
    if kept.stage is KeptStage.RESPONDING:
        return "responding", f"{peer} has not sent the rest of the response{_unwell(link)}"
    return kept.stage.value, f"{peer} has the request, and has not said more{_unwell(link)}"


def _delivered(link: ILink, records: Any) -> tuple[str, str]:
    """How far a request has come whose parts these records are."""
    ways = [link.delivery(record) for record in records]
    if Delivery.QUEUED in ways:
        waiting = f", with {link.backlog()} bytes for {link.name}"
        return "accepted", f"it waits for its turn{waiting}{_unwell(link)}"
    if Delivery.SENT in ways:
        return "accepted", f"{link.name} has not acknowledged it{_unwell(link)}"
    return (
        "acked",
        f"{link.name} has the request, and has not answered{_unwell(link)}; see 'hoft requests' there",
    )


def _unwell(link: ILink) -> str:
    return "" if link.state is LinkState.UP else f"; {link.name} is {link.state.value}: see 'hoft status'"


# --- egress -----------------------------------------------------------------------------------


def of_exchange(exchange: Exchange, link: ILink, limits: Limits, now: float, ahead: float) -> dict[str, Any]:
    """
    A call that we perform, or are to.

    @param now: (clock of the egress)
    @param ahead: seconds that the wall clock is ahead of that.
    """
    head, sender = exchange.head, exchange.sender
    stage, why = _exchange_at(exchange, link, limits, now)
    stages = {"gathering": exchange.begun + ahead}
    if exchange.complete:
        stages["queued"] = exchange.complete + ahead
    if exchange.asked:
        stages["executing"] = exchange.asked + ahead
    if exchange.answered:
        stages["responding"] = exchange.answered + ahead
    return {
        "side": "egress",
        "id": exchange.id.hex(),
        "peer": link.name,
        "caller": None if head is None else head.caller,
        "route": None,
        "method": None if head is None else head.method.decode("ascii", "replace"),
        "url": None if head is None else redacted(head.url),
        "stage": stage,
        "why": why,
        "kept": head is not None and head.told,
        "age": now - exchange.begun,
        "left": head.deadline - (now - exchange.complete) if head is not None and exchange.complete else None,
        "stages": stages,
        "status": sender.status or None,
        "request_bytes": exchange.request.received,
        "response_bytes": sender.size,
        "trace": None if head is None else trace_of(head.headers),
    }


def _exchange_at(exchange: Exchange, link: ILink, limits: Limits, now: float) -> tuple[str, str]:
    head, peer = exchange.head, link.name
    if exchange.stage is Stage.GATHERING:
        return "gathering", f"{peer} has not sent all of the request{_unwell(link)}"
    if exchange.stage is Stage.QUEUED:
        return "queued", f"{limits.parallel} calls of {peer} are being performed already"
    if exchange.stage is Stage.DRAINING:
        return "draining", f"it was answered; {peer} has not sent all of the request{_unwell(link)}"
    sender = exchange.sender
    if sender.full:
        return "responding", "our journal has no room for the response"
    if exchange.response is not None:
        return "responding", _why_responding(exchange, link, limits)
    if exchange.requesting is None or head is None:
        where = "responding" if sender.begun else "executing"
        return where, "our journal has not taken what was to be noted of it yet"
    since = f"for {now - exchange.asked:.1f} s" if exchange.asked else ""
    return "executing", f"{head.scheme}://{head.authority.decode('ascii')} has not answered {since}".rstrip()


def _why_responding(exchange: Exchange, link: ILink, limits: Limits) -> str:
    sender, backlog = exchange.sender, link.backlog()
    if sender.waiting and backlog > limits.backlog:
        return f"{backlog} bytes wait for {link.name} before the rest of the response{_unwell(link)}"
    if sender.waiting and sender.granted <= 0:
        return f"{link.name} takes no more of the response yet: its caller reads slowly{_unwell(link)}"
    return "the service has not sent the rest of the response"


def ended_exchange(exchange: Exchange, link: ILink, now: float) -> Ended:
    """What is told of a call that we have answered, or given up."""
    head, sender = exchange.head, exchange.sender
    outcome = "cut" if sender.cut else "problems"
    if sender.problem is None:
        outcome = "answered" if sender.ending else "cancelled"
    return Ended(
        "egress", exchange.id, link.name, None if head is None else head.caller, None,
        b"-" if head is None else head.method, b"-" if head is None else head.url,
        outcome, sender.status if outcome != "cancelled" else 0, sender.problem,
        exchange.request.received, sender.size, now - (exchange.complete or exchange.begun),
    )  # fmt: skip
