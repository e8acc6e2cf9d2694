"""Virtual time behaves as a reactor's does."""

from __future__ import annotations

from functools import partial
from random import Random

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from hoft.testing.clock import HeapClock
from tests.effort import steps


class HeapClockTests(SynchronousTestCase):
    """Calls are made when, and in the order in which, they are due."""

    def setUp(self) -> None:
        self.clock = HeapClock()
        self.made: list[tuple[float, str]] = []

    def call(self, delay: float, name: str) -> IDelayedCall:
        return self.clock.callLater(delay, lambda: self.made.append((self.clock.seconds(), name)))

    def test_interfaces(self) -> None:
        """It is what takes C{callLater} for granted."""
        verifyObject(IReactorTime, self.clock)
        verifyObject(IDelayedCall, self.call(1, "a"))

    def test_order(self) -> None:
        """By time, and at the same time as asked for."""
        for delay, name in ((2, "c"), (1, "a"), (2, "d"), (1, "b"), (0, "0")):
            self.call(delay, name)
        self.clock.advance(1.5)
        self.assertEqual(self.made, [(0, "0"), (1, "a"), (1, "b")])
        self.assertEqual(self.clock.seconds(), 1.5)
        self.clock.advance(1)
        self.assertEqual(self.made[3:], [(2, "c"), (2, "d")])

    def test_arguments(self) -> None:
        """They are passed on."""
        got: list[object] = []
        self.clock.callLater(1, lambda *a, **k: got.append((a, k)), 1, 2, three=3)
        self.clock.advance(1)
        self.assertEqual(got, [((1, 2), {"three": 3})])

    def test_calls_that_call(self) -> None:
        """What a call asks for within the time that passes is made as well."""
        self.clock.callLater(1, self.call, 1, "later")
        self.clock.callLater(3, self.call, 0, "at once")
        self.clock.advance(3)
        self.assertEqual(self.made, [(2, "later"), (3, "at once")])

    def test_step(self) -> None:
        """One call at a time; without one, time goes to where it was told to."""
        self.call(1, "a")
        self.call(5, "b")
        self.assertTrue(self.clock.step())
        self.assertEqual(self.clock.seconds(), 1)
        self.assertFalse(self.clock.step(until=3))
        self.assertEqual(self.clock.seconds(), 3)
        self.assertTrue(self.clock.step(until=5))
        self.assertFalse(self.clock.step())
        self.assertEqual(self.clock.seconds(), 5)

    def test_cancel(self) -> None:
        """A cancelled call is not made, and cannot be cancelled again; nor can one that was made."""
        call = self.call(1, "never")
        self.assertTrue(call.active())
        call.cancel()
        self.assertFalse(call.active())
        self.assertRaises(AlreadyCancelled, call.cancel)
        done = self.call(1, "made")
        self.clock.advance(2)
        self.assertEqual(self.made, [(1, "made")])
        self.assertFalse(done.active())
        self.assertRaises(AlreadyCalled, done.cancel)
        self.assertRaises(AlreadyCalled, done.reset, 1)

    def test_move(self) -> None:
        """C{delay} counts from its time, C{reset} from now; either way it is made once."""
        delayed, reset = self.call(1, "delayed"), self.call(5, "reset")
        self.clock.advance(0.5)
        delayed.delay(2)
        reset.reset(1)
        self.assertEqual((delayed.getTime(), reset.getTime()), (3, 1.5))
        self.clock.advance(10)
        self.assertEqual(self.made, [(1.5, "reset"), (3, "delayed")])

    def test_moved_away_and_back(self) -> None:
        """To the time that it had before."""
        call = self.call(1, "a")
        call.delay(1)
        call.delay(-1)
        self.assertEqual(self.clock.getDelayedCalls(), [call])
        self.clock.advance(5)
        self.assertEqual(self.made, [(1, "a")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_as_the_other(self) -> None:
        """Whatever is asked for, L{Clock} makes the same calls at the same times."""

        def life(clock: HeapClock | Clock, seed: int) -> list[tuple[float, int]]:
            chance = Random(seed)
            made: list[tuple[float, int]] = []
            pending: list[IDelayedCall] = []

            def make(number: int) -> None:
                made.append((clock.seconds(), number))
                if number % 3:
                    clock.callLater(number % 4, make, 3 * number)

            for number in range(200):
                pending.append(clock.callLater(chance.randrange(1, 10), make, number))
                call = chance.choice(pending)
                what = chance.randrange(3)
                if call.active():
                    (call.cancel, partial(call.reset, 5), partial(call.delay, 2))[what]()
                clock.advance(0.5)
            return sorted(made)  # of those at the same time the order differs once one was moved

        for seed in range(20):
            self.assertEqual(life(HeapClock(), seed), life(Clock(), seed))

    def test_many(self) -> None:
        """Twenty thousand that wait make one take no more steps."""

        def life() -> None:
            for _ in range(10):
                self.call(0.001, "x").cancel()
                self.call(0.001, "y")
                self.clock.advance(0.002)

        few = steps(life)
        for number in range(20_000):
            self.clock.callLater(1e6 + number, self.fail)
        self.assertLess(steps(life), 1.5 * few)
        self.assertEqual(len(self.made), 20)
