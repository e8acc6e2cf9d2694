"""What a part of a stream looks like, and what is none."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import RecordError
from hoft.protocols.packets import MAX_RECORD
from hoft.streams.parts import (
    MAX_DATA,
    MAX_SAID,
    MAX_STREAM,
    MAX_TEXT,
    Kind,
    Part,
    decode,
    decode_wish,
    encode,
    encode_wish,
)

EPOCH = 7 << 32 | 99

GOOD = (
    Part(Kind.BEGIN, False, EPOCH, 0, 0),
    Part(Kind.OPEN, False, EPOCH, 0, 1, body=b"tcp://h:1"),
    Part(Kind.OPEN, False, EPOCH, 0, 1, body=b"t\0" + bytes(MAX_SAID)),
    Part(Kind.ACCEPT, True, EPOCH, 5, MAX_STREAM),
    Part(Kind.ACCEPT, True, EPOCH, 5, 1, body=b"\0" * MAX_SAID),
    Part(Kind.REFUSE, True, EPOCH, 5, 1, body=b"\xa0"),
    Part(Kind.DATA, False, EPOCH, 0, 1, 0, b"x" * MAX_DATA),
    Part(Kind.DATA, True, EPOCH, 5, 1, (1 << 64) - 1, b"x"),
    Part(Kind.END, False, EPOCH, 5, 1, 12),
    Part(Kind.CREDIT, True, EPOCH, 5, 1, 1 << 40),
    Part(Kind.STOP, False, EPOCH, 5, 1),
    Part(Kind.RESET, True, EPOCH, 5, 1, body=b"why"),
    Part(Kind.RESET, False, EPOCH, 0, 1),
)


class PartTests(SynchronousTestCase):
    def test_each_comes_back_as_it_was_and_fits_a_record(self) -> None:
        for part in GOOD:
            payload = encode(part)
            self.assertLessEqual(len(payload), MAX_RECORD)
            self.assertEqual(decode(payload), part)

    def test_the_layout_is_that_of_the_document(self) -> None:
        part = Part(Kind.DATA, True, 0x0102030405060708, 0x1112131415161718, 0x21222324, 3, b"abc")
        self.assertEqual(
            encode(part).hex(),
            "0501" + "0102030405060708" + "1112131415161718" + "21222324" + "0000000000000003" + "616263",
        )

    def test_what_is_none_is_refused(self) -> None:
        for wrong in (
            b"",
            encode(GOOD[0])[:-1],
            encode(GOOD[0]) + b"x",
            encode(Part(Kind.BEGIN, True, EPOCH, 0, 0)),
            encode(Part(Kind.BEGIN, False, EPOCH, 0, 1)),
            encode(Part(Kind.STOP, False, 0, 5, 1)),
            encode(Part(Kind.STOP, False, EPOCH, 5, 0)),
            encode(Part(Kind.OPEN, False, EPOCH, 0, 1)),
            encode(Part(Kind.OPEN, True, EPOCH, 0, 1, body=b"x")),
            encode(Part(Kind.OPEN, False, EPOCH, 0, 1, body=b"x" * (MAX_TEXT + 1))),
            encode(Part(Kind.OPEN, False, EPOCH, 0, 1, body=b"\0asked of nobody")),
            encode(Part(Kind.OPEN, False, EPOCH, 0, 1, body=b"t\0" + bytes(MAX_SAID + 1))),
            encode(Part(Kind.ACCEPT, False, EPOCH, 0, 1)),
            encode(Part(Kind.ACCEPT, True, EPOCH, 5, 1, body=bytes(MAX_SAID + 1))),
            encode(Part(Kind.REFUSE, False, EPOCH, 0, 1, body=b"x")),
            encode(Part(Kind.DATA, False, EPOCH, 0, 1, 0)),
            encode(Part(Kind.DATA, False, EPOCH, 0, 1, 0, b"x" * (MAX_DATA + 1))),
            encode(Part(Kind.END, False, EPOCH, 0, 1, 5))[:-1],
            encode(Part(Kind.CREDIT, False, EPOCH, 0, 1, 5, b"x")),
            b"\x0a" + encode(GOOD[0])[1:],
            b"\x08\x02" + encode(GOOD[10])[2:],
        ):
            with self.assertRaises(RecordError, msg=wrong.hex()):
                decode(wrong)

    def test_a_wish_names_its_target_and_what_is_asked_of_it(self) -> None:
        for target, asked in (
            ("tcp://h:1", b""),
            ("it", b"\0a\0"),
            ("\u00e9" * (MAX_TEXT // 2), bytes(MAX_SAID)),
        ):
            self.assertEqual(decode_wish(encode_wish(target, asked)), (target, asked))
        for target, asked in (("", b"x"), ("\u00e9" * MAX_TEXT, b""), ("it", bytes(MAX_SAID + 1))):
            self.assertRaises(ValueError, encode_wish, target, asked)

    def test_random_bytes_are_a_part_or_a_record_error(self) -> None:
        chance = Random(1)
        for _ in range(2000):
            payload = bytearray(encode(chance.choice(GOOD))[:200])
            for _ in range(chance.randint(1, 3)):
                payload[chance.randrange(len(payload))] = chance.randrange(256)
            try:
                part = decode(bytes(payload[: chance.randint(0, 200)]))
            except RecordError:
                continue
            self.assertEqual(decode(encode(part)), part)
