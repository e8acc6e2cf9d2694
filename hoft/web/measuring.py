"""What is measured of calls, for whoever shows it."""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.defer import Deferred

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus's text format."""


class Metrics(Protocol):
    """See L{hoft.metrics.Metrics}."""

    def called(
        self,
        caller: str | None,
        route: str | None,
        status: int,
        seconds: float,
        executing: float | None,
        sizes: tuple[int, int],
    ) -> None:
        """
        A call has ended.

        @param status: what the caller got; 0 for nothing.
        @param seconds: in all.
        @param executing: seconds from the request's arrival at the far node to the response's head.
        @param sizes: bytes of the request's and the response's body.
        """

    def exposition(self) -> Deferred[bytes]:
        """All of it in Prometheus's text format."""
