"""
What a node answers to commands on this machine: see L{hoft.local_socket}.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from hoft.errors import LocalError
from hoft.interfaces import ICarrier
from hoft.probing import probe
from hoft.protocols.link import Link
from hoft.web.ingress.caching.purging import Purging
from hoft.web.ingress.ingress import Ingress
from hoft.web.listing import Listing


class Questions:
    """Those to one node; all is called on the reactor thread."""

    def __init__(
        self,
        reactor: Any,
        status: Callable[[], Deferred[dict[str, Any]]],
        reread: Callable[[], Deferred[None]],
        listing: Listing,
        ingress: Ingress,
        links: Mapping[str, Link],
    ) -> None:
        """
        @param status: see L{hoft.node.Node.look}.
        @param reread: see L{hoft.changes.Changes.reread}.
        """
        self._reactor = reactor
        self._status = status
        self._reread = reread
        self._listing = listing
        self._callbacks = ingress.callbacks
        self._links = links
        self._purging = Purging(reactor, ingress)

    def answer(self, question: Mapping[str, Any]) -> Any:
        """
        See L{hoft.local_server.Answerer}.

        @raise LocalError: (also as failure) there is no answer.
        """
        match question.get("ask"):
            case "status":
                return self._status()
            case "reload":
                return self._reread()
            case "requests":
                return self._listing.answer(question)
            case "callbacks":
                return self._callbacks.listing()
            case "resend":
                return self._callbacks.resend(question.get("which"))
            case "purge":
                return self._purging.answer(question)
            case "probe":
                return probe(self._reactor, time.monotonic, dict(self._links), question.get("within"))
        raise LocalError("this node does not know that question: it is of another version")


def carrier_status(carrier: ICarrier) -> dict[str, int | str]:
    """A carrier's counters, and examples of what some of them count."""
    examples = {
        f"{name}_last": f"{example} ({ago:.0f} s ago)" for name, (example, ago) in carrier.examples().items()
    }
    return {**carrier.counters(), **examples}
