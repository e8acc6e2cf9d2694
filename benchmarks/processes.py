"""Real processes for benchmarks: started, watched from outside through C{/proc}, ended whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Where the packages C{hoft} and C{benchmarks} are."""


class BenchmarkFailed(Exception):
    """Something did not work, so there is no figure; the message says what."""


def cpu_seconds(process: int | str) -> float:
    """User and system time of a process so far, of all its threads; C{"self"} is this one (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Process:
    """One of them."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT)

    def check(self) -> None:
        """@raise BenchmarkFailed: it has ended by itself."""
        if self.popen.poll() is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines() or ["no word"]
            raise BenchmarkFailed(f"{self.name} ended with code {self.popen.returncode}: {lines[-1]}")

    def cpu_seconds(self) -> float:
        """See L{cpu_seconds}."""
        return cpu_seconds(self.popen.pid)

    def peak_memory(self) -> float:
        """The most that was resident at a time (VmHWM), in MB."""
        for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise BenchmarkFailed(f"{self.name} has no VmHWM")


class Processes:
    """
    What a benchmark has started.

    @param folder: where their output goes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: dict[str, Process] = {}

    def start(self, name: str, module: str, *arguments: str) -> Process:
        """Start a module of this environment."""
        command = [sys.executable, "-m", module, *arguments]
        process = Process(name, command, self._folder / f"{name}.log")
        self.running[name] = process
        return process

    def cpu_seconds(self) -> dict[str, float]:
        """Of each, by name."""
        return {name: process.cpu_seconds() for name, process in self.running.items()}

    def wait_for_port(self, port: int, seconds: float = 30.0) -> None:
        """Until something accepts connections there."""
        give_up = time.monotonic() + seconds
        while True:
            for process in self.running.values():
                process.check()
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                return
            except OSError:
                if time.monotonic() > give_up:
                    raise BenchmarkFailed(f"nothing listens on port {port}") from None
                time.sleep(0.05)

    def end(self, name: str) -> None:
        """End one of them."""
        process = self.running.pop(name)
        process.popen.kill()
        process.popen.wait()

    def stop(self) -> None:
        """End all of them."""
        for process in self.running.values():
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in self.running.values():
            try:
                process.popen.wait(10)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
        self.running.clear()


def run(module: str, *arguments: str) -> str:
    """
    Run a module of this environment to its end; what it printed.

    @raise BenchmarkFailed: it did not exit with 0.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise BenchmarkFailed(f"{module} {' '.join(arguments[:3])}: {said}")
    return done.stdout


def free_port() -> int:
    """A TCP port of the loopback interface that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
