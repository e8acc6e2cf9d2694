"""Restarts, restores, wipes, clones: no way through the model breaks a promise; each rule is needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.synchronisation import Sighting, Synchronisation
from tests.torture.figures import MODEL_STATES, MODEL_WALKS, SOAK
from tests.torture.searching import Budget, Searched, found, search, walk

BUDGETS = (
    Budget(sends=2, crashes=1),
    Budget(sends=2, copies=1, restores=1),
    Budget(sends=2, copies=2, restores=2, told=1),
    Budget(sends=2, crashes=1, wipes=1),
    Budget(sends=2, clones=1),
)
"""What is searched exhaustively, as far as it goes."""

FARTHER = (
    Budget(sends=4, crashes=2, copies=2, restores=3, wipes=1, told=1),
    Budget(sends=3, crashes=1, copies=1, clones=1, ends=1),
    Budget(sends=3, crashes=2, copies=1, restores=1, wipes=1, clones=1, ends=1),
)

Rule = Callable[[], AbstractContextManager[object]]


def no_doubt() -> AbstractContextManager[object]:
    """A further boot of the peer raises no doubt of what the one before has left behind."""
    return patch.object(Synchronisation, "_may_succeed", lambda self, seen: False)


def no_mint() -> AbstractContextManager[object]:
    """What the peer knows of us does not matter."""
    return patch.object(Synchronisation, "_knows_more", lambda self, seen: False)


def no_boots() -> AbstractContextManager[object]:
    """Nor does which boot of ours it adopted last."""
    judge = Synchronisation.judge

    def mutated(self: Synchronisation, seen: Sighting) -> object:
        self._boots.add(seen.recipient_boot)
        return judge(self, seen)

    return patch.object(Synchronisation, "judge", mutated)


def no_renewal() -> AbstractContextManager[object]:
    """The challenge stays what it was when a peer is adopted."""
    adopt = Synchronisation.adopt

    def mutated(self: Synchronisation, seen: Sighting) -> None:
        challenge = self.challenge
        adopt(self, seen)
        self.challenge = challenge

    return patch.object(Synchronisation, "adopt", mutated)


class RestartTests(SynchronousTestCase):
    """The rules of L{hoft.protocols.synchronisation}."""

    def assertHolds(self, searched: Searched, what: object) -> None:
        steps = "\n".join(searched.path)
        self.assertEqual(searched.broken, "", f"{what}:\n{steps}")

    def test_every_way_as_far_as_the_search_goes(self) -> None:
        """Breadth first: whatever happens, and whatever is delivered when."""
        for budget in BUDGETS:
            searched = search(found(budget), MODEL_STATES, rests=20)
            self.assertHolds(searched, budget)
            self.assertGreaterEqual(searched.depth, 3)

    def test_farther_at_random(self) -> None:
        """More of everything in one life than a search can go through."""
        for budget in FARTHER:
            start = found(budget)
            for seed in range(MODEL_WALKS):
                self.assertHolds(walk(start.copy(), Random(seed), 24), f"{budget}, seed {seed}")

    def assertNeeded(self, without: Rule, budget: Budget, walks: int = 3000) -> None:
        with without():
            start = found(budget)
            if any(walk(start.copy(), Random(seed), 18).broken for seed in range(walks)):
                return
        self.fail(f"nothing breaks without this rule: {without.__doc__}")

    def test_rules_are_needed(self) -> None:
        """Without any of these something is lost in silence, or alarm is given where all is well."""
        self.assertNeeded(no_mint, Budget(sends=3, copies=2, restores=2))
        self.assertNeeded(no_renewal, Budget(sends=1, crashes=2))

    def test_rules_are_needed_in_rare_cases(self) -> None:
        """Without these it takes some hundred walks until something is lost."""
        self.assertNeeded(no_boots, Budget(sends=2, crashes=1, clones=1, ends=1))
        self.assertNeeded(no_doubt, Budget(sends=2, copies=1, restores=1))

    if SOAK == 1:
        test_rules_are_needed_in_rare_cases.skip = "takes seconds"  # type: ignore[attr-defined]  # trial's way
