"""Keys and cards: what goes out comes back, and whatever is damaged or exposed is refused."""

from __future__ import annotations

import os
import re
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from random import Random
from uuid import UUID

from nacl import bindings
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import IdentityError
from hoft.identity import Card, Identity, _check, check_name, key_id, load_psk


class CardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.card = Identity.generate(Random(1).randbytes).card("far")

    def test_a_card_is_one_line_that_parses_to_the_same_card(self) -> None:
        text = str(self.card)
        self.assertRegex(text, r"\Ahoft-card:far:[0-9a-f-]{36}:[A-Za-z0-9_-]{43}:[0-9a-f]{10}\Z")
        self.assertEqual(Card.parse(text), self.card)

    def test_a_card_is_found_in_a_mail(self) -> None:
        mail = f"Hello,\n\n> here it is:\n> <{self.card}>.\n\nBye\n"
        self.assertEqual(Card.parse(mail), self.card)

    def test_the_same_card_twice_in_a_text_is_one_card(self) -> None:
        self.assertEqual(Card.parse(f"{self.card}\n{self.card}\n"), self.card)

    def test_two_different_cards_are_refused(self) -> None:
        other = Identity.generate(Random(2).randbytes).card("other")
        with self.assertRaisesRegex(IdentityError, "2 different cards"):
            Card.parse(f"{self.card}\n{other}")

    def test_text_without_a_card_is_refused_shortly(self) -> None:
        with self.assertRaises(IdentityError) as caught:
            Card.parse("nothing\n" * 1000)
        self.assertIn("no card in", str(caught.exception))
        self.assertLess(len(str(caught.exception)), 150)
        self.assertNotIn("\n", str(caught.exception))

    def test_any_changed_character_is_noticed(self) -> None:
        text = str(self.card)
        for place in range(len("hoft-card:"), len(text)):
            changed = text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]
            with self.assertRaises(IdentityError, msg=changed):
                Card.parse(changed)

    def test_a_card_cut_short_is_damaged(self) -> None:
        text = str(self.card)
        for length in range(len("hoft-card:"), len(text)):
            with self.assertRaisesRegex(IdentityError, "card is damaged"):
                Card.parse(text[:length])

    def test_fields_that_are_wrong_under_right_check_digits_are_refused(self) -> None:
        _, name, uuid, key, _ = str(self.card).split(":")
        for fields in (
            ("", uuid, key),
            ("a/", uuid, key),
            (name, uuid.upper(), key),
            (name, "x" * 36, key),
            (name, uuid, key[:-2]),
            (name, uuid, key + "="),
        ):
            text = ":".join(("hoft-card", *fields, _check("hoft-card", *fields)))
            with self.assertRaisesRegex(IdentityError, "card is damaged", msg=text):
                Card.parse(text)

    def test_a_key_that_gives_everybody_the_same_secret_is_refused(self) -> None:
        for key in (bytes(32), b"\x01" + bytes(31)):
            card = Card("far", self.card.uuid, key)
            with self.assertRaisesRegex(IdentityError, "readable to anyone"):
                Card.parse(str(card))

    def test_the_fingerprint_is_of_uuid_and_key_not_of_the_name(self) -> None:
        self.assertRegex(self.card.fingerprint, r"\A(?:[a-z2-7]{4}-){7}[a-z2-7]{4}\Z")
        self.assertEqual(
            Card("elsewhere", self.card.uuid, self.card.public_key).fingerprint, self.card.fingerprint
        )
        other = Identity.generate(Random(2).randbytes)
        self.assertNotEqual(Card("far", other.uuid, self.card.public_key).fingerprint, self.card.fingerprint)
        self.assertNotEqual(Card("far", self.card.uuid, other.public_key).fingerprint, self.card.fingerprint)


class NameTests(SynchronousTestCase):
    def test_names_that_fit_everywhere_are_taken(self) -> None:
        for name in ("a", "far", "Site-2.example_x", "9" * 63):
            self.assertEqual(check_name(name), name)

    def test_names_that_would_break_paths_cards_or_header_fields_are_refused(self) -> None:
        for name in ("", "-a", "a.", ".", "..", "a/b", "a:b", "a b", "a\n", "é", "x" * 64):
            with self.assertRaises(IdentityError, msg=repr(name)):
                check_name(name)


class IdentityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.identity = Identity.generate(os.urandom)
        self.path = Path(self.mktemp())
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def test_what_is_saved_is_loaded(self) -> None:
        self.identity.save(self.path)
        self.assertEqual(Identity.load(self.path), self.identity)

    def test_the_file_is_its_owners_alone_whatever_the_umask(self) -> None:
        old = os.umask(0)
        try:
            self.identity.save(self.path)
        finally:
            os.umask(old)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_an_existing_key_is_never_replaced(self) -> None:
        self.identity.save(self.path)
        with self.assertRaisesRegex(IdentityError, "not replaced"):
            Identity.generate(os.urandom).save(self.path)
        self.assertEqual(Identity.load(self.path), self.identity)

    def test_a_key_that_others_may_read_is_refused(self) -> None:
        self.identity.save(self.path)
        for mode in (0o644, 0o640, 0o604, 0o660):
            self.path.chmod(mode)
            with self.assertRaisesRegex(IdentityError, rf"others may read this key \(mode {mode:04o}\)"):
                Identity.load(self.path)

    def test_a_missing_key_says_how_to_make_one(self) -> None:
        with self.assertRaisesRegex(IdentityError, "'hoft init' makes one"):
            Identity.load(self.path)

    def test_a_folder_or_fifo_in_place_of_the_key_is_refused_without_waiting(self) -> None:
        self.path.mkdir(mode=0o700)
        with self.assertRaisesRegex(IdentityError, "not a regular file"):
            Identity.load(self.path)
        fifo = self.path / "fifo"
        os.mkfifo(fifo, 0o600)
        with self.assertRaisesRegex(IdentityError, "not a regular file"):
            Identity.load(fifo)

    def test_a_damaged_key_file_is_refused(self) -> None:
        self.identity.save(self.path)
        text = self.path.read_text()
        for damaged in (
            "",
            text[:-20],
            text.replace("hoft-identity", "hoft-card"),
            text[:60] + "!" + text[61:],
        ):
            self.path.write_text(damaged)
            with self.assertRaisesRegex(IdentityError, "damaged"):
                Identity.load(self.path)

    def test_the_secret_is_in_no_representation(self) -> None:
        shown = repr(self.identity)
        self.assertNotIn(repr(self.identity.secret_key), shown)
        self.assertNotIn(urlsafe_b64encode(self.identity.secret_key).decode().rstrip("="), shown)

    def test_uuid_and_key_come_from_the_entropy_given(self) -> None:
        self.assertEqual(Identity.generate(Random(7).randbytes), Identity.generate(Random(7).randbytes))
        self.assertNotEqual(Identity.generate(Random(7).randbytes), Identity.generate(Random(8).randbytes))
        self.assertEqual(self.identity.uuid.version, 4)
        self.assertEqual(self.identity.uuid, UUID(re.sub("-", "", str(self.identity.uuid))))

    def test_both_sides_of_two_cards_share_one_secret(self) -> None:
        other = Identity.generate(os.urandom)
        ours = bindings.crypto_box_beforenm(other.public_key, self.identity.secret_key)
        theirs = bindings.crypto_box_beforenm(self.identity.card("x").public_key, other.secret_key)
        self.assertEqual(ours, theirs)


class TwoKeysTests(SynchronousTestCase):
    """A new key beside the old one, for as long as peers need both."""

    def setUp(self) -> None:
        self.first = Identity.generate(Random(1).randbytes)
        self.path = Path(self.mktemp())
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def test_the_new_key_is_on_the_card_and_the_old_one_stays(self) -> None:
        both = self.first.rotated(Random(2).randbytes)
        self.assertEqual(both.uuid, self.first.uuid)
        self.assertEqual(both.secret_keys, (both.secret_key, self.first.secret_key))
        self.assertNotEqual(both.card("a").public_key, self.first.card("a").public_key)
        self.assertEqual(both.retired().secret_keys, (both.secret_key,))

    def test_two_keys_are_the_most(self) -> None:
        both = self.first.rotated(Random(2).randbytes)
        with self.assertRaisesRegex(IdentityError, "two keys already"):
            both.rotated(Random(3).randbytes)
        with self.assertRaisesRegex(IdentityError, "one key only"):
            self.first.retired()

    def test_packets_can_tell_the_two_apart(self) -> None:
        # What the generator gives first has the id of the present key; it is not taken.
        given = iter([self.first.secret_key, Random(2).randbytes(32)])
        both = self.first.rotated(lambda count: next(given))
        self.assertNotEqual(key_id(both.public_key), key_id(self.first.public_key))

    def test_both_are_in_the_file(self) -> None:
        self.first.save(self.path)
        both = self.first.rotated(os.urandom)
        self.path.write_text(both.text)
        self.assertEqual(Identity.load(self.path), both)
        self.path.write_text(both.retired().text)
        self.assertEqual(Identity.load(self.path), both.retired())

    def test_a_file_of_two_nodes_or_of_three_keys_is_damaged(self) -> None:
        self.first.save(self.path)
        line = self.path.read_text()
        self.path.unlink()
        Identity.generate(Random(3).randbytes).save(self.path)
        for text in (line + self.path.read_text(), 3 * line, line + "\n" + line):
            self.path.write_text(text)
            with self.assertRaisesRegex(IdentityError, "damaged"):
                Identity.load(self.path)

    def test_neither_secret_is_in_any_representation(self) -> None:
        both = self.first.rotated(os.urandom)
        for key in both.secret_keys:
            self.assertNotIn(repr(key), repr(both))


class PskTests(SynchronousTestCase):
    """A secret that two nodes share."""

    def setUp(self) -> None:
        self.psk = Random(1).randbytes(32)
        self.path = Path(self.mktemp())
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, text: str, mode: int = 0o600) -> None:
        self.path.write_text(text)
        self.path.chmod(mode)

    def test_it_is_32_bytes_in_base64_of_either_alphabet(self) -> None:
        for text in (b64encode(self.psk).decode(), urlsafe_b64encode(self.psk).decode()):
            for written in (text, text + "\n", text.rstrip("=")):
                self.write(written)
                self.assertEqual(load_psk(self.path), self.psk)

    def test_anything_else_is_refused_without_being_shown(self) -> None:
        secret = b64encode(self.psk).decode()
        for text in (
            "",
            secret[:-5],
            secret + "AAAA",
            self.psk.hex(),
            "correct horse battery staple 123",
            "!" * 44,
        ):
            self.write(text)
            with self.assertRaises(IdentityError) as caught:
                load_psk(self.path)
            self.assertIn("32 bytes in base64", str(caught.exception))
            self.assertNotIn(text or "?", str(caught.exception))

    def test_a_secret_that_others_may_read_is_refused(self) -> None:
        self.write(b64encode(self.psk).decode(), 0o640)
        with self.assertRaisesRegex(IdentityError, "others may read this key"):
            load_psk(self.path)

    def test_a_missing_one_says_how_to_make_it(self) -> None:
        with self.assertRaisesRegex(IdentityError, "head -c 32 /dev/urandom | base64"):
            load_psk(self.path)
