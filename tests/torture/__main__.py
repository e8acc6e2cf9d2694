"""
C{python -m tests.torture SEED MESSAGES}: one life of L{tests.torture.lifetime} again, as a failing test says;
C{--machine}: so many examples of L{tests.torture.machine} again.
"""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import nullcontext

from tests.torture.lifetime import live, plan_of
from tests.torture.machine import run_examples
from tests.torture.mutants import MUTANTS
from tests.torture.tracing import Trace


def main() -> None:
    """Live through it; a broken promise ends in a traceback."""
    mutants = {mutant.__name__: mutant for mutant in MUTANTS}
    parser = ArgumentParser("python -m tests.torture", description="One life of two nodes, from its seed.")
    parser.add_argument("seed", type=int)
    parser.add_argument("messages", type=int, nargs="?", default=200)
    parser.add_argument("--trace", action="store_true", help="write each event and packet to standard output")
    parser.add_argument(
        "--machine", type=int, metavar="EXAMPLES", help="of the state machine instead, with this seed"
    )
    parser.add_argument("--mutant", choices=mutants, help="with this bug planted")
    options = parser.parse_args()
    if options.machine:
        run_examples(options.machine, options.seed)
        return
    trace = Trace() if options.trace else None
    with mutants[options.mutant]() if options.mutant else nullcontext():
        world = live(plan_of(options.seed, options.messages), trace)
    print(f"{world.files} files, {dict(world.channel.counts)}, trace {world.trace}")


if __name__ == "__main__":
    main()
