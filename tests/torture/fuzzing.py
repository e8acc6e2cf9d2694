"""
C{python -m tests.torture.fuzzing TARGET [OPTIONS]}: a decoder under libFuzzer, led by coverage.

OPTIONS are libFuzzer's, as C{-runs=100000}, C{-seed=7}, or the file with an input that it has found.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["hoft"]):
    from tests.torture.targets import TARGETS

LONGEST = 0.05
"""Seconds of processor time that no input may take, though what leads the fuzzer slows the decoders down."""


class TooSlow(AssertionError):
    """An input takes too long."""


def bounded(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """
    C{run}, and it does not take long.

    @raise TooSlow: it did, three times: one may be the machine's.
    """

    def seconds(data: bytes) -> float:
        before = time.thread_time()
        run(data)
        return time.thread_time() - before

    def run_bounded(data: bytes) -> None:
        if seconds(data) > LONGEST:
            least = min(seconds(data) for _ in range(3))
            if least > LONGEST:
                raise TooSlow(f"{len(data)} bytes take {least * 1000:.0f} ms")

    return run_bounded


def main() -> None:
    """Ends with code 0 if nothing was found; else the input is written to a file, as libFuzzer does."""
    target = TARGETS[sys.argv[1]]
    gc.freeze()
    with TemporaryDirectory() as corpus:
        for at, seed in enumerate(target.seeds):
            Path(corpus, str(at)).write_bytes(seed)
        inputs = [one for one in sys.argv[2:] if not one.startswith("-")]
        atheris.Setup([sys.argv[0], *sys.argv[2:], *([] if inputs else [corpus])], bounded(target.run))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
