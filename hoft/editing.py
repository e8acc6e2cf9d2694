"""
Changes to C{hoft.toml} that keep its comments and its order.

Each function reads the file, changes it, makes sure that what comes out is a
configuration without mistakes, and only then puts it in the place of the old
one, at once or not at all; a node that runs has taken it up when they return, and
what it refuses is not kept (L{hoft.changing.replace}).  They block on the disk and
the node, and wait for one another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hoft import config
from hoft.changing import nothing, write
from hoft.errors import ConfigurationError
from hoft.identity import Card, check_name
from hoft.toml_document import (
    Document,
    append,
    change,
    named,
    put_named,
    remove_from_array,
    remove_named,
)


def trust(
    path: Path,
    name: str,
    card: Card,
    *,
    new_key: bool = False,
    suite: str | None = None,
    psk_file: str | None = None,
) -> bool:
    """
    Add a peer, or what is new of one.

    @param new_key: the card may be of a further key of a peer, which is put beside
        the present one.
    @param suite: what to seal with; C{None} to leave that as it is.
    @param psk_file: where the shared secret is; C{None} to leave that as it is.
    @return: whether anything changed: the same card under the same name is no news.
    @raise LocalError: the name or the node is already there, with another card or name.
    """
    check_name(name)

    def edit(document: Document, current: config.Config) -> None:
        given = {"suite": suite, "psk_file": psk_file}
        values = {key: value for key, value in given.items() if value is not None}
        for peer in current.peers:
            if peer.card.uuid == card.uuid:
                _check_known(path, peer, name, card, new_key)
                if peer.card.public_key != card.public_key:
                    values |= {"card": str(card), "older_card": str(peer.card)}
                document["peers"][name].update(values)
                return
            if peer.name == name:
                raise ConfigurationError(
                    str(path), f"peers.{name}", "another node has this name", "another with --name"
                )
        put_named(document, "peers", name, card=str(card), **values)

    return change(path, edit)


def _check_known(path: Path, peer: config.Peer, name: str, card: Card, new_key: bool) -> None:
    """
    @raise ConfigurationError: C{peer}, whose node the card is of, cannot be given that name or key.
    """
    key = f"peers.{peer.name}"
    if peer.name != name:
        raise ConfigurationError(
            str(path), key, "this node is there already", f"'hoft untrust' of {peer.name} first"
        )
    if peer.card.public_key == card.public_key:
        return
    if peer.older_card is not None:
        again = peer.older_card.public_key == card.public_key
        raise ConfigurationError(
            str(path),
            key,
            "the card is of this node's older key" if again else "two keys of this node are there already",
            f"'hoft untrust DIR {name} --old' first",
        )
    if not new_key:
        raise ConfigurationError(
            str(path),
            key,
            f"this node is there with another key, of fingerprint {peer.card.fingerprint}",
            f"--new-key, if its people tell you that {card.fingerprint} is the fingerprint of a new one",
        )


def forget_older_key(path: Path, name: str) -> None:
    """
    Accept a peer's newest key only.

    @raise ConfigurationError: no peer has this name, or it has one key.
    """

    def edit(document: Document, current: config.Config) -> None:
        table = named(document, path, "peers", name, [peer.name for peer in current.peers])
        if "older_card" not in table:
            raise ConfigurationError(
                str(path), f"peers.{name}", "has no older key", "a peer that has, or no --old"
            )
        del table["older_card"]

    change(path, edit)


def untrust(path: Path, name: str) -> list[str]:
    """
    Take a peer away, and with it all that names it.

    @return: what went with it, one line each.
    @raise ConfigurationError: no peer has this name.
    """
    gone: list[str] = []

    def edit(document: Document, current: config.Config) -> None:
        remove_named(document, path, "peers", name, [peer.name for peer in current.peers])
        for route in current.routes:
            if route.peer == name:
                remove_named(document, path, "routes", route.name, [route.name])
                gone.append(f"route {route.name}")
        for key, what in (("allow", "url"), ("forward", "match"), ("tcp", "listen")):
            taken = remove_from_array(document, key, lambda one: one.get("peer") == name)
            gone.extend(f"{key} {one[what]}" for one in taken)
        if current.default_peer == name:
            del document["default_peer"]
            gone.append("default_peer")

    change(path, edit)
    return gone


def route(path: Path, name: str, peer: str, url: str, websocket: bool = False) -> bool:
    """
    Add a route, or lead the one of that name elsewhere.

    @param websocket: WebSocket connections may be made through it; if not, and they
        might before, they may not any more.
    @return: whether anything changed.
    @raise LocalError: no such peer, or the URL is none.
    """
    check_name(name)

    def edit(document: Document, current: config.Config) -> None:
        existing = document.get("routes", {}).get(name)
        if existing is None:
            given = {"websocket": True} if websocket else {}
            put_named(document, "routes", name, peer=peer, url=url, **given)
            return
        for key, value in (("peer", peer), ("url", url), ("websocket", websocket)):
            if existing.get(key, False) != value:
                existing[key] = value

    return change(path, edit)


def unroute(path: Path, name: str) -> None:
    """
    Take a route away.

    @raise ConfigurationError: there is none of that name.
    """
    change(
        path,
        lambda document, current: remove_named(
            document, path, "routes", name, [route.name for route in current.routes]
        ),
    )


def allow(
    path: Path, url: str, peer: str | None = None, private: bool = False, websocket: bool = False
) -> bool:
    """
    Let peers, or that one, reach what is under C{url}.

    @param private: also where its name leads to a private address.
    @param websocket: also by WebSocket.
    @return: whether anything changed.
    @raise ConfigurationError: no such peer, or the URL is none.
    """

    def edit(document: Document, current: config.Config) -> None:
        if config.Allow(url, peer, private, websocket=websocket) in current.allowed:
            return
        values: dict[str, Any] = {"url": url}
        if peer is not None:
            values["peer"] = peer
        if private:
            values["private"] = True
        if websocket:
            values["websocket"] = True
        append(document, "allow", values)

    return change(path, edit)


def forward(path: Path, listen: str, peer: str, to: str) -> bool:
    """
    Have TCP connections to C{listen} go on behind a peer, or lead those to there elsewhere.

    @return: whether anything changed.
    @raise ConfigurationError: no such peer, or C{listen} or C{to} cannot be used.
    """

    def edit(document: Document, current: config.Config) -> None:
        values = {"listen": listen, "peer": peer, "to": to}
        for one in document.get("tcp", ()):
            if one.get("listen") == listen:
                one.update({key: value for key, value in values.items() if one.get(key) != value})
                return
        append(document, "tcp", values)

    return change(path, edit)


def unforward(path: Path, listen: str) -> None:
    """
    Take back what L{forward} gave.

    @raise ConfigurationError: nothing listens there.
    """

    def edit(document: Document, current: config.Config) -> None:
        if not remove_from_array(document, "tcp", lambda one: one["listen"] == listen):
            there = ", ".join(one.listen for one in current.tcp)
            raise ConfigurationError(
                str(path), "tcp", f"nothing listens at {listen}", f"one of {there or '(none)'}"
            )

    change(path, edit)


def disallow(
    path: Path, url: str, peer: str | None = None, private: bool = False, websocket: bool = False
) -> None:
    """
    Take back what L{allow} with the same arguments gave.

    @raise ConfigurationError: there is nothing of the kind.
    """
    unwanted = config.Allow(url, peer, private, websocket=websocket)

    def is_unwanted(one: Mapping[str, Any]) -> bool:
        private, websocket = one.get("private", False), one.get("websocket", False)
        return config.Allow(one["url"], one.get("peer"), private, websocket=websocket) == unwanted

    def edit(document: Document, current: config.Config) -> None:
        if not remove_from_array(document, "allow", is_unwanted):
            there = ", ".join(map(_as_options, current.allowed))
            raise ConfigurationError(
                str(path), "allow", f"{_as_options(unwanted)} is not allowed", f"one of {there or '(none)'}"
            )

    change(path, edit)


def _as_options(entry: config.Allow) -> str:
    """As one gives it to C{hoft allow}."""
    peer = "" if entry.peer is None else f" --peer {entry.peer}"
    flags = (" --private" if entry.private else "") + (" --websocket" if entry.websocket else "")
    return f"{entry.url}{peer}{flags}"


def caller(
    path: Path,
    name: str,
    token: str,
    limits: Mapping[str, Any],
    renew: bool = False,
    then: Callable[[], None] = nothing,
) -> None:
    """
    Let somebody call: from then on nobody may who is not named.

    @param token: its hash.
    @param limits: keys of its table, as L{config.Caller} and L{config.Allowance} have them.
    @param renew: it is a further token of a known caller; the one of before is
        accepted beside it, and any older one no more.
    @param then: called once it is in force; if it raises, nothing is changed.
    @raise ConfigurationError: the name is taken, or, to renew, not known.
    """
    check_name(name)

    def edit(document: Document, current: config.Config) -> None:
        names = [one.name for one in current.callers]
        if renew:
            table = named(document, path, "callers", name, names)
            known = table["token"]
            table["token"] = [token, known if isinstance(known, str) else known[0]]
        elif name in names:
            raise ConfigurationError(
                str(path), f"callers.{name}", "is there already", "another name, or 'renew' for a new token"
            )
        else:
            put_named(document, "callers", name, token=token, **limits)

    change(path, edit, then)


def remove_caller(path: Path, name: str) -> bool:
    """
    Take a caller away.

    @return: whether any are left: if not, nobody is asked any more.
    @raise ConfigurationError: there is none of that name, or the node could not do without.
    """
    left = False

    def edit(document: Document, current: config.Config) -> None:
        nonlocal left
        remove_named(document, path, "callers", name, [one.name for one in current.callers])
        left = len(current.callers) > 1

    change(path, edit)
    return left


def callback(path: Path, name: str, values: Mapping[str, Any], then: Callable[[], None] = nothing) -> None:
    """
    Register a receiver of callbacks.

    @param values: keys of its table, as L{config.Callback} has them.
    @param then: called once it is in force; if it raises, nothing is changed.
    @raise ConfigurationError: the name is taken, or a value cannot be used.
    """
    check_name(name)

    def edit(document: Document, current: config.Config) -> None:
        if name in [one.name for one in current.callbacks]:
            raise ConfigurationError(
                str(path),
                f"callbacks.{name}",
                "is there already",
                "another name, or 'renew' for a new secret",
            )
        put_named(document, "callbacks", name, **values)

    change(path, edit, then)


def remove_callback(path: Path, name: str) -> None:
    """
    Take a receiver of callbacks away.

    @raise ConfigurationError: there is none of that name.
    """
    change(
        path,
        lambda document, current: remove_named(
            document, path, "callbacks", name, [one.name for one in current.callbacks]
        ),
    )


def create(path: Path, text: str) -> None:
    """
    Write a new file with that text, readable by its owner alone.

    @raise ConfigurationError: there is one already, or it cannot be written, or has mistakes.
    """
    config.parse(text, path)
    if path.exists():
        raise ConfigurationError(str(path), "", "exists already", "a folder without a node")
    write(path, text, 0o600)
