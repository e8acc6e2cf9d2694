"""
How an exchange that a caller waited for becomes one whose result is kept, and back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from hoft.interfaces import Delivery, ILink
from hoft.web.http.problems import peer_silent
from hoft.web.ingress import kept_rows
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.submitting import Submission, kept_of
from hoft.web.ingress.waiting import Outcome, Waiting

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress


class Handover:
    """Of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    def submitted(self, submission: Submission, kept: Kept, seconds: float | None) -> None:
        """
        The request is complete: its result is to be kept.

        @param seconds: until it is given up; C{None} for as long as results are kept.
        """
        ingress = self._ingress
        ingress.give_up(submission)
        kept.meters = ingress.accounts.take(submission.id)
        ingress.keeper.keep(kept, ingress.routing.result_ttl if seconds is None else seconds)

    def taken_back(self, submission: Submission, kept: Kept) -> None:
        """What L{submitted} was told could not be committed."""
        self._ingress.keeper.remove(kept)
        self._ingress.adopt(submission, ())
        self._ingress.accounts.give_back(submission.id, kept.meters)

    def late(self, waiting: Waiting) -> None:
        """Its deadline has passed, and the response has not begun: the exchange goes on, and is kept."""
        ingress, link, kept = self._ingress, waiting.link, kept_of(waiting)
        records = waiting.detach()
        ingress.give_up(waiting)
        kept.meters = ingress.accounts.take(waiting.id)
        ingress.keeper.keep(kept, ingress.routing.result_ttl)
        unacknowledged = [id for id in waiting.sent if link.delivery(id) is not Delivery.ACKNOWLEDGED]
        ingress.keeper.sent(link, kept, unacknowledged)
        kept.requested(ingress.keeper, unacknowledged)
        ingress.read(link, records)
        done = link.commit((), (), kept_rows.write(kept), durable=True)
        done.addErrback(self._not_kept, link, kept).addCallback(self._say_late, waiting, kept)

    def _not_kept(self, failure: Failure, link: ILink, kept: Kept) -> None:
        ingress = self._ingress
        ingress.commit_failed(failure, link)
        kept.fail(ingress.keeper, peer_silent(link.name, ingress.keeper.clock() - kept.begun))

    def _say_late(self, _: object, waiting: Waiting, kept: Kept) -> None:
        ingress = self._ingress
        problem = kept.problem or ingress.asking.late(waiting.call, kept, waiting.head.deadline)
        ingress.answer(waiting.call, problem)
        waiting.problem = problem.kind
        ingress.accounts.told(waiting, Outcome.PROBLEM)
