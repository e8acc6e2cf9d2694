"""Two keys at once: what a peer has, is what it is spoken to with; nothing rests on anybody's order."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import PacketError, PacketReason
from hoft.protocols.keyring import Keyring
from hoft.protocols.packets import Header
from hoft.protocols.sealing import CHECKSUM_SUITE, AuthenticatedSuite, BoxSuite, Suite
from tests.protocols.samples import FAR, Node, writer

OLD, NEW = Node("old key"), Node("new key")


def by(*keys: Node) -> list[Suite]:
    """What our side has with far, by each of these keys of ours."""
    return [BoxSuite(key.secret, FAR.public) for key in keys]


def heard(sealed_for: Node, number: int = 1, boot: int = 1) -> Header:
    """A packet of far's for us."""
    suite = BoxSuite(FAR.secret, sealed_for.public)
    header = writer(b"\xa0", [], sender=FAR, recipient=OLD, suite=suite, number=number, boot=boot).header
    return Header.decode(header.encode())


class Keyrings(SynchronousTestCase):
    """Ours, with one peer."""

    def setUp(self) -> None:
        self.keys = Keyring(by(NEW, OLD))

    def assertSealsBy(self, *keys: Node, asking: bool = False) -> None:
        used = [self.keys.for_sealing(asking).own_key_id for _ in keys]
        self.assertEqual(used, [suite.own_key_id for suite in by(*keys)])

    def test_one_key(self) -> None:
        """Nothing to choose."""
        self.keys = Keyring(by(OLD))
        self.assertSealsBy(OLD, OLD, OLD, asking=True)
        self.assertFalse(self.keys.heard(heard(OLD)))
        self.assertSealsBy(OLD)

    def test_new_key(self) -> None:
        """The new key is used once the peer has shown that it has it."""
        self.assertSealsBy(OLD, OLD)
        self.assertFalse(self.keys.heard(heard(OLD, 1)))
        self.assertSealsBy(OLD)
        self.assertTrue(self.keys.heard(heard(NEW, 2)))
        self.assertSealsBy(NEW, NEW)
        self.assertFalse(self.keys.heard(heard(NEW, 3)))

    def test_late_packets(self) -> None:
        """What was sent before does not count; another life of the peer's does."""
        self.keys.heard(heard(NEW, 5))
        self.assertFalse(self.keys.heard(heard(OLD, 4)))
        self.assertSealsBy(NEW)
        self.assertTrue(self.keys.heard(heard(OLD, 1, boot=2)))
        self.assertSealsBy(OLD)

    def test_silence(self) -> None:
        """Questions that nobody answers go by each key in turn; the first by the one that was heard last."""
        self.assertSealsBy(OLD, NEW, OLD, NEW, asking=True)
        self.keys.heard(heard(NEW))
        self.assertSealsBy(NEW, OLD, NEW, asking=True)
        self.assertSealsBy(NEW)
        self.keys.heard(heard(NEW))
        self.assertSealsBy(NEW, asking=True)

    def test_opening(self) -> None:
        """By the key that the packet names; one that names none of ours is refused as that."""
        for key in (OLD, NEW):
            suite = self.keys.for_opening(heard(key))
            self.assertEqual(suite.own_key_id, heard(key).key_id)
        error = self.assertRaises(PacketError, self.keys.for_opening, heard(FAR))
        self.assertEqual(error.reason, PacketReason.UNKNOWN_KEY)

    def test_another_suite(self) -> None:
        """It is refused as that, by whoever reads on, whatever key it names."""
        for other in (AuthenticatedSuite(OLD.secret, FAR.public), CHECKSUM_SUITE):
            self.keys = Keyring([other])
            self.assertIdentical(self.keys.for_opening(heard(NEW)), other)

    def test_replaced(self) -> None:
        """Made, taken up and retired while the link runs: the key in use stays in use while it is there."""
        self.keys = Keyring(by(OLD))
        self.keys.heard(heard(OLD))
        self.assertFalse(self.replace(OLD))
        self.assertTrue(self.replace(NEW, OLD))
        self.assertSealsBy(OLD)
        self.keys.heard(heard(NEW, 2))
        self.assertTrue(self.replace(NEW))
        self.assertSealsBy(NEW, NEW, asking=True)
        self.assertRaises(PacketError, self.keys.for_opening, heard(OLD))

    def test_something_else_is_agreed_on(self) -> None:
        """With the same keys, it is a change."""
        shared = [BoxSuite(OLD.secret, FAR.public, psk=bytes(32))]
        self.keys = Keyring(by(OLD))
        self.assertTrue(self.keys.replace(shared))
        self.assertFalse(self.keys.replace([BoxSuite(OLD.secret, FAR.public, psk=bytes(32))]))
        self.assertTrue(self.keys.replace([AuthenticatedSuite(OLD.secret, FAR.public, psk=bytes(32))]))
        self.assertTrue(self.keys.replace([CHECKSUM_SUITE]))
        self.assertFalse(self.keys.replace([CHECKSUM_SUITE]))
        self.assertEqual(self.keys.for_sealing(asking=True).number, CHECKSUM_SUITE.number)

    def test_retired_early(self) -> None:
        """Without the older key the newer one is used, though the peer was not seen to have it."""
        self.replace(NEW)
        self.assertSealsBy(NEW)

    def replace(self, *keys: Node) -> bool:
        return self.keys.replace(by(*keys))
