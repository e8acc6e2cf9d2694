"""The form in which exchanges cross: parts that fit records, and heads in CBOR."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hoft import cbor
from hoft.errors import RecordError
from hoft.protocols.packets import MAX_RECORD
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
    data_cost,
    decode_abort,
    decode_credit,
    decode_end,
    decode_message,
    decode_part,
    decode_trailers,
    encode_abort,
    encode_cancel,
    encode_credit,
    encode_part,
    flow_of,
)
from hoft.web.http import problems
from hoft.web.http.heads import (
    MAX_FIELDS,
    MAX_HEAD,
    MAX_STAGES,
    RequestHead,
    ResponseHead,
    Retry,
    decode_request,
    decode_response,
    encode_head,
)

ID = bytes(range(16))

REQUEST = RequestHead(
    b"PATCH",
    "https",
    "2001:db8::1",
    b"/a%2Fb/../c?d=%zz&e",
    [(b"Accept", b"*/*"), (b"X-A", b"1"), (b"x-a", b"\xff\xfe"), (b"Empty", b"")],
    port=8443,
    credentials=b"user:p%40ss",
    length=12,
    deadline=12.5,
    retry=Retry.ALWAYS,
    urgency=1,
    caller="192.0.2.7",
    told=True,
)
RESPONSE = ResponseHead(
    418,
    b"I'm a \xe9 teapot",
    [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")],
    length=0,
    callee="192.0.2.9:443",
    stages=[("connected", 0.25), ("responded", 1.5)],
)


MEMBERS = (
    "method",
    "scheme",
    "host",
    "port",
    "target",
    "credentials",
    "length",
    "deadline",
    "retry",
    "urgency",
    "caller",
    "told",
    "headers",
)
RESPONSE_MEMBERS = ("status", "reason", "length", "callee", "stages", "headers")


class PartTests(SynchronousTestCase):
    def test_the_layout_is_the_documented_one(self) -> None:
        part = Part(Kind.DATA, Side.EGRESS, ID, 0x01020304, b"body")
        self.assertEqual(encode_part(part), b"\x02\x01" + ID + b"\x01\x02\x03\x04body")

    def test_messages_in_parts_take_turns_and_whole_ones_do_as_one(self) -> None:
        parts = {id: encode_part(Part(Kind.DATA, Side.INGRESS, id, 1, b"x")) for id in (ID, bytes(16))}
        end = encode_part(Part(Kind.END, Side.INGRESS, ID, 2, bytes(24)))
        self.assertNotEqual(flow_of(parts[ID]), flow_of(parts[bytes(16)]))
        self.assertEqual(flow_of(parts[ID]), flow_of(end))
        head = RequestHead(method=b"GET", scheme="http", host="a", port=None, target=b"/")
        whole = [PartWriter(id, Side.INGRESS) for id in (ID, bytes(16))]
        self.assertEqual(
            {flow_of(payload) for one in whole for payload in [*one.head(head), *one.end()]}, {0}
        )

    def test_every_part_is_read_back_as_it_was(self) -> None:
        for part in (
            Part(Kind.HEAD, Side.INGRESS, ID, 0, b"x", more=True),
            Part(Kind.HEAD, Side.EGRESS, ID, (1 << 32) - 1, b"x"),
            Part(Kind.DATA, Side.INGRESS, ID, 7, b"x" * MAX_BODY),
            Part(Kind.TRAILERS, Side.EGRESS, ID, 8, b"x"),
            Part(Kind.END, Side.INGRESS, ID, 9, bytes(24)),
            Part(Kind.ABORT, Side.EGRESS, ID, 0, b"x"),
            Part(Kind.CREDIT, Side.EGRESS, ID, 0, bytes(8)),
            Part(Kind.CANCEL, Side.INGRESS, ID, 0, b""),
            Part(Kind.EXECUTING, Side.EGRESS, ID, 0, b""),
            Part(Kind.MESSAGE, Side.INGRESS, ID, 0, b"\0\0\0\1h"),
            Part(Kind.MESSAGE, Side.EGRESS, ID, 0, b"\0\0\0\2he" + b"x" * (MAX_BODY - 6)),
        ):
            self.assertEqual(decode_part(encode_part(part)), part)
            self.assertEqual(part.size, len(encode_part(part)))

    def test_a_full_part_fills_a_record_exactly(self) -> None:
        payload = encode_part(Part(Kind.DATA, Side.INGRESS, ID, 0, b"x" * MAX_BODY))
        self.assertEqual(len(payload), MAX_RECORD)
        self.assertRaises(RecordError, decode_part, payload + b"x")

    def test_other_forms_are_refused(self) -> None:
        number = b"\0\0\0\1"
        none = bytes(4)
        for what, payload in {
            "nothing": b"",
            "too short": b"\x02\x00" + ID + b"\0\0\0",
            "kind 0": b"\x00\x00" + ID + none,
            "unknown kind": b"\x09\x00" + ID + none + b"x",
            "unknown flag": b"\x02\x04" + ID + none + b"x",
            "more on DATA": b"\x02\x02" + ID + none + b"x",
            "empty HEAD": b"\x01\x00" + ID + none,
            "empty DATA": b"\x02\x00" + ID + none,
            "short END": b"\x04\x00" + ID + none + bytes(39),
            "long END": b"\x04\x00" + ID + none + bytes(41),
            "ABORT from ingress": b"\x05\x00" + ID + none + b"x",
            "ABORT with a number": b"\x05\x01" + ID + number + b"x",
            "CREDIT with a number": b"\x06\x00" + ID + number + bytes(8),
            "short CREDIT": b"\x06\x00" + ID + none + bytes(7),
            "CANCEL from egress": b"\x07\x01" + ID + none,
            "CANCEL with a body": b"\x07\x00" + ID + none + b"x",
            "MESSAGE with a number": b"\x08\x00" + ID + number + b"\0\0\0\1h",
            "more on MESSAGE": b"\x08\x02" + ID + none + b"\0\0\0\1h",
            "MESSAGE without a length": b"\x08\x00" + ID + none + b"\0\0\0",
            "empty MESSAGE": b"\x08\x00" + ID + none,
            "MESSAGE with an empty head": b"\x08\x00" + ID + none + b"\0\0\0\0body",
            "MESSAGE with a length alone": b"\x08\x00" + ID + none + b"\0\0\0\0",
            "MESSAGE shorter than its head": b"\x08\x00" + ID + none + b"\0\0\0\3he",
            "MESSAGE with an endless head": b"\x08\x00" + ID + none + b"\xff\xff\xff\xffhead",
            "empty TRAILERS": b"\x03\x00" + ID + none,
            "empty ABORT": b"\x05\x01" + ID + none,
        }.items():
            try:
                decode_part(payload)
            except RecordError:
                continue
            self.fail(f"{what} passed")

    @settings(derandomize=True, deadline=None, max_examples=200, database=None)
    @given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda body: bytes((8, 1)) + bytes(20) + body))
    def test_any_bytes_are_a_part_or_a_record_error(self, payload: bytes) -> None:
        try:
            part = decode_part(payload)
        except RecordError:
            return
        self.assertEqual(encode_part(part), payload)

    def test_a_part_does_not_show_its_body(self) -> None:
        self.assertNotIn("secret", repr(Part(Kind.DATA, Side.INGRESS, ID, 0, b"secret")))


class DocumentTests(SynchronousTestCase):
    """C{docs/protocol.rst} is normative."""

    def setUp(self) -> None:
        self.text = (Path(__file__).parents[2] / "docs" / "protocol.rst").read_text(encoding="utf-8")

    def test_its_example_is_what_is_sent(self) -> None:
        _, _, rest = self.text.partition("   :name: example-call\n\n")
        shown = bytes.fromhex("".join(rest.partition("\n\n")[0].split()))
        fields = [(b"Accept", b"*/*"), (b"Via", b"1.1 near")]
        head = RequestHead(b"PUT", "http", "service.example", b"/a?b=1", fields, length=2, caller="127.0.0.1")
        writer = PartWriter(ID, Side.INGRESS)
        self.assertEqual([*writer.head(head), *writer.data(b"hi"), *writer.end()], [shown])

    def test_its_limits_are_ours(self) -> None:
        text = " ".join(self.text.partition(".. _protocol-calls:")[2].split())
        for said in (
            f"at most {MAX_BODY} bytes",
            f"at most {MAX_STAGES} of each",
            f"at most {MAX_FIELDS} of each",
            f"A head is at most {MAX_HEAD} bytes",
            f"or {WINDOW} (64 MiB) before any",
            f"costs its length, at least {MIN_COST};",
            f"more than {MAX_EARLY} beyond",
            *(f" {kind.value} {kind.name} " for kind in Kind),
        ):
            self.assertIn(said, text)


class WriterTests(SynchronousTestCase):
    def test_a_message_is_head_data_trailers_end_numbered_from_0(self) -> None:
        writer = PartWriter(ID, Side.INGRESS)
        payloads = writer.head(REQUEST) + writer.data(b"body") + writer.end([(b"X", b"y")])
        parts = [decode_part(payload) for payload in payloads]
        kinds = [part.kind for part in parts]
        self.assertEqual(kinds, [Kind.HEAD, Kind.DATA, Kind.TRAILERS, Kind.END])
        self.assertEqual([part.number for part in parts], [0, 1, 2, 3])
        self.assertEqual(decode_request(parts[0].body), REQUEST)
        self.assertEqual(decode_trailers(parts[2]), ((b"X", b"y"),))
        end = decode_end(parts[3])
        digest = body_digest()
        digest.update(b"body")
        self.assertEqual((end.total, end.digest), (4, digest.digest()))

    def test_what_is_small_and_whole_is_one_part(self) -> None:
        for body in (b"", b"body"):
            writer = PartWriter(ID, Side.EGRESS)
            self.assertEqual(writer.head(RESPONSE) + writer.data(body[:1]) + writer.data(body[1:]), [])
            (payload,) = writer.end()
            part = decode_part(payload, Side.EGRESS)
            self.assertEqual((part.kind, part.number, part.exchange), (Kind.MESSAGE, 0, ID))
            head, rest = decode_message(part)
            self.assertEqual((decode_response(head), rest), (RESPONSE, body))
            self.assertEqual((writer.total, writer.spent), (len(body), 0))

    def test_one_part_is_what_fits_a_record_and_no_more(self) -> None:
        room = MAX_BODY - 4 - len(encode_head(RESPONSE))
        for size, kinds in ((room, [Kind.MESSAGE]), (room + 1, [Kind.HEAD, Kind.DATA, Kind.END])):
            writer = PartWriter(ID, Side.EGRESS)
            payloads = writer.head(RESPONSE) + writer.data(bytes(size)) + writer.end()
            self.assertEqual([decode_part(payload).kind for payload in payloads], kinds)

    def test_what_was_begun_in_parts_ends_in_parts(self) -> None:
        writer = PartWriter(ID, Side.EGRESS)
        payloads = writer.head(RESPONSE, flush=True) + writer.end()
        parts = [decode_part(payload) for payload in payloads]
        self.assertEqual([part.kind for part in parts], [Kind.HEAD, Kind.END])
        self.assertEqual({part.side for part in parts}, {Side.EGRESS})
        self.assertEqual(decode_end(parts[1]).total, 0)

    def test_a_large_head_spans_parts(self) -> None:
        head = RequestHead(b"GET", "http", "h", b"/", [(b"X", b"y" * 200_000)])
        payloads = PartWriter(ID, Side.INGRESS).head(head, flush=True)
        parts = [decode_part(payload) for payload in payloads]
        self.assertEqual([part.more for part in parts], [True, True, True, False])
        self.assertEqual({len(payload) for payload in payloads[:-1]}, {MAX_RECORD})
        self.assertEqual(decode_request(b"".join(part.body for part in parts)), head)

    def test_data_fills_records_exactly_however_it_comes(self) -> None:
        random = Random(5)
        body = random.randbytes(5 * MAX_BODY + 123)
        for most in (1, 1000, MAX_BODY - 1, MAX_BODY, MAX_BODY + 1, 300_000):
            writer = PartWriter(ID, Side.EGRESS)
            pieces, at = [], 0
            size = most if most > 1 else 4999
            payloads = []
            while at < len(body):
                pieces.append(body[at : at + size])
                payloads += writer.data(pieces[-1])
                at += size
            self.assertEqual({len(payload) for payload in payloads}, {MAX_RECORD})
            payloads += writer.end()
            parts = [decode_part(payload) for payload in payloads]
            self.assertEqual(b"".join(part.body for part in parts[:-1]), body)
            self.assertEqual(len(parts), 7)
            self.assertEqual(decode_end(parts[-1]).total, len(body))

    def test_whoever_waits_for_bytes_gets_them(self) -> None:
        writer = PartWriter(ID, Side.EGRESS)
        self.assertEqual(writer.data(b"abc"), [])
        (payload,) = writer.data(b"def", flush=True)
        self.assertEqual(decode_part(payload).body, b"abcdef")
        self.assertEqual(writer.flush(), [])

    def test_nothing_is_sent_for_nothing(self) -> None:
        self.assertEqual(PartWriter(ID, Side.EGRESS).data(b"", flush=True), [])

    def test_what_is_spent_counts_small_parts_as_larger(self) -> None:
        writer = PartWriter(ID, Side.EGRESS)
        writer.data(b"x", flush=True)
        self.assertEqual(writer.spent, MIN_COST)
        writer.data(bytes(MAX_BODY))
        self.assertEqual(writer.spent, MIN_COST + MAX_BODY)
        self.assertEqual(writer.spent, data_cost(1) + data_cost(MAX_BODY))
        self.assertEqual(writer.total, 1 + MAX_BODY)

    def test_trailers_that_fit_no_record_are_a_mistake_here(self) -> None:
        writer = PartWriter(ID, Side.EGRESS)
        self.assertRaises(ValueError, writer.end, [(b"X", bytes(MAX_BODY))])


class ControlTests(SynchronousTestCase):
    def test_credit_comes_from_either_side(self) -> None:
        for side in Side:
            part = decode_part(encode_credit(ID, side, 1 << 40))
            self.assertEqual((part.kind, part.side, decode_credit(part)), (Kind.CREDIT, side, 1 << 40))

    def test_cancel_comes_from_ingress(self) -> None:
        part = decode_part(encode_cancel(ID))
        self.assertEqual((part.kind, part.side, part.exchange), (Kind.CANCEL, Side.INGRESS, ID))

    def test_abort_carries_a_problem(self) -> None:
        problem = problems.dns_error("h\u00f6st", "no such name")
        part = decode_part(encode_abort(ID, problem))
        self.assertEqual((part.kind, part.side), (Kind.ABORT, Side.EGRESS))
        self.assertEqual(decode_abort(part), problem)

    def test_an_abort_without_a_problem_is_refused(self) -> None:
        for body in (b"", b"\xff", cbor.encode([]), cbor.encode({"status": 502})):
            part = Part(Kind.ABORT, Side.EGRESS, ID, 0, body)
            self.assertRaises(RecordError, decode_abort, part)


class HeadTests(SynchronousTestCase):
    def test_heads_are_read_back_as_they_were(self) -> None:
        self.assertEqual(decode_request(encode_head(REQUEST)), REQUEST)
        self.assertEqual(decode_response(encode_head(RESPONSE)), RESPONSE)

    def test_a_101_is_a_response_only_where_it_was_asked_for(self) -> None:
        switching = ResponseHead(101)
        self.assertEqual(decode_response(encode_head(switching), upgraded=True), switching)
        self.assertEqual(decode_response(encode_head(RESPONSE), upgraded=True), RESPONSE)
        self.assertRaises(RecordError, decode_response, encode_head(switching))
        for status in (100, 102, 199):
            self.assertRaises(RecordError, decode_response, encode_head(ResponseHead(status)), upgraded=True)

    def test_what_is_not_known_is_null(self) -> None:
        request = RequestHead(b"GET", "http", "h", b"*")
        self.assertEqual(decode_request(encode_head(request)), request)
        members = dict(zip(MEMBERS, cbor.decode_strict(encode_head(request), limit=MAX_HEAD), strict=True))
        unknown = {name for name, value in members.items() if value is None}
        self.assertEqual(unknown, {"port", "credentials", "length", "caller"})
        response = ResponseHead(200)
        self.assertEqual(decode_response(encode_head(response)), response)

    def test_authority_is_what_host_must_say(self) -> None:
        self.assertEqual(REQUEST.authority, b"[2001:db8::1]:8443")
        self.assertEqual(RequestHead(b"GET", "http", "h", b"/").authority, b"h")

    def test_a_head_shows_neither_fields_nor_credentials_nor_query(self) -> None:
        head = RequestHead(
            b"GET", "http", "h", b"/?token=canary", [(b"Authorization", b"canary")], credentials=b"u:canary"
        )
        self.assertNotIn("canary", repr(head))
        self.assertNotIn("canary", repr(ResponseHead(200, headers=[(b"Set-Cookie", b"canary")])))

    def test_a_request_head_is_exactly_as_it_must_be(self) -> None:
        self.refuses(
            REQUEST,
            {"method": b""},
            {"method": "GET"},
            {"method": b"x" * 65},
            {"scheme": "ftp"},
            {"scheme": b"http"},
            {"scheme": []},
            {"host": ""},
            {"host": "b\u00fccher"},
            {"host": "h" * 256},
            {"host": b"h"},
            {"target": b""},
            {"target": "/"},
            {"headers": {}},
            {"headers": None},
            {"headers": [b"a", b"b", b"c"]},
            {"headers": [b"a"]},
            {"headers": ["a", b"b"]},
            {"headers": [b"a", None]},
            {"headers": [[b"a", b"b"]]},
            {"headers": [b"a", b"b"] * (MAX_FIELDS + 1)},
            {"method": None},
            {"scheme": None},
            {"host": None},
            {"target": None},
            {"deadline": None},
            {"retry": None},
            {"urgency": None},
            {"urgency": True},
            {"length": True},
            {"length": b"1"},
            {"credentials": {}},
            {"port": 0},
            {"port": 65536},
            {"port": True},
            {"credentials": "u:p"},
            {"length": -1},
            {"length": 1 << 63},
            {"deadline": 0},
            {"deadline": -5},
            {"deadline": 1 << 60},
            {"deadline": True},
            {"retry": "maybe"},
            {"retry": 1},
            {"retry": []},
            {"urgency": 8},
            {"urgency": -1},
            {"caller": 5},
            {"caller": ""},
            {"told": None},
            {"told": 1},
            {"another": 1},
        )

    def test_a_response_head_is_exactly_as_it_must_be(self) -> None:
        self.refuses(
            RESPONSE,
            {"status": 199},
            {"status": 1000},
            {"status": "200"},
            {"status": True},
            {"reason": "OK"},
            {"reason": b"x" * 4097},
            {"headers": None},
            {"length": -1},
            {"callee": b"h"},
            {"status": None},
            {"reason": None},
            {"stages": None},
            {"stages": ["a", -1]},
            {"stages": ["a", 1 << 60]},
            {"stages": ["a", True]},
            {"stages": ["a", None]},
            {"stages": [b"a", 1]},
            {"stages": ["a"]},
            {"stages": [["a", 1]]},
            {"stages": ["a", 1] * 17},
            {"another": 1},
        )

    def refuses(self, head: RequestHead | ResponseHead, *changes: dict[str, object]) -> None:
        decode: Callable[[bytes], object] = (
            decode_request if isinstance(head, RequestHead) else decode_response
        )
        names = MEMBERS if isinstance(head, RequestHead) else RESPONSE_MEMBERS
        good = dict(zip(names, cbor.decode_strict(encode_head(head), limit=MAX_HEAD), strict=True))
        self.assertEqual(decode(cbor.encode(list(good.values()))), head)
        for name in names:
            missing = [value for key, value in good.items() if key != name]
            self.assertRaises(RecordError, decode, cbor.encode(missing))
        for change in changes:
            try:
                decode(cbor.encode(list((good | change).values())))
            except RecordError:
                continue
            self.fail(f"{change} passed")

    def test_what_is_no_array_is_refused(self) -> None:
        for data in (b"", b"\x80", b"\xa0", b"\xff", encode_head(REQUEST) + b"\0", encode_head(REQUEST)[:-1]):
            self.assertRaises(RecordError, decode_request, data)
            self.assertRaises(RecordError, decode_response, data)

    def test_a_head_has_one_encoding(self) -> None:
        """What says the same in another way is refused, although its values are as they must be."""
        good = encode_head(REQUEST)
        self.assertEqual(decode_request(good), REQUEST)
        self.assertEqual(good[0], 0x8D)
        method = good.index(b"\x45PATCH")
        for other in (
            b"\x98\x0d" + good[1:],
            b"\x9f" + good[1:] + b"\xff",
            b"\xd9\xd9\xf7" + good,
            good[:method] + b"\x58\x05" + good[method + 1 :],
            good[:method] + b"\x5f" + good[method : method + 6] + b"\xff" + good[method + 6 :],
            good[:method] + b"\xd8\x25" + good[method:],
            good.replace(b"\x1a\x00\xbe\xbc\x20", b"\xfb\x41\x67\xd7\x84\x00\x00\x00\x00"),
            good.replace(b"\x1a\x00\xbe\xbc\x20", b"\x1b\x00\x00\x00\x00\x00\xbe\xbc\x20"),
            good.replace(b"\x1a\x00\xbe\xbc\x20", b"\xc2\x44\x00\xbe\xbc\x20"),
        ):
            self.assertNotEqual(other, good)
            self.assertRaises(RecordError, decode_request, other)

    def test_a_head_above_the_limit_is_a_mistake_here_and_refused_there(self) -> None:
        large = RequestHead(b"GET", "http", "h", b"/", [(b"X", bytes(MAX_HEAD))])
        self.assertRaises(ValueError, encode_head, large)
        many = RequestHead(b"GET", "http", "h", b"/", [(b"X", b"")] * (MAX_FIELDS + 1))
        self.assertRaises(ValueError, encode_head, many)
        self.assertRaises(RecordError, decode_request, bytes(MAX_HEAD + 1))

    @settings(derandomize=True, deadline=None, max_examples=200, database=None)
    @given(st.binary(max_size=120), st.integers(0, 300), st.integers(0, 255))
    def test_a_damaged_head_is_another_head_or_a_record_error(self, tail: bytes, at: int, byte: int) -> None:
        data = bytearray(encode_head(REQUEST))
        data[at % len(data)] = byte
        for damaged in (bytes(data), bytes(data[: at % len(data)]) + tail, tail):
            try:
                head = decode_request(damaged)
            except RecordError:
                continue
            self.assertEqual(encode_head(head), damaged)
