"""
Credentials that the egress adds to requests, so that they exist on its side only.

An entry of C{[[allow]]} may name L{Credentials}.  They are asked for the fields that
show who calls before each request that the entry lets pass, and are told when the
service did not take them; they take out of responses what is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.web.client.agent import ExactRequest
from hoft.web.http.fields import FieldList, without
from hoft.web.http.heads import Field
from hoft.web.http.problems import Refused, credentials_unavailable
from hoft.web.http.responses import Answer, ServiceError

T = TypeVar("T")

PAUSE: Final = 5.0
"""Seconds after a failure during which it is told again rather than another attempt made."""


class Credentials(Protocol):
    """What shows a service who calls.  On the reactor thread."""

    def fields(self, url: str) -> Deferred[Sequence[Field]]:
        """
        Fields for a request; they take the place of others of their names.

        @param url: what is called.
        @return: fails with L{Refused} if there are none to be had now.
        """

    def rejected(self, url: str, status: int, response: Sequence[Field], used: Sequence[Field]) -> bool:
        """
        What the service answered to a request for C{url} with fields C{used}.

        @return: whether it did not take them, and others may be had: the request
            had no effect and is worth another attempt.
        """

    def own(self, response: FieldList) -> FieldList:
        """A response's fields without what is ours and not the caller's."""


@frozen
class Headers:
    """Fields that are always the same."""

    given: Sequence[Field]

    def fields(self, url: str) -> Deferred[Sequence[Field]]:
        """See L{Credentials.fields}."""
        return succeed(self.given)

    def rejected(self, url: str, status: int, response: Sequence[Field], used: Sequence[Field]) -> bool:
        """There are no others."""
        return False

    def own(self, response: FieldList) -> FieldList:
        """Nothing in it is ours."""
        return response


def with_credentials(fields: Sequence[Field], credentials: Sequence[Field]) -> FieldList:
    """A request's fields, with these in the place of all of the same names."""
    return [*without(list(fields), {name.lower() for name, _ in credentials}), *credentials]


A = TypeVar("A", bound=Answer)

Send = Callable[[ExactRequest, Any], "Deferred[A]"]


async def send_with(credentials: Credentials, send: Send[A], request: ExactRequest, body: Any) -> A:
    """
    Make a request that shows who calls; again, if the service did not take what it
    was shown, there is something else to show, and the body is at hand.

    @param body: as C{send} takes it; what is not bytes can be sent once only.
    @raise ServiceError: as of C{send}; also if there is nothing to show.
    """
    url = str(request.origin) + request.target.decode("latin-1")
    for attempts_left in (1, 0):
        try:
            used = await credentials.fields(url)
        except Refused as refused:
            raise ServiceError(refused.problem, unsent=True) from None
        response = await send(evolve(request, fields=with_credentials(request.fields, used)), body)
        head = response.head
        rejected = credentials.rejected(url, head.status, head.fields, used)
        if not (rejected and attempts_left and (body is None or isinstance(body, bytes))):
            break
        response.abortConnection()
    return response


class Fetching(Generic[T]):
    """
    Fetches something that is good for a while: once for all who wait for it, and
    after a failure not at once again.
    """

    log = Logger()

    def __init__(self, name: str, clock: Callable[[], float], fetch: Callable[[], Deferred[T]]) -> None:
        """
        @param name: of the credentials, for problems and the log.
        @param clock: monotonic seconds.
        @param fetch: fails with L{CredentialsFailed} where no other attempt would do better now.
        """
        self._name = name
        self._clock = clock
        self._fetch = fetch
        self._waiting: list[Deferred[T]] | None = None
        self._failed: Refused | None = None
        self._failed_at = float("-inf")

    def get(self) -> Deferred[T]:
        """@return: fails with L{Refused}."""
        if self._failed is not None and self._clock() - self._failed_at < PAUSE:
            return fail(self._failed)
        waiter: Deferred[T] = Deferred()
        if self._waiting is not None:
            self._waiting.append(waiter)
            return waiter
        self._waiting = [waiter]
        self._fetch().addCallbacks(self._succeeded, self._not_fetched)
        return waiter

    def _succeeded(self, result: T) -> None:
        self._failed = None
        for waiter in self._over():
            waiter.callback(result)

    def _not_fetched(self, failure: Failure) -> None:
        if failure.check(CredentialsFailed):
            why = failure.getErrorMessage()
        else:
            self.log.failure("Credentials {name} could not be had", failure, name=self._name)
            why = "the log of the far node says why"
        self.log.warn("Credentials {name}: {why}", name=self._name, why=why)
        self._failed = Refused(credentials_unavailable(self._name, why))
        self._failed_at = self._clock()
        for waiter in self._over():
            waiter.errback(self._failed)

    def _over(self) -> list[Deferred[T]]:
        waiting, self._waiting = self._waiting, None
        return waiting or []


class CredentialsFailed(Exception):
    """The service that gives credentials did not give any; says why, without secrets."""
