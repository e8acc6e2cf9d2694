"""Large bodies, beside C{cp} on the same file system."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bodies import piece
from benchmarks.processes import BenchmarkFailed, run
from benchmarks.stage import Stage
from benchmarks.table import Row, bar_at_least

BULK_BAR = 100.0
"""MB/s."""
BULK_WAYS = ("direct", "treq proxy", "hoft")


def bulk(stage: Stage, quick: bool, folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """One body down and one up, each way in turns, and a file of that size copied each time."""
    turns, size = (1, 128 << 20) if quick else (3, 512 << 20)
    files = Copying(folder, size)
    seconds: dict[str, list[float]] = {}
    raw: dict[str, list[dict[str, Any]]] = {}
    for _ in range(turns):
        for sync in (False, True):
            seconds.setdefault("cp and fsync" if sync else "cp", []).append(files.copy(sync))
        for direction, path in (("download", "/large"), ("upload", "/large")):
            for way in BULK_WAYS:
                before = stage.processes.cpu_seconds()
                url = stage.urls[way] + path
                figures = json.loads(run("benchmarks.load", direction, url, "--size", str(size)))
                after = stage.processes.cpu_seconds()
                figures["cpu"] = {name: after[name] - before[name] for name in after}
                raw.setdefault(f"{direction}, {way}", []).append(figures)
                seconds.setdefault(f"{direction}, {way}", []).append(figures["seconds"])
    files.remove()
    rates = {name: size / 1e6 / median(taken) for name, taken in seconds.items()}
    rows = []
    for name, rate in rates.items():
        through = name.endswith("hoft")
        ratio = f"{rate / rates['cp']:.2f} of cp, {rate / rates['cp and fsync']:.2f} of cp and fsync"
        bar = bar_at_least(rate, BULK_BAR, "MB/s") if through else ""
        rows.append(Row(f"{size >> 20} MiB, {name}", f"{rate:.0f} MB/s", ratio, bar))
        if through:
            cpu = {node: median(one["cpu"][node] for one in raw[name]) for node in ("near", "far")}
            per = ", ".join(f"{node} {1e3 * used / (size / 1e6):.1f}" for node, used in cpu.items())
            rows.append(Row(f"  CPU, {name}", f"ms a MB: {per}"))
    peaks = {name: stage.processes.running[name].peak_memory() for name in ("near", "far", "treq proxy")}
    rows.append(
        Row(
            "peak resident memory (VmHWM)",
            ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items()) + " MB",
        )
    )
    return rows, {"bytes": size, "MB/s": rates, "seconds": seconds, "peak_memory_MB": peaks, "turns": raw}


class Copying:
    """A file of the large body's bytes, and copies of it."""

    def __init__(self, folder: Path, size: int) -> None:
        self._source, self._copy = folder / "source", folder / "copy"
        with self._source.open("wb") as file:
            for at in range(0, size, 1 << 18):
                file.write(piece(at, min(1 << 18, size - at)))
            file.flush()
            os.fsync(file.fileno())

    def copy(self, sync: bool) -> float:
        """Seconds that C{cp} takes, to a new file; with what it takes to have that on disk if asked."""
        self._copy.unlink(missing_ok=True)
        begun = time.perf_counter()
        if subprocess.run(["cp", "--reflink=never", self._source, self._copy]).returncode:
            raise BenchmarkFailed("cp did not work")
        if sync:
            with self._copy.open("rb") as file:
                os.fsync(file.fileno())
        return time.perf_counter() - begun

    def remove(self) -> None:
        """Leave nothing behind."""
        self._source.unlink()
        self._copy.unlink()
