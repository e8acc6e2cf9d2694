"""
Text armour: a file as lines of base85, for carriers that pass only text; pure.

The first line is L{MARK}; each further one carries L{LINE} bytes in L{WIDTH}
characters, the last one fewer, in the alphabet of RFC 1924: printable ASCII
without space, quotes, comma, slash or backslash.  Where lines end may be
written in any way, empty lines and spaces around a line mean nothing: so the
file survives what turns LF into CRLF and what adds or strips line ends.  Each
line is decoded by itself: a cut file gives up all whole lines, and a damaged
line costs the packet's frames that it touches, and no others.

A byte costs 1.267 (with CRLF 1.284) bytes.  A file that is read is armoured if
it begins with the mark, whatever the reader's own carrier is.
"""

from __future__ import annotations

import re
from base64 import b85decode, b85encode

MARK = b"~hoft85~"
"""The first line.  No packet begins so."""

LINE = 60
WIDTH = 75

_NO_LINE = 4096
"""What goes on for so many characters is not going to be a line."""

_LINE_END = re.compile(rb"[\r\n]+")
_BLANK = b" \t\r\n\0"


def capacity(size: int) -> int:
    """The most bytes whose armour takes no more than C{size}, with line ends of two characters."""
    return max(0, size - len(MARK) - 2) // (WIDTH + 2) * LINE


class Armour:
    """Puts on the armour, piece by piece."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False

    def put_on(self, piece: bytes) -> bytes:
        """The text to write next; it may lag behind by less than a line."""
        data = self._rest + piece
        whole = len(data) - len(data) % LINE
        self._rest = data[whole:]
        return self._lines(data[:whole])

    def close(self) -> bytes:
        """The rest of the text."""
        rest, self._rest = self._rest, b""
        return self._lines(rest)

    def _lines(self, data: bytes) -> bytes:
        text = b85encode(data)
        lines = [text[at : at + WIDTH] for at in range(0, len(text), WIDTH)]
        if not self._begun:
            self._begun = True
            lines.insert(0, MARK)
        return b"\n".join([*lines, b""])


def begins(text: bytes) -> bool | None:
    """Whether a file that begins so is armoured; L{None} if that cannot be told yet."""
    if len(text) < len(MARK):
        return None if text and MARK.startswith(text) else False
    return text.startswith(MARK)


def portion(text: bytes, most: int) -> bytes:
    """The beginning of it whose lines, as short as they may be, count as no more than C{most} bytes."""
    while (text.count(b"\n") + text.count(b"\r")) * LINE > most and len(_lines(text)) * LINE > most:
        text = text[: len(text) // 2]
    return text


def take_off(text: bytes, first: bool, last: bool, more: bool = False) -> tuple[bytes, int]:
    """
    Decode lines.

    @param first: C{text} begins with the mark.
    @param last: nothing will follow: what looks like a part of a line is one.
    @param more: something follows already: no line is shorter than others.
    @return: the bytes, and how much of C{text} they are; what is left is a line
        that has no end yet.
    """
    used = len(text)
    if not last and not text.endswith((b"\n", b"\r")):
        used = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        if len(text) - used == WIDTH or (not used and len(text) > _NO_LINE):
            used = len(text)
    lines = _lines(text[:used])
    if first and lines:
        del lines[0]
    return _decoded(lines, more), used


def _lines(text: bytes) -> list[bytes]:
    lines = [line.strip(_BLANK) for line in _LINE_END.split(text)]
    return [line for line in lines if line]


def _decoded(lines: list[bytes], more: bool) -> bytes:
    last = -1 if more else len(lines) - 1
    if all(len(line) == WIDTH or (index == last and len(line) < WIDTH) for index, line in enumerate(lines)):
        try:
            return b85decode(b"".join(lines))
        except ValueError:
            pass  # some line is damaged: find out which
    return b"".join(_line(line, index == last) for index, line in enumerate(lines))


def _line(line: bytes, last: bool) -> bytes:
    """A damaged line counts as zeros, so that what follows stays in its place."""
    if len(line) != WIDTH and not (last and len(line) < WIDTH):
        return bytes(LINE)
    for end in (len(line), len(line) // 5 * 5):  # what is cut within a group may be none
        try:
            return b85decode(line[:end])
        except ValueError:
            continue
    return bytes(LINE)
