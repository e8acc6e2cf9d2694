"""
Which of the layers above the records of a link are for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from hoft.interfaces import (
    Arrival,
    CommitResult,
    IArrivalReceiver,
    IExpiryReceiver,
    ILink,
    ILossReceiver,
    Incoming,
    IRecordReceiver,
    LinkState,
    Lost,
)

_SAID = {
    LinkState.UNKNOWN: (
        LogLevel.info,
        "files for it can be written; nothing was heard of it yet",
    ),
    LinkState.UP: (LogLevel.info, "it is heard"),
    LinkState.LATE: (LogLevel.warn, "it is not heard, or acknowledges nothing; 'hoft status' says which"),
    LinkState.DOWN: (
        LogLevel.warn,
        "no files can be exchanged, or it has long been silent; calls to it get a 503",
    ),
    LinkState.STOPPED: (LogLevel.error, "a person must decide; calls to it get a 503"),
}
"""What an operator reads when the state of a link has become that."""


@implementer(IExpiryReceiver, ILossReceiver, IArrivalReceiver)
class Channels:
    """Hands the records of each channel to whom they are for."""

    _log = Logger()

    def __init__(self, receivers: Mapping[int, IRecordReceiver]) -> None:
        """@param receivers: by channel."""
        self._receivers = receivers
        self._asked = {
            channel: receiver
            for channel, receiver in receivers.items()
            if IArrivalReceiver.providedBy(receiver)
        }
        self.unknown = 0
        """Records on channels that nobody here listens to."""

    def recordArriving(self, link: ILink, record: Incoming) -> Arrival:
        """See L{IArrivalReceiver}."""
        receiver = self._asked.get(record.channel)
        return Arrival.STORE if receiver is None else receiver.recordArriving(link, record)

    def recordsReceived(self, link: ILink, records: Sequence[Incoming]) -> None:
        """See L{IRecordReceiver}."""
        channels: dict[int, list[Incoming]] = {}
        for record in records:
            channels.setdefault(record.channel, []).append(record)
        for channel, batch in channels.items():
            receiver = self._receivers.get(channel)
            if receiver is not None:
                receiver.recordsReceived(link, batch)
            else:
                self.unknown += len(batch)
                done: Deferred[CommitResult[None]] = link.commit(consume=[record.id for record in batch])
                done.addErrback(lambda failure: self._log.failure("A record was kept", failure))

    def recordsAcknowledged(self, link: ILink, ids: Sequence[int]) -> None:
        """See L{IRecordReceiver}."""
        for receiver in self._receivers.values():
            receiver.recordsAcknowledged(link, ids)

    def recordsExpired(self, link: ILink, ids: Sequence[int]) -> None:
        """See L{IExpiryReceiver}."""
        for receiver in self._receivers.values():
            if IExpiryReceiver.providedBy(receiver):
                receiver.recordsExpired(link, ids)

    def recordsLost(self, link: ILink, lost: Sequence[Lost]) -> None:
        """See L{ILossReceiver}."""
        for receiver in self._receivers.values():
            if ILossReceiver.providedBy(receiver):
                receiver.recordsLost(link, lost)

    def linkChanged(self, link: ILink) -> None:
        """See L{IRecordReceiver}."""
        level, what = _SAID[link.state]
        self._log.emit(
            level, "The link to {peer} is {state}: {what}", peer=link.name, state=link.state.value, what=what
        )
        for receiver in self._receivers.values():
            receiver.linkChanged(link)

    def peerRolledBack(self, link: ILink, resent: Sequence[int]) -> Deferred[None] | None:
        """See L{IRecordReceiver}."""
        told = [receiver.peerRolledBack(link, resent) for receiver in self._receivers.values()]
        busy = [one for one in told if one is not None]
        return gatherResults(busy).addCallback(lambda _: None) if busy else None
