"""
All streams over one link.

An I{epoch} stands for this process: a number that the journal counts up, so that those
of one node are ordered, and 32 random bits, so that none comes back after a restore.
A stream lives in the memory of two processes, its protocols at both ends do, and no
journal brings those back.  So it ends with either process, and says so: the first thing
that a process tells a peer to which an earlier one had streams is BEGIN.  What lies in
the journal of an earlier epoch's streams is let go of as it is found.

OPEN is let go of in the commit that answers it: one that nobody has answered is answered
by the next process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft import cbor
from hoft.errors import LinkClosed, PayloadLost, RecordError
from hoft.interfaces import CommitResult, ILink, Incoming, LinkState
from hoft.protocols.ranges import RangeSet
from hoft.streams.committing import Committer
from hoft.streams.epochs import Epochs
from hoft.streams.failures import StreamRefused, StreamTimedOut
from hoft.streams.halves import Hold
from hoft.streams.parts import ID, MAX_STREAM, STREAMS, Kind, Part, decode, decode_wish
from hoft.streams.stream import FAILED, Stage, Stream
from hoft.web.crossing.unread import Unread
from hoft.web.http.problems import Problem, Refused, internal_error, peer_unavailable, too_busy

MAX_STREAMS = 1024
"""Streams that either side may have open on a link at once."""

HOLD = 16 << 20
"""Bytes in memory of what cannot be handed on yet, of all streams of a link."""

WINDOWS = 512 << 20
"""Of all streams of a link, what their windows are beyond the first one."""

ORPHANED = 3600.0
"""Seconds after which DATA is let go of whose OPEN has not come: an earlier process may have had that."""

IDLE = 86400.0
"""Seconds without a byte after which a stream is given up."""


@frozen
class Accepted:
    """
    A stream that a peer wants to open will be there.

    @ivar protocol: who gets it.
    @ivar answer: to what was asked.
    """

    protocol: IProtocol
    answer: bytes = b""


Acceptor = Callable[[str, Stream, bytes], "Deferred[Accepted]"]
"""
Called with the peer's name, and a stream that it wants to open, and what is asked of its target.

@return: fails with L{Refused}.  It is cancelled if the peer gives up.
"""


_ANSWERS = frozenset((Kind.ACCEPT, Kind.REFUSE, Kind.RESET))
"""By which an opener learns that its OPEN is not in the peer's journal any more."""


class Multiplexer:
    """
    The streams of one link; the L{hoft.streams.stream.Surroundings} of each.

    @ivar epoch: of this process, 0 before L{begin} is over.
    @ivar counts: for status displays.
    """

    _log = Logger()

    def __init__(
        self,
        link: ILink,
        node: str,
        reactor: IReactorTime,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        accept: Acceptor,
        counts: Counter[str],
    ) -> None:
        """
        @param node: what this node calls itself.
        @param clock: monotonic seconds.
        @param entropy: so many random bytes.
        """
        self.link = link
        self.node = node
        self.peer = link.name
        self.epoch = 0
        self.hold = Hold(HOLD)
        self.windows = Hold(WINDOWS)
        self.now = clock
        self.counts = counts
        self._reactor = reactor
        self._entropy = entropy
        self._accept = accept
        self._peer_epoch = 0
        self._number = 0
        self._ours: dict[int, Stream] = {}
        self._theirs: dict[int, Stream] = {}
        self._past = RangeSet()
        """Numbers of the peer's streams that are over."""
        self._committer = Committer(link, reactor, self._uncommitted)
        self._epochs = Epochs(link.peer.bytes)
        self._earlier = 0
        """Records up to this one are of an earlier log."""
        self._asked = 1
        """How often the journal was asked for that and has not answered; L{begin} is the first."""
        self._early: list[Incoming] = []
        """What came meanwhile."""
        self._unread = Unread(link, self._found, self._not_found, self._damaged)
        self._closed = False

    # --- life

    def begin(self) -> Deferred[None]:
        """Find out which epoch this is; tell the peer if an earlier one had streams."""

        def begun(result: CommitResult[tuple[int, int]]) -> None:
            last, earlier = result.value or (0, 0)
            self._earlier = max(self._earlier, earlier)
            self.epoch = (last + 1) << 32 | int.from_bytes(self._entropy(4), "big")
            first = Part(Kind.BEGIN, False, self.epoch, 0, 0) if last else None
            self._committer.begin(self._epochs.begin(last + 1), first)

        looking = self.link.commit((), (), self._epochs.look)
        return looking.addCallbacks(begun, self._uncommitted).addCallback(self._known)

    def _known(self, _: object) -> None:
        """What comes can be told from what was there before, as far as that was asked for."""
        self._asked -= 1
        if not self._asked:
            early, self._early = self._early, []
            self.received(early)

    def open(self, target: str, within: float, asked: bytes = b"") -> Stream:
        """
        Open a stream; look at its C{accepted} at once, and at C{attach}.

        @param target: see L{hoft.streams.stream.StreamAddress}.
        @param within: seconds in which it must be accepted.
        @param asked: what the target is told first of all.
        @raise StreamRefused: there is no use in trying.
        @raise ValueError: target and what is asked do not fit one part.
        """
        state = self.link.state
        if state in (LinkState.STOPPED, LinkState.DOWN) or self._closed:
            raise StreamRefused(peer_unavailable(self.peer, "see 'hoft status'"))
        if len(self._ours) >= MAX_STREAMS or self._number >= MAX_STREAM:
            raise StreamRefused(too_busy(f"{len(self._ours)} streams to {self.peer} are open already"))
        deadline = self.now() + within
        stream = Stream(self, self._number + 1, target, ours=True, deadline=deadline, asked=asked)
        self._number += 1
        self._ours[stream.number] = stream
        self.counts["opened"] += 1
        self.wake(stream)
        return stream

    @property
    def open_streams(self) -> int:
        """How many there are now."""
        return len(self._ours) + len(self._theirs)

    def stop(self) -> Deferred[None]:
        """
        The node stops: reset all streams.

        @return: fires when the peer knows; whoever waits does not wait for long.
        """
        for stream in self._all():
            stream.reset("the node there stops")
        return self._committer.quiet()

    def close(self) -> None:
        """The link is closed: nobody is told anything any more."""
        self._closed = True
        self._unread.drop()
        for stream in self._all():
            stream.lose(f"the link to {self.peer} was closed")
        self._committer.close()

    def rolled_back(self) -> None:
        """The log began anew: nobody knows what of each stream has arrived."""
        for stream in self._all():
            if stream.ours:
                stream.reset("the log with the peer began anew")
            else:
                # Nobody can say which epoch the peer is in now.
                stream.lose("the log with the peer began anew")
        self._peer_epoch = 0
        self._past = RangeSet()
        self.consume(self._unread.drop())

        def begun(result: CommitResult[int]) -> None:
            self._earlier = result.value or 0

        self._asked += 1
        marking = self.link.commit((), (), self._epochs.begin_log)
        marking.addCallbacks(begun, self._uncommitted).addCallback(self._known)

    @property
    def quiet(self) -> bool:
        """There is nothing that a tick could do."""
        return not self._ours and not self._theirs and self._committer.idle

    def tick(self) -> None:
        """Called now and then, by a monotonic clock."""
        now = self.now()
        for stream in self._all():
            if stream.deadline <= now:
                reason = f"{self.peer} has not answered in time"
                stream.reset(reason, StreamTimedOut(reason))
            elif now - stream.moved > (ORPHANED if stream.stage is Stage.EARLY else IDLE):
                stream.reset("nothing has passed for too long")
        self._committer.flush()

    def acknowledged(self, ids: Iterable[int]) -> None:
        """The peer has these records of ours."""
        self._committer.acknowledged(ids)

    def _all(self) -> list[Stream]:
        return [*self._ours.values(), *self._theirs.values()]

    # --- for the streams

    def later(self, function: Callable[..., object], *arguments: Any) -> None:
        self._reactor.callLater(0, function, *arguments)

    def wake(self, stream: Stream) -> None:
        self._committer.wake(stream)

    def consume(self, records: Iterable[int]) -> None:
        self._committer.consume(records)

    def answered(self, records: Iterable[int]) -> None:
        self._committer.answered(records)

    def read(self, records: Sequence[int]) -> Deferred[list[bytes]]:
        return self.link.read(records)

    def left(self, stream: Stream) -> None:
        if stream.ours:
            del self._ours[stream.number]
        else:
            del self._theirs[stream.number]
            self._over(stream.number)

    def _over(self, number: int) -> None:
        """Late parts of that stream of the peer's are known for what they are."""
        self._past.add(number)
        if len(self._past) > 2 * MAX_STREAMS:
            # An honest peer has not so many open that it leaves so many gaps.
            (_, end), (start, _) = islice(self._past, 2)
            self._past.add(end, start)

    def _uncommitted(self, failure: Failure) -> None:
        if not failure.check(LinkClosed):
            self._log.failure("Streams with {peer}: a commit failed", failure, peer=self.peer)
        for stream in self._all():
            stream.lose("the journal has failed")

    # --- what comes in

    def received(self, records: Sequence[Incoming]) -> None:
        """Records on L{STREAMS} have come."""
        if self._asked:
            self._early.extend(records)
            return
        unread = []
        for record in records:
            if record.id <= self._earlier:
                self.consume([record.id])
            elif record.payload is None:
                unread.append(record.id)
            else:
                self._take(record.id, record.payload)
        self._unread.add(unread)

    def _found(self, records: Sequence[tuple[int, bytes]]) -> None:
        self.received([Incoming(id, STREAMS, len(payload), payload) for id, payload in records])

    def _not_found(self, failure: Failure) -> None:
        if not failure.check(PayloadLost, LinkClosed):  # by which they went with their log
            self._uncommitted(failure)

    def _damaged(self, record: int, found: bytes) -> None:
        # Of an earlier process, whose streams are over; ours come with their payload.
        self.consume([record])

    def _take(self, record: int, payload: bytes) -> None:
        if self._closed:
            return
        try:
            part = decode(payload)
        except RecordError as error:
            self._malformed(error)
            self.consume([record])
            return
        if not self._current(part):
            self.counts["stale_parts"] += 1
            self.consume([record])
            return
        stream = (self._ours if part.accepter else self._theirs).get(part.stream)
        if stream is None:
            stream = self._unknown_stream(part)
        if stream is None:
            self.consume([record])
            return
        try:
            if part.kind is Kind.OPEN:
                self._offered(stream, record, part)
            elif part.kind is Kind.REFUSE:
                problem = _problem(part.body)
                self.consume([record])
                stream.refused(StreamRefused(problem))
            else:
                if part.kind is Kind.ACCEPT:
                    stream.peer_epoch = part.sender
                stream.received(record, part)
        except RecordError as error:
            self._malformed(error)
            self.consume([record])
            stream.reset(f"what was sent contradicts itself: {error}")
        except Exception:  # whatever a program does, the others' records go on
            self._log.failure("The protocol of {stream!r} has failed", stream=stream)
            stream.reset(FAILED)

    def _malformed(self, error: RecordError) -> None:
        self.counts["malformed_parts"] += 1
        self._log.warn("{peer} sent what is no part of a stream: {error}", peer=self.peer, error=error)

    def _current(self, part: Part) -> bool:
        """Whether it is from the peer's process and for ours."""
        if part.sender > self._peer_epoch:
            begun, self._peer_epoch = self._peer_epoch, part.sender
            if begun:
                for stream in self._all():
                    if not stream.ours or stream.peer_epoch:
                        self._ended(stream)
                self._past = RangeSet()
        elif part.sender < self._peer_epoch:
            answer = part.kind in _ANSWERS and part.recipient == self.epoch
            if answer and part.stream in self._ours:
                self._ended(self._ours[part.stream])
            return False
        return part.recipient == self.epoch or not (part.recipient or part.accepter)

    def _ended(self, stream: Stream) -> None:
        """The peer's process that had this stream has ended."""
        reason = f"the node {self.peer} was restarted"
        if stream.ours:
            # The new process lets go of what it finds of it in its journal.
            stream.reset(reason)
        else:
            stream.lose(reason)

    def _unknown_stream(self, part: Part) -> Stream | None:
        if part.accepter or part.kind is Kind.BEGIN or part.stream in self._past:
            return None
        if part.kind is Kind.RESET:
            self._over(part.stream)
            return None
        stream = self._theirs[part.stream] = Stream(self, part.stream)
        stream.peer_epoch = part.sender
        if len(self._theirs) > 2 * MAX_STREAMS:
            stream.reset(f"{MAX_STREAMS} streams are open already")
            return None
        return stream

    def _offered(self, stream: Stream, record: int, part: Part) -> None:
        target, asked = decode_wish(part.body)
        # Earlier versions asked nothing of TCP targets.
        stream.offer(record, target, asked[:ID] if len(asked) >= ID else self._entropy(ID))
        self.counts["offered"] += 1
        if len(self._theirs) > MAX_STREAMS:
            self._refuse(stream, too_busy(f"{self.peer} has {MAX_STREAMS} streams open already"))
            return
        stream.accepting = maybeDeferred(self._accept, self.peer, stream, asked)
        stream.accepting.addCallback(self._accepted, stream).addErrback(self._not_accepted, stream)

    def _accepted(self, accepted: Accepted, stream: Stream) -> None:
        stream.accepting = None
        self.counts["accepted"] += 1
        stream.accept(accepted.protocol, accepted.answer)

    def _not_accepted(self, failure: Failure, stream: Stream) -> None:
        stream.accepting = None
        if failure.check(Refused):
            assert isinstance(failure.value, Refused)
            self._refuse(stream, failure.value.problem)
        elif not failure.check(CancelledError):
            self._log.failure("{stream!r} could not be accepted", failure, stream=stream)
            self._refuse(stream, internal_error("see the log of the far node"))
            stream.reset(FAILED)  # if it was accepted before that

    def _refuse(self, stream: Stream, problem: Problem) -> None:
        self.counts["refused"] += 1
        self._log.info(
            "Call {id}: {peer} may not open a stream to {target!r}: {detail}",
            id=stream.id.hex(),
            peer=self.peer,
            target=stream.target[:100],
            detail=problem.detail,
        )
        stream.refuse(cbor.encode(problem.as_map()))


def _problem(body: bytes) -> Problem:
    """
    What a REFUSE says.

    @raise RecordError: not a problem.
    """
    try:
        return Problem.from_map(cbor.decode_strict(body, limit=len(body)))
    except cbor.CborError as error:
        raise RecordError(str(error)) from error
