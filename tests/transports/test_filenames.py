"""
Names of packet files.
"""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hoft.transports.filenames import LONG, FileName, LongNaming, ShortNaming

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
        self.assertEqual(LONG.published(LONG.temporary(text)), name)
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
        text = LONG.temporary(str(NAME))
        self.assertTrue(text.startswith("."))
        self.assertIsNone(FileName.parse(text))
        self.assertIsNone(LONG.published(str(NAME)))


class OtherNamingTests(SynchronousTestCase):
    """Names for carriers that do not pass the usual ones."""

    def test_affixes(self) -> None:
        """A prefix and another suffix; what lacks one of them is no packet."""
        naming = LongNaming("tx_", ".txt")
        text = naming.text(NAME)
        self.assertEqual(text, f"tx_{str(NAME)[:-5]}.txt")
        self.assertEqual(naming.parse(text), NAME)
        self.assertEqual(naming.published(naming.temporary(text)), NAME)
        for bad in (str(NAME), text[3:], text[:-4], text.upper(), f"{text}.txt", f"tx_{text}"):
            self.assertIsNone(naming.parse(bad), bad)

    @settings(derandomize=True, deadline=None)
    @given(st.integers(0, 2**64 - 1), st.integers(1, 2**64 - 1))
    def test_short(self, boot: int, number: int) -> None:
        """Eight characters, a dot and three; the next number has another name; case does not matter."""
        naming = ShortNaming()
        text, after = (naming.text(FileName(ALICE, BOB, boot, each)) for each in (number, number + 1))
        self.assertRegex(text, "^[a-z2-7]{8}[.]hof$")
        self.assertNotEqual(text, after)
        parsed = naming.parse(text.upper())
        assert parsed is not None
        self.assertEqual((parsed.sender, parsed.recipient), (None, None))
        self.assertEqual(parsed, naming.parse(text))
        self.assertRegex(naming.temporary(text), "^[a-z2-7]{8}[.]tmp$")
        self.assertTrue(naming.is_temporary(naming.temporary(text).upper()))
        self.assertIsNone(naming.parse(naming.temporary(text)))

    def test_shortNothingElse(self) -> None:
        """Whatever is not exactly such a name is none."""
        for bad in (
            "",
            "abcdefgh",
            "abcdefg.hof",
            "abcdefghi.hof",
            "abcdefg1.hof",
            "abcdefgh.hoft",
            "a/cdefgh.hof",
        ):
            self.assertIsNone(ShortNaming().parse(bad), bad)

    def test_shortFolders(self) -> None:
        """Folders have names of eight characters, other ones for other nodes."""
        folders = {ShortNaming().folder(UUID(int=number)) for number in range(500)}
        self.assertEqual(len(folders), 500)
        self.assertEqual(ShortNaming().folder(ALICE), "qymvyblo")
        for folder in folders:
            self.assertRegex(folder, "^[a-z2-7]{8}$")
