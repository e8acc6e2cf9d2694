"""
Requests whose results are kept, while they come; and those that come again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from hoft import cbor
from hoft.interfaces import CommitResult, ITransaction, Outgoing
from hoft.web.http.fields import values
from hoft.web.http.forwarding import repeatable
from hoft.web.http.heads import Field, RequestHead
from hoft.web.http.preferences import Wish
from hoft.web.http.problems import key_in_use, key_reused
from hoft.web.ingress import kept_rows
from hoft.web.ingress.calls import Call, Indifferent
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.replaying import Replay
from hoft.web.ingress.waiting import Outcome, Waiting

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

_COMPARED = (b"content-type", b"content-encoding")


def fingerprint(head: RequestHead) -> Any:
    """
    A hash of what makes a request the same as another one; its body is to be added.

    What its caller's libraries change from time to time (Date, User-Agent, tokens) is not in it.
    """
    said = [value for name in _COMPARED for value in (b"\n", *values(head.headers, name))]
    where = [head.method, head.scheme, head.host, head.port, head.target]
    return hashlib.sha256(cbor.encode([*where, *said]))


def kept_of(waiting: Waiting, key: bytes | None = None) -> Kept:
    """What is to be kept of a call, whatever becomes of its caller."""
    head, mount, request = waiting.head, waiting.mount, waiting.call.request
    base = None if mount is None else mount.base
    url = request.target
    if head.credentials is not None:
        url = url.replace(head.credentials + b"@", b"", 1)  # nothing before them has an @
    return Kept(
        id=waiting.id,
        peer=waiting.link.peer.bytes,
        caller=waiting.caller,
        route=None if mount is None else mount.name,
        base=None if base is None else f"{base.scheme}://{base.authority}{base.target.decode('ascii')}",
        method=head.method,
        url=url.decode("ascii"),
        target=head.target,
        key=key,
        request_size=waiting.sizes[0],
        begun=waiting.begun,
    )


def both(
    one: Callable[[ITransaction], None], other: Callable[[ITransaction], None]
) -> Callable[[ITransaction], None]:
    """What C{commit} takes as C{also}: the one, then the other."""

    def write(transaction: ITransaction) -> None:
        one(transaction)
        other(transaction)

    return write


@define(eq=False, repr=False)
class Submission(Waiting):
    """
    A call that becomes a L{Kept} with the last part of its request: its row is
    committed together with that, and on disk before the caller hears of it.

    @ivar wish: of its caller, how it is to be kept.
    """

    wish: Wish = field(kw_only=True)
    _held: float = field(init=False)
    _digest: Any = field(init=False)
    _kept: Kept = field(init=False)
    _commits: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        head, wish = self.head, self.wish
        self.again = repeatable(head)
        self._held = self.begun + min(head.deadline, wish.wait or 0) if wish.detached else self.due
        self._digest = fingerprint(head) if wish.key is not None else None
        self._kept = kept_of(self, wish.key)

    def bodyReceived(self, data: bytes) -> None:
        if self._digest is not None:
            self._digest.update(data)
        super().bodyReceived(data)

    def give(self, pending: Sequence[Outgoing]) -> Deferred[CommitResult[Any]]:
        """See L{Waiting.give}."""
        self._commits += 1
        if not self.requested:
            return super().give(pending)
        kept = self._kept
        kept.request_size = self.sizes[0]
        if self._digest is not None:
            kept.fingerprint = self._digest.digest()
        self._ingress.handover.submitted(self, kept, self.head.deadline if self.wish.detached else None)
        self.over = True
        write = kept_rows.write(kept)
        if self.wish.callback is not None:
            write = both(write, self._ingress.callbacks.want(kept, self.wish.callback))
        return self.link.commit(pending, (), write, durable=True)

    def committed(self, result: CommitResult[Any], size: int) -> None:
        """See L{Waiting.committed}."""
        super().committed(result, size)
        kept, keeper = self._kept, self._ingress.keeper
        keeper.sent(self.link, kept, result.sent)
        # The commits of a link take effect in order: the last one is that of the row.
        self._commits -= 1
        if self.requested and not self._commits:
            kept.requested(keeper, self.sent)
            if not self.call.over:
                replay = Replay(self._ingress, kept, self.call, self._held, self._late)
                self.call.serveBy(replay.start())

    def notCommitted(self, failure: Failure) -> None:
        """See L{Waiting.notCommitted}."""
        if self._ingress.keeper.kept.get(self.id) is self._kept:
            self._ingress.handover.taken_back(self, self._kept)
            self.over = False
        super().notCommitted(failure)

    def _end(self, outcome: Outcome) -> None:
        self._ingress.keeper.unreserve(self.caller, self.wish.key)
        super()._end(outcome)

    def _late(self, call: Call, kept: Kept) -> None:
        asking = self._ingress.asking
        if self.wish.detached:
            asking.accepted(call, kept, self.wish.applied)
        else:
            self._ingress.answer(call, asking.late(call, kept, self.head.deadline))


class Repetition(Indifferent):
    """A L{hoft.web.ingress.calls.CallReceiver}: a request that came under a key that is known."""

    def __init__(
        self,
        ingress: Ingress,
        kept: Kept,
        call: Call,
        head: RequestHead,
        late: Callable[[Call, Kept], None],
    ) -> None:
        self._ingress = ingress
        self._kept = kept
        self._call = call
        self._late = late
        self._digest = fingerprint(head)

    def bodyReceived(self, data: bytes) -> None:
        self._digest.update(data)

    def bodyEnded(self, trailers: Sequence[Field]) -> None:
        ingress, kept = self._ingress, self._kept
        if self._digest.digest() != kept.fingerprint:
            ingress.answer(self._call, key_reused())
        elif not kept.over:
            ingress.answer(self._call, key_in_use(ingress.asking.url(self._call, kept)))
        else:
            self._call.serveBy(Replay(ingress, kept, self._call, 0.0, self._late).start())
