"""
Syntax of the addresses that a configuration names: endpoints, URLs, host patterns.

Each check returns the text as it was given, or raises a L{ConfigurationError}
that names C{where} and C{key}.  What the addresses mean is for others to say:
L{hoft.web.client.policy} normalises and matches them.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from hoft.errors import ConfigurationError

_HOST = re.compile(
    r"(?=.{1,253}\.?\Z)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.IGNORECASE
)
_URL_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/\[\]-]|%[0-9A-Fa-f]{2})*")
_URL_WANTED = "http://HOST[:PORT][/PATH] or https://..."
_ENDPOINT_WANTED = "tcp:PORT:interface=127.0.0.1, tcp6:PORT:interface=\\:\\:1 or unix:PATH"


def check_url(where: str, key: str, url: str) -> str:
    """An absolute http or https URL, to be used as a prefix: without user, query or fragment."""

    def wrong(what: str, wanted: str = _URL_WANTED) -> ConfigurationError:
        return ConfigurationError(where, key, f"{url!r} {what}", wanted)

    if "?" in url or "#" in url:
        raise wrong("has a query or a fragment", "a prefix that ends with the path")
    if not _URL_CHARACTERS.fullmatch(url):
        raise wrong(
            "has characters that a URL cannot hold", "others percent-encoded, a host's name in its xn-- form"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise wrong(f"is no URL ({error})") from None
    if parts.scheme not in ("http", "https"):
        raise wrong("is not http or https")
    if "@" in parts.netloc:
        raise wrong("holds a user or a password", "a URL without; callers send their own credentials")
    if not host or port == 0 or parts.netloc.endswith(":"):
        raise wrong("lacks a host or a port")
    _check_host(where, key, host, "[" in parts.netloc, url)
    if _hides_segments(parts.path):
        raise wrong(
            "has '.', '..', or an encoded dot, slash or backslash in its path", "the path spelled out"
        )
    return url


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
    host, colon, port = text.rpartition(":")
    if not _is_port(port) or host.partition(":")[0] in ("tcp", "tcp6", "unix"):
        return check_endpoint(where, key, text)
    if host == "localhost" or not colon:
        host = "127.0.0.1"
    if not _is_loopback(host.strip("[]")):
        raise ConfigurationError(
            where,
            key,
            f"{text!r} is no loopback address, and callers are not asked who they are",
            "PORT, 127.0.0.1:PORT, [::1]:PORT or unix:PATH",
        )
    if ":" not in host:
        return f"tcp:{port}:interface={host}"
    escaped = host.strip("[]").replace(":", "\\:")
    return f"tcp6:{port}:interface={escaped}"


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

    kind, *arguments = _endpoint_parts(description)
    if kind == "unix":
        if not arguments or not arguments[0]:
            raise wrong("names no path")
        return description
    if kind == "ssl" and authenticated:
        return description
    if kind not in ("tcp", "tcp6"):
        raise wrong("is of a kind that hoft cannot tell to be reached from this machine alone")
    named: dict[str, str] = {}
    order = iter(("port", "interface", "backlog"))
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if not separator:
            name, value = next(order, ""), argument
        if name not in ("port", "interface", "backlog"):
            raise wrong(f"has a part {argument!r} that {kind} does not know")
        named[name] = value
    if not _is_port(named.get("port", "")):
        raise wrong("has no port from 0 to 65535")
    if not named.get("backlog", "50").isdecimal():
        raise wrong("has a backlog that is no number")
    interface = named.get("interface", "")
    if not authenticated and not _is_loopback(interface):
        raise wrong(
            f"listens on {interface or 'every interface'}, not a loopback address, "
            "and callers are not asked who they are ('hoft caller' makes it so)"
        )
    return description


def _is_port(text: str, least: int = 0) -> bool:
    return text.isdecimal() and text.isascii() and len(text) < 6 and least <= int(text) < 65536


def _endpoint_parts(description: str) -> list[str]:
    """Split at colons that no backslash precedes, as Twisted does."""
    parts, part, characters = [], "", iter(description)
    for character in characters:
        if character == "\\":
            part += next(characters, "")
        elif character == ":":
            parts.append(part)
            part = ""
        else:
            part += character
    return [*parts, part]


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
        good = _HOST.fullmatch(host) is not None
    if not good:
        raise ConfigurationError(
            where,
            key,
            f"{host!r} in {shown!r} is no host",
            "a name, an IPv4 address, or an IPv6 address in brackets",
        )


def _hides_segments(path: str) -> bool:
    lowered = path.lower()
    return (
        any(segment in (".", "..") for segment in lowered.split("/"))
        or "%2e" in lowered
        or "%2f" in lowered
        or "%5c" in lowered
    )
