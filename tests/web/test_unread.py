"""Records whose payload was not handed up are read a few at a time."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import LinkClosed, PayloadLost
from hoft.interfaces import Outgoing
from hoft.testing.clock import HeapClock
from hoft.web.crossing.unread import FETCHED, Unread
from tests.web.loopback import pair


class UnreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = HeapClock()
        near, self.link = pair(self.clock, 1)
        self.count = 3 * FETCHED
        near.commit([Outgoing(b"%d" % number, 7) for number in range(self.count)])
        self.pump()
        self.ids = sorted(self.link._received)
        self.found: list[int] = []
        self.failures: list[Failure] = []
        self.damaged: list[tuple[int, bytes]] = []
        self.unread = Unread(
            self.link, self.note, self.failures.append, lambda id, found: self.damaged.append((id, found))
        )

    def note(self, records: Sequence[tuple[int, bytes]]) -> None:
        self.assertLessEqual(len(records), FETCHED)
        self.found += [id for id, _ in records]

    def pump(self) -> None:
        while self.clock.step(self.clock.seconds()):
            pass

    def test_all_are_found_in_order(self) -> None:
        self.unread.add(self.ids[:5])
        self.unread.add(self.ids[5:])
        self.pump()
        self.assertEqual((self.found, self.failures), (self.ids, []))

    def test_where_some_cannot_be_read_the_others_are_tried_all_the_same(self) -> None:
        self.link.commit((), self.ids[:1])
        self.pump()
        self.unread.add(self.ids)
        self.pump()
        self.assertEqual(self.found, self.ids[1:])
        (failure,) = self.failures
        failure.trap(PayloadLost)

    def test_of_damaged_ones_it_is_told_which_and_what_is_there(self) -> None:
        bad = [self.ids[2], self.ids[FETCHED - 1], self.ids[-1]]
        self.link.damaged.update(bad)
        self.unread.add(self.ids)
        self.pump()
        self.assertEqual(self.found, [id for id in self.ids if id not in bad])
        self.assertEqual([id for id, _ in self.damaged], bad)
        self.assertEqual((self.damaged[0][1][-1:], self.failures), (b"\xff", []))

    def test_a_link_that_is_closed_is_asked_once(self) -> None:
        self.link.close()
        self.unread.add(self.ids)
        self.pump()
        (failure,) = self.failures
        failure.trap(LinkClosed)
        self.assertEqual(self.unread.drop(), [])

    def test_what_is_dropped_is_not_read(self) -> None:
        self.unread.add(self.ids)
        self.assertEqual(self.unread.drop(), self.ids[FETCHED:])
        self.pump()
        self.assertEqual(self.found, self.ids[:FETCHED])
