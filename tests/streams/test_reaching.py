"""What peers' streams may reach: nothing that is not named, and where names may lead."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hoft.config import Allow
from hoft.errors import ConfigurationError
from hoft.streams.reaching import TcpPolicy, TcpTargets, parse_tcp, tcp_target
from hoft.web.http.problems import Refused


@implementer(IHostnameResolver)
class Resolver:
    """Says what C{answers} has for a name, and counts how often it was asked."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self.answers = answers
        self.asked = 0

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, *_: Any) -> Any:
        self.asked += 1
        receiver.resolutionBegan(self)
        for address in self.answers.get(hostName, ()):
            receiver.addressResolved(type("Address", (), {"host": address})())
        receiver.resolutionComplete()
        return receiver


class PolicyTests(SynchronousTestCase):
    def test_targets_are_compared_in_one_form(self) -> None:
        for text, pair in (
            ("tcp://H.Example.:22", ("h.example", 22)),
            ("tcp://[0:0::1]:22", ("::1", 22)),
            ("tcp://10.0.0.1:22", ("10.0.0.1", 22)),
        ):
            self.assertEqual(parse_tcp(text), pair)
            self.assertEqual(parse_tcp(tcp_target(*pair)), pair)

    def test_what_could_be_read_in_two_ways_is_refused(self) -> None:
        for text in (
            "tcp://h", "tcp://h:0", "tcp://h:70000", "tcp://127.1:22", "tcp://2130706433:22", "tcp://0x7f.1:22",
            "tcp://u@h:22", "tcp://h:22/a", "http://h:22", "tcp://[fe80::1%eth0]:22", "tcp://h\n:22", "tcp://\u00e9:1",
        ):  # fmt: skip
            with self.assertRaises(Refused, msg=text):
                parse_tcp(text)

    def test_nothing_is_allowed_that_is_not_named_for_that_peer(self) -> None:
        policy = TcpPolicy([Allow("tcp://h:22", "near"), Allow("tcp://g:22"), Allow("http://h:80")])
        self.assertEqual(policy.check("near", "tcp://H:22").host, "h")
        policy.check("other", "tcp://g:22")
        for peer, target in (
            ("other", "tcp://h:22"),
            ("near", "tcp://h:23"),
            ("near", "tcp://h.:80"),
            ("near", "tcp://127.0.0.1:22"),
        ):
            with self.assertRaises(Refused) as caught:
                policy.check(peer, target)
            self.assertEqual(caught.exception.problem.status, 403)
            self.assertIn("hoft allow", caught.exception.problem.detail)

    def test_a_rule_that_names_nothing_is_a_mistake_in_the_configuration(self) -> None:
        for url in ("tcp://h", "tcp://127.1:22"):
            with self.assertRaisesRegex(ConfigurationError, "tcp://HOST:PORT"):
                TcpPolicy([Allow(url)])


class AddressTests(SynchronousTestCase):
    def reached(self, allow: Allow, answers: list[str]) -> list[str]:
        """The addresses connected to when the host of C{allow} has these."""
        reactor: Any = MemoryReactorClock()
        host, _ = parse_tcp(allow.url)
        reactor.nameResolver = resolver = Resolver({host: answers})
        connecting = TcpTargets(reactor, TcpPolicy([allow])).connect("near", allow.url)
        tried = [client[0] for client in reactor.tcpClients]
        self.assertLessEqual(resolver.asked, 1)
        if not tried:
            failure = self.failureResultOf(connecting, Refused)
            self.assertIn(failure.value.problem.kind, ("address-prohibited", "dns-error"))
        else:
            connecting.addErrback(lambda _: None)
            connecting.cancel()
        return tried

    def test_names_lead_to_public_addresses_unless_it_is_said(self) -> None:
        public, private = "93.184.216.34", "192.168.1.5"
        for answers, private_too, reached in (
            ([public], False, [public]),
            ([private], False, []),
            ([private], True, [private]),
            ([public, private], False, []),
            (["127.0.0.1"], True, []),
            (["169.254.169.254"], True, []),
            (["::ffff:127.0.0.1"], True, []),
            (["::1"], True, []),
            ([], True, []),
        ):
            allow = Allow("tcp://db.example:5432", private=private_too)
            self.assertEqual(self.reached(allow, answers), reached, (answers, private_too))

    def test_an_address_that_is_named_is_that_very_one(self) -> None:
        for host in ("127.0.0.1", "10.1.2.3"):
            self.assertEqual(self.reached(Allow(f"tcp://{host}:22"), []), [host])

    def test_localhost_leads_to_this_machine_and_nowhere_else(self) -> None:
        self.assertEqual(self.reached(Allow("tcp://localhost:22"), ["127.0.0.1"]), ["127.0.0.1"])
        self.assertEqual(self.reached(Allow("tcp://localhost:22"), ["93.184.216.34"]), [])
