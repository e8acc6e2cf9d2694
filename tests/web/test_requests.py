"""
What a caller may send, and what is refused, byte for byte; and the same judged by h11.
"""

from __future__ import annotations

from random import Random
from typing import Any

import h11
from twisted.trial.unittest import SynchronousTestCase

from hoft.web.http.fields import Authority
from hoft.web.http.heads import Field
from hoft.web.http.problems import Refused
from hoft.web.http.requests import MAX_CHUNK_LINE, MAX_FIELDS, MAX_HEAD, Request, RequestParser

Seen = tuple[Request, bytes, list[Field]]


def parse(data: bytes, step: int | None = None) -> list[Seen]:
    """All complete requests in C{data}, fed in pieces of C{step} bytes."""
    parser = RequestParser()
    step = step or max(1, len(data))
    seen: list[Seen] = []
    request: Request | None = None
    body = b""
    for start in range(0, len(data), step):
        parser.receive(data[start : start + step])
        while True:
            if request is None:
                request = parser.request()
                if request is None:
                    break
                body = b""
            body += parser.body()
            if not parser.ended:
                break
            seen.append((request, body, parser.trailers))
            request = None
    return seen


def refused(data: bytes) -> int | None:
    """The status with which C{data} is refused, the same whatever pieces it comes in."""
    found: set[int | None] = set()
    for step in (None, 1, 3) if len(data) < 10_000 else (None, 997):
        try:
            parse(data, step)
            found.add(None)
        except Refused as error:
            found.add(error.problem.status)
    if len(found) > 1:
        raise AssertionError(f"{data[:200]!r}: {found}")
    return found.pop()


HEAD = b"POST /a HTTP/1.1\r\nHost: b\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class AcceptedTests(SynchronousTestCase):
    def test_a_request_in_whatever_pieces(self) -> None:
        data = (
            b"\r\nGET /a?b%20c HTTP/1.1\r\nhOST: Example:81\r\nX:\t padded \t\r\nX: again\r\nEmpty:\r\n\r\n"
            b"PUT /d HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\nhello"
            b"POST /e HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: Chunked\r\n\r\n"
            b'3;a="b"\r\nabc\r\n00A; x\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n'
            b"GET /f HTTP/1.1\r\nHost: b\r\n\r\n"
        )
        for step in (None, 1, 2, 7, 64):
            seen = parse(data, step)
            self.assertEqual([request.target for request, _, _ in seen], [b"/a?b%20c", b"/d", b"/e", b"/f"])
            self.assertEqual([body for _, body, _ in seen], [b"", b"hello", b"abc0123456789", b""])
            self.assertEqual([request.length for request, _, _ in seen], [0, 5, None, 0])
            first = seen[0][0]
            self.assertEqual(
                first.fields, [(b"hOST", b"Example:81"), (b"X", b"padded"), (b"X", b"again"), (b"Empty", b"")]
            )
            self.assertEqual(first.host, Authority("example", 81))
            self.assertEqual(seen[2][2], [(b"X-Sum", b"1"), (b"X-Sum", b"2")])
            self.assertEqual(seen[3][2], [])

    def test_whether_the_connection_is_kept(self) -> None:
        for version, field, kept in (
            (b"1.1", b"", True),
            (b"1.1", b"Connection: x, Close\r\n", False),
            (b"1.0", b"", False),
            (b"1.0", b"Connection: Keep-Alive\r\n", True),
            (b"1.9", b"", True),
        ):
            ((request, _, _),) = parse(b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + field + b"\r\n")
            self.assertEqual(request.persistent, kept, (version, field))

    def test_callers_of_http_1_0_need_no_host(self) -> None:
        ((request, _, _),) = parse(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIsNone(request.host)
        self.assertEqual(request.version, (1, 0))

    def test_continue_is_awaited_only_before_a_body(self) -> None:
        for fields, awaited in (
            (b"Content-Length: 1\r\nExpect: 100-Continue\r\n", True),
            (b"Expect: 100-continue\r\n", False),
            (b"Content-Length: 1\r\n", False),
        ):
            parser = RequestParser()
            parser.receive(HEAD + fields + b"\r\n")
            request = parser.request()
            assert request is not None
            self.assertEqual(request.expects_continue, awaited)

    def test_nothing_is_held_that_was_taken(self) -> None:
        parser = RequestParser()
        parser.receive(HEAD + b"Content-Length: 1000000\r\n\r\n")
        self.assertIsNotNone(parser.request())
        for _ in range(10):
            parser.receive(bytes(100_000))
            self.assertEqual(len(parser.body()), 100_000)
            self.assertEqual(parser.held, 0)
        self.assertTrue(parser.ended)

    def test_a_wish_for_another_protocol_counts_where_connection_names_it(self) -> None:
        for fields, wished in (
            (b"Connection: keep-alive, UPGRADE\r\nUpgrade: a/1, WebSocket\r\n", [b"a/1", b"websocket"]),
            (b"Upgrade: websocket\r\n", []),
            (b"Connection: close\r\nUpgrade: websocket\r\n", []),
            (b"Connection: upgrade\r\n", []),
        ):
            ((request, _, _),) = parse(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
            self.assertEqual(list(request.upgrade), wished, fields)


class RefusedTests(SynchronousTestCase):
    """One line of RFC 9110 or 9112 each."""

    def check(self, status: int, *requests: bytes) -> None:
        for data in requests:
            self.assertEqual(refused(data), status, data[:200])

    def test_request_lines(self) -> None:
        end = b"\r\nHost: a\r\n\r\n"
        self.check(
            400,
            b"GET /" + end,
            b"GET  / HTTP/1.1" + end,
            b"GET / HTTP/1.1 " + end,
            b" GET / HTTP/1.1" + end,
            b"GET / http/1.1" + end,
            b"GET / HTTP/1.10" + end,
            b"GE(T / HTTP/1.1" + end,
            b"GET /\x00 HTTP/1.1" + end,
            b"GET /\xe4 HTTP/1.1" + end,
            b"GET /\t HTTP/1.1" + end,
            b"GET /a b HTTP/1.1" + end,
            b"\x16\x03\x01\x02\x00\x01" + end,
        )
        self.check(505, b"PRI * HTTP/2.0" + end, b"GET / HTTP/0.9" + end)

    def test_what_is_no_request_is_refused_before_its_end(self) -> None:
        """Who speaks TLS or SSH to us waits for our answer."""
        for said in (b"\x16", b"\x16\x03\x01", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00", b"\r\n\r\n\x80", b"\rG"):
            with self.assertRaises(Refused) as caught:
                piecewise(said)
            self.assertEqual(caught.exception.problem.status, 400)
            self.assertEqual("TLS" in caught.exception.problem.detail, said[0] == 0x16)
        for said in (b"", b"\r", b"\r\n\r", b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nno field yet"):
            piecewise(said)

    def test_line_ends(self) -> None:
        self.check(
            400,
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
            b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        )

    def test_fields(self) -> None:
        for line in (
            b"X : y",
            b" X: y",
            b"X: a\r\n folded",
            b"X: a\r\n\tfolded",
            b"X",
            b": y",
            b"X\x00: y",
            b"X: a\x00b",
            b"X: a\x0bb",
            b"X: a\x7fb",
            b"X: a\rb",
            b"X(: y",
            b"X\xe4: y",
        ):
            self.check(400, b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n")

    def test_hosts(self) -> None:
        start = b"GET / HTTP/1.1\r\n"
        self.check(
            400,
            start + b"\r\n",
            start + b"X: y\r\n\r\n",
            start + b"Host: a\r\nHost: a\r\n\r\n",
            start + b"Host: a\r\nhost: b\r\n\r\n",
            start + b"Host: a, b\r\n\r\n",
            start + b"Host: a b\r\n\r\n",
            start + b"Host: u@a\r\n\r\n",
            start + b"Host: a/b\r\n\r\n",
            start + b"Host: a:b\r\n\r\n",
            start + b"Host: a:70000\r\n\r\n",
            start + b"Host: [::1\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        )

    def test_where_a_body_ends(self) -> None:
        for fields in (
            b"Content-Length: 1\r\nContent-Length: 2\r\n",
            b"Content-Length: 1, 1\r\n",
            b"Content-Length: +1\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 0x1\r\n",
            b"Content-Length: 1 1\r\n",
            b"Content-Length: \r\n",
            b"Content-Length: 99999999999999999999\r\n",
            b"Content-Length: \xb2\r\n",
            b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            b"Transfer-Encoding: chunked, identity\r\n",
            b"Transfer-Encoding: identity\r\n",
            b"Transfer-Encoding: xchunked\r\n",
        ):
            self.check(400, HEAD + fields + b"\r\na")
        self.check(400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        self.check(501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n")

    def test_chunks(self) -> None:
        for chunks in (
            b"x\r\n",
            b"\r\n",
            b"-1\r\na\r\n",
            b"0x1\r\na\r\n",
            b"1\na\r\n0\r\n\r\n",
            b"1 \r\na\r\n",
            b"1 ;x\r\na\r\n",
            b" 1\r\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n\r\n",
            b"1;\x00\r\na\r\n",
            b"1;a\rb\r\na\r\n",
            b"10000000000000000\r\n",
            b"1;" + b"a" * MAX_CHUNK_LINE + b"\r\na\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\nX: y\r\n z\r\n\r\n",
            b"0\r\nContent-Length: 3\r\n\r\n",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ):
            self.check(400, CHUNKED + chunks)

    def test_expectations(self) -> None:
        self.check(417, HEAD + b"Content-Length: 1\r\nExpect: miracles\r\n\r\n")

    def test_sizes(self) -> None:
        self.check(414, b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\n")
        self.check(431, HEAD + b"X: " + b"a" * MAX_HEAD + b"\r\n\r\n")
        self.check(431, HEAD + b"X: y\r\n" * MAX_FIELDS + b"\r\n")
        self.check(431, CHUNKED + b"0\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n")
        self.check(431, CHUNKED + b"0\r\n" + b"X: y\r\n" * (MAX_FIELDS + 1) + b"\r\n")


def piecewise(data: bytes) -> None:
    """
    What comes byte by byte.

    @raise Refused:
    """
    parser = RequestParser()
    for at in range(len(data)):
        parser.receive(data[at : at + 1])
        if parser.request() is not None:
            raise AssertionError("that was a request")


def by_h11(data: bytes) -> list[tuple[bytes, bytes, bytes] | None]:
    """
    Method, target and body of each request that h11 finds before it gives up;
    C{None} at last where it gives up at an empty line, which RFC 9112 2.2 has us skip.
    """
    seen: list[tuple[bytes, bytes, bytes] | None] = []
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request: Any = None
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            return [*seen, None] if "no request line" in str(error) else seen
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            seen.append((request.method, request.target, body))
            connection.send(h11.Response(status_code=200, headers=[(b"Content-Length", b"0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return seen
            connection.start_next_cycle()
        else:
            return seen


class AgainstAnotherParserTests(SynchronousTestCase):
    HEADS = (b"GET /a HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\nhost: b:80\r\nX: y z\r\n")
    BODIES = (
        b"\r\n",
        b"Content-Length: 0\r\n\r\n",
        b"Content-Length: 3\r\n\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n3;x=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
    )
    PIECES = (
        *(bytes([byte]) for byte in b"\r\n\t \0:,;0123aG/\xff"),
        b"\r\n",
        b"\r\n ",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: c\r\n",
        b"0\r\n\r\n",
    )

    def test_whatever_we_take_for_a_request_h11_takes_for_the_same(self) -> None:
        random = Random(2677)
        complete = broken = 0
        for _ in range(2500):
            data = b"".join(
                random.choice(self.HEADS) + random.choice(self.BODIES) for _ in range(random.randint(1, 3))
            )
            for _ in range(random.choice((0, 1, 1, 2))):
                at = random.randrange(len(data))
                data = data[:at] + random.choice(self.PIECES) + data[at + random.choice((0, 1, 2)) :]
            try:
                seen = parse(data)
            except Refused:
                broken += 1
                continue
            ours = [(request.method, request.target, body) for request, body, _ in seen]
            theirs = by_h11(data)
            if None in theirs:
                ours = ours[: theirs.index(None)]
            self.assertEqual(ours, theirs[: len(ours)], data)
            complete += len(ours)
        self.assertGreater(complete, 1500)
        self.assertGreater(broken, 800)
