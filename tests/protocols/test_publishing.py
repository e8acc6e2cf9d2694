"""Packets on their way into files, while what is in them is settled."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from uuid import UUID

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hoft.transports.memory import unchanged
from tests.protocols.nodes import Pair


class PublishingTests(SynchronousTestCase):
    def test_acknowledged_while_it_waits_to_be_written_once_more(self) -> None:
        """Its payload is gone from the journal by then: that is no failure, and holds up nothing."""
        pair = Pair(self)
        near, far = pair.near, pair.far
        pair.start()
        answers: list[tuple[UUID, str, bytes]] = []

        def late(sender: UUID, recipient: UUID, name: str, data: bytes) -> Iterable[tuple[float, bytes]]:
            if sender == near.uuid:
                return unchanged(sender, recipient, name, data)
            answers.append((recipient, name, data))
            return ()

        pair.deliver = late
        near.send(*[bytes(60_000)] * 20)  # more than one segment
        pair.advance(0.1)
        self.assertEqual(len(far.program.payloads), 20)
        near.write._delay = 10.0
        pair.advance(5)
        self.assertTrue(near.write.busy, "what was not answered is to be written once more")
        near.write._delay = 0.0002
        pair.deliver = unchanged
        for answer in answers:
            pair.folder.put(*answer)
        near.send(b"next")
        while near.write.busy:
            self.assertEqual(len(far.program.payloads), 20)
            pair.advance(0.01)
        pair.advance(0.1)
        self.assertEqual(far.program.payloads[20:], [b"next"])

    def test_what_cannot_be_written_is_said_once_and_tried_every_ten_seconds(self) -> None:
        pair = Pair(self)
        near, far = pair.near, pair.far
        pair.start()
        self.assertIsNone(near.link.status()["write_error"])
        with capturedLogs() as logged:
            near.transport.broken = True
            near.transport.tries.clear()
            near.send(b"one")
            pair.advance(600)
            waits = [later - earlier for earlier, later in pairwise(near.transport.tries)]
            self.assertLess(waits[0], 0.6)
            self.assertLess(max(waits), 10.1)
            self.assertEqual(near.link.status()["write_error"], "no space")
            near.transport.broken = False
            pair.advance(10.1)
        self.assertEqual(far.program.payloads, [b"one"])
        self.assertIsNone(near.link.status()["write_error"])
        self.assertEqual(
            [formatEvent(event) for event in logged if event["log_namespace"].endswith("Publisher")],
            [
                "No file can be written for far: no space; it is tried every 10 s",
                "Files for far can be written again",
            ],
        )
