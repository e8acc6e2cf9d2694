"""
What comes of the bytes that are written, over carriers that cut and lose files: simulated
with the engines of a node (L{hoft.testing.simulation}), and drawn for the documentation.

C{python -m benchmarks.curves [FOLDER]}
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from attrs import frozen

from hoft.testing.channel import Faults
from hoft.testing.simulation import Simulation

TOTAL = 1 << 30
SEEDS = (1, 2, 3, 4, 5, 6)
CUT = tuple(step / 20 for step in range(13))

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 20, 50


@frozen
class Curve:
    """A line of a diagram."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False
    dots: bool = False


def bound(cut: float, lost: float) -> float:
    """What could be had: of a file that is cut anywhere half arrives, on average."""
    return (1 - lost) * (1 - cut / 2)


def whole_files(cut: float, lost: float) -> float:
    """What comes of it where a file that is not whole is worth nothing."""
    return (1 - lost) * (1 - cut)


def efficiency(cut: float, lost: float) -> float:
    """Useful bytes by bytes written, simulated."""
    faults = Faults(truncate=cut, lose=lost)
    return mean(Simulation(faults, seed=seed).transfer(TOTAL) for seed in SEEDS)


def line(value: Callable[[float, float], float], lost: float) -> list[tuple[float, float]]:
    """C{value} over all parts of files that are cut."""
    return [(cut, value(cut, lost)) for cut in CUT]


def svg(title: str, across: str, up: str, curves: Sequence[Curve]) -> str:
    """A diagram whose axes go from 0 to the highest of C{CUT}, and from 0 to 1."""

    def x(value: float) -> float:
        return round(LEFT + value / CUT[-1] * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - value * (HEIGHT - TOP - BOTTOM), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' font-family="sans-serif" font-size="13" fill="#222">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for tenth in range(0, 11, 2):
        level = tenth / 10
        parts.append(f'<path d="M{LEFT} {y(level)}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(level) + 4}" text-anchor="end">{level:.0%}</text>')
    for cut in CUT[::2]:
        parts.append(f'<text x="{x(cut)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{cut:.0%}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{across}</text>')
    middle = HEIGHT / 2 - 15
    parts.append(
        f'<text x="15" y="{middle}" text-anchor="middle" transform="rotate(-90 15 {middle})">{up}</text>'
    )
    for at, curve in enumerate(curves):
        path = " ".join(f"{x(across)},{y(value)}" for across, value in curve.points)
        dashes = ' stroke-dasharray="6 4"' if curve.dashed else ""
        style = f'fill="none" stroke="{curve.colour}" stroke-width="2"{dashes}'
        parts.append(f'<polyline points="{path}" {style}/>')
        if curve.dots:
            parts += [
                f'<circle cx="{x(across)}" cy="{y(value)}" r="3.5" fill="{curve.colour}"/>'
                for across, value in curve.points
            ]
        height = HEIGHT - BOTTOM - 20 * (len(curves) - at) + 6
        parts.append(f'<path d="M{LEFT + 14} {height - 4}h30" {style}/>')
        parts.append(f'<text x="{LEFT + 52}" y="{height}">{curve.name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main(folder: Path) -> None:
    """Simulate, print, and draw into C{folder}."""
    curves = []
    print("cut    lost   efficiency   bound")
    for lost, colour in ((0.0, "#1b6ca8"), (0.05, "#c2571a")):
        found = line(efficiency, lost)
        for cut, value in found:
            print(f"{cut:4.0%}   {lost:4.0%}   {value:10.3f}   {bound(cut, lost):.3f}", flush=True)
        curves.append(Curve(f"hoft, {lost:.0%} of files lost", found, colour, dots=True))
        curves.append(Curve("the bound for that", line(bound, lost), colour, dashed=True))
    curves.append(Curve("whole files sent again, none lost", line(whole_files, 0.0), "#888", dashed=True))
    drawn = svg(
        "Useful bytes by bytes written, over the part of files that are cut",
        "part of files that are cut, anywhere",
        "useful bytes / bytes written",
        curves,
    )
    (folder / "efficiency.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs"))
