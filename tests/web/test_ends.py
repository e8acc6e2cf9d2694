"""Why exchanges end that nobody has answered, in words for their callers."""

from __future__ import annotations

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import JournalFull, LinkClosed
from hoft.web.ingress.ends import not_committed

EXCHANGE = bytes(16)


class NotCommittedTests(SynchronousTestCase):
    """The journal has not taken a request."""

    def kind(self, error: Exception) -> str:
        return not_committed(Failure(error), "far", EXCHANGE).kind

    def test_one_that_is_full_will_have_room_again(self) -> None:
        self.assertEqual(self.kind(JournalFull("no room")), "no-space")

    def test_a_link_that_is_closed_is_a_peer_that_cannot_be_had(self) -> None:
        self.assertEqual(self.kind(LinkClosed("far is not trusted any more")), "peer-unavailable")

    def test_a_mistake_of_ours_is_logged_and_not_shown(self) -> None:
        problem = not_committed(Failure(RuntimeError("a secret")), "far", EXCHANGE)
        self.assertEqual(problem.kind, "internal-error")
        self.assertNotIn("secret", problem.detail or "")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
