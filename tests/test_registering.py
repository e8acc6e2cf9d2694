"""C{hoft callback}: receivers come and go, and get secrets that the configuration does not show."""

from __future__ import annotations

import json
import stat

from hoft import config
from hoft.config import Callback
from hoft.web.ingress.callbacks.registrations import read_keys
from hoft.web.ingress.callbacks.signing import parse_key

from .test_cli import Command

URL = "https://shop.example/hooks"


class CallbackTests(Command):
    def setUp(self) -> None:
        super().setUp()
        self.well("init", self.near, "--folder", self.folder / "exchange")
        self.file = self.near / "hoft.toml"
        self.secret = self.near / "callback-shop.secret"

    def change(self, *arguments: object) -> tuple[str, str]:
        """Standard output, standard error."""
        code, out, err = self.run_in("callback", self.near, *arguments)
        self.assertEqual(code, 0, err)
        return out.strip(), err

    def registered(self) -> tuple[Callback, ...]:
        return config.read(self.file).callbacks

    def test_a_receiver_is_registered_and_its_secret_is_in_a_file_of_its_own(self) -> None:
        secret, said = self.change("add", "shop", "--url", URL)
        self.assertTrue(secret.startswith("whsec_"))
        self.assertIn("give it to nobody else", said)
        self.assertEqual(self.registered(), (Callback("shop", URL, self.secret),))
        self.assertEqual(read_keys(self.secret), [parse_key(secret)])
        self.assertEqual(stat.S_IMODE(self.secret.stat().st_mode), 0o600)
        self.assertNotIn(secret, self.file.read_text())
        self.assertRegex(self.well("list", self.near), rf"shop +{URL} +\(every caller\)\n")

    def test_who_may_name_it_and_where_it_may_lead(self) -> None:
        self.run_in("caller", self.near, "add", "ann")
        self.run_in("caller", self.near, "add", "bob")
        self.change("add", "shop", "--url", URL, "--caller", "ann", "--caller", "bob", "--private")
        self.assertEqual(self.registered(), (Callback("shop", URL, self.secret, ("ann", "bob"), True),))
        self.assertRegex(self.well("list", self.near), r"ann, bob +\(also private addresses\)\n")
        listed = json.loads(self.well("list", self.near, "--json"))["callbacks"]
        self.assertEqual(listed, [{"name": "shop", "url": URL, "callers": ["ann", "bob"], "private": True}])
        self.refused("no caller is called 'ann'", "caller", self.near, "remove", "ann")

    def test_a_renewed_secret_signs_beside_the_last_one(self) -> None:
        shown = [
            self.change(*words)[0] for words in (["add", "shop", "--url", URL], *2 * [["renew", "shop"]])
        ]
        self.assertEqual([key.secret() for key in read_keys(self.secret)], shown[:0:-1])

    def test_of_an_ed25519_key_the_public_half_is_shown(self) -> None:
        public, said = self.change("add", "shop", "--url", URL, "--ed25519")
        self.assertTrue(public.startswith("whpk_"))
        self.assertIn("no secret", said)
        [key] = read_keys(self.secret)
        self.assertEqual((key.identifier, key.shared()), ("v1a", public))
        renewed, _ = self.change("renew", "shop")
        self.assertTrue(renewed.startswith("whpk_"), "a key of the same kind")

    def test_what_is_removed_leaves_no_secret(self) -> None:
        self.change("add", "shop", "--url", URL)
        _, said = self.change("remove", "shop")
        self.assertIn("nothing is sent to shop", said)
        self.assertEqual(self.registered(), ())
        self.assertFalse(self.secret.exists())
        self.change("add", "shop", "--url", URL)
        mine = self.near / "mine.secret"
        self.secret.rename(mine)
        self.file.write_text(self.file.read_text().replace("callback-shop.secret", "mine.secret"))
        self.change("remove", "shop")
        self.assertTrue(mine.exists(), "a file of another name is not ours to remove")

    def test_mistakes(self) -> None:
        before, _ = self.change("add", "shop", "--url", URL)
        self.refused("is there already.*renew", "callback", self.near, "add", "shop", "--url", URL)
        self.assertEqual(read_keys(self.secret), [parse_key(before)])
        self.refused("--url: not given", "callback", self.near, "add", "other")
        self.refused("not http", "callback", self.near, "add", "other", "--url", "ftp://a/")
        self.refused("is no name", "callback", self.near, "add", "../x", "--url", URL)
        self.refused(
            "no caller is called 'x'", "callback", self.near, "add", "o", "--url", URL, "--caller", "x"
        )
        self.refused("'other'.*shop", "callback", self.near, "renew", "other")
        self.refused("'other'.*shop", "callback", self.near, "remove", "other")
        self.refused("--url with renew", "callback", self.near, "renew", "shop", "--url", URL)
        self.secret.chmod(0o644)
        self.refused("others may read this key", "callback", self.near, "renew", "shop")
        self.secret.unlink()
        self.refused("no key there", "callback", self.near, "renew", "shop")
        self.assertEqual(len(self.registered()), 1)

    def test_a_file_with_something_else_in_it(self) -> None:
        self.change("add", "shop", "--url", URL)
        self.secret.write_text("password\n")
        self.refused("a key begins with", "callback", self.near, "renew", "shop")
        self.secret.write_text("\n")
        self.refused("0 keys", "callback", self.near, "renew", "shop")

    def test_no_node_runs_that_could_be_asked(self) -> None:
        self.refused("no node runs", "callbacks", self.near)
        self.refused("no node runs", "callbacks", self.near, "--resend", "all")
