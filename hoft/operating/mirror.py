"""
C{hoft mirror}: a carrier for tries and tests, as bad as asked.
"""

from __future__ import annotations

import os
from argparse import Namespace

from hoft.mirror import Faults, Mirror, carry


def mirror(options: Namespace) -> int:
    """C{hoft mirror}: carry files between two folders, as badly as asked."""
    faults = Faults(options.truncate, options.lose, options.duplicate, options.corrupt, options.delay)
    seed = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    return carry(
        Mirror(options.source, options.target, faults, seed, options.both, options.copy), options.every
    )
