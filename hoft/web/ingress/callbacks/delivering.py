"""
One attempt to bring a kept response, or the problem in its place, to a receiver of callbacks.

It is a POST with the response's body as it is, and the type and coding that the
response says it has; see L{callback_fields} for the rest.  Nothing of the caller's request is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import HoftError, PayloadLost
from hoft.interfaces import ILink
from hoft.web.client.agent import Content, ExactRequest
from hoft.web.client.connection import ExactResponse
from hoft.web.client.origins import Origin
from hoft.web.http.fields import FieldList, values
from hoft.web.http.forwarding import returned
from hoft.web.http.heads import Fields
from hoft.web.http.problems import REQUEST_ID
from hoft.web.http.responses import ServiceError
from hoft.web.ingress.callbacks.registrations import Destination
from hoft.web.ingress.callbacks.signing import Signing
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.kept_response import KeptResponse

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

PATIENCE: Final = 30.0
"""Seconds without progress after which an attempt has failed."""

SLOWEST: Final = 1 << 16
"""Bytes a second below which a body does not progress, whatever it does."""

ASIDE: Final = 1 << 16
"""Bytes of a receiver's answer that are read, so that its connection can be used again."""

LINGER: Final = 5.0
"""Seconds that it has for them."""

MAX_FIELDS: Final = 8 << 10
"""Bytes of the response's fields that go along: many servers take no more than twice that in all."""

LONGEST_PAUSE: Final = 86400
"""The most seconds for which a receiver may have itself spared."""

PREFIX: Final = b"Hoft-Response-"
"""Before the names of the response's fields: in a request they would mean something else."""

_OF_BODY = frozenset((b"content-type", b"content-encoding", b"content-language"))
_SECONDS = re.compile(r"[0-9]{1,9}")


@frozen
class Outcome:
    """
    What came of an attempt.

    @ivar status: that the receiver answered; C{None} if it did not.
    @ivar reason: of a failure, for people; names no more than the receiver's origin.
    @ivar retry_after: seconds for which it is to be left alone.
    """

    status: int | None = None
    reason: str = ""
    retry_after: float = 0.0

    @property
    def delivered(self) -> bool:
        """It has it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """It does not want it, now or later."""
        return self.status == 410

    @property
    def busy(self) -> bool:
        """Others for the same origin had better wait as well."""
        return self.status in (None, 429, 502, 503, 504) or self.retry_after > 0


def callback_fields(kept: Kept, response: FieldList) -> FieldList:
    """
    The fields of a callback but for Host and those of Standard Webhooks.

    @param response: those of the response, as its caller would get them.
    """
    fields = [
        (REQUEST_ID, kept.id.hex().encode("ascii")),
        (b"Hoft-State", kept.stage.value.encode("ascii")),
        (b"Hoft-Status", b"%d" % status_of(kept)),
    ]
    room, left_out = MAX_FIELDS, 0
    for name, value in response:
        if name.lower() not in _OF_BODY:
            name = PREFIX + name
        room -= len(name) + len(value) + 4
        if room >= 0:
            fields.append((name, value))
        else:
            left_out += 1
    if left_out:
        fields.append((b"Hoft-Fields-Left-Out", b"%d" % left_out))
    return fields


def status_of(kept: Kept) -> int:
    """Of the response, or of the problem in its place."""
    return kept.problem.status if kept.problem is not None else kept.status or 0


def delivery_id(kept: Kept) -> str:
    """
    The same for each attempt.  The status is in it because it is signed, as the body is,
    and header fields are not.
    """
    return f"{kept.id.hex()}_{status_of(kept)}"


class Attempt:
    """@ivar due: (clock of the ingress) when L{expire} is to be called."""

    log = Logger()

    def __init__(
        self,
        ingress: Ingress,
        kept: Kept,
        link: ILink | None,
        destination: Destination,
        send: Callable[[ExactRequest, Content], Deferred[Any]],
    ) -> None:
        """
        @param link: that the response came on, if that is still one.
        @param send: see L{hoft.web.client.agent.ExactAgent.send}.
        """
        self._ingress = ingress
        self._kept = kept
        self._link = link
        self._to = destination
        self._send = send
        self._origin = Origin(destination.grant.scheme, destination.grant.host, destination.grant.port)
        now = ingress.keeper.clock()
        self._latest = now + PATIENCE + 2 * kept.response_size / SLOWEST
        self.due = now + PATIENCE
        self._late = False
        self._outcome: Outcome | None = None
        self._running: Deferred[Any]

    def start(self) -> Deferred[Any]:
        """@return: fires with the L{Outcome}; fails if L{stop} was called first."""
        self._running = running = Deferred.fromCoroutine(self._make())
        return running.addErrback(self._failed)

    def expire(self) -> None:
        """C{due} has come."""
        self._late = True
        self._running.cancel()

    def stop(self) -> None:
        """The node stops: it is made again, with the same id."""
        self._running.cancel()

    def _progress(self) -> None:
        self.due = min(self._ingress.keeper.clock() + PATIENCE, self._latest)

    async def _make(self) -> Outcome:
        kept, to, keeper = self._kept, self._to, self._ingress.keeper
        if kept.problem is None and kept.status is None and self._link is not None:
            # Its head came in several parts, and nobody has put them together yet.
            whole = KeptResponse(kept, self._link, self._progress)
            await whole.read(_nowhere)
            kept.status = None if whole.head is None else whole.head.status
        timestamp = int(keeper.wall())
        signing = Signing(to.keys, delivery_id(kept), timestamp)
        body: Content
        if kept.problem is not None:
            body = json.dumps(kept.problem.members()).encode("ascii") + b"\n"
            about: FieldList = [(b"Content-Type", b"application/problem+json")]
            signing.update(body)
            while not signing.complete():
                signing.update(body)
        elif self._link is None:
            return Outcome(reason=f"the response is of {keeper.name(kept)}, which is not trusted any more")
        else:
            body = KeptResponse(kept, self._link, self._progress)
            await body.read(signing.update)
            while not signing.complete():
                await body.read(signing.update)
            about = self._response_fields(body)
        request = ExactRequest(
            b"POST",
            self._origin,
            to.target,
            [
                (b"Host", to.host),
                (b"User-Agent", b"hoft"),
                (b"webhook-id", delivery_id(kept).encode("ascii")),
                (b"webhook-timestamp", b"%d" % timestamp),
                (b"webhook-signature", signing.signatures),
                *callback_fields(kept, about),
            ],
            to.grant.permits,
        )
        self._progress()
        response: ExactResponse = await self._send(request, body)
        self._outcome = self._understood(response)
        self.due = keeper.clock() + LINGER
        await _aside(response)
        return self._outcome

    def _response_fields(self, response: KeptResponse) -> FieldList:
        kept, ingress = self._kept, self._ingress
        assert response.head is not None
        return returned(response.head, ingress.pseudonym, ingress.date(), kept.mount, kept.target, False)

    def _understood(self, response: ExactResponse) -> Outcome:
        status = response.head.status
        if 200 <= status < 300:
            return Outcome(status)
        pause = retry_after(response.head.fields, self._ingress.keeper.wall())
        return Outcome(status, f"{self._origin} answered {status}", pause)

    def _failed(self, failure: Failure) -> Outcome | Failure:
        if failure.check(CancelledError):
            if not self._late:
                return failure
            return self._outcome or Outcome(
                reason=f"{self._origin} neither took it nor answered for {PATIENCE:g} s"
            )
        error = failure.value
        if isinstance(error, ServiceError):
            return Outcome(reason=error.problem.detail)
        if isinstance(error, PayloadLost):
            self._kept.lost(self._ingress.keeper)
            return Outcome(reason="the response was lost from the journal")
        if not isinstance(error, HoftError):
            self.log.failure("Call {id}: its callback could not be made", failure, id=self._kept.id.hex())
        return Outcome(reason=f"this node could not make it: {error}")


def retry_after(fields: Fields, now: float) -> float:
    """
    Seconds, as Retry-After says it (RFC 9110 section 10.2.3); 0 where it says nothing.

    @param now: seconds since 1970.
    """
    for value in values(fields, b"retry-after")[:1]:
        text = value.decode("latin-1")
        if _SECONDS.fullmatch(text):
            return float(min(int(text), LONGEST_PAUSE))
        try:
            return min(max(0.0, parsedate_to_datetime(text).timestamp() - now), LONGEST_PAUSE)
        except ValueError:
            return 0.0
    return 0.0


def _nowhere(_: bytes) -> None:
    """Nobody wants it."""


def _aside(response: ExactResponse) -> Deferred[None]:
    """Read what a receiver says beside its status; fires at its end, whatever that is; may be cancelled."""
    ended: Deferred[None] = Deferred(lambda _: response.abortConnection())
    response.deliverBody(_Aside(ended))
    return ended


class _Aside(Protocol):
    transport: Any
    _size = 0

    def __init__(self, ended: Deferred[None]) -> None:
        self._ended = ended

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > ASIDE:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._ended.called:
            self._ended.callback(None)
