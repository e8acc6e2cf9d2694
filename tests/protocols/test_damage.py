"""A payload that is damaged in the journal costs itself alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import cast

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hoft.errors import JournalError, PayloadDamaged
from hoft.interfaces import ILink, ILossReceiver, Lost
from hoft.transports.memory import unchanged
from tests.protocols.nodes import Node, Pair, Program, lost, refuse

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
        self.assertEqual(len(self.near.link.engine.sender.records), 0)
        self.assertEqual(len(self.far.link.engine.receiver._known), 1)
        self.assertEqual(self.near.link.status()["payloads_damaged"], 1)
        damaged = [event for event in said if event["log_level"] >= LogLevel.warn]
        self.assertEqual([event["log_level"] for event in damaged], [LogLevel.error])
        self.assertNotIn("log_failure", damaged[0])

    def test_what_the_disk_does_not_give_is_damaged(self) -> None:
        """A sector that cannot be read stops nothing else; what the machine lacks now, it has later."""
        self.near.start()
        one, two = self.payloads(2)
        first, second = self.near.send(one, two)
        self.near.crash()
        self.program = self.near.program = Watchful()
        failing = {first: errno.EMFILE, second: errno.EIO}
        pread = os.pread

        def read(file: int, size: int, offset: int) -> bytes:
            content = pread(file, size, offset)
            for id, payload in ((first, one), (second, two)):
                if content == payload and id in failing:
                    raise OSError(failing[id], os.strerror(failing[id]))
            return content

        self.patch(os, "pread", read)
        self.pair.start()
        self.assertEqual(self.program.lost, [])
        self.assertTrue(self.flushLoggedErrors(JournalError))
        del failing[first]
        self.pair.advance(60)
        self.assertTrue(self.far.program.payloads == [one])
        self.assertEqual([(lost.id, lost.found) for lost in self.program.lost], [(second, b"")])
        self.assertEqual(self.near.rows("outbox"), 0)

    def test_it_is_told_of_also_where_the_journal_takes_nothing(self) -> None:
        """The peer gets nothing in its place either way."""
        self.pair.start()
        self.pair.deliver = lost
        [id] = self.near.send(*self.payloads(1))
        self.pair.advance(0.1)
        damage(self.near, *self.payloads(1))
        self.pair.deliver = unchanged
        refuse(self, self.near.journal, JournalError("the disk is gone"))
        self.pair.advance(10)
        self.assertEqual([lost.id for lost in self.program.lost], [id])
        self.assertEqual(len(self.near.link.engine.sender.records), 0)
        self.flushLoggedErrors(JournalError)

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
