"""Small calls: how long one takes, and how many go in a second."""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from benchmarks.load import QUANTILES
from benchmarks.processes import run
from benchmarks.stage import WAYS, Stage
from benchmarks.table import Row, bar_at_least, bar_below

LATENCY_BAR = 3.0
"""Milliseconds of the median."""
THROUGHPUT_BAR = 1.0
"""Of the treq proxy's calls a second."""


def latency(stage: Stage, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """One caller at a time, each way in turns."""
    rounds, calls = (4, 50) if quick else (10, 200)
    ways = {way: f"{stage.urls[way]}/small" for way in WAYS}
    arguments = ["latency", *ways.values(), "--rounds", str(rounds), "--calls", str(calls)]
    answer = json.loads(run("benchmarks.load", *arguments))["round_trips"]
    raw = {way: answer[url] for way, url in ways.items()}
    found = {way: quantiles(taken) for way, taken in raw.items()}
    rows = []
    for way in WAYS:
        beyond = found[way]["median"] - found["direct"]["median"]
        rows.append(
            Row(
                f"round trip of a small GET, {way}",
                ", ".join(f"{name} {1e3 * value:.2f}" for name, value in found[way].items()) + " ms",
                "" if way == "direct" else f"{1e3 * beyond:.2f} ms beyond direct",
                bar_below(1e3 * found[way]["median"], LATENCY_BAR, "ms") if way == "hoft" else "",
            )
        )
    return rows, {"quantiles": found, "round_trips": raw}


def quantiles(taken: list[float]) -> dict[str, float]:
    """By the names of L{QUANTILES}."""
    ordered = sorted(taken)
    return {name: ordered[int(part * len(ordered))] for name, part in QUANTILES.items()}


def throughput(stage: Stage, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """A hundred callers, each way in turns; ratios within a turn, and of these the median."""
    turns, seconds = (1, 3.0) if quick else (3, 6.0)
    raw: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(turns):
        for way in WAYS:
            before = stage.processes.cpu_seconds()
            url = f"{stage.urls[way]}/small"
            load = ["throughput", url, "--connections", "100", "--seconds", str(seconds), "--warm-up", "1.5"]
            figures = json.loads(run("benchmarks.load", *load))
            after = stage.processes.cpu_seconds()
            cpu = {name: after[name] - before[name] for name in after if after[name] - before[name] > 0.05}
            figures["cpu_us_per_call"] = {
                name: 1e6 * spent / figures["total"]
                for name, spent in {"load generator": figures["cpu_seconds"], **cpu}.items()
            }
            raw[way].append(figures)
    rates = {way: median(figures["rate"] for figures in raw[way]) for way in WAYS}
    ratios = {
        way: {
            other: median(one["rate"] / two["rate"] for one, two in zip(raw[way], raw[other], strict=True))
            for other in WAYS
        }
        for way in WAYS
    }
    rows = []
    for way in WAYS:
        ratio = ratios[way]["treq proxy"]
        text = f"{ratio:.2f} of treq proxy"
        if way == "hoft":
            text += f", {ratios[way]['ReverseProxyResource']:.2f} of ReverseProxyResource"
        bar = bar_at_least(ratio, THROUGHPUT_BAR, "x") if way == "hoft" else ""
        rows.append(Row(f"100 callers, {way}", f"{rates[way]:.0f} calls/s", text, bar))
    for way in WAYS:
        last = raw[way][-1]
        spent = ", ".join(f"{name} {used:.0f}" for name, used in last["cpu_us_per_call"].items())
        trip = ", ".join(f"{name} {1e3 * last[name]:.0f}" for name in QUANTILES)
        rows.append(Row(f"  CPU a call, {way}", f"us: {spent}", f"round trip ms: {trip}"))
    return rows, {"rates": rates, "ratios": ratios, "turns": raw}
