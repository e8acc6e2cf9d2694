"""Nodes are killed while calls are under way: nothing is done twice, and nobody waits for ever."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from attrs import Factory, define

from tests.integration.gateway import Gateway, GatewayCase, Node
from tests.integration.processes import wait_until
from tests.integration.services import CountingServer, content, digest
from tests.torture.figures import KILLS, KILLS_MIRRORED, SOAK
from tests.torture.progress import Progress

CALLERS = 6
SEED = 4711
DEADLINE = 6.0
MARGIN = 60.0
"""
Seconds beyond its deadline after which a caller counts as waiting for ever: where twenty processes
want two processors, a node that was killed can take ten to be back.
"""

QUIET = 300.0
"""Seconds until all is delivered: careless mirrors lose what is sent again, too."""

SIZES = (0, 10, 5000, 100_000, 1 << 20, 4 << 20)

PROBLEMS = {
    "outcome-unknown",
    "peer-silent",
    "peer-unavailable",
    "connection-terminated",
    "response-incomplete",
}
"""What a caller may be told in place of an answer."""


@define
class Caller:
    """
    Makes calls until it is told to stop.

    @ivar outcomes: how its calls ended, counted.
    @ivar answered: ids of the POSTs that were answered with 200.
    @ivar wrong: what must not be.
    """

    near: Node
    number: int
    stop: threading.Event
    outcomes: Counter[str] = Factory(Counter)
    answered: list[str] = Factory(list)
    wrong: list[str] = Factory(list)
    slowest: float = 0.0

    def run(self) -> None:
        chance = Random(SEED + self.number)
        turn = 0
        while not self.stop.is_set():
            turn += 1
            begun = time.monotonic()
            try:
                outcome = self.one(f"{self.number}-{turn}", chance)
            except ConnectionRefusedError:
                # The near node does not run: no call was made.
                time.sleep(0.05)
                continue
            except TimeoutError:
                outcome = "hung"
                self.wrong.append(f"call {turn} of caller {self.number} hung")
            except (OSError, HTTPException):
                outcome = "connection closed"
            except AssertionError as error:
                outcome = "wrong"
                self.wrong.append(str(error))
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.outcomes[outcome] += 1

    def one(self, id: str, chance: Random) -> str:
        """One call; how it ended."""
        size = chance.choice(SIZES)
        posts = chance.random() < 0.5
        body = chance.randbytes(size) if posts else None
        wanted = content(size) if body is None else digest(body)
        answer = self.near.call(
            "POST" if posts else "GET",
            f"/svc/count/{size}",
            body,
            headers={"X-Id": id, "Hoft-Deadline": f"{DEADLINE}"},
            patience=DEADLINE + MARGIN,
        )
        if answer.status != 200:
            assert answer.kind in PROBLEMS, f"{id}: {answer.status} {answer.body!r}"
            return answer.kind
        if posts:
            self.answered.append(id)
        assert answer.body == wanted, f"{id}: another answer, of {len(answer.body)} bytes"
        return "200"


class KillTests(GatewayCase):
    def test_kill_9_does_nothing_twice_loses_no_answer_that_was_given_and_lets_nobody_wait_for_ever(
        self,
    ) -> None:
        self.kill_under_load(self.pair(), KILLS)

    def test_kill_9_while_mirrors_cut_and_lose_files(self) -> None:
        mirrors = ("--truncate", 0.2, "--lose", 0.1, "--every", 0.02)
        self.kill_under_load(
            self.keep(Gateway.with_mirrors(self.new_folder(), *mirrors, seed=SEED)), KILLS_MIRRORED
        )

    if SOAK == 1:
        test_kill_9_while_mirrors_cut_and_lose_files.skip = "takes minutes"  # type: ignore[attr-defined]  # trial's way

    def kill_under_load(self, gateway: Gateway, kills: int) -> None:
        service = CountingServer()
        self.addCleanup(service.close)
        gateway.route("count", service.url)
        gateway.start()
        stop = threading.Event()
        self.addCleanup(stop.set)
        callers = [Caller(gateway.near, number, stop) for number in range(CALLERS)]
        threads = [threading.Thread(target=caller.run, daemon=True) for caller in callers]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        self.kill_and_start(gateway, callers, kills)
        stop.set()
        for thread in threads:
            thread.join(DEADLINE + 2 * MARGIN)
            self.assertFalse(thread.is_alive(), "a caller still waits")
        self.report(callers, begun, kills)
        self.assertEqual([wrong for caller in callers for wrong in caller.wrong], [])
        self.assertEqual({id: count for id, count in service.arrivals.items() if count > 1}, {})
        answered = [id for caller in callers for id in caller.answered]
        self.assertEqual([id for id in answered if service.arrivals[id] != 1], [])
        gateway.await_quiet(QUIET)
        self.forget_late(gateway.near)
        for node in gateway.nodes:
            self.assertNotIn("Traceback", node.log)
        self.await_nothing_left(gateway)

    def kill_and_start(self, gateway: Gateway, callers: list[Caller], kills: int) -> None:
        """Each node equally often, in an order and after times that the seed decides."""
        chance = Random(SEED)
        victims = [gateway.nodes[number % 2] for number in range(kills)]
        chance.shuffle(victims)
        progress = Progress("kills", kills)
        for number, node in enumerate(victims):
            before = sum(caller.outcomes["200"] for caller in callers)
            time.sleep(chance.uniform(0.1, 1.0))
            if number % 2:
                # Not only in the moments after a start: calls are answered again.
                wait_until(
                    lambda: sum(caller.outcomes["200"] for caller in callers) > before + CALLERS,  # noqa: B023
                    "calls are answered again",
                    60,
                )
            node.kill()
            time.sleep(chance.uniform(0.0, 0.3))
            node.start()
            outcomes = sum((caller.outcomes for caller in callers), Counter())
            wrong = sum(len(caller.wrong) for caller in callers)
            progress.step(f"{wrong} calls wrong; {dict(outcomes)}")

    def report(self, callers: list[Caller], begun: float, kills: int) -> None:
        outcomes: Counter[str] = Counter()
        for caller in callers:
            outcomes += caller.outcomes
        slowest = max(caller.slowest for caller in callers)
        print(
            f"{kills} kills in {time.monotonic() - begun:.1f} s: {dict(outcomes)};"
            f" slowest call {slowest:.1f} s",
            file=sys.stderr,
        )
        self.assertGreater(outcomes["200"], 2 * kills)

    def forget_late(self, near: Node) -> None:
        """An answer that came after its deadline is kept: on a busy machine there are some."""

        def forgotten() -> bool:
            late = near.call("GET", "/_hoft/requests").json()["requests"]
            for request in late:
                near.call("DELETE", f"/_hoft/requests/{request['id']}")
            return not late

        wait_until(forgotten, "what is kept is deleted", QUIET, every=0.5)

    def await_nothing_left(self, gateway: Gateway) -> None:
        """Neither journal keeps a record that nobody will ask for."""
        left: dict[str, int] = {}

        def nothing() -> bool:
            for node in gateway.nodes:
                left.update({f"{node.name} {table}": n for table, n in kept(node).items()})
            return not any(left.values())

        try:
            wait_until(nothing, "the journals are empty", QUIET, every=0.5)
        except AssertionError:
            self.fail(f"left in the journals: {left}")


def kept(node: Node) -> dict[str, int]:
    """How many records are in the journal; by a copy, for the node has it to itself."""
    with TemporaryDirectory() as folder:
        for file in node.folder.glob("journal.sqlite*"):
            shutil.copy(file, folder)
        with closing(sqlite3.connect(Path(folder) / "journal.sqlite")) as journal:
            return {
                table: journal.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("inbox", "outbox")
            }
