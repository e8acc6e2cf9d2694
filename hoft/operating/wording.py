"""Numbers as people read them; pure."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes, in three digits: C{"512 B"}, C{"1.5 MiB"}, C{"230 GiB"}."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds, in the unit that fits: C{"85 ms"}, C{"1.2 s"}, C{"4 min"}, C{"3 h"}, C{"12 d"}."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, length, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def counted(count: int, noun: str) -> str:
    """C{"1 record"}, C{"2 records"}."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str) -> str:
    """C{text} without anything that a terminal would obey: it may come from strangers."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
