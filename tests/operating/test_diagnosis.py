"""What is said to be wrong with a node, and what to do about it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hoft.operating.diagnosis import Trouble, troubles
from tests.operating.test_screen import NODE, changed

FAR = "45c5760a-9706-412e-b8d0-0b90e975a8d5"


class DiagnosisTests(SynchronousTestCase):
    def one(self, node: dict[str, Any]) -> Trouble:
        """All that is wrong with it."""
        [trouble] = troubles(node)
        return trouble

    def test_nothing(self) -> None:
        self.assertEqual(troubles(NODE), [])

    def test_each_state_that_is_not_up_says_what_it_means(self) -> None:
        for values, words in (
            ({"state": "unknown"}, "far is unknown: nothing was heard of it since"),
            (
                {"state": "down", "write_error": "outbox /x/y: No\x1b"},
                "far is down: no files can be written for it: outbox /x/y: No\\x1b",
            ),
            (
                {"state": "down", "write_error": "outbox /x/y: No", "heard": 7200.0},
                "far is down: no files can be written for it: outbox /x/y: No",
            ),
            (
                {"state": "down", "heard": 7200.0},
                "far is down: it was last heard 2 h ago; 12 records not acknowledged",
            ),
            ({"peer_full": True}, "far has no room: what is for it waits here"),
            ({"state": "stopped"}, "far is stopped: a copy of one of the two nodes runs beside it"),
            ({"state": "odd"}, "far is odd"),
            ({"state": "late", "unacknowledged_records": 0}, "far is late: it was last heard 1.9 s ago"),
            ({"state": "late", "heard": None, "unacknowledged_records": 0}, "far is late: it was not heard"),
        ):
            trouble = self.one(changed(**values))
            self.assertTrue(trouble.what.startswith(words), trouble)
            self.assertTrue(trouble.then)

    def test_which_of_the_two_ways_is_cut(self) -> None:
        """Who is heard does not hear us; of who is not heard, that is all we know."""
        late = {"state": "late", "oldest_unacknowledged": 240.0}
        heard = self.one(changed(**late, heard=9.0))
        self.assertIn("nothing reaches it: 12 records not acknowledged, the oldest for 4 min", heard.what)
        self.assertIn("from here to there", heard.then)
        silent = self.one(changed(**late, heard=241.0))
        self.assertIn("last heard 4 min ago; 12 records not acknowledged, the oldest for 4 min", silent.what)
        self.assertIn("whether its node runs", silent.then)
        self.assertIn("from there to here", silent.then)

    def test_files_in_a_peers_name_that_are_refused_say_which_key_is_wrong(self) -> None:
        for reason, words in (
            ("key", "trust DIR CARD --new-key"),
            ("unknown-key", "hoft card"),
            ("suite", "--suite"),
        ):
            node = changed(peer=FAR, state="late", heard=70.0)
            node["refused"] = {reason: 11, "stranger": 5}
            last = {"example": f"{FAR}--5b4eae61--c8ed-b.hoft: {reason}", "ago": 7.0}
            node["refused_last"] = {reason: last, "stranger": last}
            refused, late = troubles(node)
            self.assertIn("far: 11 files refused, the last 7.0 s ago", refused.what)
            self.assertIn(words, refused.then)
            self.assertIn("files that are refused", late.then)
            node["peers"]["far"] |= {"state": "unknown", "heard": None}
            _, unknown = troubles(node)
            self.assertIn("files that are refused", unknown.then)
            last["ago"] = 3600.0
            self.one(node)
            last |= {"ago": 7.0, "example": "of another peer"}
            self.one(node)

    def test_a_file_that_was_damaged_on_its_way_is_no_wrong_key(self) -> None:
        node = changed(peer=FAR, heard=3.0)
        last = {"example": f"{FAR}--5b4eae61--c8ed-b.hoft: key", "ago": 7.0}
        node |= {"refused": {"key": 1}, "refused_last": {"key": last}}
        self.assertEqual(troubles(node), [])

    def test_a_carrier_that_is_down_says_why_and_the_peers_do_not_repeat_it(self) -> None:
        why = "inbox /x: No such file or directory"
        node = changed(state="down", write_error=why) | {"carrier_down": why}
        trouble = self.one(node)
        self.assertEqual(trouble.what, "the carrier is down: inbox /x: No such file or directory")
        self.assertIn("hoft doctor", trouble.then)

    def test_each_peer_that_is_down_is_named(self) -> None:
        node = changed(state="down", write_error="outbox /x/y: Not a directory")
        node["peers"]["plant"] = node["peers"]["far"]
        self.assertEqual([str(trouble).split()[0] for trouble in troubles(node)], ["far", "plant"])

    def test_a_full_disk(self) -> None:
        trouble = self.one(NODE | {"journal_free": 1 << 20})
        self.assertEqual(trouble.what, "the journal's disk is full: 1.0 MiB left")

    def test_callbacks_that_somebody_should_look_after(self) -> None:
        self.assertEqual(troubles(NODE | {"callbacks": {"dead": 0, "pending": 7}}), [])
        self.assertIn("2 callbacks", self.one(NODE | {"callbacks": {"dead": 2, "pending": 7}}).what)
