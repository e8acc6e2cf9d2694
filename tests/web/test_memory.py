"""How much of bodies is in memory."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.web.crossing.memory import LEAST, MOST, TOTAL, share


class ShareTests(SynchronousTestCase):
    def test_few_have_much(self) -> None:
        self.assertEqual((share(0), share(1), share(10)), (MOST, MOST, MOST))

    def test_many_have_no_more_together(self) -> None:
        for count in range(1, TOTAL // LEAST):
            self.assertLessEqual(count * share(count), TOTAL)

    def test_each_has_something(self) -> None:
        self.assertEqual(share(1_000_000), LEAST)
