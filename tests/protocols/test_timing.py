"""How long is waited, from what was measured."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.timing import PATIENCE, RATES, SAMPLES, RoundTrips, TimingSettings

SETTINGS = TimingSettings(first=20.0)


def measured(*samples: float) -> RoundTrips:
    trips = RoundTrips(SETTINGS)
    for seconds in samples:
        trips.sample(seconds)
    return trips


class TimeoutTests(SynchronousTestCase):
    """When a packet counts as lost."""

    def test_before_the_first_sample(self) -> None:
        """Nothing is known of the carrier: the first timeout is the configured one."""
        self.assertEqual(measured().timeout(), 20.0)

    def test_a_greeting_bounds_the_first(self) -> None:
        """It was answered within two seconds: twice that is enough to begin with, and never more again."""
        trips = measured()
        trips.answered_within(2.0)
        self.assertEqual(trips.timeout(), 4.0)
        trips.answered_within(9.0)
        self.assertEqual(trips.timeout(), 4.0)

    def test_steady(self) -> None:
        """On a steady carrier it comes down to an eighth above the round trip, and the peer's ack delay."""
        trips = measured(*[1.0] * 200)
        self.assertAlmostEqual(trips.timeout(), 1.125 + 1 / 16, places=2)

    def test_tails(self) -> None:
        """A few slow ones among many quick ones are waited for, though the mean is low."""
        trips = measured(*([0.5] * 50 + [9.0]) * 4, *[0.5] * 40)
        self.assertGreater(trips.timeout(), 9.0)

    def test_forgets(self) -> None:
        """What was slow long ago does not count any more."""
        trips = measured(*[9.0] * 10, *[0.5] * (SAMPLES + 100))
        self.assertLess(trips.timeout(), 1.0)

    def test_a_quick_carrier(self) -> None:
        """Below 0.2 s there is none: a busy disk alone may take as long."""
        self.assertEqual(measured(*[0.001] * 50).timeout(), SETTINGS.shortest)

    def test_a_slow_carrier(self) -> None:
        """And above an hour neither."""
        self.assertEqual(measured(5000.0).timeout(), SETTINGS.longest)

    def test_wrong_verdicts(self) -> None:
        """Each makes it a tenth longer, up to twice; caution fades as samples come."""
        trips = measured(*[1.0] * 200)
        before = trips.timeout()
        trips.spurious()
        self.assertAlmostEqual(trips.timeout(), before + 0.1125, places=3)
        for _ in range(50):
            trips.spurious()
        self.assertAlmostEqual(trips.timeout(), before + 1.125, places=3)
        for _ in range(2000):
            trips.sample(1.0)
        self.assertAlmostEqual(trips.timeout(), before, places=1)

    def test_size(self) -> None:
        """A large packet gets the time that its bytes take at the best speed seen lately."""
        trips = measured(*[1.0] * 200)
        small = trips.timeout()
        self.assertEqual(trips.timeout(10**9), small)  # no speed was measured
        trips.rate(1e5)
        trips.rate(1e6)
        trips.rate(10.0)
        self.assertAlmostEqual(trips.timeout(5_000_000), small + 5.0)
        for _ in range(RATES):
            trips.rate(1e5)
        self.assertAlmostEqual(trips.timeout(5_000_000), small + 50.0)

    def test_a_peer_that_holds(self) -> None:
        """Receipts that wait for the peer's disk are waited for; one repeated much later teaches little."""
        trips = measured(*[1.0] * 200)
        before = trips.timeout()
        trips.sample(1.0, hold=500.0)
        self.assertLess(trips.timeout(), before + SETTINGS.ack_longest / 4)
        for _ in range(40):
            trips.sample(1.0, hold=0.4)
        self.assertGreater(trips.timeout(), before + 0.4)

    def test_clocks_that_disagree(self) -> None:
        """A peer that says it held a packet longer than it was away yields no negative times."""
        trips = measured(-5.0)
        self.assertEqual(trips.smoothed, 0.0)
        self.assertEqual(trips.timeout(), SETTINGS.shortest)


class WaitTests(SynchronousTestCase):
    """Probes and acknowledgements."""

    def test_probes(self) -> None:
        """The first few follow each other at the timeout, then ever later, up to a quarter of an hour."""
        trips = measured(*[1.0] * 200)
        waits = [trips.probe_after(unanswered) for unanswered in range(60)]
        self.assertEqual(waits[: PATIENCE + 1], [trips.timeout()] * (PATIENCE + 1))
        self.assertAlmostEqual(waits[PATIENCE + 1], 1.5 * trips.timeout())
        self.assertEqual(waits, sorted(waits))
        self.assertEqual(waits[-1], 900.0)

    def test_probes_on_a_slow_carrier(self) -> None:
        """Where the round trip takes longer than that, it is waited for."""
        trips = measured(3000.0)
        self.assertEqual(trips.probe_after(0), SETTINGS.longest)
        self.assertEqual(trips.probe_after(50), SETTINGS.longest)

    def test_ack_delay(self) -> None:
        """A sixteenth of the round trip, at least 25 ms, at most a second."""
        self.assertEqual(measured().ack_delay(), 0.025)
        self.assertEqual(measured(0.001).ack_delay(), 0.025)
        self.assertEqual(measured(1.6).ack_delay(), 0.1)
        self.assertEqual(measured(100.0).ack_delay(), 1.0)
