"""Failures as callers and peers see them."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft import cbor
from hoft.errors import LocalError, RecordError
from hoft.web.http import problems
from hoft.web.http.problems import MAX_DETAIL, Problem, Refused

REFERENCE = Path(__file__).parents[2] / "docs" / "reference-problems.rst"

ERROR_TYPES = {
    # RFC 9209 section 2.3, with the status it recommends where there is just one
    "dns_timeout": 504,
    "dns_error": 502,
    "destination_not_found": None,
    "destination_unavailable": 503,
    "destination_ip_prohibited": None,
    "destination_ip_unroutable": 502,
    "connection_refused": 502,
    "connection_terminated": 502,
    "connection_timeout": 504,
    "connection_read_timeout": 504,
    "connection_write_timeout": 504,
    "connection_limit_reached": None,
    "tls_protocol_error": 502,
    "tls_certificate_error": 502,
    "tls_alert_received": 502,
    "http_request_error": None,
    "http_request_denied": 403,
    "http_response_incomplete": 502,
    "http_response_transfer_coding": 502,
    "http_response_timeout": 504,
    "http_protocol_error": 502,
    "proxy_internal_error": 500,
    "proxy_loop_detected": 502,
}


def every_problem() -> dict[str, Problem]:
    """One of each that this module can make, by the name of its constructor."""
    samples = {
        "str": "text",
        "float": 2.5,
        "Sequence[str]": ["one", "two"],
        "int | None": 7,
        "str | None": None,
        "int": 7,
        "bool": False,
    }
    found = {}
    for name, function in inspect.getmembers(problems, inspect.isfunction):
        if function.__module__ == problems.__name__ and not name.startswith("_"):
            parameters = inspect.signature(function).parameters.values()
            found[name] = function(*(samples[parameter.annotation] for parameter in parameters))
    return found


class ProblemTests(SynchronousTestCase):
    def test_there_is_one_for_each_failure(self) -> None:
        self.assertGreater(len(every_problem()), 25)

    def test_each_kind_is_one_status_title_and_error(self) -> None:
        kinds: dict[str, tuple[object, ...]] = {}
        for name, one in every_problem().items():
            self.assertNotIn(one.kind, kinds, name)
            kinds[one.kind] = (one.status, one.title, one.proxy_error)

    def test_each_has_an_error_type_of_rfc_9209_and_its_status(self) -> None:
        for name, one in every_problem().items():
            self.assertIn(one.proxy_error, ERROR_TYPES, name)
            self.assertIn(ERROR_TYPES[str(one.proxy_error)], (None, one.status), name)

    def test_each_crosses_unchanged(self) -> None:
        odd = problems.not_found("\udcff file")
        for one in [*every_problem().values(), odd]:
            again = cbor.decode_strict(cbor.encode(one.as_map()), limit=65536)
            self.assertEqual(Problem.from_map(again), one)

    def test_each_stands_in_the_reference(self) -> None:
        rows = {}
        for match in re.finditer(
            r"^   \* - ``([a-z-]+)``\n     - (\d+)\n     - ``([a-z_]+)``\n",
            REFERENCE.read_text("utf-8"),
            re.M,
        ):
            rows[match[1]] = (int(match[2]), match[3])
        self.assertEqual(rows, {one.kind: (one.status, one.proxy_error) for one in every_problem().values()})

    def test_seconds_are_told_as_somebody_would(self) -> None:
        for waited, told in ((15.4045, "15"), (86400.0, "86400"), (9.96, "10"), (2.5, "2.5"), (0.02, "0.02")):
            self.assertIn(f" within {told} s", problems.peer_silent("beta", waited).detail)
            self.assertIn(f" within {told} s", problems.service_silent("http://h", waited).detail)

    def test_the_response_is_problem_json(self) -> None:
        """RFC 9457 section 3."""
        problem = problems.peer_silent("beta", 60.0).during(bytes(range(16)))
        status, headers, body = problem.response("near")
        self.assertEqual(status, 504)
        self.assertIn((b"Content-Type", b"application/problem+json"), headers)
        self.assertEqual(
            json.loads(body),
            {
                "type": "https://hoft.invalid/problems/peer-silent",
                "title": "No answer in time",
                "status": 504,
                "detail": problem.detail,
                "error": "http_response_timeout",
                "exchange": "000102030405060708090a0b0c0d0e0f",
            },
        )
        self.assertIn("60 s", problem.detail)

    def test_proxy_status_is_a_structured_field(self) -> None:
        """RFC 9209 section 2, RFC 9651 section 3.3.3: text is ASCII, quotes are escaped."""
        problem = problems.dns_error("h", 'no "such" \\ n\u00e4me\r\nX: y')
        self.assertEqual(
            problem.proxy_status("near"),
            b'"near"; error=dns_error; details="h: no \\"such\\" \\\\ n?me??X: y"',
        )

    def test_bodies_are_ascii_whatever_the_detail(self) -> None:
        _, _, body = problems.not_found("\u00fc\U0001f600\x00\ud800").response("n")
        self.assertTrue(body.isascii())
        self.assertEqual(json.loads(body)["detail"], "\u00fc\U0001f600\x00?")

    def test_retry_after_is_told_where_it_is_known(self) -> None:
        """RFC 9110 section 10.2.3."""
        _, headers, _ = problems.peer_unavailable("beta", "down", retry_after=30).response("n")
        self.assertIn((b"Retry-After", b"30"), headers)
        _, headers, _ = problems.peer_unavailable("beta", "down").response("n")
        self.assertNotIn(b"Retry-After", dict(headers))

    def test_a_long_detail_is_cut(self) -> None:
        self.assertEqual(len(problems.not_found("x" * 5000).detail), MAX_DETAIL)

    def test_unknown_routes_and_peers_name_the_choices(self) -> None:
        self.assertIn("a, b", problems.unknown_route("x", ["a", "b"]).detail)
        self.assertIn("a, b", problems.no_peer("h", ["a", "b"]).detail)

    def test_a_refusal_carries_its_problem(self) -> None:
        error = Refused(problems.not_found("nothing"))
        self.assertIsInstance(error, LocalError)
        self.assertEqual(str(error), "404 not-found: nothing")


class FromMapTests(SynchronousTestCase):
    GOOD = {"status": 502, "kind": "new-kind", "title": "t", "detail": "d"}

    def test_kinds_of_a_newer_peer_are_taken_as_they_are(self) -> None:
        self.assertEqual(Problem.from_map(self.GOOD).type, "https://hoft.invalid/problems/new-kind")

    def test_other_forms_are_refused(self) -> None:
        changes: list[dict[str, object]] = [
            {"status": 200},
            {"status": 600},
            {"status": "502"},
            {"status": True},
            {"kind": "New"},
            {"kind": "a/b"},
            {"kind": ""},
            {"kind": b"a"},
            {"title": None},
            {"detail": "x" * (MAX_DETAIL + 1)},
            {"detail": 5},
            {"proxy_error": 'a"; b'},
            {"proxy_error": ""},
            {"exchange": "0" * 31},
            {"exchange": "X" * 32},
            {"retry_after": -1},
            {"retry_after": 1 << 40},
            {"retry_after": "1"},
            {"more": 1},
        ]
        for change in changes:
            self.assertRaises(RecordError, Problem.from_map, self.GOOD | change)
        for name in self.GOOD:
            missing = {key: value for key, value in self.GOOD.items() if key != name}
            self.assertRaises(RecordError, Problem.from_map, missing)
        others: list[object] = [None, [], "x", 5]
        for value in others:
            self.assertRaises(RecordError, Problem.from_map, value)
