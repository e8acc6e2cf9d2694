"""C{docs/protocol.rst} is normative: we write its worked example, and its text alone suffices to read it."""

from __future__ import annotations

import re
import struct
from hashlib import blake2b
from pathlib import Path
from uuid import UUID

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_box_open,
    crypto_scalarmult_base,
)
from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.control import Control, Receipt
from hoft.protocols.layout import encode_records
from hoft.protocols.packets import (
    MAX_LENGTH,
    MAX_RECORD,
    MAX_STRIDE,
    MIN_STRIDE,
    ControlFrame,
    End,
    PacketReader,
    PacketWriter,
    Record,
    RecordFrame,
)
from hoft.protocols.sealing import BoxSuite
from hoft.transports.filenames import FileName

DOCUMENT = Path(__file__).parent.parent / "docs" / "protocol.rst"
BLOCK = re.compile(r"^\.\. code-block:: text\n   :name: example-(\S+)\n\n((?:   .*\n)+)", re.MULTILINE)


class WorkedExample(SynchronousTestCase):
    """The example, against our code and against the text."""

    def setUp(self) -> None:
        self.text = DOCUMENT.read_text(encoding="utf-8")
        blocks = dict(BLOCK.findall(self.text))
        lines = [line.rsplit(None, 1) for line in blocks.pop("inputs").splitlines()]
        self.inputs = {name.strip(): bytes.fromhex(value) for name, value in lines}
        self.name = blocks.pop("name").strip()
        self.said = {name: bytes.fromhex("".join(value.split())) for name, value in blocks.items()}
        self.control = Control(
            ack=4,
            sack=((6, 7), (10, 10)),
            limit=4100,
            receipts=(Receipt(self.number("far boot"), 9, 3, ((3, 3),), 120),),
            clock=77,
            peer_clock=42,
            probe=True,
        )
        self.records = (Record(12, 2, b"hello"), Record(13, 0, b""))

    def number(self, name: str) -> int:
        return int.from_bytes(self.inputs[name], "big")

    def file(self) -> bytes:
        """The example's packet, put together from what the document shows."""
        return b"".join(self.said[part] for part in ("header", "sealed-key", "frame-0", "frame-1", "end"))

    def test_keys(self) -> None:
        """The public keys belong to the secret ones."""
        for node in ("near", "far"):
            public = crypto_scalarmult_base(self.inputs[f"{node} secret key"])
            self.assertEqual(self.inputs[f"{node} public key"], public)

    def test_written(self) -> None:
        """From the inputs we write these bytes, in these pieces."""
        self.assertEqual(self.control.encode(), self.said["control"])
        self.assertEqual(encode_records(self.records, 0), self.said["records"])

        def entropy(count: int) -> bytes:
            self.assertEqual(count, len(self.inputs["entropy"]))
            return self.inputs["entropy"]

        writer = PacketWriter(
            BoxSuite(self.inputs["near secret key"], self.inputs["far public key"]),
            entropy,
            self.said["control"],
            [[5, 0]],
            sender=self.inputs["near uuid"],
            recipient=self.inputs["far uuid"],
            incarnation=self.number("near incarnation"),
            boot=self.number("near boot"),
            recipient_incarnation=self.number("far incarnation"),
            challenge=self.number("challenge"),
            echo=self.number("echo"),
            number=15,
            hedge=self.inputs["hedge"],
        )
        self.assertEqual(writer.begin(), self.said["header"] + self.said["sealed-key"] + self.said["frame-0"])
        self.assertEqual(writer.frame(self.records), self.said["frame-1"])
        self.assertEqual(writer.end(), self.said["end"])

    def test_read(self) -> None:
        """The recipient reads these bytes as what the text says they are."""
        suite = BoxSuite(self.inputs["far secret key"], self.inputs["near public key"])
        events = PacketReader(lambda header: suite).feed(self.file())
        self.assertEqual(events, [ControlFrame(self.said["control"]), RecordFrame(1, self.records), End()])
        self.assertEqual(Control.decode(self.said["control"]), self.control)

    def test_read_by_the_text_alone(self) -> None:
        """Another implementation, made from the text with nothing of ours, opens the packet."""
        data = self.file()
        (stride,) = struct.unpack_from(">I", data, 8)
        frames, control_length, length = struct.unpack_from(">IIQ", data, 92)
        self.assertEqual((data[:4], data[4], data[5], stride), (b"hoft", 1, 1, 65536))
        self.assertEqual((frames, length), (1, len(data)))
        sealed_key = data[108:180]
        key = crypto_box_open(
            sealed_key[24:], sealed_key[:24], self.inputs["near public key"], self.inputs["far secret key"]
        )
        secret = blake2b(self.inputs["entropy"] + data[:108] + self.inputs["hedge"], digest_size=56).digest()
        self.assertEqual(secret, self.said["secret"])
        self.assertEqual((key, sealed_key[:24]), (secret[:32], secret[32:]))
        digest = blake2b(data[:180], digest_size=32).digest()
        self.assertEqual(digest, self.said["digest"])

        def opened(start: int, end: int, index: int, kind: int) -> bytes:
            bound = digest + index.to_bytes(4, "big") + bytes([kind])
            return crypto_aead_xchacha20poly1305_ietf_decrypt(
                data[start:end], bound, index.to_bytes(24, "big"), key
            )

        first = 180 + control_length
        self.assertEqual(opened(180, first, 0, 0), self.said["control"])
        self.assertEqual(opened(first, length - 16, 1, 1), self.said["records"])
        self.assertEqual(opened(length - 16, length, 2, 2), b"")

    def test_name(self) -> None:
        """The file's name is one by our grammar, and says who and whose."""
        folder, _, base = self.name.partition("/")
        name = FileName.parse(base)
        assert name is not None
        self.assertEqual(name.sender, UUID(bytes=self.inputs["near uuid"]))
        self.assertEqual(name.recipient, UUID(bytes=self.inputs["far uuid"]))
        self.assertEqual((folder, name.boot, name.number), (str(name.recipient), self.number("near boot"), 3))

    def test_limits(self) -> None:
        """The limits that the text states are those of the code."""
        text = " ".join(self.text.split())
        self.assertIn(f"distance of record frames, {MIN_STRIDE} to {MAX_STRIDE};", text)
        self.assertIn(f"at most {MAX_LENGTH}", text)
        self.assertIn(f"payload is at most {MAX_RECORD} bytes", text)
