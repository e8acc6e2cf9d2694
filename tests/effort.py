"""What something costs, however busy the machine is."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def least_seconds(work: Callable[[], object], runs: int = 3) -> float:
    """
    What C{work} takes of this thread's processor time, in the quickest of some runs: other processes,
    and garbage of those before us, do not count.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return min(_seconds(work) for _ in range(runs))
    finally:
        if collecting:
            gc.enable()


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
