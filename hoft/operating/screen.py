"""
A node's status as plain text for a terminal; pure.

What is shown is what L{hoft.node.Node.status} gives.  Keys that are not known here
are shown by their names, so that nothing is hidden that a newer node says.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hoft.operating.wording import duration, printable, size

Paint = Callable[[str, str], str]
"""From a state and a text to that text in the state's colour."""

DETAILED = 4
"""With more peers than this, details are shown only of those that are not up."""

_FILE_NAME = re.compile(
    r"([0-9a-f]{8})[0-9a-f-]{28}--([0-9a-f]{8})[0-9a-f-]{28}--([0-9a-f]{16})-0*([0-9a-f]+)"
)

_COLUMNS: Sequence[tuple[str, Sequence[str], Callable[[Mapping[str, Any]], str]]] = (
    ("STATE", ("state",), lambda peer: str(peer["state"])),
    ("HEARD", ("heard",), lambda peer: _or_dash(peer["heard"], duration)),
    ("RTT", ("round_trip",), lambda peer: _or_dash(peer["round_trip"], duration)),
    (
        "OLDEST",
        ("oldest_unacknowledged",),
        lambda peer: _or_dash(peer["oldest_unacknowledged"], duration),
    ),
    (
        "WAITING",
        ("unacknowledged_records", "unacknowledged_bytes"),
        lambda peer: _counted(peer["unacknowledged_records"], peer["unacknowledged_bytes"]),
    ),
    (
        "IN TRANSIT",
        ("files_in_transit", "bytes_in_transit"),
        lambda peer: _counted(peer["files_in_transit"], peer["bytes_in_transit"]),
    ),
    (
        "RATE",
        ("bytes_per_second",),
        lambda peer: _or_dash(peer["bytes_per_second"], lambda v: f"{size(v)}/s"),
    ),
)
"""Heading, the keys it needs, and what stands below it; where there is no room the last ones are left out."""

_COUNTS = {
    "held_records": "records held back",
    "peer_full": "the peer has no room",
    "seconds_per_file": "a file",
    "packets_written": "files out",
    "lost_packets": "lost",
    "spurious_packets": "thought lost, but late",
    "cut_packets": "cut",
    "retransmitted_records": "records sent again",
    "packets_read": "files in",
    "packets_cut": "cut on their way",
    "frames_bad": "bad pieces",
    "duplicate_records": "records twice",
    "records_sent": "records out",
    "records_acknowledged": "acknowledged",
    "records_received": "records in",
    "files_in_transit_limit": "files in transit at most",
    "bytes_in_transit_limit": "in transit at most",
    "bytes_per_second_limit": "at most",
    "rollbacks": "restores noticed",
    "payloads_damaged": "payloads damaged in the journal",
}
_ELSEWHERE = {"peer", "timeout", "packet_size", "packet_size_reason", "write_error"}.union(
    *(keys for _, keys, _ in _COLUMNS)
)

_SHOWN_APART = {"peers", "carrier", "refused", "refused_last", "forwards"}

_BAD = {
    "stranger": "from a node that is not trusted here",
    "forged": "does not authenticate",
    "recipient": "for another node",
    "reflected": "our own, come back",
    "too-short": "cut before its first frame",
    "not-hoft": "no packet at all",
    "version": "of another version of the protocol",
    "suite": "not of the suite that was agreed",
    "key": "not by the peer's key, or not by the same shared secret",
    "unknown-key": "for a key that this node has not, or has retired",
    "geometry": "its lengths contradict each other",
    "malformed": "not what the protocol allows",
    "files_ignored": "no packet's name, or no regular file; left alone",
    "read_errors": "reading failed",
    "write_errors": "writing failed",
    "unknown_channel": "records for a program that does not run here",
}


def running(node: Mapping[str, Any], width: int, paint: Paint) -> list[str]:
    """The lines for a node that runs; L{hoft.operating.diagnosis.troubles} are not among them."""
    # Those in trouble first: there may be more than a screen has lines.
    peers = dict(sorted(node["peers"].items(), key=lambda item: bool(item[1]["state"] == "up")))
    carrier = "carrier up" if node.get("carrier_down") is None else paint("down", "carrier down")
    head = f"{node['name']}  up {duration(node['uptime'])}  hoft {node['version']}  process {node['process']}"
    calls = f"callers waiting {node['ingress']['waiting']}  calls running {node['egress']['running']}"
    disk = f"journal {size(node['journal_bytes'])}, {size(node['journal_free'])} free"
    lines = [f"{head}  {carrier}", f"{calls}  {disk}", "", *_table(peers, width, paint)]
    shown = {name: peer for name, peer in peers.items() if len(peers) <= DETAILED or peer["state"] != "up"}
    for name, peer in shown.items():
        lines += _wrapped(name, _details(peer), width)
    for part, counts in node.items():
        if isinstance(counts, Mapping) and part not in _SHOWN_APART:
            lines += _wrapped(part, _numbers(counts), width)
    for listen, counts in node.get("forwards", {}).items():
        lines += _wrapped(f"{listen} to {counts['to']} behind {counts['peer']}", _numbers(counts), width)
    bad = list(_bad_files(node))
    if bad:
        lines += ["", "BAD FILES"]
        for line in bad:
            lines += textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False)
    return lines


def stopped(name: str, journal: Mapping[str, Any]) -> list[str]:
    """The lines for a node that does not run: what waits in its journal."""
    peers: Mapping[str, Mapping[str, Any]] = journal["peers"]
    ago = duration(max(0.0, journal["written_ago"]))
    lines = [
        f"{name}  not running",
        f"journal {size(journal['bytes'])}, {size(journal['free'])} free, last written {ago} ago",
    ]
    rows = [("PEER", "WAITING", "RECEIVED, STILL HERE")]
    for peer, one in peers.items():
        rows.append((peer, _counted(one["records"], one["bytes"]), str(one["received"] or "-")))
    if peers:
        lines += ["", *_aligned(rows)]
    if any(one["records"] for one in peers.values()):
        lines.append(f"What waits has done so for {ago} or longer; it is sent when the node runs.")
    return lines


def _table(peers: Mapping[str, Mapping[str, Any]], width: int, paint: Paint) -> list[str]:
    if not peers:
        return ["no peers"]
    columns = [
        (heading, cell)
        for heading, keys, cell in _COLUMNS
        if all(key in peer for peer in peers.values() for key in keys)
    ]
    while True:
        rows = [("PEER", *(heading for heading, _ in columns))]
        rows += [(name, *(cell(peer) for _, cell in columns)) for name, peer in peers.items()]
        heading, *lines = _aligned(rows)
        if len(columns) == 1 or max(map(len, (heading, *lines))) <= width:
            return [heading, *map(paint, (peer["state"] for peer in peers.values()), lines)]
        columns.pop()


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _details(peer: Mapping[str, Any]) -> Iterator[str]:
    """What is not in the table, and is not zero."""
    if peer.get("packet_size"):
        reason = peer.get("packet_size_reason")
        yield f"files of {size(peer['packet_size'])}" + (f" ({printable(str(reason))})" if reason else "")
    known = [(key, words) for key, words in _COUNTS.items() if key in peer]
    others = [(key, _words(key)) for key in peer if key not in _ELSEWHERE and key not in _COUNTS]
    for key, words in known + others:
        value = peer[key]
        if isinstance(value, Mapping):
            parts = ", ".join(f"{count} {name}" for name, count in value.items() if count)
            if parts:
                yield f"{words}: {parts}"
        elif value is True:
            yield words
        elif isinstance(value, str):
            yield f"{words}: {printable(value)}"
        elif value:
            yield f"{_shown(key, value)} {words}"


def _bad_files(node: Mapping[str, Any]) -> Iterator[str]:
    last: Mapping[str, Mapping[str, Any]] = node.get("refused_last", {})
    for reason, count in node["refused"].items():
        example = last.get(reason)
        told = ""
        if example is not None:
            told = f"; last {duration(example['ago'])} ago: {_shortened(example['example'])}"
        yield f"  {count} {reason} ({_BAD.get(reason, reason)}){told}"
    counts: Mapping[str, Any] = {**node["carrier"], "unknown_channel": node.get("unknown_channel", 0)}
    for key, value in counts.items():
        if key in _BAD and value:
            example = counts.get(f"{key}_last")
            yield f"  {value} {key} ({_BAD[key]})" + (f"; last: {_shortened(example)}" if example else "")


def _shortened(example: Any) -> str:
    """Names of packets take more than a line, and the most of it tells nothing."""
    return printable(_FILE_NAME.sub(r"\1..--\2..--\3-\4", str(example)))


def _wrapped(name: str, parts: Iterable[str], width: int) -> list[str]:
    text = "; ".join(parts)
    return textwrap.wrap(f"{name}: {text}", width, subsequent_indent="    ") if text else []


def _numbers(counts: Mapping[str, Any]) -> Iterator[str]:
    """Those that are not zero, in words."""
    for name, value in counts.items():
        if value and not isinstance(value, str):
            yield f"{_shown(name, value)} {_words(name)}"


def _or_dash(value: Any, words: Callable[[Any], str]) -> str:
    return "-" if value is None else words(value)


def _counted(count: int, payload: int) -> str:
    return f"{count} ({size(payload)})" if count or payload else "-"


def _words(key: str) -> str:
    """A key as words, without the unit that is shown with its value."""
    return key.replace("bytes_", "").replace("_", " ")


def _shown(key: str, value: Any) -> str:
    """By what its key says it is."""
    if "bytes_per_second" in key:
        return f"{size(value)}/s"
    if "bytes" in key:
        return size(value)
    if "seconds" in key:
        return duration(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
