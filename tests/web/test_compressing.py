"""Bodies are marked as worth compressing by what their fields say of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.compression import Compressor, not_packed
from hoft.web.crossing.compressing import compressible
from hoft.web.crossing.exchange import (
    MAX_BODY,
    WORTHWHILE,
    Kind,
    PartWriter,
    Side,
    decode_part,
    exchange_of,
)
from hoft.web.http.heads import ResponseHead


class Fields(SynchronousTestCase):
    def test_types(self) -> None:
        """Texts and what is written like texts, whatever its parameters and letters."""
        for kind, wanted in (
            (b"text/html; charset=utf-8", True),
            (b"TEXT/CSV", True),
            (b"application/json", True),
            (b"application/problem+json", True),
            (b"application/x-ndjson ; a=b", True),
            (b"image/svg+xml", True),
            (b"application/x-www-form-urlencoded", True),
            (b"application/octet-stream", False),
            (b"application/zip", False),
            (b"image/png", False),
            (b"video/mp4", False),
            (b"text/", False),
            (b"", False),
        ):
            self.assertIs(compressible([(b"Content-Type", kind)]), wanted, kind)

    def test_without_a_type(self) -> None:
        """Nobody knows what it is."""
        self.assertFalse(compressible([]))
        self.assertFalse(compressible([(b"Accept-Type_", b"text/html"), (b"Server", b"text/html")]))

    def test_encoded(self) -> None:
        """What the service has compressed is left alone."""
        kind = (b"content-type", b"text/html")
        self.assertFalse(compressible([kind, (b"Content-Encoding", b"gzip")]))
        self.assertFalse(compressible([(b"content-encoding", b"identity, br"), kind]))
        self.assertTrue(compressible([(b"content-encoding", b"identity"), kind]))


class Parts(SynchronousTestCase):
    """Heads stand beside secrets: they, and what has one in it, are never marked."""

    def marked(self, kind: bytes, size: int) -> dict[Kind, int | None]:
        writer = PartWriter(bytes(16), Side.EGRESS)
        payloads = writer.head(ResponseHead(200, b"OK", ((b"Content-Type", kind),), size))
        payloads += writer.data(b"a" * size)
        payloads += writer.end([(b"Trailer-Field", b"value")] if size > MAX_BODY else [])
        return {decode_part(payload, Side.EGRESS).kind: writer.compress_from(payload) for payload in payloads}

    def test_text(self) -> None:
        """The body's own parts, and nothing else."""
        marked = self.marked(b"text/plain", 3 * MAX_BODY)
        self.assertEqual({kind for kind, start in marked.items() if start is not None}, {Kind.DATA})
        self.assertEqual({*marked}, {Kind.HEAD, Kind.DATA, Kind.TRAILERS, Kind.END})

    def test_compressed(self) -> None:
        """Of a part nothing but what it has of the body: should it be damaged, it still tells whose it is."""
        id = bytes(range(16))
        writer = PartWriter(id, Side.INGRESS)
        writer.head(ResponseHead(200, b"OK", ((b"Content-Type", b"text/plain"),), MAX_BODY))
        [_, payload] = writer.data(b"a" * MAX_BODY)
        start = writer.compress_from(payload)
        assert start is not None
        self.assertEqual(payload[start:], b"a" * MAX_BODY)
        packed = Compressor().pack(payload, start)
        assert packed is not None
        self.assertEqual(exchange_of(not_packed(packed)), id)

    def test_together(self) -> None:
        """Of a message in one part exactly the body, if that is long enough."""
        for size in (WORTHWHILE, 30_000):
            writer = PartWriter(bytes(16), Side.EGRESS)
            writer.head(ResponseHead(200, b"OK", ((b"Content-Type", b"text/plain"),), size))
            [payload] = [*writer.data(b"a" * size), *writer.end()]
            start = writer.compress_from(payload)
            assert start is not None
            self.assertEqual(payload[start:], b"a" * size)
        for size in (0, 2000, WORTHWHILE - 1):
            self.assertEqual(self.marked(b"text/plain", size), {Kind.MESSAGE: None})
        self.assertEqual(self.marked(b"image/png", 30_000), {Kind.MESSAGE: None})

    def test_other_types(self) -> None:
        """Nothing of a picture."""
        self.assertEqual({*self.marked(b"image/png", 3 * MAX_BODY).values()}, {None})
