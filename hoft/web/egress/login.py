"""Sessions with services that know their users by a cookie which a login form gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import Request

from attrs import field, frozen
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, succeed
from twisted.web.iweb import IAgent

from hoft.web.egress.credentials import CredentialsFailed, Fetching
from hoft.web.egress.fetching import post_form
from hoft.web.http.fields import FieldList, values, without
from hoft.web.http.heads import Field


@frozen
class Settings:
    """
    @ivar url: where the form is sent.
    @ivar form: as C{application/x-www-form-urlencoded}.
    """

    url: str
    form: str = field(repr=False)


class Login:
    """
    A session (L{hoft.web.egress.credentials.Credentials}): of this process only, since a
    new one is had at any time.
    """

    def __init__(
        self, name: str, settings: Settings, reactor: Any, agent: IAgent, clock: Callable[[], float]
    ) -> None:
        """@param clock: monotonic seconds."""
        self._settings = settings
        self._reactor = reactor
        self._agent = agent
        self._jar: CookieJar | None = None
        self.fetching = Fetching(name, clock, lambda: Deferred.fromCoroutine(self._log_in()))

    def fields(self, url: str) -> Deferred[Sequence[Field]]:
        """See L{Credentials<hoft.web.egress.credentials.Credentials.fields>}."""
        jar = succeed(self._jar) if self._jar is not None else self.fetching.get()
        return jar.addCallback(_cookies, url)

    def rejected(self, url: str, status: int, response: Sequence[Field], used: Sequence[Field]) -> bool:
        """A service that has forgotten the session says 401, or leads to its form."""
        refused = status == 401 or (status in (302, 303, 307) and self._leads_to_form(response))
        if refused and self._jar is not None and _cookies(self._jar, url) == used:
            self._jar = None
        return refused

    def _leads_to_form(self, response: Sequence[Field]) -> bool:
        form = urlsplit(self._settings.url)
        for location in values(response, b"location"):
            try:
                where = urlsplit(urljoin(self._settings.url, location.decode("latin-1")))
            except ValueError:  # it leads nowhere
                continue
            if (where.netloc, where.path) == (form.netloc, form.path):
                return True
        return False

    def own(self, response: FieldList) -> FieldList:
        """The session is ours: its cookies go to no caller."""
        return without(response, (b"set-cookie",))

    async def _log_in(self) -> CookieJar:
        jar = IndexableCookieJar()
        settings = self._settings
        answer = await post_form(self._reactor, self._agent, settings.url, settings.form, jar=jar)
        if answer.status >= 400 or not len(jar):
            raise CredentialsFailed(f"the login form answered {answer.status} and gave no cookie")
        self._jar = jar
        return jar


def _cookies(jar: CookieJar, url: str) -> Sequence[Field]:
    request = Request(url)
    jar.add_cookie_header(request)
    cookies = request.get_header("Cookie")
    return [] if cookies is None else [(b"Cookie", cookies.encode("latin-1", "replace"))]
