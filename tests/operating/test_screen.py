"""What an operator reads of a node."""

from __future__ import annotations

import copy
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hoft.operating import screen

PEER = {
    "peer": "474183a7-c0f5-452b-8ad0-4194d9a4d5d0",
    "state": "up",
    "round_trip": 0.085,
    "timeout": 0.2,
    "heard": 1.9,
    "unacknowledged_records": 12,
    "unacknowledged_bytes": 3 << 20,
    "retransmitted_records": {"lost": 3, "cut": 0, "probe": 1},
    "lost_packets": 2,
    "cut_packets": 0,
    "packets_written": 120,
    "write_error": None,
    "frames_bad": 0,
}
NODE: dict[str, Any] = {
    "name": "near",
    "version": "0.1.0",
    "process": 4711,
    "uptime": 86400.0,
    "carrier_down": None,
    "journal_bytes": 12 << 20,
    "journal_free": 45 << 30,
    "peers": {"far": PEER},
    "carrier": {"files_written": 3, "files_ignored": 0},
    "refused": {},
    "refused_last": {},
    "unknown_channel": 0,
    "ingress": {"waiting": 2, "problems": 0, "problem_504": 3},
    "egress": {"running": 1},
}


def plain(_: str, text: str) -> str:
    return text


def changed(**values: Any) -> dict[str, Any]:
    """The node, with other values of the peer."""
    node = copy.deepcopy(NODE)
    node["peers"]["far"] |= values
    return node


class RunningTests(SynchronousTestCase):
    def shown(self, node: dict[str, Any], width: int = 80) -> str:
        lines = screen.running(node, width, plain)
        self.assertLessEqual(max(map(len, lines)), width)
        return "\n".join(lines)

    def test_a_healthy_node_fits_a_small_terminal(self) -> None:
        text = self.shown(NODE)
        self.assertEqual(
            text,
            "near  up 24 h  hoft 0.1.0  process 4711  carrier up\n"
            "callers waiting 2  calls running 1  journal 12 MiB, 45 GiB free\n"
            "\n"
            "PEER  STATE  HEARD  RTT    WAITING\n"
            "far   up     1.9 s  85 ms  12 (3.0 MiB)\n"
            "far: 120 files out; 2 lost; records sent again: 3 lost, 1 probe\n"
            "ingress: 2 waiting; 3 problem 504\n"
            "egress: 1 running",
        )

    def test_streams_and_ports_that_lead_to_targets_show_what_has_passed(self) -> None:
        streams = {"open": 1, "accepted": 0, "bytes_sent": 3 << 20}
        forward = {
            "peer": "far",
            "to": "db:5432",
            "open": 1,
            "opened": 7,
            "refused": 0,
            "bytes_received": 2048,
        }
        text = self.shown({**NODE, "streams": streams, "forwards": {"tcp:2222": forward}})
        self.assertIn("streams: 1 open; 3.0 MiB sent\n", text)
        self.assertIn("tcp:2222 to db:5432 behind far: 1 open; 7 opened; 2.0 KiB received", text)

    def test_what_a_newer_node_says_of_a_peer_is_shown_too(self) -> None:
        news = {
            "files_in_transit": 2,
            "bytes_in_transit": 1 << 20,
            "bytes_in_transit_limit": 64 << 20,
            "oldest_unacknowledged": 75.0,
            "packet_size": 1 << 20,
            "bytes_per_second": None,
        }
        reason = {"packet_size_reason": "the largest that still arrives", "low_water_of_peer": True}
        text = self.shown(changed(**news, **reason, parity={"even": 0, "odd": 2}, mood="fine\x07"))
        self.assertRegex(text, r"OLDEST +WAITING +IN TRANSIT +RATE\n")
        self.assertRegex(text, r" 75 s +12 \(3.0 MiB\) +2 \(1.0 MiB\) +-\n")
        joined = " ".join(text.split())
        self.assertIn("files of 1.0 MiB (the largest that still arrives)", joined)
        self.assertIn("64 MiB in transit at most", joined)
        self.assertIn("parity: 2 odd; mood: fine\\x07", joined)
        self.assertIn("low water of peer", joined)

    def test_columns_that_have_no_room_are_left_out(self) -> None:
        node = changed()
        node["peers"] = {"x" * 63: node["peers"]["far"]}
        self.assertIn("STATE  HEARD\n", self.shown(node))
        self.assertIn("WAITING", self.shown(node, 120))

    def test_of_many_peers_only_those_in_trouble_have_details(self) -> None:
        node = changed(state="late")
        node["peers"] = {**{f"p{number}": PEER for number in range(6)}, **node["peers"]}
        text = self.shown(node)
        self.assertLess(text.index("\nfar "), text.index("\np0 "), "trouble first")
        self.assertIn("\nfar: 120 files out", text)
        self.assertNotIn("\np1: ", text)

    def test_bad_files_are_counted_and_the_last_of_each_kind_shown(self) -> None:
        node = changed()
        node["refused"] = {"stranger": 12}
        name = "474183a7-c0f5-452b-8ad0-4194d9a4d5d0--c5537d47-6993-4b94-9449-5383005c58f9"
        example = f"{name}--f9c226c780dba934-0000000000000015.hoft: stranger"
        node["refused_last"] = {"stranger": {"example": example, "ago": 200.0}}
        node["carrier"] |= {"files_ignored": 3, "files_ignored_last": "notes.txt\x1b[2J"}
        node["unknown_channel"] = 1
        text = " ".join(self.shown(node).split())
        self.assertIn("12 stranger (from a node that is not trusted here); last 3 min ago: 474183a7..", text)
        self.assertIn("-15.hoft: stranger", text)
        self.assertIn(
            "3 files_ignored (no packet's name, or no regular file; left alone); last: notes.txt\\x1b", text
        )
        self.assertIn("1 unknown_channel", text)

    def test_no_peers(self) -> None:
        self.assertIn("\nno peers", self.shown(NODE | {"peers": {}}))


class StoppedTests(SynchronousTestCase):
    JOURNAL: dict[str, Any] = {"bytes": 1 << 20, "free": 1 << 30, "written_ago": 10800.0, "peers": {}}

    def test_what_waits_and_for_how_long_at_least(self) -> None:
        peers = {
            "far": {"records": 12, "bytes": 5000, "received": 0},
            "plant": {"records": 0, "bytes": 0, "received": 2},
        }
        self.assertEqual(
            screen.stopped("near", self.JOURNAL | {"peers": peers}),
            [
                "near  not running",
                "journal 1.0 MiB, 1.0 GiB free, last written 3 h ago",
                "",
                "PEER   WAITING       RECEIVED, STILL HERE",
                "far    12 (4.9 KiB)  -",
                "plant  -             2",
                "What waits has done so for 3 h or longer; it is sent when the node runs.",
            ],
        )

    def test_nothing_waits(self) -> None:
        self.assertEqual(len(screen.stopped("near", self.JOURNAL)), 2)
