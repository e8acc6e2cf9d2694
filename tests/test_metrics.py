"""What Prometheus gets of a node, read as Prometheus reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attrs import evolve
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.trial.unittest import TestCase

from hoft.config import Caller
from hoft.metrics import Metrics
from hoft.tokens import hash_token
from tests.web.callers import IngressCase
from tests.web.listening import Test

REFERENCE = Path(__file__).parent.parent / "docs" / "reference-status.rst"

STATUS: dict[str, Any] = {
    "name": "near",
    "uptime": 12.5,
    "carrier_down": None,
    "refused": {"forged": 2},
    "refused_last": {"forged": {"example": "x", "ago": 3}},
    "carrier": {"files_read": 7},
    "ingress": {"requests": 5, "waiting": 1},
    "streams": {"open": 2, "bytes_sent": 9},
    "forwards": {"tcp:2222": {"peer": "far", "to": "db:1", "open": 1, "opened": 4, "bytes_sent": 8}},
    "peers": {
        "far": {"state": "late", "round_trip": 0.25, "lost_packets": 3, "retransmitted_records": {"cut": 4}},
        'we"ird': {"state": "up", "round_trip": None, "lost_packets": 0, "retransmitted_records": {"cut": 0}},
    },
}


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values."""
    families = text_string_to_metric_families(text.decode("utf-8"))
    return {
        (one.name, *(one.labels[label] for label in sorted(one.labels))): one.value
        for family in families
        for one in family.samples
    }


class MetricsTests(TestCase):
    @inlineCallbacks
    def test_the_status_as_numbers(self) -> Test:
        found = samples((yield Metrics(lambda: succeed(STATUS)).exposition()))
        self.assertEqual(found["hoft_node_uptime",], 12.5)
        self.assertEqual(found["hoft_ingress_requests_total",], 5)
        self.assertEqual(found["hoft_ingress_waiting",], 1)
        self.assertEqual(found["hoft_carrier_files_read_total",], 7)
        self.assertEqual(found["hoft_streams_open",], 2)
        self.assertEqual(found["hoft_forward_open", "tcp:2222"], 1)
        self.assertEqual(found["hoft_forward_bytes_sent_total", "tcp:2222"], 8)
        self.assertEqual(found["hoft_files_refused_total", "forged"], 2)
        self.assertEqual(found["hoft_link_round_trip", "far"], 0.25)
        self.assertNotIn(("hoft_link_round_trip", 'we"ird'), found)
        self.assertEqual(found["hoft_link_lost_packets_total", 'we"ird'], 0)
        self.assertEqual(found["hoft_link_retransmitted_records_total", "cut", "far"], 4)
        self.assertEqual(found["hoft_link_state", "far", "late"], 1)
        self.assertEqual(found["hoft_link_state", "far", "up"], 0)

    @inlineCallbacks
    def test_what_the_reference_calls_now_goes_down_too(self) -> Test:
        rows = re.findall(
            r"^((?:``[a-z_]+``(?:, )?)+) .*\b[Nn]ow\b", REFERENCE.read_text("utf-8"), re.MULTILINE
        )
        now = {name for row in rows for name in re.findall("[a-z_]+", row)}
        self.assertLessEqual({"kept", "waiting_for_peers", "dead", "running", "open"}, now)
        found = samples((yield Metrics(lambda: succeed({"ingress": dict.fromkeys(now, 1)})).exposition()))
        self.assertEqual({name for (name,) in found}, {f"hoft_ingress_{name}" for name in now})

    @inlineCallbacks
    def test_what_calls_took(self) -> Test:
        metrics = Metrics(lambda: succeed({}))
        metrics.called("billing", "stock", 200, 0.3, 0.2, (10, 1000))
        metrics.called("billing", "stock", 200, 3.0, 0.02, (0, 1 << 40))
        metrics.called(None, None, 504, 60.0, None, (0, 0))
        found = samples((yield metrics.exposition()))
        self.assertEqual(found["hoft_calls_total", "billing", "stock", "200"], 2)
        self.assertEqual(found["hoft_calls_total", "", "", "504"], 1)
        self.assertEqual(found["hoft_call_seconds_count", "billing", "stock", "crossing"], 2)
        self.assertAlmostEqual(found["hoft_call_seconds_sum", "billing", "stock", "crossing"], 3.08)
        self.assertNotIn(("hoft_call_seconds_count", "", "", "executing"), found)
        self.assertEqual(found["hoft_call_bytes_bucket", "billing", "+Inf", "response", "stock"], 2)
        self.assertEqual(found["hoft_call_bytes_bucket", "billing", "2048.0", "response", "stock"], 1)


class ScrapeTests(IngressCase):
    """C{GET /_hoft/metrics}."""

    def metrics(self) -> Metrics:
        return Metrics(lambda: succeed(STATUS))

    def scrape(self, *fields: bytes) -> Deferred[Any]:
        return self.get(b"/_hoft/metrics", *fields)

    @inlineCallbacks
    def test_each_call_is_noted_with_its_route(self) -> Test:
        self.far.then = lambda request: request.answer(body=b"fine")
        yield self.get(b"/svc/demo/")
        yield self.get(b"/to/http/elsewhere.example/")
        response = yield self.scrape()
        self.assertEqual(response.fields(b"content-type")[0][:10], b"text/plain")
        found = samples(response.body)
        self.assertEqual(found["hoft_calls_total", "", "demo", "200"], 1)
        self.assertEqual(found["hoft_calls_total", "", "", "200"], 1)
        self.assertEqual(found["hoft_node_uptime",], 12.5)
        self.assertEqual((yield self.get(b"/_hoft/nothing")).status, 404)

    @inlineCallbacks
    def test_only_operators_see_them_where_callers_are_named(self) -> Test:
        callers = [
            Caller(name, (hash_token(name.encode()),), operator=name == "watch") for name in ("watch", "shop")
        ]
        self.ingress.reconfigure(evolve(self.routing, callers=tuple(callers)))
        for token, status in ((b"watch", 200), (b"shop", 403)):
            bearer = b"Authorization: Bearer " + token
            self.assertEqual((yield self.scrape(bearer)).status, status)
            self.assertEqual((yield self.get(b"/_hoft/status", bearer)).status, status)
        self.assertEqual((yield self.scrape()).status, 401)

    @inlineCallbacks
    def test_they_come_and_go_with_what_is_under_way(self) -> Test:
        requests: list[Any] = []
        self.far.then = requests.append
        self.ingress.accounts.measure(None)
        early = self.get(b"/svc/demo/")
        yield self.until(lambda: len(requests) == 1)
        self.assertEqual((yield self.scrape()).status, 404)
        self.ingress.accounts.measure(self.metrics())
        late = self.get(b"/svc/demo/late")
        yield self.until(lambda: len(requests) == 2)
        for request in requests:
            request.answer(body=b"fine")
        yield early
        yield late
        found = samples((yield self.scrape()).body)
        self.assertEqual(found["hoft_calls_total", "", "demo", "200"], 1)
