"""C{python -m tests.torture.fuzzing TARGET [OPTIONS]}: a decoder under libFuzzer, led by coverage."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["hoft"]):
    from tests.torture.targets import TARGETS


def main() -> None:
    """Ends with code 0 if nothing was found; else the input is written to a file, as libFuzzer does."""
    target = TARGETS[sys.argv[1]]
    with TemporaryDirectory() as corpus:
        for at, seed in enumerate(target.seeds):
            Path(corpus, str(at)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *sys.argv[2:], corpus], target.run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
