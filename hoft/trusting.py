"""
The commands by which people decide whom their node trusts, and by which keys:
C{hoft trust}, C{hoft untrust} and C{hoft key}.

As in L{hoft.commands}, each returns the process's exit code, or raises
L{LocalError} with the one line to show.
"""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from hoft import command_line, config, durable, editing, exposure
from hoft.changing import replace
from hoft.commands import done, own_card, read_node
from hoft.config import CONFIGURATION_FILE
from hoft.errors import IdentityError, LocalError, NodeNotRunning
from hoft.identity import IDENTITY_FILE, Card, Identity, key_id, load_psk, psk_path
from hoft.local_socket import ask
from hoft.toml_document import alone

FORGEABLE = "whoever can write to the folder can make up packets of a peer with the suite 'checksum'"


def trust(options: Namespace) -> int:
    """C{hoft trust}: add a peer, or say more of one."""
    current = read_node(options.folder)
    own = own_card(current)
    card = command_line.read_card(options.card)
    if card.uuid == own.uuid:
        raise IdentityError("this is the node's own card; wanted: that of the other node")
    known = next((peer for peer in current.peers if peer.card.uuid == card.uuid), None)
    name = options.name if options.name is not None else known.name if known else card.name
    news = editing.trust(
        options.folder / CONFIGURATION_FILE,
        name,
        card,
        new_key=options.new_key,
        suite=options.suite,
        psk_file=_psk_file(options, current),
    )
    fingerprints = [(name, card), (f"{own.name} (this node)", own)]
    said = f"{name} is trusted{'' if news else ' already'}; both sides should read the same of both:"
    after = []
    if known is not None and known.card.public_key != card.public_key:
        fingerprints = [(f"{name}, new key", card), (f"{name}, old key", known.card)]
        said = f"{name} is trusted by its new key, too; both sides should read the same of that:"
        after = [f"once {name} has retired the old one: hoft untrust {options.folder} {name} --old"]
    lines = [said, *(f"  {who:<20} {one.fingerprint}" for who, one in fingerprints), *after]
    if options.suite == "checksum":
        lines.append(f"take care: {FORGEABLE}")
    return done(current, *lines)


def _psk_file(options: Namespace, current: config.Config) -> str | None:
    """
    As the file is to name it.

    @raise IdentityError: it is none that a node could use.
    """
    if options.psk_file is None:
        return None
    path = Path(os.path.abspath(psk_path(options.psk_file)))
    load_psk(path)
    exposure.check_apart(current.transport, config.COMMAND_LINE, {"--psk-file": path})
    folder = Path(os.path.abspath(options.folder))
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def untrust(options: Namespace) -> int:
    """C{hoft untrust}: take a peer away, or its older key."""
    current = read_node(options.folder)
    file = options.folder / CONFIGURATION_FILE
    if options.old:
        editing.forget_older_key(file, options.name)
        return done(current, f"{options.name} is trusted by its newest key only")
    gone = editing.untrust(file, options.name)
    return done(
        current, f"{options.name} is not trusted any more", *(f"  went with it: {one}" for one in gone)
    )


def key(options: Namespace) -> int:
    """C{hoft key}: show the node's keys, make a new one, retire the old one."""
    current = read_node(options.folder)
    path = current.state / IDENTITY_FILE
    with alone(current.state):
        durable.clear(current.state)
        identity = Identity.load(path)
        if options.action == "rotate":
            return _rotate(options, current, identity)
        if options.action == "retire":
            return _retire(options, current, identity)
    for what, card in _cards(current, identity).items():
        print(f"{what:<4} key  id {key_id(card.public_key):04x}  fingerprint {card.fingerprint}")
    if identity.older_key is not None:
        print(*_progress(options.folder, current, identity), sep="\n")
    return 0


def _progress(folder: Path, current: config.Config, identity: Identity) -> list[str]:
    """How far a rotation has come, and what is next."""
    try:
        have, lack = _peers_with_the_new_key(current, identity)
    except NodeNotRunning:
        return ["which peers have the new key, only the running node can tell"]
    lines = [f"{name} has the new key" for name in have]
    lines += [f"{name} did not show yet to have the new key" for name in lack]
    if lack:
        return [*lines, f"next: there 'hoft trust' what 'hoft card {folder}' prints, with --new-key"]
    return [*lines, f"next: hoft key {folder} retire"]


def _cards(current: config.Config, identity: Identity) -> dict[str, Card]:
    """By what to call them, the newest first."""
    names = ("new", "old") if identity.older_key is not None else ("the",)
    keys = (Identity(identity.uuid, secret) for secret in identity.secret_keys)
    return {name: one.card(current.name) for name, one in zip(names, keys, strict=True)}


def _rotate(options: Namespace, current: config.Config, identity: Identity) -> int:
    made = identity.rotated(os.urandom)
    replace(current.state / IDENTITY_FILE, made.text, current.state)
    card = made.card(current.name)
    return done(
        current,
        str(card),
        f"fingerprint {card.fingerprint}",
        "this is the card of a new key; the old one stays good beside it until it is retired",
        "next: at each peer 'hoft trust' this card with --new-key, after reading each other the fingerprint;",
        f"'hoft key {options.folder}' shows which peers have it",
    )


def _retire(options: Namespace, current: config.Config, identity: Identity) -> int:
    left = identity.retired()
    if not options.anyway:
        try:
            _, lack = _peers_with_the_new_key(current, identity)
        except NodeNotRunning:
            raise LocalError(
                "which peers have the new key, only the running node can tell; 'hoft run' it, or --anyway"
            ) from None
        if lack:
            raise LocalError(
                f"{', '.join(lack)} did not show yet to have the new key, and would not hear this node any"
                " more; 'hoft trust' its new card there first, or --anyway"
            )
    replace(current.state / IDENTITY_FILE, left.text, current.state)
    return done(
        current,
        "the old key is gone; packets that are sealed for it are refused from now on",
        f"next: at each peer 'hoft untrust' {current.name} with --old; and mind the backups of the old key",
    )


def _peers_with_the_new_key(current: config.Config, identity: Identity) -> tuple[list[str], list[str]]:
    """
    Those of which the running node has heard that they have it, and the others.

    @raise LocalError: no node runs, or it does not answer.
    """
    wanted = f"{key_id(identity.public_key):04x}"
    status = ask(current.state, "status")["peers"]
    keyed = [peer.name for peer in current.peers if peer.suite != "checksum"]
    have = [name for name in keyed if status.get(name, {}).get("own_key") == wanted]
    return have, [name for name in keyed if name not in have]
