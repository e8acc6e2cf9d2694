"""
What peers may reach through this node: nothing, but for what its rules name.

A rule is a URL prefix.  A request matches when scheme, host and port are the same
after normalisation and the rule's path is a beginning of its path by whole segments.
What a name resolves to is judged, too: see L{Grant.permits}.  Whatever some program
along the way might read as another path or another host matches no rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from attrs import evolve, frozen

from hoft.addresses import ESCAPE, LIKE_IPV4, hides, without_user
from hoft.errors import ConfigurationError
from hoft.web.http.fields import Authority
from hoft.web.http.heads import Retry
from hoft.web.http.problems import Refused, malformed_request, no_peer, not_allowed
from hoft.web.http.targets import DEFAULT_PORTS, parse_url

Address = IPv4Address | IPv6Address

# --- Hosts and addresses -----------------------------------------------------------------

_PRIVATE = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
"""What C{private = true} adds: RFC 1918, RFC 6598, RFC 4193."""

_METADATA = frozenset(
    map(
        ip_address,
        ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
"""Where cloud providers hand credentials to whoever asks from inside; not all lie in special ranges."""

_NAT64 = ip_network("64:ff9b::/96")


@lru_cache(1024)
def normal_host(host: str) -> str:
    """
    The one form of a host in which hosts are compared: lower case, without a final
    dot; addresses as L{ipaddress} writes them.

    What ends in a number is an IPv4 address to many resolvers, also C{2130706433},
    C{0x7f.1} or C{127.1}: only the usual form with four decimal numbers passes.

    @param host: ASCII; IPv6 without brackets.
    @raise Refused: 400.
    """
    text = host.lower()
    if ":" in text:
        try:
            return str(IPv6Address(text))
        except ValueError:
            raise Refused(malformed_request(f"{host[:60]!r} is not a host")) from None
    name = text.removesuffix(".")
    if LIKE_IPV4.fullmatch(name):
        try:
            return str(IPv4Address(text))
        except ValueError:
            raise Refused(malformed_request(f"{host[:60]!r} is no IPv4 address as it should be")) from None
    if not name.isascii() or "" in name.split("."):
        raise Refused(malformed_request(f"{host[:60]!r} is not a host"))
    return name


def is_global(address: Address) -> bool:
    """
    Is this an address of the public Internet, and nothing else in disguise?

    IPv4 addresses inside IPv6 ones (6to4, Teredo, NAT64) must be public as well;
    IPv4-mapped ones never are: no resolver has a reason to give one.
    """
    if isinstance(address, IPv6Address) and address in _NAT64:
        return is_global(IPv4Address(int(address) & 0xFFFFFFFF))
    special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    if special or address.is_link_local or not address.is_global or address in _METADATA:
        return False
    if isinstance(address, IPv4Address):
        return True
    if address.ipv4_mapped is not None or address.is_site_local:
        return False
    inside = [address.sixtofour, *(address.teredo or ())]
    return all(is_global(one) for one in inside if one is not None)


# --- Paths ---------------------------------------------------------------------------------

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def path_segments(target: bytes) -> tuple[bytes, ...]:
    """
    The segments of a path, comparable: what need not be percent-encoded is not.

    @param target: path and query.
    @raise Refused: 403: dot segments, or anything that some server reads as a dot
        segment, a slash or a backslash, however encoded.
    """
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        raise Refused(not_allowed("a path begins with a slash"))
    escaped = b"%" in path
    if b"\\" in path or (escaped and (_BAD_ESCAPE.search(path) or hides(path))):
        raise Refused(not_allowed("an encoded dot, slash, backslash or control character in the path"))
    segments = path[1:].split(b"/")
    if b"/." in path and any(segment.partition(b";")[0] in (b".", b"..") for segment in segments):
        raise Refused(not_allowed("the path has a segment . or .."))
    return tuple([ESCAPE.sub(_plain, segment) for segment in segments] if escaped else segments)


def _plain(escape: re.Match[bytes]) -> bytes:
    value = int(escape[1], 16)
    return bytes((value,)) if value in _UNRESERVED else escape[0].upper()


# --- Rules ---------------------------------------------------------------------------------

REMEMBERED = 1024
"""How many places are remembered that some rule allows something of: spellings of one host count apart."""


@frozen
class Rule:
    """
    One URL prefix that may be reached.

    @ivar host: as L{normal_host} has it.
    @ivar path: segments, without a final empty one.
    @ivar peer: for whom, C{None} for every peer.
    @ivar private: the name may lead to private addresses.
    @ivar credentials: the name of those that requests get.
    @ivar retry: in place of what the peer says of its requests.
    @ivar websocket: it may be reached by WebSocket, too.
    """

    scheme: str
    host: str
    port: int
    path: tuple[bytes, ...]
    peer: str | None = None
    private: bool = False
    credentials: str | None = None
    retry: Retry | None = None
    websocket: bool = False

    @classmethod
    def parse(
        cls,
        url: str,
        peer: str | None = None,
        private: bool = False,
        credentials: str | None = None,
        retry: Retry | None = None,
        websocket: bool = False,
    ) -> Rule:
        """
        @param url: as configured.
        @raise ConfigurationError: it is not a URL that could be allowed.
        """
        try:
            service = parse_url(url)
            where = service.authority
            path = path_segments(service.target)
            host = normal_host(where.host)
        except Refused as error:
            raise _wrong(url, error.problem.detail) from error
        if where.credentials is not None or b"?" in service.target:
            raise _wrong(url, "credentials or a query")
        while path and not path[-1]:
            path = path[:-1]
        port = DEFAULT_PORTS[service.scheme] if where.port is None else where.port
        return cls(service.scheme, host, port, path, peer, private, credentials, retry, websocket)


def _wrong(url: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        "allow", "url", f"{without_user(url)!r}: {what}", "http://HOST[:PORT][/PATH] or https://..."
    )


@frozen
class Grant:
    """
    Leave to make one request.

    @ivar host: to resolve, to name in TLS: as L{normal_host} has it.
    @ivar private: a rule that allows it says so.
    @ivar credentials: those that the rule with the longest path says the request gets.
    @ivar retry: what the rule with the longest path that says it has for the peer's own word.
    """

    scheme: str
    host: str
    port: int
    private: bool = False
    credentials: str | None = None
    retry: Retry | None = None

    def permits(self, address: str) -> bool:
        """
        May the request go to this address, to which the host resolved?

        - If the host is an address: only to that, whatever it is.
        - If it is C{localhost}: only to loopback addresses.
        - Else to global addresses, and to private ones where a rule says
          C{private = true}; never to loopback, link-local, multicast, reserved,
          unspecified and IPv4-mapped addresses, nor to a cloud's metadata service.

        @param address: an IP address; IPv6 without brackets or zone.
        """
        return _permitted(self.host, self.private, address)


@lru_cache(4096)
def _permitted(host: str, private: bool, address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    try:
        return found == ip_address(host)
    except ValueError:
        pass
    if host == "localhost":
        return found in _LOOPBACK_4 or found == _LOOPBACK_6
    if is_global(found):
        return True
    return private and found not in _METADATA and any(found in network for network in _PRIVATE)


_LOOPBACK_4 = ip_network("127.0.0.0/8")
_LOOPBACK_6 = ip_address("::1")


@frozen
class _Place:
    """
    What the rules say of one scheme, host and port for one peer.

    @ivar rules: those that allow some of it.
    @ivar grants: leave to go there, to private addresses or not.
    """

    rules: Sequence[Rule]
    grants: tuple[Grant, Grant]


class Policy:
    """The rules of this node, in effect together."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules: dict[tuple[str, str, int], list[Rule]] = {}
        for rule in rules:
            self._rules.setdefault((rule.scheme, rule.host, rule.port), []).append(rule)
        self._places: dict[tuple[str, str, Authority], _Place] = {}
        """What was looked up already."""

    def check(
        self, peer: str, scheme: str, where: Authority, target: bytes, websocket: bool = False
    ) -> Grant:
        """
        May C{peer} make this request?

        @param peer: what our configuration calls it.
        @param target: path and query, or C{*}.
        @param websocket: it asks for WebSocket; only rules that say so count.
        @raise Refused: 403 no, with what would allow it; 400 the host is none.
        """
        place = self._places.get((peer, scheme, where)) or self._look_up(peer, scheme, where)
        segments = () if target == b"*" else path_segments(target)
        matching = [rule for rule in place.rules if segments[: len(rule.path)] == rule.path]
        if websocket:
            matching = [rule for rule in matching if rule.websocket]
        grant = place.grants[0]
        if not matching:
            default = grant.port == DEFAULT_PORTS[scheme]
            origin = f"{scheme}://{Authority(grant.host, None if default else grant.port)}"
            raise Refused(
                not_allowed(
                    f"the far node does not allow {peer} to call this at {origin}"
                    f"{' by WebSocket' if websocket else ''}; see 'hoft allow' there"
                )
            )
        grant = place.grants[any(rule.private for rule in matching)]
        saying = [rule for rule in matching if rule.credentials is not None or rule.retry is not None]
        if not saying:
            return grant
        saying.sort(key=lambda rule: len(rule.path), reverse=True)
        credentials = next((rule.credentials for rule in saying if rule.credentials is not None), None)
        retry = next((rule.retry for rule in saying if rule.retry is not None), None)
        return evolve(grant, credentials=credentials, retry=retry)

    def _look_up(self, peer: str, scheme: str, where: Authority) -> _Place:
        if scheme not in DEFAULT_PORTS:
            raise Refused(not_allowed(f"{scheme[:20]!r} is not http or https"))
        host = normal_host(where.host)
        port = DEFAULT_PORTS[scheme] if where.port is None else where.port
        rules = [rule for rule in self._rules.get((scheme, host, port), ()) if rule.peer in (None, peer)]
        place = _Place(rules, (Grant(scheme, host, port), Grant(scheme, host, port, private=True)))
        if rules:
            if len(self._places) >= REMEMBERED:
                self._places.clear()
            self._places[peer, scheme, where] = place
        return place


# --- Which peer ----------------------------------------------------------------------------


def choose_peer(
    host: str,
    peers: Sequence[str],
    forwards: Iterable[tuple[str, str]] = (),
    default: str | None = None,
) -> str:
    """
    The peer that a call without a route goes to: that of the first of C{forwards}
    that matches, else C{default}, else the only peer there is.

    @param host: of the service; IPv6 without brackets.
    @param peers: the names of all peers.
    @param forwards: (pattern, peer): a host, C{*.} and a domain for all names below
        it, or C{*}.
    @raise Refused: 502 naming the choices; 400 the host is none.
    """
    name = normal_host(host)
    for pattern, peer in forwards:
        if _matches(name, pattern):
            return peer
    if default is not None:
        return default
    if len(peers) == 1:
        return peers[0]
    raise Refused(no_peer(host, sorted(peers)))


def _matches(name: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return name.endswith(pattern[1:].lower().removesuffix("."))
    return name == normal_host(pattern.removeprefix("[").removesuffix("]"))
