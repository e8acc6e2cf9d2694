"""
From what the configuration says of credentials to those that show services who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar

from hoft.config import Credential
from hoft.errors import ConfigurationError, IdentityError
from hoft.identity import read_private
from hoft.web.client.agent import ExactAgent
from hoft.web.egress import login
from hoft.web.egress.credentials import Credentials, Headers
from hoft.web.http.fields import check_fields
from hoft.web.http.problems import Refused

if TYPE_CHECKING:
    from hoft.web.egress.oauth import Store


def secrets_of(credentials: Sequence[Credential]) -> Mapping[Path, str]:
    """
    What is in the files that they name.  Blocks on the disk.

    @raise IdentityError: one is missing, or others may read it.
    """
    paths = [path for one in credentials for path in (one.secret_file, one.refresh_token_file) if path]
    return {path: read_private(path, "the secret belongs there") for path in paths}


def credentials_of(
    configured: Sequence[Credential],
    secrets: Mapping[Path, str],
    reactor: Any,
    clock: Callable[[], float],
    store: Store,
) -> dict[str, Credentials]:
    """
    By their names.

    @param secrets: what L{secrets_of} read.
    @param clock: monotonic seconds.
    @raise IdentityError: what is in a file cannot be used.
    @raise ConfigurationError: a library is missing.
    """
    # Where an operator has credentials fetched from is where that operator's node may connect to.
    agent = ExactAgent(reactor, permit=lambda address: True)
    return {one.name: _one(one, secrets, reactor, agent, clock, store) for one in configured}


def _one(
    one: Credential,
    secrets: Mapping[Path, str],
    reactor: Any,
    agent: ExactAgent,
    clock: Callable[[], float],
    store: Store,
) -> Credentials:
    assert one.secret_file is not None
    secret = secrets[one.secret_file]
    if one.kind == "headers":
        return Headers(_fields(one.secret_file, secret))
    if one.kind == "login":
        return login.Login(one.name, login.Settings(one.url, secret), reactor, agent, clock)
    try:
        from hoft.web.egress import oauth
    except ImportError:
        raise ConfigurationError(
            f"credentials.{one.name}",
            "kind",
            f"{one.kind!r}",
            "oauthlib installed ('pip install hoft[oauth]')",
        ) from None
    refresh = None if one.refresh_token_file is None else secrets[one.refresh_token_file]
    settings = oauth.Settings(one.url, one.client_id, secret, one.scope, refresh, one.post)
    # Its requests carry no cookies of other endpoints.
    client = HTTPClient(agent, IndexableCookieJar())
    return oauth.OAuth(one.name, settings, reactor, client, store, clock)


def _fields(path: Path, text: str) -> list[tuple[bytes, bytes]]:
    """
    @raise IdentityError: these are no header fields, one a line.
    """
    fields = []
    for line in text.splitlines():
        name, colon, value = line.encode("utf-8").partition(b":")
        fields.append((name, value.strip()))
        if not colon:
            raise IdentityError(f"{path}: a line is no header field; wanted: Name: value")
    try:
        check_fields(fields)
    except Refused:
        raise IdentityError(f"{path}: a line is no header field; wanted: Name: value") from None
    return fields
