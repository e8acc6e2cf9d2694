from __future__ import annotations

import socket
from collections.abc import Generator
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from hoft.errors import ConfigurationError
from hoft.listening import Place, Ports

FREE = "tcp:0:interface=127.0.0.1"

Steps = Generator[Deferred[Any], Any, None]


class PortsTests(TestCase):
    def setUp(self) -> None:
        self.ports = Ports(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.ports.close()))

    def change(self, *descriptions: str) -> Deferred[None]:
        wanted = {Place("listen", one): Factory() for one in descriptions}
        return Deferred.fromCoroutine(self.ports.change(wanted, "hoft.toml"))

    def numbers(self) -> list[int]:
        return [cast(IPv4Address, one).port for one in self.ports.addresses("listen")]

    @inlineCallbacks
    def test_what_is_open_already_stays_as_it_is(self) -> Steps:
        yield self.change(FREE)
        [first] = self.numbers()
        yield self.change(FREE + ":backlog=5", FREE)
        self.assertEqual((self.numbers()[0], len(self.numbers())), (first, 2))
        yield self.change(FREE)
        self.assertEqual(self.numbers(), [first])
        self.assertEqual(self.ports.addresses("tcp.listen"), [])

    @inlineCallbacks
    def test_where_one_cannot_be_opened_all_is_as_before(self) -> Steps:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            # One that is to go comes back at the same place.
            leaving = f"tcp:{free_port()}:interface=127.0.0.1"
            yield self.change(FREE, leaving)
            numbers = self.numbers()
            stayed = list(self.ports._open.values())
            with self.assertRaises(ConfigurationError) as caught:
                yield self.change(FREE, FREE + ":backlog=5", taken)
            self.assertIn(taken, str(caught.exception))
            self.assertEqual(self.numbers(), numbers)
            # None of them was closed for it.
            self.assertEqual(list(self.ports._open.values()), stayed)
            with self.assertRaises(ConfigurationError):
                yield self.change(FREE, f"{leaving}:backlog=5", taken)
            self.assertEqual(sorted(self.numbers()), sorted(numbers))

    @inlineCallbacks
    def test_one_that_goes_is_not_in_the_way_of_one_that_comes(self) -> Steps:
        port = free_port()
        yield self.change(f"tcp:{port}:interface=127.0.0.1", FREE)
        yield self.change(FREE, f"tcp:{port}:interface=127.0.0.1:backlog=5")
        self.assertIn(port, self.numbers())

    @inlineCallbacks
    def test_a_key_that_is_not_there_is_a_mistake(self) -> Steps:
        with self.assertRaisesRegex(ConfigurationError, "hoft.toml: listen: ssl:0:privateKey=/nowhere: "):
            yield self.change("ssl:0:privateKey=/nowhere")


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
    return port
