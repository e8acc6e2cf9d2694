"""
What services send, whole and in pieces, right and wrong.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.web.http.responses import Event, ReceivedEnd, ReceivedHead, ResponseParser, ServiceError, phrase


def parse(
    *pieces: bytes, method: bytes = b"GET", limit: int = 1 << 16, close: bool = False
) -> tuple[ReceivedHead, bytes, ReceivedEnd | None, ResponseParser]:
    parser = ResponseParser(method, limit)
    events: list[Event] = []
    for piece in pieces:
        events += parser.receive(piece)
    if close:
        events += parser.finish()
    head = events[0]
    assert isinstance(head, ReceivedHead)
    end = events[-1] if isinstance(events[-1], ReceivedEnd) else None
    return head, b"".join(event for event in events if isinstance(event, bytes)), end, parser


COUNTED = b"HTTP/1.1 200 OK\r\nX-Upper: 1\r\nx-upper: 2\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 9\r\nY: z\r\n\r\n"
)
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


class PhraseTests(SynchronousTestCase):
    def test_what_statuses_are_called(self) -> None:
        self.assertEqual([phrase(status) for status in (200, 431, 502)], [
            b"OK", b"Request Header Fields Too Large", b"Bad Gateway",
        ])  # fmt: skip
        self.assertEqual(phrase(599), b"")


class WholeResponseTests(SynchronousTestCase):
    def test_fields_keep_their_case_order_and_repetitions(self) -> None:
        head, body, end, _ = parse(COUNTED)
        self.assertEqual((head.minor, head.status, head.reason, head.length), (1, 200, b"OK", 5))
        self.assertEqual(head.fields, ((b"X-Upper", b"1"), (b"x-upper", b"2"), (b"Content-Length", b"5")))
        self.assertEqual((body, end), (b"hello", ReceivedEnd(())))

    def test_chunks_are_joined_and_trailers_kept(self) -> None:
        head, body, end, _ = parse(CHUNKED)
        self.assertIsNone(head.length)
        self.assertEqual((body, end), (b"hello", ReceivedEnd(((b"X-Sum", b"9"), (b"Y", b"z")))))

    def test_where_the_pieces_are_cut_makes_no_difference(self) -> None:
        for whole in (COUNTED, CHUNKED, EARLY + COUNTED):
            expected = parse(whole)[:3]
            for cut in range(1, len(whole)):
                self.assertEqual(parse(whole[:cut], whole[cut:])[:3], expected, (whole, cut))
            self.assertEqual(parse(*(whole[at : at + 1] for at in range(len(whole))))[:3], expected)

    def test_interim_responses_are_skipped(self) -> None:
        head, body, _, _ = parse(EARLY + COUNTED)
        self.assertEqual((head.status, body), (200, b"hello"))
        self.assertNotIn(b"Link", dict(head.fields))

    def test_a_body_without_a_length_ends_with_the_connection(self) -> None:
        head, body, end, parser = parse(b"HTTP/1.0 200\r\n\r\nab", b"cd", close=True)
        self.assertEqual((head.minor, head.reason, head.length), (0, b"", None))
        self.assertEqual((body, end), (b"abcd", ReceivedEnd(())))
        self.assertFalse(parser.persistent)

    def test_some_responses_have_no_body_whatever_they_declare(self) -> None:
        for method, status in ((b"HEAD", b"200"), (b"GET", b"304")):
            head, body, end, parser = parse(
                b"HTTP/1.1 %s X\r\nContent-Length: 9\r\n\r\n" % status, method=method
            )
            self.assertEqual((head.length, head.declared, body), (0, 9, b""))
            self.assertEqual((end, parser.persistent), (ReceivedEnd(()), True))
        head, _, end, _ = parse(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual((head.length, end), (0, ReceivedEnd(())))
        head, _, end, _ = parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", method=b"HEAD")
        self.assertEqual((head.declared, end), (None, ReceivedEnd(())))

    def test_what_a_recipient_may_mend_is_mended(self) -> None:
        head, body, _, _ = parse(b"HTTP/1.1 200 OK\nA: 1\n\t2\n 3\nB : x\xe9\nContent-Length: 1\n\n!")
        self.assertEqual(head.fields[:2], ((b"A", b"1 2 3"), (b"B", b"x\xe9")))
        self.assertEqual(body, b"!")

    def test_the_connection_is_kept_only_where_both_sides_can_tell_the_end(self) -> None:
        for response, kept in (
            (COUNTED, True),
            (CHUNKED, True),
            (COUNTED + b"HTTP/1.1 200 surplus", False),
            (COUNTED.replace(b"X-Upper: 1", b"Connection: x, Close"), False),
            (COUNTED.replace(b"1.1", b"1.0"), False),
            (COUNTED.replace(b"1.1", b"1.0").replace(b"X-Upper: 1", b"Connection: keep-alive"), True),
        ):
            self.assertEqual(parse(response)[3].persistent, kept, response)


class BadResponseTests(SynchronousTestCase):
    def refused(self, *pieces: bytes, error: str = "http_protocol_error", limit: int = 1 << 16) -> None:
        raised = self.assertRaises(ServiceError, parse, *pieces, limit=limit)
        self.assertEqual(raised.problem.proxy_error, error, pieces)
        self.assertEqual(raised.problem.status, 502)

    def test_what_is_not_http_is_refused(self) -> None:
        for start in (
            b"hello\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 200 O\x00K\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
        ):
            self.refused(start)

    def test_fields_that_could_be_read_in_two_ways_are_refused(self) -> None:
        for field in (
            b"no colon",
            b": no name",
            b"two words: x",
            b"Nul: a\x00b",
            b"Cr: a\rb",
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: +5",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        ):
            self.refused(b"HTTP/1.1 200 OK\r\n%s\r\n\r\nhello" % field)
        self.refused(b"HTTP/1.1 200 OK\r\n folded: first\r\n\r\n")
        self.refused(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.refused(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")

    def test_bad_chunks_are_refused(self) -> None:
        for chunks in (
            b"x\r\nhello\r\n",
            b"-5\r\nhello\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"\r\n",
            b"1" * 17 + b"\r\n",
            b"1;" + b"x" * 5000,
            b"0\r\nbad trailer\r\n\r\n",
        ):
            self.refused(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)

    def test_an_unasked_upgrade_is_refused(self) -> None:
        self.refused(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", error="http_upgrade_failed")

    def test_behind_an_upgrade_that_was_asked_for_all_is_passed_on(self) -> None:
        switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\n"
        whole = EARLY + switching + b"HTTP/1.1 200 OK\r\n\r\n"
        for cut in range(1, len(whole)):
            parser = ResponseParser(b"GET", upgrade=True)
            events = parser.receive(whole[:cut]) + parser.receive(whole[cut:])
            head = events.pop(0)
            assert isinstance(head, ReceivedHead)
            self.assertEqual((head.status, head.length, head.fields[0]), (101, None, (b"Upgrade", b"x")))
            self.assertEqual(
                b"".join(one for one in events if isinstance(one, bytes)), b"HTTP/1.1 200 OK\r\n\r\n"
            )
            self.assertFalse(parser.done or parser.persistent)

    def test_interim_responses_without_an_end_are_refused(self) -> None:
        self.refused(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

    def test_what_speaks_another_protocol_is_told_by_its_first_bytes(self) -> None:
        for said in (b"SSH-2.0-OpenSSH_9.2\r\n", b"hello there\n", b"\x15\x03\x01\x00\x02", b"+OK\r\n", b"I"):
            self.refused(said)
        self.refused(b"HTT", b"X")
        self.refused(b"HTTP/2 200\r\n")
        self.refused(b"HTTP/1.1 100 Continue\r\n\r\n", b"220 ")

    def test_sections_have_a_limit(self) -> None:
        long = b"X: " + b"x" * 1000 + b"\r\n"
        head = b"HTTP/1.1 200 OK\r\n"
        self.refused(head + long + b"\r\n", error="http_response_header_section_size", limit=1000)
        self.refused(head, long, error="http_response_header_section_size", limit=1000)
        self.assertEqual(parse(head, long, b"Content-Length: 0\r\n\r\n", limit=1060)[0].status, 200)
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
        self.refused(chunked, long, error="http_response_trailer_section_size", limit=1000)

    def test_a_response_that_ends_too_early_is_told_from_none(self) -> None:
        for part, error in (
            (b"", "connection_terminated"),
            (b"HTTP/1.1 200", "http_response_incomplete"),
            (EARLY, "http_response_incomplete"),
            (COUNTED[:-1], "http_response_incomplete"),
            (CHUNKED[:-1], "http_response_incomplete"),
        ):
            parser = ResponseParser(b"GET")
            if part:
                parser.receive(part)
            raised = self.assertRaises(ServiceError, parser.finish)
            self.assertEqual(raised.problem.proxy_error, error)
