"""Bodies are marked as worth compressing by what their fields say of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.web.compressing import compressible
from hoft.web.exchange import MAX_BODY, Kind, PartWriter, Side, decode_part
from hoft.web.heads import ResponseHead


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

    def marked(self, kind: bytes, size: int) -> dict[Kind, bool]:
        writer = PartWriter(bytes(16), Side.EGRESS)
        payloads = writer.head(ResponseHead(200, b"OK", ((b"Content-Type", kind),), size))
        payloads += writer.data(b"a" * size)
        payloads += writer.end([(b"Trailer-Field", b"value")] if size > MAX_BODY else [])
        return {decode_part(payload, Side.EGRESS).kind: writer.compressible(payload) for payload in payloads}

    def test_text(self) -> None:
        """The body's own parts, and nothing else."""
        self.assertEqual(
            self.marked(b"text/plain", 3 * MAX_BODY),
            {Kind.HEAD: False, Kind.DATA: True, Kind.TRAILERS: False, Kind.END: False},
        )

    def test_small(self) -> None:
        """A message in one part has its head in it."""
        self.assertEqual(self.marked(b"text/plain", 2000), {Kind.MESSAGE: False})

    def test_other_types(self) -> None:
        """Nothing of a picture."""
        self.assertNotIn(True, self.marked(b"image/png", 3 * MAX_BODY).values())
