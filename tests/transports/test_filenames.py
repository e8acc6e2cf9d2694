"""
Names of packet files.
"""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hoft.transports.filenames import FileName, published

ALICE, BOB = UUID(int=0xA11CE << 100), UUID(int=0xB0B)
NAME = FileName(ALICE, BOB, 0xFEDC, 42)


class FileNameTests(SynchronousTestCase):
    """Every packet has one name, and nothing else is one."""

    @settings(derandomize=True, deadline=None)
    @given(st.uuids(), st.uuids(), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
    def test_roundTrip(self, sender: UUID, recipient: UUID, boot: int, number: int) -> None:
        """A name says again what it was made of."""
        name = FileName(sender, recipient, boot, number)
        text = str(name)
        self.assertEqual(FileName.parse(text), name)
        self.assertEqual(published(name.temporary), name)
        self.assertEqual(len(text), 114)
        self.assertEqual(text, text.lower())

    def test_worked(self) -> None:
        """The form is the one that is documented."""
        self.assertEqual(
            str(NAME),
            "00a11ce0-0000-0000-0000-000000000000--00000000-0000-0000-0000-000000000b0b"
            "--000000000000fedc-000000000000002a.hoft",
        )

    def test_sortsByAge(self) -> None:
        """Of one process, names sort in the order in which they were given out."""
        names = [str(FileName(ALICE, BOB, 1, number)) for number in (1, 2, 15, 16, 255, 2**40, 2**64 - 1)]
        self.assertEqual(names, sorted(names))

    def test_nothingElse(self) -> None:
        """Whatever is not exactly a name is none."""
        good = str(NAME)
        for bad in (
            "",
            good + "\n",
            " " + good,
            good + "~",
            good + ".part",
            "." + good,
            good.upper(),
            good.replace("-", "_"),
            good[:-1],
            good[1:],
            "x/" + good,
            "../" + good,
            good.replace("42", "4\uff12"),
            good.replace("000000000000002a", "00000000000002a"),
            good.replace("000000000000002a", "000000000000002\u0661"),
            good.replace("000000000000002a", "+00000000000002a"),
            good.replace(".hoft", "xhoft"),
        ):
            if bad != good:
                self.assertIsNone(FileName.parse(bad), repr(bad))

    def test_temporary(self) -> None:
        """A temporary name is hidden, and is no packet's."""
        self.assertTrue(NAME.temporary.startswith("."))
        self.assertIsNone(FileName.parse(NAME.temporary))
        self.assertIsNone(published(str(NAME)))
