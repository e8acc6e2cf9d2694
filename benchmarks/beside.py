"""A small call beside large bodies, in turns with one on an idle link."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.calls import quantiles
from benchmarks.processes import run
from benchmarks.stage import Stage
from benchmarks.table import Row, bar_below

BODIES = 10
RATIO_BAR = 3.0
"""Of the 99th percentile on an idle link."""
SETTLE = 1.5
"""Seconds until bodies are under way, or are gone."""


def beside(stage: Stage, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """One caller's round trips while ten bodies go down, or up, without end."""
    turns, calls, size = (1, 100, 64 << 20) if quick else (5, 200, 256 << 20)
    taken: dict[str, list[float]] = {}
    for _ in range(turns):
        for direction in ("download", "upload"):
            taken.setdefault(f"idle, {direction}", []).extend(_round_trips(stage, calls))
            arguments = ("flood", direction, f"{stage.urls['hoft']}/large", "--size", str(size))
            flood = stage.processes.start("flood", "benchmarks.load", *arguments, "--bodies", str(BODIES))
            time.sleep(SETTLE)
            taken.setdefault(f"beside, {direction}", []).extend(_round_trips(stage, calls))
            flood.check()
            stage.processes.end("flood")
            time.sleep(SETTLE)
    found = {name: quantiles(values) for name, values in taken.items()}
    rows = []
    for direction in ("download", "upload"):
        idle, busy = found[f"idle, {direction}"], found[f"beside, {direction}"]
        for what, figures in (("on an idle link", idle), (f"beside {BODIES} {direction}s", busy)):
            ratio = figures["p99"] / idle["p99"]
            rows.append(
                Row(
                    f"round trip of a small GET, {what}",
                    ", ".join(f"{name} {1e3 * value:.2f}" for name, value in figures.items()) + " ms",
                    "" if figures is idle else f"{ratio:.1f} of the idle p99",
                    "" if figures is idle else bar_below(ratio, RATIO_BAR, "of it"),
                )
            )
    return rows, {"quantiles": found, "round_trips": taken}


def _round_trips(stage: Stage, calls: int) -> list[float]:
    url = f"{stage.urls['hoft']}/small"
    answer = json.loads(run("benchmarks.load", "latency", url, "--rounds", "1", "--calls", str(calls)))
    found: list[float] = answer["round_trips"][url]
    return found
