"""Small requests of the egress itself, to services that give credentials."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import treq
from attrs import field, frozen
from treq.client import HTTPClient
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from hoft.web.egress.credentials import CredentialsFailed
from hoft.web.http.responses import ServiceError

TIMEOUT: Final = 30.0
"""Seconds until the head of the answer is there."""

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


async def post_form(client: HTTPClient, url: str, form: str, auth: tuple[str, str] | None = None) -> Answer:
    """
    Send a form; redirects are not followed.

    @param form: encoded.
    @raise CredentialsFailed: there was no answer, or one that is too large.
    """
    origin = urlsplit(url).netloc.rpartition("@")[2]
    body = bytearray()

    def collect(piece: bytes) -> None:
        body.extend(piece)
        if len(body) > LARGEST:
            raise CredentialsFailed(f"{origin} answered more than {LARGEST} bytes")

    try:
        response = await client.post(
            url,
            data=form.encode("utf-8"),
            headers=Headers(
                {"Content-Type": ["application/x-www-form-urlencoded"], "Accept": ["application/json, */*"]}
            ),
            auth=auth,
            allow_redirects=False,
            timeout=TIMEOUT,
            unbuffered=True,
        )
        await treq.collect(response, collect)
    except ServiceError as error:
        raise CredentialsFailed(error.problem.detail) from None
    except (ConnectError, ConnectionLost, OSError) as error:
        raise CredentialsFailed(f"{origin}: {error}") from None
    return Answer(response.code, bytes(body), response)
