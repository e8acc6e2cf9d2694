"""Calls that were accepted with 202, as those see them who ask what became of them."""

from __future__ import annotations

from http.client import HTTPException
from typing import Any

from tests.integration.callers import Answer
from tests.integration.gateway import GatewayCase, Node
from tests.integration.processes import wait_until

ASYNC = {"Prefer": "respond-async"}
LAST = ("done", "failed", "cancelled", "expired")


class AcceptedCase(GatewayCase):
    """Asks nodes, also while they are being killed."""

    def settled(self, node: Node, where: str) -> dict[str, Any]:
        """Its status at the end."""

        def last() -> Any:
            try:
                answer = node.call("GET", where)
            except (OSError, HTTPException):
                return None
            self.assertEqual(answer.status, 200, answer)
            return answer.json() if answer.json()["state"] in LAST else None

        found: dict[str, Any] = wait_until(last, f"{where} is over")
        return found

    def result(self, node: Node, where: str) -> Answer:
        """What its caller gets."""
        return node.call("GET", f"{where}/result?wait=20", patience=30)
