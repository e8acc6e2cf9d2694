"""A stream does not outlive the process of either end, and both sides come to know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol

from hoft.errors import LinkClosed
from hoft.streams.epochs import Epochs
from hoft.streams.failures import StreamReset
from hoft.streams.multiplexer import ORPHANED
from hoft.streams.parts import Kind
from hoft.streams.stream import Stream
from hoft.testing.harness import pattern
from tests.streams.ends import Ends, HalfListener, Process


class RestartTests(Ends):
    def crash(self, process: Process) -> None:
        """It is gone, with all it had in memory; its journal is not."""
        process.link.detach()
        process.streams.close()

    def restart(self, process: Process) -> Process:
        """Another one takes its place."""
        self.crash(process)
        new = self.start(process.link, process.streams.node)
        new.services = process.services
        return new

    def test_an_idle_stream_is_reset_when_either_node_was_restarted(self) -> None:
        for number, side in enumerate(("near", "far", "near")):
            near, far = self.talk()
            setattr(self, side, self.restart(getattr(self, side)))
            self.pump()
            left = far if side == "near" else near
            left.lost.trap(StreamReset)
            self.assertIn("restarted", str(left.lost.value), number)
            self.assertNothingLeft()
            near, far = self.talk()
            near.transport.write(b"as ever")
            self.pump()
            self.assertEqual(bytes(far.received), b"as ever")
            near.transport.abortConnection()
            self.pump()
            self.assertNothingLeft()

    def test_what_a_dead_process_had_received_is_taken_out_of_the_journal(self) -> None:
        near, far = self.talk()
        far.transport.pauseProducing()
        near.transport.write(pattern(200_000))
        self.pump()
        self.assertGreater(self.far_link.unconsumed(), 0)
        self.far = self.restart(self.far)
        self.pump()
        near.lost.trap(StreamReset)
        self.assertNothingLeft()
        self.assertEqual(self.far.counts["accepted"], 0)

    def test_what_nobody_has_answered_is_answered_by_the_next_process(self) -> None:
        self.far.services["it"] = Deferred
        stream, here = self.near.streams.open("it", 60.0), HalfListener()
        stream.attach(here)
        here.transport.write(b"patience")
        self.pump()
        there = HalfListener()
        self.far.services["it"] = lambda: there
        self.far = self.restart(self.far)
        self.pump()
        self.assertEqual(bytes(there.received), b"patience")
        there.transport.write(b"is rewarded")
        self.pump()
        self.assertEqual(bytes(here.received), b"is rewarded")

    def test_what_is_asked_is_let_go_of_with_the_answer_and_not_before(self) -> None:
        for earlier in (0, 1):
            self.far_link.full = True
            made: list[HalfListener] = []
            self.far.services["it"] = _listeners(made)
            accepted = self.near.streams.open("it", 60.0).when_accepted()
            self.pump()
            self.far.streams.tick()
            self.pump()
            self.assertNoResult(accepted)
            self.far = self.restart(self.far)
            self.pump()
            self.far_link.full = False
            self.far.streams.tick()
            self.pump()
            self.successResultOf(accepted)
            self.assertEqual((len(made), self.far.counts["accepted"]), (2, 1), earlier)
            self.assertEqual(self.far_link.unconsumed(), 0)

    def test_data_whose_wish_an_earlier_process_had_is_let_go_of_in_the_end(self) -> None:
        self.far.services["it"] = HalfListener
        stream = self.near.streams.open("it", 60.0)
        self.pump()
        self.near_link.open = False
        stream.peer_epoch = 0  # as if it was sent before the answer came
        stream.write(b"x")
        stream.loseConnection()
        self.pump()
        self.far = self.restart(self.far)
        self.near_link.heal()
        self.pump()
        self.assertGreater(self.far_link.unconsumed(), 0)
        self.clock.advance(ORPHANED + 1)
        self.far.streams.tick()
        self.pump()
        self.assertNothingLeft()

    def test_an_answer_of_a_process_that_has_died_since_is_worth_nothing(self) -> None:
        """It is on its way when the next process begins, and comes before or after BEGIN."""
        for _ in range(8):
            made: list[HalfListener] = []
            self.far.services["it"] = _listeners(made)
            self.far_link.open = False
            stream = self.near.streams.open("it", 60.0)
            accepted = stream.when_accepted()
            here = HalfListener()
            attached = accepted.addCallback(_attach, stream, here)
            self.pump()
            self.assertEqual(len(made), 1)
            self.far = self.restart(self.far)
            self.pump()
            self.far_link.heal()
            self.pump()
            if here.lost is None:
                self.failureResultOf(attached, StreamReset)
            else:
                here.lost.trap(StreamReset)
            self.assertNothingLeft()

    def test_nothing_is_said_by_a_node_that_never_had_a_stream(self) -> None:
        self.near = self.restart(self.near)
        self.pump()
        self.assertEqual(self.near_link.records, [])
        self.talk()
        before = len(self.near_link.records)
        self.near = self.restart(self.near)
        self.pump()
        self.assertEqual([part.kind for part in self.sent(self.near_link)[before:]], [Kind.BEGIN])

    def test_when_the_log_begins_anew_so_must_streams(self) -> None:
        near, far = self.talk()
        for link in (self.near_link, self.far_link):
            link.lose_state()
        self.pump()
        for one in (near, far):
            one.lost.trap(StreamReset)
            self.assertIn("anew", str(one.lost.value))
        self.assertNothingLeft()
        near, far = self.talk()
        near.transport.write(b"again")
        self.pump()
        self.assertEqual(bytes(far.received), b"again")

    def test_what_an_earlier_log_has_left_in_the_journal_is_void(self) -> None:
        for restarted_again in (False, True):
            self.far.services["it"] = Deferred
            self.near.streams.open("it", 60.0).write(b"old")
            self.pump()
            self.assertGreater(self.far_link.unconsumed(), 1)
            self.near.streams.rolled_back()
            made: list[HalfListener] = []
            self.far.services["it"] = _listeners(made)
            self.crash(self.far)
            self.far_link.commit((), (), Epochs(self.far_link.peer.bytes).begin_log)
            self.far = self.restart(self.far)
            if restarted_again:
                self.far = self.restart(self.far)
            self.pump()
            self.assertEqual(made, [])
            self.assertEqual(self.far_link.unconsumed(), 0)

    def test_a_wish_that_a_new_log_brings_after_all_is_answered_and_called_off(self) -> None:
        self.near_link.open = False
        accepted = self.near.streams.open("it", 60.0).when_accepted()
        self.pump()
        made: list[HalfListener] = []
        self.far.services["it"] = _listeners(made)
        self.near.streams.rolled_back()
        self.far.streams.rolled_back()
        self.failureResultOf(accepted, StreamReset)
        self.near_link.heal()
        self.pump()
        for one in made:
            self.assertIsNotNone(one.lost)
        self.assertNothingLeft()

    def test_a_node_that_stops_tells_its_peer_and_knows_when_it_was_heard(self) -> None:
        _, far = self.talk()
        stopped = self.near.streams.stop()
        self.assertNoResult(stopped)
        self.pump()
        self.successResultOf(stopped)
        far.lost.trap(StreamReset)
        self.assertIn("stops", str(far.lost.value))
        self.assertNothingLeft()
        self.successResultOf(self.far.streams.stop())

    def test_a_link_that_is_closed_takes_its_streams_with_it(self) -> None:
        near, far = self.talk()
        self.near_link.close()
        self.near.streams.close()
        self.pump()
        near.lost.trap(StreamReset)
        self.successResultOf(self.near_link.commit().addErrback(lambda failure: failure.trap(LinkClosed)))
        self.assertIsNone(far.lost)


def _listeners(made: list[HalfListener]) -> Callable[[], IProtocol]:
    def make() -> Any:
        made.append(HalfListener())
        return made[-1]

    return make


def _attach(_: bytes, stream: Stream, protocol: IProtocol) -> None:
    stream.attach(protocol)
