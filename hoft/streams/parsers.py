"""
What makes C{hoft:} endpoint strings known to Twisted, and imports what they stand for only when one is used.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from twisted.python.reflect import namedAny
from zope.interface import implementer


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientParser:
    """For C{twisted.internet.endpoints.clientFromString}."""

    prefix = "hoft"

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamClientEndpoint:
        """See L{hoft.streams.endpoints.client}."""
        return cast(
            IStreamClientEndpoint, namedAny("hoft.streams.endpoints.client")(reactor, *args, **kwargs)
        )


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerParser:
    """For C{twisted.internet.endpoints.serverFromString}."""

    prefix = "hoft"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:
        """See L{hoft.streams.endpoints.server}."""
        return cast(
            IStreamServerEndpoint, namedAny("hoft.streams.endpoints.server")(reactor, *args, **kwargs)
        )
