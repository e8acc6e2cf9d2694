"""What a node makes of its configuration, and what it says of its peers."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from pathlib import Path
from random import Random
from threading import Event
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hoft import silence, ticking
from hoft.config import Config, Peer, parse
from hoft.configured import policy_of
from hoft.errors import ConfigurationError, LocalError, NodeNotRunning
from hoft.identity import IDENTITY_FILE, Identity
from hoft.local_socket import ask
from hoft.node import Node
from hoft.web.http.fields import Authority
from hoft.web.http.problems import Refused

CONFIGURATION = """
name = "near"

[[allow]]
url = "http://wiki.lan"
private = true

[[allow]]
url = "http://stock.example"
"""


class PolicyTests(SynchronousTestCase):
    def test_what_the_file_allows_is_what_peers_may_reach(self) -> None:
        policy = policy_of(parse(CONFIGURATION, Path("/srv/near/hoft.toml")))
        for host, private in (("wiki.lan", True), ("stock.example", False)):
            grant = policy.check("far", "http", Authority(host), b"/")
            self.assertIs(grant.permits("192.168.1.5"), private, host)
        with self.assertRaises(Refused):
            policy.check("far", "http", Authority("elsewhere.example"), b"/")


class LonelyNodeTests(TestCase):
    """A node whose peer is not there."""

    timeout = 20

    def setUp(self) -> None:
        self.said: list[LogEvent] = []
        observer = cast(ILogObserver, self.said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.patch(ticking, "TICK", 0.05)
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "exchange").mkdir(parents=True)
        (self.folder / "state").mkdir(mode=0o700)
        Identity.generate(Random(1).randbytes).save(self.folder / "state" / IDENTITY_FILE)

    def make(self, *listen: str) -> Node:
        far = Identity.generate(Random(2).randbytes).card("far")
        state, transport = self.folder / "state", f"folder:{self.folder}/exchange"
        peers = (Peer("far", far),)
        return Node(Config("near", state, transport, listen=listen, peers=peers), reactor)

    def lines(self, words: str) -> list[str]:
        """What was logged and has these words."""
        return [line for line in map(formatEvent, self.said) if words in line]

    @inlineCallbacks
    def test_a_peer_that_was_never_heard_is_told_of_once(self) -> Generator[Deferred[Any], Any, None]:
        self.patch(silence, "UNHEARD", 0.2)
        lonely = self.make()
        yield lonely.startService()
        yield deferLater(reactor, 0.6, lambda: None)
        yield lonely.stopService()
        self.assertEqual(len(self.lines("Nothing was heard of far")), 1, self.lines(""))

    @inlineCallbacks
    def test_it_tells_commands_of_itself_as_long_as_it_runs(self) -> Generator[Deferred[Any], Any, None]:
        lonely = self.make()
        yield lonely.startService()
        status = yield deferToThread(ask, self.folder / "state", "status")
        self.assertEqual(status["process"], os.getpid())
        self.assertEqual(status["peers"]["far"]["state"], "unknown")
        self.assertIsNone(status["carrier_down"])
        self.assertGreater(status["journal_bytes"], 0)
        self.assertEqual(set(status), set(lonely.status()))
        calls = yield deferToThread(ask, self.folder / "state", "requests", limit=5)
        self.assertEqual((calls["under_way"], calls["ended"]), ([], []))
        refused = deferToThread(ask, self.folder / "state", "the way")
        error = yield self.assertFailure(refused, LocalError)
        self.assertIn("another version", str(error))
        yield lonely.stopService()
        yield self.assertFailure(deferToThread(ask, self.folder / "state", "status"), NodeNotRunning)

    @inlineCallbacks
    def test_it_does_not_start_where_its_key_would_be_carried_away(
        self,
    ) -> Generator[Deferred[Any], Any, None]:
        state = self.folder / "state"
        lonely = Node(Config("near", state, f"folder:{self.folder}"), reactor)
        error = yield self.assertFailure(lonely.startService(), ConfigurationError)
        self.assertEqual(error.key, "--state")
        self.assertEqual(os.listdir(state), [IDENTITY_FILE])
        yield lonely.stopService()

    @inlineCallbacks
    def test_a_port_that_is_taken_is_all_that_is_said(self) -> Generator[Deferred[Any], Any, None]:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            lonely = self.make(f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1")
            # The greeting to the peer is still to be written when the node gives up.
            slow = Event()
            writing = lonely._workers["write"].call(slow.wait)
            yield self.assertFailure(lonely.startService(), ConfigurationError)
            stopping = lonely.stopService()
            cast(IReactorTime, reactor).callLater(0.2, slow.set)
            yield stopping
            yield writing
        self.assertEqual(self.lines("could not be written"), [])
        self.assertEqual(self.lines("trying again"), [])
