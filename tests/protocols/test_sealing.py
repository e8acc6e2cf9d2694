"""The suite C{box}: what it seals only the other side opens, and only in its place."""

from __future__ import annotations

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt, crypto_box_open
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import IdentityError, PacketError, PacketReason
from hoft.interfaces import PREFIX
from hoft.protocols.packets import HEADER_SIZE
from hoft.protocols.sealing import (
    FRAME_OVERHEAD,
    KEY_SIZE,
    SALT_SIZE,
    SEALED_KEY_SIZES,
    BoxSuite,
    Suite,
)
from tests.protocols.samples import FAR, NEAR, THIRD

KEY = bytes(range(KEY_SIZE))
SALT = bytes(range(SALT_SIZE))


class Box(SynchronousTestCase):
    """NaCl Box for the packet key, XChaCha20-Poly1305 for the frames."""

    def setUp(self) -> None:
        self.near: Suite = NEAR.suite(FAR)
        self.far: Suite = FAR.suite(NEAR)

    def assertRefused(self, reason: PacketReason, suite: Suite, *arguments: object) -> None:
        opening = suite.open_key if len(arguments) == 1 else suite.open_frame
        error = self.assertRaises(PacketError, opening, *arguments)
        self.assertEqual(error.reason, reason)

    def test_key(self) -> None:
        """The other side opens a packet key; so would any NaCl Box with the two keys."""
        sealed = self.near.seal_key(KEY, SALT)
        self.assertEqual(len(sealed), SEALED_KEY_SIZES[self.near.number])
        self.assertEqual(self.far.open_key(sealed), KEY)
        self.assertEqual(crypto_box_open(sealed[24:], sealed[:24], NEAR.public, FAR.secret), KEY)

    def test_key_of_others(self) -> None:
        """Nobody else's suite opens it."""
        sealed = self.near.seal_key(KEY, SALT)
        self.assertRefused(PacketReason.KEY, THIRD.suite(NEAR), sealed)
        self.assertRefused(PacketReason.KEY, FAR.suite(THIRD), sealed)

    def test_damaged_key(self) -> None:
        """Not with any bit flipped, nor cut, nor longer."""
        sealed = self.near.seal_key(KEY, SALT)
        for bit in range(8 * len(sealed)):
            flipped = bytearray(sealed)
            flipped[bit // 8] ^= 1 << bit % 8
            self.assertRefused(PacketReason.KEY, self.far, bytes(flipped))
        for length in range(len(sealed)):
            self.assertRefused(PacketReason.KEY, self.far, sealed[:length])
        self.assertRefused(PacketReason.KEY, self.far, sealed + b"\x00")

    def test_key_of_another_length(self) -> None:
        """A peer that seals something else for a key is refused, not obeyed."""
        for key in (b"", KEY[:-1], KEY + b"\x00"):
            self.assertRefused(PacketReason.KEY, self.far, self.near.seal_key(key, SALT))

    def test_frame(self) -> None:
        """A frame is opened; so it would be by the primitive as RFC drafts have it."""
        sealed = self.near.seal_frame(KEY, 7, b"bound", b"text")
        self.assertEqual(len(sealed), len(b"text") + FRAME_OVERHEAD)
        self.assertEqual(self.far.open_frame(KEY, 7, b"bound", sealed), b"text")
        nonce = bytes(23) + b"\x07"
        self.assertEqual(crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, b"bound", nonce, KEY), b"text")

    def test_frame_elsewhere(self) -> None:
        """Not with another key, at another index or bound to something else."""
        sealed = self.near.seal_frame(KEY, 7, b"bound", b"text")
        self.assertRefused(PacketReason.FORGED, self.far, KEY[::-1], 7, b"bound", sealed)
        self.assertRefused(PacketReason.FORGED, self.far, KEY, 8, b"bound", sealed)
        self.assertRefused(PacketReason.FORGED, self.far, KEY, 7, b"round", sealed)

    def test_damaged_frame(self) -> None:
        """Not with any bit flipped, nor cut, nor longer."""
        sealed = self.near.seal_frame(KEY, 7, b"bound", b"text")
        for bit in range(8 * len(sealed)):
            flipped = bytearray(sealed)
            flipped[bit // 8] ^= 1 << bit % 8
            self.assertRefused(PacketReason.FORGED, self.far, KEY, 7, b"bound", bytes(flipped))
        for length in range(len(sealed)):
            self.assertRefused(PacketReason.FORGED, self.far, KEY, 7, b"bound", sealed[:length])
        self.assertRefused(PacketReason.FORGED, self.far, KEY, 7, b"bound", sealed + b"\x00")

    def test_empty_frame(self) -> None:
        """A frame without content is a tag, and authenticates like any other."""
        sealed = self.near.seal_frame(KEY, 3, b"bound", b"")
        self.assertEqual(len(sealed), FRAME_OVERHEAD)
        self.assertEqual(self.far.open_frame(KEY, 3, b"bound", sealed), b"")

    def test_unusable_keys(self) -> None:
        """Keys that give everybody the same secret, or are no keys, are our user's mistake."""
        low_order = [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
        for public in [*low_order, b"", FAR.public + b"\x00"]:
            self.assertRaises(IdentityError, BoxSuite, NEAR.secret, public)
        self.assertRaises(IdentityError, BoxSuite, NEAR.secret[1:], FAR.public)

    def test_prefix_is_what_carriers_compare(self) -> None:
        """Header and sealed key lie within the bytes that must not change while a file grows."""
        for size in SEALED_KEY_SIZES.values():
            self.assertLessEqual(HEADER_SIZE + size, PREFIX)
