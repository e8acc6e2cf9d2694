"""
Metrics of a node, as Prometheus scrapes them.

What the layers count anyway (C{docs/reference-status.rst}) is read when somebody
scrapes; only what calls took is noted call by call.  Labels are names of the
configuration, and statuses: their number is bounded by it.

Needs prometheus_client, which the extra C{metrics} brings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)
_BYTES = tuple(float(1 << power) for power in range(8, 33, 3))

_GAUGES: Final = frozenset(
    {
        "bytes_in_transit",
        "bytes_in_transit_limit",
        "bytes_per_second",
        "bytes_per_second_limit",
        "cache_bytes",
        "cache_entries",
        "connections",
        "connections_idle",
        "connections_open",
        "dead",
        "files_in_transit",
        "files_in_transit_limit",
        "heard",
        "held_records",
        "journal_bytes",
        "journal_free",
        "kept",
        "kept_bytes",
        "kept_pending",
        "oldest_unacknowledged",
        "open",
        "packet_size",
        "peer_full",
        "pending",
        "process",
        "queued",
        "round_trip",
        "running",
        "seconds_per_file",
        "timeout",
        "tunnelled",
        "unacknowledged_bytes",
        "unacknowledged_records",
        "uptime",
        "waiting",
        "waiting_for_peers",
        "waiting_for_program",
    }
)
"""Members of the status that go up and down; all other numbers only go up."""

_Family = GaugeMetricFamily | CounterMetricFamily

_STATES: Final = ("unknown", "up", "late", "down", "stopped")


# When each counter was made tells nobody anything, and doubles their number.
disable_created_metrics()


class Metrics:
    """
    One node's.

    @param status: L{hoft.node.Node.look}; called on the reactor thread.
    """

    def __init__(self, status: Callable[[], Deferred[dict[str, Any]]]) -> None:
        self._status = status
        self._calls = CollectorRegistry()
        labels = ("caller", "route")
        self._answered = Counter(
            "hoft_calls", "Calls that ended, by the status that the caller got (0: none).",
            (*labels, "status"), registry=self._calls,
        )  # fmt: skip
        self._seconds = Histogram(
            "hoft_call_seconds",
            "What calls took: all of it, executing at the far node, and the rest, crossing.",
            (*labels, "stage"), buckets=_SECONDS, registry=self._calls,
        )  # fmt: skip
        self._bytes = Histogram(
            "hoft_call_bytes", "Bytes of bodies, of requests and responses.",
            (*labels, "message"), buckets=_BYTES, registry=self._calls,
        )  # fmt: skip

    def called(
        self,
        caller: str | None,
        route: str | None,
        status: int,
        seconds: float,
        executing: float | None,
        sizes: tuple[int, int],
    ) -> None:
        """See L{hoft.web.measuring.Metrics.called}."""
        labels = (caller or "", route or "")
        self._answered.labels(*labels, status).inc()
        self._seconds.labels(*labels, "all").observe(seconds)
        if executing is not None:
            self._seconds.labels(*labels, "executing").observe(executing)
            self._seconds.labels(*labels, "crossing").observe(max(0.0, seconds - executing))
        for message, size in zip(("request", "response"), sizes, strict=True):
            self._bytes.labels(*labels, message).observe(size)

    def exposition(self) -> Deferred[bytes]:
        """All of it in Prometheus's text format; made on a thread of the pool."""

        def shown(status: Mapping[str, Any]) -> Deferred[bytes]:
            registry = CollectorRegistry()
            registry.register(_Snapshot(status))
            return deferToThread(lambda: generate_latest(self._calls) + generate_latest(registry))

        return self._status().addCallback(shown)


class _Snapshot:
    """A status, as a collector."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        families: dict[str, _Family] = {}
        numbers = {key: value for key, value in status.items() if _is_number(value)}
        _add(families, "node", numbers, {})
        for part in ("carrier", "ingress", "callbacks", "egress", "messages", "streams"):
            _add(families, part, status.get(part, {}), {})
        _add(families, "files", {"refused": status.get("refused", {})}, {})
        for listen, forward in status.get("forwards", {}).items():
            _add(families, "forward", forward, {"listen": listen})
        for peer, link in status.get("peers", {}).items():
            _add(families, "link", link, {"peer": peer})
            for state in _STATES:
                value = float(link.get("state") == state)
                _sample(families, "link_state", True, {"peer": peer, "state": state}, value)
        yield from families.values()


def _add(families: dict[str, _Family], part: str, values: Mapping[str, Any], labels: dict[str, str]) -> None:
    for key, value in values.items():
        name, gauge = f"{part}_{key}", key in _GAUGES
        if _is_number(value):
            _sample(families, name, gauge, labels, float(value))
        elif isinstance(value, Mapping):
            for kind, count in value.items():
                if _is_number(count):
                    _sample(families, name, gauge, {**labels, "kind": str(kind)}, float(count))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _sample(
    families: dict[str, _Family], name: str, gauge: bool, labels: dict[str, str], value: float
) -> None:
    family = families.get(name)
    if family is None:
        text = f"The member {name.partition('_')[2]} of the status."
        kind = GaugeMetricFamily if gauge else CounterMetricFamily
        family = families[name] = kind(f"hoft_{name}", text, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
