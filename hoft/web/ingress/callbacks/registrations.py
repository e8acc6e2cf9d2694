"""
Receivers of callbacks: which URLs callers may name, and what signs what goes there.

The rules are those of L{hoft.web.client.policy}: a URL prefix, and addresses that a name may
lead to.  Here they hold for callers in place of peers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import field, frozen

from hoft.config import Callback
from hoft.errors import IdentityError
from hoft.identity import read_private
from hoft.web.client.policy import Grant, Policy, Rule
from hoft.web.http.problems import Problem, Refused, callback_refused, malformed_request
from hoft.web.http.targets import Service, parse_url
from hoft.web.ingress.callbacks.signing import BadKey, Key, parse_key

MAX_URL: Final = 2048
"""The most characters of a callback's URL."""

MAX_KEYS: Final = 8
"""The most keys that sign what goes to one receiver."""


@frozen
class Destination:
    """
    Where one callback goes.

    @ivar grant: leave to go there.
    @ivar host: as the Host field says it.
    @ivar target: path and query.
    @ivar keys: sign what goes there, the newest first.
    """

    grant: Grant
    host: bytes
    target: bytes = field(repr=False)
    keys: Sequence[Key] = field(repr=False)


def read_keys(path: Path) -> Sequence[Key]:
    """
    What is in a secret's file: a key a line, the newest first.  Blocks on the disk.

    @raise IdentityError: it is missing, others may read it, or there is something else in it.
    """
    try:
        keys = [parse_key(line) for line in read_private(path, "'hoft callback' makes one").split()]
    except BadKey as error:
        raise IdentityError(f"{path}: {error}; 'hoft callback' makes keys") from None
    if not 0 < len(keys) <= MAX_KEYS:
        raise IdentityError(f"{path}: {len(keys)} keys; wanted: one to {MAX_KEYS}, each on a line of its own")
    return keys


class Registrations:
    """Those that are in force together."""

    def __init__(self, callbacks: Sequence[Callback], keys: Mapping[str, Sequence[Key]]) -> None:
        """@param keys: of each of C{callbacks}, by its name."""
        self._keys = keys
        self._policy = Policy(
            Rule.parse(one.url, caller, one.private, one.name)
            for one in callbacks
            for caller in one.callers or (None,)
        )

    @classmethod
    def read(cls, callbacks: Sequence[Callback]) -> Registrations:
        """
        With the keys that are in their files.  Blocks on the disk.

        @raise IdentityError: one is missing, others may read it, or there is something else in it.
        """
        return cls(callbacks, {one.name: read_keys(one.secret_file) for one in callbacks})

    def find(self, url: str, caller: str | None) -> Destination:
        """
        Where a callback goes that this caller wants.

        @raise Refused: 403 nothing of the kind is registered for it; 400 that is no URL.
        """
        if len(url) > MAX_URL:
            raise Refused(_malformed(f"is longer than {MAX_URL} characters"))
        try:
            service = parse_url(url)
        except Refused as refused:
            raise Refused(_malformed(refused.problem.detail)) from None
        where = service.authority
        if where.credentials is not None:
            raise Refused(_malformed("holds a user"))
        try:
            grant = self._policy.check(caller or "", service.scheme, where, service.target)
        except Refused:
            raise Refused(_unknown(service, caller)) from None
        assert grant.credentials is not None
        keys = self._keys[grant.credentials]
        return Destination(grant, str(where).encode("ascii"), service.target, keys)


def _malformed(what: str) -> Problem:
    return malformed_request(f"Hoft-Callback must be one http or https URL: {what}")


def _unknown(service: Service, caller: str | None) -> Problem:
    origin = f"{service.scheme}://{service.authority}"
    return callback_refused(
        f"no receiver at {origin} is registered {'here' if caller is None else f'for {caller}'}"
        " that this URL is below; see 'hoft callback' there"
    )
