"""
How a packet's key and its frames are sealed; pure.

A suite is what L{hoft.protocols.packets} needs of cryptography.  Every packet has
a fresh key of L{KEY_SIZE} bytes that is sealed once for the recipient; each frame
is sealed with that key.  Whatever the suite, a sealed frame is L{FRAME_OVERHEAD}
bytes longer than its plaintext, so that the size of a record does not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt as _open,
)
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt as _seal,
)
from nacl.bindings import (
    crypto_box_afternm,
    crypto_box_beforenm,
    crypto_box_open_afternm,
)
from nacl.exceptions import CryptoError

from hoft.errors import IdentityError, PacketError, PacketReason

KEY_SIZE: Final = 32
"""Bytes of a packet key."""

SALT_SIZE: Final = 24
"""Bytes that L{Suite.seal_key} is given to make its result unique."""

FRAME_OVERHEAD: Final = 16
"""Bytes by which a sealed frame is longer than its plaintext, in every suite."""

BOX: Final = 1
"""The suite C{box}'s number on the wire."""

SEALED_KEY_SIZES: Final[Mapping[int, int]] = {BOX: SALT_SIZE + KEY_SIZE + 16}
"""Suite number -> bytes of a sealed packet key: what is needed to find the frames of a packet."""


class Suite(Protocol):
    """One peer's keys, ready for use.  Immutable: any thread may call it."""

    @property
    def number(self) -> int:
        """The suite's number on the wire."""

    def seal_key(self, key: bytes, salt: bytes) -> bytes:
        """
        @param key: a packet key, L{KEY_SIZE} bytes.
        @param salt: L{SALT_SIZE} bytes that were never used before.
        @return: the sealed key, as many bytes as L{SEALED_KEY_SIZES} says.
        """

    def open_key(self, sealed: bytes) -> bytes:
        """
        @raise PacketError: (C{KEY}) it was not sealed with these keys.
        """

    def seal_frame(self, key: bytes, index: int, bound: bytes, plaintext: bytes) -> bytes:
        """
        @param key: the packet key.
        @param index: the frame's; never used twice with one key.
        @param bound: what the frame is valid together with only; not sent.
        """

    def open_frame(self, key: bytes, index: int, bound: bytes, sealed: bytes) -> bytes:
        """
        @raise PacketError: (C{FORGED}) it is not what was sealed with this
            key, index and C{bound}.
        """


class BoxSuite:
    """
    NaCl Box between two nodes' keys seals the packet key, XChaCha20-Poly1305 (IETF)
    the frames.

    One shared key serves both directions: that a packet is not our own, sent back
    to us, must be seen from its header, which each frame is bound to.

    @param own_secret: our X25519 secret key.
    @param peer_public: the peer's X25519 public key.
    @raise IdentityError: the public key is one that no honest node has (a point
        of low order), or one of them is not 32 bytes.
    """

    __slots__ = ("_shared",)

    number: Final = BOX

    def __init__(self, own_secret: bytes, peer_public: bytes) -> None:
        try:
            self._shared = crypto_box_beforenm(peer_public, own_secret)
        except (CryptoError, ValueError, RuntimeError) as error:
            raise IdentityError(
                "the peer's public key (or our secret key) is not a usable X25519 key"
            ) from error

    def seal_key(self, key: bytes, salt: bytes) -> bytes:
        """See L{Suite.seal_key}; the salt is the nonce, and precedes the box."""
        return salt + crypto_box_afternm(key, salt, self._shared)

    def open_key(self, sealed: bytes) -> bytes:
        """See L{Suite.open_key}."""
        try:
            key = crypto_box_open_afternm(sealed[SALT_SIZE:], sealed[:SALT_SIZE], self._shared)
        except (CryptoError, ValueError) as error:
            raise PacketError(PacketReason.KEY, "the packet key was not sealed with our keys") from error
        if len(key) != KEY_SIZE:
            raise PacketError(PacketReason.KEY, f"a packet key of {len(key)} bytes")
        return key

    def seal_frame(self, key: bytes, index: int, bound: bytes, plaintext: bytes) -> bytes:
        """See L{Suite.seal_frame}; the index as 24 bytes is the nonce."""
        return _seal(plaintext, bound, index.to_bytes(24, "big"), key)

    def open_frame(self, key: bytes, index: int, bound: bytes, sealed: bytes) -> bytes:
        """See L{Suite.open_frame}."""
        if len(sealed) < FRAME_OVERHEAD:
            raise PacketError(PacketReason.FORGED, f"frame {index} is shorter than a tag")
        try:
            return _open(sealed, bound, index.to_bytes(24, "big"), key)
        except CryptoError as error:
            raise PacketError(PacketReason.FORGED, f"frame {index} does not authenticate") from error
