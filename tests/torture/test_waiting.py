"""Calls that nobody waits for, through real processes: none that was accepted is lost, whoever is killed."""

from __future__ import annotations

import os
import socket
import threading
import time
from http.client import HTTPException
from random import Random
from typing import Any

from tests.integration.callers import Answer
from tests.integration.gateway import Gateway, GatewayCase, Node
from tests.integration.processes import wait_until
from tests.integration.services import CountingServer, SocketService, content, digest, respond

SOAK = int(os.environ.get("HOFT_SOAK", "1"))
CALLS = 12 if SOAK == 1 else 60 * SOAK
KILLS = 2 if SOAK == 1 else 12 * SOAK
SEED = 977
SIZES = (0, 10, 5000, 100_000, 1 << 20)
ASYNC = {"Prefer": "respond-async"}
LAST = ("done", "failed", "cancelled", "expired")


class WaitingTests(GatewayCase):
    def gateway(self) -> tuple[Gateway, CountingServer]:
        gateway, service = self.pair(), CountingServer()
        self.addCleanup(service.close)
        gateway.route("count", service.url)
        return gateway, service

    def submit(self, node: Node, size: int, body: bytes | None = None, **headers: str) -> str:
        """The status URL of a call that was accepted."""
        method = "GET" if body is None else "POST"
        answer = node.call(method, f"/svc/count/{size}", body, headers={**ASYNC, **headers})
        self.assertEqual(answer.status, 202, answer)
        return str(answer.json()["status_url"])

    def settled(self, node: Node, where: str) -> dict[str, Any]:
        """Its status at the end."""

        def last() -> Any:
            try:
                answer = node.call("GET", where)
            except (OSError, HTTPException):
                return None
            self.assertEqual(answer.status, 200, answer)
            return answer.json() if answer.json()["state"] in LAST else None

        found: dict[str, Any] = wait_until(last, f"{where} is done")
        return found

    def result(self, node: Node, where: str) -> Answer:
        return node.call("GET", f"{where}/result?wait=20", patience=30)

    def test_near_is_killed_at_each_stage(self) -> None:
        """After the 202 with the peer away, while the response comes, and when all is there."""
        gateway, service = self.gateway()
        near, far = gateway.near, gateway.far
        near.start()
        where = self.submit(near, 1 << 20, b"order", **{"X-Id": "one"})
        near.kill()
        near.start()
        self.assertIn(near.call("GET", where).json()["state"], ("accepted", "acked"))
        far.start()
        wait_until(lambda: service.arrivals["one"], "the service has it")
        near.kill()
        near.start()
        self.assertEqual(self.settled(near, where)["state"], "done")
        near.kill()
        near.start()
        for _ in range(2):
            answer = self.result(near, where)
            self.assertEqual((answer.status, answer.body), (200, digest(b"order")))
        self.assertIn("executing", near.call("GET", where).json()["stages"])
        self.assertEqual(service.arrivals["one"], 1)

    def test_far_is_killed_while_the_service_works(self) -> None:
        """What may be made again is; of what may not the outcome is unknown, and it is not."""
        gateway = self.pair()
        answering = threading.Event()

        def behaviour(connection: socket.socket, head: bytes) -> None:
            answering.wait(30)
            respond(connection)

        service = SocketService(behaviour)
        self.addCleanup(service.close)
        self.addCleanup(answering.set)
        gateway.route("count", service.url)
        gateway.start()
        got, posted = self.submit(gateway.near, 0), self.submit(gateway.near, 0, b"order")
        wait_until(lambda: len(service.heads) == 2, "the service works on both")
        gateway.far.kill()
        answering.set()
        gateway.far.start()
        self.assertEqual(self.settled(gateway.near, got)["response_status"], 200)
        self.assertEqual(self.settled(gateway.near, posted)["response_status"], 502)
        self.assertEqual(self.result(gateway.near, posted).kind, "outcome-unknown")
        methods = sorted(head.partition(b" ")[0] for head in service.heads)
        self.assertEqual(methods, [b"GET", b"GET", b"POST"])

    def test_no_accepted_call_is_lost_while_either_node_is_killed_again_and_again(self) -> None:
        gateway, service = self.gateway()
        gateway.start()
        near = gateway.near
        accepted: dict[str, tuple[str, bytes]] = {}
        chance = Random(SEED)
        stop = threading.Event()

        def calls() -> None:
            for number in range(CALLS):
                size, id = chance.choice(SIZES), f"call-{number}"
                # One with a key is brought until it is known to be accepted.
                posts, keyed = number % 2 == 0, number % 4 == 0
                body = chance.randbytes(size) if posts else None
                headers = {**ASYNC, "X-Id": id} | ({"Idempotency-Key": id} if keyed else {})
                while not stop.is_set():
                    try:
                        answer = near.call(
                            "POST" if posts else "GET", f"/svc/count/{size}", body, headers=headers
                        )
                    except (OSError, HTTPException):
                        time.sleep(0.05)
                        if keyed:
                            continue
                        break
                    if answer.status in (202, 409):
                        where = answer.json()["status_url"]
                        accepted[where] = (id, content(size) if body is None else digest(body))
                    break

        caller = threading.Thread(target=calls)
        caller.start()
        try:
            for turn in range(KILLS):
                time.sleep(chance.uniform(0.1, 0.6))
                node = gateway.nodes[turn % 2]
                node.kill()
                node.start()
            caller.join(60)
        finally:
            stop.set()
            caller.join()
        self.assertTrue(accepted)
        for where, (id, wanted) in accepted.items():
            status = self.settled(near, where)
            answer = self.result(near, where)
            if answer.status == 200:
                self.assertEqual(answer.body, wanted, id)
            else:
                self.assertEqual(answer.kind, "outcome-unknown", status)
            number = int(id.rpartition("-")[2])
            if number % 4 == 2:
                self.assertLessEqual(service.arrivals[id], 1, "a plain POST is not repeated")
            elif number % 4 == 0:
                self.assertGreaterEqual(service.arrivals[id], 1)
