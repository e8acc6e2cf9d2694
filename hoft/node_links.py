"""
The links of one node, each with the layers that use it.

All is called on the reactor thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, FirstError, gatherResults

from hoft.config import Config, Peer
from hoft.configured import TOGETHER, settings_of
from hoft.interfaces import ICarrier, ILink, IRecordReceiver
from hoft.protocols.keyring import Keyring
from hoft.protocols.link import Link
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.router import LinkRouter
from hoft.protocols.sealing import Suite
from hoft.silence import Silence
from hoft.timers import turn


class Layer(Protocol):
    """What works by means of links."""

    def attach(self, link: ILink) -> Deferred[None]:
        """It was opened, and brings nothing yet; fires when it may."""

    def detach(self, link: ILink) -> None:
        """Its peer is not trusted any more."""


class NodeLinks:
    """
    Those of one node.

    @ivar by_peer: by the names of the peers.
    """

    def __init__(
        self, reactor: Any, by_peer: dict[str, Link], receiver: IRecordReceiver, layers: Sequence[Layer]
    ) -> None:
        """
        @param by_peer: filled by this.
        @param receiver: of all they bring.
        @param layers: in the order in which they are told.
        """
        self.by_peer = by_peer
        self._reactor = reactor
        self._receiver = receiver
        self._layers = layers
        self._silence = Silence(by_peer)
        self._parts: NodeParts
        self._router: LinkRouter
        self._carrier: ICarrier

    def start(self, parts: NodeParts, router: LinkRouter, carrier: ICarrier) -> None:
        """What every link needs is there."""
        self._parts = parts
        self._router = router
        self._carrier = carrier

    async def open(self, config: Config, suites: Mapping[str, Sequence[Suite]]) -> None:
        """
        Open those to all peers, several at a time: their commits share a sync of the disk.  None
        writes yet, but the router knows them.

        @param suites: of each peer.
        @raise HoftError: what one of them raised.
        """
        for start in range(0, len(config.peers), TOGETHER):
            some = config.peers[start : start + TOGETHER]
            opening = [Deferred.fromCoroutine(self._open(config, peer, suites[peer.name])) for peer in some]
            try:
                await gatherResults(opening, consumeErrors=True)
            except FirstError as error:
                error.subFailure.raiseException()

    async def connect(self) -> None:
        """The carrier has started: they may write."""
        for number, link in enumerate(list(self.by_peer.values()), 1):
            link.makeConnection(self._carrier.transport(link.peer))
            if number % TOGETHER == 0:
                # What they have to do comes again and again at the same time, so not for all at once.
                await turn(self._reactor)

    async def reconfigure(self, config: Config, suites: Mapping[str, Sequence[Suite]]) -> None:
        """
        Go on with these peers; calls under way do not notice, as long as both sides have a key
        in common.
        """
        new = {peer.name: peer.card.uuid for peer in config.peers}
        for name in [name for name, link in self.by_peer.items() if new.get(name) != link.peer]:
            self._forget(self.by_peer.pop(name))
        for peer in config.peers:
            link = self.by_peer.get(peer.name)
            if link is None:
                link = await self._open(config, peer, suites[peer.name])
                link.makeConnection(self._carrier.transport(link.peer))
            else:
                link.rekey(suites[peer.name])
                link.reconfigure(settings_of(config, peer.traffic))

    async def _open(self, config: Config, peer: Peer, suites: Sequence[Suite]) -> Link:
        settings = settings_of(config, peer.traffic)
        link = Link(self._parts, peer.card.uuid, peer.name, Keyring(suites), self._receiver, settings)
        await link.open()
        for layer in self._layers:
            await layer.attach(link)
        self.by_peer[peer.name] = link
        self._silence.watch(peer.name, time.monotonic() + settings.hello_spread)
        self._router.add(link)
        return link

    def _forget(self, link: Link) -> None:
        self._router.remove(link.peer)
        for layer in self._layers:
            layer.detach(link)
        link.close()

    def tick(self) -> None:
        """Time has passed: have the log say who was never heard."""
        self._silence.look(time.monotonic())

    def close(self) -> None:
        """What is committed goes on at the next start."""
        for link in self.by_peer.values():
            link.close()
