"""A log that says what is news, and of the rest how much of it there is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.recurring import EVERY, Recurring


class RecurringTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.recurring = Recurring[str](lambda *line: self.told.append(line))

    def news(self) -> list[tuple[str, str, int]]:
        """What was told since that was last asked."""
        told, self.told[:] = list(self.told), []
        return told

    def test_the_first_of_each_kind_at_once(self) -> None:
        for kind in "abab":
            self.recurring.came(kind, f"an {kind}", 1.0)
        self.assertEqual(self.news(), [("a", "an a", 0), ("b", "an b", 0)])

    def test_how_many_more_after_a_while(self) -> None:
        """And again, for as long as they come."""
        for number in range(1000):
            self.recurring.came("a", str(number), 1.0)
        self.recurring.came("b", "b", 2.0)
        self.news()
        self.recurring.look(EVERY)
        self.assertEqual(self.news(), [])
        self.recurring.look(EVERY + 1)
        self.assertEqual(self.news(), [("a", "999", 999)])
        self.recurring.came("a", "late", EVERY + 5)
        self.recurring.look(2 * EVERY)
        self.assertEqual(self.news(), [])
        self.recurring.look(2 * EVERY + 1)
        self.assertEqual(self.news(), [("a", "late", 1)])

    def test_after_some_quiet_it_is_news_again(self) -> None:
        self.recurring.came("a", "one", 0.0)
        self.recurring.look(EVERY)
        self.recurring.came("a", "two", EVERY)
        self.assertEqual(self.news(), [("a", "one", 0), ("a", "two", 0)])

    def test_lines_are_bounded_however_it_comes(self) -> None:
        """At most one for each kind and each time, and one more."""
        now = 0.0
        for number in range(20_000):
            now += 0.1
            self.recurring.came("ab"[number % 3 == 0], "x", now)
            self.recurring.look(now)
        self.assertLessEqual(len(self.told), 2 * (now / EVERY + 1))
        self.recurring.look(now + EVERY)
        self.assertEqual(sum(more or 1 for _, _, more in self.told), 20_000)
