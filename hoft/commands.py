"""
What each command of C{hoft} does, given its parsed options.

Each returns the process's exit code, or raises L{LocalError} with the one line
to show.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hoft import command_line, config, editing, exposure
from hoft.addresses import check_allowed, check_tcp_target, check_url, local_endpoint
from hoft.config import CONFIGURATION_FILE
from hoft.defaults import DEFAULT_LISTEN
from hoft.errors import ConfigurationError, LocalError
from hoft.identity import IDENTITY_FILE, NAME, NAME_WANTED, Card, Identity
from hoft.running import running_process
from hoft.tables import check_reference
from hoft.tokens import hash_token, make_token

LIMITS = ("in_flight", "per_second", "per_day", "bytes_per_day")
"""What a caller or a route can be held to, by the names of keys in the file."""

_TEMPLATE = """\
# A hoft node.  'hoft trust', 'hoft route' and 'hoft allow' add to this file and
# keep what you write; after a change by hand, 'hoft reload' makes a running node
# take it up, or says what is wrong with it.

# What this node calls itself on its card.
name = {name}

# Where files are exchanged: one folder that both nodes see,
#     "folder:/srv/exchange"
# or two that something carries between,
#     "folder:?inbox=/srv/in&outbox=/srv/out"
{transport}

# Where programs on this machine make their calls.
listen = {listen}

# Calls that no route names go to this peer; not needed while there is only one.
# default_peer = "far"

# How long a caller waits for an answer, in seconds.
# deadline = 60

# The largest request taken, and how much may lie here on its way.
# max_request_body = "4 GiB"
# max_response_header = "64 KiB"
# spool = "16 GiB"

# After so many seconds of silence a peer is asked whether it is there; 0 is never.
# heartbeat = 30
"""


def init(options: Namespace) -> int:
    """C{hoft init}: make a node's folder."""
    folder: Path = options.folder
    name = folder.absolute().name if options.name is None else options.name
    if not NAME.fullmatch(name):
        key = "--name" if options.name is not None else "DIR is the node's name without --name"
        raise ConfigurationError(config.COMMAND_LINE, key, repr(name), NAME_WANTED)
    url = command_line.transport_url(
        folder=options.shared, inbox=options.inbox, outbox=options.outbox, transport=options.transport
    )
    listen = [
        local_endpoint(config.COMMAND_LINE, "--listen", one) for one in options.listen or [DEFAULT_LISTEN]
    ]
    for file in (CONFIGURATION_FILE, IDENTITY_FILE, "journal.sqlite"):
        if (folder / file).exists():
            raise ConfigurationError(str(folder), "", f"there is a node already ({file})", "another folder")
    identity = Identity.generate(os.urandom)
    if url:
        exposure.check_apart(url, config.COMMAND_LINE, {"DIR": folder})
        _check_transport(url, identity)
    _private_folder(folder)
    _make_journal(folder)
    identity.save(folder / IDENTITY_FILE)
    editing.create(
        folder / CONFIGURATION_FILE,
        _TEMPLATE.format(
            name=_quoted(name),
            transport=f"transport = {_quoted(url)}" if url else '# transport = "folder:/srv/exchange"',
            listen="[" + ", ".join(map(_quoted, listen)) + "]",
        ),
    )
    card = identity.card(name)
    print(card)
    print(f"fingerprint {card.fingerprint}")
    if not url:
        print(
            f"hoft: say in {folder / CONFIGURATION_FILE} where files are exchanged (transport)",
            file=sys.stderr,
        )
    return 0


def card(options: Namespace) -> int:
    """C{hoft card}: print the node's card."""
    print(own_card(read_node(options.folder)))
    return 0


def route(options: Namespace) -> int:
    """C{hoft route}: add or change a route."""
    current = read_node(options.folder)
    check_url(config.COMMAND_LINE, "--url", options.url)
    _check_peer(options.peer, current)
    path, websocket = options.folder / CONFIGURATION_FILE, options.websocket
    editing.route(path, options.name, options.peer, options.url, websocket)
    also = ", also by WebSocket" if websocket else ""
    return done(current, f"/svc/{options.name}/ leads to {options.url} behind {options.peer}{also}")


def unroute(options: Namespace) -> int:
    """C{hoft unroute}: take a route away."""
    current = read_node(options.folder)
    editing.unroute(options.folder / CONFIGURATION_FILE, options.name)
    return done(current, f"/svc/{options.name}/ leads nowhere now")


def allow(options: Namespace) -> int:
    """C{hoft allow}: let peers reach a service."""
    current = read_node(options.folder)
    url = check_allowed(config.COMMAND_LINE, "URL-PREFIX", options.url)
    if options.websocket and url.startswith("tcp://"):
        given = f"--websocket with {url}"
        raise ConfigurationError(
            config.COMMAND_LINE, "", given, "http:// or https://, whose calls it belongs to"
        )
    if options.peer is not None:
        _check_peer(options.peer, current)
    path, private, websocket = options.folder / CONFIGURATION_FILE, options.private, options.websocket
    editing.allow(path, url, options.peer, private, websocket)
    also = ", also at private addresses" if private else ""
    also += ", also by WebSocket" if websocket else ""
    return done(current, f"{options.peer or 'every peer'} may reach {url}{also}")


def disallow(options: Namespace) -> int:
    """C{hoft disallow}: take that back."""
    current = read_node(options.folder)
    path = options.folder / CONFIGURATION_FILE
    editing.disallow(path, options.url, options.peer, options.private, options.websocket)
    return done(current, f"{options.peer or 'every peer'} may no longer reach {options.url} by this entry")


def forward(options: Namespace) -> int:
    """C{hoft forward}: lead TCP connections to a target behind a peer."""
    current = read_node(options.folder)
    listen = local_endpoint(config.COMMAND_LINE, "LOCAL", options.local)
    to = check_tcp_target(config.COMMAND_LINE, "HOST:PORT", options.to)
    check_reference(config.COMMAND_LINE, "PEER", options.peer, [peer.name for peer in current.peers])
    editing.forward(options.folder / CONFIGURATION_FILE, listen, options.peer, to)
    return done(current, f"connections to {listen} lead to {to} behind {options.peer}")


def unforward(options: Namespace) -> int:
    """C{hoft unforward}: take that back."""
    current = read_node(options.folder)
    listen = local_endpoint(config.COMMAND_LINE, "LOCAL", options.local)
    editing.unforward(options.folder / CONFIGURATION_FILE, listen)
    return done(current, f"nothing listens at {listen} now; connections that were made go on")


def caller(options: Namespace) -> int:
    """C{hoft caller}: who may call."""
    current = read_node(options.folder)
    path, name = options.folder / CONFIGURATION_FILE, options.name
    if options.action == "remove":
        left = editing.remove_caller(path, name)
        said = f"{name} may not call any more"
        return done(current, said if left else f"{said}; no caller is left, so anybody may on this machine")
    limits = {key: getattr(options, key) for key in LIMITS if getattr(options, key) is not None}
    if options.operator:
        limits["operator"] = True
    if limits and options.action != "add":
        raise ConfigurationError(
            config.COMMAND_LINE,
            "",
            "options for 'add' are given",
            f"a change of [callers.{name}] in {path} instead",
        )
    token = make_token(os.urandom)
    hashed, renew = hash_token(token.encode()), options.action == "renew"
    editing.caller(path, name, hashed, limits, renew, showing(token))
    first = options.action == "add" and not current.callers
    print(
        f"this is the token of {name}: it is not kept here, and not shown again",
        *(["from now on every call must bring the token of a caller"] if first else []),
        *taken_up(current),
        sep="\n",
        file=sys.stderr,
    )
    return 0


# --- What they share -----------------------------------------------------------


def read_node(folder: Path) -> config.Config:
    """@raise ConfigurationError: the folder's configuration is not there, or has a mistake."""
    current = config.read(folder / CONFIGURATION_FILE)
    exposure.check(current)
    return current


def own_card(current: config.Config) -> Card:
    """
    Of the node's newest key.

    @raise IdentityError: its key cannot be read.
    """
    return Identity.load(current.state / IDENTITY_FILE).card(current.name)


def _check_peer(name: str, current: config.Config) -> None:
    check_reference(config.COMMAND_LINE, "--peer", name, [peer.name for peer in current.peers])


def done(current: config.Config, *lines: str) -> int:
    """Say what was changed, now that it is in force."""
    print(*lines, *taken_up(current), sep="\n")
    return 0


def taken_up(current: config.Config) -> list[str]:
    """What is said of the node that has taken up a change, if one runs."""
    return ["the running node takes it up"] if running_process(current.state) is not None else []


def showing(secret: str) -> Callable[[], None]:
    """What writes a secret to standard output, and raises L{LocalError} if it cannot be."""

    def show() -> None:
        try:
            print(secret, flush=True)
        except OSError as error:
            with suppress(OSError, ValueError):  # else it would be tried again at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise LocalError(
                f"nothing is changed, for standard output cannot be written ({error.strerror})"
            ) from None

    return show


def _private_folder(folder: Path) -> None:
    """
    Make it, or make sure that nobody else can look into it.

    @raise LocalError: it cannot be, or has files in it and is open to others.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            if any(folder.iterdir()):
                raise ConfigurationError(
                    str(folder),
                    "",
                    "is not empty, and others may look into it",
                    f"'chmod 700 {folder}' first",
                )
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            str(folder), "", f"cannot be made or used ({error.strerror})", "a folder of your own"
        ) from None


def _check_transport(url: str, identity: Identity) -> None:
    """@raise ConfigurationError: no node could be run with it."""
    # Imported here, as below.
    from twisted.internet.task import Clock

    from hoft.transports.schemes import maker_for

    maker_for(url).carrier(Clock(), url, identity.uuid, 0, time.monotonic)


def _make_journal(folder: Path) -> None:
    # Imported here: it brings Twisted, and the other commands start in half the time without.
    from hoft.protocols.database import Database
    from hoft.protocols.segments import INLINE, SEGMENT_SIZE

    # The tables of the upper layers are added by the node's first start; no disk is kept back before it.
    journal = Database(folder, (), os.urandom, reserve=0, segment_size=SEGMENT_SIZE, inline=INLINE)
    journal.open()
    journal.close()


def _quoted(text: str) -> str:
    # TOML's basic strings know every escape that JSON uses for ASCII.
    return json.dumps(text)
