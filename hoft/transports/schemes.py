"""
From a transport URL to the carrier's maker, by way of Twisted's plugins.

A package that carries files some other way puts an L{ICarrierMaker} into
C{twisted/plugins/}; it need not be known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from attrs import frozen
from twisted.plugin import IPlugin, getPlugins
from twisted.python.reflect import namedAny
from zope.interface import implementer

import twisted.plugins
from hoft.errors import ConfigurationError
from hoft.interfaces import ICarrier, ICarrierMaker
from hoft.transports import WHERE

_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*(?=:)")


@implementer(IPlugin, ICarrierMaker)
@frozen
class CarrierScheme:
    """
    A maker that imports its carrier only when one is wanted: every C{twistd}
    on the machine imports the plugins.

    @ivar scheme: see L{ICarrierMaker}.
    @ivar factory: the full name of a function with the signature of
        L{ICarrierMaker.carrier}.
    """

    scheme: str
    factory: str

    def carrier(self, reactor: Any, url: str, node: UUID, boot: int, clock: Callable[[], float]) -> ICarrier:
        """See L{ICarrierMaker.carrier}."""
        return cast(ICarrier, namedAny(self.factory)(reactor, url, node, boot, clock))


def maker_for(url: str) -> ICarrierMaker:
    """
    Who makes the carrier for a transport URL.

    @raise ConfigurationError: no installed carrier has this URL's scheme.
    """
    makers = {maker.scheme: maker for maker in getPlugins(ICarrierMaker, twisted.plugins)}
    match = _SCHEME.match(url)
    maker = makers.get(match[0].lower()) if match else None
    if maker is None:
        known = ", ".join(f"{scheme}:" for scheme in sorted(makers))
        raise ConfigurationError(WHERE, "", repr(url), f"a URL that begins with one of {known}")
    return maker
