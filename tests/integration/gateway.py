"""Two nodes as processes, in folders of their own, and tests that call through them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

from attrs import Factory, define
from twisted.trial.unittest import SynchronousTestCase

from hoft import cli
from tests.processes import PATIENCE, command

from .callers import Answer, call
from .processes import end, free_port, spawn, wait_until

TAKEN_UP = "configuration taken up"
"""What a node's log says of that."""

Condition = Callable[[dict[str, Any]], object]
"""Something that may be true of a status."""

# --- Nodes -----------------------------------------------------------------------------


def settle(*arguments: object) -> str:
    """Run a command of C{hoft} in this process, which is faster; what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    assert code == 0, f"hoft {arguments}: {err.getvalue()}"
    return out.getvalue()


def refuses(arguments: Sequence[str], **options: Any) -> str:
    """The one line that a command says when it ends, as it must, with code 2."""
    process = spawn(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    said = err.decode()
    assert process.returncode == 2, (process.returncode, said, out)
    assert said.count("\n") == 1, said
    return said.rstrip()


@define(eq=False)
class Node:
    """
    One node: its folder, and its process if it runs.

    @ivar wrapper: what its command line is put behind, as C{setpriv ...}.
    @ivar environment: what its processes find there beside the usual.
    """

    name: str
    folder: Path
    port: int
    card: str
    process: subprocess.Popen[bytes] | None = None
    wrapper: Sequence[str] = ()
    environment: dict[str, str] = Factory(dict)

    @classmethod
    def make(cls, folder: Path, name: str, *where: object) -> Node:
        """C{hoft init} in C{folder/name}, with C{where} as the options that say where files are exchanged."""
        port = free_port()
        listen = f"tcp:{port}:interface=127.0.0.1"
        said = settle("init", folder / name, "--listen", listen, *where)
        return cls(name, folder / name, port, said.splitlines()[0])

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self.folder / "hoft.toml"

    @property
    def log(self) -> str:
        """All that its processes wrote."""
        path = self.folder.parent / f"{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def configure(self, **values: float | str) -> None:
        """Put these at the beginning of its file."""
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        self.file.write_text(lines + self.file.read_text())

    def hoft(self, word: str, *arguments: object) -> str:
        """C{hoft WORD <its folder> ARGUMENTS}; if it runs, it takes up what changes before this returns."""
        before = self.log.count(TAKEN_UP)
        said = settle(word, self.folder, *arguments)
        if "the running node takes it up" in said:
            wait_until(lambda: self.log.count(TAKEN_UP) > before, f"{self.name} takes it up")
        return said

    def await_reload(self) -> None:
        """C{hoft reload}, after a change by hand; returns when it is taken up."""
        before = self.log.count(TAKEN_UP)
        settle("reload", self.folder)
        wait_until(lambda: self.log.count(TAKEN_UP) > before, f"{self.name} takes it up")

    def launch(self, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start it, and do not wait."""
        with open(self.folder.parent / f"{self.name}.log", "ab") as log:
            arguments = [*self.wrapper, *command("run", self.folder)]
            self.process = spawn(
                arguments, self.environment, cwd=cwd or self.folder.parent, stdout=log, stderr=log
            )
        return self.process

    def refuses(self) -> str:
        """Start it: it must end with code 2 and one line, which is returned."""
        return refuses([*self.wrapper, *command("run", self.folder)])

    def start(self) -> None:
        """Start it, and wait until it takes calls."""
        self.launch()
        self.await_ready()

    def await_ready(self) -> None:
        """Until it takes calls."""
        process = self.process
        assert process is not None

        def ready() -> bool:
            assert process.poll() is None, f"{self.name} ended with code {process.returncode}"
            try:
                return bool(self.status())
            except OSError:
                return False

        wait_until(ready, f"{self.name} takes calls", every=0.03)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        process, self.process = self.process, None
        return end(process)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(signal.SIGKILL)
        process.wait()

    def status(self) -> dict[str, Any]:
        """C{GET /_hoft/status}."""
        answer = call(self.port, "GET", "/_hoft/status", patience=10)
        assert answer.status == 200, answer
        status: dict[str, Any] = answer.json()
        return status

    def await_status(self, condition: Condition, what: str, patience: float = PATIENCE) -> dict[str, Any]:
        """Its status, once C{condition} is true of that."""
        last: dict[str, Any] = {}

        def fulfilled() -> bool:
            nonlocal last
            last = self.status()
            return bool(condition(last))

        try:
            wait_until(fulfilled, what, patience, every=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.name}: {json.dumps(last, indent=1)}") from None
        return last

    def await_log(self, words: str, patience: float = PATIENCE) -> str:
        """The first line of its log that has these words."""
        lines = wait_until(
            lambda: [line for line in self.log.splitlines() if words in line], f"log: {words}", patience
        )
        found: str = lines[0]
        return found

    def call(self, method: str, target: str, body: Any = None, **options: Any) -> Answer:
        """A call to this node, see L{call}."""
        return call(self.port, method, target, body, **options)

    def peak_memory(self) -> int:
        """Bytes: the most that its process ever had of the memory (VmHWM)."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")


@define(eq=False)
class Gateway:
    """
    Two nodes that trust each other, and what carries between them.

    @ivar mirrors: the processes that carry, if any.
    """

    folder: Path
    near: Node
    far: Node
    mirrors: list[subprocess.Popen[bytes]] = Factory(list)
    others: list[subprocess.Popen[bytes]] = Factory(list)

    @classmethod
    def on_one_folder(cls, folder: Path) -> Gateway:
        """Both see C{folder/exchange}."""
        exchange = folder / "exchange"
        exchange.mkdir(parents=True)
        return cls.trusting(
            folder, *(Node.make(folder, name, "--folder", exchange) for name in ("near", "far"))
        )

    @classmethod
    def with_mirrors(cls, folder: Path, *faults: object, seed: int = 1) -> Gateway:
        """
        Two mirrors carry from either outbox to the other's inbox.

        @param faults: options of C{hoft mirror}.
        """
        nodes = []
        for name in ("near", "far"):
            boxes = [folder / f"{name}-{box}" for box in ("inbox", "outbox")]
            for box in boxes:
                box.mkdir(parents=True)
            nodes.append(Node.make(folder, name, "--inbox", boxes[0], "--outbox", boxes[1]))
        gateway = cls.trusting(folder, *nodes)
        for number, (source, target) in enumerate((("near", "far"), ("far", "near"))):
            arguments = command(
                "mirror", folder / f"{source}-outbox", folder / f"{target}-inbox",
                "--seed", seed + number, *faults,
            )  # fmt: skip
            with open(folder / f"mirror-{source}.log", "wb") as log:
                gateway.mirrors.append(spawn(arguments, stdout=log, stderr=log))
        return gateway

    @classmethod
    def trusting(cls, folder: Path, near: Node, far: Node) -> Gateway:
        """Two nodes in C{folder}, which is where their logs go."""
        near.hoft("trust", far.card)
        far.hoft("trust", near.card)
        return cls(folder, near, far)

    @property
    def nodes(self) -> tuple[Node, Node]:
        """Both."""
        return (self.near, self.far)

    def start(self) -> None:
        """Start both nodes, and wait until they hear each other."""
        for node in self.nodes:
            node.launch()
        try:
            for node in self.nodes:
                node.await_ready()
            self.await_up()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def await_up(self) -> None:
        """Until the nodes hear each other."""
        for node in self.nodes:
            node.await_status(_all_up, "the peer is heard")

    def route(self, name: str, url: str, *flags: str) -> None:
        """
        C{/svc/NAME/} of the near node leads to C{url} behind the far one, which allows it.

        @param flags: of both commands.
        """
        self.near.hoft("route", name, "--peer", "far", "--url", url, *flags)
        self.far.hoft("allow", url, *flags)

    def stop_mirrors(self) -> dict[str, int]:
        """End them; what they counted, together."""
        totals: dict[str, int] = {}
        for process in self.mirrors:
            end(process)
        self.mirrors.clear()
        for source in ("near", "far"):
            counts = json.loads((self.folder / f"mirror-{source}.log").read_text().splitlines()[-1])
            for key, value in counts.items():
                totals[key] = totals.get(key, 0) + value
        return totals

    def await_quiet(self, patience: float = 30.0) -> None:
        """Until nothing is under way any more: nothing unacknowledged, nobody waiting, no service at work."""

        def quiet(now: dict[str, Any]) -> bool:
            return (
                all(not peer["unacknowledged_records"] for peer in now["peers"].values())
                and not now["ingress"]["waiting"]
                and not now["egress"]["running"]
                and not now["egress"]["queued"]
            )

        for node in self.nodes:
            node.await_status(quiet, "nothing is under way", patience)

    def close(self) -> None:
        """End all its processes, at once."""
        running = [node.process for node in self.nodes if node.process is not None]
        processes = [*running, *self.mirrors, *self.others]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        for node in self.nodes:
            node.process = None
        self.mirrors.clear()
        self.others.clear()

    def logs(self) -> str:
        """The ends of all logs, for a failure."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            parts += [f"--- {path.name}", *lines[-25:]]
        return "\n".join(parts)


def _all_up(status: dict[str, Any]) -> bool:
    return all(peer["state"] == "up" for peer in status["peers"].values())


# --- Tests -----------------------------------------------------------------------------


class GatewayCase(SynchronousTestCase):
    """A test whose failure shows the logs of the gateways it made."""

    _shared: ClassVar[Gateway | None] = None
    _left: ClassVar[set[str] | None] = None

    def setUp(self) -> None:
        self.gateways: list[Gateway] = []
        method = getattr(self, self._testMethodName)

        def with_logs() -> None:
            try:
                method()
            except (SkipTest, KeyboardInterrupt):
                raise
            except BaseException:
                logs = "\n".join(gateway.logs() for gateway in self.gateways)
                raise self.failureException(f"{traceback.format_exc()}\n{logs}") from None

        setattr(self, self._testMethodName, with_logs)

    def new_folder(self) -> Path:
        """An empty one."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        return folder

    def keep(self, gateway: Gateway) -> Gateway:
        """Have it end with the test."""
        self.gateways.append(gateway)
        self.addCleanup(gateway.close)
        return gateway

    def pair(self) -> Gateway:
        """Two nodes on one folder, not started, for this test alone."""
        return self.keep(Gateway.on_one_folder(self.new_folder()))

    def shared_pair(self) -> Gateway:
        """
        Two running nodes for all tests of the class; they end with its last test,
        or with this process if that is not run.
        """
        cls = type(self)
        if cls._left is None:
            cls._left = {name for name in dir(cls) if name.startswith("test")}
        if cls._shared is None:
            gateway = cls._shared = Gateway.on_one_folder(self.new_folder())
            gateway.start()
        self.gateways.append(cls._shared)
        self.addCleanup(self._leave)
        return cls._shared

    def _leave(self) -> None:
        cls = type(self)
        assert cls._left is not None
        cls._left.discard(self._testMethodName)
        if not cls._left and cls._shared is not None:
            cls._shared.close()
            cls._shared = None

    def need(self, there: object, what: str) -> None:
        """Skip for want of a tool or a right; fail where all of them should be there."""
        if there:
            return
        if os.environ.get("CI"):
            self.fail(f"{what}, but CI is set")
        raise SkipTest(what)
