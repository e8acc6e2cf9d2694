"""
Who calls: the credentials of callers, as the ingress asks for them.

Where the configuration names callers, each call must bring the token of one:
in Proxy-Authorization (RFC 9110 section 11.7.2), as a proxy is spoken to, or in
Authorization, as a server is.  What is in Proxy-Authorization never crosses.
Authorization belongs to the service, unless the token in it is one of ours: then
it does not cross either.

A token is 32 random bytes, so its SHA-256 in the configuration needs no salt, and
can be looked up without telling anything by the time that takes.  Pure.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Final

from hoft.config import Caller
from hoft.tokens import hash_token
from hoft.web.http.fields import TOKEN, FieldList, values, without
from hoft.web.http.heads import Field
from hoft.web.http.problems import Problem, unauthenticated

_CREDENTIALS = re.compile(rb"(%b) +([\x21-\x7e]+)" % TOKEN)
_CHALLENGES: Final = (b'Bearer realm="hoft"', b'Basic realm="hoft", charset="UTF-8"')


class Unauthenticated(Exception):
    """
    The caller must say who it is.

    @ivar problem: for the caller.
    @ivar challenges: the fields that go with it.
    """

    def __init__(self, problem: Problem, challenges: Sequence[Field]) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.challenges = challenges


class Callers:
    """Those that may call; anybody, if there are none."""

    def __init__(self, callers: Iterable[Caller] = ()) -> None:
        callers = tuple(callers)
        self._names = {token: caller.name for caller in callers for token in caller.tokens}
        self._operators = frozenset(caller.name for caller in callers if caller.operator)

    def identify(self, fields: FieldList, proxied: bool) -> tuple[str | None, FieldList]:
        """
        Who calls, and the request's fields as they may go on.

        @param proxied: the request is one to a proxy (absolute-form or authority-form).
        @return: C{None} as name where nobody is asked for it.
        @raise Unauthenticated: no token, or none of ours.
        """
        if not self._names:
            return None, fields
        given = values(fields, b"proxy-authorization")
        if given:
            name = self._name(given)
            if name is None:
                raise _challenge(True, "the credentials in Proxy-Authorization are not those of a caller")
            return name, fields
        name = self._name(values(fields, b"authorization"))
        if name is not None:
            return name, without(fields, (b"authorization",))
        detail = "this gateway asks for a caller's token, as Bearer, or as Basic with any user name, in "
        if proxied:
            raise _challenge(True, detail + "Proxy-Authorization")
        raise _challenge(False, detail + "Proxy-Authorization or Authorization")

    def operates(self, name: str | None) -> bool:
        """Whether this caller may see the node's status; anybody may, where nobody is asked for a name."""
        return name is None or name in self._operators

    def _name(self, given: Sequence[bytes]) -> str | None:
        if len(given) != 1:
            return None
        match = _CREDENTIALS.fullmatch(given[0])
        if match is None:
            return None
        scheme, token = match[1].lower(), match[2]
        if scheme == b"basic":
            try:
                token = b64decode(token, validate=True).partition(b":")[2]
            except binascii.Error:
                return None
        elif scheme != b"bearer":
            return None
        return self._names.get(hash_token(token))


def _challenge(proxied: bool, detail: str) -> Unauthenticated:
    name = b"Proxy-Authenticate" if proxied else b"WWW-Authenticate"
    return Unauthenticated(unauthenticated(detail, proxied), [(name, challenge) for challenge in _CHALLENGES])
