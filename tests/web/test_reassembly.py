"""Parts come in any order and go on in theirs, in bounded memory."""

from __future__ import annotations

import tracemalloc
from itertools import permutations
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import RecordError
from hoft.web.crossing.exchange import (
    MAX_BODY,
    MAX_EARLY,
    MIN_COST,
    WINDOW,
    Kind,
    Part,
    PartWriter,
    Side,
    body_digest,
    decode_end,
    decode_part,
    encode_credit,
)
from hoft.web.crossing.reassembly import Reassembler, Taken
from hoft.web.http.heads import MAX_HEAD, RequestHead

ID = bytes(16)
HEAD = RequestHead(b"POST", "http", "h", b"/", [(b"X", b"y" * 150_000)])


def message(body: bytes, flush: int = 0) -> list[Part]:
    """A request with a head of three parts and trailers; C{flush} is the size of its DATA."""
    writer = PartWriter(ID, Side.INGRESS)
    payloads = writer.head(HEAD)
    for at in range(0, len(body), flush or MAX_BODY):
        payloads += writer.data(body[at : at + (flush or MAX_BODY)], flush=bool(flush))
    payloads += writer.end([(b"T", b"u")])
    return [decode_part(payload) for payload in payloads]


def data(number: int, body: bytes = b"x") -> Part:
    return Part(Kind.DATA, Side.INGRESS, ID, number, body)


def end(number: int, total: int) -> Part:
    return Part(Kind.END, Side.INGRESS, ID, number, total.to_bytes(8, "big") + bytes(16))


def message_part(body: bytes) -> Part:
    return Part(Kind.MESSAGE, Side.INGRESS, ID, 0, b"\0\0\0\1h" + body)


HEAD_PART_MORE = Part(Kind.HEAD, Side.INGRESS, ID, 1, b"h", more=True)
HEAD_PART = Part(Kind.HEAD, Side.INGRESS, ID, 0, b"h")


class OrderTests(SynchronousTestCase):
    def test_every_order_of_records_gives_the_message(self) -> None:
        parts = message(b"body" * 10, flush=20)
        self.assertEqual(len(parts), 7)
        for order in permutations(range(7)):
            assembler = Reassembler(Side.INGRESS)
            for place in order:
                self.assertFalse(assembler.complete)
                self.assertTrue(assembler.add(100 + place, parts[place]))
            self.assertTrue(assembler.complete)
            taken = assembler.take(1 << 30)
            self.assertEqual([one.part for one in taken], parts)
            self.assertEqual([one.record for one in taken], list(range(100, 107)))

    def test_a_long_message_in_random_order_within_memory(self) -> None:
        random = Random(11)
        body = random.randbytes(3_000_000)
        parts = message(body)
        order = list(range(len(parts)))
        random.shuffle(order)
        assembler = Reassembler(Side.INGRESS, hold=500_000)
        got, digest, seen = [], body_digest(), []
        for place in order:
            assembler.add(place, parts[place])
            self.assertLessEqual(assembler.held, 500_000 + MAX_BODY)
            for one in assembler.take(200_000):
                self.assertEqual(one.number, one.record)
                part = one.part or parts[one.record]  # what link.read would give
                self.assertEqual(part, parts[one.number])
                seen.append(one.number)
                if part.kind is Kind.DATA:
                    digest.update(part.body)
                    got.append(part.body)
        while assembler.waiting:
            for one in assembler.take():
                seen.append(one.number)
                part = one.part or parts[one.record]
                if part.kind is Kind.DATA:
                    digest.update(part.body)
                    got.append(part.body)
        self.assertEqual(seen, list(range(len(parts))))
        self.assertEqual(b"".join(got), body)
        self.assertEqual(decode_end(parts[-1]).digest, digest.digest())
        self.assertEqual(assembler.held, 0)

    def test_nothing_passes_a_missing_part(self) -> None:
        assembler = Reassembler(Side.INGRESS)
        assembler.add(1, data(1))
        assembler.add(2, data(2))
        self.assertEqual((assembler.take(), assembler.waiting, assembler.received), ([], 0, 0))
        assembler.add(3, HEAD_PART)
        self.assertEqual([one.number for one in assembler.take()], [0, 1, 2])
        self.assertEqual(assembler.received, 2)

    def test_the_head_is_complete_with_its_last_piece(self) -> None:
        parts = message(b"")
        assembler = Reassembler(Side.INGRESS)
        for part in (parts[2], parts[0]):
            assembler.add(part.number, part)
        self.assertFalse(assembler.head_complete)
        assembler.add(1, parts[1])
        self.assertTrue(assembler.head_complete)
        self.assertFalse(assembler.complete)

    def test_take_gives_one_part_at_least_and_no_more_than_asked(self) -> None:
        assembler = Reassembler(Side.INGRESS)
        for part in (HEAD_PART, data(1, b"x" * 100), data(2, b"x" * 100), data(3, b"x" * 100)):
            assembler.add(part.number, part)
        self.assertEqual([one.number for one in assembler.take(0)], [0])
        self.assertEqual([one.number for one in assembler.take(200)], [1, 2])
        self.assertEqual([one.number for one in assembler.take(200)], [3])
        self.assertEqual(assembler.take(), [])

    def test_what_is_not_held_is_named_by_its_record(self) -> None:
        assembler = Reassembler(Side.INGRESS, hold=0)
        assembler.add(50, HEAD_PART)
        assembler.add(51, data(1))
        self.assertEqual(assembler.take(), [Taken(50, 0, HEAD_PART), Taken(51, 1, None)])

    def test_a_whole_message_is_complete_at_once(self) -> None:
        assembler = Reassembler(Side.INGRESS, hold=0)
        whole = message_part(b"body")
        self.assertTrue(assembler.add(50, whole))
        self.assertTrue(assembler.complete and assembler.head_complete)
        self.assertEqual((assembler.received, assembler.accepted, assembler.waiting), (4, MIN_COST, 1))
        self.assertEqual(assembler.take(0), [Taken(50, 0, whole)])
        self.assertEqual((assembler.held, assembler.waiting, assembler.take()), (0, 0, []))


class CreditTests(SynchronousTestCase):
    def test_accepted_counts_data_in_order_small_parts_as_larger(self) -> None:
        assembler = Reassembler(Side.INGRESS)
        assembler.add(2, data(2, b"x" * 5000))
        self.assertEqual(assembler.accepted, 0)
        assembler.add(0, HEAD_PART)
        self.assertEqual(assembler.accepted, 0)
        assembler.add(1, data(1))
        self.assertEqual(assembler.accepted, MIN_COST + 5000)
        self.assertEqual(assembler.received, 5001)

    def test_an_honest_sender_never_exceeds_what_is_kept(self) -> None:
        writer = PartWriter(ID, Side.INGRESS)
        payloads = writer.head(HEAD)
        while writer.spent < WINDOW:
            payloads += writer.data(b"x", flush=True)
        payloads += writer.end([(b"T", b"u")])
        assembler = Reassembler(Side.INGRESS)
        for place, payload in enumerate(payloads[1:], 1):
            assembler.add(place, decode_part(payload))
        assembler.add(0, decode_part(payloads[0]))
        self.assertTrue(assembler.complete)

    def test_a_part_far_ahead_is_refused(self) -> None:
        assembler = Reassembler(Side.INGRESS)
        self.assertTrue(assembler.add(1, data(MAX_EARLY)))
        self.assertRaises(RecordError, assembler.add, 2, data(MAX_EARLY + 1))
        self.assertRaises(RecordError, assembler.add, 3, data((1 << 32) - 1))

    def test_waiting_parts_cost_little(self) -> None:
        count = 50_000
        assembler = Reassembler(Side.INGRESS, hold=0)
        assembler.add(1 << 40, HEAD_PART)
        parts = [data(number) for number in range(1, count)]
        tracemalloc.start()
        try:
            for number, part in enumerate(parts):
                assembler.add((1 << 40) + number, part)
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(assembler.waiting, count)
        self.assertLess(size / count, 20)


class ContradictionTests(SynchronousTestCase):
    def add(self, *parts: Part) -> Reassembler:
        assembler = Reassembler(Side.INGRESS)
        for record, part in enumerate(parts):
            assembler.add(record, part)
        return assembler

    def refuses(self, *parts: Part) -> None:
        assembler = self.add(*parts[:-1])
        self.assertRaises(RecordError, assembler.add, 99, parts[-1])

    def test_a_part_that_was_here_changes_nothing(self) -> None:
        assembler = self.add(HEAD_PART, data(1), data(3))
        for part in (HEAD_PART, data(1), data(3)):
            self.assertFalse(assembler.add(77, part))
        assembler.add(4, data(2))
        assembler.add(5, end(4, 3))
        self.assertFalse(assembler.add(78, end(4, 3)))
        self.assertEqual([one.record for one in assembler.take()], [0, 1, 4, 2, 5])
        self.assertFalse(assembler.add(79, data(1)))
        self.assertEqual(assembler.take(), [])

    def test_two_ends_are_one_end(self) -> None:
        self.refuses(end(5, 1), end(6, 1))
        self.refuses(end(6, 1), end(5, 1))
        self.refuses(end(5, 1), end(5, 2))
        self.refuses(HEAD_PART, end(1, 0), end(1, 5))

    def test_nothing_follows_the_end(self) -> None:
        self.refuses(end(5, 1), data(6))
        self.refuses(data(6), end(5, 1))
        self.refuses(end(5, 1), data(5))

    def test_data_needs_a_head(self) -> None:
        self.refuses(data(0))
        self.refuses(end(0, 0))
        self.refuses(data(1), Part(Kind.HEAD, Side.INGRESS, ID, 0, b"h", more=True))

    def test_a_head_does_not_follow_a_head(self) -> None:
        self.refuses(HEAD_PART, Part(Kind.HEAD, Side.INGRESS, ID, 1, b"h"))
        self.refuses(HEAD_PART, data(1), Part(Kind.HEAD, Side.INGRESS, ID, 2, b"h"))

    def test_a_head_has_a_limit(self) -> None:
        pieces = [
            Part(Kind.HEAD, Side.INGRESS, ID, number, bytes(MAX_BODY), more=True)
            for number in range(MAX_HEAD // MAX_BODY + 1)
        ]
        self.refuses(*pieces)

    def test_only_the_end_follows_trailers(self) -> None:
        trailers = Part(Kind.TRAILERS, Side.INGRESS, ID, 1, b"\x80")
        self.add(HEAD_PART, trailers, end(2, 0))
        self.refuses(HEAD_PART, trailers, data(2))
        self.refuses(HEAD_PART, trailers, Part(Kind.TRAILERS, Side.INGRESS, ID, 2, b"\x80"))

    def test_the_end_says_how_much_there_was(self) -> None:
        self.assertTrue(self.add(HEAD_PART, data(1, b"abc"), end(2, 3)).complete)
        self.refuses(HEAD_PART, data(1, b"abc"), end(2, 2))
        self.refuses(HEAD_PART, end(2, 4), data(1, b"abc"))

    def test_a_whole_message_stands_alone(self) -> None:
        whole = message_part(b"body")
        for part in (HEAD_PART, data(1), end(1, 4), data(5), HEAD_PART_MORE):
            self.refuses(whole, part)
            self.refuses(part, whole)
        self.refuses(whole, data(0))
        self.refuses(whole, end(0, 4))
        self.refuses(HEAD_PART, end(1, 0), whole)

    def test_a_whole_message_that_was_here_changes_nothing(self) -> None:
        assembler = self.add(message_part(b"body"))
        self.assertFalse(assembler.add(7, message_part(b"body")))
        assembler.take()
        self.assertFalse(assembler.add(8, message_part(b"body")))
        self.assertEqual((assembler.take(), assembler.drain()), ([], []))
        self.assertRaises(RecordError, assembler.add, 9, HEAD_PART)

    def test_parts_of_the_other_message_do_not_belong(self) -> None:
        self.refuses(Part(Kind.HEAD, Side.EGRESS, ID, 0, b"h"))
        self.refuses(Part(Kind.MESSAGE, Side.EGRESS, ID, 0, b"\0\0\0\1h"))

    def test_unnumbered_parts_do_not_belong(self) -> None:
        self.refuses(decode_part(encode_credit(ID, Side.INGRESS, 1)))


class DrainTests(SynchronousTestCase):
    def test_giving_up_names_all_records_not_taken(self) -> None:
        assembler = Reassembler(Side.INGRESS)
        for record, part in ((10, HEAD_PART), (11, data(1)), (12, data(2)), (15, data(5)), (14, data(4))):
            assembler.add(record, part)
        self.assertEqual([one.record for one in assembler.take(0)], [10])
        self.assertEqual(sorted(assembler.drain()), [11, 12, 14, 15])
        self.assertEqual((assembler.held, assembler.waiting, assembler.drain()), (0, 0, []))
