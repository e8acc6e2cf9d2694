"""
What C{hoft doctor} looks at on this machine: the configuration, the key, the state folder.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

from hoft.config import Allow, Config, check_runnable
from hoft.errors import ConfigurationError, IdentityError, JournalError, LocalError
from hoft.identity import IDENTITY_FILE, Identity
from hoft.operating.diagnosis import LOW
from hoft.operating.finding import Finding, fail, ok, warn
from hoft.operating.wording import size
from hoft.protocols.inspection import holdings
from hoft.protocols.statefolder import footprint, refuse_network_file_system
from hoft.suites import suites_of
from hoft.web.client.policy import Grant, Rule


def state(folder: Path) -> Iterator[Finding]:
    """Whose state it is, where it lies, and how much room it has.  Blocks."""
    try:
        status = folder.stat()
    except OSError as error:
        yield fail(f"state {folder}: {error.strerror}", "give the folder that 'hoft init' made")
        return
    if status.st_uid != os.geteuid():
        try:
            owner = pwd.getpwuid(status.st_uid).pw_name
        except KeyError:
            owner = str(status.st_uid)
        yield warn(
            f"the state belongs to {owner}, and this is another user, whose rights are not the node's",
            f"run this as {owner}",
        )
    if status.st_mode & 0o077:
        yield warn(
            f"state {folder} is open to others", f"'chmod 700 {folder}'; the node's start does it, too"
        )
    try:
        refuse_network_file_system(folder)
    except JournalError as error:
        yield fail(f"state {folder}", str(error))
    disk = footprint(folder)
    room = f"{size(disk.free)} are free for the journal, which takes {size(disk.size)}"
    yield ok(room) if disk.free >= LOW else fail(room, "make room on that disk")


def journal(folder: Path) -> Iterator[Finding]:
    """Whether the journal can be read; for a node that does not run.  Blocks."""
    try:
        holdings(folder)
    except JournalError as error:
        yield fail(
            str(error),
            "bring the state folder back from a backup, and 'hoft restored'; or begin with an empty journal,"
            " as 'How to find out what is stuck' has it",
        )


def keys(config: Config) -> Iterator[Finding]:
    """Whether the key and what was agreed on with the peers can be used.  Blocks."""
    try:
        identity = Identity.load(config.state / IDENTITY_FILE)
        suites_of(config.peers, identity)
    except IdentityError as error:
        yield fail("key", str(error))
    else:
        yield ok(f"key of {identity.card(config.name).fingerprint}")


def configuration(config: Config) -> Iterator[Finding]:
    """What can be told from C{hoft.toml} alone."""
    try:
        check_runnable(config)
    except ConfigurationError as error:
        yield fail("configuration", str(error))
    if not config.peers:
        yield fail("no peer is trusted", "'hoft trust DIR CARD' with the card of the other node")
    elif len(config.peers) > 1 and not (
        config.routes or config.forwards or config.default_peer or config.allowed
    ):
        yield warn(
            "no call leads anywhere: there is no route, and several peers but no default",
            "'hoft route', or default_peer in hoft.toml",
        )
    for one in config.allowed:
        if one.peer is not None and Allow(one.url, None, one.private) in config.allowed:
            yield warn(
                f"allow {one.url} --peer {one.peer} adds nothing: every peer may reach it",
                "take one of the two entries back with 'hoft disallow'",
            )


def allowed(entry: Allow) -> Iterator[Finding]:
    """Whether anybody could ever use this.  Blocks while the host's name is resolved."""
    try:
        rule = Rule.parse(entry.url, entry.peer, entry.private)
    except LocalError as error:
        yield fail(f"allow {entry.url}", str(error))
        return
    try:
        found = socket.getaddrinfo(rule.host, rule.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        yield warn(
            f"allow {entry.url}: {rule.host} has no address ({getattr(error, 'strerror', None) or error})",
            "mend the name, or the name server of this machine",
        )
        return
    addresses = sorted({str(one[4][0]).partition("%")[0] for one in found})

    def permitted(private: bool) -> bool:
        grant = Grant(rule.scheme, rule.host, rule.port, private)
        return any(map(grant.permits, addresses))

    if permitted(rule.private):
        yield ok(f"allow {entry.url}, at {', '.join(addresses)}")
        return
    yield warn(
        f"allow {entry.url} lets nobody through: {rule.host} leads to {', '.join(addresses)} only",
        "'hoft allow --private', if peers are to reach addresses within this network"
        if permitted(private=True)
        else "allow the address itself in place of the name, if peers are to reach it",
    )


def listening(config: Config) -> Iterator[Finding]:
    """Whether the ports are free; for a node that does not run."""
    for description in config.listen:
        kind, *rest = description.split(":")
        if kind != "tcp" or not rest[0].isdecimal():
            continue
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", int(rest[0])))
            except OSError as error:
                yield fail(f"listen {description}: {error.strerror}", "another port, or stop who has it")
