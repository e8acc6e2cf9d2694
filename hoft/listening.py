"""Opening a port that a configuration names, and naming it."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
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
        port: IListeningPort = await serverFromString(reactor, description).listen(factory)
        return port
    except CannotListenError as error:
        raise ConfigurationError(
            where,
            key,
            f"{description}: {error.socketError.strerror or error.socketError}",
            "an address of this machine and a port that is free",
        ) from error


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
