"""Housekeeping of which there is much: cut into turns, between which the journal takes what came of it."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from hoft.config import Caller
from hoft.errors import LocalError
from hoft.interfaces import Outgoing
from hoft.testing.clock import HeapClock
from hoft.tokens import hash_token
from hoft.web.crossing.exchange import REQUESTS, RESPONSES, PartWriter, Side
from hoft.web.http.heads import ResponseHead
from hoft.web.ingress import kept_rows
from hoft.web.ingress.caching import rows as cache_rows
from hoft.web.ingress.caching.keys import variant
from hoft.web.ingress.caching.purging import Purging
from hoft.web.ingress.caching.rows import Entry
from hoft.web.ingress.caching.store import CacheStore
from hoft.web.ingress.callbacks.rows import State
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.kept_rows import Stage
from hoft.web.ingress.shares import Shares
from hoft.web.ingress.sweeping import TURN, Sweeper
from tests.web.loopback import Transaction
from tests.web.test_delivering import TTL, ScheduleCase

MANY = 3 * TURN + 50


class SweeperTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = HeapClock()
        self.commits: list[Deferred[object]] = []
        self.sweeper = Sweeper(self.clock, self.commit)
        self.left = 3
        self.steps = 0

    def commit(self) -> Sequence[Deferred[object]]:
        self.commits.append(Deferred())
        return self.commits[-1:]

    def step(self) -> bool:
        self.steps += 1
        self.left -= 1
        return self.left > 0

    def test_each_step_waits_until_the_journal_has_what_came_of_the_last(self) -> None:
        self.sweeper.begin(self.step)
        for steps in (1, 2):
            self.clock.advance(10)
            self.assertEqual(self.steps, steps)
            self.commits.pop().callback(None)
            self.assertEqual(self.steps, steps, "others have their turn first")
        self.clock.advance(10)
        self.assertEqual((self.steps, self.commits), (3, []))

    def test_what_is_under_way_is_not_begun_again(self) -> None:
        self.sweeper.begin(self.step)
        self.sweeper.begin(self.step)
        self.assertEqual(self.steps, 1)

    def test_nothing_is_done_after_the_end(self) -> None:
        self.sweeper.begin(self.step)
        self.sweeper.stop()
        self.commits.pop().callback(None)
        self.clock.advance(10)
        self.assertEqual(self.steps, 1)


class SharesTests(SynchronousTestCase):
    def test_whose_the_bytes_are(self) -> None:
        shares: Shares[str | None] = Shares()
        for caller, size in (("ann", 5), (None, 3), ("bob", 4), ("ann", -2), ("bob", -4)):
            shares.take(caller, size)
        self.assertEqual((shares.total, shares.of("ann"), shares.of("bob"), shares.of(None)), (6, 3, 0, 3))
        shares.take(None, 1)
        self.assertIsNone(shares.largest())


class ManyTests(ScheduleCase):
    """More than are seen to in a turn of the reactor."""

    def setUp(self) -> None:
        super().setUp()
        self.near.create(cache_rows.SCHEMA)
        self.store = self.ingress.cache.store

    def fill(self, count: int, caller: str | None = None) -> list[Entry]:
        """So many responses of ten bytes each come to be stored for this caller."""
        number = len(self.store)
        entries = []
        for one in range(number, number + count):
            id, url = one.to_bytes(16, "big"), b"http://a/%d" % one
            nothing = variant((), ())
            entries.append(
                Entry(id, self.near.peer.bytes, "r", url, b"", "", nothing, b"", 10, caller=caller)
            )
            self.store.add(entries[-1])
        return entries

    def found(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those of them that calls may be answered with."""
        return [one for one in entries if self.store.find(one.url, one.partition, []) is one]

    def rows(self, table: str, where: str = "1") -> int:
        """So many are in the journal."""
        (count,) = self.near.database.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()
        return int(count)

    def pass_turns(self, table: str, where: str = "1") -> int:
        """Let all happen that needs no time; the most rows that went at once."""
        most, rows = 0, self.rows(table, where)
        while self.clock.step(self.clock.seconds()):
            rows, before = self.rows(table, where), rows
            most = max(most, before - rows)
        return most

    def test_a_purge_goes_on_while_nothing_of_it_is_found_any_more(self) -> None:
        stored = self.fill(MANY)
        self.clock.advance(0)
        answer = Purging(self.clock, self.ingress).answer({})
        self.assertEqual(len(self.store), MANY - TURN)
        fresh = self.fill(1)
        self.assertEqual(self.found([*stored, *fresh]), fresh)
        self.assertEqual(self.pass_turns("cached"), TURN)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(answer), {"purged": MANY, "left": 0, "number": 1})
        self.assertEqual(self.rows("cached"), 1)

    def test_who_waits_for_a_purge_is_told_how_far_it_is(self) -> None:
        self.fill(MANY)
        purging = Purging(self.clock, self.ingress)
        journal: Deferred[object] = Deferred()
        self.ingress.sweeper._commits = lambda: [journal]
        answer = purging.answer({"what": None})
        self.clock.advance(2)
        told = self.successResultOf(answer)
        self.assertEqual(told, {"purged": TURN, "left": MANY - TURN, "number": 1})
        self.assertRaises(LocalError, purging.answer, {"number": 2})
        journal.callback(None)
        answer = purging.answer({"number": 1})
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(answer), {"purged": MANY, "left": 0, "number": 1})

    def test_less_room_than_before_takes_several_turns(self) -> None:
        self.fill(MANY)
        self.clock.advance(0)
        self.ingress.reconfigure(evolve(self.ingress.routing, cache=100))
        self.assertEqual(self.pass_turns("cached"), TURN)
        self.assertEqual((len(self.store), self.store.size), (10, 100))

    def test_results_that_expire_together(self) -> None:
        for number in range(MANY):
            self.end(self.want(number))
        self.clock.advance(0)
        self.assertEqual(self.ingress.counters()["kept"], MANY)
        self.callbacks._found[State.PENDING].clear()
        self.clock.advance(TTL + 1)
        self.ingress.tick()
        self.assertEqual(self.pass_turns("kept", "stage = 'failed'"), TURN)
        self.assertEqual(self.rows("kept", "stage = 'expired'"), MANY)

    def submit(self, count: int) -> list[Kept]:
        """So many kept requests that lie here, since their peer is away."""
        self.near.attach(self.ingress)
        self.near.open = False
        keeper, submitted = self.ingress.keeper, []
        for number in range(count):
            kept = Kept(number.to_bytes(16, "big"), self.near.peer.bytes, None, None, None, b"PUT", "/", b"/")
            keeper.keep(kept, 60.0)
            request = Outgoing(b"", REQUESTS, again=True)
            sent = self.near.commit([request], (), kept_rows.write(kept)).addCallback(lambda done: done.sent)
            self.clock.advance(0)
            records = self.successResultOf(sent)
            keeper.sent(self.near, kept, records)
            kept.requested(keeper, records)
            submitted.append(kept)
        self.clock.advance(0)
        return submitted

    def test_the_garbage_collector_need_not_look_into_what_is_kept(self) -> None:
        """It stops the reactor's thread for what it looks into."""

        def is_plain(found: object) -> bool:
            if isinstance(found, tuple):
                return all(map(is_plain, found))
            if isinstance(found, dict):
                return all(map(is_plain, (*found, *found.values())))
            return found in (Kept, Stage.ACCEPTED) or isinstance(found, str | bytes | int | float | None)

        [kept] = self.submit(1)
        self.assertEqual([one for one in gc.get_referents(kept) if not is_plain(one)], [])

    def test_of_many_that_were_under_way_when_a_node_was_restored(self) -> None:
        self.submit(MANY)
        self.near._under_way.clear()
        done = self.ingress.peerRolledBack(self.near, [])
        self.assertEqual(self.rows("kept", "stage = 'failed'"), TURN)
        self.assertNoResult(done)
        self.assertEqual(self.pass_turns("kept", "stage = 'accepted'"), TURN)
        self.assertEqual(self.rows("kept", "stage = 'failed'"), MANY)
        self.successResultOf(done)

    def answer(self, requests: Sequence[Kept]) -> None:
        """Far has performed them."""
        for kept in requests:
            writer = PartWriter(kept.id, Side.EGRESS)
            answer = [*writer.head(ResponseHead(200, b"", (), 0)), *writer.end()]
            self.near.other.commit([Outgoing(part, RESPONSES) for part in answer])
        while self.clock.step(self.clock.seconds()):
            self.assertLessEqual(len(self.near.records), 5 * MANY, "nothing goes round in circles")

    def test_what_happens_to_one_meanwhile_comes_after_that(self) -> None:
        """Those whose requests are sent again are acknowledged and answered as if nothing had been."""
        submitted = self.submit(MANY)
        journal: Deferred[object] = Deferred()
        self.ingress.sweeper._commits = lambda: [journal]
        resent = [id for kept in submitted[::2] for id in kept.sent]
        done = self.ingress.peerRolledBack(self.near, resent)
        self.near._under_way = [(id, request) for id, request in self.near._under_way if id in resent]
        self.near.heal()
        self.answer(submitted[: MANY // 2])
        self.assertNoResult(done)
        journal.callback(None)
        self.answer(submitted[MANY // 2 :])
        self.successResultOf(done)
        self.assertEqual({kept.stage for kept in submitted[::2]}, {Stage.DONE})
        self.assertEqual({kept.stage for kept in submitted[1::2]}, {Stage.FAILED})

    def test_a_caller_that_wants_much_loses_what_is_its_own(self) -> None:
        self.ingress.reconfigure(evolve(self.ingress.routing, cache=300))
        modest = self.fill(10, "ann")
        greedy = self.fill(200, "bob")
        self.assertEqual(self.found(modest), modest)
        self.assertEqual(self.found(greedy), greedy[-20:], "what it has used longest ago goes first")
        self.assertEqual(len(self.found(self.fill(5, "ann"))), 5)
        self.assertEqual(self.found(modest), modest)

    def test_a_caller_may_have_a_limit_of_its_own(self) -> None:
        ann = Caller("ann", (hash_token(b"ann"),), cache=40)
        self.ingress.reconfigure(evolve(self.ingress.routing, callers=(ann,)))
        self.assertEqual(len(self.found(self.fill(10, "ann"))), 4)
        self.assertEqual(len(self.found(self.fill(10, "bob"))), 10)

    def test_whose_it_was_is_known_after_a_restart(self) -> None:
        modest = self.fill(10, "ann")
        self.fill(20, "bob")
        self.clock.advance(0)
        self.ingress.cache.store = CacheStore(self.ingress)
        self.ingress.cache.load(cache_rows.load(Transaction(self.near.database)))
        self.store = self.ingress.cache.store
        self.ingress.reconfigure(evolve(self.ingress.routing, cache=200))
        kept = [self.store.find(one.url, b"", []) for one in modest]
        self.assertNotIn(None, kept)
