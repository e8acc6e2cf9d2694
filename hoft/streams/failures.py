"""How a stream fails, in terms of Twisted and of hoft alike."""

from __future__ import annotations

from twisted.internet.error import ConnectError, ConnectionLost

from hoft.errors import HoftError
from hoft.web.http.problems import Problem


class StreamRefused(HoftError, ConnectError):
    """
    There will be no stream: C{connect} fails with this.

    @ivar problem: who says so, and why.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.detail)

    def __str__(self) -> str:
        return f"{self.problem.kind}: {self.problem.detail}"


class StreamReset(HoftError, ConnectionLost):
    """
    A stream is over before both sides have ended it: C{connectionLost} is told this.

    @ivar reason: why.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return self.reason


class StreamTimedOut(StreamReset):
    """It was not accepted in time."""
