"""What a folder learns from what is written into it."""

from __future__ import annotations

from hoft.interfaces import IFileTransport
from hoft.testing.harness import ALICE, BOB
from hoft.transports.filenames import FileName
from tests.transports.filesystem import VirtualFolderTestCase


class AnswerTests(VirtualFolderTestCase):
    """Where nobody tells of new files."""

    def publish(self, transport: IFileTransport) -> None:
        """Write a file as links do."""
        writer = transport.create()
        writer.write(b"question")
        writer.finish()

    def found_after(self, asked: bool) -> float:
        """Seconds until a file is found that comes soon, perhaps as an answer to one that goes out."""
        self.begin()
        carrier, receiver = self.node(ALICE)
        self.clock.advance(10.02)  # just looked, and no news for long
        if asked:
            self.publish(carrier.transport(BOB))
        self.clock.advance(0.1)
        came = self.clock.seconds()
        self.files.put(ALICE, str(FileName(BOB, ALICE, 1, 1)), b"answer")
        self.until(lambda: receiver.pieces, 2, "it is found")
        return self.clock.seconds() - came

    def test_soon(self) -> None:
        """An answer is looked for soon after a question went out, and not at the next poll only."""
        self.assertGreater(self.found_after(asked=False), 0.3)
        self.assertLess(self.found_after(asked=True), 0.15)
