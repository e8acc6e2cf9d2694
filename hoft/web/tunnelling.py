"""
CONNECT (RFC 9110 section 9.3.6): a caller's connection becomes one to a TCP port behind a peer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.web.calls import Call, Tunnelled
from hoft.web.problems import Problem, Refused, internal_error
from hoft.web.requests import Field
from hoft.web.targets import Tunnel


class Tunnels(Protocol):
    """What makes connections behind peers."""

    def tunnel(
        self, peer: str, to: Tunnel, within: float, over: Callable[[int], None]
    ) -> Deferred[Tunnelled]:
        """
        Connect.

        @param within: seconds in which it must be connected.
        @param over: called when it is over, with how many bytes have passed in both directions.
        @return: fires with the protocol for the caller's connection once there is one to the
            target; fails with L{Refused}.  It may be cancelled.
        """


class Tunnelling:
    """A call with CONNECT, until it is answered; a L{hoft.web.calls.CallReceiver}."""

    _log = Logger()

    def __init__(
        self,
        call: Call,
        connecting: Deferred[Tunnelled],
        fields: Sequence[Field],
        refuse: Callable[[Call, Problem], None],
    ) -> None:
        """
        @param fields: of the response that says that there is a connection.
        @param refuse: answers with a problem.
        """
        self._call = call
        self._fields = fields
        self._refuse = refuse
        self._connecting = connecting
        connecting.addCallback(self._connected).addErrback(self._failed)

    def _connected(self, protocol: Tunnelled) -> None:
        self._call.tunnel(self._fields, protocol)

    def _failed(self, failure: Failure) -> None:
        if self._call.over:
            return
        if failure.check(Refused):
            assert isinstance(failure.value, Refused)
            self._refuse(self._call, failure.value.problem)
        else:
            self._log.failure("A tunnel failed", failure)
            self._refuse(self._call, internal_error("the log of this node says why"))

    def bodyReceived(self, data: bytes) -> None:
        """There is none: what comes is kept until there is a connection."""

    def bodyEnded(self, trailers: Sequence[Field]) -> None:
        """At once."""

    def pauseResponse(self) -> None:
        """Nothing is written."""

    def resumeResponse(self) -> None:
        """Nothing is written."""

    def callLost(self, reason: str) -> None:
        """The caller is gone: nobody wants the connection."""
        self._connecting.cancel()
