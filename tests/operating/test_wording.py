"""Numbers and strangers' words, as they are shown."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.operating.wording import duration, printable, size


class WordingTests(SynchronousTestCase):
    def test_sizes_have_up_to_three_digits(self) -> None:
        for count, shown in (
            (0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1536, "1.5 KiB"), (10 << 10, "10 KiB"),
            (1 << 20, "1.0 MiB"), (999 << 20, "999 MiB"), (5 << 40, "5.0 TiB"), (5000 << 40, "5000 TiB"),
        ):  # fmt: skip
            self.assertEqual(size(count), shown)

    def test_durations_have_the_unit_that_fits(self) -> None:
        for seconds, shown in (
            (0, "0 ms"), (0.0854, "85 ms"), (1.24, "1.2 s"), (42, "42 s"), (119, "119 s"), (120, "2 min"),
            (7199, "120 min"), (7200, "2 h"), (172799, "48 h"), (172800, "2 d"), (3.2e7, "370 d"),
        ):  # fmt: skip
            self.assertEqual(duration(seconds), shown)

    def test_what_a_terminal_would_obey_is_written_out(self) -> None:
        self.assertEqual(printable("a\x1b[2Jb\n\u202ec\udcff é"), "a\\x1b[2Jb\\n\\u202ec\\udcff é")
