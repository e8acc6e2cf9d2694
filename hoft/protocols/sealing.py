"""
How a packet's key and its frames are sealed; pure.

A suite is what L{hoft.protocols.packets} needs of cryptography.  In all but
C{checksum} every packet has a fresh key of L{KEY_SIZE} bytes that is sealed once
for the recipient; each frame is sealed with that key.  Whatever the suite, a
sealed frame is L{FRAME_OVERHEAD} bytes longer than its plaintext, so that the size
of a record does not depend on it.

C{docs/protocol.rst}, from section "Packet key" on, is normative.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from hmac import compare_digest
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
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError

from hoft.errors import IdentityError, PacketError, PacketReason
from hoft.identity import key_id

KEY_SIZE: Final = 32
"""Bytes of a packet key."""

SALT_SIZE: Final = 24
"""Bytes that L{Suite.seal_key} is given to make its result unique."""

FRAME_OVERHEAD: Final = 16
"""Bytes by which a sealed frame is longer than its plaintext, in every suite."""

BOX: Final = 1
"""The suite C{box}'s number on the wire."""

AUTHENTICATED: Final = 2
"""The suite C{authenticated}'s number on the wire."""

CHECKSUM: Final = 3
"""The suite C{checksum}'s number on the wire."""

_BOXED: Final = SALT_SIZE + KEY_SIZE + 16

SEALED_KEY_SIZES: Final[Mapping[int, int]] = {BOX: _BOXED, AUTHENTICATED: _BOXED, CHECKSUM: SALT_SIZE}
"""Suite number -> bytes of a sealed packet key: what is needed to find the frames of a packet."""


class Suite(Protocol):
    """One of our keys and a peer's, ready for use.  Immutable: any thread may call it."""

    @property
    def name(self) -> str:
        """What configurations call the suite."""

    @property
    def number(self) -> int:
        """The suite's number on the wire."""

    @property
    def key_id(self) -> int:
        """Of the peer's key that L{seal_key} seals for, as packets name it."""

    @property
    def own_key_id(self) -> int:
        """Of our key: what packets name that L{open_key} can open."""

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


class _BoxedKeys:
    """
    NaCl Box between two nodes' keys seals the packet key.

    One shared key serves both directions: that a packet is not our own, sent back
    to us, must be seen from its header, which each frame is bound to.

    @param own_secret: our X25519 secret key.
    @param peer_public: the peer's newest X25519 public key: what is sealed, is for this one.
    @param older_publics: others of the peer's, by which it may still seal.
    @param psk: a secret of 32 bytes that only the two nodes know beside their
        keys; empty for none.
    @raise IdentityError: a public key is one that no honest node has (a point
        of low order), or one of the keys is not 32 bytes.
    """

    __slots__ = ("_shared", "key_id", "own_key_id")

    def __init__(
        self, own_secret: bytes, peer_public: bytes, *older_publics: bytes, psk: bytes = b""
    ) -> None:
        try:
            shared = [crypto_box_beforenm(public, own_secret) for public in (peer_public, *older_publics)]
        except (CryptoError, ValueError, RuntimeError) as error:
            raise IdentityError(
                "the peer's public key (or our secret key) is not a usable X25519 key"
            ) from error
        if psk:
            shared = [blake2b(one, digest_size=32, key=psk, person=b"hoft psk").digest() for one in shared]
        self._shared = tuple(shared)
        self.key_id = key_id(peer_public)
        self.own_key_id = key_id(crypto_scalarmult_base(own_secret))

    def __eq__(self, other: object) -> bool:
        """Whether it is the same suite with the same keys and psk."""
        if type(other) is not type(self):
            return NotImplemented
        return self._shared == other._shared

    def __hash__(self) -> int:
        return hash(self._shared)

    def seal_key(self, key: bytes, salt: bytes) -> bytes:
        """See L{Suite.seal_key}; the salt is the nonce, and precedes the box."""
        return salt + crypto_box_afternm(key, salt, self._shared[0])

    def open_key(self, sealed: bytes) -> bytes:
        """See L{Suite.open_key}."""
        for shared in self._shared:
            try:
                key = crypto_box_open_afternm(sealed[SALT_SIZE:], sealed[:SALT_SIZE], shared)
            except (CryptoError, ValueError):
                continue
            if len(key) == KEY_SIZE:
                return key
        raise PacketError(PacketReason.KEY, "the packet key was not sealed with our keys")


class BoxSuite(_BoxedKeys):
    """Encrypts: XChaCha20-Poly1305 (IETF) seals the frames."""

    __slots__ = ()

    name: Final = "box"
    number: Final = BOX

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


class AuthenticatedSuite(_BoxedKeys):
    """
    Authenticates, and leaves frames readable, for instance for virus scanners:
    their content, then 16 bytes of keyed BLAKE2b.  Both ends have the key, so it
    proves nothing to anyone else.
    """

    __slots__ = ()

    name: Final = "authenticated"
    number: Final = AUTHENTICATED

    def seal_frame(self, key: bytes, index: int, bound: bytes, plaintext: bytes) -> bytes:
        """See L{Suite.seal_frame}; the index is in C{bound}."""
        return plaintext + _tag(key, bound, plaintext)

    def open_frame(self, key: bytes, index: int, bound: bytes, sealed: bytes) -> bytes:
        """See L{Suite.open_frame}."""
        return _checked(key, index, bound, sealed)


class ChecksumSuite:
    """
    The one L{CHECKSUM_SUITE}.  Finds accidents only: 16 bytes of BLAKE2b after the content of each frame, by
    no key.  Anyone can make up such a packet.
    """

    __slots__ = ()

    name: Final = "checksum"
    number: Final = CHECKSUM
    key_id: Final = 0
    own_key_id: Final = 0

    def seal_key(self, key: bytes, salt: bytes) -> bytes:
        """See L{Suite.seal_key}: there is none; the salt makes each frame one of this packet only."""
        return salt

    def open_key(self, sealed: bytes) -> bytes:
        """See L{Suite.open_key}: there is none."""
        return b""

    def seal_frame(self, key: bytes, index: int, bound: bytes, plaintext: bytes) -> bytes:
        """See L{Suite.seal_frame}; C{key} does not matter."""
        return plaintext + _tag(b"", bound, plaintext)

    def open_frame(self, key: bytes, index: int, bound: bytes, sealed: bytes) -> bytes:
        """See L{Suite.open_frame}; C{key} does not matter."""
        return _checked(b"", index, bound, sealed)


CHECKSUM_SUITE: Final = ChecksumSuite()
"""It has no keys, so there is but one."""


def _tag(key: bytes, bound: bytes, content: bytes) -> bytes:
    # C{bound} has one length, so where the content begins and ends is certain.
    digest = blake2b(bound, digest_size=FRAME_OVERHEAD, key=key)
    digest.update(content)
    return digest.digest()


def _checked(key: bytes, index: int, bound: bytes, sealed: bytes) -> bytes:
    end = len(sealed) - FRAME_OVERHEAD
    if end < 0:
        raise PacketError(PacketReason.FORGED, f"frame {index} is shorter than a tag")
    content = sealed[:end]
    if not compare_digest(_tag(key, bound, content), sealed[end:]):
        raise PacketError(PacketReason.FORGED, f"frame {index} does not authenticate")
    return content
