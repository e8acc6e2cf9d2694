"""Small requests of the egress itself, to services that give credentials."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from hoft.web.egress.credentials import CredentialsFailed
from hoft.web.http.responses import ServiceError

TIMEOUT: Final = 30.0
"""Seconds until all of the answer is there."""

LARGEST: Final = 1 << 20
"""Bytes of an answer's body."""


@frozen
class Answer:
    """What came back."""

    status: int
    body: bytes = field(repr=False)
    response: IResponse

    def text(self) -> str:
        """The body, whatever it is."""
        return self.body.decode("utf-8", "replace")


async def post_form(
    reactor: Any,
    agent: IAgent,
    url: str,
    form: str,
    auth: tuple[str, str] | None = None,
    jar: IndexableCookieJar | None = None,
) -> Answer:
    """
    Send a form; redirects are not followed.

    @param form: encoded.
    @param jar: gets the cookies that the answer has; without it nothing keeps them.
    @raise CredentialsFailed: there was no answer, or one that is too large.
    """
    origin = urlsplit(url).netloc.rpartition("@")[2]
    client = HTTPClient(_Plain(agent), jar)
    posted = Deferred.fromCoroutine(_post(client, url, form, auth)).addTimeout(TIMEOUT, reactor)
    try:
        return await posted
    except ServiceError as error:
        raise CredentialsFailed(error.problem.detail) from None
    except TimeoutError:
        raise CredentialsFailed(f"{origin} did not answer within {TIMEOUT:g} s") from None
    except (ConnectError, ConnectionLost, OSError) as error:
        raise CredentialsFailed(f"{origin}: {error}") from None
    except UnicodeDecodeError:  # of its cookies
        raise CredentialsFailed(f"{origin} answered with fields that are not ASCII") from None
    except _TooLong:
        raise CredentialsFailed(f"{origin} answered more than {LARGEST} bytes") from None


async def _post(client: HTTPClient, url: str, form: str, auth: tuple[str, str] | None) -> Answer:
    response = await client.post(
        url,
        data=form.encode("utf-8"),
        headers=Headers(
            {"Content-Type": ["application/x-www-form-urlencoded"], "Accept": ["application/json, */*"]}
        ),
        auth=auth,
        allow_redirects=False,
        unbuffered=True,
    )
    body = _Body()
    response.deliverBody(body)
    return Answer(response.code, await body.whole, response)


@implementer(IAgent)
class _Plain:
    """
    Wants answers as they are: treq would ask for gzip, not bound what comes of it, and not
    survive what is none.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See L{IAgent}."""
        wanted = Headers() if headers is None else headers.copy()
        wanted.removeHeader(b"accept-encoding")
        return self._agent.request(method, uri, wanted, bodyProducer).addCallback(_undecoded)


def _undecoded(response: IResponse) -> IResponse:
    response.headers.removeHeader(b"content-encoding")
    return response


class _TooLong(Exception):
    """A body has more than L{LARGEST} bytes."""


class _Body(Protocol):
    """
    Takes in the body of an answer.

    @ivar whole: fires with it; cancelling it breaks the answer off.
    """

    transport: Any

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self.transport.abortConnection())
        self._taken = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._taken += data
        if len(self._taken) > LARGEST and not self.whole.called:
            self.whole.errback(_TooLong())
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone):
            self.whole.callback(bytes(self._taken))
        else:
            self.whole.errback(reason)
