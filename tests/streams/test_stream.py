"""Streams between two processes: opening, bytes in order, ends, resets."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer, IProtocol, IPushProducer, ITransport
from zope.interface.verify import verifyObject

from hoft.interfaces import LinkState
from hoft.streams.failures import StreamRefused, StreamReset
from hoft.streams.multiplexer import IDLE
from hoft.streams.parts import Kind
from hoft.streams.surroundings import StreamAddress
from hoft.testing.harness import pattern
from hoft.web.http.problems import Refused, not_allowed
from tests.streams.ends import Ends, HalfListener, Listener


class OpeningTests(Ends):
    def test_a_stream_is_a_transport_between_two_addresses(self) -> None:
        near, far = self.talk()
        for interface in (ITransport, IConsumer, IPushProducer):
            verifyObject(interface, near.transport)
        self.assertEqual(near.transport.getHost(), StreamAddress("near"))
        self.assertEqual(near.transport.getPeer(), StreamAddress("far", "it"))
        self.assertEqual(far.transport.getHost(), StreamAddress("far", "it"))
        self.assertEqual(far.transport.getPeer(), StreamAddress("near"))

    def test_who_is_refused_learns_why(self) -> None:
        accepted = self.near.streams.open("nothing", 60.0).when_accepted()
        self.pump()
        error = self.failureResultOf(accepted, StreamRefused).value
        self.assertEqual(error.problem.kind, "not-found")
        self.assertIn("no nothing for near", str(error))
        self.assertNothingLeft()

    def test_what_is_asked_is_answered_before_there_is_a_stream(self) -> None:
        there = HalfListener()
        self.far.services["it"] = lambda: there
        stream = self.near.streams.open("it", 60.0, b"abc\0")
        answered = stream.when_accepted()
        stream.write(b"and this is behind it")
        self.pump()
        self.assertEqual(self.successResultOf(answered), b"\0cba")
        self.assertEqual(bytes(there.received), b"and this is behind it")

    def test_a_refusal_may_take_its_time(self) -> None:
        deciding: Deferred[IProtocol] = Deferred()
        self.far.services["it"] = lambda: deciding
        accepted = self.near.streams.open("it", 60.0).when_accepted()
        self.pump()
        self.assertNoResult(accepted)
        deciding.errback(Refused(not_allowed("not you")))
        self.pump()
        self.assertEqual(self.failureResultOf(accepted, StreamRefused).value.problem.status, 403)
        self.assertNothingLeft()

    def test_bytes_may_be_sent_along_with_the_wish(self) -> None:
        there = HalfListener()
        self.far.services["it"] = lambda: there
        stream = self.near.streams.open("it", 60.0)
        here = HalfListener()
        stream.attach(here)
        here.transport.write(b"at once")
        stream.loseWriteConnection()
        self.pump()
        self.assertEqual((bytes(there.received), there.ends), (b"at once", ["read"]))
        kinds = [part.kind for part in self.sent(self.near_link)]
        self.assertEqual(kinds, [Kind.OPEN, Kind.DATA, Kind.END])

    def test_who_is_not_answered_in_time_gives_up_and_the_far_side_stops_trying(self) -> None:
        given_up: list[Deferred[Any]] = []
        self.far.services["it"] = lambda: Deferred(given_up.append)
        accepted = self.near.streams.open("it", 5.0).when_accepted()
        self.pump()
        self.clock.advance(4.9)
        self.near.streams.tick()
        self.assertNoResult(accepted)
        self.clock.advance(0.2)
        self.near.streams.tick()
        self.pump()
        self.failureResultOf(accepted, StreamReset)
        self.assertEqual(len(given_up), 1)
        self.assertNothingLeft()

    def test_who_cancels_is_as_one_who_gave_up(self) -> None:
        self.far.services["it"] = Deferred
        accepted = self.near.streams.open("it", 5.0).when_accepted()
        self.pump()
        accepted.cancel()
        self.failureResultOf(accepted, StreamReset)
        self.pump()
        self.assertNothingLeft()

    def test_a_link_that_cannot_be_used_refuses_at_once(self) -> None:
        for state in (LinkState.DOWN, LinkState.STOPPED):
            self.near_link.change(state)
            with self.assertRaises(StreamRefused):
                self.near.streams.open("it", 60.0)


class BytesTests(Ends):
    def test_bytes_come_in_order_both_ways_at_once(self) -> None:
        near, far = self.talk()
        up, down = pattern(3_000_000, 1), pattern(3_000_000, 2)
        for start in range(0, len(up), 50_000):
            near.transport.write(up[start : start + 50_000])
            far.transport.writeSequence([down[start : start + 20_000], down[start + 20_000 : start + 50_000]])
        self.pump()
        self.assertEqual(bytes(far.received), up)
        self.assertEqual(bytes(near.received), down)
        near.transport.loseConnection()
        far.transport.loseConnection()
        self.pump()
        self.assertNothingLeft()

    def test_records_whose_bytes_are_not_in_memory_are_read_back(self) -> None:
        self.near_link.withheld = self.far_link.withheld = 0.3
        self.test_bytes_come_in_order_both_ways_at_once()

    def test_small_writes_of_one_turn_go_together(self) -> None:
        near, far = self.talk()
        before = len(self.near_link.records)
        for number in range(1000):
            near.transport.write(b"%04d" % number)
        self.pump()
        self.assertEqual(len(far.received), 4000)
        self.assertEqual(len(self.near_link.records) - before, 1)

    def test_a_stream_each_and_none_waits_for_another(self) -> None:
        lazy = [HalfListener() for _ in range(20)]
        for listener in lazy:
            self.connect(listener, HalfListener, "lazy")
            listener.transport.pauseProducing()
        near, _ = self.talk(far=HalfListener(lambda self, data: self.transport.write(data)))
        data = pattern(2_000_000)
        near.transport.write(data)
        self.pump()
        self.assertEqual(bytes(near.received), data)
        self.assertEqual(self.near.streams.open_streams, 21)


class EndTests(Ends):
    def assertClosed(self, listener: Listener) -> None:
        """It was told that this was all."""
        assert listener.lost is not None
        listener.lost.trap(ConnectionDone)

    def test_either_direction_ends_by_itself(self) -> None:
        near, far = self.talk()
        near.transport.write(b"question")
        near.transport.loseWriteConnection()
        self.pump()
        self.assertEqual((bytes(far.received), far.ends), (b"question", ["read"]))
        far.transport.write(b"answer")
        self.pump()
        self.assertEqual(bytes(near.received), b"answer")
        self.assertEqual((near.lost, far.lost), (None, None))
        far.transport.loseWriteConnection()
        self.pump()
        self.assertEqual(near.ends, ["read"])
        for one in (near, far):
            self.assertClosed(one)
        self.assertNothingLeft()

    def test_who_closes_has_sent_what_was_written_before(self) -> None:
        near, far = self.talk()
        data = pattern(1_000_000)
        near.transport.write(data)
        near.transport.loseConnection()
        near.transport.write(b"too late")
        self.pump()
        self.assertEqual(bytes(far.received), data)
        for one in (near, far):
            self.assertClosed(one)
        self.assertNothingLeft()

    def test_who_closes_hears_nothing_more(self) -> None:
        near, far = self.talk()
        near.transport.loseConnection()
        far.transport.write(pattern(600_000))
        self.pump()
        self.assertEqual(bytes(near.received), b"")
        self.assertClosed(far)
        self.assertNothingLeft()

    def test_a_protocol_that_needs_both_directions_is_lost_with_one_but_what_it_wrote_goes(self) -> None:
        near, far = self.talk(far=Listener())
        data = pattern(700_000)
        far.transport.write(data)
        near.transport.loseWriteConnection()
        self.pump()
        self.assertClosed(far)
        self.assertEqual(bytes(near.received), data)
        self.assertClosed(near)
        self.assertNothingLeft()

    def test_who_aborts_loses_at_once_and_the_peer_is_told(self) -> None:
        near, far = self.talk()
        far.transport.pauseProducing()
        near.transport.write(b"never read")
        self.pump()
        near.transport.abortConnection()
        self.pump()
        near.lost.trap(ConnectionAborted)
        far.lost.trap(StreamReset)
        self.assertIn("aborted", str(far.lost.value))
        self.assertNothingLeft()

    def test_what_a_peer_gives_as_its_reason_is_one_line(self) -> None:
        near, far = self.talk()
        near.transport.reset("first\nsecond\x1b[31m")
        self.pump()
        self.assertEqual(str(far.lost.value), "first?second?[31m")

    def test_a_protocol_that_fails_resets_its_stream(self) -> None:
        def fail(listener: Listener, data: bytes) -> None:
            raise ZeroDivisionError

        near, far = self.talk(far=HalfListener(fail))
        near.transport.write(b"x")
        self.pump()
        far.lost.trap(ZeroDivisionError)
        near.lost.trap(StreamReset)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNothingLeft()

    def test_whatever_a_program_does_other_streams_go_on(self) -> None:
        def fail(*_: Any) -> Any:
            raise ZeroDivisionError

        good, there = self.talk()
        for name in ("connectionMade", "readConnectionLost", "writeConnectionLost"):
            bad, here = HalfListener(), HalfListener()
            setattr(bad, name, fail)
            self.connect(here, lambda bad=bad: bad)  # type: ignore[misc]  # it is called at once
            if here.transport is not None:
                here.transport.loseConnection() if name[0] == "w" else here.transport.loseWriteConnection()
            self.pump()
            self.assertEqual(self.far.streams.open_streams, 1, name)
        self.far.services["it"] = fail
        refused = self.near.streams.open("it", 60.0).when_accepted()
        self.pump()
        self.assertEqual(self.failureResultOf(refused, StreamRefused).value.problem.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)
        good.transport.write(b"as ever")
        self.pump()
        self.assertEqual(bytes(there.received), b"as ever")

    def test_an_opener_that_has_closed_need_not_wait_for_the_answer(self) -> None:
        there = HalfListener()
        self.far.services["it"] = lambda: there
        stream, here = self.near.streams.open("it", 60.0), HalfListener()
        stream.attach(here)
        stream.write(b"fire and forget")
        stream.loseConnection()
        self.pump()
        self.assertClosed(here)
        self.assertEqual(bytes(there.received), b"fire and forget")
        self.assertClosed(there)
        self.assertNothingLeft()

    def test_a_stream_on_which_nothing_passes_for_a_day_is_given_up(self) -> None:
        near, far = self.talk()
        self.clock.advance(IDLE - 1)
        near.transport.write(b"still here")
        self.pump()
        self.clock.advance(IDLE - 1)
        self.near.streams.tick()
        self.pump()
        self.assertIsNone(near.lost)
        self.clock.advance(2)
        self.near.streams.tick()
        self.pump()
        near.lost.trap(StreamReset)
        far.lost.trap(StreamReset)
        self.assertNothingLeft()
