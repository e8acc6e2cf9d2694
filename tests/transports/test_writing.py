"""What a folder learns from what is written into it."""

from __future__ import annotations

from hoft.interfaces import IFileTransport
from hoft.testing.harness import ALICE, BOB
from hoft.transports.filenames import LONG, FileName
from tests.transports.filesystem import VirtualFolderTestCase


class NameTests(VirtualFolderTestCase):
    """Somebody has put something where our next file would be."""

    def test_names_that_exist_are_passed_over(self) -> None:
        """Whatever stands there stays; also under the name that a file has before it is published."""
        carrier, receiver = self.node(ALICE)
        transport = carrier.transport(BOB)
        first = self.publish(transport)
        parsed = FileName.parse(first)
        assert parsed is not None
        boot = parsed.boot
        taken = [str(FileName(ALICE, BOB, boot, number)) for number in (2, 3)]
        for one in taken:
            self.files.put(BOB, one, b"theirs")
        self.files.put(BOB, LONG.temporary(taken[0]), b"theirs")
        name = self.publish(transport)
        self.assertEqual(name, str(FileName(ALICE, BOB, boot, 4)))
        self.assertEqual(bytes(self.files.folder(BOB)[taken[0]].data), b"theirs")
        self.clock.advance(1)
        self.assertEqual(receiver.health, ["up"])
        self.assertEqual(carrier.counters()["write_errors"], 0)

    def publish(self, transport: IFileTransport) -> str:
        writer = transport.create()
        writer.write(b"ours")
        writer.finish()
        return str(writer.name)


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
