"""What an operator reads of calls."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hoft.operating import calls

STUCK: dict[str, Any] = {
    "side": "ingress",
    "id": "5f0c6b1d1a2e4c58b0a3d7e9f1c2b4a6",
    "peer": "far",
    "caller": "shop",
    "route": "stock",
    "method": "POST",
    "url": "/svc/stock/orders?...",
    "stage": "accepted",
    "why": "far has not acknowledged it; far is late: see 'hoft status'",
    "kept": True,
    "age": 720.0,
    "left": 80_000.0,
    "stages": {"accepted": 1000.5},
    "status": None,
    "request_bytes": 1200,
    "response_bytes": 0,
    "trace": None,
}
DONE: dict[str, Any] = {
    "side": "egress",
    "id": "00000000000000000000000000000000",
    "peer": "near",
    "caller": "127.0.0.1",
    "route": None,
    "method": "GET",
    "url": "http://127.0.0.1:8000/a",
    "stage": "ended",
    "outcome": "answered",
    "status": 200,
    "problem": None,
    "request_bytes": 0,
    "response_bytes": 5 << 20,
    "seconds": 0.012,
    "executing": None,
    "ended": 1717.0,
}
CUT = DONE | {"outcome": "cut", "problem": "outcome-unknown"}


def plain(_: str, text: str) -> str:
    return text


def marked(state: str, text: str) -> str:
    return f"<{state}>{text}"


def answer(under_way: list[Any], ended: list[Any], left: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    counts = {"under_way": left[0], "ended": left[1]}
    return {"now": 1720.5, "under_way": under_way, "ended": ended, "left_off": counts}


class TableTests(SynchronousTestCase):
    def shown(self, told: dict[str, Any], width: int = 100) -> list[str]:
        lines = calls.lines("near", told, width, plain)
        self.assertLessEqual(max(map(len, lines)), width)
        return lines

    def test_nothing_is_going_on(self) -> None:
        self.assertEqual(self.shown(answer([], [])), ["near  0 calls under way, 0 ended lately"])

    def test_what_is_stuck_and_why(self) -> None:
        head, _, heading, row, why = self.shown(answer([STUCK], []))
        self.assertEqual(head, "near  1 call under way, 0 ended lately")
        self.assertEqual(
            heading.split(), ["AGE", "STAGE", "SIDE", "PEER", "CALLER", "CALL", "REQUEST", "RESPONSE", "ID"]
        )
        self.assertEqual(
            row,
            "12 min  accepted  ingress  far   shop    POST /svc/stock/orders?...  1.2 KiB  -"
            "         5f0c6b1d",
        )
        self.assertEqual(why, "    " + STUCK["why"])

    def test_what_has_ended(self) -> None:
        *_, heading, row, cut, why = self.shown(answer([], [DONE, CUT]), 120)
        self.assertEqual(
            heading.split(),
            ["ENDED", "STATUS", "TOOK", "SIDE", "PEER", "CALLER", "CALL", "REQUEST", "RESPONSE", "ID"],
        )
        self.assertIn(
            "3.5 s ago  200     12 ms  egress  near  127.0.0.1  GET http://127.0.0.1:8000/a  -        5.0",
            row,
        )
        self.assertEqual(why, "    broken off in the midst of the response: outcome-unknown")
        self.assertEqual(cut, row)

    def test_a_narrow_terminal_has_less_of_the_url(self) -> None:
        long = STUCK | {"url": "/svc/" + "a" * 500}
        for width, columns in ((90, 8), (80, 7), (70, 6), (60, 5)):
            _, _, heading, row, *_ = self.shown(answer([long], []), width)
            self.assertEqual(len(heading.split()), columns, heading)
            self.assertIn("aaa...", row)
        self.assertTrue(row.endswith("5f0c6b1d"))

    def test_how_many_are_not_shown(self) -> None:
        lines = self.shown(answer([STUCK], [DONE], (41, 7)))
        self.assertEqual(lines[0], "near  42 calls under way, 8 ended lately")
        self.assertEqual(
            [line.split(":")[0] for line in lines if "more" in line], ["... and 41 more", "... and 7 more"]
        )

    def test_what_a_peer_says_is_nothing_that_a_terminal_obeys(self) -> None:
        hostile = STUCK | {"caller": "\x1b[2J", "url": "/\x07", "why": "a\x1bb", "method": "\x9b"}
        told = answer([hostile], [DONE | {"outcome": "problems", "problem": "\x1b"}])
        for line in [*self.shown(told), *calls.details(told, 80, plain)]:
            self.assertTrue(line.isprintable(), line)

    def test_what_needs_a_look_is_coloured(self) -> None:
        slow = STUCK | {"left": 1.0}
        lines = calls.lines("near", answer([STUCK, slow], [DONE, CUT, DONE | {"status": 503}]), 120, marked)
        self.assertEqual(
            [line[1:].partition(">")[0] for line in lines if line[:1] == "<"],
            ["up", "late", "up", "down", "down"],
        )

    def test_a_request_whose_head_has_not_come(self) -> None:
        bare = STUCK | {"side": "egress", "method": None, "url": None, "caller": None, "left": None}
        self.assertIn("(its head has not come)", "\n".join(self.shown(answer([bare], []))))


class DetailTests(SynchronousTestCase):
    def test_all_of_one_call_under_way(self) -> None:
        lines = calls.details(answer([STUCK], []), 100, plain)
        self.assertEqual(lines[0], "5f0c6b1d1a2e4c58b0a3d7e9f1c2b4a6  POST /svc/stock/orders?...")
        told = dict(line.strip().split(None, 1) for line in lines[1:])
        self.assertEqual(told["side"], "ingress: it was made here, for a service behind far")
        self.assertEqual(told["stage"], "accepted: " + STUCK["why"])
        self.assertEqual(told["accepted"], "1970-01-01T00:16:40.500Z, 12 min ago")
        self.assertEqual((told["age"], told["deadline"]), ("12 min", "in 22 h"))
        self.assertEqual((told["caller"], told["route"], told["request"]), ("shop", "stock", "1200 bytes"))

    def test_and_of_one_that_has_ended_on_both_sides(self) -> None:
        here = DONE | {"side": "ingress", "peer": "far", "executing": 0.004}
        text = "\n".join(calls.details(answer([], [here, CUT]), 100, plain))
        self.assertIn("  ended     1970-01-01T00:28:37.000Z, 3.5 s ago", text)
        self.assertIn("  executing 4 ms of that, at the far node", text)
        self.assertIn("  problem   outcome-unknown", text)
        self.assertEqual(text.count(DONE["id"]), 2)
