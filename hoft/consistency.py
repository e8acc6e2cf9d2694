"""
Whether what a configuration says in one place goes with what it says in another: what would
have no effect, or undo what stands elsewhere, is a mistake and not silently left out.

What stands there for something that may yet come, or that a command takes away again, is none: a
size of the cache without a route that has one, a C{shared} cache without callers, credentials that
nothing needs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from hoft.errors import ConfigurationError

if TYPE_CHECKING:
    from hoft.config import Allow, Config, Peer

T = TypeVar("T")

_PORTS = {"http": 80, "https": 443}


class Consistency:
    """The checks of one file."""

    def __init__(self, where: str, values: Mapping[str, Any], config: Config) -> None:
        """@param values: what the file says, as TOML has it: C{config} has defaults, too."""
        self._where = where
        self._values = values
        self._config = config

    def check(self) -> None:
        """@raise ConfigurationError: the first contradiction."""
        self._allowed()
        self._kept()
        self._listening()
        self._forwards()
        self._callers()
        self._callbacks()

    def _wrong(self, key: str, given: str, wanted: str) -> NoReturn:
        raise ConfigurationError(self._where, key, given, wanted)

    def _once(
        self, key: str, entries: Iterable[T], what: Callable[[T], Hashable], given: str, wanted: str
    ) -> None:
        """No two of them may agree in this; C{None} agrees with nothing."""
        seen: dict[Hashable, int] = {}
        for number, entry in enumerate(entries, 1):
            mark = what(entry)
            if mark is None:
                continue
            if mark in seen:
                self._wrong(f"{key}[{number}]", given.format(f"{key}[{seen[mark]}]"), wanted)
            seen[mark] = number

    def _private(self, key: str, private: bool, url: str, what: str) -> None:
        """It says something of names alone."""
        host = urlsplit(url).hostname or ""
        if private and (host == "localhost" or _is_address(host)):
            self._wrong(
                key,
                f"true beside {host}",
                f"no private: what is {what} by its address is reached, wherever that is",
            )

    # --- what peers may reach

    def _allowed(self) -> None:
        allowed, raw = self._config.allowed, self._values.get("allow", ())
        for number, (entry, values) in enumerate(zip(allowed, raw, strict=True), 1):
            if entry.url.startswith("tcp://"):
                for option in ("websocket", "credentials", "retry"):
                    if values.get(option):
                        self._wrong(
                            f"allow[{number}].{option}",
                            f"given beside {entry.url}, which is no HTTP",
                            f"no {option}, or a url that begins with http:// or https://",
                        )
            self._private(f"allow[{number}].private", entry.private, entry.url, "allowed")
        self._once("allow", allowed, lambda entry: entry, "is the same as {}", "each entry once")
        for option in ("credentials", "retry"):

            def said(entry: Allow, option: str = option) -> Hashable:
                if getattr(entry, option) is None:
                    return None
                return _place(entry.url), entry.peer

            self._once(
                "allow", allowed, said, f"says another {option} than {{}} for the same URL", "one of the two"
            )

    # --- what is kept

    def _kept(self) -> None:
        config, values = self._config, self._values
        if config.result_ttl == 0:
            why = "given beside result_ttl = 0, by which no result is kept"
            if "results" in values:
                self._wrong("results", why, "a result_ttl above 0, or no results")
            for name, caller in values.get("callers", {}).items():
                if "results" in caller:
                    self._wrong(f"callers.{name}.results", why, "a result_ttl above 0, or no results")
            for callback in config.callbacks:
                self._wrong(
                    f"callbacks.{callback.name}",
                    f"{why}, and callbacks are sent from those that are",
                    "a result_ttl above 0, or 'hoft callback DIR remove NAME'",
                )
        for route in config.routes:
            if route.cache is not None and config.cache == 0:
                self._wrong(
                    f"routes.{route.name}.cache",
                    "given beside cache = 0, by which nothing is stored",
                    "a larger cache, or no such table",
                )
        for caller in config.callers:
            for size in ("results", "cache"):
                own, all = getattr(caller, size), getattr(config, size)
                if size in values["callers"][caller.name] and own > all:
                    self._wrong(
                        f"callers.{caller.name}.{size}",
                        f"{own} bytes, and there are {all} for all callers together",
                        f"no more than {size} of the node, or a larger one there",
                    )

    # --- where calls come in

    def _listening(self) -> None:
        config = self._config
        if not config.listen:
            given = "given beside listen = [], by which nobody can call"
            for key in ("routes", "forward", "default_peer", "callers", "callbacks"):
                if self._values.get(key):
                    self._wrong(key, given, f"somewhere to listen at, or no {key}")
            if config.metrics:
                self._wrong("metrics", given, "somewhere to listen at, or metrics = false")
        if config.metrics and config.callers and not any(caller.operator for caller in config.callers):
            self._wrong(
                "metrics",
                "true, and no caller may see them",
                "one that may ('hoft caller DIR add NAME --operator', or operator = true for one of"
                " [callers.NAME]), or metrics = false",
            )
        self._once("listen", config.listen, _endpoint, "is the same place as {}", "each place once")
        places = {_endpoint(one): number for number, one in enumerate(config.listen, 1)}
        for number, forward in enumerate(config.tcp, 1):
            taken = places.get(_endpoint(forward.listen))
            if _endpoint(forward.listen) is not None and taken is not None:
                self._wrong(
                    f"tcp[{number}].listen", f"is the same place as listen[{taken}]", "a place of its own"
                )
        self._once(
            "tcp",
            config.tcp,
            lambda one: _endpoint(one.listen),
            "listens where {} does",
            "a place of its own",
        )

    def _forwards(self) -> None:
        before: list[str] = []
        for number, forward in enumerate(self._config.forwards, 1):
            match = forward.match.lower()
            for other, pattern in enumerate(before, 1):
                if _covers(pattern, match):
                    self._wrong(
                        f"forward[{number}].match",
                        f"{forward.match!r} comes behind {pattern!r} of forward[{other}], which decides",
                        "the narrower one first, or only one of them",
                    )
            before.append(match)
        if "*" in before and self._config.default_peer is not None:
            self._wrong(
                "default_peer",
                f"given beside forward[{before.index('*') + 1}], whose '*' decides for every host",
                "one of the two",
            )

    # --- who calls, and is called back

    def _callers(self) -> None:
        owners: dict[str, str] = {}
        for caller in self._config.callers:
            for token in caller.tokens:
                if owners.setdefault(token, caller.name) != caller.name:
                    self._wrong(
                        f"callers.{caller.name}.token",
                        f"is that of {owners[token]}, too, so nobody can tell the two from each other",
                        "a token of its own, as 'hoft caller' makes",
                    )

    def _callbacks(self) -> None:
        known: list[tuple[str, Hashable, Sequence[str]]] = []
        for callback in self._config.callbacks:
            place = _place(callback.url)
            for name, other, callers in known:
                both = not callers or not callback.callers or set(callers) & set(callback.callers)
                if place == other and both:
                    self._wrong(
                        f"callbacks.{callback.name}.url",
                        f"is that of {name}, for the same callers, so it cannot be told who signs",
                        "one receiver for it, with several keys in its secret file",
                    )
            self._private(f"callbacks.{callback.name}.private", callback.private, callback.url, "registered")
            known.append((callback.name, place, callback.callers))


def check_distinct(where: str, key: str, peers: Sequence[Peer]) -> None:
    """@raise ConfigurationError: two of them have one name, or are one node."""
    names: set[str] = set()
    owners: dict[Any, str] = {}
    for peer in peers:
        if peer.name in names:
            raise ConfigurationError(
                where, key, f"two peers called {peer.name}", "a name of its own for each"
            )
        if peer.card.uuid in owners:
            raise ConfigurationError(
                where, key, f"{owners[peer.card.uuid]} and {peer.name} are the same node", "each node once"
            )
        names.add(peer.name)
        owners[peer.card.uuid] = peer.name


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _place(url: str) -> Hashable:
    """What two spellings of one URL have in common."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").removesuffix("."), port, parts.path.strip("/")


def _endpoint(description: str) -> Hashable:
    """What two spellings of one place to listen at have in common; C{None} for any free port."""
    kind, _, rest = description.replace("\\:", "\0").partition(":")
    if kind == "unix":
        return kind, rest.partition(":")[0]
    named: dict[str, str] = {}
    order = iter(("port", "interface", "backlog"))
    for argument in rest.split(":"):
        name, equals, value = argument.partition("=")
        if not equals:
            name, value = next(order, ""), argument
        named[name] = value
    port = named.get("port", "")
    return None if port.strip("0") == "" else (int(port), named.get("interface", ""))


def _covers(pattern: str, other: str) -> bool:
    """Every host that C{other} fits, C{pattern} fits, too."""
    if pattern in ("*", other):
        return True
    return pattern.startswith("*.") and other.removeprefix("*").endswith(pattern[1:])
