"""
What is not as it should be with a node, and what to do next; pure.

It is told from what L{hoft.node.Node.status} gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from hoft.operating.wording import counted, duration, printable, size

SILENT = 600.0
"""A peer that is down and was heard more lately than so many seconds ago is not down for its silence."""

LOW = 32 << 20
"""Bytes of free disk below which a node is about to refuse what needs room."""

LATELY = 120.0
"""Seconds after which a refused file is no news."""

_REFUSED = {
    "key": (
        "come in its name, but not by the key or the shared secret that is known here",
        "compare 'hoft key' there with 'hoft list' here: if it has a new key, 'hoft trust DIR CARD"
        " --new-key'; if not, somebody makes them up",
    ),
    "unknown-key": (
        "are for a key that this node does not have any more",
        "give it the card of this node: 'hoft card DIR' here, 'hoft trust DIR CARD --new-key' there",
    ),
    "suite": (
        "are sealed by another suite than was agreed",
        "'hoft trust DIR CARD --suite NAME' with the same NAME on both sides",
    ),
    "version": (
        "are of another version of the protocol",
        "run the same version of hoft on both sides",
    ),
}
"""By reason: what such files are, and what to do."""

DOCTOR = "'hoft doctor DIR' says what the folders lack; once that is mended it goes on by itself"
"""What to do about folders that cannot be used, for who has not asked the doctor yet."""

_REFUSED_FIRST = "see to the files that are refused"

_STOPPED = "stop one of the two for good, then restart this node: it goes on with the other one"


@frozen
class Trouble:
    """One thing that is wrong."""

    what: str
    """And why, as far as it can be told from here."""
    then: str
    """What to do about it."""

    def __str__(self) -> str:
        return f"{self.what}: {self.then}"


def troubles(node: Mapping[str, Any]) -> list[Trouble]:
    """All there is; empty if all is well."""
    return [
        *_of_node(node),
        *(one for name, peer in node["peers"].items() for one in _of_peer(node, name, peer)),
    ]


def _of_node(node: Mapping[str, Any]) -> Iterator[Trouble]:
    if node.get("carrier_down") is not None:
        yield Trouble(
            f"the carrier is down: {printable(str(node['carrier_down']))}",
            DOCTOR,
        )
    if node.get("journal_free", LOW) < LOW:
        yield Trouble(
            f"the journal's disk is full: {size(node['journal_free'])} left",
            "make room on the disk of the state folder; until then calls get a 507",
        )
    dead = node.get("callbacks", {}).get("dead")
    if dead:
        yield Trouble(
            f"{counted(dead, 'callback')} could not be delivered",
            "'hoft callbacks DIR' says why, and sends them again",
        )


def _of_peer(node: Mapping[str, Any], name: str, peer: Mapping[str, Any]) -> Iterator[Trouble]:
    state, refused = peer["state"], list(_refused(node, name, peer))
    yield from refused
    if state == "stopped":
        yield Trouble(f"{name} is stopped: a copy of one of the two nodes runs beside it", _STOPPED)
    elif state == "down" and peer.get("write_error") is not None:
        if node.get("carrier_down") is None:
            why = printable(str(peer["write_error"]))
            yield Trouble(f"{name} is down: no files can be written for it: {why}", DOCTOR)
    elif state == "late" or (state == "down" and (peer["heard"] or 0) >= SILENT):
        yield _lateness(name, peer, bool(refused))
    elif state == "unknown":
        yield Trouble(
            f"{name} is unknown: nothing was heard of it since this node's start",
            _REFUSED_FIRST
            if refused
            else "see whether its node runs, each of the two trusts the other's card ('hoft list'), and files"
            " are carried both ways",
        )
    elif state not in ("up", "down"):
        yield Trouble(f"{name} is {state}", "see the log")
    if peer.get("peer_full"):
        yield Trouble(
            f"{name} has no room: what is for it waits here",
            "make room on the disk of its state folder, or raise 'spool' there",
        )


def _lateness(name: str, peer: Mapping[str, Any], refused: bool) -> Trouble:
    """Which of the two ways is cut can be told from when it was heard."""
    heard, oldest = peer["heard"], peer.get("oldest_unacknowledged")
    said = f"it was last heard {duration(heard)} ago" if heard is not None else "it was not heard"
    records = counted(peer["unacknowledged_records"], "record")
    waits = ""
    if peer["unacknowledged_records"]:
        waits = f"; {records} not acknowledged" + (f", the oldest for {duration(oldest)}" if oldest else "")
    what = f"{name} is {peer['state']}: {said}{waits}"
    if refused:
        return Trouble(what, _REFUSED_FIRST)
    if heard is not None and oldest is not None and heard < oldest / 2:
        return Trouble(
            f"{name} is {peer['state']}: it is heard ({duration(heard)} ago), but nothing reaches it:"
            f" {records} not acknowledged, the oldest for {duration(oldest)}",
            "see to what carries files from here to there; 'hoft status' there says when it heard this node",
        )
    return Trouble(what, "see whether its node runs, and then to what carries files from there to here")


def _refused(node: Mapping[str, Any], name: str, peer: Mapping[str, Any]) -> Iterator[Trouble]:
    """
    Files in its name that this node does not take, and that will not stop by themselves.

    If it was heard since, they were damaged on their way: no key is wrong.
    """
    for reason, last in node.get("refused_last", {}).items():
        if (
            reason in _REFUSED
            and last["ago"] < min(LATELY, math.inf if peer["heard"] is None else peer["heard"])
            and str(last["example"]).startswith(str(peer.get("peer")))
        ):
            what, then = _REFUSED[reason]
            count = counted(node["refused"].get(reason, 1), "file")
            ago = duration(last["ago"])
            yield Trouble(f"{name}: {count} refused, the last {ago} ago: they {what}", then)
