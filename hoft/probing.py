"""
Asks peers for a sign of life, and measures how long it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from hoft.errors import LocalError
from hoft.protocols.link import Link

LONGEST = 3600.0
"""Seconds for which an answer may be waited for."""

_EVERY = 0.05


def probe(
    reactor: Any, clock: Callable[[], float], links: Mapping[str, Link], patience: object
) -> Deferred[dict[str, float | None]]:
    """
    Ask all peers at once.  May be cancelled.

    @param clock: monotonic seconds.
    @param links: by the names of the peers.
    @param patience: seconds, as a question has it.
    @return: fires once all have answered, or after C{patience} seconds; by name, the
        seconds from the question until the peer was heard, C{None} if it was not.
    @raise LocalError: C{patience} is no such number.
    """
    if not isinstance(patience, int | float) or not 0 <= patience <= LONGEST:
        raise LocalError(f"a patience of {patience!r}; wanted: seconds up to {LONGEST:g}")
    began = clock()
    answers: dict[str, float | None] = dict.fromkeys(links)
    for link in links.values():
        link.ask()

    def look() -> None:
        for name, link in links.items():
            heard = link.engine.last_heard
            if answers[name] is None and heard is not None and heard > began:
                answers[name] = round(heard - began, 3)
        if None not in answers.values() or clock() - began >= patience:
            looking.stop()

    looking = LoopingCall(look)
    looking.clock = reactor
    done: Deferred[dict[str, float | None]] = Deferred(lambda _: looking.stop())
    looking.start(_EVERY).addCallbacks(lambda _: done.callback(answers), done.errback)
    return done
