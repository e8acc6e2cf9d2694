"""Two nodes with a folder between them, a service behind the far one, and the proxies to compare with."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from benchmarks.processes import Processes, free_port, run

WAYS = ("direct", "treq proxy", "ReverseProxyResource", "hoft")
"""How a caller can reach the service."""

_POLLING = b"system does not tell of"


class Stage:
    """
    All processes of a benchmark, as a context.

    @param folder: an empty folder on the file system to measure on.
    @ivar urls: by L{WAYS}, where the service's root is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes = Processes(folder)
        self.urls: dict[str, str] = {}

    def __enter__(self) -> Stage:
        try:
            self._set_up()
        except BaseException:
            self.processes.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None
    ) -> None:
        self.processes.stop()
        self._check_watching()

    def _set_up(self) -> None:
        ports = {name: free_port() for name in ("service", "treq", "resource", "near", "far")}
        service = f"http://127.0.0.1:{ports['service']}"
        near, far, between = (self._folder / name for name in ("near", "far", "between"))
        between.mkdir()
        for node in (near, far):
            listen = f"tcp:{ports[node.name]}:interface=127.0.0.1"
            run("hoft.cli", "init", str(node), "--folder", str(between), "--listen", listen)
        for node, other in ((near, far), (far, near)):
            run("hoft.cli", "trust", str(node), run("hoft.cli", "card", str(other)).strip())
        run("hoft.cli", "route", str(near), "service", "--peer", "far", "--url", f"{service}/")
        run("hoft.cli", "allow", str(far), f"{service}/")
        start = self.processes.start
        start("service", "benchmarks.service", str(ports["service"]))
        start("treq proxy", "benchmarks.treq_proxy", str(ports["treq"]), service)
        start("ReverseProxyResource", "benchmarks.resource_proxy", str(ports["resource"]), service)
        for node in (near, far):
            start(node.name, "hoft.cli", "run", str(node))
        for port in ports.values():
            self.processes.wait_for_port(port)
        roots = (service, *(f"http://127.0.0.1:{ports[name]}" for name in ("treq", "resource")))
        self.urls = dict(zip(WAYS, (*roots, f"http://127.0.0.1:{ports['near']}/svc/service"), strict=True))

    def _check_watching(self) -> None:
        """Without inotify a node polls, and its figures say nothing of one that does not."""
        for name in ("near", "far"):
            if _POLLING in (self._folder / f"{name}.log").read_bytes():
                print(f"Beware: {name} polls its folder: there is no inotify to be had.", flush=True)
