"""
A node that is told by options only, and what options say that the file says otherwise.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from attrs import evolve

from hoft import reading
from hoft.addresses import check_allowed, check_transport, check_url, local_endpoint
from hoft.config import COMMAND_LINE, Allow, Config, Peer, Route
from hoft.consistency import check_distinct
from hoft.errors import ConfigurationError, IdentityError
from hoft.identity import NAME, NAME_WANTED, Card
from hoft.tables import check_reference

PATIENCE = 30.0
"""Seconds in which a card must have come through a pipe."""


def from_command_line(
    *,
    folder: str | None = None,
    inbox: str | None = None,
    outbox: str | None = None,
    transport: str | None = None,
    name: str | None = None,
    state: str | None = None,
    listen: Sequence[str] = (),
    peers: Iterable[str] = (),
    allow: Iterable[str] = (),
    routes: Iterable[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """
    A node told by options only, as C{twistd hoft} takes them.

    @param peers: cards, or files with one each.
    @param routes: C{NAME=PEER=URL}.
    @raise ConfigurationError: the first mistake, with the option as its key.
    """
    url = transport_url(folder=folder, inbox=inbox, outbox=outbox, transport=transport)
    if name is None:
        name = default_name(socket.gethostname().partition(".")[0])
    elif not NAME.fullmatch(name):
        raise ConfigurationError(COMMAND_LINE, "--name", repr(name), NAME_WANTED)
    config = Config(
        name=name,
        state=Path(state).absolute() if state else default_state(name, environment),
        transport=url or "",
        peers=_command_line_peers(peers),
        allowed=tuple(Allow(check_allowed(COMMAND_LINE, "--allow", url)) for url in allow),
    )
    names = [peer.name for peer in config.peers]
    if listen:
        checked = tuple(local_endpoint(COMMAND_LINE, "--listen", one) for one in listen)
        config = evolve(config, listen=checked)
    found: dict[str, Route] = {}
    for text in routes:
        route, _, rest = text.partition("=")
        peer, _, target = rest.partition("=")
        if not (route and peer and target):
            raise ConfigurationError(COMMAND_LINE, "--route", repr(text), "NAME=PEER=URL")
        if not NAME.fullmatch(route):
            raise ConfigurationError(COMMAND_LINE, "--route", repr(route), NAME_WANTED)
        if route in found:
            raise ConfigurationError(COMMAND_LINE, "--route", f"{route!r} twice", "one URL for each name")
        check_reference(COMMAND_LINE, "--route", peer, names)
        found[route] = Route(route, peer, check_url(COMMAND_LINE, "--route", target))
    return evolve(config, routes=tuple(found.values()))


def transport_url(
    *,
    folder: str | None = None,
    inbox: str | None = None,
    outbox: str | None = None,
    transport: str | None = None,
) -> str | None:
    """
    The one URL that C{--folder}, C{--inbox} with C{--outbox}, or C{--transport} stand for.

    Relative paths start at the working directory.

    @return: C{None} if none was given.
    @raise ConfigurationError: more than one was, or half a pair.
    """
    if (inbox is None) != (outbox is None):
        alone, missing = ("--inbox", "--outbox") if outbox is None else ("--outbox", "--inbox")
        raise ConfigurationError(COMMAND_LINE, alone, "given alone", f"{missing} PATH with it")
    ways = [("--folder", folder), ("--inbox", inbox), ("--transport", transport)]
    given = [option for option, value in ways if value is not None]
    if len(given) > 1:
        raise ConfigurationError(
            COMMAND_LINE,
            given[1],
            f"given beside {given[0]}",
            "one of --folder, --inbox with --outbox, --transport",
        )
    for option, value in [*ways, ("--outbox", outbox)]:
        if value == "":
            raise ConfigurationError(
                COMMAND_LINE, option, "''", "a URL" if option == "--transport" else "a path"
            )
    if folder is not None:
        return f"folder:{quote(os.path.abspath(folder), safe='/')}"
    if inbox is not None and outbox is not None:
        paths = (quote(os.path.abspath(path), safe="/") for path in (inbox, outbox))
        return "folder:?inbox={}&outbox={}".format(*paths)
    return None if transport is None else check_transport(COMMAND_LINE, "--transport", transport)


def default_name(proposal: str) -> str:
    """C{proposal} (a host's or a folder's name) if it can name a node, else C{"hoft"}."""
    return proposal if NAME.fullmatch(proposal) else "hoft"


def default_state(name: str, environment: Mapping[str, str]) -> Path:
    """Where a node without a C{hoft.toml} keeps its state, by the XDG Base Directory Specification."""
    base = environment.get("XDG_STATE_HOME", "")
    # The specification has relative paths ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    return root / "hoft" / name


def read_card(text: str) -> Card:
    """
    The card that C{text} is, or that is in the file which C{text} names.

    @raise IdentityError: neither.
    """
    if "hoft-card:" in text:
        return Card.parse(text)
    try:
        return Card.parse(reading.read(text, 1 << 20, PATIENCE).decode("utf-8", "replace"))
    except OSError as error:
        raise IdentityError(
            f"{text!r} is neither a card (hoft-card:...) nor a file with one ({error.strerror})"
        ) from None


def _command_line_peers(texts: Iterable[str]) -> tuple[Peer, ...]:
    peers: list[Peer] = []
    for text in texts:
        try:
            card = read_card(text)
        except IdentityError as error:
            raise ConfigurationError(COMMAND_LINE, "--peer", str(error), "a peer's card") from None
        peers.append(Peer(card.name, card))
    check_distinct(COMMAND_LINE, "--peer", peers)
    return tuple(peers)
