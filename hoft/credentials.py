"""
From what the configuration says of credentials to those that show services who calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoft.config import Credential
from hoft.errors import ConfigurationError, IdentityError
from hoft.identity import read_secret
from hoft.web.client.agent import ExactAgent
from hoft.web.egress import login
from hoft.web.egress.credentials import Credentials, Headers
from hoft.web.http.fields import check_fields
from hoft.web.http.intermediary import OWN
from hoft.web.http.problems import Refused

if TYPE_CHECKING:
    from hoft.web.egress.oauth import Store


def secrets_of(credentials: Sequence[Credential]) -> Mapping[Path, bytes]:
    """
    What is in the files that they name.  Blocks on the disk.

    @raise IdentityError: one is missing, or others may read it.
    """
    paths = [path for one in credentials for path in (one.secret_file, one.refresh_token_file) if path]
    return {path: read_secret(path, "the secret belongs there") for path in paths}


def credentials_of(
    configured: Sequence[Credential],
    secrets: Mapping[Path, bytes],
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
    secrets: Mapping[Path, bytes],
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
        form = _said(
            one.secret_file, secret, _FORM, "a form in one line, percent-encoded: user=...&password=..."
        )
        return login.Login(one.name, login.Settings(one.url, form), reactor, agent, clock)
    try:
        from hoft.web.egress import oauth
    except ImportError:
        raise ConfigurationError(
            f"credentials.{one.name}",
            "kind",
            f"{one.kind!r}",
            "oauthlib installed ('pip install hoft[oauth]')",
        ) from None
    client_secret = _said(one.secret_file, secret, _SECRET, "a client's secret in one line of UTF-8")
    refresh = None
    if (path := one.refresh_token_file) is not None:
        refresh = _said(path, secrets[path], oauth.REFRESH_TOKEN, "a refresh token in one line of ASCII")
    settings = oauth.Settings(one.url, one.client_id, client_secret, one.scope, refresh, one.post)
    return oauth.OAuth(one.name, settings, reactor, agent, store, clock)


_FORM = re.compile(r"[!-~]+")
_SECRET = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def _said(path: Path, secret: bytes, form: re.Pattern[str], wanted: str) -> str:
    """
    A secret without the end of its line.

    @raise IdentityError: it has not this form.
    """
    try:
        text = secret.strip().decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not form.fullmatch(text):
        given = "does not have what belongs there" if secret.strip() else "has nothing in it"
        raise IdentityError(f"{path}: {given}; wanted: {wanted}")
    return text


def _fields(path: Path, text: bytes) -> list[tuple[bytes, bytes]]:
    """
    The bytes of values stay as they are (obs-text, RFC 9110 section 5.5).

    @raise IdentityError: these are no header fields, one a line, or not for anybody else to send.
    """
    lines = [line.removesuffix(b"\r") for line in text.strip().split(b"\n")]
    fields = [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
    try:
        check_fields(fields)
    except Refused:
        fields = []
    if not fields or not all(b":" in line for line in lines):
        given = "a line is no header field" if text.strip() else "has nothing in it"
        raise IdentityError(f"{path}: {given}; wanted: Name: value")
    for name, _ in fields:
        if name.lower() in OWN:
            raise IdentityError(f"{path}: {name.decode('ascii')} is for the node alone to say")
    return fields
