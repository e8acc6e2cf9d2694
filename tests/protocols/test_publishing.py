"""Packets on their way into files, while what is in them is settled."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

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
