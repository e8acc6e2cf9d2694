"""C{docs/protocol.rst} is normative: we write its worked example, and its text alone suffices to read it."""

from __future__ import annotations

import re
import struct
from base64 import b32encode, urlsafe_b64encode
from functools import partial
from hashlib import blake2b
from pathlib import Path
from uuid import UUID

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_box_beforenm,
    crypto_box_open,
    crypto_box_open_afternm,
    crypto_scalarmult_base,
)
from twisted.trial.unittest import SynchronousTestCase

from hoft.identity import Card
from hoft.messages import gathering, pieces
from hoft.protocols import (
    control,
    layout,
    log,
    pacing,
    queueing,
    receiving,
    repeating,
    sending,
    sizing,
    yielding,
)
from hoft.protocols.compression import LEAST, expand, zstd
from hoft.protocols.control import Control, Receipt
from hoft.protocols.layout import decode_records, encode_records
from hoft.protocols.packets import (
    MAX_LENGTH,
    MAX_RECORD,
    MAX_STRIDE,
    MIN_STRIDE,
    ControlFrame,
    End,
    Header,
    PacketReader,
    PacketWriter,
    Record,
    RecordFrame,
)
from hoft.protocols.sealing import AuthenticatedSuite, BoxSuite, ChecksumSuite, Suite
from hoft.streams import multiplexer, parts
from hoft.transports.filenames import FileName
from hoft.web.crossing import exchange
from hoft.web.http import heads
from hoft.web.http.problems import MAX_DETAIL, MAX_RETRY_AFTER

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
        self.card, self.fingerprint = blocks.pop("card").split()
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

    def part(self, part: str, suite: str) -> bytes:
        """What the document shows of this part of the packet in that suite."""
        return self.said[suite + part]

    def file(self, suite: str = "") -> bytes:
        """The example's packet, put together from what the document shows."""
        return b"".join(
            self.part(part, suite) for part in ("header", "sealed-key", "frame-0", "frame-1", "end")
        )

    def suites(self, own: str, peer: str) -> dict[str, Suite]:
        """By what the names of their blocks begin with."""
        keys = self.inputs[f"{own} secret key"], self.inputs[f"{peer} public key"]
        return {
            "": BoxSuite(*keys),
            "psk-": BoxSuite(*keys, psk=self.inputs["psk"]),
            "authenticated-": AuthenticatedSuite(*keys),
            "checksum-": ChecksumSuite(),
        }

    def writer(self, suite: Suite) -> PacketWriter:
        def entropy(count: int) -> bytes:
            self.assertEqual(count, len(self.inputs["entropy"]))
            return self.inputs["entropy"]

        return PacketWriter(
            suite,
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

    def test_keys(self) -> None:
        """The public keys belong to the secret ones."""
        for node in ("near", "far"):
            public = crypto_scalarmult_base(self.inputs[f"{node} secret key"])
            self.assertEqual(self.inputs[f"{node} public key"], public)

    def test_card_by_the_text_alone(self) -> None:
        """Card and fingerprint are made of UUID and key, as ours are."""
        uuid, key = self.inputs["near uuid"], self.inputs["near public key"]
        said = f"hoft-card:near:{UUID(bytes=uuid)}:{urlsafe_b64encode(key).decode().rstrip('=')}"
        self.assertEqual(self.card, f"{said}:{blake2b(said.encode(), digest_size=5).hexdigest()}")
        digest = blake2b(uuid + key, digest_size=20, person=b"hoft card").digest()
        letters = b32encode(digest).decode().lower()
        self.assertEqual(self.fingerprint, "-".join(re.findall("....", letters)))
        card = Card.parse(self.card)
        self.assertEqual((card, card.fingerprint), (Card("near", UUID(bytes=uuid), key), self.fingerprint))

    def test_written(self) -> None:
        """From the inputs we write these bytes, in these pieces."""
        self.assertEqual(self.control.encode(), self.said["control"])
        self.assertEqual(encode_records(self.records, 0), self.said["records"])
        for name, suite in self.suites("near", "far").items():
            writer = self.writer(suite)
            begin = writer.begin()
            if name == "psk-":
                self.assertEqual(begin[108:180], self.said["psk-sealed-key"])
                continue
            parts = [self.part(part, name) for part in ("header", "sealed-key", "frame-0")]
            self.assertEqual(begin, b"".join(parts))
            self.assertEqual(writer.frame(self.records), self.part("frame-1", name))
            self.assertEqual(writer.end(), self.part("end", name))

    def test_read(self) -> None:
        """The recipient reads these bytes as what the text says they are."""
        suites = self.suites("far", "near")
        self.assertEqual(suites.pop("psk-").open_key(self.said["psk-sealed-key"]), self.said["secret"][:32])
        for name, suite in suites.items():
            events = PacketReader(partial(self.accept, suite)).feed(self.file(name))
            self.assertEqual(
                events, [ControlFrame(self.said["control"]), RecordFrame(1, self.records), End()]
            )
        self.assertEqual(Control.decode(self.said["control"]), self.control)

    def accept(self, suite: Suite, header: Header) -> Suite:
        self.assertEqual(header.key_id, suite.own_key_id)
        return suite

    def test_read_by_the_text_alone(self) -> None:
        """Another implementation, made from the text with nothing of ours, opens the packet."""
        data = self.file()
        (stride,) = struct.unpack_from(">I", data, 8)
        frames, control_length, length = struct.unpack_from(">IIQ", data, 92)
        self.assertEqual((data[:4], data[4], data[5], stride), (b"hoft", 1, 1, 65536))
        key_id = blake2b(self.inputs["far public key"], digest_size=2, person=b"hoft key id").digest()
        self.assertEqual(data[6:8], key_id)
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

    def test_psk_by_the_text_alone(self) -> None:
        """The key that is shared, and a hash of it."""
        shared = crypto_box_beforenm(self.inputs["near public key"], self.inputs["far secret key"])
        mixed = blake2b(shared, digest_size=32, key=self.inputs["psk"], person=b"hoft psk").digest()
        sealed = self.said["psk-sealed-key"]
        self.assertEqual(crypto_box_open_afternm(sealed[24:], sealed[:24], mixed), self.said["secret"][:32])

    def test_readable_suites_by_the_text_alone(self) -> None:
        """Content that anybody reads, and a hash that is keyed or not."""
        for name, number, prefix in (("authenticated-", 2, 180), ("checksum-", 3, 132)):
            data = self.file(name)
            self.assertEqual((data[5], struct.unpack_from(">Q", data, 100)), (number, (len(data),)))
            key = b""
            if prefix == 180:
                sealed = data[108:180]
                ends = self.inputs["near public key"], self.inputs["far secret key"]
                key = crypto_box_open(sealed[24:], sealed[:24], *ends)
            else:
                self.assertEqual(data[6:8], bytes(2))
            digest = blake2b(data[:prefix], digest_size=32).digest()
            at = prefix
            for index, content in enumerate((self.said["control"], self.said["records"], b"")):
                self.assertEqual(data[at : at + len(content)], content)
                at += len(content) + 16
                bound = digest + index.to_bytes(4, "big") + bytes([index])
                self.assertEqual(
                    data[at - 16 : at], blake2b(bound + content, key=key, digest_size=16).digest()
                )
            self.assertEqual(at, len(data))

    def test_name(self) -> None:
        """The file's name is one by our grammar, and says who and whose."""
        folder, _, base = self.name.partition("/")
        name = FileName.parse(base)
        assert name is not None
        self.assertEqual(name.sender, UUID(bytes=self.inputs["near uuid"]))
        self.assertEqual(name.recipient, UUID(bytes=self.inputs["far uuid"]))
        self.assertEqual((folder, name.boot, name.number), (str(name.recipient), self.number("near boot"), 3))

    def test_compressed(self) -> None:
        """What is shown is what the text says, to us and to any Zstandard; and we would make it so."""
        packed = self.said["compressed"]
        payload = b"hoft" * 256
        self.assertEqual(expand(packed, MAX_RECORD), payload)
        decompressor = zstd.ZstdDecompressor()
        self.assertEqual(decompressor.decompress(packed), payload)
        self.assertEqual(decompressor.unused_data.strip(b"\0"), b"")
        self.assertEqual(len(packed), len(payload) // 8)
        [record] = decode_records(encode_records([Record(12, 2, packed, flags=1)], 0))
        self.assertEqual(record, Record(12, 2, payload))

    def test_limits(self) -> None:
        """The limits that the text states are those of the code."""
        text = " ".join(self.text.split())
        self.assertIn(f"at most {MAX_RETRY_AFTER}). Texts are at most {MAX_DETAIL} characters", text)
        self.assertIn(f"distance of record frames, {MIN_STRIDE} to {MAX_STRIDE};", text)
        self.assertIn(f"at most {MAX_LENGTH}", text)
        self.assertIn(f"payload is at most {MAX_RECORD} bytes", text)
        self.assertIn(f"a payload shorter than {LEAST} bytes, longer than {MAX_RECORD}", text)


class Constants(SynchronousTestCase):
    """What the document says of numbers is what the code has."""

    def test_numbers(self) -> None:
        """Each in the sentence that tells what it is for."""
        text = " ".join(DOCUMENT.read_text("utf-8").split())
        for sentence in (
            f"``limit`` is {receiving.WINDOW} above ``ack``",
            f"at once when {receiving.ACK_AT_ONCE_PACKETS} packets or"
            f" {receiving.ACK_AT_ONCE_BYTES >> 20} MiB were read",
            f"those read last go first, at most {control.MAX_RECEIPTS} in one",
            f"There are at most {control.MAX_GAPS} ranges in one receipt"
            f" and {control.MAX_GAPS_TOGETHER} in all",
            f"Frame 0 holds one map of at most {control.MAX_ENCODED} bytes",
            f"The journal keeps the latest {log.BOOTS}",
            f"not more than {pacing.Limits().files_in_transit} packets; before"
            f" {pacing.KNOWN - pacing.FIRST_FILES} receipts have come, {pacing.FIRST_FILES} packets",
            f"up to {queueing.HEAD_BYTES >> 10} KiB of records whose urgency is {queueing.URGENT} or less",
            f"{queueing.QUANTUM >> 10} KiB each; before them go those of which no more than"
            f" {queueing.SPARSE >> 10} KiB waits",
            f"While {sending.CROWD} packets are under way, fewer than {sending.COMPANY} records wait",
            f"{queueing.APART >> 10} KiB, the next is made {sending.GATHER * 1000:.0f} ms after the last",
            f"Where more than {queueing.APART >> 10} KiB wait",
            f"others are of {yielding.FILE >> 10} KiB at most, and go at {yielding.RATE >> 20} MiB a second",
            f"records of up to {repeating.SMALL >> 10} KiB go again before anything is known",
            f"and records of at most {layout.SPARED} bytes",
            f"at first {sizing.START >> 20} MiB, at most {sizing.LARGEST // 10**6} MB",
            f"Pieces begin at multiples of {pieces.PIECE} bytes",
            f"a receiver remembers the latest {gathering.REMEMBERED} withdrawals",
            f"A message costs its length, at least {pieces.MIN_COST}.",
            f"or {pieces.WINDOW} (128 MiB) before any",
            f"to the end of the record, at most {exchange.MAX_BODY} bytes",
            f"or {exchange.WINDOW} (64 MiB) before any",
            f"A part numbered more than {exchange.MAX_EARLY} beyond the first that is missing",
            f"A head is at most {heads.MAX_HEAD} bytes",
            f"may be a byte 0 and up to {parts.MAX_SAID} bytes of what is asked",
            f"then 1 to {parts.MAX_DATA} of them",
            f"or {parts.INITIAL} (256 KiB) before any",
            f"Either side has at most {multiplexer.MAX_STREAMS} streams open",
        ):
            self.assertIn(sentence, text)
