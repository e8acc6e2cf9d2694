"""
The stages of a kept exchange as they are reached: Server-Sent Events (HTML Living Standard, 9.2).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hoft.web.http.fields import values
from hoft.web.http.heads import Field
from hoft.web.ingress.calls import Call, Indifferent
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.kept_rows import Stage

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

KEEP_ALIVE = 15.0
"""Seconds of silence after which there is a comment, for proxies that cut silent connections."""

_NUMBERS = {stage.value: number for number, stage in enumerate(Stage, 1)}
"""Ids of the events: a stage has the same one always, so a reader that comes back misses none."""


class Events(Indifferent):
    """
    A L{hoft.web.ingress.calls.CallReceiver} that says each stage once, in order, and ends after the
    last; it need not be held up, for there are ten at most.
    """

    def __init__(
        self,
        ingress: Ingress,
        kept: Kept,
        call: Call,
        described: Callable[[Kept, Call], dict[str, Any]],
    ) -> None:
        """@param described: what the data of the last event are."""
        self.due = 0.0
        self._ingress = ingress
        self._kept = kept
        self._call = call
        self._described = described
        last = values(call.request.fields, b"last-event-id")
        self._said = int(last[0]) if last and last[0].isdigit() and len(last[0]) < 9 else 0

    def start(self) -> Events:
        """Say what there is to say, and wait for the rest."""
        keeper = self._ingress.keeper
        fields: list[Field] = [
            (b"Content-Type", b"text/event-stream"),
            (b"Cache-Control", b"no-store"),
            (b"Date", self._ingress.date()),
        ]
        self._call.respond(200, b"OK", fields)
        self._kept.observe(self)
        keeper.waiters.add(self)
        self._ingress.tickLater()
        self._say()
        return self

    # --- Observer, Waiter -----------------------------------------------------------------

    def stageReached(self, kept: Kept) -> None:
        """See L{hoft.web.ingress.keeping.Observer}."""
        self._say()

    def expire(self) -> None:
        """It has been silent for a while."""
        self.due = self._ingress.keeper.clock() + KEEP_ALIVE
        if self._call.writable:
            self._call.write(b": still here\n\n")

    def stop(self) -> None:
        """The node stops: the reader comes again, with the id of the last event that it has."""
        self._end()

    def _say(self) -> None:
        kept = self._kept
        for stage, at in kept.stages.items():
            number = _NUMBERS[stage]
            if number > self._said:
                self._said = number
                data = {"state": stage, "at": at}
                if Stage(stage).last:
                    data = self._described(kept, self._call)
                text = f"id: {number}\nevent: {stage}\ndata: {json.dumps(data)}\n\n"
                self._call.write(text.encode("ascii"))
        self.due = self._ingress.keeper.clock() + KEEP_ALIVE
        if kept.over:
            self._end()

    def _end(self) -> None:
        self._leave()
        self._call.finish()

    def _leave(self) -> None:
        self._ingress.keeper.waiters.discard(self)
        self._kept.leave(self)

    # --- CallReceiver -----------------------------------------------------------------------

    def callLost(self, reason: str) -> None:
        self._leave()
