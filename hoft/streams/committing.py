"""
What the streams of a link have to say, and the records that they let go of, put into the
journal: one commit for all that is there, and while it is under way more gathers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from hoft.errors import JournalFull
from hoft.interfaces import CommitResult, ILink, ITransaction, Outgoing
from hoft.streams.parts import STREAMS, Kind, Part, encode
from hoft.streams.stream import Stream
from hoft.timers import Soon

BACKLOG = 64 << 20
"""Bytes that wait for the peer above which no more DATA is committed."""

COMMIT_BYTES = 2 << 20
"""Of DATA, in one commit; of one stream half of it."""

COMMITS = 2
"""Commits under way at once."""

CONTROL, DATA = 1, 3
"""Urgencies: whoever waits for credit, or for an answer, does not wait behind DATA."""


class Committer:
    """Nothing is committed before L{begin}, nor after L{close}."""

    def __init__(self, link: ILink, reactor: IReactorTime, failed: Callable[[Failure], None]) -> None:
        """@param failed: called when the journal takes nothing more."""
        self._link = link
        self._failed = failed
        self._note: Callable[[ITransaction], object] | None = None
        self._begun = False
        self._closed = False
        self._dirty: dict[Stream, None] = {}
        self._unsent: list[Outgoing] = []
        self._consumed: list[int] = []
        self._answered: list[int] = []
        self._bound: list[int] = []
        """Of these, those whose answers are in C{_unsent}."""
        self._gathered: list[Stream] = []
        """Those that have given what is in C{_unsent}."""
        self._committing = 0
        self._flushing = Soon(reactor, 0, self.flush)
        self._quiet: Deferred[None] | None = None
        self._last: set[int] = set()

    def begin(self, note: Callable[[ITransaction], object], first: Part | None) -> None:
        """
        From now on things are committed.

        @param note: to be done with the first that is sent.
        @param first: what goes out before all else.
        """
        self._begun = True
        self._note = note
        if first is not None:
            self._unsent.append(Outgoing(encode(first), STREAMS, CONTROL))
        self._flush_later()

    def close(self) -> None:
        """Nothing more."""
        self._closed = True
        self._dirty.clear()
        self._flushing.cancel()

    def wake(self, stream: Stream) -> None:
        """It has something to send."""
        self._dirty[stream] = None
        self._flush_later()

    def consume(self, records: Iterable[int]) -> None:
        """Let go of these soon."""
        self._consumed.extend(records)
        if self._consumed:
            self._flush_later()

    def answered(self, records: Iterable[int]) -> None:
        """Let go of these in the very commit of what the streams have to say now."""
        self._answered.extend(records)
        if self._answered:
            self._flush_later()

    def quiet(self) -> Deferred[None]:
        """@return: fires when the peer has all that there is to say now; to be asked once, at the end."""
        quiet = self._quiet = Deferred()
        if not self._begun or not self._dirty:
            quiet.callback(None)
        return quiet

    def acknowledged(self, ids: Iterable[int]) -> None:
        """The peer has these records of ours."""
        if self._dirty:
            self._flush_later()
        if self._quiet is not None and self._last:
            self._last.difference_update(ids)
            if not self._last and not self._quiet.called:
                self._quiet.callback(None)

    @property
    def idle(self) -> bool:
        """Nothing waits to be committed."""
        return not (self._dirty or self._unsent or self._answered or self._bound or self._consumed)

    def _flush_later(self) -> None:
        if not self._closed:
            self._flushing.ask()

    def flush(self) -> None:
        """Commit what is there; called also now and then, for what found no room before."""
        self._flushing.cancel()
        if self._closed or not self._begun or self._committing >= COMMITS:
            return
        if not self._unsent:
            self._gather()
        streams, self._gathered = self._gathered, []
        send, self._unsent = self._unsent, []
        bound, self._bound = self._bound, []
        consume, self._consumed = self._consumed, []
        if not (send or bound or consume):
            return
        self._committing += 1
        note = self._note if send else None
        done: Deferred[CommitResult[object]] = self._link.commit(send, consume + bound, note)
        done.addCallbacks(
            self._committed,
            self._not_committed,
            callbackArgs=(streams,),
            errbackArgs=(streams, send, bound, consume),
        )

    def _gather(self) -> None:
        """What the streams have; who has more comes after the others the next time."""
        left = COMMIT_BYTES if self._link.backlog() <= BACKLOG else 0
        self._gathered = list(self._dirty)
        self._bound, self._answered = self._answered, []
        for stream in self._gathered:
            for part in stream.parts(min(left, COMMIT_BYTES // 2)):
                left = max(0, left - len(part.body))
                urgency = DATA if part.kind in (Kind.DATA, Kind.END) else CONTROL
                self._unsent.append(Outgoing(encode(part), STREAMS, urgency, stream.flow))
            del self._dirty[stream]
            if stream.ready:
                self._dirty[stream] = None

    def _committed(self, result: CommitResult[object], streams: Sequence[Stream]) -> None:
        self._committing -= 1
        if result.sent:
            self._note = None
        if self._quiet is not None:
            self._last.update(result.sent)
        for stream in streams:
            stream.committed()
        if self._consumed or self._answered or self._dirty:
            self._flush_later()

    def _not_committed(
        self,
        failure: Failure,
        streams: list[Stream],
        send: list[Outgoing],
        bound: list[int],
        consume: list[int],
    ) -> None:
        self._committing -= 1
        if not failure.check(JournalFull):
            self._failed(failure)
            return
        # What is let go of makes room; the rest is tried again with the next tick.
        self._unsent[:0] = send
        self._bound[:0] = bound
        self._gathered[:0] = streams
        if consume:
            done: Deferred[CommitResult[object]] = self._link.commit((), consume)
            done.addErrback(self._not_let_go, consume)

    def _not_let_go(self, failure: Failure, consume: list[int]) -> None:
        if failure.check(JournalFull):
            self._consumed[:0] = consume
        else:
            self._failed(failure)
