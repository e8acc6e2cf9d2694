"""What was learned of a carrier, as it is kept."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.estimates import Estimates

LEARNED = Estimates(1.5, 0.2, 3.0, 0.01, 1e-7, 1 << 20)


class EncodingTests(SynchronousTestCase):
    def test_what_was_kept_comes_back(self) -> None:
        self.assertEqual(Estimates.decode(LEARNED.encode()), LEARNED)

    def test_what_another_release_may_have_kept_is_refused(self) -> None:
        for data in (b"", b"[]", b'{"smoothed": 1.5}', LEARNED.encode()[:-1] + b', "more": 1}'):
            with self.subTest(data=data):
                self.assertRaises(ValueError, Estimates.decode, data)
