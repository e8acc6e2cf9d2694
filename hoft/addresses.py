"""
Syntax of the addresses that a configuration names: endpoints, URLs, host patterns.

Each check returns the text as it was given, or raises a L{ConfigurationError}
that names C{where} and C{key}.  What the addresses mean is for others to say:
L{hoft.web.client.policy} normalises and matches them.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from hoft.errors import ConfigurationError

_HOST = re.compile(
    r"(?=.{1,253}\.?\Z)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.IGNORECASE
)
_URL_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/\[\]-]|%[0-9A-Fa-f]{2})*")
_BRACKETS = re.compile(r"\[[^]\[]*\](?::[0-9]+)?|[^]\[]*")
_URL_WANTED = "http://HOST[:PORT][/PATH] or https://..."
_LONGEST_SOCKET = 103
"""Bytes of a socket's path, on every system."""

_ARGUMENTS = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog", "lockfile"),
}
"""Of endpoints, in the order of those that are not named: see L{twisted.internet.endpoints}."""

ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_HIDDEN = re.compile(
    rb"""%(?: 2[ef] | 5c | [01][0-9a-f] | 7f       # dot, slash, backslash, controls
            | c[01]%[89ab] | e0%[89] | f0%8 )     # ASCII in overlong UTF-8
    """,
    re.VERBOSE | re.IGNORECASE,
)

LIKE_IPV4 = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""Hosts (lower case, no final dot) that many resolvers take for IPv4 addresses: C{127.1}, C{0x7f.1}."""

_ENDPOINT_WANTED = "tcp:PORT:interface=127.0.0.1, tcp6:PORT:interface=\\:\\:1 or unix:PATH"


def check_url(where: str, key: str, url: str) -> str:
    """An absolute http or https URL, to be used as a prefix: without user, query or fragment."""

    def wrong(what: str, wanted: str = _URL_WANTED) -> ConfigurationError:
        return ConfigurationError(where, key, f"{without_user(url)!r} {what}", wanted)

    if "?" in url or "#" in url:
        raise wrong("has a query or a fragment", "a prefix that ends with the path")
    if not _URL_CHARACTERS.fullmatch(url):
        raise wrong(
            "has characters that a URL cannot hold", "others percent-encoded, a host's name in its xn-- form"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # which says more of what may be a password
        raise wrong("is no URL: its host or port is none") from None
    if parts.scheme not in ("http", "https"):
        raise wrong("is not http or https")
    if "@" in parts.netloc:
        raise wrong("holds a user or a password", "a URL without; callers send their own credentials")
    if not host or port == 0 or parts.netloc.endswith(":"):
        raise wrong("lacks a host or a port")
    if not _BRACKETS.fullmatch(parts.netloc):
        raise wrong("has brackets that do not hold its whole host")
    _check_host(where, key, host, "[" in parts.netloc, url)
    if _has_dots(parts.path) or hides(parts.path.encode("ascii")):
        raise wrong(
            "has '.', '..', or an encoded dot, slash, backslash or control character in its path",
            "the path spelled out",
        )
    return url


def without_user(url: str) -> str:
    """What may be a URL, to be shown: without what stands before the last C{@}."""
    return re.sub(r"(?s)^([a-z]*://)?.*@", r"\1...@", url)


def check_tcp_target(where: str, key: str, target: str) -> str:
    """C{HOST:PORT}, an IPv6 address in brackets."""
    host, colon, port = target.rpartition(":")
    if not colon or not _is_port(port, least=1):
        raise ConfigurationError(where, key, f"{target!r} has no port from 1 to 65535", "HOST:PORT")
    bracketed = host.startswith("[") and host.endswith("]")
    _check_host(where, key, host[1:-1] if bracketed else host, bracketed, target)
    return target


def check_allowed(where: str, key: str, url: str) -> str:
    """What peers may reach: a URL as L{check_url} has it, or C{tcp://HOST:PORT}."""
    if url.startswith("tcp://"):
        check_tcp_target(where, key, url.removeprefix("tcp://").removesuffix("/"))
        return url.removesuffix("/")
    return check_url(where, key, url)


def local_endpoint(where: str, key: str, text: str) -> str:
    """
    Where to listen, as people write it: C{PORT}, C{ADDRESS:PORT} with a loopback
    address, or an endpoint as L{check_endpoint} has it.

    @return: the endpoint.
    """
    wanted = "PORT, 127.0.0.1:PORT, [::1]:PORT or unix:PATH"
    host, colon, port = text.rpartition(":")
    if host.partition(":")[0] in _ARGUMENTS:
        return check_endpoint(where, key, text)
    if not _is_port(port):
        if not colon or re.fullmatch(r"[+-]?[0-9]\w*", port):
            raise ConfigurationError(where, key, f"{text!r} has no port from 1 to 65535", wanted)
        return check_endpoint(where, key, text)
    if host == "localhost" or not colon:
        host = "127.0.0.1"
    if not _is_loopback(host.strip("[]")):
        raise ConfigurationError(
            where,
            key,
            f"{text!r} is no loopback address, and callers are not asked who they are",
            wanted,
        )
    if ":" not in host:
        return f"tcp:{port}:interface={host}"
    escaped = host.strip("[]").replace(":", "\\:")
    return f"tcp6:{port}:interface={escaped}"


def check_transport(where: str, key: str, url: str) -> str:
    """The URL of a carrier, as far as its syntax goes."""
    if url and not re.fullmatch(r"[a-z][a-z0-9+.-]*:[\x21-\x7e]*", url):
        raise ConfigurationError(
            where, key, repr(url), "a URL, percent-encoded where need be, such as folder:/srv/exchange"
        )
    return url


def check_host_pattern(where: str, key: str, pattern: str) -> str:
    """A host's name or address, C{*.DOMAIN}, or C{*}."""
    if pattern != "*":
        name = pattern.removeprefix("*.")
        bracketed = name.startswith("[") and name.endswith("]")
        _check_host(where, key, name[1:-1] if bracketed else name, bracketed, pattern)
    return pattern


def check_endpoint(where: str, key: str, description: str, authenticated: bool = False) -> str:
    """
    A Twisted server endpoint that only this machine can reach.

    @param authenticated: callers are asked who they are, so others may reach it, too.
    """

    def wrong(what: str, wanted: str = _ENDPOINT_WANTED) -> ConfigurationError:
        return ConfigurationError(where, key, f"{description!r} {what}", wanted)

    named: dict[str, str] = {}
    kind, *arguments = _endpoint_arguments(description)
    if kind == (None, "ssl") and authenticated:
        return description
    if kind[1] not in _ARGUMENTS or kind[0] is not None:
        raise wrong("is of a kind that hoft cannot tell to be reached from this machine alone")
    order = iter(_ARGUMENTS[kind[1]])
    for name, value in arguments:
        name = name if name is not None else next(order, "")
        if name not in _ARGUMENTS[kind[1]]:
            raise wrong(f"has a part {value!r} that {kind[1]} does not know")
        if name in named:
            raise wrong(f"says its {name} twice")
        named[name] = value
    if not _is_number(named.get("backlog", "50")):
        raise wrong("has a backlog that is no number")
    if kind[1] == "unix":
        address = named.get("address", "")
        if not address or "\0" in address or len(address.encode()) > _LONGEST_SOCKET:
            raise wrong(f"names no path of at most {_LONGEST_SOCKET} bytes")
        if not re.fullmatch("[0-7]{3,4}", named.get("mode", "666")):
            raise wrong("has a mode that is none", "mode=660, as chmod has it")
        if named.get("lockfile", "1") not in ("0", "1"):
            raise wrong("has a lockfile that is neither 0 nor 1")
        return description
    if not _is_port(named.get("port", "")):
        raise wrong("has no port from 0 to 65535")
    interface = named.get("interface", "")
    if not authenticated and not _is_loopback(interface):
        raise wrong(
            f"listens on {interface or 'every interface'}, not a loopback address, "
            "and callers are not asked who they are ('hoft caller' makes it so)"
        )
    return description


def endpoint_in(folder: Path, description: str) -> str:
    """What L{check_endpoint} has passed: the relative path of a socket starts in C{folder}."""
    kind, *arguments = _endpoint_arguments(description)
    order = iter(_ARGUMENTS["unix"])
    named = {
        name if name is not None else next(order): value for name, value in arguments if kind[1] == "unix"
    }
    if not named or named["address"].startswith("/"):
        return description
    address = re.sub(r"([\\:=])", r"\\\1", str(folder / named.pop("address")))
    return ":".join(("unix", address, *(f"{name}={value}" for name, value in named.items())))


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) < 10


def _is_port(text: str, least: int = 0) -> bool:
    return text.isdecimal() and text.isascii() and len(text) < 6 and least <= int(text) < 65536


def _endpoint_arguments(description: str) -> list[tuple[str | None, str]]:
    """Name, if it has one, and value of each, as Twisted splits them; a backslash quotes : and =."""
    arguments: list[tuple[str | None, str]] = []
    name, part, characters = None, "", iter(description)
    for character in characters:
        if character == "\\":
            part += next(characters, "")
        elif character == ":":
            arguments.append((name, part))
            name, part = None, ""
        elif character == "=" and name is None:
            name, part = part, ""
        else:
            part += character
    return [*arguments, (name, part)]


def _is_loopback(interface: str) -> bool:
    try:
        return ip_address(interface).is_loopback
    except ValueError:
        # Names are resolved by Twisted only for IPv4, and may mean anything.
        return False


def _check_host(where: str, key: str, host: str, bracketed: bool, shown: str) -> None:
    if bracketed:
        try:
            good = ip_address(host).version == 6 and "%" not in host
        except ValueError:
            good = False
    else:
        good = _HOST.fullmatch(host) is not None and (
            not LIKE_IPV4.fullmatch(host.lower().removesuffix(".")) or _is_ipv4(host)
        )
    if not good:
        raise ConfigurationError(
            where,
            key,
            f"{host!r} in {shown!r} is no host",
            "a name, an IPv4 address, or an IPv6 address in brackets",
        )


def _is_ipv4(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def hides(path: bytes) -> bool:
    """Would a server that decodes once, twice or thrice see what the path does not show?"""
    for _ in range(3):
        if _HIDDEN.search(path):
            return True
        path = unquote_to_bytes(path)
    return ESCAPE.search(path) is not None


def _has_dots(path: str) -> bool:
    return any(segment.partition(";")[0] in (".", "..") for segment in path.split("/"))
