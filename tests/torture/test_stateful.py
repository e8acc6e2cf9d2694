"""Two nodes with their journals, and somebody who tries everything on them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.torture.figures import MACHINES, SOAK
from tests.torture.machine import run_examples
from tests.torture.progress import Progress

BATCH = 250
"""Examples with one seed."""


class StatefulTests(SynchronousTestCase):
    """What two nodes promise."""

    def test_two_nodes(self) -> None:
        """However it is done, it comes to rest with nothing lost or doubled in silence."""
        if SOAK == 1:
            run_examples(MACHINES)
            return
        progress = Progress("examples of the state machine", MACHINES)
        for seed in range(MACHINES // BATCH):
            try:
                run_examples(BATCH, seed)
            except Exception as error:
                progress.say("\n".join(getattr(error, "__notes__", ())))
                progress.say(f"Replay: python -m tests.torture {seed} --machine {BATCH}")
                raise
            progress.step("nothing found", BATCH)
