"""What a node makes of its configuration, and what it says of its peers."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from random import Random
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hoft import node
from hoft.config import Config, Peer, parse
from hoft.identity import IDENTITY_FILE, Identity
from hoft.node import Node, policy_of
from hoft.web.fields import Authority
from hoft.web.problems import Refused

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

    @inlineCallbacks
    def test_a_peer_that_was_never_heard_is_told_of_once(self) -> Generator[Deferred[Any], Any, None]:
        said: list[LogEvent] = []
        observer = cast(ILogObserver, said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.patch(node, "TICK", 0.05)
        self.patch(node, "UNHEARD", 0.2)
        folder = Path(self.mktemp()).absolute()
        (folder / "exchange").mkdir(parents=True)
        (folder / "state").mkdir(mode=0o700)
        Identity.generate(Random(1).randbytes).save(folder / "state" / IDENTITY_FILE)
        far = Identity.generate(Random(2).randbytes).card("far")
        lonely = Node(
            Config(
                "near", folder / "state", f"folder:{folder}/exchange", listen=(), peers=(Peer("far", far),)
            ),
            reactor,
        )
        yield lonely.startService()
        yield deferLater(reactor, 0.6, lambda: None)
        yield lonely.stopService()
        lines = [formatEvent(event) for event in said]
        self.assertEqual(len([line for line in lines if "Nothing was heard of far" in line]), 1, lines)
