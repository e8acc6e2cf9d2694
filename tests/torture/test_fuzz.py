"""All decoders under fire: the declared error, or what was meant; nothing else."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import environment
from tests.torture.figures import ANYTHING, DAMAGED, FUZZED, SOAK
from tests.torture.progress import Progress
from tests.torture.targets import TARGETS
from tests.torture.test_codec import Mutation

MEMORY = 256
"""MiB that a fuzzer's process may take."""

HANGING = 60
"""Seconds after which an input counts as hanging: of a clock on the wall; L{fuzzing} has a finer measure."""


class DecoderTests(SynchronousTestCase):
    """Each of L{TARGETS}."""

    def test_as_it_is_meant(self) -> None:
        """What the targets begin with is decoded, so that damage to it leads somewhere."""
        for target in TARGETS.values():
            for seed in target.seeds:
                target.run(seed)

    @settings(derandomize=True, deadline=None, max_examples=ANYTHING, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(TARGETS)), st.binary(max_size=300))
    def test_anything(self, name: str, data: bytes) -> None:
        """Bytes that nobody made."""
        TARGETS[name].run(data)

    def test_damaged(self) -> None:
        """Bytes that were right once."""
        mutation = Mutation(11)
        chance = Random(12)
        for target in TARGETS.values():
            for _ in range(DAMAGED // len(TARGETS)):
                target.run(mutation.damage(chance.choice(target.seeds), list(target.seeds)))

    def test_libfuzzer(self) -> None:
        """Led by what each input reaches, within bounded memory and time."""
        runs = FUZZED // len(TARGETS)
        progress = Progress("inputs of libFuzzer", runs * len(TARGETS))
        for name in TARGETS:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "tests.torture.fuzzing",
                    name,
                    f"-runs={runs}",
                    "-seed=1",
                    "-max_len=4096",
                    f"-timeout={HANGING}",
                    f"-rss_limit_mb={MEMORY}",
                ],
                env=environment(),
                capture_output=True,
                text=True,
            )
            replay = f"Replay: python -m tests.torture.fuzzing {name} FILE, with the file that is named above"
            self.assertEqual(done.returncode, 0, f"{name}: {done.stderr[-3000:]}\n{replay}")
            progress.step(f"{name} done, nothing found", runs)

    if SOAK == 1:
        test_libfuzzer.skip = "takes minutes; HOFT_SOAK=2 or more runs it"  # type: ignore[attr-defined]  # trial's way
    elif find_spec("atheris") is None:
        test_libfuzzer.skip = "there is no atheris"  # type: ignore[attr-defined]  # trial's way
