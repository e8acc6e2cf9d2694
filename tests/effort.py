"""What something costs, however busy the machine is."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

MOST = 10_000_000
"""Steps after which what is measured counts as endless: they take some seconds."""


class Endless(AssertionError):
    """What was to end soon was stopped."""


def steps(work: Callable[[], object], most: int = MOST) -> int:
    """
    How many lines of Python C{work} goes through in this thread: each round of a loop counts, and each call.

    That is the same on every machine at every time.  What a function of C does by itself is not seen:
    where that is in question there is L{least_seconds}.

    @raise Endless: more than C{most}.
    """
    taken = 0

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal taken
        if event in ("call", "line"):
            taken += 1
            if taken > most:
                raise Endless(f"more than {most} steps")
        return step

    before = sys.gettrace()
    with _uncollected():
        sys.settrace(step)
        try:
            work()
        finally:
            sys.settrace(before)
    return taken


def least_seconds(work: Callable[[], object], runs: int = 5) -> float:
    """
    What C{work} takes of this thread's processor time, in the quickest of some runs; garbage of those
    before us does not count.

    A busy machine makes this several times what it is on an idle one, whatever the runs: it tells what
    takes milliseconds from what takes a second, and no more.
    """
    with _uncollected():
        return min(_seconds(work) for _ in range(runs))


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
