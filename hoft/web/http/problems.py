"""
Every failure a caller can meet, as problem+json (RFC 9457) with Proxy-Status (RFC 9209).

A L{Problem} is a value: whichever node finds the failure makes it, it crosses in
CBOR where it must, and the ingress turns it into a response.  Its C{detail} is read
by callers: it names hosts, routes and limits, never credentials.

The C{type} is a stable name, not an address: C{.invalid} never resolves (RFC 2606).
C{docs/reference-problems.rst} lists them.  Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from attrs import evolve, field, frozen, validators

from hoft.errors import LocalError, RecordError

TYPE_BASE = "https://hoft.invalid/problems/"
"""What all our problem types begin with."""

REQUEST_ID = b"Hoft-Request-Id"
"""The field by which a caller learns under which id both nodes know its call."""

MAX_DETAIL = 1024
"""The most characters of a detail; longer ones are cut."""

Blame = Callable[[str], "Problem"]
"""Makes the problem for a detail: whose mistake a malformed field is depends on who sent it."""


def _short(text: str) -> str:
    """Fit to be read and to cross: surrogates, as from file names, have no UTF-8."""
    return text[:MAX_DETAIL].encode("utf-8", "replace").decode("utf-8")


def _seconds(waited: float) -> str:
    """As they are told: without what only came of when somebody looked."""
    return f"{waited:.0f}" if waited >= 9.95 else f"{waited:.2g}"


@frozen
class Problem:
    """
    One failure.

    @ivar status: of the response, 400..599.
    @ivar kind: the last part of the C{type}, lower-case words joined by C{-}.
    @ivar title: the same for all problems of the kind.
    @ivar detail: what happened this time and what can be done about it.
    @ivar proxy_error: the error type of RFC 9209 section 2.3.
    @ivar exchange: the exchange it happened in, 32 hexadecimal digits.
    @ivar retry_after: whole seconds after which a repetition may succeed (RFC 9110 10.2.3).
    @ivar status_url: where the caller may ask what became of the call; does not cross.
    """

    status: int = field(validator=[validators.ge(400), validators.le(599)])
    kind: str = field(validator=validators.matches_re(r"[a-z]+(-[a-z]+)*"))
    title: str
    detail: str = field(converter=_short)
    proxy_error: str | None = None
    exchange: str | None = None
    retry_after: int | None = None
    status_url: str | None = None

    @property
    def type(self) -> str:
        """The problem type URI."""
        return TYPE_BASE + self.kind

    def during(self, exchange: bytes) -> Problem:
        """This problem, naming the exchange (16 bytes) it happened in."""
        return evolve(self, exchange=exchange.hex())

    def proxy_status(self, pseudonym: str) -> bytes:
        """
        The Proxy-Status member for this (RFC 9209 section 2).

        @param pseudonym: what we call ourselves in Via, too.
        """
        parts = [_string(pseudonym)]
        if self.proxy_error is not None:
            parts.append(f"error={self.proxy_error}")
        parts.append("details=" + _string(self.detail))
        return "; ".join(parts).encode("ascii")

    def response(self, pseudonym: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """
        @param pseudonym: what we call ourselves in Via, too.
        @return: status, header fields without lengths, and the body (which a response
            to HEAD leaves out).
        """
        headers = [
            (b"Content-Type", b"application/problem+json"),
            (b"Cache-Control", b"no-store"),
            (b"Proxy-Status", self.proxy_status(pseudonym)),
        ]
        if self.exchange is not None:
            headers.append((REQUEST_ID, self.exchange.encode("ascii")))
        if self.status_url is not None:
            headers.append((b"Link", b'<%b>; rel="status"' % self.status_url.encode("ascii")))
        if self.retry_after is not None:
            headers.append((b"Retry-After", b"%d" % self.retry_after))
        return self.status, headers, json.dumps(self.members()).encode("ascii") + b"\n"

    def members(self) -> dict[str, str | int]:
        """What callers read, ready for JSON."""
        members: dict[str, str | int] = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.proxy_error is not None:
            members["error"] = self.proxy_error
        if self.exchange is not None:
            members["exchange"] = self.exchange
        if self.status_url is not None:
            members["status_url"] = self.status_url
        return members

    def as_map(self) -> dict[str, object]:
        """What crosses in an ABORT, ready for CBOR."""
        values: dict[str, object] = {
            "status": self.status,
            "kind": self.kind,
            "title": self.title,
            "detail": self.detail,
        }
        for name in ("proxy_error", "exchange", "retry_after"):
            value = getattr(self, name)
            if value is not None:
                values[name] = value
        return values

    @classmethod
    def from_map(cls, values: object) -> Problem:
        """
        The inverse of L{as_map}, for what an authenticated peer sent; kinds that we
        do not know (of a newer peer) are taken as they are.

        @raise RecordError: it has not that form.
        """
        if not isinstance(values, dict) or not _REQUIRED <= values.keys() <= _TYPES.keys():
            raise RecordError("a problem with other members than it must have")
        for name, value in values.items():
            if type(value) is not _TYPES[name]:
                raise RecordError(f"a problem whose {name} is of the wrong type")
            if isinstance(value, str) and len(value) > MAX_DETAIL:
                raise RecordError(f"a problem whose {name} is too long")
        proxy_error, exchange = values.get("proxy_error"), values.get("exchange")
        if proxy_error is not None and not _TOKEN.fullmatch(proxy_error):
            raise RecordError("a problem whose proxy_error is no token")
        if exchange is not None and not _EXCHANGE.fullmatch(exchange):
            raise RecordError("a problem whose exchange is no id")
        if not 0 <= values.get("retry_after", 0) <= MAX_RETRY_AFTER:
            raise RecordError("a problem whose retry_after is out of range")
        try:
            return cls(**values)
        except ValueError as error:
            raise RecordError(f"a problem out of bounds: {error}") from error


MAX_RETRY_AFTER = 366 * 86400
"""The most seconds for which a peer may have a caller wait."""

_TYPES: dict[str, type] = {
    "status": int,
    "kind": str,
    "title": str,
    "detail": str,
    "proxy_error": str,
    "exchange": str,
    "retry_after": int,
}
_REQUIRED = {"status", "kind", "title", "detail"}
_TOKEN = re.compile(r"[a-z][a-z0-9_]{0,63}")
_EXCHANGE = re.compile(r"[0-9a-f]{32}")


def _string(text: str) -> str:
    """A Structured Field string (RFC 9651 section 3.3.3); what it cannot hold becomes C{?}."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in text)
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Refused(LocalError):
    """
    A call ends here, with C{problem} as its answer.

    @ivar problem: what the caller is told.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(f"{problem.status} {problem.kind}: {problem.detail}")


# --- What callers do wrong ---------------------------------------------------


def malformed_request(detail: str) -> Problem:
    """The request breaks the syntax or framing of HTTP (RFC 9112)."""
    return Problem(400, "malformed-request", "The request is malformed", detail, "http_request_error")


def not_implemented(detail: str) -> Problem:
    """A method or transfer coding that this gateway does not carry."""
    return Problem(501, "not-implemented", "The gateway cannot do this", detail, "http_request_error")


def expectation_failed(detail: str) -> Problem:
    """An Expect other than 100-continue (RFC 9110 section 10.1.1)."""
    return Problem(417, "expectation-failed", "The expectation cannot be met", detail, "http_request_error")


def unauthenticated(detail: str, proxied: bool) -> Problem:
    """The caller must say who it is (RFC 9110 section 11), to a proxy or to a server."""
    status = 407 if proxied else 401
    return Problem(status, "unauthenticated", "The caller is not known", detail, "http_request_error")


def too_many_requests(detail: str, retry_after: int) -> Problem:
    """A caller or a route has used up what it may (RFC 6585 section 4)."""
    return Problem(
        429,
        "too-many-requests",
        "Too many requests",
        detail,
        "connection_limit_reached",
        retry_after=retry_after,
    )


def not_found(detail: str) -> Problem:
    """A path on the gateway itself that leads nowhere."""
    return Problem(404, "not-found", "There is nothing here", detail, "destination_not_found")


def unknown_route(name: str, known: Sequence[str] = ()) -> Problem:
    """
    C{/svc/NAME/} where no such route is configured.

    @param known: routes to name instead; empty where callers may not know them.
    """
    hint = f"; there is: {', '.join(known)}" if known else ""
    detail = f"no route is called {name!r}{hint}"
    return Problem(404, "unknown-route", "Unknown route", detail, "destination_not_found")


def no_peer(host: str, choices: Sequence[str]) -> Problem:
    """No route, and several peers (or none) could be meant."""
    if choices:
        detail = (
            f"nothing says which peer calls for {host!r} go to: set default_peer or a [[forward]] to one of "
            + ", ".join(choices)
        )
    else:
        detail = f"calls for {host!r} have nowhere to go: this node trusts no peer yet"
    return Problem(502, "no-peer", "No peer for this host", detail, "destination_not_found")


def not_allowed(detail: str) -> Problem:
    """The policy of one of the two nodes forbids the call."""
    return Problem(403, "not-allowed", "The call is not allowed", detail, "http_request_denied")


def address_prohibited(detail: str) -> Problem:
    """The name is allowed, but leads to an address that is not."""
    return Problem(
        403, "address-prohibited", "The address is not allowed", detail, "destination_ip_prohibited"
    )


def callback_refused(detail: str) -> Problem:
    """Hoft-Callback names no receiver that is registered for the caller; nothing was sent anywhere."""
    return Problem(403, "callback-refused", "The callback is not allowed", detail, "http_request_denied")


def too_large(detail: str) -> Problem:
    """A body, or a header section, above a limit."""
    return Problem(413, "too-large", "The request is too large", detail, "http_request_error")


def headers_too_large(detail: str) -> Problem:
    """A header section above what one HEAD may hold (RFC 6585 section 5)."""
    return Problem(
        431, "headers-too-large", "The request's header fields are too large", detail, "http_request_error"
    )


def loop_detected(pseudonym: str) -> Problem:
    """Via already names us (RFC 9110 section 7.6.3)."""
    detail = f"the request has passed through {pseudonym} before"
    return Problem(502, "loop", "The request goes in circles", detail, "proxy_loop_detected")


# --- What happens between the nodes -------------------------------------------


def peer_silent(peer: str, waited: float, status_url: str | None = None, why: str = "") -> Problem:
    """
    The deadline passed without an answer.  Whether the call was made is not known.

    @param waited: seconds.
    @param status_url: where the caller sees what becomes of it; without one, it is cancelled.
    @param why: what is known of that, to be added to the detail.
    """
    goes_on = "is cancelled, but may have been made" if status_url is None else "goes on: status_url shows it"
    detail = f"no answer through {peer} within {_seconds(waited)} s; the call {goes_on}{why}"
    return Problem(
        504, "peer-silent", "No answer in time", detail, "http_response_timeout", status_url=status_url
    )


def unknown_request() -> Problem:
    """C{/_hoft/requests/ID} of no request, or of another caller's."""
    detail = "no request of this caller has that id, or not any more"
    return Problem(404, "unknown-request", "Unknown request", detail, "destination_not_found")


def expired() -> Problem:
    """The result was kept as long as the configuration says."""
    detail = "the result was kept for result_ttl, and is not there any more"
    return Problem(410, "expired", "The result has expired", detail, "destination_not_found")


def cancelled(made: str) -> Problem:
    """
    The caller took the request back.

    @param made: whether the call was made nevertheless.
    """
    detail = f"its caller cancelled the request; {made}"
    return Problem(410, "cancelled", "The request was cancelled", detail, "destination_not_found")


def key_in_use(status_url: str | None) -> Problem:
    """The request with this Idempotency-Key is under way."""
    detail = "the request with this Idempotency-Key has not been answered yet"
    problem = Problem(409, "key-in-use", "The request is under way", detail, "http_request_error")
    return evolve(problem, status_url=status_url, retry_after=1)


def key_reused() -> Problem:
    """Another request was brought with this Idempotency-Key."""
    detail = "another request was brought with this Idempotency-Key: method, URL, type or body differ"
    return Problem(422, "key-reused", "The key belongs to another request", detail, "http_request_error")


def peer_unavailable(peer: str, why: str, retry_after: int | None = None) -> Problem:
    """The link is stopped or its carrier is down; nothing was sent."""
    detail = f"the link to {peer} cannot be used: {why}"
    return Problem(
        503,
        "peer-unavailable",
        "The peer cannot be reached",
        detail,
        "destination_unavailable",
        retry_after=retry_after,
    )


def no_space(detail: str, retry_after: int | None = None) -> Problem:
    """The spool or the journal has no room; nothing was kept."""
    return Problem(
        507,
        "no-space",
        "No space to keep the call",
        detail,
        "connection_limit_reached",
        retry_after=retry_after,
    )


def too_busy(detail: str, retry_after: int = 1) -> Problem:
    """As many calls as this node takes at once are under way."""
    return Problem(
        503, "too-busy", "Too many calls at once", detail, "connection_limit_reached", retry_after=retry_after
    )


def outcome_unknown(detail: str) -> Problem:
    """A node stopped, or was restored, after the call may have been made and before its answer was kept."""
    return Problem(502, "outcome-unknown", "The outcome is unknown", detail, "connection_terminated")


def not_stored() -> Problem:
    """C{Cache-Control: only-if-cached}, and it is not (RFC 9111 section 5.2.1.7)."""
    detail = "there is no response that may be used without asking the service, and the request forbids that"
    return Problem(504, "not-stored", "It is not stored here", detail, "destination_not_found")


def internal_error(detail: str) -> Problem:
    """A defect in hoft itself; the log of the node has more."""
    return Problem(500, "internal-error", "The gateway failed", detail, "proxy_internal_error")


def credentials_unavailable(name: str, why: str) -> Problem:
    """What the far node is to show the service who calls is not to be had; the call was not made."""
    detail = f"the credentials {name!r} for this service are not to be had: {why}"
    return Problem(
        503,
        "credentials-unavailable",
        "No credentials for the service",
        detail,
        "destination_unavailable",
        retry_after=5,
    )


# --- What happens at the service ----------------------------------------------


def dns_error(host: str, why: str) -> Problem:
    """The service's name has no address."""
    return Problem(502, "dns-error", "The name cannot be resolved", f"{host}: {why}", "dns_error")


def dns_timeout(host: str) -> Problem:
    """No name server answered."""
    detail = f"no name server answered for {host}"
    return Problem(504, "dns-timeout", "The name was not resolved in time", detail, "dns_timeout")


def connection_refused(where: str) -> Problem:
    """Nothing listens where the service should be."""
    detail = f"nothing accepts connections at {where}"
    return Problem(
        502, "connection-refused", "The service refused the connection", detail, "connection_refused"
    )


def connection_timeout(where: str, waited: float) -> Problem:
    """The service's address did not answer at all."""
    detail = f"{where} did not accept a connection within {_seconds(waited)} s"
    return Problem(
        504, "connection-timeout", "The service could not be reached", detail, "connection_timeout"
    )


def unroutable(where: str, why: str) -> Problem:
    """The network has no way to the service."""
    return Problem(
        502, "unroutable", "There is no way to the service", f"{where}: {why}", "destination_ip_unroutable"
    )


def tls_certificate_error(where: str, why: str) -> Problem:
    """The service's certificate is not one that we accept."""
    return Problem(
        502,
        "tls-certificate-error",
        "The service's certificate is not valid",
        f"{where}: {why}",
        "tls_certificate_error",
    )


def tls_protocol_error(where: str, why: str) -> Problem:
    """TLS failed for another reason than the certificate."""
    return Problem(
        502, "tls-protocol-error", "TLS with the service failed", f"{where}: {why}", "tls_protocol_error"
    )


def connection_terminated(detail: str) -> Problem:
    """The service closed or reset the connection before any response."""
    return Problem(
        502, "connection-terminated", "The service closed the connection", detail, "connection_terminated"
    )


def service_silent(where: str, waited: float) -> Problem:
    """The service took the request and said nothing in time."""
    detail = f"{where} did not respond within {_seconds(waited)} s"
    return Problem(
        504, "service-silent", "The service did not answer in time", detail, "http_response_timeout"
    )


def response_incomplete(detail: str) -> Problem:
    """The response began and did not end (RFC 9112 section 8)."""
    return Problem(
        502, "response-incomplete", "The response was cut short", detail, "http_response_incomplete"
    )


def bad_response(detail: str) -> Problem:
    """What the service sent is not HTTP as it must be."""
    return Problem(502, "bad-response", "The service's response is malformed", detail, "http_protocol_error")
