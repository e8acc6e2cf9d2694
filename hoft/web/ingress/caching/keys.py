"""
What a stored response is found by: the URL of the service, who asks and under which name, and the
fields that Vary names (RFC 9111 sections 2 and 4.1).  Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit

from hoft.web.http.fields import Authority, elements, values
from hoft.web.http.heads import Fields
from hoft.web.http.targets import DEFAULT_PORTS, ROUTES, Mount, Service

MAX_VARY: Final = 16
"""Fields that Vary may name; where it names more, nothing is stored."""

_NAMING: Final = frozenset(
    (
        b"forwarded",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-url",
        b"x-rewrite-url",
    )
)
"""
Fields in which a caller can say under which name, or what, it asks.  Services put these into their
responses without naming them in Vary; so they are part of the key, or one caller could choose
what another one gets.
"""

_SELECTING: Final = (b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cookie")
"""Fields that Vary often names: requests that differ in them do not wait for one answer."""


def url_of(service: Service) -> bytes:
    """Scheme, host, port, path and query, in one form."""
    where = service.authority
    port = DEFAULT_PORTS[service.scheme] if where.port is None else where.port
    return f"{service.scheme}://{Authority(where.host, port)}".encode("ascii") + service.target


def partition(peer: bytes, route: str, caller: str | None, shared: bool, said: Fields, host: str) -> bytes:
    """
    Who finds what was stored for whom: those of one partition, by one URL.

    @param caller: who calls, and C{shared}: that makes no difference.
    @param said: the fields of the request.
    @param host: the scheme and Host by which the caller spoke to us, which we tell the service.
    """
    who = b"*" if shared else b"-" if caller is None else b"+" + caller.encode("utf-8")
    digest = hashlib.sha256(b"\n".join((peer, route.encode("ascii"), who, host.encode("utf-8"))))
    digest.update(_naming(said))
    return digest.digest()[:16]


def collapsing(said: Fields) -> bytes:
    """What requests have in common that may wait for one answer, beside URL and partition."""
    return variant(_SELECTING, said)


def varying(fields: Fields) -> Sequence[bytes]:
    """The names in Vary, in lower case, each once and in order."""
    return sorted({name.lower() for name in elements(fields, b"vary")})


def variant(names: Iterable[bytes], fields: Fields) -> bytes:
    """
    What a request says in these fields, as a digest: there may be secrets among it.  White space
    around commas, and how many fields a list is spread over, make no difference (RFC 9111 section 4.1).
    """
    digest = hashlib.sha256()
    for name in names:
        given = elements(fields, name)
        digest.update(b"%b\n%b\n" % (name, b"-" if not values(fields, name) else b"+" + b",".join(given)))
    return digest.digest()[:16]


def _naming(fields: Fields) -> bytes:
    """The part of the key that says under which name a caller asks; empty for most."""
    names = sorted(_NAMING.intersection({name.lower() for name, _ in fields}))
    return variant(names, fields) if names else b""


def referred(mount: Mount, url: bytes, value: bytes) -> bytes | None:
    """
    The URL of the service that Location or Content-Location means; C{None} if it is of another origin.

    @param mount: the route that was called, and C{url}: what was called there.
    @param value: as the service gave it, or as the caller gets it.
    """
    here = ROUTES + mount.name.encode("ascii")
    if value.startswith((here + b"/", here + b"?")) or value == here:
        return url_of(mount.service(value[len(here) :].partition(b"#")[0]))
    try:
        base = url.decode("ascii")
        there = urlsplit(urljoin(base, value.decode("ascii")))
        port = there.port or DEFAULT_PORTS.get(there.scheme)
        if not there.hostname or port is None:
            return None
        target = (there.path or "/") + (f"?{there.query}" if there.query else "")
        service = Service(there.scheme, Authority(there.hostname, port), target.encode("ascii"))
        found = url_of(service)
    except ValueError:
        return None
    return found if found.split(b"/", 3)[:3] == url.split(b"/", 3)[:3] else None
