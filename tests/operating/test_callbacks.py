"""What an operator reads of callbacks that were not delivered."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hoft.operating.callbacks import lines

DEAD: dict[str, Any] = {
    "id": "5f0c6b1d1a2e4c58b0a3d7e9f1c2b4a6",
    "caller": "billing",
    "url": "https://shop.example/hooks/7",
    "state": "dead",
    "attempts": 10,
    "last_attempt": "2026-11-23T10:00:00.000Z",
    "next_attempt": None,
    "reason": "https://shop.example:443 answered 500",
}
PENDING = DEAD | {
    "caller": None,
    "state": "pending",
    "attempts": 1,
    "next_attempt": "2026-11-23T10:00:05.000Z",
    "reason": "\x1b[2Jh.example: no such name",
}


class LinesTests(SynchronousTestCase):
    def test_each_has_its_state_its_attempts_and_why_they_failed(self) -> None:
        self.assertEqual(
            lines(5, [DEAD, PENDING]),
            [
                "5f0c6b1d1a2e4c58b0a3d7e9f1c2b4a6  dead of billing  https://shop.example/hooks/7",
                "    10 attempts, the last at 2026-11-23T10:00:00.000Z",
                "    https://shop.example:443 answered 500",
                "5f0c6b1d1a2e4c58b0a3d7e9f1c2b4a6  pending  https://shop.example/hooks/7",
                "    1 attempt, the last at 2026-11-23T10:00:00.000Z, the next at 2026-11-23T10:00:05.000Z",
                "    \\x1b[2Jh.example: no such name",
                "... and 3 more",
            ],
        )

    def test_none(self) -> None:
        self.assertEqual(lines(0, []), ["no callback is pending or dead"])
