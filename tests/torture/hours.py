"""
C{python -m tests.torture.hours HOURS}: two nodes, mirrors that lose two files of a hundred, and callers
that call as people do; whether memory, descriptors and files on disk stay as they were.

Too long for a test: its figures need hours in which nothing else happens.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from random import Random
from statistics import linear_regression

from attrs import Factory, define

from tests.integration.gateway import Gateway, Node
from tests.integration.services import CountingServer, content, digest

MIRRORS = ("--lose", 0.02, "--every", 0.05)
CALLERS = 4
PAUSE = 0.8
"""Seconds between the calls of a caller, on average."""

SIZES = (0, 100, 5_000, 100_000, 1 << 20)
EVERY = 60.0
"""Seconds between two samples."""

LEAST = 0.2
"""Hours: fewer samples have no slope."""

WARM = 0.25
"""The part of the time in which caches fill and the allocator learns; it is not judged."""

MEMORY_SLOPE = 1.0
"""MiB an hour by which the memory of a node may grow."""

DESCRIPTORS = 2
"""By which the least of the second half may exceed the least of the first: calls under way have theirs."""

SPOOL = 64
"""MiB that state folders and exchange may hold at any time, together."""


@define
class Caller:
    """
    Calls until it is told to stop.

    @ivar outcomes: how calls ended, counted.
    """

    near: Node
    number: int
    stop: threading.Event
    outcomes: Counter[str] = Factory(Counter)

    def run(self) -> None:
        chance = Random(self.number)
        turn = 0
        while not self.stop.wait(chance.expovariate(1 / PAUSE)):
            turn += 1
            size = chance.choice(SIZES)
            try:
                if turn % 5:
                    right = self.wait(f"{self.number}-{turn}", size, posts=chance.random() < 0.5)
                else:
                    right = self.poll(size)
            except OSError as error:
                self.outcomes[type(error).__name__] += 1
            else:
                self.outcomes["right" if right else "wrong"] += 1

    def wait(self, id: str, size: int, posts: bool) -> bool:
        """For the answer of one call; whether it was right."""
        body = content(size) if posts else None
        answer = self.near.call(
            "POST" if posts else "GET", f"/svc/count/{size}", body, headers={"X-Id": id}, patience=120
        )
        return (answer.status, answer.body) == (200, digest(body) if body is not None else content(size))

    def poll(self, size: int) -> bool:
        """Ask for one, fetch its answer later, and delete that."""
        asked = self.near.call("GET", f"/svc/count/{size}", headers={"Prefer": "respond-async"})
        place = asked["Location"]
        if asked.status != 202 or place is None:
            return False
        answer = self.near.call("GET", f"{place}/result?wait=60", patience=120)
        right = (answer.status, answer.body) == (200, content(size))
        return self.near.call("DELETE", place).status < 300 and right


@define
class Samples:
    """
    What a node took, over time.

    @ivar hours: when.
    @ivar resident: MiB.
    """

    node: Node
    hours: list[float] = Factory(list)
    resident: list[float] = Factory(list)
    descriptors: list[int] = Factory(list)

    def take(self, hours: float) -> str:
        """One more; what it is."""
        assert self.node.process is not None
        process = Path(f"/proc/{self.node.process.pid}")
        lines = process.joinpath("status").read_text().splitlines()
        self.hours.append(hours)
        self.resident.append(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024)
        self.descriptors.append(len(list(process.joinpath("fd").iterdir())))
        return f"{self.node.name} {self.resident[-1]:.1f} MiB, {self.descriptors[-1]} descriptors"

    def judge(self) -> list[str]:
        """What grew."""
        first = int(len(self.hours) * WARM)
        slope = linear_regression(self.hours[first:], self.resident[first:]).slope
        half = (first + len(self.hours)) // 2
        more = min(self.descriptors[half:]) - min(self.descriptors[first:half])
        print(f"{self.node.name}: memory {slope:+.2f} MiB an hour, {more:+d} descriptors")
        found = []
        if slope > MEMORY_SLOPE:
            found.append(f"the memory of {self.node.name} grows by {slope:.2f} MiB an hour")
        if more > DESCRIPTORS:
            found.append(f"{self.node.name} has {more} descriptors more than at first")
        return found


def spool(folder: Path) -> float:
    """MiB in the files of nodes and between them; what the mirrors write about themselves is not theirs."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += 0 if path.name.startswith("mirror-") else path.stat().st_size
        except FileNotFoundError:
            continue
    return total / (1 << 20)


def run(folder: Path, hours: float) -> list[str]:
    """So long; what was found."""
    gateway = Gateway.with_mirrors(folder, *MIRRORS)
    service = CountingServer()
    stop = threading.Event()
    callers = [Caller(gateway.near, number, stop) for number in range(CALLERS)]
    threads = [threading.Thread(target=caller.run) for caller in callers]
    samples = [Samples(node) for node in gateway.nodes]
    found = []
    try:
        gateway.route("count", service.url)
        gateway.start()
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        largest = 0.0
        while (passed := (time.monotonic() - begun) / 3600) < hours:
            time.sleep(EVERY)
            largest = max(largest, now := spool(folder))
            outcomes = sum((caller.outcomes for caller in callers), Counter[str]())
            told = "; ".join(sample.take(passed) for sample in samples)
            print(f"{time.strftime('%H:%M:%S')} {told}; {now:.1f} MiB on disk; {dict(outcomes)}", flush=True)
        if largest > SPOOL:
            found.append(f"{largest:.0f} MiB lay on disk")
        if outcomes["right"] < outcomes.total():
            found.append(f"calls went wrong: {dict(outcomes)}")
        return found + [one for sample in samples for one in sample.judge()]
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        gateway.close()
        service.close()


def main() -> int:
    """Exit code 1 if something grew."""
    parser = ArgumentParser("python -m tests.torture.hours", description=__doc__)
    parser.add_argument("hours", type=float, nargs="?", default=4.0)
    options = parser.parse_args()
    if options.hours < LEAST:
        parser.error(f"less than {LEAST} hours tell nothing")
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), options.hours)
    for one in found:
        print(one)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
