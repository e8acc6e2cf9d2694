"""
Requests on their way out to services: what they look like there, and their bodies.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from hoft.errors import RecordError
from hoft.interfaces import ILink
from hoft.web.client.agent import Content, ExactRequest
from hoft.web.client.origins import Origin
from hoft.web.client.policy import Grant
from hoft.web.crossing.exchange import Kind, Part, body_digest, decode_end, decode_part
from hoft.web.crossing.reassembly import Reassembler
from hoft.web.egress.gathering import Gathering
from hoft.web.http.fields import check_fields, is_token
from hoft.web.http.heads import Fields, RequestHead
from hoft.web.http.intermediary import check_loop, end_to_end, with_via
from hoft.web.http.problems import Refused, malformed_request, not_implemented

READ = 1 << 19
"""Bytes of a body that are read from the journal at once."""

_REPLACED = frozenset((b"host", b"expect"))


def check_request_line(head: RequestHead) -> None:
    """
    @raise Refused: method and target do not go together, or are none.
    """
    if not is_token(head.method):
        raise Refused(malformed_request("the method is none"))
    if head.method == b"CONNECT":
        raise Refused(not_implemented("this gateway makes no tunnels"))
    if b"#" in head.target or (head.target == b"*" and head.method != b"OPTIONS"):
        raise Refused(malformed_request("the target is not one for this method"))


def outgoing_fields(head: RequestHead, pseudonym: str) -> Fields:
    """
    A request's fields as the service gets them.

    @raise Refused: they are malformed, or have been here before.
    """
    check_fields(head.headers)
    check_loop(head.headers, pseudonym)
    # Expect was between the caller and its ingress; here the whole request is at hand.
    fields = end_to_end(head.headers, _REPLACED)
    if head.credentials and not any(name.lower() == b"authorization" for name, _ in fields):
        user, _, password = head.credentials.partition(b":")
        basic = b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password))  # RFC 7617 section 2
        fields.append((b"Authorization", b"Basic " + basic))
    return [(b"Host", head.authority), *with_via(fields, "hoft/1", pseudonym)]


def service_request(
    head: RequestHead, grant: Grant, fields: Fields, gathered: Gathering, link: ILink, again: bool
) -> tuple[ExactRequest, Content]:
    """
    What to ask the service for, and its body.

    @param fields: as L{outgoing_fields} has them.
    @param again: the request is L{repeatable}.
    """
    origin = Origin(grant.scheme, grant.host, grant.port)
    request = ExactRequest(head.method, origin, head.target, fields, grant.permits, again, gathered.trailers)
    body: Content = gathered.body or None
    if body is None and (gathered.received or gathered.trailers):
        body = RequestBody(link, gathered.parts, gathered.received)
    return request, body


@implementer(IBodyProducer)
class RequestBody:
    """
    A request's body on its way from the journal to the service.

    The last bytes are held back until the digest has been checked: a service never
    gets a damaged request as a whole one.
    """

    def __init__(self, link: ILink, reassembler: Reassembler, length: int) -> None:
        self.length: Any = length
        self._link = link
        self._reassembler = reassembler
        self._digest = body_digest()
        self._held = b""
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()
        self._paused = False
        self._reading = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self._consumer = consumer
        self._more()
        return self._done

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._more()

    def stopProducing(self) -> None:
        self._consumer = None

    def _more(self) -> None:
        if not (self._paused or self._reading or self._consumer is None):
            self._reading = True
            parts = taken(self._link, self._reassembler, READ)
            parts.addCallback(self._write).addErrback(self._failed)

    def _write(self, parts: Sequence[Part]) -> None:
        self._reading = False
        for part in parts:
            if self._consumer is None:
                return
            if part.kind is Kind.DATA:
                self._digest.update(part.body)
                held, self._held = self._held, part.body
                if held:
                    self._consumer.write(held)
            elif part.kind is Kind.END:
                if decode_end(part).digest != self._digest.digest():
                    raise RecordError("a request's body does not have the digest that its end says")
                self._consumer.write(self._held)
                self._consumer = None
                self._done.callback(None)
        self._more()

    def _failed(self, failure: Failure) -> None:
        if self._consumer is not None:
            self._consumer = None
            self._done.errback(failure)


def taken(link: ILink, reassembler: Reassembler, most: int) -> Deferred[list[Part]]:
    """The next parts in order, from memory or the journal; see L{Reassembler.take}."""
    found = reassembler.take(most)
    missing = [one.record for one in found if one.part is None]
    read: Deferred[list[bytes]] = link.read(missing) if missing else succeed([])

    def join(payloads: list[bytes]) -> list[Part]:
        fetched = iter(payloads)
        return [decode_part(next(fetched)) if one.part is None else one.part for one in found]

    return read.addCallback(join)
