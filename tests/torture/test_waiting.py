"""Calls that nobody waits for, through real processes: none that was accepted is lost, whoever is killed."""

from __future__ import annotations

import threading
import time
from http.client import HTTPException
from random import Random

from tests.integration.gateway import Gateway
from tests.integration.services import CountingServer, content, digest
from tests.torture.accepted import ASYNC, AcceptedCase
from tests.torture.figures import SOAK

CALLS = 12 if SOAK == 1 else 60 * SOAK
KILLS = 2 if SOAK == 1 else 12 * SOAK
SEED = 977
SIZES = (0, 10, 5000, 100_000, 1 << 20)


class WaitingTests(AcceptedCase):
    def gateway(self) -> tuple[Gateway, CountingServer]:
        gateway, service = self.pair(), CountingServer()
        self.addCleanup(service.close)
        gateway.route("count", service.url)
        return gateway, service

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
