"""Large bodies cross in either direction in little memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection

from tests.integration.gateway import GatewayCase
from tests.integration.services import Comparison, bulk, start_service
from tests.torture.figures import SOAK

MEGABYTES = 1024 if SOAK > 1 else 128
SIZE = MEGABYTES << 20
MEMORY = 150_000_000
PATIENCE = 300.0


class BulkTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.pair()
        port = start_service(self.gateway, "bulk")
        self.gateway.route("bulk", f"http://127.0.0.1:{port}/")
        for node in self.gateway.nodes:
            node.configure(deadline=PATIENCE)
        self.gateway.start()

    def report(self, what: str, begun: float) -> None:
        """Say how fast it was, and hold each node to its memory."""
        seconds = time.monotonic() - begun
        peaks = {node.name: node.peak_memory() for node in self.gateway.nodes}
        shown = ", ".join(f"{name} {peak / 1e6:.0f} MB" for name, peak in peaks.items())
        print(f"{what} of {MEGABYTES} MiB: {SIZE / 1e6 / seconds:.0f} MB/s; peak: {shown}", file=sys.stderr)
        for name, peak in peaks.items():
            self.assertLess(peak, MEMORY, name)

    def test_a_response_of_any_size_arrives_as_it_was_sent_in_little_memory(self) -> None:
        begun = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self.gateway.near.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request("GET", f"/svc/bulk/?seed=7&size={SIZE}")
        response = connection.getresponse()
        self.assertEqual((response.status, response.getheader("Content-Length")), (200, str(SIZE)))
        comparison = Comparison(7, SIZE)
        while piece := response.read1(1 << 20):
            comparison.take(piece)
        self.assertTrue(comparison.same, comparison.size)
        self.report("response", begun)

    def test_an_upload_of_any_size_arrives_as_it_was_sent_in_little_memory(self) -> None:
        def body() -> Iterator[bytes]:
            yield from bulk(8, SIZE)

        begun = time.monotonic()
        answer = self.gateway.near.call(
            "POST",
            f"/svc/bulk/?seed=8&size={SIZE}",
            body(),
            headers={"Content-Length": str(SIZE)},
            patience=PATIENCE,
        )
        self.assertEqual((answer.status, answer.body), (200, b"same"))
        self.report("upload", begun)
