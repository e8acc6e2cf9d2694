"""
How much is read from a socket at once.
"""

from __future__ import annotations

from typing import Final

USUAL_READ: Final = 1 << 16
"""Bytes, as Twisted has it; whoever fills this sends a large body."""

LARGE_READ: Final = 1 << 18
"""
Bytes for the rest of a large body: fewer turns of the reactor, and fewer calls in each.

Not from the start: so much memory is asked of the system for each read, and given back.
"""
