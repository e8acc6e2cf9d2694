"""C{hoft packet}, as people and scripts use it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft.cli import main
from hoft.identity import Card, Identity
from hoft.protocols.control import Control, Receipt
from hoft.protocols.packets import PacketWriter, Record, plan_frames
from hoft.protocols.sealing import BoxSuite
from hoft.transports.armour import Armour
from tests.protocols.samples import FAR, NEAR, SUITES, chance, grouped, parts, writer


class PacketCommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.near, self.far = self.folder / "near", self.folder / "far"
        cards = []
        for node in (self.near, self.far):
            code, out, _ = self.run_in("init", node, "--folder", "/srv/exchange")
            self.assertEqual(code, 0)
            cards.append(Card.parse(out))
        self.cards = cards
        for node, card in ((self.near, cards[1]), (self.far, cards[0])):
            self.assertEqual(self.run_in("trust", node, card)[0], 0)

    def run_in(self, *arguments: object) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        return code, out.getvalue(), err.getvalue()

    def packet(self) -> bytes:
        """From near to far: 41 records in 3 frames."""
        control = Control(
            ack=7, sack=((9, 9), (12, 20)), limit=100, clock=5, probe=True,
            receipts=(Receipt(1, 44, 10, ((2, 3),)), Receipt(1, 45, 1)),
        ).encode()  # fmt: skip
        records = [Record(number, 2, b"x" * 900) for number in range(1, 41)] + [Record(50, 0, b"")]
        at = 0
        frames = []
        for count in plan_frames([len(record.payload) for record in records], 16384):
            frames.append(records[at : at + count])
            at += count
        secret = Identity.load(self.near / "identity").secret_key
        near, far = self.cards
        made = PacketWriter(
            BoxSuite(secret, far.public_key), chance(1), control,
            [[len(record.payload) for record in frame] for frame in frames],
            sender=near.uuid.bytes, recipient=far.uuid.bytes, incarnation=1, boot=2,
            recipient_incarnation=0, challenge=3, echo=0, number=4711, hedge=b"", stride=16384,
        )  # fmt: skip
        return b"".join(parts(made, frames))

    def file(self, data: bytes, name: str = "file") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def test_either_node_explains_a_packet_frame_by_frame(self) -> None:
        path = self.file(self.packet())
        for node, names in ((self.near, ("near, this node", "far")), (self.far, ("near", "far, this node"))):
            code, out, err = self.run_in("packet", path, "--config", node)
            self.assertEqual((code, err), (0, ""), out)
            self.assertIn(f"{path}: whole and intact\n", out)
            self.assertIn("header    packet 4711, suite box, ", out)
            self.assertIn(f"from      {self.cards[0].uuid} ({names[0]}), incarnation 0000000000000001", out)
            self.assertIn(f"to        {self.cards[1].uuid} ({names[1]}), incarnation not known", out)
            self.assertIn("control, ", out)
            self.assertIn(
                ": ack 7, sack 9 12-20, limit 100, receipt for packet 44 without frames 2-3,"
                " receipt for packet 45, clock 5, peer's clock 0, asks for an answer\n",
                out,
            )
            self.assertIn("            records 1-17  channel 2 (requests)  900 bytes each\n", out)
            self.assertIn("            record 50  channel 0 (void)  0 bytes\n", out)
            self.assertIn("END       intact", out)

    def test_cut_and_damaged_ones(self) -> None:
        data = self.packet()
        code, out, _ = self.run_in("packet", self.file(data[:20000]), "--config", self.far / "hoft.toml")
        self.assertEqual(code, 1)
        self.assertIn(f": cut in frame 2: 20000 of {len(data)} bytes\n", out)
        self.assertIn("frame 1   at ", out)
        self.assertIn("frames 2 to 3 of 3: not there\n", out)
        damaged = bytearray(data)
        damaged[20000] ^= 1
        code, out, _ = self.run_in("packet", self.file(bytes(damaged)), "--config", self.far)
        self.assertEqual(code, 1)
        self.assertIn(": 1 of 3 record frames damaged\n", out)
        self.assertRegex(out, r"frame 2 +at \d+, 16384 bytes: damaged \(forged\)\n")

    def test_without_keys_the_header_is_all_there_is_to_say(self) -> None:
        data = self.packet()
        code, out, _ = self.run_in("packet", self.file(data))
        self.assertEqual(code, 0)
        self.assertIn("whole by its length; not opened, for want of keys (--config)\n", out)
        self.assertNotIn("records 1", out)
        code, out, _ = self.run_in("packet", self.file(data[:20000]))
        self.assertEqual(code, 1)
        self.assertIn(f"cut in frame 2: 20000 of {len(data)} bytes; not opened", out)

    def test_a_foreign_one_is_not_opened_and_says_why(self) -> None:
        frames = grouped([Record(1, 2, b"one")])
        path = self.file(b"".join(parts(writer(Control().encode(), frames), frames)))
        code, out, _ = self.run_in("packet", path, "--config", self.near)
        self.assertEqual(code, 1)
        self.assertIn("not opened (stranger: neither from nor to a peer of this node)", out)

    def test_a_checksum_needs_no_keys(self) -> None:
        frames = grouped([Record(1, 2, b"one")])
        made = writer(Control().encode(), frames, suite=SUITES["checksum"](NEAR, FAR))
        code, out, _ = self.run_in("packet", self.file(b"".join(parts(made, frames))))
        self.assertEqual(code, 0)
        self.assertIn("whole and intact", out)
        self.assertIn("record 1  channel 2", out)

    def test_whose_records_these_are_is_told_by_the_name_of_their_channel(self) -> None:
        frames = grouped([Record(1 + channel, channel, b"one") for channel in range(6)])
        made = writer(Control().encode(), frames, suite=SUITES["checksum"](NEAR, FAR))
        _, out, _ = self.run_in("packet", self.file(b"".join(parts(made, frames))))
        names = ("void", "messages", "requests", "responses", "streams", "unknown")
        for channel, name in enumerate(names):
            self.assertIn(f"record {1 + channel}  channel {channel} ({name})", out)

    def test_text_armour_is_taken_off(self) -> None:
        data = self.packet()
        armour = Armour()
        text = armour.put_on(data) + armour.close()
        for text_as_carried in (text, text.replace(b"\n", b"\r\n")):
            path = self.file(text_as_carried)
            code, out, _ = self.run_in("packet", path, "--config", self.far)
            self.assertEqual(code, 0, out)
            self.assertIn(f"{path}: in text armour; within, whole and intact\n", out)
        code, out, _ = self.run_in("packet", self.file(text[:25000]), "--config", self.far)
        self.assertEqual(code, 1)
        self.assertIn("in text armour; within, cut in frame 2", out)
        self.assertIn("frame 1   at ", out)
        code, out, _ = self.run_in(
            "packet", self.file(b"~hoft85~\n\xff\x00rubbish"), "--config", self.far, "--json"
        )
        self.assertEqual((code, json.loads(out)["armoured"]), (1, True))

    def test_what_is_no_packet(self) -> None:
        for data, words in (
            (b"PK\x03\x04", "no packet that can be read (not-hoft)"),
            (b"", "no packet that can be read (too-short: 0 bytes)"),
            (b"hof", "no packet that can be read (too-short: 3 bytes)"),
            (bytes(4096), "4096 zeros: preallocated, and nothing has arrived"),
            (b"hoft\x63" + bytes(300), "no packet that can be read (version: 99"),
        ):
            code, out, _ = self.run_in("packet", self.file(data), "--config", self.near)
            self.assertEqual(code, 1)
            self.assertIn(words, out)

    def test_several_at_once_for_programs(self) -> None:
        data = self.packet()
        paths = [self.file(data, "whole"), self.file(data[:-1], "cut"), self.folder / "none"]
        code, out, err = self.run_in("packet", *paths, "--config", self.far, "--json")
        self.assertEqual(code, 2)
        self.assertEqual(err, f"hoft: {paths[2]}: No such file or directory\n")
        whole, cut = map(json.loads, out.splitlines())
        self.assertEqual((whole["file"], whole["sound"], whole["cut_in"]), (str(paths[0]), True, None))
        self.assertEqual(whole["header"]["sender"], str(self.cards[0].uuid))
        self.assertEqual(whole["control"]["sack"], [[9, 9], [12, 20]])
        self.assertEqual(sum(len(frame["records"]) for frame in whole["frames"]), 41)
        self.assertEqual((cut["sound"], cut["cut_in"], cut["end"]), (False, "END", False))

    def test_names_and_kinds_of_files_that_would_do_harm(self) -> None:
        os.mkfifo(self.folder / "fifo")
        code, _, err = self.run_in("packet", self.folder / "fifo")
        self.assertEqual((code, err), (2, f"hoft: {self.folder}/fifo: is not a regular file\n"))
        code, _, err = self.run_in("packet", self.folder)
        self.assertEqual(code, 2)
        with open(self.folder / "sparse", "wb") as sparse:
            sparse.truncate(200_000_000_000)
        code, _, err = self.run_in("packet", self.folder / "sparse")
        self.assertEqual(code, 2)
        self.assertEqual(
            err, f"hoft: {self.folder}/sparse: is no packet: 186 GiB, they have 512 MiB at most\n"
        )
        path = self.file(b"x", "\x1b[2J\n")
        code, out, _ = self.run_in("packet", path)
        self.assertIn("\\x1b[2J\\n: no packet", out)
