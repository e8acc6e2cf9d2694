"""Lifetimes of two nodes over a faulty channel, with crashes and restores; seeded."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.torture.life import Violation
from tests.torture.lifetime import World, live, plan_of

SOAK = int(os.environ.get("HOFT_SOAK", "1"))
LIVES, MESSAGES = 100 * SOAK, 200
LONG_LIVES, MANY = 1 * SOAK, 1000
TWICE = 1 if SOAK == 1 else 10 * SOAK


class LifetimeTests(SynchronousTestCase):
    """What two nodes promise holds whatever their carrier and their machines do."""

    def test_nothing_is_lost_or_doubled_in_silence(self) -> None:
        """
        In every life each message arrives exactly once, or after a restore its
        sender is told that nobody knows; and every life becomes quiet.
        """
        faults, restores, alarms = 0, 0, 0
        for seed in range(LIVES):
            world = self.live(seed, MESSAGES)
            faults += world.channel.counts["cut"] + world.channel.counts["lost"]
            restores += world.restores
            alarms += world.alarms
        self.assertGreater(faults, LIVES * 20)
        self.assertGreater(restores, LIVES // 4)
        self.assertGreater(alarms, LIVES // 25)

    def test_long_lives(self) -> None:
        """The same with more messages."""
        for seed in range(LONG_LIVES):
            self.live(seed, MANY)

    if SOAK == 1:
        test_long_lives.skip = "HOFT_SOAK=2 or more runs it"  # type: ignore[attr-defined]  # trial's way

    def live(self, seed: int, messages: int) -> World:
        try:
            return live(plan_of(seed, messages))
        except Violation as violation:
            self.fail(f"{violation}\nReplay: python -m tests.torture {seed} {messages} --trace")

    def test_one_seed_is_one_life(self) -> None:
        """The same seed leaves the same trace, to the byte: any failure can be replayed."""
        for seed in range(7, 7 + TWICE):
            plan = plan_of(seed, 100)
            self.assertEqual(live(plan).trace, live(plan).trace)
