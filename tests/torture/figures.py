"""
How much the long tests do: in C{make test}, in continuous integration (C{HOFT_SOAK=5}), and in
C{make soak} (C{HOFT_SOAK=100}).

What each proves, and how long it takes, is in C{docs/testing.rst}.  Tests of this package that are not
named here do C{HOFT_SOAK} times what they do in C{make test}, or as much more as their own modules say.
"""

from __future__ import annotations

import os

SOAK = int(os.environ.get("HOFT_SOAK", "1"))
"""1 in C{make test}, 5 in continuous integration, 100 in C{make soak}; anything between is allowed."""


def scaled(each_run: int, soak: int) -> int:
    """As many as in C{make test}; with C{HOFT_SOAK} above 1, so many hundredths of as many as in a soak."""
    return each_run if SOAK == 1 else soak * SOAK // 100


LIVES = scaled(300, 10_000)
"""Lives of two nodes (C{test_lifetimes.py}), of L{MESSAGES} each."""
MESSAGES = 1_000
LIVES_TWICE = scaled(1, 1_000)
"""Lives that are lived twice, to the same trace, of a tenth of the messages."""

MACHINES = scaled(200, 50_000)
"""Examples of Hypothesis' state machine (C{test_stateful.py}), of L{STEPS} each."""
STEPS = 50

KILLS = scaled(12, 2_000)
"""C{kill -9} of real processes under load (C{test_kill.py})."""
KILLS_MIRRORED = scaled(0, 300)
"""The same while careless mirrors carry."""

FUZZED = scaled(0, 10_000_000)
"""Inputs that libFuzzer makes, over all decoders together (C{test_fuzz.py})."""
DAMAGED = scaled(5_000, 500_000)
"""Inputs made of good ones, over all decoders together (C{test_fuzz.py})."""
ANYTHING = scaled(60, 6_000)
"""Inputs that Hypothesis makes (C{test_fuzz.py})."""
CODEC = scaled(20_000, 2_000_000)
"""Inputs for each of the five parts of a packet, with what comes out compared (C{test_codec.py})."""

MUTANT_SEEDS = 500
"""One of so many lives is to catch a planted bug (C{test_mutants.py}); C{HOFT_SOAK=2} and more plant all."""

MODEL_STATES = scaled(1_000, 100_000)
"""States of the model of restarts that are searched exhaustively, for each budget (C{test_restarts.py})."""
MODEL_WALKS = scaled(50, 5_000)
"""And walks through it at random."""
