"""
Seeded lives of two processes that open, fill, stall, end and abort streams, while they
are killed, journals are full, records are held up and the log begins anew.

Whatever happens: bytes come in order and once, a stream that was ended in peace by both
sides has brought all of them, one that was not is lost at both ends, and when all is
over nothing is left in memory or in the journals.
"""

from __future__ import annotations

import os
from random import Random

from attrs import define, field
from twisted.internet.error import ConnectionDone

from hoft.streams.multiplexer import ORPHANED
from hoft.streams.stream import Stream
from hoft.testing.harness import pattern
from tests.streams.ends import Ends, HalfListener, Process
from tests.web.loopback import LoopbackLink

LIVES = 25 * int(os.environ.get("HOFT_SOAK", "1"))
STEPS = 60
BYTES = pattern(4_000_000, 9)


@define(eq=False)
class Side:
    """
    One end.

    @ivar start: where in L{BYTES} what it sends begins.
    @ivar wrote: how much of it.
    """

    listener: HalfListener
    start: int
    process: Process
    wrote: int = 0
    closed: bool = False

    @property
    def alive(self) -> bool:
        return self.listener.lost is None and self.listener.transport is not None and not self.closed

    def write(self, size: int) -> None:
        end = self.start + self.wrote
        self.listener.transport.write(BYTES[end : end + size])
        self.wrote += size


@define(eq=False)
class Both:
    """A stream, and what has to come of it."""

    sides: list[Side] = field(factory=list)
    spoilt: bool = False
    """Something was done to it after which bytes may be missing."""


class LivesTests(Ends):
    def test_lives(self) -> None:
        for seed in range(LIVES):
            self.seed = seed
            self.tearDown()
            self.setUp()
            self.life(Random(seed))

    def life(self, chance: Random) -> None:
        self.streams: list[Both] = []
        for link in (self.near_link, self.far_link):
            link.withheld = chance.choice((0.0, 0.0, 0.2))
        for process in (self.near, self.far):
            process.streams.hold.limit = chance.choice((0, 100_000, 16 << 20))
        for _ in range(STEPS):
            self.step(chance)
            link = chance.choice((self.near_link, self.far_link))
            link.full = chance.random() < 0.1
            if chance.random() < 0.1:
                link.open = False
            elif chance.random() < 0.3:
                link.heal()
                self.process_of(link).streams.tick()
            for _ in range(chance.randrange(12)):
                self.clock.step(self.clock.seconds())
            if chance.random() < 0.1:
                self.pump()
        self.conclude()

    def step(self, chance: Random) -> None:
        sides = [side for both in self.streams for side in both.sides if side.alive]
        what = chance.random()
        if what < 0.15 or not sides:
            self.open(chance, *chance.sample((self.near, self.far), 2))
        elif what < 0.16:
            self.crash(chance.choice(("near", "far")))
        elif what < 0.165:
            self.begin_anew()
        else:
            side = chance.choice(sides)
            transport = side.listener.transport
            if what < 0.65:
                side.write(chance.choice((1, 100, 70_000, 400_000)))
            elif what < 0.75:
                transport.pauseProducing()
            elif what < 0.85:
                transport.resumeProducing()
            elif what < 0.93:
                side.closed = True
                transport.loseWriteConnection()
            elif what < 0.97:
                side.closed = True
                transport.loseConnection()
                self.both(side).spoilt = True
            else:
                transport.abortConnection()
                self.both(side).spoilt = True

    def process_of(self, link: LoopbackLink) -> Process:
        return self.near if link is self.near_link else self.far

    def both(self, side: Side) -> Both:
        return next(both for both in self.streams if side in both.sides)

    def open(self, chance: Random, opener: Process, accepter: Process) -> None:
        both = Both()
        self.streams.append(both)
        target = f"it {len(self.streams)}"

        def accept() -> HalfListener:
            listener = HalfListener()
            both.sides.append(Side(listener, chance.randrange(1000), accepter))
            return listener

        accepter.services[target] = accept
        stream: Stream = opener.streams.open(target, 1e9)
        side = Side(HalfListener(), chance.randrange(1000), opener)
        both.sides.append(side)
        if chance.random() < 0.5:
            stream.attach(side.listener)
        else:
            waiting = stream.when_accepted()
            waiting.addCallbacks(lambda _: stream.attach(side.listener), side.listener.connectionLost)

    def crash(self, name: str) -> None:
        """A process is killed; the next takes its place, which the peer hears of."""
        old: Process = getattr(self, name)
        old.link.detach()
        old.streams.close()
        setattr(self, name, self.start(old.link, name))
        getattr(self, name).services = old.services
        for both in self.streams:
            both.spoilt = True

    def begin_anew(self) -> None:
        for link in (self.near_link, self.far_link):
            link.lose_state()
        for both in self.streams:
            both.spoilt = True

    def conclude(self) -> None:
        """All read on and end; then look at what there is."""
        for link in (self.near_link, self.far_link):
            link.full = False
            link.heal()
            self.process_of(link).streams.tick()
        for _ in range(3):
            self.pump()
            for both in self.streams:
                for side in both.sides:
                    if side.listener.lost is None and side.listener.transport is not None:
                        side.listener.transport.resumeProducing()
                        side.listener.transport.loseWriteConnection()
        self.pump()
        self.clock.advance(ORPHANED + 1)
        for process in (self.near, self.far):
            process.streams.tick()
        self.pump()
        for both in self.streams:
            for side in both.sides:
                self.assertIsNotNone(side.listener.lost, f"seed {self.seed}: still connected")
            if len(both.sides) == 2:
                self.compare(both)
        self.assertNothingLeft()

    def compare(self, both: Both) -> None:
        one, other = both.sides
        for sender, receiver in ((one, other), (other, one)):
            came = bytes(receiver.listener.received)
            sent = BYTES[sender.start : sender.start + sender.wrote]
            self.assertEqual(came, sent[: len(came)], f"seed {self.seed}: other bytes")
            if not both.spoilt:
                self.assertEqual(len(came), len(sent), f"seed {self.seed}: some are missing")
                assert receiver.listener.lost is not None
                self.assertTrue(receiver.listener.lost.check(ConnectionDone), f"seed {self.seed}")
