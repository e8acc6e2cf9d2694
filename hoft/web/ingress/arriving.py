"""
Whose the parts of responses are that come from peers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import RecordError
from hoft.interfaces import ILink, Incoming, Lost
from hoft.web.crossing.exchange import REQUESTS, Part, Side, decode_part, encode_cancel, exchange_of
from hoft.web.crossing.unread import Unread
from hoft.web.ingress.caching.fetch import Fetch
from hoft.web.ingress.ends import damaged
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.waiting import Waiting

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

REMEMBERED = 10_000
"""How many ended exchanges are remembered, for what still comes for them."""


class Arriving:
    """Of one ingress."""

    log = Logger()

    def __init__(self, ingress: Ingress, waiting: Mapping[bytes, Waiting]) -> None:
        """@param waiting: callers, by exchange."""
        self._ingress = ingress
        self._waiting = waiting
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        self._unread: dict[ILink, Unread] = {}

    def received(self, link: ILink, records: Sequence[Incoming]) -> None:
        """These are in the journal."""
        keeper = self._ingress.keeper
        if keeper.knows:
            records = [record for record in records if not keeper.known(record.id)]
        self._take(link, [(record.id, record.payload) for record in records if record.payload is not None])
        self.read(link, [record.id for record in records if record.payload is None])

    def read(self, link: ILink, records: Sequence[int]) -> None:
        """Find out whose these are."""
        if records:
            if link not in self._unread:
                taking, failing = partial(self._take, link), partial(self._unreadable, link)
                self._unread[link] = Unread(link, taking, failing, partial(self._damaged, link))
            self._unread[link].add(records)

    def lost(self, link: ILink, lost: Sequence[Lost]) -> None:
        """These, which we have sent, are damaged."""
        for one in lost:
            if one.channel == REQUESTS:
                self._give_up(link, self._sent_by(link, one.id) or exchange_of(one.found))

    def _sent_by(self, link: ILink, record: int) -> bytes | None:
        """Whose request it is a part of, of those that have not ended."""
        waiting = self._waiting.items()
        callers = (id for id, one in waiting if one.link is link and record in one.sent)
        return next(callers, None) or self._ingress.keeper.exchange_of(link, record)

    def remember(self, exchange: bytes) -> None:
        """It has ended: what still comes of it is no news."""
        self._ended[exchange] = None
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def forget(self) -> None:
        """The peer may not know of the CANCELs any more, and ask again."""
        self._ended.clear()

    def _unreadable(self, link: ILink, failure: Failure) -> None:
        self.log.failure("Records of {peer} could not be read", failure, peer=link.name)

    def _damaged(self, link: ILink, record: int, found: bytes) -> None:
        self._ingress.consume(link, [record])
        self._give_up(link, exchange_of(found))

    def _give_up(self, link: ILink, exchange: bytes | None) -> None:
        """It will not come to its end; what is not known to be somebody's ends with its deadline."""
        one = None if exchange is None else self._whose(link, exchange)
        if isinstance(one, Kept):
            one.fail(self._ingress.keeper, damaged())
        elif one is not None:
            one.fail(damaged())

    def _whose(self, link: ILink, exchange: bytes) -> Waiting | Kept | Fetch | None:
        waiting = self._waiting.get(exchange)
        if waiting is not None and waiting.link is link:
            return waiting
        kept = self._ingress.keeper.find_from(link, exchange)
        if kept is not None:
            return kept
        fetch = self._ingress.cache.fetches.get(exchange)
        return fetch if fetch is not None and fetch.link is link else None

    def _take(self, link: ILink, records: Sequence[tuple[int, bytes]]) -> None:
        keeper = self._ingress.keeper
        touched: dict[bytes, Waiting | Kept | Fetch] = {}
        for record, payload in records:
            try:
                part = decode_part(payload, Side.EGRESS)
            except RecordError as error:
                self._ingress.accounts.counts["malformed_parts"] += 1
                self.log.warn("{peer} sent what is no part: {error}", peer=link.name, error=error)
                self._ingress.consume(link, [record])
                continue
            one = self._whose(link, part.exchange)
            if one is None:
                self._stray(link, record, part)
                continue
            touched[part.exchange] = one
            if isinstance(one, Kept):
                one.received(keeper, link, record, part)
            else:
                one.received(record, part)
        for one in touched.values():
            if isinstance(one, Kept):
                one.advance(keeper, link)
            else:
                one.advance()

    def _stray(self, link: ILink, record: int, part: Part) -> None:
        """Part of a response that nobody waits for, or not any more."""
        self._ingress.accounts.counts["stray_parts"] += 1
        self._ingress.consume(link, [record])
        if part.exchange not in self._ended:
            self.remember(part.exchange)
            self._ingress.send(link, encode_cancel(part.exchange))
