from __future__ import annotations

import math

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hoft.timers import Alarm, Soon, Timers


class SoonTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.done: list[float] = []
        self.soon = Soon(self.clock, 1.0, lambda: self.done.append(self.clock.seconds()))

    def test_done_once_for_all_who_ask(self) -> None:
        self.soon.ask()
        self.clock.advance(0.5)
        self.soon.ask()
        self.assertTrue(self.soon.pending)
        self.clock.advance(0.5)
        self.assertEqual(self.done, [1.0])
        self.assertFalse(self.soon.pending)
        self.soon.ask()
        self.clock.advance(1.0)
        self.assertEqual(self.done, [1.0, 2.0])

    def test_done_at_once_only_if_it_was_asked_for(self) -> None:
        self.soon.now()
        self.assertEqual(self.done, [])
        self.soon.ask()
        self.soon.now()
        self.assertEqual(self.done, [0.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_may_be_asked_for_again_while_it_is_done(self) -> None:
        again = Soon(self.clock, 1.0, lambda: again.ask())
        again.ask()
        again.now()
        self.assertTrue(again.pending)
        self.clock.advance(1.0)
        self.assertTrue(again.pending)

    def test_not_done_once_it_was_cancelled(self) -> None:
        self.soon.ask()
        self.soon.cancel()
        self.soon.cancel()
        self.clock.advance(2.0)
        self.assertEqual(self.done, [])


class AlarmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rung: list[float] = []
        self.alarm = Alarm(self.clock, lambda: self.rung.append(self.clock.seconds()))

    def test_rings_when_due_and_at_once_if_that_is_past(self) -> None:
        self.alarm.set(2.0, 0.0)
        self.clock.advance(2.0)
        self.alarm.set(1.0, 2.0)
        self.clock.advance(0.0)
        self.assertEqual(self.rung, [2.0, 2.0])

    def test_an_earlier_time_counts_at_once_and_a_later_one_when_it_has_rung(self) -> None:
        self.alarm.set(4.0, 0.0)
        self.alarm.set(2.0, 0.0)
        self.alarm.set(3.0, 0.0)
        self.assertEqual(self.alarm.due, 3.0)
        self.clock.pump([2.0, 2.0])
        self.assertEqual(self.rung, [2.0])

    def test_never_rings_for_what_is_never_due(self) -> None:
        self.alarm.set(math.inf, 0.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.alarm.set(1.0, 0.0)
        self.alarm.cancel()
        self.alarm.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TimersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.timers = Timers(self.clock)
        self.rung: list[str] = []

    def test_the_earlier_of_two_times_counts(self) -> None:
        for delay in (2.0, 1.0, 3.0):
            self.timers.set("look", delay, lambda: self.rung.append("look"))
        self.timers.set("calm", 2.0, lambda: self.rung.append("calm"))
        self.clock.advance(1.0)
        self.assertEqual(self.rung, ["look"])
        self.assertNotIn("look", self.timers)
        self.clock.pump([1.0, 1.0])
        self.assertEqual(self.rung, ["look", "calm"])

    def test_nothing_is_called_once_it_was_cancelled_or_all_is_stopped(self) -> None:
        self.timers.set("look", 1.0, lambda: self.rung.append("look"))
        self.timers.cancel("look")
        self.timers.set("calm", 1.0, lambda: self.rung.append("calm"))
        self.timers.stop()
        self.timers.set("look", 1.0, lambda: self.rung.append("look"))
        self.clock.advance(2.0)
        self.assertEqual(self.rung, [])
