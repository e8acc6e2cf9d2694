"""
Peers of which nothing has been heard since the node's start.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.logger import Logger

from hoft.interfaces import LinkState
from hoft.protocols.link import Link

NAMED = 10
"""Peers that one line of the log names."""

UNHEARD = 30.0
"""Seconds after which the log says of a peer that nothing was heard of it yet."""


class Silence:
    """Has the log say of each such peer once that it is silent."""

    _log = Logger()

    def __init__(self, links: Mapping[str, Link]) -> None:
        """@param links: by the names of the peers, as they are when it is looked."""
        self._links = links
        self._unheard: dict[str, float] = {}
        """Peers of which nothing was said yet; since when."""

    def watch(self, name: str, since: float) -> None:
        """From now on this peer may be heard."""
        self._unheard[name] = since

    def look(self, now: float) -> None:
        """Say what there is to say."""
        silent = []
        while self._unheard:
            name, since = next(iter(self._unheard.items()))
            if now - since < UNHEARD:
                break
            del self._unheard[name]
            link = self._links.get(name)
            if link is not None and link.state is LinkState.UNKNOWN and link.engine.last_heard is None:
                silent.append(name)
        if silent:
            self._log.warn(
                "Nothing was heard of {peers} for {seconds:.0f} s: does its node run, does each of the two"
                " trust the other's card, and are files carried both ways?",
                peers=", ".join(silent[:NAMED]) + " and others" * (len(silent) > NAMED),
                seconds=UNHEARD,
            )
