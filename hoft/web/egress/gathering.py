"""
A request while it arrives at the egress, part by part.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import evolve
from twisted.internet.defer import Deferred

from hoft.interfaces import ILink
from hoft.web.crossing.exchange import WINDOW, Kind, Part, Side, decode_message, decode_part, decode_trailers
from hoft.web.crossing.reassembly import Reassembler
from hoft.web.http.heads import Fields, RequestHead, decode_request
from hoft.web.http.intermediary import trailers
from hoft.web.http.problems import Problem, Refused, malformed_request, no_space, too_large

if TYPE_CHECKING:
    from hoft.web.egress.surroundings import Surroundings

HOLD = 1 << 17
"""Bytes of a request's body that are kept in memory while the rest of it is awaited."""

SILENCE: Final = 86400.0
"""
Seconds without anything of a request after which it is given up: more than any carrier takes.  A call
goes on when its caller has stopped waiting, so its own deadline says nothing; and who does
not want it any more cancels it.
"""

LARGE: Final = 1 << 20
"""Bytes of a request for which it is looked whether there is room on the disk."""


class Gathering:
    """
    What has come of one request.

    @ivar parts: the parts, in order; those of the head, or the MESSAGE, are taken by L{read_head}.
    @ivar records: ids of all their records, to be consumed together when nothing can
        need them any more.
    @ivar body: all of it, once the head of a request was read that came as one MESSAGE.
    @ivar trailers: those of the request that may be forwarded.
    """

    def __init__(self, link: ILink) -> None:
        self.parts = Reassembler(Side.INGRESS, HOLD)
        self.records = array("q")
        self.body: bytes | None = None
        self.trailers: Fields = ()
        self._link = link
        self._credited = WINDOW
        self._head_asked = False

    @property
    def complete(self) -> bool:
        """All of it is here."""
        return self.parts.complete

    @property
    def received(self) -> int:
        """Bytes of the body, up to the first missing part."""
        return self.parts.received

    def size(self, head: RequestHead) -> int:
        """What it takes of the journal, or will: counted as credit is."""
        return max(head.length or 0, self.parts.accepted)

    def add(self, record: int, part: Part) -> bool:
        """
        @return: C{False} if this part has come before; then its record is not ours.
        @raise RecordError: it contradicts the others.
        """
        fresh = True
        try:
            fresh = self.parts.add(record, part)
            if part.kind is Kind.TRAILERS:
                self.trailers = trailers(decode_trailers(part))
        finally:
            if fresh:
                self.records.append(record)
        return fresh

    def read_head(self) -> RequestHead | Deferred[RequestHead] | None:
        """
        Once, when the head is complete; a Deferred only where parts of it are no longer in memory.

        @raise RecordError: it is none.
        """
        if self._head_asked or not self.parts.head_complete:
            return None
        self._head_asked = True
        return self._more(b"")

    def _more(self, before: bytes) -> RequestHead | Deferred[RequestHead]:
        [next] = self.parts.take(0)
        if next.part is not None:
            return self._grown(before, next.part)
        reading = self._link.read([next.record])
        return reading.addCallback(lambda payloads: self._grown(before, decode_part(payloads[0])))

    def _grown(self, before: bytes, part: Part) -> RequestHead | Deferred[RequestHead]:
        if part.kind is Kind.MESSAGE:
            head, self.body = decode_message(part)
        else:
            head = before + part.body
        return self._more(head) if part.more else decode_request(head)

    def overdue(self, silent: float) -> Problem | None:
        """
        What a request is answered with of which the rest does not come.

        @param silent: seconds since something of it came.
        """
        if silent <= SILENCE:
            return None
        detail = f"nothing of the rest of the request has come to the far node for {SILENCE:g} s"
        return evolve(malformed_request(detail), status=408)

    def grant(self, always: bool, left: Callable[[], int]) -> int | None:
        """
        How much the peer may send in total, if it is time to tell it.

        @param always: tell it now.
        @param left: bytes for which there is room; asks the disk.
        """
        if not always and self.parts.accepted + WINDOW - self._credited < WINDOW // 2:
            return None
        total = self.parts.accepted + min(WINDOW, left())
        if always or total - self._credited >= WINDOW // 2:
            self._credited = total
            return total
        return None

    def not_granted(self) -> None:
        """What L{grant} gave was not told: it is time to."""
        self._credited = 0


class Reservation:
    """What a request takes of the quota of its peer, or will need."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._taken = 0
        self._looked = 0

    def take(self, head: RequestHead, request: Gathering) -> None:
        """
        Take what it needs beyond what it has.

        @raise Refused: it is too much.
        """
        limits = self._around.limits
        size = max(head.length or 0, request.received)
        if size > limits.request_body:
            raise Refused(too_large(f"the far node takes bodies of at most {limits.request_body} bytes"))
        more = request.size(head) - self._taken
        if more > 0:
            self._taken += more
            self._around.spooled += more
            if self._around.spooled > limits.spool:
                detail = "as many bytes of requests wait at the far node as its 'spool' allows"
                raise Refused(no_space(detail, 60))
            if self._taken - self._looked > LARGE:
                self._looked = self._taken
                if self._around.left() < max(self._taken - request.parts.accepted, LARGE):
                    raise Refused(no_space("the far node's disk has no room for the request", 60))

    def give_back(self) -> None:
        """It needs nothing any more."""
        self._around.spooled -= self._taken
        self._taken = 0
