"""
Responses that callers want to have sent to them: when that is attempted, where it
may go, and what has become of it.

A callback belongs to a kept exchange (L{hoft.web.ingress.keeper}), whose result stays until the
callback is delivered or dead.  A crash between sending it and noting that leads to
another attempt, with the same id.

What attempts need is imported by the first one: most nodes make none, and start sooner.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from heapq import heappop, heappush
from itertools import chain, islice
from random import random
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import LocalError
from hoft.interfaces import ITransaction
from hoft.web.client.agent import ExactAgent
from hoft.web.http.problems import Refused, callback_refused
from hoft.web.ingress.callbacks import rows as callback_rows
from hoft.web.ingress.callbacks.delivery import Delivery
from hoft.web.ingress.callbacks.receivers import Receiver
from hoft.web.ingress.callbacks.rows import Row, State
from hoft.web.ingress.keeping import Kept

if TYPE_CHECKING:
    from hoft.web.ingress.callbacks.delivering import Attempt, Outcome
    from hoft.web.ingress.callbacks.registrations import Destination, Registrations
    from hoft.web.ingress.ingress import Ingress

SCHEDULE: Final = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
"""Seconds before each attempt, from the end of the one before: the schedule of the specification."""

JITTER: Final = 0.1
"""By what share of itself a pause may be longer, so that what failed together does not return together."""

TURN: Final = 40
"""How many are looked at in one go: there may be a hundred thousand."""

MOST: Final = 1000
"""How many are listed."""


class Callbacks:
    """
    All of a node's.

    @ivar registrations: the receivers that there are, if any.
    """

    log = Logger()

    def __init__(self, ingress: Ingress, reactor: Any, chance: Callable[[], float] = random) -> None:
        """@param chance: from 0 to 1."""
        self.registrations: Registrations | None = None
        self.agent = ExactAgent(reactor)
        self._reactor = reactor
        self._ingress = ingress
        self._chance = chance
        self._found: dict[State, dict[bytes, Delivery]] = {state: {} for state in State}
        """By state, in the order in which they came to it, and exchange."""
        self._later: deque[Iterator[None]] = deque()
        """What is to be done to many, each a step."""
        self._receivers: dict[tuple[str, str, int], Receiver] = {}
        self._timers: list[tuple[float, int, Delivery]] = []
        self._timer = 0
        self._attempts: set[Attempt] = set()
        self._counts: Counter[str] = Counter()
        self._going = False
        self._stopped = False
        self._idle: Deferred[None] | None = None
        """Fires once no attempt is under way any more."""

    def counters(self) -> dict[str, int]:
        """What was counted since the start, and what there is now, by a stable name each."""
        now = {state.value: len(self._found[state]) for state in (State.WAITING, State.PENDING, State.DEAD)}
        return now | {name: self._counts[name] for name in ("attempts", "failed", "delivered", "given_up")}

    # --- begin ------------------------------------------------------------------------

    def reconfigure(self, registrations: Registrations | None) -> None:
        """Let these be in force from now on, also for what is to be delivered yet."""
        self.registrations = registrations

    def check(self, url: str, caller: str | None) -> None:
        """
        Whether this caller may have a response sent there.

        @raise Refused: it may not.
        """
        self._find(url, caller)

    def _find(self, url: str, caller: str | None) -> Destination:
        if self.registrations is None:
            raise Refused(callback_refused("no receiver is registered here; see 'hoft callback' there"))
        return self.registrations.find(url, caller)

    def want(self, kept: Kept, url: str) -> Callable[[ITransaction], None]:
        """
        A request that is to be kept wants a callback.

        @return: writes its row, in the transaction that keeps the request.
        """
        return callback_rows.write(self._attach(kept, Row(kept.id, url)))

    def load(self, rows: Iterable[Row]) -> None:
        """What an earlier process has left; after the exchanges were loaded."""
        now, wall = self._ingress.keeper.clock(), self._ingress.keeper.wall()
        for row in rows:
            kept = self._ingress.keeper.kept.get(row.exchange)
            if kept is None:
                continue
            delivery = self._attach(kept, row)
            if delivery.state is State.WAITING and kept.over:
                delivery.due = wall
                self._reach(delivery, State.PENDING)
            if delivery.pending:
                left = min(max(0.0, (delivery.due or wall) - wall), _LONGEST)
                self._arm(delivery, now + left)

    def _attach(self, kept: Kept, row: Row) -> Delivery:
        values = {name: getattr(row, name) for name in callback_rows.COLUMNS}
        delivery = Delivery(**values, kept=kept, callbacks=self)
        kept.delivery = self._found[delivery.state][kept.id] = delivery
        kept.observe(delivery)
        return delivery

    def begin(self, delivery: Delivery) -> None:
        """There is something to tell now."""
        keeper = self._ingress.keeper
        delivery.due, delivery.attempts = keeper.wall(), 0
        self._reach(delivery, State.PENDING)
        self._queue(delivery)
        self._go(keeper.clock())

    def _reach(self, delivery: Delivery, state: State) -> None:
        del self._found[delivery.state][delivery.exchange]
        delivery.state = state
        self._found[state][delivery.exchange] = delivery
        self._changed(delivery)

    def _changed(self, delivery: Delivery) -> None:
        self._ingress.keeper.also(delivery.kept, callback_rows.write(delivery))

    def drop(self, delivery: Delivery) -> None:
        """Nobody wants it any more."""
        if self._found[delivery.state].pop(delivery.exchange, None) is not None:
            self._ingress.keeper.also(delivery.kept, callback_rows.forget(delivery.exchange))

    # --- time ---------------------------------------------------------------------------

    def _arm(self, delivery: Delivery, due: float) -> None:
        self._timer += 1
        heappush(self._timers, (due, self._timer, delivery))

    def tick(self, now: float) -> None:
        """Attempt what is due, and give up what takes too long."""
        for _ in range(TURN):
            if not self._timers or self._timers[0][0] > now:
                break
            self._queue(heappop(self._timers)[2])
        self._turn()
        for attempt in [attempt for attempt in self._attempts if attempt.due <= now]:
            attempt.expire()
        self._go(now)

    def _turn(self) -> None:
        room = TURN
        while self._later and room:
            room -= sum(1 for _ in islice(self._later[0], room))
            if room:
                self._later.popleft()

    def _queue(self, delivery: Delivery) -> None:
        """It is due."""
        if not self._is_due(delivery):
            return
        try:
            # Now, too: what is registered may have changed since it was asked for.
            destination = self._find(delivery.url, delivery.kept.caller)
        except Refused as refused:
            self._give_up(delivery, refused.problem.detail)
            return
        grant = destination.grant
        receiver = self._receivers.setdefault((grant.scheme, grant.host, grant.port), Receiver())
        receiver.queue.append((delivery, destination))

    def _go(self, now: float) -> None:
        """Make the attempts for which there is a place."""
        if self._going:  # one has ended as soon as it began
            return
        self._going = True
        for origin, receiver in list(self._receivers.items()):
            while receiver.queue and receiver.running < receiver.places and receiver.rests <= now:
                self._attempt(receiver, *receiver.queue.popleft())
            if not receiver.queue and not receiver.running and receiver.rests <= now:
                del self._receivers[origin]
        self._going = False

    # --- attempts -------------------------------------------------------------------------

    def _attempt(self, receiver: Receiver, delivery: Delivery, destination: Destination) -> None:
        if self._stopped or not self._is_due(delivery):
            return
        from hoft.web.ingress.callbacks.delivering import Attempt, Outcome

        keeper, kept = self._ingress.keeper, delivery.kept
        attempt = Attempt(self._ingress, kept, keeper.link(kept), destination, self.agent.send)
        self._attempts.add(attempt)
        self._counts["attempts"] += 1
        receiver.running += 1
        kept.readers += 1

        def over(result: Outcome | Failure) -> None:
            self._attempts.discard(attempt)
            receiver.running -= 1
            kept.readers -= 1
            if isinstance(result, Outcome):
                receiver.learn(result, keeper.clock())
                self._ended(delivery, result)
            elif not result.check(CancelledError):
                self.log.failure("Call {id}: its callback could not be delivered", result, id=kept.id.hex())
            self._attempt_over()

        attempt.start().addBoth(over)

    def _is_due(self, delivery: Delivery) -> bool:
        return delivery.pending and delivery.exchange in self._found[State.PENDING]

    def _ended(self, delivery: Delivery, outcome: Outcome) -> None:
        keeper = self._ingress.keeper
        delivery.attempts += 1
        delivery.last, delivery.due = keeper.wall(), None
        if not (delivery.pending or outcome.delivered):
            return
        if outcome.delivered:
            self._counts["delivered"] += 1
            delivery.reason = None
            self._reach(delivery, State.DELIVERED)
        else:
            self._counts["failed"] += 1
            self._failed(delivery, outcome)
        self._go(keeper.clock())

    def _failed(self, delivery: Delivery, outcome: Outcome) -> None:
        keeper = self._ingress.keeper
        if outcome.gone:
            self._give_up(delivery, f"{outcome.reason}: it wants no more of them")
            why = f"{outcome.reason} to another: it wants no more of them"
            pending = list(self._found[State.PENDING].values())
            others = (one for one in pending if one.url == delivery.url)
            self._later.append(map(partial(self._give_up, reason=why), others))
            self._turn()
        elif delivery.attempts >= len(SCHEDULE):
            self._give_up(delivery, outcome.reason)
        else:
            pause = SCHEDULE[delivery.attempts] * (1 + JITTER * self._chance())
            pause = max(pause, outcome.retry_after)
            delivery.due, delivery.reason = keeper.wall() + pause, outcome.reason
            self._arm(delivery, keeper.clock() + pause)
            self._changed(delivery)

    def _give_up(self, delivery: Delivery, reason: str) -> None:
        if not self._is_due(delivery):
            return
        self._counts["given_up"] += 1
        delivery.due, delivery.reason = None, reason
        self.log.warn(
            "Call {id}: its callback is given up after {count} attempts: {reason}",
            id=delivery.exchange.hex(),
            count=delivery.attempts,
            reason=reason,
        )
        # Who looks after it has as long to send it again as anybody has to fetch a result.
        self._ingress.keeper.prolong(delivery.kept)
        self._reach(delivery, State.DEAD)

    # --- for operators ----------------------------------------------------------------------

    def listing(self) -> Deferred[dict[str, Any]]:
        """
        The dead ones, and those that are to be delivered, the oldest of both first.

        @return: fires with that, ready for JSON.
        """
        dead, pending = self._found[State.DEAD], self._found[State.PENDING]
        count = len(dead) + len(pending)
        shown = list(islice(chain(dead.values(), pending.values()), MOST))
        listed = self._ingress.slices.gather(delivery.listed for delivery in shown)
        return listed.addCallback(lambda callbacks: {"count": count, "callbacks": callbacks})

    def resend(self, which: object) -> int:
        """
        Begin anew with those that are dead.

        @param which: the id of a request, or C{"all"}.
        @return: how many there are.
        @raise LocalError: the one is not dead.
        """
        chosen = list(self._found[State.DEAD].values()) if which == "all" else [self._dead(str(which))]
        for receiver in self._receivers.values():
            receiver.rests = 0.0
        self._later.append(map(self._again, chosen))
        self._turn()
        return len(chosen)

    def _dead(self, id: str) -> Delivery:
        try:
            return self._found[State.DEAD][bytes.fromhex(id)]
        except (KeyError, ValueError):
            text = f"{id} is no callback that was given up; 'hoft callbacks DIR' lists them"
            raise LocalError(text) from None

    def _again(self, delivery: Delivery) -> None:
        if self._found[State.DEAD].get(delivery.exchange) is delivery:
            self.begin(delivery)

    def stop(self, grace: float) -> Deferred[None]:
        """
        Begin no attempt more.  Those under way are broken off after C{grace} seconds, and made again
        after the next start.

        @return: fires when there is none.
        """
        self._stopped = True
        idle = self._idle = Deferred()
        cutting = self._reactor.callLater(grace, self._cut)
        idle.addCallback(lambda _: cutting.cancel() if cutting.active() else None)
        idle.addCallback(lambda _: self.agent.stop())
        self._attempt_over()
        return idle

    def _cut(self) -> None:
        for attempt in list(self._attempts):
            attempt.stop()

    def _attempt_over(self) -> None:
        if self._idle is not None and not self._attempts and not self._idle.called:
            self._idle.callback(None)


_LONGEST: Final = (1 + JITTER) * max(SCHEDULE)
"""Seconds that anything may still have to wait: a clock that was set back must not make it last for ever."""
