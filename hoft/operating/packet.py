"""
C{hoft packet}: what a packet file is, frame by frame.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from uuid import UUID

from attrs import frozen

from hoft.errors import LocalError
from hoft.identity import IDENTITY_FILE, Identity
from hoft.interfaces import MAX_PIECE
from hoft.messages.pieces import MESSAGES
from hoft.operating.dissection import Dissection, Frame, as_json, dissect
from hoft.operating.places import Place
from hoft.operating.wording import counted, printable, size
from hoft.protocols.control import Control, Ranges
from hoft.protocols.log_writing import VOID
from hoft.protocols.packets import MAX_LENGTH, Header
from hoft.protocols.sealing import FRAME_OVERHEAD, AuthenticatedSuite, BoxSuite, ChecksumSuite, Suite
from hoft.streams.parts import STREAMS
from hoft.suites import suites_of
from hoft.transports import armour
from hoft.web.crossing.exchange import REQUESTS, RESPONSES

SOUND, UNSOUND, UNREADABLE = 0, 1, 2
"""Exit codes; the highest of all files counts."""

LINES = 20
"""The most lines that are shown of one frame's records, and of frames without any."""

_SUITES = {suite.number: suite.name for suite in (BoxSuite, AuthenticatedSuite, ChecksumSuite)}
_CHANNELS = {
    VOID: "void",
    MESSAGES: "messages",
    REQUESTS: "requests",
    RESPONSES: "responses",
    STREAMS: "streams",
}


@frozen
class _Keys:
    """What packets can be opened with, and what nodes are called."""

    given: bool
    suites: Mapping[bytes, Sequence[Suite]]
    """By the UUID of the peer."""
    names: Mapping[bytes, str]

    def candidates(self, header: Header) -> Sequence[Suite]:
        """See L{Candidates}."""
        checksum = ChecksumSuite()
        if header.suite == checksum.number:
            return (checksum,)  # needs no keys
        return self.suites.get(header.sender) or self.suites.get(header.recipient) or ()


def packet(options: Namespace) -> int:
    """C{hoft packet}."""
    keys = _Keys(False, {}, {}) if options.config is None else _keys(options.config)
    code = SOUND
    for path in options.file:
        try:
            pieces = _pieces(path)
            first = next(pieces, b"")
            armoured = bool(armour.begins(first))
            pieces = chain([first], pieces)
            found = dissect(_bare(pieces) if armoured else pieces, keys.candidates)
        except OSError as error:
            print(f"hoft: {path}: {error.strerror}", file=sys.stderr)
            code = UNREADABLE
            continue
        sound = found.sound or (not keys.given and found.header is not None and not found.cut)
        code = max(code, SOUND if sound else UNSOUND)
        if options.json:
            print(json.dumps({"file": str(path), "armoured": armoured, **as_json(found)}))
        else:
            text = "in text armour; within, " if armoured else ""
            print(f"{printable(str(path))}: {text}{_verdict(found, keys)}", *_lines(found, keys), sep="\n")
    return code


def _pieces(path: Path) -> Iterator[bytes]:
    """
    @raise OSError: it cannot be read, is no regular file, or too large for a packet.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "is not a regular file")
        if status.st_size > MAX_LENGTH:
            raise OSError(0, f"is no packet: {size(status.st_size)}, they have {size(MAX_LENGTH)} at most")
        while piece := file.read(MAX_PIECE):
            yield piece


def _bare(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What is within the text armour."""
    rest, first = b"", True
    for piece in pieces:
        rest += piece
        content, used = armour.take_off(rest, first, last=False)
        first, rest = first and not used, rest[used:]
        yield content
    yield armour.take_off(rest, first, last=True)[0]


def _keys(where: Path) -> _Keys:
    place = Place.of(where)
    if place.config is None:
        if place.mistake is not None:
            raise place.mistake
        raise LocalError(f"{where}: has no hoft.toml, so the keys of its peers are not known")
    identity = Identity.load(place.state / IDENTITY_FILE)
    peers = place.config.peers
    by_name = suites_of(peers, identity)
    suites = {peer.card.uuid.bytes: by_name[peer.name] for peer in peers}
    return _Keys(True, suites, {identity.uuid.bytes: f"{place.config.name}, this node"} | place.names())


# --- for people ------------------------------------------------------------------------


def _verdict(found: Dissection, keys: _Keys) -> str:
    header = found.header
    if header is None:
        if found.size and found.zeros == found.size:
            return f"{found.size} zeros: preallocated, and nothing has arrived"
        return f"no packet that can be read ({found.error})"
    what = []
    if found.cut:
        what.append(f"cut in {found.cut_in()}: {found.size} of {header.length} bytes")
    if found.suite is None:
        if not found.cut:
            what.append("whole by its length")
        what.append(
            f"not opened ({found.error})" if keys.given else "not opened, for want of keys (--config)"
        )
    elif found.error is not None:
        what.append(f"not authentic ({found.error})")
    elif found.bad:
        what.append(f"{len(found.bad)} of {header.frames} record frames damaged")
    elif found.control_error is not None:
        what.append(f"authentic, but malformed ({found.control_error})")
    elif not found.cut:
        what.append("whole and intact" if found.complete else "its END is damaged, all frames are intact")
    if not found.sound and found.zeros > FRAME_OVERHEAD:
        what.append(f"its last {found.zeros} bytes are zeros, as of a file that is still arriving")
    return "; ".join(what)


def _lines(found: Dissection, keys: _Keys) -> Iterator[str]:
    header = found.header
    if header is None:
        return
    yield from _header(header, keys.names)
    if found.control is not None:
        yield f"  frame 0   control, {header.control_length} bytes: " + ", ".join(_control(found.control))
    for frame in found.frames[:LINES]:
        yield from _frame(frame)
    if len(found.frames) > LINES:
        yield f"  ...       {len(found.frames) - LINES} frames more (--json has all)"
    missing = header.frames - len(found.frames)
    if found.suite is not None and found.error is None and missing:
        first = len(found.frames) + 1
        which = f"frame {first}" if missing == 1 else f"frames {first} to {header.frames}"
        yield f"  {which} of {header.frames}: not there"
    if found.complete:
        yield "  END       intact: the packet was not cut"
    if found.padding:
        kind = "zeros" if found.zeros >= found.padding else "bytes"
        yield f"  padding   {found.padding} {kind} behind END"


def _header(header: Header, names: Mapping[bytes, str]) -> Iterator[str]:
    suite = _SUITES.get(header.suite, str(header.suite))
    yield (
        f"  header    packet {header.number}, suite {suite}, key {header.key_id:04x},"
        f" {counted(header.frames, 'record frame')} of {size(header.stride)}, {header.length} bytes in all"
    )
    for what, node, incarnation, boot in (
        ("from", header.sender, header.incarnation, f", boot {header.boot:016x}"),
        ("to", header.recipient, header.recipient_incarnation, ""),
    ):
        name = f" ({names[node]})" if node in names else ""
        known = f"incarnation {incarnation:016x}" if incarnation else "incarnation not known to the sender"
        yield f"  {what:<9} {UUID(bytes=node)}{name}, {known}{boot}"
    echo = f"{header.echo:016x}" if header.echo else "none"
    yield f"  challenge {header.challenge:016x}, echo {echo}"


def _control(control: Control) -> Iterator[str]:
    yield f"ack {control.ack}"
    if control.sack:
        yield f"sack {_ranges(control.sack)}"
    yield f"limit {control.limit}"
    for receipt in control.receipts:
        missing = f" without frames {_ranges(receipt.missing)}" if receipt.missing else ""
        yield f"receipt for packet {receipt.number}{missing}"
    yield f"clock {control.clock}, peer's clock {control.peer_clock}"
    if control.retired:
        yield f"retired {control.retired:016x}"
    if control.probe:
        yield "asks for an answer"


def _ranges(ranges: Ranges) -> str:
    return " ".join(str(start) if start == end else f"{start}-{end}" for start, end in ranges)


def _frame(frame: Frame) -> Iterator[str]:
    head = f"  frame {frame.index:<3} at {frame.offset}, {frame.length} bytes: "
    if frame.bad is not None:
        yield f"{head}damaged ({frame.bad})"
        return
    numbers = [number for number, _, _ in frame.records]
    yield f"{head}intact, {counted(len(numbers), 'record')}"
    runs = list(_runs(frame.records))
    for run in runs[:LINES]:
        yield f"            {run}"
    if len(runs) > LINES:
        yield f"            ... {len(runs) - LINES} lines more (--json has all)"


def _runs(records: Sequence[tuple[int, int, int]]) -> Iterator[str]:
    """Consecutive records of one channel and one size take a line together."""
    at = enumerate(records)
    for (_, channel, length), group in groupby(at, lambda one: (one[1][0] - one[0], *one[1][1:])):
        numbers = [record[0] for _, record in group]
        which = f"record {numbers[0]}" if len(numbers) == 1 else f"records {numbers[0]}-{numbers[-1]}"
        each = "" if len(numbers) == 1 else " each"
        yield f"{which}  channel {channel} ({_CHANNELS.get(channel, 'unknown')})  {length} bytes{each}"
