"""
OAuth 2.0 access tokens for services: got, kept, and renewed before they end (RFC 6749).

Needs oauthlib, which the extra C{oauth} brings.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from attrs import asdict, evolve, field, frozen
from oauthlib.oauth2 import BackendApplicationClient
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.web.iweb import IAgent

from hoft.errors import HoftError
from hoft.web.egress.credentials import CredentialsFailed, Fetching
from hoft.web.egress.fetching import post_form
from hoft.web.http.fields import FieldList
from hoft.web.http.heads import Field

MARGIN: Final = 60.0
"""Seconds before its end at which a token is renewed; a tenth of its life, if that is shorter."""

REFRESH_TOKEN: Final = re.compile(r"[ -~]{1,65536}")
"""RFC 6749 appendix A.17."""

LONGEST: Final = 10 * 366 * 86400.0
"""Seconds that a token lives at most, whatever is said of it."""


@frozen
class Token:
    """
    @ivar renew: (wall clock) when it should be renewed, in seconds since 1970; C{None} if
        nothing was said of its end.
    """

    access: str = field(repr=False)
    renew: float | None = None
    refresh: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, status: int, said: Mapping[str, Any], now: float) -> Token:
        """
        From what a token endpoint answered, of whatever types.

        @param status: of the answer.
        @raise CredentialsFailed: it is not a bearer token (RFC 6750).
        """
        access, kind = said.get("access_token"), said.get("token_type", "bearer")
        error, refresh = said.get("error"), said.get("refresh_token")
        if error is not None or status >= 300 or access is None:
            code = isinstance(error, str) and _CODE.fullmatch(error)
            what = f": {error}" if code else " and nothing that is a token"
            raise CredentialsFailed(f"the token endpoint answered {status}{what}")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise CredentialsFailed("the token endpoint gave a token of another type, not a bearer token")
        if not isinstance(access, str) or not _TOKEN.fullmatch(access):
            raise CredentialsFailed("the token endpoint gave a bearer token that is none")
        if refresh is not None and not (isinstance(refresh, str) and REFRESH_TOKEN.fullmatch(refresh)):
            raise CredentialsFailed("the token endpoint gave a refresh token that is none")
        life = _life(said.get("expires_in"))
        return cls(access, None if life is None else now + life - min(MARGIN, life / 10), refresh)


_TOKEN = re.compile(r"[!-~]{1,65536}")
_CODE = re.compile(r"[ -!#-\[\]-~]{1,60}")  # appendix A.7


def _life(said: object) -> float | None:
    """Seconds that a token lives; C{None} if that is not said, or makes no sense."""
    if isinstance(said, str) and re.fullmatch(r"[0-9]{1,18}", said):
        said = int(said)  # as some have it
    if isinstance(said, bool) or not isinstance(said, int | float) or not said > 0:
        return None
    return float(min(said, LONGEST))


class Store(Protocol):
    """Where tokens outlive the process."""

    def load(self, name: str) -> Deferred[bytes | None]:
        """What was kept under this name."""

    def keep(self, name: str, secret: bytes) -> Deferred[None]:
        """Keep it in the place of what was there."""


@frozen
class Settings:
    """
    @ivar refresh_token: what the grant C{refresh_token} begins with; C{None} for C{client_credentials}.
    @ivar post: the client's id and secret go into the body, rather than into Authorization.
    """

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    refresh_token: str | None = field(default=None, repr=False)
    post: bool = False


class OAuth:
    """Bearer tokens (L{hoft.web.egress.credentials.Credentials})."""

    log = Logger()

    def __init__(
        self,
        name: str,
        settings: Settings,
        reactor: Any,
        agent: IAgent,
        store: Store,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """@param clock: monotonic seconds."""
        self._name = name
        self._settings = settings
        self._reactor = reactor
        self._agent = agent
        self._store = store
        self._wall = wall
        self._token: Token | None = None
        self._loaded = False
        self.fetching = Fetching(name, clock, lambda: Deferred.fromCoroutine(self._fetch()))

    def fields(self, url: str) -> Deferred[Sequence[Field]]:
        """See L{Credentials<hoft.web.egress.credentials.Credentials.fields>}."""
        token = self._token
        if token is not None and (token.renew is None or self._wall() < token.renew):
            return succeed(_bearer(token))
        return self.fetching.get().addCallback(_bearer)

    def rejected(self, url: str, status: int, response: Sequence[Field], used: Sequence[Field]) -> bool:
        """A token may be revoked before its end: then there is another."""
        if status != 401:
            return False
        if self._token is not None and _bearer(self._token) == used:
            self._token = evolve(self._token, renew=0)
        return True

    def own(self, response: FieldList) -> FieldList:
        """Nothing in it is ours."""
        return response

    async def _fetch(self) -> Token:
        if not self._loaded:
            self._token = self._token or await self._kept()
            self._loaded = True
            if self._token is not None and self._token.renew is not None and self._wall() < self._token.renew:
                return self._token
        settings = self._settings
        kept = None if self._token is None else self._token.refresh
        if settings.refresh_token is None:
            token = await self._ask(None)
        else:
            try:
                token = await self._ask(kept or settings.refresh_token)
            except CredentialsFailed:
                if kept in (None, settings.refresh_token):
                    raise
                # What is configured may be newer than what was kept.
                token = await self._ask(settings.refresh_token)
            if token.refresh is None:
                token = evolve(token, refresh=kept or settings.refresh_token)
        self._token = token
        try:
            await self._store.keep(self._name, json.dumps(asdict(token)).encode())
        except HoftError as error:
            self.log.warn("The token of {name} was not kept: {error}", name=self._name, error=error)
        return token

    async def _kept(self) -> Token | None:
        kept = await self._store.load(self._name)
        return None if kept is None else Token(**json.loads(kept))

    async def _ask(self, refresh_token: str | None) -> Token:
        settings = self._settings
        client = BackendApplicationClient(settings.client_id)
        extra = {"client_secret": settings.client_secret} if settings.post else {}
        if refresh_token is None:
            body = client.prepare_request_body(scope=settings.scope, include_client_id=settings.post, **extra)
        else:
            if settings.post:
                extra["client_id"] = settings.client_id
            body = client.prepare_refresh_body(refresh_token=refresh_token, scope=settings.scope, **extra)
        auth = None if settings.post else (settings.client_id, settings.client_secret)
        answer = await post_form(self._reactor, self._agent, settings.token_url, body, auth)
        return Token.of(answer.status, _said(answer.text()), self._wall())


def _said(text: str) -> dict[str, Any]:
    """What a token endpoint answered: a JSON object (RFC 6749 section 5.1), or a form; else empty."""
    try:
        said = json.loads(text)
    except RecursionError:
        return {}
    except ValueError:
        return dict(parse_qsl(text))
    return said if isinstance(said, dict) else {}


def _bearer(token: Token) -> Sequence[Field]:
    return [(b"Authorization", b"Bearer " + token.access.encode("ascii"))]
