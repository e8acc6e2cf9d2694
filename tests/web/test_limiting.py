"""What callers and routes may ask for: counted, refused, kept."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft.config import Allowance
from hoft.web.http.problems import Problem, Refused
from hoft.web.ingress import limiting
from hoft.web.ingress.limiting import DAY, Meters, Usage
from tests.protocols.journals import InlineJournal


class MeterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.meters = Meters(lambda: 100 * DAY + 3600.0 + self.now, lambda: self.now)

    def configure(self, **allowances: Allowance) -> None:
        self.meters.configure(allowances)

    def call(self, *whats: str, size: int = 0) -> None:
        for meter in self.meters.admit(*whats):
            meter.end(size)

    def refused(self, *whats: str) -> Problem:
        with self.assertRaises(Refused) as caught:
            self.meters.admit(*whats)
        problem: Problem = caught.exception.problem
        self.assertEqual(problem.status, 429)
        return problem

    def test_at_once(self) -> None:
        self.configure(a=Allowance(in_flight=2))
        first, _ = self.meters.admit("a"), self.meters.admit("a")
        self.assertEqual(self.refused("a").retry_after, 1)
        first[0].end(0)
        self.call("a")

    def test_a_second(self) -> None:
        """In bursts of as many as a second allows, and at least one."""
        self.configure(a=Allowance(per_second=3), slow=Allowance(per_second=0.1))
        self.now = 10
        for _ in range(3):
            self.call("a")
        self.refused("a")
        self.now += 0.34
        self.call("a")
        self.refused("a")
        self.now += 3600
        for _ in range(3):
            self.call("a")
        self.refused("a")
        self.call("slow")
        self.assertEqual(self.refused("slow").retry_after, 10)
        self.now += 10
        self.call("slow")

    def test_a_day(self) -> None:
        """Of UTC: at midnight all is well again, as Retry-After says."""
        self.configure(calls=Allowance(per_day=2), bytes=Allowance(bytes_per_day=1000))
        self.call("calls")
        self.call("calls")
        self.call("bytes", size=999)
        self.call("bytes", size=500)
        for what in ("calls", "bytes"):
            self.assertEqual(self.refused(what).retry_after, DAY - 3600)
        self.now += DAY - 3600
        self.call("calls")
        self.call("bytes")

    def test_each_that_applies_must_let_it_pass_and_none_counts_what_another_refused(self) -> None:
        self.configure(caller=Allowance(per_day=5), route=Allowance(per_day=1))
        self.call("caller", "route")
        self.refused("caller", "route")
        self.assertEqual(self.meters.unsaved()["caller"].calls, 1)

    def test_without_limits_nothing_is_counted(self) -> None:
        self.configure(a=Allowance())
        self.assertEqual(list(self.meters.admit("a", "unheard of")), [])

    def test_a_new_configuration_keeps_what_was_counted(self) -> None:
        self.configure(a=Allowance(per_day=5))
        self.call("a")
        self.configure(a=Allowance(per_day=1))
        self.refused("a")
        self.configure()
        self.call("a")

    def test_after_a_restart(self) -> None:
        """What was counted today goes on, and of other days nothing is kept."""
        folder = Path(self.mktemp())
        folder.mkdir(mode=0o700)
        journal = InlineJournal(folder, [limiting.SCHEMA])
        journal.result(journal.journal.open())
        self.addCleanup(journal.crash)
        self.configure(a=Allowance(per_day=2), b=Allowance(bytes_per_day=10))
        self.call("a")
        self.call("b", size=11)
        usages = self.meters.unsaved()
        self.assertEqual(self.meters.unsaved(), {})
        journal.do(lambda t: limiting.save(t, {"gone": Usage(98, 1, 1)}))
        journal.do(lambda t: limiting.save(t, usages))
        stored = journal.do(limiting.load)
        self.assertEqual(stored, {"a": Usage(100, 1, 0), "b": Usage(100, 1, 11)})
        after = self.meters = Meters(lambda: 100 * DAY + 7200.0, lambda: 0.0)
        self.configure(a=Allowance(per_day=2), b=Allowance(bytes_per_day=10))
        after.load(stored)
        self.refused("b")
        self.call("a")
        self.refused("a")
