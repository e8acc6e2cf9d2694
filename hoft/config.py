"""
What a node is told: C{hoft.toml} as frozen values.

Each mistake is a L{ConfigurationError}: one line that names the file, the
key, what was given and what is wanted.  Nothing here looks at the network or
at the carrier.
"""

from __future__ import annotations

import os
import re
import tomllib
from codecs import BOM_UTF8
from pathlib import Path

from attrs import field, frozen

from hoft import reading
from hoft.addresses import (
    check_allowed,
    check_endpoint,
    check_host_pattern,
    check_tcp_target,
    check_transport,
    check_url,
    endpoint_in,
)
from hoft.consistency import Consistency, check_distinct
from hoft.defaults import DEFAULT_LISTEN, SUITES
from hoft.errors import ConfigurationError, IdentityError
from hoft.identity import Card, psk_path
from hoft.tables import Table

CONFIGURATION_FILE = "hoft.toml"
"""What the file is called within a node's folder."""

LONGEST_FILE = 16 << 20
"""Bytes."""

COMMAND_LINE = "command line"
"""What L{ConfigurationError.where} says of options."""

TOKEN_HASH = "sha256:"
"""What stands before the hash of a caller's token."""

LOGGED = ("problems", "all", "none")
"""Calls that the log can tell of: L{hoft.web.history.Logged}."""

RETRIES = ("idempotent", "never", "always")
"""When a call is made again whose outcome a crash has left unknown: L{hoft.web.http.heads.Retry}."""

CREDENTIAL_KINDS = ("headers", "client_credentials", "refresh_token", "login")


@frozen
class Traffic:
    """How much may be under way to a peer."""

    bytes_per_second: int = 0
    """0 is no limit."""
    files_in_transit: int = 1000
    bytes_in_transit: int = 0
    """0: as much as the carrier needs."""
    largest_file: int = 500_000_000
    padding: int = 0
    """Bytes after the end of each file that do not matter."""


@frozen
class Peer:
    """Another node, known by its card."""

    name: str
    """What we call it; the name in its card does not matter."""
    card: Card
    """Of its newest key."""
    older_card: Card | None = None
    """Of the key before that, by which it may still seal."""
    suite: str = SUITES[0]
    psk_file: Path | None = None
    """Where the secret is that it shares with us; see L{hoft.identity.load_psk}."""
    traffic: Traffic = Traffic()


@frozen
class Allowance:
    """How much may be asked for; C{None} is any amount."""

    in_flight: int | None = None
    per_second: float | None = None
    per_day: int | None = None
    bytes_per_day: int | None = None
    """Of the bodies of requests and responses together."""


@frozen
class Caller:
    """Ingress: who may call, if anybody is named at all."""

    name: str
    tokens: tuple[str, ...] = field(repr=False)
    """L{TOKEN_HASH} and the SHA-256 of each in hexadecimal: two while a caller changes its token."""
    allowance: Allowance = Allowance()
    operator: bool = False
    """Whether it may also see the node's status and metrics."""
    results: int = 1 << 30
    """The most bytes of results that are kept for it."""
    cache: int | None = None
    """The most bytes of responses that are stored for it; C{None} is any, while others want no room."""


@frozen
class Caching:
    """Ingress: what is kept of the responses to GET by one route (L{hoft.web.ingress.caching.policy})."""

    ttl: float | None = None
    """Seconds for which a response is fresh whose service does not say; C{None}: it is not."""
    override: bool = False
    """C{ttl} counts whatever the service says of freshness."""
    shared: bool = False
    """What one caller has got another one may get."""
    stale_if_error: float = 0.0
    """Seconds for which a response that is not fresh any more is better than none."""


@frozen
class Route:
    """Ingress: C{/svc/<name>/...} leads to C{url/...} behind C{peer}."""

    name: str
    peer: str
    url: str
    allowance: Allowance = Allowance()
    retry: str = RETRIES[0]
    """One of L{RETRIES}, for calls by this route."""
    websocket: bool = False
    """Whether WebSocket connections may be made through it."""
    cache: Caching | None = None


@frozen
class Allow:
    """Egress: C{peer}, or every peer if C{None}, may reach what is under C{url}."""

    url: str
    peer: str | None = None
    private: bool = False
    """Whether the name in C{url} may lead to private addresses."""
    credentials: str | None = None
    """Of which L{Credential} these requests get what shows who calls."""
    retry: str | None = None
    """One of L{RETRIES}, whatever their peer has said of these requests; C{None} is what it said."""
    websocket: bool = False
    """Whether it may be reached by WebSocket, too."""


@frozen
class Credential:
    """Egress: what shows services who calls; the secrets are in files of their own."""

    name: str
    kind: str
    """One of L{CREDENTIAL_KINDS}."""
    url: str = ""
    """Of the token endpoint, or of the login form."""
    client_id: str = ""
    scope: str | None = None
    post: bool = False
    """The client's secret goes to the token endpoint in the form, not in Authorization."""
    secret_file: Path | None = None
    """With the client's secret, the header fields, or the form."""
    refresh_token_file: Path | None = None


@frozen
class Callback:
    """Ingress: a receiver that callers may have responses sent to."""

    name: str
    url: str
    secret_file: Path
    """With the keys that sign what is sent there."""
    callers: tuple[str, ...] = ()
    """Who may name it; everybody, if nobody is named."""
    private: bool = False
    """Whether the name in C{url} may lead to private addresses."""


@frozen
class Forward:
    """Ingress: calls without a route whose host is C{match} (or C{*.suffix}, or C{*}) go to C{peer}."""

    match: str
    peer: str


@frozen
class TcpForward:
    """TCP connections that are made to C{listen} go on to C{to}, C{HOST:PORT}, behind C{peer}."""

    listen: str
    peer: str
    to: str


@frozen
class Config:
    """All that a node is told; times in seconds, sizes in bytes."""

    name: str
    state: Path
    """Absolute: where key, journal and lock are."""
    transport: str = ""
    """URL of the carrier; empty until somebody has said it."""
    path: Path | None = None
    """The file all this is from."""
    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    """Twisted server endpoint descriptions; without callers, loopback or a UNIX socket each."""
    peers: tuple[Peer, ...] = ()
    routes: tuple[Route, ...] = ()
    allowed: tuple[Allow, ...] = ()
    credentials: tuple[Credential, ...] = ()
    callers: tuple[Caller, ...] = ()
    """If there are any, nobody else may call."""
    callbacks: tuple[Callback, ...] = ()
    forwards: tuple[Forward, ...] = ()
    """In the order of the file; the first that fits decides."""
    tcp: tuple[TcpForward, ...] = ()
    default_peer: str | None = None
    deadline: float = 60.0
    """How long a caller waits for the whole exchange."""
    async_deadline: float = 86400.0
    """How long a call may take that nobody has to wait for."""
    result_ttl: float = 86400.0
    """For how long results are kept for those who ask for them later; 0: they are not."""
    expired_ttl: float = 604800.0
    """For how long it is known afterwards that there were some, and an Idempotency-Key counts."""
    results: int = 8 << 30
    """The most bytes of them."""
    cache: int = 1 << 30
    """The most bytes of responses that are kept for routes with a cache."""
    max_request_body: int = 4 << 30
    max_response_header: int = 64 << 10
    """Of a service's response: status line and fields together."""
    spool: int = 16 << 30
    """How much the journal may hold of what is under way."""
    quarantine: int = 16 << 20
    """How much is kept of files that were refused; 0 is nothing."""
    log_calls: str = LOGGED[0]
    """One of L{LOGGED}: of which calls the log says when they end."""
    metrics: bool = False
    """Whether C{GET /_hoft/metrics} shows some."""
    heartbeat: float = 30.0
    """Silence after which a link is probed; 0 is never."""
    compress: bool = True
    """Whether bodies cross compressed where that pays and the suite allows it."""


def read(path: Path) -> Config:
    """
    Read a C{hoft.toml}.  May block on the disk.

    @raise ConfigurationError: the first mistake in it.
    """
    try:
        data = reading.read(path, LONGEST_FILE)
    except OSError as error:
        raise ConfigurationError(
            str(path), "", f"cannot be read ({error.strerror})", "a configuration, as 'hoft init' makes it"
        ) from None
    if data.startswith(BOM_UTF8):
        raise ConfigurationError(str(path), "", "begins with a byte order mark (BOM)", "UTF-8 without one")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "", f"byte {error.start} is not UTF-8", "TOML in UTF-8") from None
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """
    Understand the text of a C{hoft.toml}.

    @param path: where it is from, for messages; what is relative in it starts there.
    @raise ConfigurationError: the first mistake in it.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        given = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "too deeply nested, or too long"
        raise ConfigurationError(str(path), "", given, "TOML, https://toml.io") from None
    top, folder = Table(str(path), "", values), path.absolute().parent
    traffic = _traffic(top, Traffic())
    peers = top.named("peers", lambda table: _peer(table, folder, traffic))
    check_distinct(str(path), "peers", peers)
    names = [peer.name for peer in peers]
    callers = top.named("callers", _caller)
    credentials = top.named("credentials", lambda table: _credential(table, folder))
    kept = [credential.name for credential in credentials]
    default = Config("", path)
    config = Config(
        path=path.absolute(),
        name=top.name("name"),
        state=Path(os.path.realpath(top.path("state", path.parent, "."))),
        transport=check_transport(top.where, "transport", top.text("transport", "")),
        listen=tuple(
            endpoint_in(folder, check_endpoint(top.where, "listen", value, authenticated=bool(callers)))
            for value in top.texts("listen", default.listen)
        ),
        peers=peers,
        routes=top.named(
            "routes",
            lambda table: Route(
                table.own_name,
                table.reference("peer", names),
                check_url(*table.located("url")),
                _allowance(table),
                table.choice("retry", RETRIES),
                table.truth("websocket"),
                table.table("cache", _caching),
            ),
        ),
        allowed=top.array(
            "allow",
            lambda table: Allow(
                check_allowed(*table.located("url")),
                table.optional_reference("peer", names),
                table.truth("private"),
                table.optional_reference("credentials", kept, "credentials"),
                table.choice("retry", RETRIES) if table.has("retry") else None,
                table.truth("websocket"),
            ),
        ),
        credentials=credentials,
        callers=callers,
        callbacks=top.named(
            "callbacks",
            lambda table: Callback(
                table.own_name,
                check_url(*table.located("url")),
                table.path("secret_file", folder),
                table.references("callers", [caller.name for caller in callers], "callers"),
                table.truth("private"),
            ),
        ),
        forwards=top.array(
            "forward",
            lambda table: Forward(
                check_host_pattern(*table.located("match")), table.reference("peer", names)
            ),
        ),
        tcp=top.array(
            "tcp",
            lambda table: TcpForward(
                endpoint_in(folder, check_endpoint(*table.located("listen"))),
                table.reference("peer", names),
                check_tcp_target(*table.located("to")),
            ),
        ),
        default_peer=top.optional_reference("default_peer", names),
        deadline=top.seconds("deadline", default.deadline, least=0.1),
        async_deadline=top.seconds("async_deadline", default.async_deadline, least=0.1),
        result_ttl=top.seconds("result_ttl", default.result_ttl),
        expired_ttl=top.seconds("expired_ttl", default.expired_ttl),
        results=top.size("results", default.results),
        cache=top.size("cache", default.cache),
        max_request_body=top.size("max_request_body", default.max_request_body),
        max_response_header=top.size("max_response_header", default.max_response_header, 1 << 10, 240 << 10),
        spool=top.size("spool", default.spool),
        quarantine=top.size("quarantine", default.quarantine),
        log_calls=top.choice("log_calls", LOGGED),
        metrics=top.truth("metrics"),
        heartbeat=top.seconds("heartbeat", default.heartbeat, least=0.1, zero=True),
        compress=top.truth("compress", default.compress),
    )
    top.finish()
    Consistency(top.where, values, config).check()
    return config


def check_runnable(config: Config) -> None:
    """
    @raise ConfigurationError: what may be missing while a configuration grows
        and must be there for a node to run.
    """
    if not config.transport:
        where, key = (COMMAND_LINE, "--folder") if config.path is None else (str(config.path), "transport")
        wanted = (
            "--folder PATH, --inbox PATH with --outbox PATH, --transport URL, or --config FILE"
            if config.path is None
            else 'where the files are exchanged, such as transport = "folder:/srv/exchange"'
        )
        raise ConfigurationError(where, key, "not given", wanted)


def _traffic(table: Table, default: Traffic) -> Traffic:
    """The keys of a peer; what is not said is as for the node."""
    return Traffic(
        bytes_per_second=table.size("bytes_per_second", default.bytes_per_second),
        files_in_transit=table.count("files_in_transit") or default.files_in_transit,
        bytes_in_transit=table.size("bytes_in_transit", default.bytes_in_transit),
        largest_file=table.size("largest_file", default.largest_file, 128 << 10, 500_000_000),
        padding=table.size("padding", default.padding, most=64 << 10),
    )


def _peer(table: Table, folder: Path, traffic: Traffic) -> Peer:
    card = _card(table, "card")
    older = _card(table, "older_card") if table.has("older_card") else None
    if older is not None and (older.uuid != card.uuid or older.public_key == card.public_key):
        given = "of another node" if older.uuid != card.uuid else "of the same key as 'card'"
        raise ConfigurationError(*table.located("older_card")[:2], given, "the peer's card of before")
    suite = table.choice("suite", SUITES)
    psk_file = None
    if table.has("psk_file"):
        where, key, text = table.located("psk_file")
        if suite == "checksum":
            raise ConfigurationError(where, key, "given beside suite 'checksum'", "a suite that uses secrets")
        try:
            psk_file = folder / psk_path(text)
        except IdentityError as error:
            raise ConfigurationError(where, key, str(error), "a path") from None
    return Peer(table.own_name, card, older, suite, psk_file, _traffic(table, traffic))


def _caller(table: Table) -> Caller:
    tokens = table.texts("token", ())
    if not tokens or not all(re.fullmatch(TOKEN_HASH + "[0-9a-f]{64}", token) for token in tokens):
        given = "is missing" if not tokens else "is no hash of a token"
        wanted = f"what 'hoft caller' writes, {TOKEN_HASH} and 64 hexadecimal digits"
        raise ConfigurationError(table.where, f"{table.prefix}.token", given, wanted)
    may = _allowance(table), table.truth("operator"), table.size("results", 1 << 30)
    cache = table.size("cache", -1)
    return Caller(table.own_name, tokens, *may, None if cache < 0 else cache)


def _allowance(table: Table) -> Allowance:
    return Allowance(
        table.count("in_flight"),
        table.rate("per_second"),
        table.count("per_day"),
        table.size("bytes_per_day", 0) or None,
    )


def _caching(table: Table) -> Caching:
    ttl, override = table.seconds("ttl", -1.0), table.truth("override")
    if override and ttl < 0:
        raise ConfigurationError(table.where, f"{table.prefix}.override", "true without ttl", "ttl as well")
    return Caching(
        None if ttl < 0 else ttl, override, table.truth("shared"), table.seconds("stale_if_error", 0.0)
    )


def _credential(table: Table, folder: Path) -> Credential:
    name, kind = table.own_name, table.choice("kind", CREDENTIAL_KINDS)
    if kind == "headers":
        return Credential(name, kind, secret_file=table.path("headers_file", folder))
    if kind == "login":
        url = check_url(*table.located("login_url"))
        return Credential(name, kind, url, secret_file=table.path("form_file", folder))
    return Credential(
        name,
        kind,
        check_url(*table.located("token_url")),
        table.text("client_id"),
        table.text("scope", "") or None,
        table.truth("post"),
        table.path("client_secret_file", folder),
        table.path("refresh_token_file", folder) if kind == "refresh_token" else None,
    )


def _card(table: Table, key: str) -> Card:
    where, dotted, text = table.located(key)
    try:
        return Card.parse(text)
    except IdentityError as error:
        raise ConfigurationError(where, dotted, str(error), "what 'hoft card' prints at the peer") from None
