"""
Payloads made smaller, one by one; pure.

Each is compressed by itself, so that what it shrinks to says nothing of any
other, and with Zstandard (RFC 8878).  C{docs/protocol.rst}, section "Compressed payloads",
is normative.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from typing import Final

from hoft.errors import PacketError, PacketReason

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

LEAST: Final = 1024
"""Bytes of the shortest payload that is compressed: below this it is not worth anybody's time."""

PROBE: Final = 4096
"""Bytes by which it is found out whether compressing pays."""

GAIN: Final = 1.1
"""So many times smaller than before, or it is left as it is."""

MOST_EXPANSION: Final = 8
"""
So many times longer than what it came as, a payload may be.  It bounds what a packet may
cost its reader: pieces of 1 MiB are opened at once.
"""

_LEVEL: Final = 1
_START: Final = struct.Struct(">H")
_WINDOW: Final[Mapping[int, int]] = {zstd.DecompressionParameter.window_log_max: 17}
"""128 KiB: more than a payload has; the sender could ask for gigabytes."""


class Compressor:
    """Belongs to one thread at a time; takes some hundred KiB."""

    def __init__(self) -> None:
        self._zstd = zstd.ZstdCompressor(_LEVEL)

    def pack(self, payload: bytes, start: int = 0) -> bytes | None:
        """
        @param start: what is before this byte of the payload stays as it is.
        @return: what is to be sent instead; C{None} if the payload had better stay as it is.
        """
        rest = payload[start:] if start else payload
        size = len(rest)
        if size < LEAST:
            return None
        # Whatever is compressed or encrypted already shows it at its beginning.
        if size > PROBE and len(self._compress(rest[:PROBE])) * GAIN > PROBE:
            return None
        packed = self._compress(rest)
        if len(packed) * GAIN > size:
            return None
        packed = packed.ljust(-(-size // MOST_EXPANSION), b"\0")
        return _START.pack(start) + payload[:start] + packed if start else packed

    def _compress(self, data: bytes) -> bytes:
        return self._zstd.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def expand_from(packed: bytes, most: int) -> bytes:
    """
    What L{Compressor.pack} was given with a C{start}.

    @param most: see L{expand}.
    @raise PacketError: (C{MALFORMED}) see L{expand}; or so much is not there.
    """
    begins = _START.size + int.from_bytes(packed[: _START.size], "big")
    if begins > len(packed):
        raise PacketError(PacketReason.MALFORMED, f"{begins} bytes are not to be expanded, of {len(packed)}")
    before = packed[_START.size : begins]
    return before + expand(packed[begins:], most - len(before))


def not_packed(packed: bytes) -> bytes:
    """The beginning that L{Compressor.pack} left as it was, of what it made with a C{start}."""
    return packed[_START.size : _START.size + int.from_bytes(packed[: _START.size], "big")]


def expand(packed: bytes, most: int) -> bytes:
    """
    What L{Compressor.pack} was given.

    @param most: bytes of the result; and never more than L{MOST_EXPANSION} times those of C{packed}.
    @raise PacketError: (C{MALFORMED}) it is not compressed, or would be longer, or shorter than L{LEAST}.
    """
    most = min(most, len(packed) * MOST_EXPANSION)
    if most < LEAST:
        raise PacketError(PacketReason.MALFORMED, f"a compressed payload of {len(packed)} bytes")
    decompressor = zstd.ZstdDecompressor(options=_WINDOW)
    try:
        payload = decompressor.decompress(packed, most + 1)
    except zstd.ZstdError as error:
        raise PacketError(PacketReason.MALFORMED, f"a compressed payload: {error}") from error
    if not LEAST <= len(payload) <= most or not decompressor.eof:
        raise PacketError(PacketReason.MALFORMED, f"a compressed payload of {len(payload)} bytes or more")
    if decompressor.unused_data.strip(b"\0"):
        raise PacketError(PacketReason.MALFORMED, "something behind a compressed payload")
    return payload
