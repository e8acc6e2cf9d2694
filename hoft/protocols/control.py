"""
The content of frame 0: what one side of a link tells the other about the log; pure.

C{docs/protocol.rst}, section "Control", is normative.  A control is a CBOR map
that leaves out what is zero or empty; each has one encoding, and that is never
longer than L{MAX_ENCODED}.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from attrs import Attribute, field, frozen

from hoft.cbor import CborError, decode_strict, encode
from hoft.errors import PacketError, PacketReason
from hoft.protocols.layout import MAX_FRAMES

MAX_RANGES: Final = 256
"""The most ranges in C{sack}."""

MAX_RECEIPTS: Final = 64
"""The most receipts in one control."""

MAX_GAPS: Final = 16
"""The most ranges of missing frames in one receipt."""

MAX_GAPS_TOGETHER: Final = 128
"""The most ranges of missing frames in all receipts of one control."""

MAX_ENCODED: Final = 8 << 10
"""The most bytes of an encoded control."""

_U64: Final = (1 << 64) - 1
_U32: Final = (1 << 32) - 1

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges, ascending, disjoint and not adjacent."""


def _u64(_instance: object, attribute: Attribute[int], value: int) -> None:
    if not 0 <= value <= _U64:
        raise ValueError(f"{attribute.name}: {value} is not an unsigned 64-bit integer")


def _u32(_instance: object, attribute: Attribute[int], value: int) -> None:
    if not 0 <= value <= _U32:
        raise ValueError(f"{attribute.name}: {value} is not an unsigned 32-bit integer")


def _flatten(ranges: Ranges, after: int) -> list[int]:
    """
    Ranges as numbers of 1 and more: how many are out, how many are in, and so on.

    @param after: the number before the first that can be out.
    @raise ValueError: not ascending, disjoint and non-adjacent, or not above
        C{after + 1}.
    """
    flat: list[int] = []
    for start, end in ranges:
        if start < after + 2 or end < start:
            raise ValueError(f"range {start}..{end} after {after}")
        flat += (start - after - 1, end - start + 1)
        after = end
    return flat


def _unflatten(flat: Sequence[int], after: int) -> Ranges:
    """The reverse of L{_flatten}."""
    if len(flat) % 2:
        raise ValueError("half a range")
    ranges: list[tuple[int, int]] = []
    for gap, length in zip(flat[::2], flat[1::2], strict=True):
        if type(gap) is not int or type(length) is not int or gap < 1 or length < 1:
            raise ValueError("a range that is not two positive integers")
        start = after + gap + 1
        after = start + length - 1
        ranges.append((start, after))
    return tuple(ranges)


@frozen
class Receipt:
    """What arrived of one packet: the times and the losses of the carrier can be told from it."""

    boot: int = field(validator=_u64)
    """The boot of the receipt's recipient that sent the packet."""
    number: int = field(validator=_u64)
    """The packet's."""
    frames: int = field()
    """How many record frames it was to have."""
    missing: Ranges = ()
    """The record frames (1 and up) that did not arrive intact."""
    hold: int = field(default=0, validator=_u32)
    """Milliseconds from the packet's arrival to the sending of this receipt."""

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.frames <= MAX_FRAMES:
            raise ValueError(f"a packet of {self.frames} frames")
        if len(self.missing) > MAX_GAPS:
            raise ValueError(f"{len(self.missing)} gaps in one receipt")
        _flatten(self.missing, -1)
        if self.missing and not 1 <= self.missing[0][0] <= self.missing[-1][1] <= self.frames:
            raise ValueError(f"gaps beyond the {self.frames} frames")

    @property
    def intact(self) -> int:
        """How many record frames arrived whole."""
        return self.frames - sum(end - start + 1 for start, end in self.missing)

    @classmethod
    def of(cls, boot: int, number: int, frames: int, missing: Iterable[int], hold: int) -> Receipt:
        """
        A receipt for a packet of which these frames are missing.

        Where they make more than L{MAX_GAPS} ranges, those nearest to each other
        are joined: frames between them then count as missing too, which costs a
        retransmission and no more.

        @param missing: ascending, as from L{PacketReader.missing
            <hoft.protocols.packets.PacketReader.missing>}.
        @param hold: milliseconds; what the field cannot hold counts as the nearest that it can.
        """
        ranges: list[tuple[int, int]] = []
        for index in missing:
            if ranges and index == ranges[-1][1] + 1:
                ranges[-1] = (ranges[-1][0], index)
            else:
                ranges.append((index, index))
        if len(ranges) > MAX_GAPS:
            between = sorted(range(1, len(ranges)), key=lambda at: ranges[at][0] - ranges[at - 1][1])
            kept = sorted(between[len(ranges) - MAX_GAPS :])
            bounds = zip([0, *kept], [*kept, len(ranges)], strict=True)
            ranges = [(ranges[low][0], ranges[high - 1][1]) for low, high in bounds]
        return cls(boot, number, frames, tuple(ranges), min(max(hold, 0), _U32))


def select_receipts(receipts: Iterable[Receipt]) -> tuple[Receipt, ...]:
    """
    Those of C{receipts}, the first first, that one control may hold: of the
    first's boot, L{MAX_RECEIPTS} at most and L{MAX_GAPS_TOGETHER} at most.
    """
    chosen: list[Receipt] = []
    gaps = 0
    for receipt in receipts:
        if len(chosen) == MAX_RECEIPTS:
            break
        if chosen and receipt.boot != chosen[0].boot:
            continue
        if gaps + len(receipt.missing) <= MAX_GAPS_TOGETHER:
            gaps += len(receipt.missing)
            chosen.append(receipt)
    return tuple(chosen)


@frozen(kw_only=True)
class Control:
    """
    What one side says about the log.

    @raise ValueError: (when made) values that no control may have.
    """

    ack: int = field(default=0, validator=_u64)
    """All records of the peer up to here are committed at the sender of this control."""
    sack: Ranges = ()
    """What else is committed there, the lowest L{MAX_RANGES} ranges; C{ack + 1} is never in."""
    limit: int = field(default=0, validator=_u64)
    """The highest record number that would be accepted."""
    receipts: tuple[Receipt, ...] = ()
    """Of packets of the peer, all of one boot."""
    clock: int = field(default=0, validator=_u64)
    """The link's clock at the sender."""
    peer_clock: int = field(default=0, validator=_u64)
    """The highest clock heard of the peer."""
    peer_boot: int = field(default=0, validator=_u64)
    """The peer's boot that the sender adopted last, in this process or one before; 0: none."""
    retired: int = field(default=0, validator=_u64)
    """An incarnation of the peer that was superseded and must not be used again; 0: none."""
    probe: bool = False
    """Please answer."""
    full: bool = False
    """The sender has no room for records just now; of several packets the latest counts."""

    def __attrs_post_init__(self) -> None:
        if len(self.sack) > MAX_RANGES:
            raise ValueError(f"{len(self.sack)} ranges")
        _flatten(self.sack, self.ack)
        if self.sack and self.sack[-1][1] > _U64:
            raise ValueError("a range beyond 64 bits")
        if len(self.receipts) > MAX_RECEIPTS or len({receipt.boot for receipt in self.receipts}) > 1:
            raise ValueError(f"{len(self.receipts)} receipts, or of several boots")
        if sum(len(receipt.missing) for receipt in self.receipts) > MAX_GAPS_TOGETHER:
            raise ValueError("too many gaps in the receipts")

    def encode(self) -> bytes:
        """At most L{MAX_ENCODED} bytes."""
        fields: dict[str, Any] = {
            "ack": self.ack,
            "sack": _flatten(self.sack, self.ack),
            "limit": self.limit,
            "clock": self.clock,
            "peer": self.peer_clock,
            "boot": self.peer_boot,
            "retired": self.retired,
            "probe": self.probe,
            "full": self.full,
        }
        if self.receipts:
            # Counted from frame 0, which is never missing: so each gap is 1 at least.
            each = [[r.number, r.frames, r.hold, *_flatten(r.missing, -1)] for r in self.receipts]
            fields["receipts"] = [self.receipts[0].boot, *each]
        return encode({name: value for name, value in fields.items() if value})

    @classmethod
    def decode(cls, data: bytes) -> Control:
        """
        @raise PacketError: (C{MALFORMED}) not the encoding of a control.
        """
        try:
            return cls._from_fields(decode_strict(data, limit=MAX_ENCODED))
        except (CborError, ValueError) as error:
            raise PacketError(PacketReason.MALFORMED, f"control: {error}") from error

    @classmethod
    def _from_fields(cls, fields: object) -> Control:
        if type(fields) is not dict:
            raise ValueError("not a map")
        values = dict(fields)
        numbers = {name: _take(values, name, int, 0) for name in _NUMBERS}
        sack = _take(values, "sack", list, [])
        receipts = _take(values, "receipts", list, [])
        if len(receipts) == 1:
            raise ValueError("no receipts, but their boot")
        probe = _take(values, "probe", bool, False)
        full = _take(values, "full", bool, False)
        if values:
            raise ValueError(f"unknown fields {sorted(values)}")
        return cls(
            ack=numbers["ack"],
            sack=_unflatten(sack, numbers["ack"]),
            limit=numbers["limit"],
            receipts=tuple(_receipt(receipts[0], each) for each in receipts[1:]),
            clock=numbers["clock"],
            peer_clock=numbers["peer"],
            peer_boot=numbers["boot"],
            retired=numbers["retired"],
            probe=probe,
            full=full,
        )


_NUMBERS = ("ack", "limit", "clock", "peer", "boot", "retired")


def _take(values: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    if name not in values:
        return default
    value = values.pop(name)
    if type(value) is not kind or not value:
        raise ValueError(f"{name}: a {type(value).__name__} that is empty or not {kind.__name__}")
    return value


def _receipt(boot: object, fields: object) -> Receipt:
    if type(boot) is not int or type(fields) is not list or len(fields) < 3:
        raise ValueError("a receipt without its fields")
    number, frames, hold, *missing = fields
    for value in (number, frames, hold):
        if type(value) is not int:
            raise ValueError("a receipt of other than integers")
    return Receipt(boot, number, frames, _unflatten(missing, -1), hold)
