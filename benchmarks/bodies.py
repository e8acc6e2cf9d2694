"""The bodies that service and load generator send each other, and check without a digest's cost."""

from __future__ import annotations

import random

SMALL = b'{"answer": "a small one", "items": [1, 2, 3, 4, 5, 6, 7, 8], "note": "as APIs return all day"}\n'

PERIOD = 1_048_573
"""A prime: a piece of any usual size that came to another place is seen."""

_BLOCK = random.Random(20).randbytes(PERIOD)
# Not bytes: what is compared to a bytearray is compared by memcmp, a memoryview to another byte by byte.
_TWICE = bytearray(_BLOCK * 2)
_VIEW = memoryview(_TWICE)


def piece(at: int, size: int) -> memoryview:
    """C{size} bytes, L{PERIOD} at most, of the large body that begin at C{at}; incompressible."""
    start = at % PERIOD
    return _VIEW[start : start + size]


def matches(at: int, data: bytes | memoryview) -> bool:
    """Whether these are the bytes of the large body that begin at C{at}."""
    for done in range(0, len(data), PERIOD):
        start = (at + done) % PERIOD
        here = memoryview(data)[done : done + PERIOD]
        if _TWICE[start : start + len(here)] != here:
            return False
    return True
