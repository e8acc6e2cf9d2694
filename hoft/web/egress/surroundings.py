"""
What an exchange at the egress has around it: its peer's link and share of the node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

from hoft.interfaces import ILink, ITransaction
from hoft.web.client.agent import ExactAgent
from hoft.web.client.policy import Policy
from hoft.web.egress.credentials import Credentials
from hoft.web.egress.executions import Rows
from hoft.web.http.responses import HEAD_LIMIT

if TYPE_CHECKING:
    from hoft.web.egress.calling import ServiceCall
    from hoft.web.egress.performing import Exchange


class Stage(Enum):
    """Where an exchange is."""

    GATHERING = "gathering"
    """Its request has not arrived as a whole."""
    QUEUED = "queued"
    """It has, and waits for its turn."""
    RUNNING = "running"
    """The service has it, or its response is on the way into the log."""
    DRAINING = "draining"
    """It was answered before its request had come as a whole; the rest is dropped."""
    OVER = "over"


@frozen
class Limits:
    """
    What peers may ask of us.

    @ivar request_body: the most bytes of one request's body.
    @ivar response_header: the most bytes of a response's status line and fields, below what one
        head may have (L{hoft.web.http.heads.MAX_HEAD}).
    @ivar spool: the most bytes of one peer's requests that lie in the journal at once.
    @ivar parallel: requests of one peer under way to one service at once, and C{running}, to all of
        them; others queue.
    @ivar backlog: bytes that wait for a peer above which services are held up, but for the beginnings of
        responses.
    @ivar grace: seconds for what is under way when the node stops.
    """

    request_body: int = 4 << 30
    response_header: int = HEAD_LIMIT
    spool: int = 16 << 30
    parallel: int = 100
    running: int = 400
    backlog: int = 64 << 20
    grace: float = 2.0


class Surroundings(Protocol):
    """What an exchange needs of the egress of its peer."""

    link: ILink
    rows: Rows
    pseudonym: str
    agent: ExactAgent
    reactor: Any
    clock: Callable[[], float]
    spooled: int

    @property
    def policy(self) -> Policy:
        """In force now."""

    @property
    def limits(self) -> Limits:
        """In force now."""

    @property
    def credentials(self) -> Mapping[str, Credentials]:
        """Those that there are now, by name."""

    def enqueue(self, exchange: Exchange) -> None:
        """Its request is complete: call C{start} when it is its turn."""

    def withdraw(self, exchange: Exchange) -> None:
        """It was enqueued, and does not want a turn any more."""

    def released(self, exchange: Exchange) -> None:
        """It has had its turn: the service is done with it."""

    def watch(self, call: ServiceCall) -> None:
        """Its service is asked: call C{silent} once it is C{due}."""

    def unwatch(self, call: ServiceCall) -> None:
        """The service has answered, or nothing is wanted of it any more."""

    def room(self, exchange: Exchange) -> bool:
        """May it put more into the log now?  If not, C{resume} is called when it may."""

    def left(self) -> int:
        """Bytes that requests may still take of the journal's disk."""

    def share(self) -> int:
        """Bytes of its response that each exchange may have in memory."""

    def ended(self, exchange: Exchange) -> None:
        """No more parts of it are wanted."""

    def discard(self, records: Sequence[int], also: Callable[[ITransaction], None] | None = None) -> None:
        """Consume these soon, with what is to be written then; again and again, until that is done."""

    def account(self, exchange: Exchange) -> None:
        """It has been answered, or given up."""

    def count(self, what: str) -> None:
        """For the counters."""
