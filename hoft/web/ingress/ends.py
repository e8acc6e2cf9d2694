"""
Why exchanges end that were under way, as it is told to those who wait for them.
"""

from __future__ import annotations

from attrs import evolve
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import HoftError, JournalFull
from hoft.web.http.problems import (
    Problem,
    internal_error,
    no_space,
    outcome_unknown,
    peer_unavailable,
)

_log = Logger()


def stopping(peer: str) -> Problem:
    """This node ends while a call waits for C{peer}."""
    detail = f"this node is being stopped; the call may have been made through {peer} already"
    return evolve(outcome_unknown(detail), status=503)


def stopped(peer: str) -> Problem:
    """The link to C{peer} waits for a person."""
    return outcome_unknown(f"the link to {peer} was stopped while the call was under way")


def restored() -> Problem:
    """What one of the nodes knew of the exchange is lost."""
    return outcome_unknown("a node was restored from an older copy while the call was under way")


def damaged() -> Problem:
    """A part of the request or of the response is not in the journal as it was stored."""
    return outcome_unknown("a part of the call was damaged in the journal of this node, as on a bad disk")


def not_committed(failure: Failure, peer: str, exchange: bytes) -> Problem:
    """The journal has not taken the request, or not all of it."""
    if failure.check(JournalFull):
        return no_space("the journal of this node has no room for the request", retry_after=10)
    if failure.check(HoftError):
        return peer_unavailable(peer, failure.getErrorMessage())
    _log.failure("Call {id}: the request could not be committed", failure, id=exchange.hex())
    return internal_error("the request could not be kept; the log of this node says why")
