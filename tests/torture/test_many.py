"""A thousand callers that wait, and ten thousand requests whose answers are fetched later."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from asyncio import Event, StreamReader, StreamWriter
from collections.abc import Iterable

from attrs import Factory, define

from tests.integration.gateway import Gateway, GatewayCase
from tests.integration.processes import free_port
from tests.torture.figures import SOAK

WAITING, QUEUED = (1000, 10_000) if SOAK > 1 else (200, 500)
CONNECTIONS = 50
"""On which requests are made and results fetched."""
MEMORY = 200_000_000
PATIENCE = 600.0


async def read_message(reader: StreamReader) -> tuple[bytes, bytes]:
    """The head and the body, by its C{Content-Length}, of a request or response."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().splitlines():
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head, await reader.readexactly(length)


@define
class Service:
    """Answers each request with its path, once C{open} is set."""

    open: Event = Factory(Event)
    paths: list[bytes] = Factory(list)
    writers: dict[asyncio.Task[None], StreamWriter] = Factory(dict)

    async def close(self) -> None:
        """Cut what is connected."""
        for writer in self.writers.values():
            writer.close()
        await asyncio.gather(*self.writers)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection of the far node."""
        task = asyncio.current_task()
        assert task is not None
        self.writers[task] = writer
        try:
            while True:
                head, _ = await read_message(reader)
                path = head.split(b" ", 2)[1]
                self.paths.append(path)
                await self.open.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@define(eq=False)
class Caller:
    """One connection to the near node."""

    reader: StreamReader
    writer: StreamWriter

    @classmethod
    async def connect(cls, port: int) -> Caller:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def call(self, path: str, *fields: str) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer."""
        lines = "".join(f"{field}\r\n" for field in ("Host: near", *fields))
        self.writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        head, body = await read_message(self.reader)
        return int(head.split(b" ", 2)[1]), head, body


class ManyTests(GatewayCase):
    """All are answered, each with its own answer, in memory that does not depend on how many there are."""

    def setUp(self) -> None:
        super().setUp()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        self.gateway = Gateway.on_one_folder(self.new_folder())
        self.keep(self.gateway)
        for node in self.gateway.nodes:
            node.configure(deadline=PATIENCE)

    def test_all_are_answered(self) -> None:
        port = free_port()
        self.gateway.route("many", f"http://127.0.0.1:{port}/")
        # As a shell has it: the nodes have to see to it that they may open more.
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        self.gateway.start()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        idle = {node.name: node.peak_memory() for node in self.gateway.nodes}
        asyncio.run(self.many(port))
        for node in self.gateway.nodes:
            more = node.peak_memory() - idle[node.name]
            print(f"{node.name}: {more / 1e6:.0f} MB for {WAITING} and {QUEUED}", file=sys.stderr)
            self.assertLess(node.peak_memory(), MEMORY)

    async def many(self, port: int) -> None:
        service, near = Service(), self.gateway.near
        server = await asyncio.start_server(service.serve, "127.0.0.1", port, backlog=512)
        begun = time.monotonic()
        callers = [await Caller.connect(near.port) for _ in range(WAITING)]
        waiting = [
            asyncio.ensure_future(caller.call(f"/svc/many/sync/{number}"))
            for number, caller in enumerate(callers)
        ]
        others = [await Caller.connect(near.port) for _ in range(CONNECTIONS)]
        accepted: dict[int, str] = {}

        async def request(caller: Caller, numbers: Iterable[int]) -> None:
            for number in numbers:
                path = f"/svc/many/async/{number}"
                status, _, body = await caller.call(path, "Prefer: respond-async")
                self.assertEqual(status, 202, body)
                accepted[number] = json.loads(body)["result_url"]

        async def fetch(caller: Caller, numbers: Iterable[int]) -> None:
            for number in numbers:
                status, _, body = await caller.call(f"{accepted[number]}?wait=300")
                self.assertEqual((status, body), (200, f"/async/{number}".encode()))

        def shares() -> Iterable[tuple[Caller, Iterable[int]]]:
            return ((caller, range(at, QUEUED, CONNECTIONS)) for at, caller in enumerate(others))

        await asyncio.gather(*(request(caller, numbers) for caller, numbers in shares()))
        ingress = near.status()["ingress"]
        self.assertEqual((ingress["waiting"], ingress["kept_pending"]), (WAITING, QUEUED))
        taken = time.monotonic() - begun
        service.open.set()
        for number, (status, _, body) in enumerate(await asyncio.gather(*waiting)):
            self.assertEqual((status, body), (200, f"/sync/{number}".encode()))
        await asyncio.gather(*(fetch(caller, numbers) for caller, numbers in shares()))
        self.assertEqual(len(service.paths), WAITING + QUEUED)
        answered = time.monotonic() - begun - taken
        print(f"all were taken in {taken:.1f} s, and answered in {answered:.1f} s", file=sys.stderr)
        for caller in (*callers, *others):
            caller.writer.close()
        server.close()
        await service.close()
