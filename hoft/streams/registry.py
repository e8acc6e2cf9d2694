"""
Which nodes run in this process, and which services its programs offer to peers.

Endpoint strings are resolved here.  A service may be offered before its node runs, and
stays while the node is restarted; a node must run when somebody connects through it.

The one state of the process that hoft has: a string has nothing else to hold on to.
All is called on the reactor thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory

from hoft.errors import NodeNotRunning

if TYPE_CHECKING:
    from hoft.streams.node_streams import NodeStreams


@frozen(eq=False)
class Service:
    """
    What a program offers.

    @ivar node: at which node, C{None} for every one of this process.
    @ivar peer: to whom, C{None} for every peer.
    """

    name: str
    factory: IProtocolFactory
    node: str | None = None
    peer: str | None = None

    def is_for(self, node: str, peer: str) -> bool:
        """Whether this peer of this node may have it."""
        return self.node in (None, node) and self.peer in (None, peer)

    def overlaps(self, other: Service) -> bool:
        """Whether some peer would have the choice between both."""
        return (
            self.name == other.name
            and (self.node is None or other.node in (None, self.node))
            and (self.peer is None or other.peer in (None, self.peer))
        )


_running: list[NodeStreams] = []
_services: list[Service] = []


def started(streams: NodeStreams) -> None:
    """A node runs."""
    _running.append(streams)


def stopped(streams: NodeStreams) -> None:
    """It does not run any more; nothing happens if it did not."""
    if streams in _running:
        _running.remove(streams)


def running(name: str | None = None) -> NodeStreams:
    """
    The streams of a node of this process.

    @param name: what it calls itself; C{None} where there is only one.
    @raise NodeNotRunning: there is none, or several could be meant.
    """
    found = [streams for streams in _running if name in (None, streams.name)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(sorted(streams.name for streams in _running)) or "none"
    wanted = f"no node {name}" if name else "no one node"
    raise NodeNotRunning(f"{wanted} runs in this process (those that run: {there}); say node=NAME")


def offer(service: Service) -> None:
    """
    Let peers connect to it.

    @raise ValueError: there is one of that name.
    """
    if any(service.overlaps(other) for other in _services):
        raise ValueError(f"a service {service.name!r} is offered already")
    _services.append(service)


def withdraw(service: Service) -> None:
    """Let nobody connect to it any more; nothing happens if nobody could."""
    if service in _services:
        _services.remove(service)


def service(name: str, node: str, peer: str) -> Service | None:
    """What C{peer} of C{node} gets under this name."""
    for one in _services:
        if one.name == name and one.is_for(node, peer):
            return one
    return None
