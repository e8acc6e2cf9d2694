"""How long a peer takes to give a sign of life."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import LocalError
from hoft.probing import probe
from tests.protocols.nodes import Pair, lost


class ProbeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = Pair(self)
        self.pair.start()
        self.links = {"far": self.pair.near.link}

    def ask(self, patience: object = 10.0) -> dict[str, float | None]:
        asked = probe(self.pair.clock, self.pair.clock.seconds, self.links, patience)
        self.pair.advance(60)
        return self.successResultOf(asked)

    def test_a_peer_that_is_there_answers_at_once_though_nothing_is_under_way(self) -> None:
        seconds = self.ask()["far"]
        assert seconds is not None
        self.assertLess(seconds, 0.5)

    def test_the_carriers_delay_counts_both_ways(self) -> None:
        self.pair.deliver = lambda *file: ((2.0, file[3]),)
        seconds = self.ask()["far"]
        assert seconds is not None
        self.assertTrue(4 <= seconds < 4.5, seconds)

    def test_what_was_heard_before_is_no_answer(self) -> None:
        self.pair.deliver = lost
        self.assertEqual(self.ask(), {"far": None})

    def test_a_peer_that_was_never_heard_is_greeted(self) -> None:
        self.pair.near.crash()
        self.pair.deliver = lost
        self.pair.near.start()
        self.pair.advance(300)
        self.pair.deliver = lambda *file: ((0.0, file[3]),)
        self.links = {"far": self.pair.near.link}
        seconds = self.ask()["far"]
        assert seconds is not None
        self.assertLess(seconds, 0.5)

    def test_who_does_not_wait_any_more_leaves_nothing_behind(self) -> None:
        self.pair.deliver = lost
        looks: list[float] = []

        def clock() -> float:
            looks.append(self.pair.clock.seconds())
            return looks[-1]

        asked = probe(self.pair.clock, clock, self.links, 3600.0)
        self.pair.advance(10)
        self.assertGreater(len(looks), 100)
        asked.cancel()
        self.assertEqual(self.successResultOf(asked), {"far": None})
        looks.clear()
        self.pair.advance(10)
        self.assertEqual(looks, [])

    def test_a_patience_that_is_none(self) -> None:
        for patience in (None, "1", -1, 1e9, float("nan"), [1]):
            self.assertRaises(LocalError, probe, self.pair.clock, lambda: 0.0, self.links, patience)
