"""Lifetimes of two nodes over a faulty channel, with crashes and restores; seeded."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.torture.life import Violation
from tests.torture.lifetime import live, plan_of

SOAK = int(os.environ.get("HOFT_SOAK", "1"))
LIVES, MESSAGES = 100 * SOAK, 200


class LifetimeTests(SynchronousTestCase):
    """What two nodes promise holds whatever their carrier and their machines do."""

    def test_nothing_is_lost_or_doubled_in_silence(self) -> None:
        """
        In every life each message arrives exactly once, or after a restore its
        sender is told that nobody knows; and every life becomes quiet.
        """
        faults, restores = 0, 0
        for seed in range(LIVES):
            try:
                world = live(plan_of(seed, MESSAGES))
            except Violation as violation:
                self.fail(f"{violation}\nReplay: python -m tests.torture {seed} {MESSAGES} --trace")
            faults += world.channel.counts["cut"] + world.channel.counts["lost"]
            restores += world.restores
        self.assertGreater(faults, LIVES * 20)
        self.assertGreater(restores, LIVES // 4)

    def test_one_seed_is_one_life(self) -> None:
        """The same seed leaves the same trace, to the byte: any failure can be replayed."""
        plan = plan_of(7, 100)
        self.assertEqual(live(plan).trace, live(plan).trace)
