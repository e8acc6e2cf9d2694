"""The suites: what one seals only the other side opens, and only in its place."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_box_beforenm,
    crypto_box_open,
    crypto_box_open_afternm,
)
from twisted.trial.unittest import SynchronousTestCase

from hoft.defaults import SUITES as CONFIGURABLE
from hoft.errors import IdentityError, PacketError, PacketReason
from hoft.identity import key_id
from hoft.interfaces import PREFIX
from hoft.protocols.packets import HEADER_SIZE
from hoft.protocols.sealing import (
    FRAME_OVERHEAD,
    KEY_SIZE,
    SALT_SIZE,
    SEALED_KEY_SIZES,
    AuthenticatedSuite,
    BoxSuite,
    ChecksumSuite,
    Suite,
)
from tests.protocols.samples import FAR, NEAR, PSK, SUITES, THIRD, Node

KEY = bytes(range(KEY_SIZE))
SALT = bytes(range(SALT_SIZE))

if TYPE_CHECKING:
    _Case = SynchronousTestCase
else:
    _Case = object


class _Refusals(_Case):
    def assertRefused(self, reason: PacketReason, suite: Suite, *arguments: object) -> None:
        opening = suite.open_key if len(arguments) == 1 else suite.open_frame
        error = self.assertRaises(PacketError, opening, *arguments)
        self.assertEqual(error.reason, reason)


class _SealedKeys(_Refusals):
    """
    What holds for every suite that seals a packet's key.

    @cvar kind: the suite.
    @cvar agreed: its name among L{SUITES}.
    """

    kind: type[BoxSuite | AuthenticatedSuite]
    agreed: str

    def between(self, own: Node, peer: Node) -> Suite:
        return SUITES[self.agreed](own, peer)

    def setUp(self) -> None:
        self.near = self.between(NEAR, FAR)
        self.far = self.between(FAR, NEAR)

    def test_key(self) -> None:
        """The other side opens a packet key."""
        sealed = self.near.seal_key(KEY, SALT)
        self.assertEqual(len(sealed), SEALED_KEY_SIZES[self.near.number])
        self.assertEqual(self.far.open_key(sealed), KEY)

    def test_key_of_others(self) -> None:
        """Nobody else's suite opens it."""
        sealed = self.near.seal_key(KEY, SALT)
        self.assertRefused(PacketReason.KEY, self.between(THIRD, NEAR), sealed)
        self.assertRefused(PacketReason.KEY, self.between(FAR, THIRD), sealed)

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

    def test_key_ids(self) -> None:
        """Each side calls the recipient's key the same."""
        self.assertEqual((self.near.key_id, self.near.own_key_id), (key_id(FAR.public), key_id(NEAR.public)))
        self.assertEqual((self.far.key_id, self.far.own_key_id), (key_id(NEAR.public), key_id(FAR.public)))

    def test_older_key_of_the_peer(self) -> None:
        """What the peer seals by its older key is opened; ours is sealed for its newer one."""
        far = self.kind(FAR.secret, THIRD.public, NEAR.public)
        for sender in (NEAR, THIRD):
            self.assertEqual(far.open_key(self.kind(sender.secret, FAR.public).seal_key(KEY, SALT)), KEY)
        sealed = far.seal_key(KEY, SALT)
        self.assertEqual(
            (self.kind(THIRD.secret, FAR.public).open_key(sealed), far.key_id), (KEY, key_id(THIRD.public))
        )
        self.assertRefused(PacketReason.KEY, self.kind(NEAR.secret, FAR.public), sealed)

    def test_psk(self) -> None:
        """Without the right one, both keys do not open anything."""
        sealed = self.kind(NEAR.secret, FAR.public, psk=PSK).seal_key(KEY, SALT)
        self.assertEqual(self.kind(FAR.secret, NEAR.public, psk=PSK).open_key(sealed), KEY)
        for psk in (b"", PSK[::-1]):
            self.assertRefused(PacketReason.KEY, self.kind(FAR.secret, NEAR.public, psk=psk), sealed)
        shared = crypto_box_beforenm(NEAR.public, FAR.secret)
        mixed = blake2b(shared, digest_size=32, key=PSK, person=b"hoft psk").digest()
        self.assertEqual(crypto_box_open_afternm(sealed[24:], sealed[:24], mixed), KEY)

    def test_secrets_are_not_shown(self) -> None:
        """Neither keys nor psk are in what logs would have."""
        suite = self.kind(NEAR.secret, FAR.public, psk=PSK)
        for secret in (NEAR.secret, PSK):
            self.assertNotIn(repr(secret), f"{suite!r} {suite}")
            self.assertNotIn(secret.hex(), f"{suite!r} {suite}")

    def test_unusable_keys(self) -> None:
        """Keys that give everybody the same secret, or are no keys, are our user's mistake."""
        low_order = [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
        for public in [*low_order, b"", FAR.public + b"\x00"]:
            self.assertRaises(IdentityError, self.kind, NEAR.secret, public)
        self.assertRaises(IdentityError, self.kind, NEAR.secret[1:], FAR.public)


class _SealedFrames(_Refusals):
    """
    What holds for the frames of every suite.

    @cvar agreed: its name among L{SUITES}.
    """

    agreed: str

    def setUp(self) -> None:
        self.near = SUITES[self.agreed](NEAR, FAR)
        self.far = SUITES[self.agreed](FAR, NEAR)

    def test_frame(self) -> None:
        """A frame is opened, and as much longer as it should be."""
        sealed = self.near.seal_frame(KEY, 7, b"bound", b"text")
        self.assertEqual(len(sealed), len(b"text") + FRAME_OVERHEAD)
        self.assertEqual(self.far.open_frame(KEY, 7, b"bound", sealed), b"text")

    def test_frame_elsewhere(self) -> None:
        """Not bound to something else."""
        sealed = self.near.seal_frame(KEY, 7, b"bound", b"text")
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


class _KeyedFrames(_SealedFrames):
    def test_another_key(self) -> None:
        """Not with another packet's key."""
        sealed = self.near.seal_frame(KEY, 7, b"bound", b"text")
        self.assertRefused(PacketReason.FORGED, self.far, KEY[::-1], 7, b"bound", sealed)


class BoxKeys(_SealedKeys, SynchronousTestCase):
    """C{box}: NaCl Box for the packet key."""

    kind = BoxSuite
    agreed = "box"

    def test_as_others_do_it(self) -> None:
        """Any NaCl Box with the two keys opens it."""
        sealed = self.near.seal_key(KEY, SALT)
        self.assertEqual(crypto_box_open(sealed[24:], sealed[:24], NEAR.public, FAR.secret), KEY)


class BoxKeysWithPsk(_SealedKeys, SynchronousTestCase):
    """The same with a psk."""

    kind = BoxSuite
    agreed = "box with a psk"


class AuthenticatedKeys(_SealedKeys, SynchronousTestCase):
    """C{authenticated}: the packet key is sealed as by C{box}."""

    kind = AuthenticatedSuite
    agreed = "authenticated"


class BoxFrames(_KeyedFrames, SynchronousTestCase):
    """C{box}: XChaCha20-Poly1305."""

    agreed = "box"

    def test_as_others_do_it(self) -> None:
        """It is opened by the primitive as RFC drafts have it."""
        sealed = self.near.seal_frame(KEY, 7, b"bound", b"text")
        nonce = bytes(23) + b"\x07"
        self.assertEqual(crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, b"bound", nonce, KEY), b"text")
        self.assertRefused(PacketReason.FORGED, self.far, KEY, 8, b"bound", sealed)


class AuthenticatedFrames(_KeyedFrames, SynchronousTestCase):
    """C{authenticated}: the content, and keyed BLAKE2b."""

    agreed = "authenticated"

    def test_as_others_do_it(self) -> None:
        """The content stands as it is, before 16 bytes by which it is checked."""
        sealed = self.near.seal_frame(KEY, 7, b"bound", b"text")
        self.assertEqual(sealed, b"text" + blake2b(b"boundtext", key=KEY, digest_size=16).digest())


class ChecksumFrames(_SealedFrames, SynchronousTestCase):
    """C{checksum}: the content, and BLAKE2b by no key."""

    agreed = "checksum"

    def test_as_others_do_it(self) -> None:
        """Anyone could have made it."""
        sealed = self.near.seal_frame(KEY, 7, b"bound", b"text")
        self.assertEqual(sealed, b"text" + blake2b(b"boundtext", digest_size=16).digest())
        self.assertEqual(self.far.open_frame(self.far.open_key(SALT), 7, b"bound", sealed), b"text")

    def test_key(self) -> None:
        """There is none; what does not repeat stands in its place."""
        self.assertEqual(self.near.seal_key(KEY, SALT), SALT)
        self.assertEqual(SEALED_KEY_SIZES[self.near.number], SALT_SIZE)


class Every(SynchronousTestCase):
    """What suites have in common with the rest."""

    def test_configurable(self) -> None:
        """Each has the name by which configurations choose it."""
        kinds = (BoxSuite, AuthenticatedSuite, ChecksumSuite)
        self.assertEqual(tuple(kind.name for kind in kinds), CONFIGURABLE)
        self.assertEqual([kind.number for kind in kinds], sorted(SEALED_KEY_SIZES))

    def test_prefix_is_what_carriers_compare(self) -> None:
        """Header and sealed key lie within the bytes that must not change while a file grows."""
        for size in SEALED_KEY_SIZES.values():
            self.assertLessEqual(HEADER_SIZE + size, PREFIX)
