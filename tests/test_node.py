"""What a node makes of its configuration, as far as that can be seen without running it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft.config import parse
from hoft.node import policy_of
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
