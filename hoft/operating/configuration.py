"""
C{hoft list}: what a node was told, by its configuration.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from attrs import asdict

from hoft import config
from hoft.commands import own_card, read_node
from hoft.defaults import SUITES
from hoft.identity import Card


def list_all(options: Namespace) -> int:
    """Peers, routes, callers, what is allowed and forwarded."""
    current = read_node(options.folder)
    own = own_card(current)
    if options.json:
        print(json.dumps(_as_json(current, own), indent=2))
        return 0
    print(f"{own.name}  {own.uuid}  {own.fingerprint}")
    print(f"transport  {current.transport or '(not given)'}")
    for endpoint in current.listen:
        print(f"listens    {endpoint}")
    _section("peers", [row for peer in current.peers for row in _peer_rows(peer)])
    _section(
        "routes",
        [
            (
                f"/svc/{one.name}/",
                one.peer,
                one.url,
                "(also WebSocket)" if one.websocket else "",
                "(cache)" if one.cache is not None else "",
                "" if one.retry == config.RETRIES[0] else f"(retry: {one.retry})",
                _limits(one.allowance),
            )
            for one in current.routes
        ],
    )
    if current.callers:
        _section(
            "callers",
            [
                (one.name, "(operator)" if one.operator else "", _limits(one.allowance))
                for one in current.callers
            ],
        )
    if current.callbacks:
        _section(
            "callbacks",
            [
                (
                    one.name,
                    one.url,
                    ", ".join(one.callers) or "(every caller)",
                    "(also private addresses)" if one.private else "",
                )
                for one in current.callbacks
            ],
        )
    _section(
        "allowed",
        [(one.peer or "(every peer)", one.url, _also(one)) for one in current.allowed],
    )
    if current.tcp:
        _section("forwarded", [(one.listen, one.peer, one.to) for one in current.tcp])
    return 0


def _section(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    print(f"{title}{'' if rows else '  (none)'}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _peer_rows(peer: config.Peer) -> list[tuple[str, ...]]:
    how = [] if peer.suite == SUITES[0] else [peer.suite]
    how += [] if peer.psk_file is None else ["psk"]
    rows: list[tuple[str, ...]] = [
        (peer.name, str(peer.card.uuid), peer.card.fingerprint, f"({', '.join(how)})" if how else "")
    ]
    if peer.older_card is not None:
        rows.append(("", "by its older key, too:", peer.older_card.fingerprint, ""))
    return rows


def _given(allowance: config.Allowance) -> dict[str, float]:
    return {key: value for key, value in asdict(allowance).items() if value is not None}


def _limits(allowance: config.Allowance) -> str:
    given = ", ".join(f"{key} {value:g}" for key, value in _given(allowance).items())
    return f"({given})" if given else ""


def _also(one: config.Allow) -> str:
    also = ["private addresses"] if one.private else []
    also += ["WebSocket"] if one.websocket else []
    said = [f"also {', '.join(also)}"] if also else []
    said += [f"retry: {one.retry}"] if one.retry is not None else []
    return f"({'; '.join(said)})" if said else ""


def _as_json(current: config.Config, own: Card) -> dict[str, Any]:
    return {
        "name": own.name,
        "uuid": str(own.uuid),
        "fingerprint": own.fingerprint,
        "card": str(own),
        "transport": current.transport,
        "listen": list(current.listen),
        "default_peer": current.default_peer,
        "peers": [
            {
                "name": peer.name,
                "uuid": str(peer.card.uuid),
                "fingerprint": peer.card.fingerprint,
                "card": str(peer.card),
                "older_fingerprint": peer.older_card and peer.older_card.fingerprint,
                "suite": peer.suite,
                "psk": peer.psk_file is not None,
            }
            for peer in current.peers
        ],
        "routes": [
            {
                "name": one.name,
                "peer": one.peer,
                "url": one.url,
                "websocket": one.websocket,
                "retry": one.retry,
                "cache": None if one.cache is None else asdict(one.cache),
                "limits": _given(one.allowance),
            }
            for one in current.routes
        ],
        "callers": [
            {
                "name": one.name,
                "tokens": len(one.tokens),
                "operator": one.operator,
                "limits": _given(one.allowance),
            }
            for one in current.callers
        ],
        "callbacks": [
            {"name": one.name, "url": one.url, "callers": list(one.callers), "private": one.private}
            for one in current.callbacks
        ],
        "allowed": [
            {
                "url": one.url,
                "peer": one.peer,
                "private": one.private,
                "websocket": one.websocket,
                "retry": one.retry,
            }
            for one in current.allowed
        ],
        "forwards": [{"match": one.match, "peer": one.peer} for one in current.forwards],
        "tcp": [{"listen": one.listen, "peer": one.peer, "to": one.to} for one in current.tcp],
    }
