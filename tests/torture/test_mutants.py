"""The lifetimes find planted bugs: else they would prove little."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.torture import mutants
from tests.torture.figures import MUTANT_SEEDS, SOAK
from tests.torture.life import Violation
from tests.torture.lifetime import live, plan_of
from tests.torture.mutants import Mutant
from tests.torture.progress import Progress

MESSAGES = 60


class MutantTests(SynchronousTestCase):
    """Each is caught within 500 lives."""

    def assertCaught(self, mutant: Mutant) -> None:
        with mutant():
            for seed in range(MUTANT_SEEDS):
                try:
                    live(plan_of(seed, MESSAGES))
                except Violation:
                    return
        self.fail(f"{mutant.__name__}, that is: {mutant.__doc__}")

    def test_numbers_given_twice(self) -> None:
        """A restored node that goes on as if nothing had happened."""
        self.assertCaught(mutants.no_mint)

    def test_receipts_taken_for_acknowledgements(self) -> None:
        """And cut packets for whole ones."""
        self.assertCaught(mutants.truncation_accepted)

    def test_all(self) -> None:
        """Every one that we have thought of."""
        progress = Progress("planted bugs", len(mutants.MUTANTS))
        for mutant in mutants.MUTANTS:
            self.assertCaught(mutant)
            progress.step("all caught")

    if SOAK == 1:
        test_all.skip = "takes a minute or two; HOFT_SOAK=2 or more runs it"  # type: ignore[attr-defined]  # trial's way
