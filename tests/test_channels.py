"""Who is told what of the records of a link."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from hoft.channels import Channels
from hoft.interfaces import Outgoing
from tests.protocols.nodes import Pair, Program
from tests.protocols.test_withdrawing import Impatient


class ChannelsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = Pair(self)
        self.first, self.second = Program(), Impatient()
        self.channels = Channels({1: self.first, 2: self.second})
        self.pair.far.program = cast(Program, self.channels)
        self.pair.start()

    def test_each_gets_the_records_of_its_channel_and_what_nobody_wants_is_let_go(self) -> None:
        records = [Outgoing(b"%d" % id, channel) for id, channel in ((1, 1), (2, 2), (3, 9), (4, 1))]
        self.pair.result(self.pair.near.link.commit(records))
        self.pair.advance(10)
        self.assertEqual((self.first.payloads, self.second.payloads), ([b"1", b"4"], [b"2"]))
        self.assertEqual((self.channels.unknown, self.pair.far.rows("inbox")), (1, 0))

    def test_of_what_has_expired_those_are_told_who_want_to_know(self) -> None:
        self.channels.recordsExpired(self.pair.far.link, [5, 6])
        self.assertEqual(self.second.expired, [5, 6])

    def test_a_log_that_began_anew_is_told_once_all_have_asked_for_what_follows(self) -> None:
        self.assertIsNone(self.channels.peerRolledBack(self.pair.far.link, []))
        busy: Deferred[None] = Deferred()
        self.second.on_rollback = lambda link: busy
        told = self.channels.peerRolledBack(self.pair.far.link, [7])
        assert told is not None
        self.assertNoResult(told)
        busy.callback(None)
        self.successResultOf(told)
        self.assertEqual((self.first.rollbacks, self.second.rollbacks), ([[], [7]], [[], [7]]))
