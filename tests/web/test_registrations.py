"""Which receiver a URL is of, and who may name it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hoft.config import Callback
from hoft.errors import IdentityError
from hoft.web.http.problems import Refused
from hoft.web.ingress.callbacks.registrations import Registrations, read_keys
from hoft.web.ingress.callbacks.signing import SymmetricKey


def keys(name: str) -> list[SymmetricKey]:
    """Those of the registration of that name."""
    return [SymmetricKey(name.encode() * 24)]


def registrations(*callbacks: Callback) -> Registrations:
    return Registrations(callbacks, {one.name: keys(one.name) for one in callbacks})


def callback(name: str, url: str, callers: tuple[str, ...] = (), private: bool = False) -> Callback:
    return Callback(name, url, Path(name), callers, private)


class FindTests(SynchronousTestCase):
    def refused(self, among: Registrations, url: str, caller: str | None = None) -> None:
        error = self.assertRaises(Refused, among.find, url, caller)
        self.assertEqual(error.problem.kind, "callback-refused")

    def test_what_a_url_means(self) -> None:
        among = registrations(callback("shop", "https://Shop.example:8443/hooks/"))
        found = among.find("https://shop.example.:8443/hooks/a%20b?c=d/../e", None)
        self.assertEqual(found.keys, keys("shop"))
        self.assertEqual(found.host, b"shop.example.:8443")
        self.assertEqual(found.target, b"/hooks/a%20b?c=d/../e")
        grant = found.grant
        self.assertEqual((grant.scheme, grant.host, grant.port), ("https", "shop.example", 8443))
        self.assertEqual(among.find("https://shop.example:8443/hooks", None).target, b"/hooks")

    def test_of_several_the_longest_path_signs(self) -> None:
        among = registrations(
            callback("all", "http://a.example/"), callback("some", "http://a.example/some/hooks")
        )
        self.assertEqual(among.find("http://a.example/some", None).keys, keys("all"))
        found = among.find("http://a.example/some/hooks/7", None)
        self.assertEqual(found.keys, keys("some"))

    def test_who_may(self) -> None:
        among = registrations(
            callback("both", "http://a.example/", ("ann", "bob")), callback("any", "http://b.example/")
        )
        for named in ("ann", "bob"):
            self.assertEqual(among.find("http://a.example/", named).keys, keys("both"))
        for other in ("eve", None):
            self.refused(among, "http://a.example/", other)
            self.assertEqual(among.find("http://b.example/", other).keys, keys("any"))

    def test_private_addresses_are_for_those_that_say_so(self) -> None:
        among = registrations(
            callback("inner", "http://a.example/inner", private=True), callback("outer", "http://a.example/")
        )
        for path, private in (("inner/7", True), ("7", False)):
            grant = among.find(f"http://a.example/{path}", None).grant
            self.assertEqual(grant.permits("10.1.2.3"), private, path)
            self.assertTrue(grant.permits("93.184.216.34"))
            for never in ("127.0.0.1", "169.254.169.254", "::1", "fe80::1", "0.0.0.0"):
                self.assertFalse(grant.permits(never), never)


class FileTests(SynchronousTestCase):
    def test_keys_are_in_a_file_that_nobody_else_reads(self) -> None:
        path = Path(self.mktemp())
        key = SymmetricKey(bytes(24))
        path.write_text(f"{key.secret()}\n" * 2)
        path.chmod(0o600)
        self.assertEqual(read_keys(path), [key, key])
        path.write_text(f"{key.secret()}\n" * 9)
        self.assertIn("9 keys", str(self.assertRaises(IdentityError, read_keys, path)))
        path.chmod(0o640)
        self.assertIn("others may read", str(self.assertRaises(IdentityError, read_keys, path)))
