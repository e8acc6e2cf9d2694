from __future__ import annotations

from collections.abc import Generator
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from hoft.errors import ConfigurationError
from hoft.listening import Ports

FREE = "tcp:0:interface=127.0.0.1"


class PortsTests(TestCase):
    def setUp(self) -> None:
        self.ports = Ports(reactor, Factory(), "listen")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.ports.keep(())))

    def add(self, *descriptions: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self.ports.add(descriptions, "hoft.toml"))

    @inlineCallbacks
    def test_what_is_open_already_stays_as_it_is(self) -> Generator[Deferred[Any], Any, None]:
        yield self.add(FREE)
        [first] = self.ports.addresses()
        yield self.add(FREE, FREE + ":backlog=5")
        self.assertEqual(self.ports.addresses()[0], first)
        yield Deferred.fromCoroutine(self.ports.keep([FREE]))
        self.assertEqual(self.ports.addresses(), [first])

    @inlineCallbacks
    def test_where_one_cannot_be_opened_none_of_the_new_ones_is(self) -> Generator[Deferred[Any], Any, None]:
        yield self.add(FREE)
        [first] = self.ports.addresses()
        assert isinstance(first, IPv4Address)
        taken = f"tcp:{first.port}:interface=127.0.0.1"
        with self.assertRaises(ConfigurationError) as caught:
            yield self.add(FREE + ":backlog=5", taken)
        self.assertIn(taken, str(caught.exception))
        self.assertEqual(self.ports.addresses(), [first])

    @inlineCallbacks
    def test_a_key_that_is_not_there_is_a_mistake(self) -> Generator[Deferred[Any], Any, None]:
        with self.assertRaisesRegex(ConfigurationError, "hoft.toml: listen: ssl:0:privateKey=/nowhere: "):
            yield self.add("ssl:0:privateKey=/nowhere")
