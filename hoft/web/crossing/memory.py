"""
How much of bodies may be in memory.
"""

from __future__ import annotations

from typing import Final

TOTAL: Final = 128 << 20
"""Bytes that all exchanges of one side of a node share."""

MOST: Final = 2 << 20
"""Bytes that one exchange has at most: more does not make it faster."""

LEAST: Final = 1 << 17
"""Bytes that it has in any case: with less, each record would be a turn of its own."""


def share(exchanges: int) -> int:
    """The bytes that one of so many exchanges may hold."""
    return max(LEAST, min(MOST, TOTAL // max(1, exchanges)))
