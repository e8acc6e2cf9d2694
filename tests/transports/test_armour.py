"""
Text armour.
"""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hoft.testing.harness import pattern
from hoft.transports.armour import LINE, MARK, WIDTH, Armour, begins, capacity, take_off


def armoured(*pieces: bytes) -> bytes:
    """The text of a file that is written in these pieces."""
    armour = Armour()
    return b"".join([*map(armour.put_on, pieces), armour.close()])


class ArmourTests(SynchronousTestCase):
    """Bytes as text, and back from what carriers make of it."""

    @settings(derandomize=True, deadline=None)
    @given(st.lists(st.binary(max_size=200), max_size=6), st.integers(0, 500))
    def test_roundTrip(self, pieces: list[bytes], cut: int) -> None:
        """Whatever pieces it is written in, and read in: the bytes are the same."""
        text = armoured(*pieces)
        self.assertEqual(take_off(text, first=True, last=True), (b"".join(pieces), len(text)))
        before, used = take_off(text[:cut], first=True, last=False)
        if used:
            after, _ = take_off(text[used:], first=False, last=True)
            self.assertEqual(before + after, b"".join(pieces))

    def test_text(self) -> None:
        """Lines are bounded, ASCII, and free of what filters and shells take offence at."""
        text = armoured(bytes(range(256)) * 40)
        self.assertEqual(text.splitlines()[0], MARK)
        self.assertEqual(max(map(len, text.splitlines())), WIDTH)
        self.assertRegex(text, rb"\A[!#-&(-+;-Z^-z{|}~0-9\n-]*\Z")
        self.assertIsNone(re.search(rb"[\"',./\\\[\]: \t]", text))

    def test_overhead(self) -> None:
        """It costs what is said, and C{capacity} knows it."""
        data = pattern(600_000)
        text = armoured(data)
        self.assertLess(len(text) / len(data), 1.267)
        crlf = text.replace(b"\n", b"\r\n")
        self.assertLess(len(crlf) / len(data), 1.284)
        for size in (0, 100, 1000, 131072, 999_999):
            fitting = armoured(pattern(capacity(size))).replace(b"\n", b"\r\n")
            if capacity(size):
                self.assertLessEqual(len(fitting), size)
                self.assertGreater(len(fitting), size - 2 * (WIDTH + 2))

    def test_lineEnds(self) -> None:
        """Other line ends, empty lines, spaces around lines, more or fewer line ends: no harm."""
        data = pattern(1000)
        text = armoured(data)
        for changed in (
            text.replace(b"\n", b"\r\n"),
            text.replace(b"\n", b"\r"),
            text.replace(b"\n", b"\n\n"),
            text.replace(b"\n", b"  \r\n"),
            text.rstrip(b"\n"),
            text + b"\r\n\r\n\n",
            text + bytes(500),
        ):
            self.assertEqual(take_off(changed, first=True, last=True)[0], data)

    def test_cut(self) -> None:
        """A cut file gives up all that its whole lines bring, and what is left of the last."""
        data = pattern(3000)
        text = armoured(data).replace(b"\n", b"\r\n")
        for cut in range(len(text)):
            got, _ = take_off(text[:cut], first=True, last=True)
            whole = text[:cut].count(b"\r\n") - 1
            self.assertGreaterEqual(len(got), min(whole * LINE, len(data)))
            sure = len(got) - 4 if len(got) % LINE else len(got)
            self.assertEqual(got[: max(sure, 0)], data[: max(sure, 0)])

    def test_damaged(self) -> None:
        """A damaged line costs itself: what follows stays in its place."""
        data = pattern(600)
        lines = armoured(data).splitlines()
        for damage in (b"\xff" * WIDTH, b"~" * WIDTH, b"short", lines[4] + b"x", b"A B" + lines[4][3:]):
            got, _ = take_off(b"\n".join([*lines[:4], damage, *lines[5:], b""]), first=True, last=True)
            self.assertEqual(len(got), len(data))
            self.assertEqual((got[:180], got[240:]), (data[:180], data[240:]))

    def test_unfinishedLine(self) -> None:
        """A line without an end waits for it, unless it is as long as any; what never ends is no line."""
        text = armoured(pattern(200))
        self.assertEqual(take_off(text[:-1], first=True, last=False)[1], len(MARK) + 1 + 3 * (WIDTH + 1))
        for more in range(WIDTH):
            self.assertEqual(take_off(text[: 9 + more], first=True, last=False), (b"", 9))
        self.assertEqual(len(take_off(text[: 9 + WIDTH], first=True, last=False)[0]), LINE)
        endless = MARK + b"A" * 5000
        self.assertEqual(take_off(endless, first=True, last=False)[1], len(endless))

    def test_begins(self) -> None:
        """Armour is known by its mark; of less than that one cannot tell yet."""
        self.assertIs(begins(b""), False)
        self.assertIsNone(begins(MARK[:1]))
        self.assertIsNone(begins(MARK[:-1]))
        self.assertIs(begins(MARK), True)
        self.assertIs(begins(b"hoft"), False)
        self.assertIs(begins(b"hoft" * 10), False)

    @settings(derandomize=True, deadline=None)
    @given(st.binary(max_size=2000), st.booleans(), st.booleans())
    def test_anything(self, text: bytes, first: bool, last: bool) -> None:
        """No text is an error, and none gives more than it has."""
        got, used = take_off(text, first, last)
        self.assertLessEqual(used, len(text))
        self.assertLessEqual(
            len(got), LINE * (text.count(b"\n") + text.count(b"\r") + 1 + len(text) // WIDTH)
        )
