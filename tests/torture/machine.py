"""Two nodes with their journals: Hypothesis chooses what happens to them, and shortens what fails."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from hoft.testing.channel import Faults
from tests.torture.figures import STEPS
from tests.torture.lifetime import MEMORY, Plan, World
from tests.torture.node import Node

WHICH = st.sampled_from(("near", "far"))
FAULTS = st.builds(
    Faults,
    lose=st.sampled_from((0.0, 0.3, 1.0)),
    truncate=st.sampled_from((0.0, 0.5)),
    duplicate=st.sampled_from((0.0, 0.5)),
    flip=st.sampled_from((0.0, 0.2)),
    zeros=st.sampled_from((0.0, 0.2)),
    delay=st.sampled_from((0.01, 1.0)),
    spread=st.sampled_from((0.1, 1.5)),
)


class TwoNodes(RuleBasedStateMachine):
    """The world of the lifetimes, with somebody else to decide what happens when."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.world = World(Plan(0), Path(self.folder.name))
        self.message = 0
        for node in self.world.nodes():
            node.start()

    def node(self, name: str) -> Node:
        return self.world.near if name == "near" else self.world.far

    @rule(which=WHICH, size=st.sampled_from((0, 10, 3000, 60000)), count=st.integers(1, 5))
    def send(self, which: str, size: int, count: int) -> None:
        life = self.node(which).life
        messages = [(self.message + at + 1, size) for at in range(count)]
        self.message += count
        if life is not None:
            life.send(messages)

    @rule(seconds=st.sampled_from((0.001, 0.01, 0.1, 1.0, 10.0)))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(faults=FAULTS)
    def carrier(self, faults: Faults) -> None:
        self.world.channel.faults = faults

    @rule(which=WHICH)
    def kill(self, which: str) -> None:
        self.node(which).crash()

    @rule(which=WHICH)
    def start(self, which: str) -> None:
        self.node(which).start()

    @rule(which=WHICH)
    def back_up(self, which: str) -> None:
        self.node(which).back_up()

    @rule(which=WHICH, told=st.booleans())
    def restore(self, which: str, told: bool) -> None:
        self.node(which).restore(told)
        self.node(which).start()

    @rule(which=WHICH)
    def cut_power(self, which: str) -> None:
        node = self.node(which)
        node.threaten()
        self.world.advance(0.05)
        node.cut_power()

    @rule(which=WHICH)
    def wipe(self, which: str) -> None:
        self.node(which).wipe()
        self.node(which).start()

    @precondition(lambda self: not self.world.cloned)
    @rule(which=WHICH)
    def clone(self, which: str) -> None:
        self.world.start_clone(self.node(which))

    def teardown(self) -> None:
        try:
            self.world.settle()
        finally:
            for node in self.world.nodes():
                node.crash()
            self.folder.cleanup()


def run_examples(count: int, seed: int | None = None) -> None:
    """
    So many examples, of L{STEPS} each.

    @param seed: which ones; without it always the same.
    @raise tests.torture.life.Violation: a promise was broken; the notes of the exception tell by what steps.
    """
    machine: type[TwoNodes] = TwoNodes
    if seed is not None:
        machine = hypothesis.seed(seed)(type("TwoNodes", (TwoNodes,), {}))
    run_state_machine_as_test(
        machine,
        settings=hypothesis.settings(
            derandomize=seed is None,
            deadline=None,
            max_examples=count,
            stateful_step_count=STEPS,
            suppress_health_check=list(hypothesis.HealthCheck),
            database=None,
        ),
    )
