"""
Heads on their way through the ingress: a caller's request as it crosses, and a
response that has crossed as the caller gets it.  Pure.
"""

from __future__ import annotations

import re
from typing import Final

from hoft.errors import RecordError
from hoft.web.http.fields import FieldList, check_fields, values, without
from hoft.web.http.heads import RequestHead, ResponseHead, Retry
from hoft.web.http.intermediary import check_loop, end_to_end, with_forwarded, with_via
from hoft.web.http.problems import REQUEST_ID, Refused, bad_response, malformed_request
from hoft.web.http.requests import Request
from hoft.web.http.targets import Mount, Service

DEADLINE: Final = b"hoft-deadline"
"""
The field by which a caller says how many seconds it waits for this exchange, in
place of the configured C{deadline}; decimals are allowed, and it does not cross.
"""

LONGEST: Final = 86400.0
"""The most seconds that a caller may ask for."""

_NOT_FORWARDED = frozenset((b"host", b"expect", b"hoft-callback", DEADLINE))
_SECONDS = re.compile(rb"[0-9]{1,5}(\.[0-9]{1,6})?")
_URGENCY = re.compile(rb"(?:^|,)[ \t]*u=([0-7])[ \t]*(?:;[^,]*)?(?=,|$)")

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""RFC 9110 section 9.2.2."""


def repeatable(head: RequestHead, retry: Retry | None = None) -> bool:
    """
    May the request be made again when nobody knows whether it was made?

    @param retry: in place of what its head says.
    """
    retry = retry or head.retry
    if retry is Retry.IDEMPOTENT:
        return head.method in IDEMPOTENT or any(
            name.lower() == b"idempotency-key" for name, _ in head.headers
        )
    return retry is Retry.ALWAYS


def deadline(request: Request, usual: float) -> float:
    """
    How many seconds the whole exchange may take.

    @param usual: unless the caller says otherwise.
    @raise Refused: what it says is no duration.
    """
    given = values(request.fields, DEADLINE)
    if not given:
        return usual
    if len(given) > 1 or not _SECONDS.fullmatch(given[0]) or not 0 < float(given[0]) <= LONGEST:
        raise Refused(
            malformed_request(f"Hoft-Deadline must be one number of seconds, at most {LONGEST:.0f}")
        )
    return float(given[0])


def urgency(request: Request) -> int:
    """What the C{Priority} field says (RFC 9218 section 4.1); what is malformed there is ignored."""
    found = _URGENCY.findall(b",".join(values(request.fields, b"priority")))
    return int(found[-1]) if found else 3


def crossing(
    request: Request,
    service: Service,
    pseudonym: str,
    caller: str,
    scheme: str,
    seconds: float,
    told: bool = False,
    retry: Retry = Retry.IDEMPOTENT,
) -> RequestHead:
    """
    A request as it crosses to the egress.

    @param service: what it is for.
    @param pseudonym: ours, for C{Via}.
    @param caller: the caller's address.
    @param scheme: in which the caller spoke to us.
    @param seconds: its deadline.
    @param told: somebody wants to know when the service is asked.
    @param retry: whether it may be made again if its outcome becomes unknown.
    @raise Refused: it has been here before.
    """
    check_loop(request.fields, pseudonym)
    fields = end_to_end(request.fields, _NOT_FORWARDED)
    host = None if request.host is None or service.absolute else str(request.host)
    fields = with_forwarded(fields, caller, scheme, host)
    where = service.authority
    major, minor = request.version
    return RequestHead(
        method=request.method,
        scheme=service.scheme,
        host=where.host,
        port=where.port,
        target=service.target,
        credentials=where.credentials,
        headers=with_via(fields, f"{major}.{minor}", pseudonym),
        length=request.length,
        deadline=seconds,
        urgency=urgency(request),
        caller=caller or None,
        told=told,
        retry=retry,
    )


def returned(
    head: ResponseHead,
    pseudonym: str,
    date: bytes,
    mount: Mount | None,
    target: bytes,
    secure: bool,
    exchange: bytes | None = None,
) -> FieldList:
    """
    A response's fields as the caller gets them.

    @param pseudonym: ours, for C{Via}.
    @param date: now, as C{Date} wants it, for a service without a clock (RFC 9110 section 6.6.1).
    @param mount: the route that was called.
    @param target: the request target at the service.
    @param secure: the caller speaks TLS to us.
    @param exchange: the id of the call, which its caller is to know.
    @raise RecordError: the fields are none of HTTP's.
    """
    try:
        check_fields(head.headers, bad_response)
    except Refused as refused:
        raise RecordError(refused.problem.detail) from refused
    fields = end_to_end(head.headers)
    names = {name.lower() for name, _ in fields}
    if mount is not None and not names.isdisjoint(_REFERRING):
        fields = [(name, _moved(mount, name, value, target, secure)) for name, value in fields]
    if b"date" not in names:
        fields.append((b"Date", date))
    if _REQUEST_ID in names:  # of another gateway, behind the service
        fields = without(fields, (_REQUEST_ID,))
    fields = with_via(fields, "hoft/1", pseudonym)
    if exchange is not None:
        fields.append((REQUEST_ID, exchange.hex().encode("ascii")))
    return fields


_REQUEST_ID = REQUEST_ID.lower()
_REFERRING = frozenset((b"location", b"content-location", b"set-cookie"))


def _moved(mount: Mount, name: bytes, value: bytes, target: bytes, secure: bool) -> bytes:
    lowered = name.lower()
    if lowered in (b"location", b"content-location"):
        return mount.location(value, target)
    if lowered == b"set-cookie":
        return mount.set_cookie(value, secure)
    return value
