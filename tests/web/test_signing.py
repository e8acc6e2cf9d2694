"""Signatures of callbacks, beside those of libsodium and those that the specification shows."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from random import Random

from nacl.signing import SigningKey as WholeKey
from twisted.trial.unittest import SynchronousTestCase

from hoft.web.ingress.callbacks.signing import (
    BadKey,
    Key,
    Signing,
    SigningKey,
    SymmetricKey,
    new_key,
    parse_key,
)


def sign(keys: Sequence[Key], content: bytes, step: int = 7) -> bytes:
    """What is signed when it comes in steps of so many bytes."""
    signing = Signing(keys, "msg", 1674087231)
    while True:
        for start in range(0, len(content), step):
            signing.update(content[start : start + step])
        if signing.complete():
            return signing.signatures


class SignatureTests(SynchronousTestCase):
    def test_the_secret_of_the_specification_gives_the_signature_of_its_libraries(self) -> None:
        key = parse_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        signing = Signing([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330)
        signing.update(b'{"test": 2432232314}')
        self.assertTrue(signing.complete())
        self.assertEqual(signing.signatures, b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")

    def test_a_content_in_pieces_has_the_signature_of_the_whole(self) -> None:
        random = Random(5)
        for size in (0, 1, 63, 64, 1000):
            seed, content = random.randbytes(32), random.randbytes(size)
            whole = b"msg.1674087231." + content
            expected = base64.b64encode(WholeKey(seed).sign(whole).signature)
            self.assertEqual(sign([SigningKey(seed)], content), b"v1a," + expected)
            mac = base64.b64encode(hmac.digest(seed, whole, hashlib.sha256))
            self.assertEqual(sign([SymmetricKey(seed)], content), b"v1," + mac)

    def test_several_keys_sign_in_their_order(self) -> None:
        keys: list[Key] = [SigningKey(bytes(32)), SymmetricKey(bytes(24)), SigningKey(bytes(31) + b"1")]
        expected = b" ".join(sign([key], b"content") for key in keys)
        self.assertEqual(sign(keys, b"content"), expected)

    def test_no_signature_is_made_of_a_content_that_has_changed(self) -> None:
        signing = Signing([SigningKey(bytes(32))], "msg", 1)
        signing.update(b"one")
        self.assertFalse(signing.complete())
        signing.update(b"two")
        self.assertRaises(ValueError, signing.complete)


class KeyTests(SynchronousTestCase):
    def test_a_key_is_read_as_it_was_written(self) -> None:
        for asymmetric, begins in ((False, "whsec_"), (True, "whsk_")):
            key = new_key(Random(3).randbytes, asymmetric)
            self.assertEqual(parse_key(key.secret()), key)
            self.assertTrue(key.secret().startswith(begins))
            self.assertNotIn(key.secret().removeprefix(begins), repr(key))

    def test_the_receiver_gets_what_it_needs_to_verify(self) -> None:
        self.assertEqual(SymmetricKey(bytes(24)).shared(), "whsec_" + "A" * 32)
        public = bytes(WholeKey(bytes(32)).verify_key)
        self.assertEqual(SigningKey(bytes(32)).shared(), "whpk_" + base64.b64encode(public).decode())

    def test_a_seed_alone_is_a_key_too(self) -> None:
        key = parse_key("whsk_" + base64.b64encode(bytes(32)).decode())
        self.assertEqual(key, SigningKey(bytes(32)))

    def test_what_is_no_key(self) -> None:
        short = base64.b64encode(bytes(23)).decode()
        two = base64.b64encode(bytes(64)).decode()
        for text, why in (
            ("whsec_" + short, "24 to 64 bytes"),
            ("whsec_???", "not base64"),
            ("whsk_" + short, "32 or 64 bytes"),
            ("whsk_" + two, "do not belong together"),
            ("whpk_" + two, "for the receiver"),
            ("password", "begins with"),
        ):
            error = self.assertRaises(BadKey, parse_key, text)
            self.assertIn(why, str(error))
            self.assertNotIn(short, str(error))
