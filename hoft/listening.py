"""Opening ports that a configuration names, and naming them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

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


class Ports:
    """Those at which a factory listens, by the endpoints that they were opened as."""

    def __init__(self, reactor: Any, factory: IProtocolFactory, key: str) -> None:
        """@param key: under which a configuration has them."""
        self._reactor = reactor
        self._factory = factory
        self._key = key
        self._open: dict[str, IListeningPort] = {}

    def addresses(self) -> list[IAddress]:
        """Where they are."""
        return [port.getHost() for port in self._open.values()]

    async def add(self, descriptions: Iterable[str], where: str) -> None:
        """
        Listen at these, too, as far as that is not done already.

        @param where: what says so.
        @raise ConfigurationError: it cannot be listened at one of them; then it is at none of the new ones.
        """
        added: dict[str, IListeningPort] = {}
        try:
            for description in descriptions:
                if description not in self._open:
                    added[description] = await listen(
                        self._reactor, description, self._factory, where, self._key
                    )
        except ConfigurationError:
            await _close(added.values())
            raise
        self._open |= added

    async def keep(self, descriptions: Collection[str]) -> None:
        """Listen no more at others than these."""
        others = [known for known in self._open if known not in descriptions]
        await _close([self._open.pop(known) for known in others])


async def _close(ports: Iterable[IListeningPort]) -> None:
    await gatherResults([maybeDeferred(port.stopListening) for port in ports])


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
