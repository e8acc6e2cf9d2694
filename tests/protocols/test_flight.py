"""Which packets count as arrived, and which as lost."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from hoft.transports.memory import unchanged
from tests.protocols.nodes import Pair


class EarlierProcessTests(SynchronousTestCase):
    def test_what_it_has_sent_says_nothing_of_our_files(self) -> None:
        """
        Of two records one arrives, and its acknowledgement does not; after a restart both go out
        again, and are lost.  That the one is acknowledged then does not mean that this file came.
        """
        pair = Pair(self)
        near, far = pair.near, pair.far
        pair.start()
        lost: list[str] = []
        answers = False

        def carry(sender: UUID, recipient: UUID, name: str, data: bytes) -> Iterable[tuple[float, bytes]]:
            if sender == far.uuid:
                return unchanged(sender, recipient, name, data) if answers else ()
            if len(data) > 5000 and not lost:
                lost.append(name)
                return ()
            return unchanged(sender, recipient, name, data)

        pair.deliver = carry
        near.send(bytes(2000))
        pair.advance(0.1)
        near.send(bytes(4000))
        near.crash()
        answers = True
        near.start()
        pair.advance(8)
        self.assertEqual(len(lost), 1)
        self.assertEqual([len(payload or b"") for payload in far.program.payloads], [2000, 4000])
