"""
What a caller asks for, read from the request line; and the way back for a route.

Path and query are passed on byte for byte: encoded dots and slashes stay what they
are, for L{hoft.web.client.policy} of the far node to judge.  Pure.
"""

from __future__ import annotations

import re

from attrs import field, frozen

from hoft.web.http.fields import Authority, authority
from hoft.web.http.heads import Retry
from hoft.web.http.problems import Refused, malformed_request, not_found

ROUTES = b"/svc/"
"""C{/svc/NAME/...}: a configured route."""

GENERIC = b"/to/"
"""C{/to/SCHEME/HOST[:PORT]/...}: any service."""

OWN = b"/_hoft"
"""C{/_hoft/...}: the gateway itself."""

DEFAULT_PORTS = {"http": 80, "https": 443}

_TARGET = re.compile(rb"[!-~]+")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*):(.*)", re.DOTALL)
_ROUTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@frozen
class Route:
    """
    A call to a route of ours.

    @ivar name: of the route.
    @ivar rest: what follows the name, query included; empty, or begins with C{/} or C{?}.
    """

    name: str
    rest: bytes = field(repr=False)


@frozen
class Service:
    """
    A call to a service.

    @ivar target: path and query to send there: begins with C{/}, or is C{*}.
    @ivar absolute: the caller treats us as its proxy, and its Host field is void
        (RFC 9112 section 3.2.2).
    """

    scheme: str
    authority: Authority
    target: bytes = field(repr=False)
    absolute: bool = False


@frozen
class Own:
    """
    A call to the gateway itself.

    @ivar path: what follows C{/_hoft}, query included; C{*} for C{OPTIONS *}.
    """

    path: bytes


@frozen
class Tunnel:
    """
    A TCP port that a caller wants to be connected to.

    @ivar host: lower case; IPv6 without brackets.
    """

    host: str
    port: int


def parse_target(method: bytes, target: bytes) -> Route | Service | Own | Tunnel:
    """
    Read a request target in any of the forms of RFC 9112 section 3.2.

    @raise Refused: 400 it is malformed, 404 it leads nowhere.
    """
    if not _TARGET.fullmatch(target) or b"#" in target:
        raise Refused(malformed_request("the request target has characters that must be percent-encoded"))
    if method == b"CONNECT":
        where = authority(target)
        if not where.port:
            raise Refused(malformed_request("CONNECT names a host and a port"))
        return Tunnel(where.host, where.port)
    if target == b"*":
        if method != b"OPTIONS":
            raise Refused(malformed_request("only OPTIONS has the target *"))
        return Own(b"*")
    if not target.startswith(b"/"):
        return _absolute(method, target)
    if target.startswith(ROUTES):
        return _route(target)
    if target.startswith(GENERIC):
        return _generic(target)
    if target == OWN or target.startswith((OWN + b"/", OWN + b"?")):
        return Own(target[len(OWN) :])
    raise Refused(not_found("a path here begins with /svc/NAME/, /to/SCHEME/HOST/ or /_hoft/"))


def parse_url(url: str) -> Service:
    """
    An C{http} or C{https} URL, as in configurations: of a route's service, say.

    @raise Refused: it is not one, or has a fragment; the message says what is wrong.
    """
    try:
        target = url.encode("ascii")
    except UnicodeEncodeError:
        raise Refused(malformed_request("not ASCII: use the xn-- form and percent-encoding")) from None
    if not _TARGET.fullmatch(target) or b"#" in target:
        raise Refused(malformed_request("characters that must be percent-encoded, or a fragment"))
    return _absolute(b"GET", target)


def _absolute(method: bytes, target: bytes) -> Service:
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not match[2].startswith(b"//"):  # what is before the colon may be a user
        raise Refused(malformed_request("the request target is neither a path nor a URL"))
    scheme = match[1].decode("ascii").lower()
    if scheme not in DEFAULT_PORTS:
        raise Refused(malformed_request(f"{scheme[:20]}: only http:// and https:// are carried"))
    where, rest = _split(match[2][2:])
    if method == b"OPTIONS" and not rest:
        rest = b"*"  # RFC 9112 section 3.2.4
    return Service(scheme, authority(where, credentials=True), _path(rest), absolute=True)


def _generic(target: bytes) -> Service:
    word, slash, rest = target[len(GENERIC) :].partition(b"/")
    scheme = word.decode("ascii").lower()
    if not slash or scheme not in DEFAULT_PORTS:
        raise Refused(not_found("after /to/ comes http/HOST or https/HOST"))
    where, rest = _split(rest)
    return Service(scheme, authority(where, credentials=True), _path(rest))


def _route(target: bytes) -> Route:
    name, rest = _split(target[len(ROUTES) :])
    text = name.decode("ascii")
    if not _ROUTE_NAME.fullmatch(text):
        raise Refused(
            not_found("after /svc/ comes the name of a route: letters, digits, dot, hyphen, underscore")
        )
    return Route(text, rest)


def _split(text: bytes) -> tuple[bytes, bytes]:
    """Before and from the first C{/} or C{?} on."""
    end = min((at for at in (text.find(b"/"), text.find(b"?")) if at >= 0), default=len(text))
    return text[:end], text[end:]


def _path(rest: bytes) -> bytes:
    return rest if rest.startswith((b"/", b"*")) else b"/" + rest


# --- Routes -------------------------------------------------------------------------


@frozen
class Mount:
    """
    A route and the service it leads to: the way there, and back.

    @ivar name: of the route.
    @ivar base: the service's base URL; its query, if any, is not used.
    @ivar retry: what is asked for calls by this route.
    @ivar websocket: it is for WebSocket, too.
    """

    name: str
    base: Service
    retry: Retry = Retry.IDEMPOTENT
    websocket: bool = False

    @classmethod
    def parse(cls, name: str, url: str, retry: Retry = Retry.IDEMPOTENT, websocket: bool = False) -> Mount:
        """
        @raise Refused: the name or the URL is not one.
        """
        if not _ROUTE_NAME.fullmatch(name):
            raise Refused(malformed_request("letters, digits, dot, hyphen, underscore; at most 63"))
        return cls(name, parse_url(url), retry, websocket)

    @property
    def _prefix(self) -> bytes:
        """The base's path without a final slash."""
        return self.base.target.partition(b"?")[0].rstrip(b"/")

    @property
    def _here(self) -> bytes:
        """Where the caller sees the base: without a final slash."""
        return ROUTES + self.name.encode("ascii")

    def service(self, rest: bytes) -> Service:
        """
        What C{/svc/NAME} followed by C{rest} stands for.

        C{/svc/NAME} alone is the base URL just as it was configured, C{/svc/NAME/}
        the same with a final slash.
        """
        base = self.base.target.partition(b"?")[0]
        if rest.startswith(b"/"):
            base = self._prefix
        return Service(self.base.scheme, self.base.authority, base + rest)

    def location(self, value: bytes, target: bytes) -> bytes:
        """
        Location and Content-Location as the caller must see them.

        @param value: a URI reference (RFC 9110 section 10.2.2).
        @param target: the request target at the service, for relative references.
        @return: below the route where the service's own base is meant, an absolute URL
            where another place is, unchanged where it is relative and stays below.
        """
        match = _ABSOLUTE.fullmatch(value)
        if match is not None and match[1].lower() not in (b"http", b"https"):
            return value
        if match is not None and match[2].startswith(b"//"):
            scheme, rest = match[1].decode("ascii").lower(), match[2][2:]
        elif value.startswith(b"//"):
            scheme, rest = self.base.scheme, value[2:]
        elif match is not None:
            return value  # http:path, which nobody should send
        elif value.startswith(b"/"):
            return self._back(value)
        else:
            return self._relative(value, target)
        end = min((at for at in map(rest.find, (b"/", b"?", b"#")) if at >= 0), default=len(rest))
        try:
            where = authority(rest[:end], credentials=True)
        except Refused:
            return value
        if (scheme, where.host, _port(scheme, where)) != self._origin:
            return value
        path = rest[end:]
        return self._back(path if path.startswith(b"/") else b"/" + path)

    @property
    def _origin(self) -> tuple[str, str, int]:
        base = self.base
        return base.scheme, base.authority.host, _port(base.scheme, base.authority)

    def _back(self, path: bytes) -> bytes:
        """An absolute path at the service, as the caller must see it."""
        bare, tail = _tail(path)
        prefix = self._prefix
        clean = remove_dot_segments(bare)
        if clean == prefix or clean.startswith(prefix + b"/"):
            return self._here + clean[len(prefix) :] + tail
        return f"{self.base.scheme}://{self.base.authority}".encode("ascii") + clean + tail

    def _relative(self, value: bytes, target: bytes) -> bytes:
        bare, tail = _tail(value)
        if not bare:
            return value
        here = target.partition(b"?")[0]
        depth = 0
        for segment in bare.split(b"/")[:-1]:
            depth += {b".": 0, b"..": -1}.get(segment, 1)
            if depth < 0:
                break
        if depth >= 0 and bare.rpartition(b"/")[2] != b".." and here.startswith(self._prefix + b"/"):
            return value
        return self._back(here.rpartition(b"/")[0] + b"/" + bare + tail)

    def set_cookie(self, value: bytes, secure: bool) -> bytes:
        """
        A Set-Cookie field (RFC 6265) as the caller must see it: Domain goes, so that
        the cookie is the gateway's; Path is moved below the route, so that routes do
        not see each other's; what needs TLS goes where the caller speaks to us without.

        @param secure: the caller speaks TLS to us.
        """
        pair, *attributes = value.split(b";")
        kept = [pair]
        for attribute in attributes:
            name, _, argument = attribute.partition(b"=")
            name, argument = name.strip(b" \t").lower(), argument.strip(b" \t")
            if name == b"domain":
                continue
            if not secure and (
                name in (b"secure", b"partitioned") or (name == b"samesite" and argument.lower() == b"none")
            ):
                continue
            if name == b"path" and argument.startswith(b"/"):
                attribute = b" Path=" + self._cookie_path(argument)
            kept.append(attribute)
        return b";".join(kept)

    def _cookie_path(self, path: bytes) -> bytes:
        prefix = self._prefix
        if (prefix + b"/").startswith(path.rstrip(b"/") + b"/"):
            return self._here  # the cookie is for all of the base, and maybe more
        if path.startswith(prefix + b"/"):
            return self._here + path[len(prefix) :]
        return self._here + path


def _port(scheme: str, where: Authority) -> int:
    return DEFAULT_PORTS[scheme] if where.port is None else where.port


def _tail(reference: bytes) -> tuple[bytes, bytes]:
    """A reference's path, and its query and fragment."""
    end = min((at for at in (reference.find(b"?"), reference.find(b"#")) if at >= 0), default=len(reference))
    return reference[:end], reference[end:]


def remove_dot_segments(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4, for a path that begins with C{/}."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
