"""
Learning who the peer is: one link's adoptions of its boots, and what the layer above hears
when the log begins anew.

All methods are called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.interfaces import ILink, IRecordReceiver
from hoft.protocols.link_log import LinkLog
from hoft.protocols.log import Adopted
from hoft.protocols.synchronisation import Sighting


class Adoption:
    """
    One at a time; what is heard of the peer meanwhile waits until it is over.

    @ivar under_way: the journal is being asked.
    """

    _log = Logger()

    def __init__(
        self,
        link: ILink,
        records: LinkLog,
        receiver: IRecordReceiver,
        lost: Callable[[Failure, str], None],
    ) -> None:
        """
        @param records: the link's.
        @param receiver: the layer above.
        @param lost: says what comes of it that something could not be done.
        """
        self._link = link
        self._records = records
        self._receiver = receiver
        self._lost = lost
        self.under_way = False
        self._waiting: list[Deferred[bool]] = []
        self._telling = 0
        """How many reports of a log that began anew the layer above is busy with."""

    def begin(self, sighting: Sighting, adopted: Callable[[Adopted, Sighting], None]) -> Deferred[bool]:
        """
        The sender of what was seen is the peer.

        @param adopted: takes over what that has left in the log.
        @return: as L{wait}.
        """
        self.under_way = True
        mine = self.wait()
        done = self._records.adopt(sighting).addCallback(adopted, sighting)
        done.addCallbacks(lambda _: True, self._failed).addCallback(self._over)
        return mine

    def wait(self) -> Deferred[bool]:
        """@return: fires once what is under way is over, with whether that sender was adopted."""
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def _failed(self, failure: Failure) -> bool:
        self._lost(failure, "the peer could not be noted; it will greet again")
        return False

    def _over(self, adopted: bool) -> None:
        self.under_way = False
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(adopted)

    # --- a log that begins anew

    def rolled_back(self, begun: Adopted) -> None:
        """One of the two sides was restored, or lost its state."""
        self._log.warn(
            "The log with {peer} begins anew, because one side was restored from an older copy or lost"
            " its state; {dropped} records of ours were under way and their fate is unknown.",
            peer=self._link.name,
            dropped=len(begun.dropped),
        )
        self.tell([queued.id for queued in begun.outbox])

    def tell(self, resent: Sequence[int]) -> None:
        """
        The layer above is to know it.

        @param resent: ids of the records that are sent all the same.
        """
        self._telling += 1
        made = self._receiver.peerRolledBack(self._link, resent)
        telling = (succeed(None) if made is None else made).addCallback(self._told)
        telling.addErrback(self._lost, "that the log began anew will be told again at the next start")

    def _told(self, _: None) -> None:
        self._telling -= 1
        # After whatever was asked to be committed: a crash before this tells it again.
        if not self._telling:
            told = self._records.rollback_told()
            told.addErrback(self._lost, "that the log began anew will be told again")
