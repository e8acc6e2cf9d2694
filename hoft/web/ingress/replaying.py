"""
A call that is answered with a kept result, once that is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from hoft.errors import PayloadLost, RecordError
from hoft.interfaces import ILink
from hoft.web.http.fields import FieldList
from hoft.web.http.forwarding import returned
from hoft.web.http.heads import decode_response
from hoft.web.http.problems import Problem, bad_response, expired, internal_error, peer_unavailable
from hoft.web.ingress.calls import Call, Indifferent
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.kept_rows import Stage
from hoft.web.ingress.streaming import ResponseStream, source_of

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress


class Replay(Indifferent):
    """
    A L{hoft.web.ingress.calls.CallReceiver}: holds the call until the exchange is over, but no
    longer than C{due}, then answers it with the result.

    @ivar id: of the exchange.
    @ivar due: (clock of the ingress) when C{late} is called, if the exchange is not over.
    """

    def __init__(
        self, ingress: Ingress, kept: Kept, call: Call, due: float, late: Callable[[Call, Kept], None]
    ) -> None:
        """@param late: answers the call if the exchange is not over in time."""
        self.id = kept.id
        self.call = call
        self.due = due
        self.over = False
        self.link: ILink
        self._ingress = ingress
        self._kept = kept
        self._late = late
        self._stream: ResponseStream | None = None

    def start(self) -> Replay:
        """Answer now, or wait."""
        keeper = self._ingress.keeper
        self._kept.readers += 1
        self._kept.observe(self)
        keeper.waiters.add(self)
        self._ingress.tickLater()
        if self._kept.over:
            self._answer()
        elif self.due <= keeper.clock():
            self.expire()
        return self

    # --- Observer, Waiter -----------------------------------------------------------------

    def stageReached(self, kept: Kept) -> None:
        """See L{hoft.web.ingress.keeping.Observer}."""
        if kept.over and self._stream is None:
            self._answer()

    def expire(self) -> None:
        """C{due} has come."""
        if self._stream is None:
            self._leave()
            self._late(self.call, self._kept)

    def stop(self) -> None:
        """The node stops: one that waits is told to come again."""
        self.expire()

    # --- CallReceiver -----------------------------------------------------------------------

    def resumeResponse(self) -> None:
        if self._stream is not None and not self.over:
            self._stream.advance()

    def callLost(self, reason: str) -> None:
        self._leave()

    # --- the answer ----------------------------------------------------------------------------

    def _answer(self) -> None:
        kept, keeper = self._kept, self._ingress.keeper
        link = keeper.link(kept)
        if kept.problem is not None:
            self._refuse(kept.problem)
        elif kept.stage is Stage.EXPIRED:
            self._refuse(expired().during(self.id))
        elif link is None:
            self._refuse(peer_unavailable(keeper.name(kept), "this node does not trust it any more"))
        else:
            self.link = link
            self.due = float("inf")
            self._stream = ResponseStream(self, source_of(self._kept))
            self._stream.advance()

    def _refuse(self, problem: Problem) -> None:
        self._leave()
        self._ingress.answer(self.call, problem)

    def _leave(self) -> None:
        if not self.over:
            self.over = True
            self._kept.readers -= 1
            self._kept.leave(self)
            self._ingress.keeper.waiters.discard(self)

    # --- Awaiting ----------------------------------------------------------------------------------

    def headReceived(self, encoded: bytes) -> int | None:
        """See L{hoft.web.ingress.streaming.Awaiting}."""
        kept, ingress, call = self._kept, self._ingress, self.call
        head = decode_response(encoded)
        date, secure = ingress.date(), call.secure
        fields = returned(head, ingress.pseudonym, date, kept.mount, kept.target, secure, kept.id)
        # The length that a response to HEAD has is of a body which is not there.
        length = 0 if kept.method == b"HEAD" and call.request.method != b"HEAD" else head.length
        call.respond(head.status, head.reason, fields, length)
        if call.request.method == b"HEAD":
            self.finished([])
        return length

    def finished(self, fields: FieldList) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}."""
        if not self.over:
            self._leave()
            self.call.finish(fields)

    def contradicted(self, error: RecordError) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}."""
        self._ingress.log.warn(
            "Call {id}: what is kept is no response: {error}", id=self.id.hex(), error=error
        )
        self._break(bad_response(f"what is kept is not a response: {error}"))

    def unreadable(self, failure: Failure) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}."""
        if failure.check(PayloadLost):
            self._kept.lost(self._ingress.keeper)
            self._break(self._kept.problem or expired())
            return
        self._ingress.log.failure("Call {id}: the result could not be read", failure, id=self.id.hex())
        self._break(internal_error("the result could not be read from the journal"))

    def _break(self, problem: Problem) -> None:
        if self.over:
            return
        if self.call.responding:
            self._leave()
            self.call.abort()
        else:
            self._refuse(problem.during(self.id))

    def handedOn(self, taken: int, accepted: int) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}: all of it is here."""

    def consume(self, records: list[int]) -> None:
        """See L{hoft.web.ingress.streaming.Awaiting}: it stays, for the next who asks."""

    def share(self) -> int:
        """See L{hoft.web.ingress.streaming.Awaiting}."""
        return self._ingress.share()
