"""Lifetimes of two nodes over a faulty channel, with crashes and restores; seeded."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.torture.figures import LIVES, LIVES_TWICE, MESSAGES, SOAK
from tests.torture.life import Violation
from tests.torture.lifetime import live, plan_of
from tests.torture.progress import Progress

ENOUGH = 1 if SOAK == 1 else 10
"""Broken lives after which no more are lived."""


class LifetimeTests(SynchronousTestCase):
    """What two nodes promise holds whatever their carrier and their machines do."""

    def test_nothing_is_lost_or_doubled_in_silence(self) -> None:
        """
        In every life each message arrives exactly once, or after a restore its
        sender is told that nobody knows; and every life becomes quiet.
        """
        progress = Progress("lives", LIVES)
        broken: list[str] = []
        faults, restores, alarms, repeated = 0, 0, 0, 0
        for seed in range(LIVES):
            try:
                world = live(plan_of(seed, MESSAGES))
            except Violation as violation:
                broken.append(f"{violation}\nReplay: python -m tests.torture {seed} {MESSAGES} --trace")
                progress.say(broken[-1])
                if len(broken) == ENOUGH:
                    break
                continue
            faults += world.channel.counts["cut"] + world.channel.counts["lost"]
            restores += world.restores
            alarms += world.alarms
            repeated += world.repeated
            progress.step(
                f"{len(broken)} broken; {faults:,} files lost, {restores:,} restores, {alarms:,} clones"
            )
        self.assertEqual(broken, [], "\n".join(broken))
        self.assertGreater(faults, LIVES * 20)
        self.assertGreater(restores, LIVES // 4)
        self.assertGreater(alarms, LIVES // 25)
        self.assertGreater(repeated, LIVES // 25)

    def test_one_seed_is_one_life(self) -> None:
        """The same seed leaves the same trace, to the byte: any failure can be replayed."""
        progress = Progress("lives lived twice", LIVES_TWICE)
        for seed in range(7, 7 + LIVES_TWICE):
            plan = plan_of(seed, MESSAGES // 10)
            self.assertEqual(live(plan).trace, live(plan).trace, f"seed {seed}")
            progress.step("all the same")
