"""Opening ports that a configuration names, and naming them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory

from hoft.errors import ConfigurationError


async def listen(
    reactor: Any, description: str, factory: IProtocolFactory, where: str, key: str
) -> IListeningPort:
    """
    @param description: a Twisted server endpoint.
    @param where: what says so, for the message; and under which C{key}.
    @raise ConfigurationError: it cannot be listened there.
    """
    try:
        endpoint = serverFromString(reactor, description)
    except Exception as error:  # of whatever library reads what it names, such as a key
        raise ConfigurationError(where, key, f"{description}: {error}", "what can be listened at") from error
    try:
        port: IListeningPort = await endpoint.listen(factory)
        return port
    except CannotListenError as error:
        raise ConfigurationError(
            where,
            key,
            f"{description}: {error.socketError.strerror or error.socketError}",
            "an address of this machine and a port that is free",
        ) from error


class Place(NamedTuple):
    """Where to listen."""

    key: str
    """Under which a configuration says it."""
    description: str
    """A Twisted server endpoint."""


class Ports:
    """All that one configuration names, by what they were opened as."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._open: dict[Place, tuple[IListeningPort, IProtocolFactory]] = {}

    def addresses(self, key: str) -> list[IAddress]:
        """Where those are that the configuration has under C{key}."""
        return [port.getHost() for place, (port, _) in self._open.items() if place.key == key]

    async def change(self, wanted: Mapping[Place, IProtocolFactory], where: str) -> None:
        """
        Listen at these places and no others.  What is open already stays as it is, and so do all connections.

        @param where: what says so.
        @raise ConfigurationError: it cannot be listened at one of them; then it is where it was before.
        """
        leaving = [place for place in self._open if place not in wanted]
        new = {place: factory for place, factory in wanted.items() if place not in self._open}
        try:
            added = await self._listen(new, where)
        except ConfigurationError:
            bound = {_bound_to(place) for place in new}
            in_the_way = [place for place in leaving if _bound_to(place) in bound]
            if not in_the_way:
                raise
            closed = {place: self._open.pop(place) for place in in_the_way}
            await _close(closed.values())
            try:
                added = await self._listen(new, where)
            except ConfigurationError:
                before = {place: factory for place, (_, factory) in closed.items()}
                self._open |= await self._listen(before, where)
                raise
        await _close(self._open.pop(place) for place in leaving if place in self._open)
        self._open |= added

    async def close(self) -> None:
        """Listen nowhere any more."""
        opened, self._open = self._open, {}
        await _close(opened.values())

    async def _listen(
        self, wanted: Mapping[Place, IProtocolFactory], where: str
    ) -> dict[Place, tuple[IListeningPort, IProtocolFactory]]:
        """At all of them, or at none."""
        opened: dict[Place, tuple[IListeningPort, IProtocolFactory]] = {}
        try:
            for place, factory in wanted.items():
                port = await listen(self._reactor, place.description, factory, where, place.key)
                opened[place] = port, factory
        except ConfigurationError:
            await _close(opened.values())
            raise
        return opened


def _bound_to(place: Place) -> str:
    """The port or the path, as endpoints begin with one: two of the same are in each other's way."""
    return place.description.partition(":")[2].partition(":")[0]


async def _close(opened: Iterable[tuple[IListeningPort, IProtocolFactory]]) -> None:
    await gatherResults([maybeDeferred(port.stopListening) for port, _ in opened])


def shown(address: IAddress) -> str:
    """Where callers find a port."""
    match address:
        case IPv4Address():
            return f"http://{address.host}:{address.port}"
        case IPv6Address():
            return f"http://[{address.host}]:{address.port}"
        case UNIXAddress(name=bytes() as path):
            return f"unix:{os.fsdecode(path)}"
    return str(address)
