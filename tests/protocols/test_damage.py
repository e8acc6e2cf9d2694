"""A payload that is damaged in the journal costs itself alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hoft.errors import PayloadDamaged
from hoft.interfaces import ILink, ILossReceiver, Lost
from tests.protocols.nodes import Node, Pair, Program

LARGE = 20_000
"""Bytes: such payloads lie in segments."""


@implementer(ILossReceiver)
class Watchful(Program):
    """A program that is told what was lost."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[Lost] = []

    def recordsLost(self, link: ILink, lost: Sequence[Lost]) -> None:
        self.lost += lost


def damage(node: Node, payload: bytes) -> None:
    """Let one byte at the end of what lies in a segment be another one."""
    for segment in (node.folder / "segments").iterdir():
        content = segment.read_bytes()
        at = content.find(payload)
        if at >= 0:
            at += len(payload) - 1
            segment.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


class DamageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = Pair(self)
        self.near, self.far = self.pair.near, self.pair.far
        self.program = self.near.program = Watchful()

    def payloads(self, count: int) -> list[bytes]:
        return [bytes([number]) * LARGE for number in range(1, count + 1)]

    def test_what_cannot_be_sent_is_told_of_and_all_else_goes(self) -> None:
        """Also what is queued after it; the peer has all numbers in the end, and nothing is left."""
        self.near.start()
        one, two, three = self.payloads(3)
        ids = self.near.send(one, two, three)
        self.near.crash()
        damage(self.near, two)
        self.program = self.near.program = Watchful()
        said: list[LogEvent] = []
        observer = cast(ILogObserver, said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.pair.start()
        self.near.send(b"later")
        self.pair.advance(10)
        self.assertEqual(sorted(filter(None, self.far.program.payloads)), sorted([one, three, b"later"]))
        [lost] = self.program.lost
        self.assertEqual((lost.id, lost.channel, lost.found[:-1]), (ids[1], 1, two[:-1]))
        self.assertEqual((self.near.rows("outbox"), self.near.link.backlog()), (0, 0))
        self.assertEqual(self.near.link.engine.sender.unacknowledged(), 0)
        self.assertEqual(len(self.far.link.engine.receiver._known), 1)
        self.assertEqual(self.near.link.status()["payloads_damaged"], 1)
        damaged = [event for event in said if event["log_level"] >= LogLevel.warn]
        self.assertEqual([event["log_level"] for event in damaged], [LogLevel.error])
        self.assertNotIn("log_failure", damaged[0])

    def test_what_was_received_and_cannot_be_read_fails_alone(self) -> None:
        self.far.program.keep = True
        self.pair.start()
        self.near.send(*self.payloads(2))
        self.pair.advance(10)
        first, second = (record.id for record in self.far.program.received)
        damage(self.far, self.payloads(2)[0])
        with self.assertRaises(PayloadDamaged) as raised:
            self.pair.result(self.far.link.read([first]))
        self.assertEqual(raised.exception.found[:-1], self.payloads(1)[0][:-1])
        self.assertEqual(self.pair.result(self.far.link.read([second])), self.payloads(2)[1:])
        self.assertEqual(self.far.link.status()["payloads_damaged"], 1)
