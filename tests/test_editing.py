"""Edits of hoft.toml: a person's text stays, the outcome is right, and comes at once or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from random import Random

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from hoft import config, editing
from hoft.config import Allow, Peer, Route, TcpForward
from hoft.errors import ConfigurationError, IdentityError
from hoft.identity import Identity

_far = Identity.generate(Random(1).randbytes)
FAR = _far.card("far")
FAR_ANEW, FAR_AGAIN = (_far.rotated(Random(seed).randbytes).card("far") for seed in (3, 4))
OTHER = Identity.generate(Random(2).randbytes).card("other")

HANDMADE = """\
# our node
name   = "near"   # as on the door
transport = 'folder:/srv/exchange'

[[forward]]   # everything of theirs
match = "*.example"
peer = "old"

[peers.old]
# bob gave us this one
card = "{card}"

[routes]
[routes.stock]
url = "http://stock"  # plain
peer = "old"
"""


class EditingTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.path = folder / "hoft.toml"
        self.write('# mine\nname = "near"\n')

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.path.chmod(0o600)

    def read(self) -> config.Config:
        return config.read(self.path)

    def test_what_is_added_is_there_and_what_is_taken_away_is_not(self) -> None:
        self.assertTrue(editing.trust(self.path, "far", FAR))
        self.assertTrue(editing.trust(self.path, "plant", OTHER))
        self.assertTrue(editing.route(self.path, "stock", "far", "http://stock"))
        self.assertTrue(editing.allow(self.path, "http://a"))
        self.assertTrue(editing.allow(self.path, "http://a", "plant"))
        current = self.read()
        self.assertEqual(current.peers, (Peer("far", FAR), Peer("plant", OTHER)))
        self.assertEqual(current.routes, (Route("stock", "far", "http://stock"),))
        self.assertEqual(current.allowed, (Allow("http://a"), Allow("http://a", "plant")))
        editing.unroute(self.path, "stock")
        editing.disallow(self.path, "http://a")
        self.assertEqual(editing.untrust(self.path, "far"), [])
        current = self.read()
        self.assertEqual(current.peers, (Peer("plant", OTHER),))
        self.assertEqual(current.routes, ())
        self.assertEqual(current.allowed, (Allow("http://a", "plant"),))
        editing.disallow(self.path, "http://a", "plant")
        editing.untrust(self.path, "plant")
        self.assertEqual(self.path.read_text().strip(), '# mine\nname = "near"')

    def test_a_new_key_of_a_peer_stands_beside_the_old_one_until_that_is_forgotten(self) -> None:
        editing.trust(self.path, "far", FAR)
        self.assertTrue(editing.trust(self.path, "far", FAR_ANEW, new_key=True))
        self.assertEqual(self.read().peers, (Peer("far", FAR_ANEW, FAR),))
        self.assertFalse(editing.trust(self.path, "far", FAR_ANEW, new_key=True))
        for pattern, card in (("of this node's older key", FAR), ("two keys of this node", FAR_AGAIN)):
            with self.assertRaisesRegex(ConfigurationError, f"{pattern}.*'hoft untrust DIR far --old' first"):
                editing.trust(self.path, "far", card, new_key=True)
        editing.forget_older_key(self.path, "far")
        self.assertEqual(self.read().peers, (Peer("far", FAR_ANEW),))

    def test_a_known_peer_is_given_no_other_name_by_the_way(self) -> None:
        editing.trust(self.path, "far", FAR)
        with self.assertRaisesRegex(ConfigurationError, "this node is there already"):
            editing.trust(self.path, "again", FAR_ANEW, new_key=True)

    def test_what_was_agreed_on_stays_unless_something_else_is_said(self) -> None:
        editing.trust(self.path, "plant", OTHER)
        editing.trust(self.path, "far", FAR, suite="authenticated", psk_file="far.psk")
        agreed = Peer("far", FAR, None, "authenticated", self.path.absolute().parent / "far.psk")
        self.assertEqual(self.read().peers[1], agreed)
        self.assertFalse(editing.trust(self.path, "far", FAR))
        self.assertEqual(self.read().peers[1], agreed)
        self.assertTrue(editing.trust(self.path, "far", FAR, suite="box"))
        self.assertEqual(self.read().peers[1], evolve(agreed, suite="box"))
        with self.assertRaisesRegex(ConfigurationError, "psk_file: given beside suite 'checksum'"):
            editing.trust(self.path, "far", FAR, suite="checksum")

    def test_a_persons_text_stays_as_it_is(self) -> None:
        text = HANDMADE.format(card=FAR)
        self.write(text)
        editing.trust(self.path, "new", OTHER)
        editing.allow(self.path, "http://a", "new")
        editing.route(self.path, "stock", "new", "http://stock")
        after = self.path.read_text()
        for line in text.splitlines():
            if line not in ("", 'peer = "old"'):
                self.assertIn(line, after.splitlines())
        self.assertEqual(after.count('peer = "old"'), 1)
        self.assertEqual(self.read().routes, (Route("stock", "new", "http://stock"),))

    def test_what_changes_nothing_writes_nothing(self) -> None:
        editing.trust(self.path, "far", FAR)
        editing.route(self.path, "stock", "far", "http://stock")
        editing.allow(self.path, "http://a")
        before = self.path.stat()
        self.assertFalse(editing.trust(self.path, "far", FAR))
        self.assertFalse(editing.route(self.path, "stock", "far", "http://stock"))
        self.assertFalse(editing.allow(self.path, "http://a"))
        self.assertEqual(self.path.stat().st_ino, before.st_ino)

    def test_without_a_peer_goes_all_that_names_it(self) -> None:
        self.write('default_peer = "old"\n' + HANDMADE.format(card=FAR))
        editing.allow(self.path, "http://a", "old")
        editing.allow(self.path, "http://b")
        editing.forward(self.path, "unix:/run/ssh", "old", "h:22")
        self.assertEqual(
            editing.untrust(self.path, "old"),
            ["route stock", "allow http://a", "forward *.example", "tcp unix:/run/ssh", "default_peer"],
        )
        current = self.read()
        self.assertEqual(
            (current.peers, current.routes, current.forwards, current.default_peer), ((), (), (), None)
        )
        self.assertEqual(current.allowed, (Allow("http://b"),))

    def test_a_port_is_forwarded_to_one_place_until_that_is_taken_back(self) -> None:
        editing.trust(self.path, "far", FAR)
        ssh, web = "tcp:2222:interface=127.0.0.1", "tcp:8081:interface=127.0.0.1"
        self.assertTrue(editing.forward(self.path, ssh, "far", "h:22"))
        self.assertTrue(editing.forward(self.path, web, "far", "h:80"))
        self.assertTrue(editing.forward(self.path, ssh, "far", "[::1]:22"))
        self.assertFalse(editing.forward(self.path, ssh, "far", "[::1]:22"))
        self.assertEqual(
            self.read().tcp, (TcpForward(ssh, "far", "[::1]:22"), TcpForward(web, "far", "h:80"))
        )
        editing.unforward(self.path, ssh)
        with self.assertRaisesRegex(ConfigurationError, "nothing listens at tcp:2222.*one of tcp:8081"):
            editing.unforward(self.path, ssh)
        editing.unforward(self.path, web)
        self.assertEqual(self.read().tcp, ())

    def test_files_written_with_inline_tables_are_edited_too(self) -> None:
        self.write(f'name = "n"\nallow = [{{url = "http://a"}}]\npeers = {{ far = {{ card = "{FAR}" }} }}\n')
        editing.trust(self.path, "plant", OTHER)
        editing.allow(self.path, "http://b", "plant")
        editing.disallow(self.path, "http://a")
        current = self.read()
        self.assertEqual(current.peers, (Peer("far", FAR), Peer("plant", OTHER)))
        self.assertEqual(current.allowed, (Allow("http://b", "plant"),))

    def test_the_right_one_of_several_array_entries_goes(self) -> None:
        editing.trust(self.path, "far", FAR)
        for url in "abcd":
            editing.allow(self.path, f"http://{url}", "far")
        editing.disallow(self.path, "http://b", "far")
        self.assertEqual([one.url for one in self.read().allowed], ["http://a", "http://c", "http://d"])

    def test_what_may_be_private_is_an_entry_of_its_own(self) -> None:
        self.assertTrue(editing.allow(self.path, "http://wiki.lan", private=True))
        self.assertFalse(editing.allow(self.path, "http://wiki.lan", private=True))
        self.assertTrue(editing.allow(self.path, "http://wiki.lan"))
        self.assertIn("private = true\n", self.path.read_text())
        self.assertEqual(
            self.read().allowed, (Allow("http://wiki.lan", private=True), Allow("http://wiki.lan"))
        )
        editing.disallow(self.path, "http://wiki.lan", private=True)
        self.assertEqual(self.read().allowed, (Allow("http://wiki.lan"),))
        with self.assertRaisesRegex(ConfigurationError, "http://wiki.lan --private is not allowed"):
            editing.disallow(self.path, "http://wiki.lan", private=True)
        editing.disallow(self.path, "http://wiki.lan")
        editing.allow(self.path, "http://wiki.lan", private=True)
        with self.assertRaisesRegex(ConfigurationError, "wanted: one of http://wiki.lan --private"):
            editing.disallow(self.path, "http://wiki.lan")

    def test_what_may_be_reached_by_websocket_is_an_entry_of_its_own(self) -> None:
        self.assertTrue(editing.allow(self.path, "http://a", websocket=True))
        self.assertFalse(editing.allow(self.path, "http://a", websocket=True))
        self.assertTrue(editing.allow(self.path, "http://a"))
        self.assertEqual(self.read().allowed, (Allow("http://a", websocket=True), Allow("http://a")))
        editing.disallow(self.path, "http://a", websocket=True)
        with self.assertRaisesRegex(ConfigurationError, "http://a --websocket is not allowed"):
            editing.disallow(self.path, "http://a", websocket=True)

    def test_a_route_is_for_websocket_as_long_as_it_says_so(self) -> None:
        editing.trust(self.path, "far", FAR)
        for websocket in (True, True, False, True):
            editing.route(self.path, "chat", "far", "http://chat", websocket)
            self.assertEqual([one.websocket for one in self.read().routes], [websocket])

    def test_an_entry_that_says_that_it_is_not_private_is_one_that_says_nothing(self) -> None:
        self.write('name = "near"\n[[allow]]\nurl = "http://a"\nprivate = false\n')
        self.assertFalse(editing.allow(self.path, "http://a"))
        editing.disallow(self.path, "http://a")
        self.assertEqual(self.read().allowed, ())

    def test_refused_changes_leave_the_file_alone(self) -> None:
        editing.trust(self.path, "far", FAR)
        before = self.path.read_bytes()
        for pattern, change in (
            ("another node has this name", lambda: editing.trust(self.path, "far", OTHER)),
            ("peers.far: this node is there already", lambda: editing.trust(self.path, "again", FAR)),
            (
                f"peers.far: this node is there with another key.*{FAR.fingerprint}.*--new-key.*"
                f"{FAR_ANEW.fingerprint}",
                lambda: editing.trust(self.path, "far", FAR_ANEW),
            ),
            ("peers.far: has no older key", lambda: editing.forget_older_key(self.path, "far")),
            ("none is called 'x'; wanted: one of far", lambda: editing.forget_older_key(self.path, "x")),
            ("no peer is called 'x'", lambda: editing.route(self.path, "stock", "x", "http://h")),
            ("is not http", lambda: editing.route(self.path, "stock", "far", "ftp://h")),
            ("is not http", lambda: editing.allow(self.path, "ftp://h")),
            ("no peer is called 'x'", lambda: editing.allow(self.path, "http://h", "x")),
            ("none is called 'x'; wanted: one of far", lambda: editing.untrust(self.path, "x")),
            (r"none is called 'x'; wanted: \(there is none\)", lambda: editing.unroute(self.path, "x")),
            ("http://h --peer far is not allowed", lambda: editing.disallow(self.path, "http://h", "far")),
        ):
            with self.assertRaisesRegex(ConfigurationError, pattern):
                change()
            self.assertEqual(self.path.read_bytes(), before)
        with self.assertRaises(IdentityError):
            editing.trust(self.path, "a/b", OTHER)
        self.assertEqual(os.listdir(self.path.parent), ["hoft.toml"])

    def test_a_file_with_a_mistake_is_not_edited(self) -> None:
        self.write('name = "near"\nnonsense = 1\n')
        with self.assertRaisesRegex(ConfigurationError, "nonsense: no such key"):
            editing.trust(self.path, "far", FAR)

    def test_the_mode_stays_and_a_link_stays_a_link(self) -> None:
        self.path.chmod(0o640)
        link = self.path.with_name("link.toml")
        link.symlink_to("hoft.toml")
        editing.trust(link, "far", FAR)
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
        self.assertEqual(self.read().peers, (Peer("far", FAR),))

    def test_edits_at_the_same_time_are_all_kept(self) -> None:
        # A lost one would show in some of the 24 interleavings that threads find here.
        urls = [f"http://h{number}" for number in range(24)]
        threads = [threading.Thread(target=editing.allow, args=(self.path, url)) for url in urls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(one.url for one in self.read().allowed), sorted(urls))

    def test_a_new_file_is_its_owners_alone_and_replaces_none(self) -> None:
        path = self.path.with_name("new.toml")
        editing.create(path, 'name = "n"\n')
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        with self.assertRaisesRegex(ConfigurationError, "exists already"):
            editing.create(path, 'name = "m"\n')
        self.assertEqual(config.read(path).name, "n")

    def test_a_missing_node_is_named(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "nowhere.*wanted: .*hoft init"):
            editing.allow(Path("/nowhere/hoft.toml"), "http://h")
