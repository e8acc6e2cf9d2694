from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hoft.web.slices import Slices


class SlicesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.slices = Slices(self.clock)
        self.made: list[int] = []

    def steps(self, fails: bool = False) -> Iterator[None]:
        for number in range(3):
            self.made.append(number)
            yield
        if fails:
            raise ValueError("the fourth")

    def test_it_fires_after_the_last_step(self) -> None:
        done = self.slices.run(self.steps(), "result")
        self.assertNoResult(done)
        self.clock.pump([0] * 4)
        self.assertEqual((self.successResultOf(done), self.made), ("result", [0, 1, 2]))

    def test_whoever_waits_is_told_that_a_step_failed(self) -> None:
        done = self.slices.run(self.steps(fails=True), "result")
        self.clock.pump([0] * 5)
        self.failureResultOf(done, ValueError)

    def test_what_nobody_waits_for_any_more_is_left_off(self) -> None:
        done = self.slices.run(self.steps(), "result")
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.clock.pump([0] * 4)
        self.assertEqual(self.made, [])
