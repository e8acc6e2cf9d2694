"""
The exchanges that one peer has with our egress: those that run, wait for their turn, or
come in part.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import JournalFull, LinkClosed, RecordError
from hoft.interfaces import Arrival, CommitResult, ILink, Incoming, ITransaction, Lost, Outgoing
from hoft.timers import Soon
from hoft.web.client.policy import Policy
from hoft.web.crossing.exchange import (
    NUMBERED,
    RESPONSES,
    Kind,
    Part,
    Side,
    decode_part,
    encode_abort,
    exchange_of,
    whole_of,
)
from hoft.web.crossing.unread import Unread
from hoft.web.egress.calling import ServiceCall, damaged
from hoft.web.egress.credentials import Credentials
from hoft.web.egress.executions import LIFETIME, Rows, State
from hoft.web.egress.performing import Exchange
from hoft.web.egress.responding import FULL_PAUSE
from hoft.web.egress.standing import ended_exchange, of_exchange
from hoft.web.egress.surroundings import Limits, Stage
from hoft.web.egress.turns import Turns

if TYPE_CHECKING:
    from hoft.web.egress.egress import Egress

WATCH = 0.1
"""Seconds between looks at services that are to answer in time."""

Write = Callable[[ITransaction], None]
"""What C{commit} takes as C{also}."""

BEGINNING = 1 << 16
"""Bytes of each response that wait for no room: what is small does not wait behind what is large."""

REMEMBERED = 10_000
"""How many cancelled exchanges are remembered, for what may still come of them."""


class PeerExchanges:
    """
    The exchanges of one peer; the L{hoft.web.egress.surroundings.Surroundings} of each.

    @ivar turns: which of them have theirs.
    @ivar spooled: bytes of its quota that are taken.
    """

    log = Logger()

    def __init__(self, egress: Egress, link: ILink) -> None:
        self.link = link
        self.rows = Rows(link.peer.bytes)
        self.pseudonym = egress.pseudonym
        self.agent = egress.agent
        self.reactor = egress.reactor
        self.clock = egress.clock
        self.turns: Turns[Exchange] = Turns()
        self.spooled = 0
        self._egress = egress
        self._exchanges: dict[bytes, Exchange] = {}
        self._watched: set[ServiceCall] = set()
        self._watching = Soon(egress.reactor, WATCH, self._watch)
        self._held_up: dict[Exchange, None] = {}
        """Those that wait for room, the first that came first."""
        self._cancelled: OrderedDict[bytes, None] = OrderedDict()
        self._discards: list[int] = []
        self._also: list[Write] = []
        """What is to be written to the table together with that."""
        self._discarding = Soon(egress.reactor, 0, self.flush)
        self._recovering = Soon(egress.reactor, FULL_PAUSE, self._recover_again)
        self._early: list[Incoming] | None = []
        """What came before the table was read."""
        self._unread = Unread(link, self._take, self._uncommitted, self._damaged)

    @property
    def policy(self) -> Policy:
        return self._egress.policy

    @property
    def limits(self) -> Limits:
        return self._egress.limits

    @property
    def credentials(self) -> Mapping[str, Credentials]:
        return self._egress.credentials

    @property
    def quiet(self) -> bool:
        """There is nothing that a tick could do."""
        return not self._exchanges and not self._discards and not self._also

    @property
    def busy(self) -> bool:
        """A service is at work, or a response not committed as a whole."""
        return any(exchange.stage is Stage.RUNNING for exchange in self._exchanges.values())

    # --- Surroundings ---------------------------------------------------------------

    def enqueue(self, exchange: Exchange) -> None:
        self.turns.enqueue(exchange.service, exchange)
        self._next()

    def withdraw(self, exchange: Exchange) -> None:
        self.turns.withdraw(exchange.service, exchange)

    def released(self, exchange: Exchange) -> None:
        self.turns.release(exchange.service)
        self._next()
        self._egress.settled()

    def watch(self, call: ServiceCall) -> None:
        self._watched.add(call)
        self._watching.ask()

    def unwatch(self, call: ServiceCall) -> None:
        self._watched.discard(call)

    def _watch(self) -> None:
        self.look_at_deadlines(self.clock())
        if self._watched:
            self._watching.ask()

    def look_at_deadlines(self, now: float) -> None:
        """Wait no longer for services that did not answer in time."""
        for call in [call for call in self._watched if call.due <= now]:
            call.silent()

    def room(self, exchange: Exchange) -> bool:
        if self.link.backlog() <= self.limits.backlog or exchange.sender.size < BEGINNING:
            return True
        self._held_up[exchange] = None
        return False

    def left(self) -> int:
        return self._egress.left()

    def share(self) -> int:
        return self._egress.share()

    def ended(self, exchange: Exchange) -> None:
        self._held_up.pop(exchange, None)
        if self._exchanges.get(exchange.id) is exchange:
            del self._exchanges[exchange.id]
            self._egress.settled()

    def discard(self, records: Sequence[int], also: Write | None = None) -> None:
        self._discards.extend(records)
        if also is not None:
            self._also.append(also)
        self._discarding.ask()

    def flush(self) -> None:
        self._discarding.cancel()
        discards, self._discards = self._discards, []
        also, self._also = self._also, []

        def write(transaction: ITransaction) -> None:
            for one in also:
                one(transaction)

        def failed(failure: Failure) -> None:
            if failure.check(JournalFull):
                # A disk may be too full even for this: again with the next tick.
                self._discards[:0] = discards
                self._also[:0] = also
            self._uncommitted(failure)

        if discards or also:
            self.link.commit((), discards, write if also else None).addErrback(failed)

    def account(self, exchange: Exchange) -> None:
        head = exchange.head
        ended = ended_exchange(exchange, self.link, self.clock())
        self._egress.history.add(ended, () if head is None else head.headers)

    def under_way(self, now: float, ahead: float) -> Iterator[Callable[[], dict[str, Any]]]:
        """What L{of_exchange} says of each, the oldest first."""
        for exchange in list(self._exchanges.values()):
            yield partial(of_exchange, exchange, self.link, self.limits, now, ahead)

    def count(self, what: str) -> None:
        self._egress.counts[what] += 1

    def _next(self) -> None:
        while self.turns.queued and not self._egress.stopping:
            exchange = self.turns.take(self.limits.parallel, self.limits.running)
            if exchange is None:
                break
            exchange.start()

    def _uncommitted(self, failure: Failure) -> None:
        if not failure.check(LinkClosed, JournalFull):
            self.log.failure("The journal did not take a commit", failure)

    # --- After a start ------------------------------------------------------------------

    def recover(self) -> Deferred[None]:
        """Read what an earlier process left; records that come meanwhile wait for it."""
        reading: Deferred[CommitResult[dict[bytes, State]]] = self.link.commit((), (), self.rows.unfinished())
        return reading.addCallbacks(self._recovered, self._not_recovered)

    def _not_recovered(self, failure: Failure) -> Failure | None:
        """Nothing can be begun before: without the table a call might be made twice."""
        if not failure.check(JournalFull, LinkClosed):
            return failure
        if failure.check(JournalFull):
            self._recovering.ask()
        return None

    def _recover_again(self) -> None:
        self.recover().addErrback(self._uncommitted)

    def _recovered(self, result: CommitResult[dict[bytes, State]]) -> None:
        for id, state in (result.value or {}).items():
            exchange = self._exchanges[id] = Exchange(self, id)
            exchange.recover(state)
        early, self._early = self._early, None
        self.received(early or ())

    # --- What the link brings -------------------------------------------------------------

    def arriving(self, record: Incoming) -> Arrival:
        """
        A request that is one record is begun while it is being committed: should that fail, it
        comes again, as after a crash, and what must not be repeated has its row by then.
        """
        whole = self._early is None and whole_of(record.payload) is not None
        return Arrival.AT_ONCE if whole else Arrival.STORE

    def received(self, records: Sequence[Incoming]) -> None:
        """Records have come."""
        if self._early is not None:
            self._early.extend(records)
            return
        self._take([(record.id, record.payload) for record in records if record.payload is not None])
        self._unread.add(record.id for record in records if record.payload is None)

    def _take(self, records: Sequence[tuple[int, bytes]]) -> None:
        touched: dict[bytes, Exchange] = {}
        for record, payload in records:
            try:
                part = decode_part(payload, Side.INGRESS)
            except RecordError as error:
                self.count("malformed_parts")
                self.log.warn("{peer} sent what is no part: {error}", peer=self.link.name, error=error)
                self.discard([record])
                continue
            exchange = self._one(record, part)
            if exchange is not None:
                touched[part.exchange] = exchange
        for exchange in touched.values():
            exchange.advance()

    def _one(self, record: int, part: Part) -> Exchange | None:
        exchange = self._exchanges.get(part.exchange)
        if part.kind in NUMBERED and (exchange is not None or part.exchange not in self._cancelled):
            if exchange is None:
                exchange = self._exchanges[part.exchange] = Exchange(self, part.exchange)
                self.count("requests")
            exchange.add(record, part)
            return exchange
        self.discard([record])
        if part.kind is Kind.CANCEL:
            self._forsake(part.exchange)
            if exchange is not None:
                exchange.cancel()
        elif part.kind is Kind.CREDIT and exchange is not None:
            exchange.credit(part)
        return None

    def _forsake(self, id: bytes) -> None:
        # Parts of it may come later; should it be forgotten by then, it is asked for and cancelled again.
        self._cancelled[id] = None
        if len(self._cancelled) > REMEMBERED:
            self._cancelled.popitem(last=False)

    def _damaged(self, record: int, found: bytes) -> None:
        """A part of a request is not what was stored."""
        self.discard([record])
        id = exchange_of(found)
        if id is not None and id not in self._cancelled:
            exchange = self._exchanges.get(id)
            if exchange is None:
                exchange = self._exchanges[id] = Exchange(self, id)
                self.count("requests")
            self._forsake(id)
            exchange.damaged()

    def lost(self, one: Lost) -> None:
        """A part of a response cannot be sent."""
        id = exchange_of(one.found)
        exchange = None if id is None else self._exchanges.get(id)
        if exchange is not None:
            exchange.lost()
        elif id is not None:
            self.link.commit([Outgoing(encode_abort(id, damaged()), RESPONSES, 0)]).addErrback(
                self._uncommitted
            )

    def resume(self) -> None:
        """Some of what was sent has been acknowledged."""
        for exchange in list(self._held_up):
            if self.link.backlog() > self.limits.backlog:
                break
            del self._held_up[exchange]
            exchange.resume()

    def rolledBack(self, resent: frozenset[int]) -> None:
        for exchange in list(self._exchanges.values()):
            exchange.rolledBack(resent)

    # --- Time -------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what timers that stand still may have left undone."""
        self.flush()
        self.look_at_deadlines(now)
        for exchange in list(self._exchanges.values()):
            exchange.tick(now)

    def age(self) -> None:
        """Once in L{TICK} seconds."""
        self.link.commit((), (), self.rows.age()).addErrback(self._uncommitted)
        for exchange in list(self._exchanges.values()):
            exchange.idle += 1
            if exchange.idle > LIFETIME and exchange.stage in (Stage.GATHERING, Stage.DRAINING):
                exchange.cancel()
                self.ended(exchange)

    def stop(self) -> None:
        """Leave all as it is for the next start."""
        self.turns.clear()
        for exchange in list(self._exchanges.values()):
            exchange.abandon()
        self._exchanges.clear()
        self._held_up.clear()
        self._watching.cancel()
        self._recovering.cancel()
        self.flush()
