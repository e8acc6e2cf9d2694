"""What the request line asks for, and what a route's answers look like to its caller."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hoft.web.http.fields import Authority
from hoft.web.http.problems import Refused
from hoft.web.http.targets import (
    Mount,
    Own,
    Route,
    Service,
    Tunnel,
    parse_target,
    parse_url,
    remove_dot_segments,
)


class ParseTests(SynchronousTestCase):
    def refuses(self, status: int, *targets: bytes, method: bytes = b"GET") -> None:
        for target in targets:
            try:
                found = parse_target(method, target)
            except Refused as error:
                self.assertEqual(error.problem.status, status, target)
            else:
                self.fail(f"{target!r} was read as {found}")

    def test_a_route_is_named_after_svc(self) -> None:
        for target, rest in (
            (b"/svc/orders", b""),
            (b"/svc/orders/", b"/"),
            (b"/svc/orders?x=1", b"?x=1"),
            (b"/svc/orders/a/b?x=/../y", b"/a/b?x=/../y"),
            (b"/svc/orders//a", b"//a"),
        ):
            self.assertEqual(parse_target(b"GET", target), Route("orders", rest))

    def test_what_follows_is_passed_on_byte_for_byte(self) -> None:
        rest = b'/a%2Fb/%2e%2e/../x;y=%zz?q=%00&[]{}|^`"<>\\'
        self.assertEqual(parse_target(b"GET", b"/svc/n" + rest), Route("n", rest))
        found = parse_target(b"GET", b"/to/http/h" + rest)
        self.assertEqual(found, Service("http", Authority("h"), rest))

    def test_a_routes_name_is_a_plain_word(self) -> None:
        self.refuses(404, b"/svc/", b"/svc//a", b"/svc/..", b"/svc/.x/", b"/svc/a%20b/", b"/svc/" + b"a" * 64)

    def test_any_service_is_reached_through_to(self) -> None:
        for target, service in (
            (b"/to/http/h", Service("http", Authority("h"), b"/")),
            (b"/to/HTTPS/H.example:8443/a?b", Service("https", Authority("h.example", 8443), b"/a?b")),
            (b"/to/http/h?x", Service("http", Authority("h"), b"/?x")),
            (b"/to/http/[::1]:80/", Service("http", Authority("::1", 80), b"/")),
            (b"/to/http/u:p@h/", Service("http", Authority("h", None, b"u:p"), b"/")),
        ):
            self.assertEqual(parse_target(b"POST", target), service)

    def test_an_unfinished_generic_form_leads_nowhere(self) -> None:
        self.refuses(
            404, b"/to/", b"/to/http", b"/to/ftp/h/", b"/to/file/etc/passwd", b"/to//h", b"/to/http:/h"
        )
        self.refuses(400, b"/to/http/", b"/to/http//", b"/to/http/?x", b"/to/http/h:x/", b"/to/http/a%2eb/")

    def test_absolute_form_is_for_a_proxy(self) -> None:
        """RFC 9112 section 3.2.2."""
        for target, service in (
            (b"http://h/a?b", Service("http", Authority("h"), b"/a?b", True)),
            (b"HTTP://H:81", Service("http", Authority("h", 81), b"/", True)),
            (b"https://h?x", Service("https", Authority("h"), b"/?x", True)),
            (b"http://u:p@h//a", Service("http", Authority("h", None, b"u:p"), b"//a", True)),
        ):
            self.assertEqual(parse_target(b"GET", target), service)

    def test_only_http_and_https_are_carried(self) -> None:
        self.refuses(400, b"ftp://h/", b"file:///etc/passwd", b"http:h/", b"http:/h/", b"javascript:alert(1)")
        self.refuses(400, b"http://", b"http:///x", b"http://:80/", b"h:443", b"h/a", b"?x", b"a")

    def test_options_of_a_server_has_an_asterisk(self) -> None:
        """RFC 9112 section 3.2.4."""
        self.assertEqual(parse_target(b"OPTIONS", b"*"), Own(b"*"))
        self.assertEqual(
            parse_target(b"OPTIONS", b"http://h:8001"), Service("http", Authority("h", 8001), b"*", True)
        )
        self.assertEqual(parse_target(b"OPTIONS", b"http://h/"), Service("http", Authority("h"), b"/", True))
        self.refuses(400, b"*")
        self.refuses(400, b"**", b"*/", method=b"OPTIONS")

    def test_connect_names_a_host_and_a_port(self) -> None:
        """RFC 9112 section 3.2.3."""
        self.assertEqual(parse_target(b"CONNECT", b"H.example:443"), Tunnel("h.example", 443))
        self.assertEqual(parse_target(b"CONNECT", b"[::1]:22"), Tunnel("::1", 22))
        self.refuses(
            400, b"h", b"/", b"h:0", b"h:", b":443", b"http://h:443", b"u@h:443", b"h:443/", method=b"CONNECT"
        )

    def test_the_gateway_has_a_place_of_its_own(self) -> None:
        self.assertEqual(parse_target(b"GET", b"/_hoft/status?x"), Own(b"/status?x"))
        self.assertEqual(parse_target(b"GET", b"/_hoft"), Own(b""))
        self.refuses(404, b"/_hoftx", b"/")

    def test_every_other_path_leads_nowhere(self) -> None:
        self.refuses(404, b"/", b"/svc", b"/to", b"/SVC/a/", b"//svc/a", b"/x/../svc/a", b"/%73vc/a/")

    def test_a_target_is_visible_ascii_without_fragment(self) -> None:
        self.refuses(
            400, b"", b"/svc/a b", b"/svc/a/\r\nX:", b"/svc/a/\x00", b"/svc/a/\xff", b"/svc/a/#x", b"/\x7f"
        )

    def test_a_service_does_not_show_its_path_or_credentials(self) -> None:
        self.assertNotIn("canary", repr(parse_target(b"GET", b"http://u:canary@h/canary?canary")))
        self.assertNotIn("canary", repr(parse_target(b"GET", b"/svc/r/canary")))

    def test_a_refusal_does_not_show_what_may_be_a_password(self) -> None:
        for target in (
            b"/to/http/user%3Acanary%40h/",
            b"/to/http/user:canary/x@h/",
            b"http://user:canary/x@h/",
            b"http://user:canary[@h/",
            b"http://user:canary@h:x/",
            b"canary:canary@h/",
            b"//user:canary@h/",
            b"/svc/user:canary@h/",
        ):
            refusal = self.assertRaises(Refused, parse_target, b"GET", target)
            self.assertNotIn("canary", repr(refusal.problem), target)
        refusal = self.assertRaises(Refused, parse_target, b"CONNECT", b"user:canary@h:443")
        self.assertNotIn("canary", repr(refusal.problem))


class UrlTests(SynchronousTestCase):
    def test_a_url_names_a_service(self) -> None:
        self.assertEqual(
            parse_url("https://H:8443/base"), Service("https", Authority("h", 8443), b"/base", True)
        )

    def test_what_is_no_url_is_refused(self) -> None:
        for url in ("", "h", "/a", "ftp://h", "http://h/#x", "http://h/ x", "http://\u00fc/", "http://h:0"):
            self.assertRaises(Refused, parse_url, url)


class MountTests(SynchronousTestCase):
    def there(self, base: str, rest: bytes) -> bytes:
        service = Mount.parse("r", base).service(rest)
        return f"{service.scheme}://{service.authority}".encode() + service.target

    def test_the_rest_follows_the_base(self) -> None:
        for base, rest, url in (
            ("http://h", b"", b"http://h/"),
            ("http://h", b"/", b"http://h/"),
            ("http://h", b"/a?b", b"http://h/a?b"),
            ("http://h", b"?b", b"http://h/?b"),
            ("http://h/", b"/a", b"http://h/a"),
            ("http://h/api", b"", b"http://h/api"),
            ("http://h/api", b"/", b"http://h/api/"),
            ("http://h/api", b"?x", b"http://h/api?x"),
            ("http://h/api/", b"", b"http://h/api/"),
            ("http://h/api/", b"/a//b", b"http://h/api/a//b"),
            ("http://h/api", b"/../b%2f", b"http://h/api/../b%2f"),
            ("https://[::1]:8443/a", b"/b", b"https://[::1]:8443/a/b"),
        ):
            self.assertEqual(self.there(base, rest), url)

    def test_credentials_of_the_base_go_along(self) -> None:
        service = Mount.parse("r", "http://u:p@h/").service(b"/x")
        self.assertEqual(service.authority.credentials, b"u:p")

    def test_a_mount_needs_a_plain_name(self) -> None:
        self.assertRaises(Refused, Mount.parse, "a/b", "http://h")


class LocationTests(SynchronousTestCase):
    def check(self, base: str, cases: dict[bytes, bytes], target: bytes = b"/api/v1/x?y") -> None:
        mount = Mount.parse("r", base)
        for given, seen in cases.items():
            self.assertEqual(mount.location(given, target), seen, given)

    def test_the_services_own_urls_lead_through_the_route(self) -> None:
        self.check(
            "https://h/api",
            {
                b"https://h/api": b"/svc/r",
                b"https://h/api/": b"/svc/r/",
                b"https://H:443/api/a?b#c": b"/svc/r/a?b#c",
                b"HTTPS://h/api?x": b"/svc/r?x",
                b"//h/api/a": b"/svc/r/a",
                b"/api/a%2Fb": b"/svc/r/a%2Fb",
                b"/api": b"/svc/r",
                b"/x/../api/a": b"/svc/r/a",
            },
        )

    def test_without_a_base_path_all_of_the_host_does(self) -> None:
        self.check(
            "http://h:8080/",
            {
                b"/": b"/svc/r/",
                b"/a": b"/svc/r/a",
                b"http://h:8080": b"/svc/r/",
                b"http://h:8080?x": b"/svc/r/?x",
                b"//h:8080/a": b"/svc/r/a",
            },
        )

    def test_what_lies_beside_the_base_is_named_in_full(self) -> None:
        self.check(
            "https://h/api",
            {
                b"/": b"https://h/",
                b"/login?next=/api": b"https://h/login?next=/api",
                b"/apix": b"https://h/apix",
                b"/api/../secret": b"https://h/secret",
                b"https://h/login": b"https://h/login",
                b"../../login": b"https://h/login",
            },
        )

    def test_other_places_are_left_alone(self) -> None:
        cases = (
            b"http://h/api/a",
            b"https://h:8443/api/",
            b"https://other/api/",
            b"https://h.evil/api",
            b"https://u@other/",
            b"mailto:a@b",
            b"urn:x:y",
            b"https:a",
            b"https://h:x/api",
        )
        self.check("https://h/api", {case: case for case in cases})

    def test_relative_ones_stay_relative_while_they_stay_below(self) -> None:
        self.check(
            "https://h/api",
            {case: case for case in (b"next", b"a/b?c", b"./a", b"a/../b", b"", b"?x", b"#f")},
        )

    def test_relative_ones_that_climb_are_resolved(self) -> None:
        """RFC 3986 section 5.2."""
        self.check(
            "https://h/api",
            {b"../y": b"/svc/r/y", b"..": b"/svc/r/", b"../..": b"https://h/", b"a/../../b?c": b"/svc/r/b?c"},
        )

    def test_relative_to_the_base_itself(self) -> None:
        """The caller's C{/svc/r} and the service's C{/api} have different parents."""
        self.check("https://h/api", {b"x": b"https://h/x", b"?q": b"?q"}, target=b"/api")

    def test_dot_segments_are_removed(self) -> None:
        """RFC 3986 section 5.2.4."""
        for path, clean in {
            b"/a/b/c/./../../g": b"/a/g",
            b"/../../g": b"/g",
            b"/a/..": b"/",
            b"/a/.": b"/a/",
            b"/": b"/",
            b"//a//..": b"//a/",
            b"/a/...": b"/a/...",
        }.items():
            self.assertEqual(remove_dot_segments(path), clean)


class SetCookieTests(SynchronousTestCase):
    def check(self, base: str, cases: dict[bytes, bytes], secure: bool = True) -> None:
        mount = Mount.parse("r", base)
        for given, seen in cases.items():
            self.assertEqual(mount.set_cookie(given, secure), seen, given)

    def test_the_domain_goes(self) -> None:
        """RFC 6265 section 5.3: without Domain it is for the gateway's host alone."""
        self.check("http://h/", {b"a=b; Domain=h; HttpOnly": b"a=b; HttpOnly", b"a=b;domain=.h": b"a=b"})

    def test_the_path_is_moved_below_the_route(self) -> None:
        self.check(
            "http://h/api",
            {
                b"a=b; Path=/api/x": b"a=b; Path=/svc/r/x",
                b"a=b; PATH=/api/": b"a=b; Path=/svc/r",
                b"a=b; path=/api": b"a=b; Path=/svc/r",
                b"a=b; Path=/": b"a=b; Path=/svc/r",
                b"a=b; Path=/apix": b"a=b; Path=/svc/r/apix",
                b"a=b; Path=/svc/other": b"a=b; Path=/svc/r/svc/other",
            },
        )
        self.check(
            "http://h", {b"a=b; Path=/": b"a=b; Path=/svc/r", b"a=b; Path=/x/": b"a=b; Path=/svc/r/x/"}
        )

    def test_without_a_path_the_caller_takes_its_own(self) -> None:
        """RFC 6265 section 5.2.4: as where it does not begin with a slash."""
        self.check("http://h/", {b"a=b": b"a=b", b"a=b; Path": b"a=b; Path", b"a=b; Path=x": b"a=b; Path=x"})

    def test_what_needs_tls_goes_where_there_is_none(self) -> None:
        given = b"a=b; Secure; SameSite=None; Partitioned; Max-Age=5"
        self.check("https://h/", {given: b"a=b; Max-Age=5"}, secure=False)
        self.check("https://h/", {b"a=b; SameSite=Lax": b"a=b; SameSite=Lax"}, secure=False)
        self.check("https://h/", {given: given}, secure=True)

    def test_value_and_other_attributes_are_untouched(self) -> None:
        given = b'sid="x y=/=; Expires=Wed, 21 Oct 2026 07:28:00 GMT;HttpOnly;  X=y;;'
        self.check("http://h/", {given: given})
