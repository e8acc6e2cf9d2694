"""
Where calls are that are under way to services, and what they wait for: as C{hoft requests} shows it.

All here only looks.  What it gives out is ready for JSON and has nothing secret in it;
times are seconds since 1970, durations seconds, sizes bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hoft.interfaces import ILink
from hoft.web.egress.surroundings import Limits, Stage
from hoft.web.history import Ended, redacted, trace_of, unwell

if TYPE_CHECKING:
    from hoft.web.egress.performing import Exchange


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
    call = exchange.call
    if call is not None and call.asked:
        stages["executing"] = call.asked + ahead
    if call is not None and call.answered:
        stages["responding"] = call.answered + ahead
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
        return "gathering", f"{peer} has not sent all of the request{unwell(link)}"
    if exchange.stage is Stage.QUEUED:
        most = f"{limits.parallel} by this service, or {limits.running} by all"
        return "queued", f"as many calls of {peer} as may be are being performed already: {most}"
    if exchange.stage is Stage.DRAINING:
        return "draining", f"it was answered; {peer} has not sent all of the request{unwell(link)}"
    sender, call = exchange.sender, exchange.call
    if sender.full:
        return "responding", "our journal has no room for the response"
    if call is not None and call.response is not None:
        return "responding", _why_responding(exchange, link, limits)
    if call is None or call.requesting is None or head is None:
        where = "responding" if sender.begun else "executing"
        return where, "our journal has not taken what was to be noted of it yet"
    since = f"for {now - call.asked:.1f} s" if call.asked else ""
    return "executing", f"{head.scheme}://{head.authority.decode('ascii')} has not answered {since}".rstrip()


def _why_responding(exchange: Exchange, link: ILink, limits: Limits) -> str:
    sender, backlog = exchange.sender, link.backlog()
    if sender.waiting and backlog > limits.backlog:
        return f"{backlog} bytes wait for {link.name} before the rest of the response{unwell(link)}"
    if sender.waiting and sender.granted <= 0:
        return f"{link.name} takes no more of the response yet: its caller reads slowly{unwell(link)}"
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
