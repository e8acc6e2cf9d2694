"""
One exchange whose result stays here: nobody has to wait for it, and who asks for it
gets it as often as it wants, until it expires.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import define, frozen

from hoft.errors import RecordError
from hoft.interfaces import ILink
from hoft.web.crossing.exchange import (
    WINDOW,
    Kind,
    Part,
    Side,
    decode_abort,
    decode_message,
    encode_cancel,
    encode_credit,
)
from hoft.web.crossing.reassembly import Reassembler
from hoft.web.http.heads import decode_response
from hoft.web.http.problems import Problem, bad_response, outcome_unknown, peer_silent
from hoft.web.ingress.ends import restored
from hoft.web.ingress.kept_rows import Row, Stage

if TYPE_CHECKING:
    from hoft.web.ingress.callbacks.delivery import Delivery
    from hoft.web.ingress.keeper import Keeper
    from hoft.web.ingress.limiting import Meter


class Observer(Protocol):
    """Who wants to know how a kept exchange gets on."""

    def stageReached(self, kept: Kept) -> None:
        """C{kept.stage} is another one."""


@define(eq=False)
class Kept(Row):
    """
    The parts of its response lie in the journal: in memory there are the ids of their
    records, and once it is complete, no more than the row.

    @ivar due: (clock of the ingress) when C{expires} is.
    @ivar observers: those that are told of each stage.
    @ivar readers: how many calls are being answered with it now.
    @ivar meters: that count it as under way.
    @ivar begun: (clock of the ingress) when the call came.
    @ivar executing: seconds it took at the far node, as that says.
    @ivar counted: bytes of the response that count as kept.
    @ivar delivery: the callback that its caller wants.
    """

    due: float = 0.0
    observers: Sequence[Observer] = ()
    readers: int = 0
    meters: Sequence[Meter] = ()
    begun: float = 0.0
    executing: float | None = None
    counted: int = 0
    delivery: Delivery | None = None
    _parts: Reassembler | None = None
    _growing: Growing | None = None
    _offered: int = WINDOW
    _unacknowledged: int = 0
    _requested: bool = False

    @property
    def over(self) -> bool:
        """Nothing more will come of it."""
        return self.stage.last

    @property
    def awaited(self) -> bool:
        """Its callback is yet to be delivered."""
        return self.delivery is not None and self.delivery.pending

    def observe(self, observer: Observer) -> None:
        """Tell it of each stage from now on."""
        self.observers = (*self.observers, observer)

    def leave(self, observer: Observer) -> None:
        """Tell it no more."""
        self.observers = tuple(one for one in self.observers if one is not observer)

    # --- the request ------------------------------------------------------------------

    def committed(self, records: int) -> None:
        """So many more records of its request are in our journal."""
        self._unacknowledged += records

    def requested(self, keeper: Keeper, sent: Sequence[int]) -> None:
        """So is the last of it; C{sent}: see L{Row}."""
        self.sent = tuple(sent)
        self._requested = True
        keeper.changed(self)
        self.acknowledged(keeper, 0)

    def wasSent(self) -> None:
        """It is from an earlier process, which has committed all of it."""
        self._requested = True
        self._unacknowledged = len(self.sent)

    def acknowledged(self, keeper: Keeper, more: int = 1) -> None:
        """The peer has more of the records of the request."""
        self._unacknowledged -= more
        if self._requested and not self._unacknowledged and not self.over:
            self.sent = ()
            self.reach(keeper, Stage.ACKED)

    # --- the response -----------------------------------------------------------------

    def received(self, keeper: Keeper, link: ILink, record: int, part: Part) -> None:
        """A part of it is here; L{advance} follows once all that came with it were given."""
        if self.over or part.kind in _UNNUMBERED:
            keeper.consume(link, [record])
        try:
            if self.over or part.kind is Kind.CREDIT:
                return
            if part.kind is Kind.EXECUTING:
                self.reach(keeper, Stage.EXECUTING)
                return
            if part.kind is Kind.ABORT:
                self.fail(keeper, decode_abort(part), cancel=False)
                return
            if self._parts is None:
                self._parts = Reassembler(Side.EGRESS, 0)
                self._growing = Growing(self, keeper, link)
                keeper.room.come(self._growing)
            if not self._parts.add(record, part):
                keeper.consume(link, [record])
            elif part.number == 0:
                self._first(keeper, part)
        except RecordError as error:
            if part.kind is not Kind.ABORT:
                keeper.consume(link, [record])
            self._contradicted(keeper, error, record)

    def _first(self, keeper: Keeper, part: Part) -> None:
        if not part.more:
            head = decode_response(decode_message(part)[0] if part.kind is Kind.MESSAGE else part.body)
            self.status = head.status
            self.executing = dict(head.stages).get("head")
            keeper.answered(self, head)
        if part.kind is not Kind.MESSAGE:
            self.reach(keeper, Stage.RESPONDING)

    def advance(self, keeper: Keeper, link: ILink) -> None:
        """Take what came into account."""
        parts = self._parts
        if parts is None or self.over:
            return
        self.response_size = parts.received
        if not keeper.hold(self, parts.accepted - self.counted):
            return
        if parts.complete:
            self.records = tuple(parts.drain())
            self._parts = None
            self._end(keeper, Stage.DONE)
        else:
            self.offer(keeper, link)

    def offer(self, keeper: Keeper, link: ILink) -> None:
        """Let the far side send more, as far as there is room for it."""
        if self._parts is None:
            return
        accepted = self._parts.accepted
        total = keeper.room.offer(self._offered, accepted, accepted + WINDOW)
        if total is not None:
            self._offered = total
            keeper.send(link, encode_credit(self.id, Side.INGRESS, total))

    def _contradicted(self, keeper: Keeper, error: RecordError, record: int) -> None:
        keeper.log.warn("Call {id}: given up: {error}", id=self.id.hex(), error=error)
        self.fail(keeper, bad_response(f"what came is not a response: {error}"), but=record)

    # --- ends -----------------------------------------------------------------------------

    def fail(
        self,
        keeper: Keeper,
        problem: Problem,
        stage: Stage = Stage.FAILED,
        cancel: bool = True,
        but: int | None = None,
    ) -> None:
        """
        Give it up.

        @param problem: what is told in place of a response.
        @param cancel: the far node is to know.
        @param but: the id of a record that was let go of already.
        """
        if self.over:
            return
        self.problem = problem.during(self.id)
        link = keeper.link(self)
        if link is not None:
            parts, self._parts = self._parts, None
            if parts is not None:
                keeper.consume(link, [record for record in parts.drain() if record != but])
            keeper.take_back(link, self.sent)
            if cancel:
                keeper.send(link, encode_cancel(self.id))
        self._end(keeper, stage)

    def expire(self, keeper: Keeper) -> bool:
        """
        C{due} has come: give it up, or forget the result.

        @return: it was forgotten.
        """
        if not self.over:
            self.fail(keeper, peer_silent(keeper.name(self), self.expires - self.accepted))
            return False
        if self.readers or self.awaited:
            return False
        self.drop(keeper)
        self.expires = keeper.wall() + keeper.remembered
        self.reach(keeper, Stage.EXPIRED)
        return True

    def drop(self, keeper: Keeper) -> None:
        """Let go of the result."""
        link = keeper.link(self)
        if link is not None:
            keeper.consume(link, self.records)
        self.records = ()
        self.problem = None
        keeper.release(self)

    def lost(self, keeper: Keeper) -> None:
        """The records of its response are not there any more."""
        self.records = ()
        keeper.release(self)
        detail = "the response was here, and was lost when this node was restored or lost a part of its state"
        self.problem = outcome_unknown(detail).during(self.id)
        self.reach(keeper, Stage.FAILED)

    def rolledBack(self, keeper: Keeper, resent: frozenset[int]) -> None:
        """
        One of the nodes was restored.

        @param resent: records of ours that are sent all the same.
        """
        # Parts of a response that are here would meet those of another one.
        if not self.sent or not resent.issuperset(self.sent) or self._parts is not None:
            self.fail(keeper, restored())

    def reach(self, keeper: Keeper, stage: Stage) -> None:
        """A stage; none comes after a later one."""
        if stage.value in self.stages or _ORDER[stage] < _ORDER[self.stage]:
            return
        self.stage = stage
        self.stages[stage.value] = keeper.wall()
        keeper.changed(self)
        for observer in self.observers:
            observer.stageReached(self)

    def _end(self, keeper: Keeper, stage: Stage) -> None:
        if self._growing is not None:
            keeper.room.leave(self._growing)
            self._growing = None
        keeper.ended(self, stage)
        self.sent = ()
        self.reach(keeper, stage)


@frozen(eq=False)
class Growing:
    """One whose response is coming, as a L{hoft.web.ingress.room.Coming}."""

    kept: Kept
    keeper: Keeper
    link: ILink

    @property
    def held(self) -> int:
        return self.kept.counted

    def offer(self) -> None:
        self.kept.offer(self.keeper, self.link)

    def fail(self, problem: Problem) -> None:
        self.kept.fail(self.keeper, problem)


_UNNUMBERED = frozenset((Kind.CREDIT, Kind.ABORT, Kind.EXECUTING))
_ORDER = {stage: number for number, stage in enumerate(Stage)}
