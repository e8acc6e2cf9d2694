"""
Every endpoint of httpbin answers through two nodes as it does directly: the same status, reason,
fields in their order and spelling, and the same bytes.

Both sides of the comparison are raw sockets.  The direct request has the fields that two
nodes add (C{Via}, C{Forwarded}, C{X-Forwarded-For}), so that answers which show the
request's own fields need no mask.  What may differ is listed in L{mask}, and what must
differ, since a route moves it, in L{moved}.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TypeVar

from attrs import evolve, frozen

from tests.integration.gateway import Gateway, GatewayCase
from tests.integration.services import start_service
from tests.processes import PATIENCE
from tests.torture.figures import SOAK

CALLERS = 16
SEED = 2026

Field = tuple[bytes, bytes]
T = TypeVar("T")

# --- What is asked ----------------------------------------------------------------------

VALUES = {
    "<int:n>": ("3", "0", "1"),
    "<int:offset>": ("1",),
    "<int:numbytes>": ("70000", "1"),
    "<int:value>": ("60",),
    "<codes>": (
        "418", "200", "201", "202", "203", "204", "205", "206", "300", "301", "302", "303", "304", "305",
        "307", "308", "400", "401", "402", "403", "404", "405", "406", "407", "408", "409", "410", "411",
        "412", "413", "414", "415", "416", "417", "422", "425", "428", "429", "431", "451", "500", "501",
        "502", "503", "504", "505", "507", "511", "599", "999",
    ),
    "<delay>": ("0", "0.2"),
    "<qop>": ("auth", "auth-int"),
    "<algorithm>": ("MD5", "SHA-256", "SHA-512"),
    "<stale_after>": ("never", "1"),
    "<user>": ("me",),
    "<passwd>": ("secret",),
    "<etag>": ("tag",),
    "<name>": ("crumb",),
    "<value>": ("SGVsbG8gd29ybGQ=",),
    "<path:anything>": ("a%20b/%C3%BC;x=1//", "%7E~"),
    "<path:filename>": ("favicon.ico", "missing"),
}  # fmt: skip
"""What stands for the variable parts of httpbin's paths."""

QUERIES: dict[str, Sequence[str]] = {
    "/bytes/": ("seed=7",),
    "/stream-bytes/": ("seed=7&chunk_size=1000",),
    "/drip": ("duration=0.2&numbytes=7&delay=0", "duration=0&numbytes=1&delay=0&code=503"),
    "/range/": ("", "chunk_size=1000&duration=0"),
    "/redirect-to": (
        "url=/get",
        "url=sub/get?x=1",
        "url=http://other.example/&status_code=307",
        "url=//other.example/x&status_code=301",
    ),
    "/response-headers": ("X-One=1&X-One=2&Set-Cookie=a%3D1&Set-Cookie=b%3D2%3B+Path%3D/&Empty=", ""),
    "/cookies/set": ("one=1&two=2", ""),
    "/cookies/delete": ("one=&crumb=",),
    "/get": ("", "a=1&a=2&%C3%BC=%2F+&show_env=1"),
    "/absolute-redirect/": ("", "absolute=true"),
    "/redirect/": ("", "absolute=true"),
}
"""What follows a path that begins like this; nothing for others."""

FIELDS: dict[str, Sequence[Sequence[Field]]] = {
    "/image": [[(b"Accept", b"image/" + kind)] for kind in (b"png", b"jpeg", b"svg+xml", b"webp", b"x")],
    "/basic-auth/": ([(b"Authorization", b"Basic bWU6c2VjcmV0")], []),
    "/hidden-basic-auth/": ([(b"authorization", b"Basic bWU6c2VjcmV0")], []),
    "/bearer": ([(b"Authorization", b"Bearer token")], []),
    "/etag/": ([], [(b"If-None-Match", b'"tag"')], [(b"If-Match", b'"other"')]),
    "/cache": ([], [(b"If-None-Match", b"x")], [(b"If-Modified-Since", b"x")]),
    "/range/": ([], [(b"Range", b"bytes=2-20")], [(b"Range", b"bytes=99999999-")]),
    "/cookies": ([(b"Cookie", b"one=1; two=2"), (b"Cookie", b"three=3")],),
    "/headers": ([(b"X-Twice", b"1"), (b"x-twice", b"2"), (b"X-Empty", b""), (b"X-Raw", b"caf\xe9")], []),
}
"""Fields to send to a path that begins like this; none to others."""

BODIES = (
    (b"application/json", b'{"a": [1, "\xc3\xa9"]}'),
    (b"application/octet-stream", Random(SEED).randbytes(100_000)),
    (b"application/x-www-form-urlencoded", b"a=1&a=2&b=%C3%BC+x"),
    (
        b"multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="\xc3\xbc"\r\n\r\n\x00\r\n--x--\r\n',
    ),
    (b"text/plain; charset=utf-8", b"broken \xff\xc3("),
    (b"text/plain", b""),
)
"""Each with its type, for the methods that have one."""

READING = ("/anything", "/post", "/put", "/patch", "/delete")
"""
Endpoints that read their body.  The others' server closes with unread bytes before it, if
there are many: that resets the connection, and whoever asks it directly loses the answer.
"""

WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")


@frozen
class Request:
    """
    What is asked.

    @ivar target: as httpbin gets it.
    """

    method: str
    target: str
    fields: Sequence[Field] = ()
    body: bytes = b""

    def encode(self, target: str, host: str, more: Sequence[Field] = ()) -> bytes:
        """The request as bytes, for C{target} at C{host}."""
        fields = [(b"Host", host.encode()), (b"User-Agent", b"raw"), *self.fields, *more]
        if self.method in WITH_BODY:
            fields.append((b"Content-Length", b"%d" % len(self.body)))
        line = f"{self.method} {target} HTTP/1.1\r\n".encode()
        return line + b"".join(b"%s: %s\r\n" % pair for pair in fields) + b"\r\n" + self.body

    def __str__(self) -> str:
        return f"{self.method} {self.target} {list(self.fields)}"


def _paths(rule: str) -> list[str]:
    """What a rule of httpbin's map of URLs stands for."""
    found = [rule]
    for name, values in VALUES.items():
        if name in rule:
            found = [path.replace(name, value) for path in found for value in values]
    return found


def _of(table: dict[str, Sequence[T]], path: str, other: T) -> Sequence[T]:
    return next((some for start, some in table.items() if path.startswith(start)), (other,))


def _variants(method: str, path: str) -> Iterator[Request]:
    for query in _of(QUERIES, path, ""):
        for fields in _of(FIELDS, path, ()):
            request = Request(method, f"{path}?{query}" if query else path, fields)
            if method not in WITH_BODY:
                yield request
                continue
            for kind, body in BODIES:
                if len(body) > 1000 and not path.startswith(READING):
                    continue
                yield evolve(request, fields=(*fields, (b"Content-Type", kind)), body=body)


def all_requests() -> list[Request]:
    """
    For each endpoint of httpbin one with each of its methods, and for its first method one with
    each variant of path, query, fields and body; with C{HOFT_SOAK} each with each.
    """
    from httpbin import app

    found: list[Request] = []
    for rule in app.url_map.iter_rules():
        methods = sorted(rule.methods or (), key=("GET", *WITH_BODY, "HEAD", "OPTIONS", "TRACE").index)
        for method in methods:
            variants = [one for path in _paths(rule.rule) for one in _variants(method, path)]
            found += (
                variants if SOAK > 1 or method == methods[0] or rule.rule == "/anything" else variants[:1]
            )
    return found


# --- What comes --------------------------------------------------------------------------


@frozen
class Response:
    """What came over the socket, with its transfer coding undone."""

    status: bytes
    reason: bytes
    fields: Sequence[Field]
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> Response:
        """All that came until the other side closed; interim responses are skipped."""
        head, blank, body = data.partition(b"\r\n\r\n")
        assert blank, f"no response: {data[:300]!r}"
        line, *lines = head.split(b"\r\n")
        _, status, reason = line.split(b" ", 2)
        if status.startswith(b"1"):
            return cls.parse(body)
        pairs = (line.split(b": ", 1) if b": " in line else (line.rstrip(b":"), b"") for line in lines)
        fields = [(name, value) for name, value in pairs]
        if (b"Transfer-Encoding", b"chunked") in fields:
            body = b"".join(_chunks(body))
        return cls(status, reason, fields, body)


def _chunks(data: bytes) -> Iterator[bytes]:
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert data == b"\r\n", data[:100]
            return
        assert data[length : length + 2] == b"\r\n"
        yield data[:length]
        data = data[length + 2 :]


def ask(port: int, request: bytes) -> Response:
    """
    Send the request, then nothing more, and take all that comes: whoever half-closes is answered.
    """
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := connection.recv(1 << 18):
            pieces.append(piece)
    return Response.parse(b"".join(pieces))


# --- What may differ -----------------------------------------------------------------------

_CONNECTION = frozenset((b"connection", b"keep-alive", b"transfer-encoding"))
"""Of one connection only (RFC 9110 section 7.6.1)."""

_NONCE = re.compile(rb'(nonce|opaque)="?[0-9a-f]{20,}"?')
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")

_ID = re.compile(rb"\A[0-9a-f]{32}\Z")


def mask(request: Request, response: Response) -> Response:
    """
    Without what two direct answers to the same request may differ in, and of the connection:

     - C{Connection}, C{Keep-Alive}, C{Transfer-Encoding};
     - C{Date};
     - C{Content-Length} with status 204, where it must not be (RFC 9110 section 8.6);
     - nonces of C{/digest-auth}, and the cookie with the last of them;
     - C{ETag} and C{Last-Modified} of C{/cache}: an UUID, and the time;
     - the UUID of C{/uuid};
     - the time in the header of C{/gzip} (:rfc:`1952`);
     - the id in C{Hoft-Request-Id}, another one for each call.
    """
    path, body = request.target.partition("?")[0], response.body
    fields: list[Field] = []
    for name, value in response.fields:
        if name.lower() in _CONNECTION or (response.status == b"204" and name == b"Content-Length"):
            continue
        if name == b"Date" or (path == "/cache" and name in (b"ETag", b"Last-Modified")):
            value = b"masked"
        elif name == b"Hoft-Request-Id":
            value = _ID.sub(b"masked", value)
        elif path.startswith("/digest-auth/"):
            value = _NONCE.sub(rb"\1=masked", value)
        fields.append((name, value))
    if path == "/uuid":
        body = _UUID.sub(b"masked", body)
    elif path == "/gzip" and body:
        body = body[:4] + body[8:]
    return evolve(response, fields=fields, body=body)


ADDED = ((b"Via", b"1.0 far"), (b"Via", b"hoft/1 near"), (b"Hoft-Request-Id", b"masked"))
"""What two nodes add to each response, behind all other fields: httpbin's server speaks HTTP/1.0."""


def moved(port: int, route: bytes, response: Response) -> Response:
    """
    A direct answer as it must be seen through a route to all of httpbin: what leads
    there leads through the route, and cookies for all of it are for all of the route.
    """
    fields: list[Field] = []
    for name, value in response.fields:
        if name == b"Location":
            value = re.sub(rb"^(http://127\.0\.0\.1:%d)?(?=/[^/]|/$)" % port, route, value)
        elif name == b"Set-Cookie":
            value = value.replace(b"Path=/", b"Path=" + route)
        fields.append((name, value))
    return evolve(response, fields=fields)


# --- Tests ------------------------------------------------------------------------------------


class HttpbinTests(GatewayCase):
    def serve(self, gateway: Gateway) -> None:
        """httpbin behind the far node."""
        self.gateway = gateway
        self.port = start_service(gateway, "httpbin")
        self.there = f"127.0.0.1:{self.port}"
        gateway.route("bin", f"http://{self.there}/")

    def directly(self, request: Request, host: str | None) -> Response:
        """The answer to it as the far node would ask for it, for a caller who said C{Host: host}."""
        forwarded = b"for=127.0.0.1;proto=http" + (f';host="{host}"'.encode() if host else b"")
        added = [
            (b"Forwarded", forwarded),
            (b"X-Forwarded-For", b"127.0.0.1"),
            (b"Via", b"1.1 near"),
            (b"Via", b"hoft/1 far"),
        ]
        given = ask(self.port, request.encode(request.target, self.there, added))
        # Its server forgets that HEAD has none where it answers for the application.
        return evolve(given, body=b"") if request.method == "HEAD" else given

    def by_route(self, request: Request) -> tuple[Response, Response]:
        """What comes through the route, and what should."""
        given = ask(self.gateway.near.port, request.encode(f"/svc/bin{request.target}", "gateway"))
        return given, moved(self.port, b"/svc/bin", self.directly(request, "gateway"))

    def by_proxy(self, request: Request) -> tuple[Response, Response]:
        """What comes where the node is used as a proxy, and what should: nothing is moved."""
        given = ask(
            self.gateway.near.port, request.encode(f"http://{self.there}{request.target}", self.there)
        )
        return given, self.directly(request, None)

    def compare(self, requests: Sequence[Request]) -> None:
        """Make them all, many at once, each in turn through the route and through the proxy."""
        ways: list[Callable[[Request], tuple[Response, Response]]] = [self.by_route, self.by_proxy]
        wrong: list[str] = []

        def one(number: int) -> None:
            request = requests[number]
            try:
                given, wanted = ways[number % 2](request)
                wanted = evolve(wanted, fields=(*wanted.fields, *ADDED))
                given, wanted = mask(request, given), mask(request, wanted)
                for name in ("status", "reason", "fields", "body"):
                    ours, theirs = getattr(given, name), getattr(wanted, name)
                    if ours != theirs:
                        wrong.append(f"{request}: {name} {repr(ours)[:1500]} is not {repr(theirs)[:1500]}")
                        break
            except (OSError, ValueError, AssertionError) as error:
                wrong.append(f"{request}: {type(error).__name__}: {error}")

        begun = time.monotonic()
        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(one, range(len(requests))))
        seconds = time.monotonic() - begun
        print(f"{len(requests)} requests compared in {seconds:.1f} s", file=sys.stderr)
        self.assertEqual(wrong, [], f"{len(wrong)} of {len(requests)}:\n" + "\n".join(wrong[:40]))

    def test_every_endpoint_answers_as_it_does_directly(self) -> None:
        self.serve(self.pair())
        self.gateway.start()
        self.compare(all_requests())
        self.gateway.await_quiet()

    def test_also_where_two_files_of_ten_are_cut(self) -> None:
        self.serve(
            self.keep(Gateway.with_mirrors(self.new_folder(), "--truncate", 0.2, "--every", 0.02, seed=SEED))
        )
        self.gateway.start()
        requests = all_requests()
        if SOAK < 2:
            requests = Random(SEED).sample(requests, 60)
        self.compare(requests)
        self.gateway.await_quiet()
        counts = self.gateway.stop_mirrors()
        self.assertGreater(counts["cut"], counts["files"] / 10)
