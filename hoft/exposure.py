"""
Whether what is a node's own lies apart from the folders by which it exchanges files: who carries these sees
all that is in them, and puts there whatever came from the other side.

All here blocks on the disk.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from hoft.config import COMMAND_LINE, Config
from hoft.errors import ConfigurationError
from hoft.transports.locations import FolderLocation

PATIENCE = 2.0
"""Seconds in which a folder has to answer: one that hangs is judged by its name, for nodes start on it."""

_SECRET_FILES = {"headers": "headers_file", "login": "form_file"}
"""By the kind of a credential, which key names its file; C{client_secret_file} for the others."""


def check(current: Config) -> None:
    """
    @raise ConfigurationError: the transport's URL is none; or the state, the file, or a secret that it names
        is not apart from what is exchanged.
    """
    where = COMMAND_LINE if current.path is None else str(current.path)
    check_apart(current.transport, where, dict(_own(current)))


def check_apart(transport: str, where: str, own: Mapping[str, Path]) -> None:
    """
    @param transport: may be empty: then there is nothing to tell.
    @param own: by the key or the option that names it.
    @raise ConfigurationError: see L{check}.
    """
    if not transport:
        return
    if not transport.startswith("folder:"):
        # Imported here: it brings Twisted, and commands start in half the time without.
        from hoft.transports.schemes import maker_for

        maker_for(transport)
        return
    location = FolderLocation.parse(transport)
    exchanged = {location.outbox: "outbox", location.inbox: "inbox"}
    if len(exchanged) == 1:
        exchanged[location.inbox] = "folder"
    for folder, purpose in exchanged.items():
        found = _exposed(own, folder)
        if found is not None:
            key, relation = found
            raise ConfigurationError(
                where,
                key,
                f"{own[key]} {relation} the {purpose} {folder}, which others see and write to",
                "a place beside the exchanged folders, neither in one of them nor around it",
            )


def _own(current: Config) -> Iterator[tuple[str, Path]]:
    yield "state" if current.path is not None else "--state", current.state
    if current.path is not None:
        yield "", current.path
    for peer in current.peers:
        if peer.psk_file is not None:
            yield f"peers.{peer.name}.psk_file", peer.psk_file
    for one in current.credentials:
        if one.secret_file is not None:
            key = _SECRET_FILES.get(one.kind, "client_secret_file")
            yield f"credentials.{one.name}.{key}", one.secret_file
        if one.refresh_token_file is not None:
            yield f"credentials.{one.name}.refresh_token_file", one.refresh_token_file
    for callback in current.callbacks:
        yield f"callbacks.{callback.name}.secret_file", callback.secret_file


def _exposed(own: Mapping[str, Path], folder: str) -> tuple[str, str] | None:
    """The first that is not apart from this folder, and how it lies to it."""
    for key, place in own.items():
        relation = _relation(Path(os.path.abspath(place)), Path(folder), operator.eq)
        if relation is not None:
            return key, relation
    # What the names do not tell is told by what is there, if it answers.
    found: SimpleQueue[tuple[str, str] | None] = SimpleQueue()

    def look() -> None:
        real = Path(os.path.realpath(folder))
        for key, place in own.items():
            relation = _relation(Path(os.path.realpath(place)), real, _same)
            if relation is not None:
                found.put((key, relation))
        found.put(None)

    Thread(target=look, daemon=True).start()
    try:
        return found.get(timeout=PATIENCE)
    except Empty:
        return None


def _relation(place: Path, folder: Path, same: Callable[[Path, Path], bool]) -> str | None:
    if same(place, folder):
        return "is"
    if any(same(parent, folder) for parent in place.parents):
        return "lies in"
    if any(same(place, parent) for parent in folder.parents):
        return "holds"
    return None


def _same(one: Path, other: Path) -> bool:
    """Also by another name, as of a folder that is mounted twice."""
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False
