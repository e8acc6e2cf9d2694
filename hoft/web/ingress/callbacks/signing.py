"""
Signatures of callbacks, by the Standard Webhooks specification 1.0.0
(U{https://www.standardwebhooks.com}): over id, time and body, joined by full stops.

A body may be larger than memory, so it is given piece by piece: once for
HMAC-SHA256 (C{v1}), twice for Ed25519 (C{v1a}), whose nonce is a hash of all of it
(RFC 8032 section 5.1.6).  For that one libsodium takes whole messages only; what is
here are the steps of the RFC, each of them libsodium's.  Pure.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from attrs import field, frozen
from nacl import bindings

SYMMETRIC: Final = "whsec_"
"""Before the secret of HMAC-SHA256, which both sides have."""

SECRET: Final = "whsk_"
"""Before the secret key of Ed25519."""

PUBLIC: Final = "whpk_"
"""Before its public key, for the receiver."""

SEED: Final = 32
"""Bytes of a new secret, and of the seed of an Ed25519 key."""

_LENGTHS = range(24, 65)
"""Bytes that a symmetric secret may have."""


class BadKey(ValueError):
    """A text is no key; says what is wrong, but never shows it."""


class Signer(Protocol):
    """Makes one signature."""

    def update(self, data: bytes) -> None:
        """More of the content."""

    def complete(self) -> bytes | None:
        """That was all of it: the signature, or C{None}, and all of it is to be given once more."""


class Key(Protocol):
    """What a receiver knows its callbacks by."""

    identifier: str
    """What stands before its signatures."""

    def signer(self) -> Signer:
        """For one signature."""

    def secret(self) -> str:
        """As it stands in a file."""

    def shared(self) -> str:
        """What the receiver is to have of it."""


@frozen
class SymmetricKey:
    """For HMAC-SHA256."""

    key: bytes = field(repr=False)
    identifier = "v1"

    def signer(self) -> Signer:
        """See L{Key}."""
        return _Mac(self.key)

    def secret(self) -> str:
        """See L{Key}."""
        return SYMMETRIC + b64encode(self.key).decode("ascii")

    shared = secret


@frozen
class SigningKey:
    """For Ed25519."""

    seed: bytes = field(repr=False)
    identifier = "v1a"

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """The public key, and the secret one, which is the seed and the public one again."""
        public, secret = bindings.crypto_sign_seed_keypair(self.seed)
        return public, secret

    def signer(self) -> Signer:
        """See L{Key}."""
        return _Ed25519(self.seed, self.pair[0])

    def secret(self) -> str:
        """See L{Key}."""
        return SECRET + b64encode(self.pair[1]).decode("ascii")

    def shared(self) -> str:
        """See L{Key}."""
        return PUBLIC + b64encode(self.pair[0]).decode("ascii")


def new_key(entropy: Callable[[int], bytes], asymmetric: bool = False) -> Key:
    """@param entropy: so many unpredictable bytes."""
    return SigningKey(entropy(SEED)) if asymmetric else SymmetricKey(entropy(SEED))


def parse_key(text: str) -> Key:
    """
    Read one line of a secret's file.

    @raise BadKey: it is none, or one for the other side.
    """
    for prefix in (SYMMETRIC, SECRET):
        if text.startswith(prefix):
            try:
                value = b64decode(text.removeprefix(prefix), validate=True)
            except binascii.Error:
                raise BadKey(f"what follows {prefix} is not base64") from None
            return _symmetric(value) if prefix == SYMMETRIC else _asymmetric(value)
    if text.startswith(PUBLIC):
        raise BadKey(f"{PUBLIC}... is for the receiver; wanted is the key that begins with {SECRET}")
    raise BadKey(f"a key begins with {SYMMETRIC} or {SECRET}")


def _symmetric(value: bytes) -> Key:
    if len(value) not in _LENGTHS:
        raise BadKey(f"a secret has {_LENGTHS[0]} to {_LENGTHS[-1]} bytes, not {len(value)}")
    return SymmetricKey(value)


def _asymmetric(value: bytes) -> Key:
    if len(value) not in (SEED, 2 * SEED):
        raise BadKey(f"a secret key has {SEED} or {2 * SEED} bytes, not {len(value)}")
    key = SigningKey(value[:SEED])
    if len(value) == 2 * SEED and key.pair[1] != value:
        raise BadKey("the two halves of the secret key do not belong together")
    return key


class _Mac:
    """See L{Signer}."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod=hashlib.sha256)

    def update(self, data: bytes) -> None:
        self._mac.update(data)

    def complete(self) -> bytes | None:
        return self._mac.digest()


class _Ed25519:
    """
    See L{Signer}.

    The same nonce with two contents would give the key away.  It is a hash of the
    first content, and the second one must be equal to that.
    """

    def __init__(self, seed: bytes, public: bytes) -> None:
        expanded = bytearray(hashlib.sha512(seed).digest())
        expanded[0] &= 248
        expanded[31] = (expanded[31] & 127) | 64
        self._scalar = bytes(expanded[:32])
        self._public = public
        self._nonce: bytes | None = None
        self._point = b""
        self._content = hashlib.sha512()
        self._first = b""
        self._hash = hashlib.sha512(expanded[32:])

    def update(self, data: bytes) -> None:
        self._content.update(data)
        self._hash.update(data)

    def complete(self) -> bytes | None:
        reduced: bytes = bindings.crypto_core_ed25519_scalar_reduce(self._hash.digest())
        if self._nonce is None:
            self._nonce = reduced
            self._point = bindings.crypto_scalarmult_ed25519_base_noclamp(reduced)
            self._first, self._content = self._content.digest(), hashlib.sha512()
            self._hash = hashlib.sha512(self._point + self._public)
            return None
        if self._content.digest() != self._first:
            raise ValueError("what is to be signed has changed meanwhile")
        product = bindings.crypto_core_ed25519_scalar_mul(reduced, self._scalar)
        scalar: bytes = bindings.crypto_core_ed25519_scalar_add(self._nonce, product)
        return self._point + scalar


class Signing:
    """All signatures of one attempt to deliver."""

    def __init__(self, keys: Sequence[Key], id: str, timestamp: int) -> None:
        """@param timestamp: of the attempt, whole seconds since 1970."""
        self._before = f"{id}.{timestamp}.".encode("ascii")
        self._made: list[bytes | None] = [None] * len(keys)
        self._identifiers = [key.identifier for key in keys]
        self._signers = dict(enumerate(key.signer() for key in keys))
        self.update(self._before)

    def update(self, data: bytes) -> None:
        """More of the body."""
        for signer in self._signers.values():
            signer.update(data)

    def complete(self) -> bool:
        """
        That was all of the body.

        @return: C{False}: it has to be given once more.
        @raise ValueError: the second time it was another one.
        """
        for place, signer in list(self._signers.items()):
            self._made[place] = signer.complete()
            if self._made[place] is not None:
                del self._signers[place]
        self.update(self._before)
        return not self._signers

    @property
    def signatures(self) -> bytes:
        """As C{webhook-signature} has them, in the order of the keys."""
        pairs = zip(self._identifiers, self._made, strict=True)
        return b" ".join(f"{name},".encode() + b64encode(made or b"") for name, made in pairs)
