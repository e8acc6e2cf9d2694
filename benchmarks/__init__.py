"""Figures, never tests: C{make bench}, or one part by C{python -m benchmarks --help}."""
