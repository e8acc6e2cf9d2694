"""
All exchanges whose results stay at the ingress: who may ask for which, how much of
them there may be, and when they are forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import HoftError
from hoft.interfaces import ILink, ITransaction
from hoft.web.http.heads import ResponseHead
from hoft.web.http.problems import Problem, Refused, cancelled, key_in_use, no_space, too_busy
from hoft.web.ingress import kept_rows
from hoft.web.ingress.caching.rows import Entry
from hoft.web.ingress.expiring import Expiring
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.kept_rows import Row, Stage
from hoft.web.ingress.places import Places
from hoft.web.ingress.rollbacks import Rollbacks
from hoft.web.ingress.shares import Shares

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress


class Waiter(Protocol):
    """A call that waits for a kept exchange."""

    due: float

    def expire(self) -> None:
        """C{due} has come."""

    def stop(self) -> None:
        """The node stops."""


class Keeper:
    """
    @ivar kept: by id.
    @ivar waiters: calls that are held, or under way in answer.
    @ivar room: on the disk.
    """

    log = Logger()

    def __init__(self, ingress: Ingress, clock: Callable[[], float], links: Mapping[str, ILink]) -> None:
        """
        @param clock: monotonic seconds.
        @param links: by the names of the peers.
        """
        self.kept: dict[bytes, Kept] = {}
        self.keys: dict[tuple[str | None, bytes], Kept | None] = {}
        """By caller and Idempotency-Key; C{None} while the request is still coming."""
        self.waiters: set[Waiter] = set()
        self.room = ingress.room
        self.wall = time.time
        self.clock = clock
        self._ingress = ingress
        self._links = links
        self._expiring = Expiring(self, ingress)
        self._rollbacks = Rollbacks(self, ingress.sweeper, ingress.commits)
        self._sizes: Shares[str | None] = Shares()
        self._places = Places()
        self._pending = 0
        """How many are not over."""
        self._of: dict[str | None, dict[bytes, Kept]] = {}
        """As C{kept}, by caller; the newest last."""
        self._by_peer: dict[bytes, ILink] = {}
        self._unacknowledged: dict[ILink, dict[int, Kept]] = {}
        self._restored: dict[bytes, dict[int, Kept]] = {}
        """As C{_unacknowledged}, by peer: from rows, before the link is known."""
        self._known: set[int] = set()
        """Records of complete responses, which are handed up again after a start."""

    @property
    def size(self) -> int:
        """Bytes of results that are kept."""
        return self._sizes.total

    def counters(self) -> dict[str, int]:
        """By a stable name each."""
        return {"kept": len(self.kept), "kept_pending": self._pending, "kept_bytes": self.size}

    # --- begin ------------------------------------------------------------------------

    def load(self, rows: Iterable[Row]) -> None:
        """What an earlier process has kept; before any record comes."""
        now, wall = self.clock(), self.wall()
        for row in rows:
            kept = Kept(**{name: getattr(row, name) for name in kept_rows.COLUMNS})
            kept.begun = now - max(0.0, wall - row.accepted)
            self._add(kept)
            self._expiring.resume(kept)
            if row.records:
                self._known.update(row.records)
                kept.counted = row.response_size
                self._sizes.take(kept.caller, row.response_size)
            if row.sent:
                self._restored.setdefault(row.peer, {}).update(dict.fromkeys(row.sent, kept))
                kept.wasSent()
            if not kept.over:
                kept.meters = self._ingress.accounts.resume(row.caller, row.route)

    def before(self, caller: str | None, key: bytes | None, link: ILink) -> Kept | None:
        """
        What was begun with that Idempotency-Key; if nothing was, one more may begin.

        @param link: by which that would cross.
        @raise Refused: there are too many, or it is not complete yet.
        """
        if key is not None and (caller, key) in self.keys:
            kept = self.keys[caller, key]
            if kept is None:
                raise Refused(key_in_use(None))
            return kept
        peers, callers = len(self._links), len(self._ingress.routing.callers)
        refusal = self._places.refusal(caller, callers, link.peer.bytes, link.name, peers)
        if refusal is not None:
            raise Refused(too_busy(refusal, 60))
        if self._over(caller):
            raise Refused(self._full())
        if self.room.short:
            raise Refused(no_space("the disk of this node has no room for what is to be kept", 60))
        return None

    def reserve(self, caller: str | None, key: bytes | None) -> None:
        """A request begins that is to be kept."""
        if key is not None:
            self.keys[caller, key] = None

    def unreserve(self, caller: str | None, key: bytes | None) -> None:
        """It was given up before it was complete."""
        if key is not None and self.keys.get((caller, key)) is None:
            self.keys.pop((caller, key), None)

    def keep(self, kept: Kept, seconds: float) -> None:
        """
        From now on parts of this exchange are its own.

        @param seconds: until it is given up.
        """
        kept.stages[Stage.ACCEPTED.value] = self.wall()
        self._add(kept)
        self._expiring.begin(kept, seconds)

    def _add(self, kept: Kept) -> None:
        self.kept[kept.id] = kept
        if kept.stage is not Stage.EXPIRED:
            self._places.take(kept.caller, kept.peer)
        self._of.setdefault(kept.caller, {})[kept.id] = kept
        self._pending += not kept.over
        if kept.key is not None:
            self.keys[kept.caller, kept.key] = kept

    def sent(self, link: ILink, kept: Kept, records: Sequence[int]) -> None:
        """More of its request was committed."""
        self._unacknowledged_on(link).update(dict.fromkeys(records, kept))
        kept.committed(len(records))

    def _unacknowledged_on(self, link: ILink) -> dict[int, Kept]:
        waiting = self._unacknowledged.get(link)
        if waiting is None:
            waiting = self._unacknowledged[link] = self._restored.pop(link.peer.bytes, {})
        return waiting

    # --- for the exchanges ----------------------------------------------------------------

    def link(self, kept: Kept | Entry) -> ILink | None:
        """That of its peer, if that is still one."""
        link = self._by_peer.get(kept.peer)
        if link is None or self._links.get(link.name) is not link:
            self._by_peer = {link.peer.bytes: link for link in self._links.values()}
            link = self._by_peer.get(kept.peer)
        return link

    def name(self, kept: Kept) -> str:
        """What its peer is called."""
        link = self.link(kept)
        return "a peer of before" if link is None else link.name

    def send(self, link: ILink, payload: bytes) -> None:
        """Commit a part soon."""
        self._ingress.send(link, payload)

    def take_back(self, link: ILink, ids: Sequence[int]) -> None:
        """What of a request was not sent yet need not be."""
        self._ingress.take_back(link, ids)

    def consume(self, link: ILink, records: Sequence[int]) -> None:
        """Let go of records soon."""
        self._ingress.consume(link, records)

    def changed(self, kept: Kept) -> None:
        """Write its row soon."""
        self.also(kept, kept_rows.write(kept))

    def answered(self, kept: Kept, head: ResponseHead) -> None:
        """The head of its response is here."""
        self._ingress.cache.answered(kept, head)

    def also(self, kept: Kept | Entry, write: Callable[[ITransaction], None]) -> None:
        """Write to a table soon what goes with it."""
        link = self.link(kept) or next(iter(self._links.values()), None)
        if link is not None:
            self._ingress.also(link, write)

    def hold(self, kept: Kept, more: int) -> bool:
        """
        Count more bytes of its result.

        @return: C{False}: that is too much, and it was given up.
        """
        kept.counted += more
        self._sizes.take(kept.caller, more)
        if more and self._over(kept.caller):
            kept.fail(self, self._full())
            return False
        return True

    def release(self, kept: Kept) -> None:
        """Its result is not kept any more."""
        self._sizes.take(kept.caller, -kept.counted)
        kept.counted = 0

    def _over(self, caller: str | None) -> bool:
        routing = self._ingress.routing
        if self.size > routing.results:
            return True
        return caller is not None and self._sizes.of(caller) > routing.results_of(caller)

    def _full(self) -> Problem:
        return no_space("as many bytes of results are kept as this node, or its caller, may have", 60)

    def ended(self, kept: Kept, stage: Stage) -> None:
        """It reaches this stage now, which is its last but for being forgotten."""
        self._pending -= 1
        self._expiring.begin(kept, self._ingress.routing.result_ttl)
        if stage is not Stage.DONE:
            self.release(kept)
        link = self.link(kept)
        if link is not None:
            waiting = self._unacknowledged_on(link)
            for id in kept.sent:
                waiting.pop(id, None)
        self._ingress.accounts.kept_ended(kept, self.name(kept), stage)

    def prolong(self, kept: Kept) -> None:
        """It is to be kept from now on for as long as results are."""
        self._expiring.begin(kept, self._ingress.routing.result_ttl)
        self.changed(kept)

    def vacate(self, kept: Kept) -> None:
        """No more is known of it than that it has expired: there is a place for another one."""
        self._places.free(kept.caller, kept.peer)

    # --- what callers want --------------------------------------------------------------------

    def find(self, id: str, caller: str | None) -> Kept | None:
        """What this caller may ask for under that name."""
        try:
            kept = self.kept.get(bytes.fromhex(id)) if len(id) == 32 else None
        except ValueError:
            return None
        return kept if kept is not None and kept.caller == caller else None

    def of(self, caller: str | None, most: int) -> list[Kept]:
        """The newest of this caller's, the newest first."""
        return list(islice(reversed(self._of.get(caller, {}).values()), most))

    def cancel(self, kept: Kept) -> Deferred[Any]:
        """
        Give it up for its caller.

        @return: fires, with nothing of interest, when that is done as far as it can be.
        """
        link, sent = self.link(kept), kept.sent
        done: Deferred[Any] = Deferred()
        if link is None or not sent:
            kept.fail(self, cancelled("it may have been made before that"), Stage.CANCELLED)
            done.callback(None)
            return done
        return link.cancel(sent).addCallbacks(
            self._withdrawn, self._not_withdrawn, (kept, len(sent)), errbackArgs=(kept,)
        )

    def _withdrawn(self, ids: list[int], kept: Kept, asked: int) -> None:
        never = len(ids) == asked
        what = "it never left this node" if never else "it may have been made before that"
        kept.fail(self, cancelled(what), Stage.CANCELLED)

    def _not_withdrawn(self, failure: Failure, kept: Kept) -> None:
        if not failure.check(HoftError):
            self.log.failure("Call {id}: the request could not be taken back", failure, id=kept.id.hex())
        kept.fail(self, cancelled("it may have been made before that"), Stage.CANCELLED)

    def forget(self, kept: Kept) -> None:
        """Nothing of it is wanted any more, its key included."""
        kept.drop(self)
        self.remove(kept)

    def remove(self, kept: Kept) -> None:
        """It was never there."""
        if kept.delivery is not None:
            kept.delivery.drop()
        if self.kept.pop(kept.id, None) is not None:
            if kept.stage is not Stage.EXPIRED:
                self.vacate(kept)
            self._expiring.forget(kept)
            self._pending -= not kept.over
            own = self._of[kept.caller]
            del own[kept.id]
            if not own:
                del self._of[kept.caller]
        if kept.key is not None and self.keys.get((kept.caller, kept.key)) is kept:
            del self.keys[kept.caller, kept.key]
        self.also(kept, kept_rows.forget(kept.id))

    # --- time -------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Let go of callers that have waited long enough, and of what has been kept long enough."""
        for waiter in [waiter for waiter in self.waiters if waiter.due <= now]:
            waiter.expire()
        self._expiring.tick(now)

    @property
    def remembered(self) -> float:
        """Seconds for which it is known that there was one which has expired, and its key counts."""
        return self._ingress.routing.expired_ttl

    @property
    def quiet(self) -> bool:
        """There is nothing that a tick could do soon."""
        return not self.waiters

    def stop(self) -> None:
        """Answer those that wait: what they wait for goes on at the next start."""
        for waiter in list(self.waiters):
            waiter.stop()

    # --- what the link brings ---------------------------------------------------------------------

    def known(self, record: int) -> bool:
        """Whether this record is part of a complete result; asked once of each after a start."""
        if record in self._known:
            self._known.discard(record)
            return True
        return False

    @property
    def knows(self) -> bool:
        """Whether L{known} has still something to say."""
        return bool(self._known)

    def expect(self, records: Iterable[int]) -> None:
        """These are known as well: they are part of what is stored elsewhere."""
        self._known.update(records)

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        """The peer has these."""
        waiting = self._unacknowledged_on(link)
        if not waiting:
            return
        for id in ids:
            kept = waiting.pop(id, None)
            if kept is not None:
                self._rollbacks.decide(kept)
                kept.acknowledged(self)

    def exchange_of(self, link: ILink, record: int) -> bytes | None:
        """Whose request it is a part of, of those that the peer has not acknowledged."""
        kept = self._unacknowledged_on(link).get(record)
        return None if kept is None else kept.id

    def find_from(self, link: ILink, exchange: bytes) -> Kept | None:
        """What a part from there belongs to."""
        kept = self.kept.get(exchange)
        if kept is None or kept.peer != link.peer.bytes:
            return None
        self._rollbacks.decide(kept)
        return kept

    def peerRolledBack(self, link: ILink, resent: frozenset[int]) -> Deferred[None]:
        """See L{hoft.interfaces.IRecordReceiver}."""
        return self._rollbacks.begin(link, resent)
