"""A route with a cache, through real processes: the near node crashes, the far one is away."""

from __future__ import annotations

import json

from tests.integration.gateway import GatewayCase, Node, settle
from tests.integration.services import CountingServer, content


class CacheTests(GatewayCase):
    def get(self, node: Node, deadline: str = "20") -> tuple[int, bytes, str]:
        """Status, body and Cache-Status of a response."""
        answer = node.call("GET", "/svc/count/70000", headers={"Hoft-Deadline": deadline})
        told = [value for name, value in answer.headers if name == "Cache-Status"]
        return answer.status, answer.body, "".join(told)

    def test_what_is_stored_outlives_the_near_node_and_stands_in_for_the_far_one(self) -> None:
        gateway, service = self.pair(), CountingServer()
        self.addCleanup(service.close)
        near = gateway.near
        gateway.route("count", service.url)
        text = near.file.read_text()
        near.file.write_text(f"{text}\n[routes.count.cache]\nttl = 3600\nstale_if_error = 3600\n")
        gateway.start()
        status, body, told = self.get(near)
        self.assertEqual((status, body), (200, content(70_000)))
        self.assertIn("stored", told)
        near.await_status(lambda now: now["ingress"]["cache_stored"], "it is stored")
        near.kill()
        near.start()
        status, body, told = self.get(near)
        self.assertEqual((status, body), (200, content(70_000)))
        self.assertIn("hit", told)
        gateway.far.stop()
        near.file.write_text(near.file.read_text().replace("ttl = 3600", "ttl = 0"))
        near.await_reload()
        status, body, told = self.get(near, deadline="0.5")
        self.assertEqual((status, body), (200, content(70_000)))
        self.assertIn("detail=stale-if-error", told)
        self.assertEqual(json.loads(settle("purge", near.folder, "count", "--json")), {"purged": 1})
        self.assertEqual(self.get(near, deadline="0.5")[0], 504)
