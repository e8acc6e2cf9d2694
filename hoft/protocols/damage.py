"""
Payloads that the journal has, and not as they were stored: what comes of that for one link.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.errors import PayloadDamaged, RecordDamaged
from hoft.interfaces import ILink, ILossReceiver, IRecordReceiver, Lost
from hoft.protocols.layout import plain
from hoft.protocols.link_log import LinkLog
from hoft.protocols.log_writing import VOID, Void
from hoft.protocols.unacknowledged import Unacknowledged


class Damage:
    """
    It is told of once, and all else goes on.

    @ivar payloads: how many were damaged.
    """

    _log = Logger()

    def __init__(
        self,
        link: ILink,
        records: LinkLog,
        receiver: IRecordReceiver,
        sending: Callable[[], Unacknowledged],
        lost: Callable[[Failure, str], None],
    ) -> None:
        """
        @param records: the link's.
        @param receiver: the layer above.
        @param sending: what the engine has of them.
        @param lost: says what comes of it that something could not be done.
        """
        self.payloads = 0
        self._link = link
        self._records = records
        self._receiver = receiver
        self._sending = sending
        self._lost = lost
        self._last = ""

    def unreadable(self, failure: Failure) -> Failure:
        """Something that was received could not be read; whoever asked for it is told by C{failure}."""
        if isinstance(failure.value, PayloadDamaged):
            self._note(failure.value, "whoever waits for what came with it")
        return failure

    def _note(self, damage: PayloadDamaged, whom: str) -> None:
        if str(damage) == self._last:
            return  # it was asked for with others, and now alone
        self._last = str(damage)
        self.payloads += 1
        self._log.error(
            "The journal is damaged: {what}. It was for, or of, {peer}; {whom} is told, all else goes on."
            " Have the disk looked at.",
            what=self._last,
            peer=self._link.name,
            whom=whom,
        )

    def unsendable(self, damage: RecordDamaged) -> None:
        """A record could not be put into a packet: the peer gets one of nothing under its number."""
        queued = self._records.outbox.numbered_as(damage.number)
        if queued is None or queued.channel == VOID:
            return
        self._note(damage, "whoever waits for what was to go with it")
        self._records.outbox.void(queued.id, keep=True)
        self._sending().hollow(damage.number)
        lost = Lost(queued.id, queued.channel & 255, plain(damage.found, queued.channel >> 8 & 255))
        done = self._records.write(Void([queued.id]))
        done.addErrback(self._lost, "a damaged record stays in the journal")
        done.addCallback(lambda _: self._tell(lost))

    def _tell(self, lost: Lost) -> None:
        if ILossReceiver.providedBy(self._receiver):
            self._receiver.recordsLost(self._link, [lost])
