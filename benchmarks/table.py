"""How figures are shown."""

from __future__ import annotations

from attrs import frozen


@frozen
class Row:
    """One line: what was measured, the figure, how it compares, and which bar it had to meet."""

    what: str
    figure: str
    ratio: str = ""
    bar: str = ""


def bar_below(value: float, bar: float, unit: str) -> str:
    """Whether a figure is low enough."""
    return f"{'met' if value < bar else 'MISSED'}: under {bar:g} {unit}"


def bar_at_least(value: float, bar: float, unit: str) -> str:
    """Whether a figure is high enough."""
    return f"{'met' if value >= bar else 'MISSED'}: at least {bar:g} {unit}"


def show(title: str, rows: list[Row]) -> str:
    """A table, its title above it."""
    widths = [max(len(text) for text in column) for column in zip(*map(_texts, rows), strict=True)]
    lines = [title, "-" * len(title)]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(_texts(row), widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _texts(row: Row) -> tuple[str, str, str, str]:
    return row.what, row.figure, row.ratio, row.bar
