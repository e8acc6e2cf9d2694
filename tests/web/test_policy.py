"""What peers may reach: exactly what the rules name, however it is written."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import ConfigurationError
from hoft.web.client.policy import Grant, Policy, Rule, choose_peer, is_global, normal_host, path_segments
from hoft.web.http.fields import Authority, authority
from hoft.web.http.heads import Retry
from hoft.web.http.problems import Refused
from hoft.web.http.targets import Service, parse_target


def call(policy: Policy, url: str, peer: str = "beta") -> Grant:
    """Ask for C{url} as a caller of the generic form would."""
    scheme, _, rest = url.partition("://")
    service = parse_target(b"GET", f"/to/{scheme}/{rest}".encode("latin-1"))
    assert isinstance(service, Service)
    return policy.check(peer, service.scheme, service.authority, service.target)


class PolicyCase(SynchronousTestCase):
    def allows(self, rule: str, *urls: str) -> None:
        policy = Policy([Rule.parse(rule)])
        for url in urls:
            call(policy, url)

    def refuses(self, rule: str, *urls: str) -> None:
        policy = Policy([Rule.parse(rule)])
        for url in urls:
            try:
                call(policy, url)
            except Refused as error:
                self.assertIn(error.problem.status, (400, 403, 404), url)
            else:
                self.fail(f"{rule} let {url} through")


class OriginTests(PolicyCase):
    def test_nothing_is_allowed_at_first(self) -> None:
        error = self.assertRaises(Refused, call, Policy(), "http://example.com/")
        self.assertEqual(error.problem.status, 403)
        self.assertEqual(error.problem.proxy_error, "http_request_denied")

    def test_the_refusal_says_who_may_change_it(self) -> None:
        error = self.assertRaises(Refused, call, Policy(), "https://example.com:8443/secret?token=x")
        self.assertIn("https://example.com:8443; see 'hoft allow'", error.problem.detail)
        self.assertNotIn("token", error.problem.detail)

    def test_host_case_a_final_dot_and_the_default_port_make_no_difference(self) -> None:
        self.allows("https://Example.com/", "https://EXAMPLE.COM/", "https://example.com.:443/x?y")
        self.allows("http://example.com.:80", "http://example.com/")

    def test_scheme_host_and_port_are_equal_or_nothing(self) -> None:
        self.refuses(
            "https://example.com/",
            "http://example.com/",
            "https://example.com:444/",
            "https://www.example.com/",
            "https://example.com.evil.net/",
            "https://example.co/",
            "https://example.comevil/",
            "http://example.com:443/",
        )

    def test_ipv6_is_compared_as_an_address(self) -> None:
        self.allows("http://[2001:DB8:0:0::1]:8080/", "http://[2001:db8::1]:8080/")
        self.refuses("http://[2001:db8::1]/", "http://[2001:db8::2]/", "http://[2001:db8::1%25eth0]/")

    def test_a_peer_has_its_own_rules_and_those_for_all(self) -> None:
        policy = Policy([Rule.parse("http://a/", "beta"), Rule.parse("http://b/")])
        call(policy, "http://a/", "beta")
        call(policy, "http://b/", "gamma")
        self.assertRaises(Refused, call, policy, "http://a/", "gamma")

    def test_of_what_several_rules_say_of_retries_the_longest_path_decides(self) -> None:
        policy = Policy(
            [
                Rule.parse("http://a/", retry=Retry.ALWAYS, credentials="all"),
                Rule.parse("http://a/orders", retry=Retry.NEVER),
                Rule.parse("http://a/orders/old"),
            ]
        )
        for path, retry in (("", Retry.ALWAYS), ("orders", Retry.NEVER), ("orders/old/1", Retry.NEVER)):
            grant = call(policy, f"http://a/{path}")
            self.assertEqual((grant.retry, grant.credentials), (retry, "all"))
        self.assertIs(call(Policy([Rule.parse("http://a/")]), "http://a/").retry, None)

    def test_websocket_is_for_rules_that_say_so(self) -> None:
        rules = [
            Rule.parse("http://a/", credentials="all"),
            Rule.parse("http://a/talk", "beta", websocket=True),
            Rule.parse("http://a/talk/private", private=True),
        ]
        where = Authority("a")

        def ask(target: bytes, peer: str = "beta") -> Grant:
            return Policy(rules).check(peer, "http", where, target, websocket=True)

        self.assertEqual(ask(b"/talk/private/x"), Grant("http", "a", 80))
        for target, peer in ((b"/", "beta"), (b"/talks", "beta"), (b"/talk", "gamma")):
            error = self.assertRaises(Refused, ask, target, peer)
            self.assertIn("by WebSocket; see 'hoft allow'", error.problem.detail)
        self.assertEqual(Policy(rules).check("beta", "http", where, b"/talk").credentials, "all")

    def test_only_http_and_https_are_rules(self) -> None:
        for url in (
            "ftp://example.com/",
            "file:///etc/passwd",
            "example.com",
            "http://",
            "http://user:pass@example.com/",
            "http://example.com/?x=1",
            "http://example.com/#x",
            "http://example.com:0/",
            "http://example.com:65536/",
            "http://b\u00fccher.example/",
            "http://2130706433/",
            "http://example.com/a/../b",
            "http://example.com/a%2fb",
        ):
            error = self.assertRaises(ConfigurationError, Rule.parse, url)
            self.assertNotIn("pass@", str(error))


class PathTests(PolicyCase):
    def test_a_rule_without_a_path_is_for_the_whole_host(self) -> None:
        self.allows("http://h", "http://h", "http://h/", "http://h/a/b?c", "http://h?x", "http://h//a")

    def test_a_path_is_matched_by_whole_segments(self) -> None:
        for rule in ("http://h/api", "http://h/api/"):
            self.allows(rule, "http://h/api", "http://h/api/", "http://h/api/v1", "http://h/api?x=/../")
            self.refuses(rule, "http://h/", "http://h/apix", "http://h/ap", "http://h/x/api", "http://h//api")

    def test_case_matters_in_a_path(self) -> None:
        self.refuses("http://h/api", "http://h/API", "http://h/Api/x")

    def test_what_need_not_be_encoded_is_the_same_encoded(self) -> None:
        self.allows("http://h/api", "http://h/%61pi/x", "http://h/%61%70%69")
        self.allows("http://h/a%20b/", "http://h/a%20b/c")
        self.allows("http://h/%c3%bc", "http://h/%C3%BC/x")

    def test_the_query_is_not_judged(self) -> None:
        self.allows("http://h/api", "http://h/api?u=%2e%2e%2f..\\")

    def test_ways_out_of_the_prefix_are_refused(self) -> None:
        self.refuses("http://h/api/", *(f"http://h/api/{way}" for way in WAYS_OUT))

    def test_ways_out_are_refused_where_the_whole_host_is_allowed_as_well(self) -> None:
        self.refuses("http://h/", *(f"http://h/api/{way}" for way in WAYS_OUT))

    def test_ordinary_odd_paths_pass(self) -> None:
        self.allows(
            "http://h/api",
            "http://h/api/...",
            "http://h/api/a..b",
            "http://h/api/.well-known",
            "http://h/api/a%20b%25c",
            "http://h/api/%E2%82%AC",
            "http://h/api/%C0",
            "http://h/api/a;v=1,b",
            "http://h/api/~u/@x:y/!$&'()*+=",
            "http://h/api/100%25/z",
            "http://h/api/%2541",
            "http://h/api/%2525",
        )

    def test_options_for_the_server_needs_a_rule_for_the_whole_host(self) -> None:
        Policy([Rule.parse("http://h/")]).check("beta", "http", Authority("h"), b"*")
        narrow = Policy([Rule.parse("http://h/api")])
        self.assertRaises(Refused, narrow.check, "beta", "http", Authority("h"), b"*")

    def test_a_target_that_is_no_path_is_refused(self) -> None:
        self.assertRaises(Refused, path_segments, b"api")
        self.assertRaises(Refused, path_segments, b"")


WAYS_OUT = (
    "..",
    "../",
    "../admin",
    "./",
    "x/../../admin",
    "%2e%2e/admin",
    "%2E%2E/admin",
    ".%2e/admin",
    "%2e./admin",
    "%2e",
    "a%2eb",
    "..%2fadmin",
    "..%2Fadmin",
    "%2fadmin",
    "a%2fb",
    "..%5cadmin",
    "..\\admin",
    "a%5Cb",
    "%252e%252e/admin",
    "%252fadmin",
    "%25252e%25252e/",
    "%25%32%65",
    "..;/admin",
    "..;x=1/admin",
    ".;/admin",
    "%2e%2e;/admin",
    "%c0%ae%c0%ae/admin",
    "%c0%af",
    "%C1%9c",
    "%e0%80%ae/",
    "%f0%80%80%ae/",
    "%25c0%25ae/",
    "%00",
    "a%00/../x",
    "%0d%0aHost:%20x",
    "%0a",
    "%7f",
    "%",
    "%2",
    "%u002e%u002e/",
    "%zz",
)


class HostTests(PolicyCase):
    """SSRF: ways to write a host so that a filter and a resolver disagree."""

    def test_an_address_has_one_form(self) -> None:
        for host in (
            "2130706433",
            "127.1",
            "127.0.1",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.01",
            "127.0.0.1.",
            "127.0.0.256",
            "1.2.3.4.5",
            "0",
            "0x",
            "example.0x1",
            "example.1",
        ):
            self.assertRaises(Refused, normal_host, host)

    def test_names_that_only_look_like_addresses_pass(self) -> None:
        for host in ("1.example", "0x7f.example.", "127.0.0.1.nip.io", "4chan", "3com.com", "a-1"):
            self.assertEqual(normal_host(host), host.removesuffix("."))

    def test_empty_labels_are_refused(self) -> None:
        for host in ("", ".", "..", ".a", "a..b", "a.."):
            self.assertRaises(Refused, normal_host, host)

    def test_ipv6_has_one_form(self) -> None:
        self.assertEqual(normal_host("0:0:0:0:0:0:0:1"), "::1")
        self.assertRaises(Refused, normal_host, "::1::")
        self.assertRaises(Refused, normal_host, "a:b")

    def test_tricks_with_credentials_and_separators_lead_nowhere(self) -> None:
        self.refuses(
            "http://allowed.example/",
            "http://allowed.example@evil.example/",
            "http://allowed.example:80@evil.example/",
            "http://evil.example#@allowed.example/",
            "http://evil.example\\@allowed.example/",
            "http://evil.example%2f@allowed.example@x/",
            "http://evil.example?@allowed.example/",
            "http://evil.example;allowed.example/",
            "http://allowed.example%00.evil.example/",
            "http://allowed.example%2eevil.example/",
            "http://%61llowed.example/",
            "http://allowed.example:80:80/",
            "http://allowed.example:+80/",
            "http://allowed.example: 80/",
            "http://allowed.example:080000/",
            "http:///allowed.example/",
            "http://[allowed.example]/",
            "http://allowed\u2024example/".encode().decode("latin-1"),
            "http://\u24d0llowed.example/".encode().decode("latin-1"),
            "http://allowed\u3002example/".encode().decode("latin-1"),
        )

    def test_credentials_of_the_allowed_host_are_no_obstacle(self) -> None:
        self.allows("http://allowed.example/", "http://user:pa%40ss@allowed.example/")

    def test_other_schemes_lead_nowhere(self) -> None:
        for scheme in ("file", "ftp", "gopher", "dict", "ws", "httpx", "HTTPS:"):
            self.refuses("http://h/", f"{scheme}://h/")
        self.assertRaises(Refused, Policy().check, "beta", "file", Authority("h"), b"/")


class AddressTests(SynchronousTestCase):
    def grant(self, url: str, private: bool = False) -> Grant:
        return call(Policy([Rule.parse(url, private=private)]), url)

    def test_a_name_leads_to_public_addresses(self) -> None:
        grant = self.grant("https://example.com/")
        for address in ("93.184.216.34", "8.8.8.8", "2606:4700::1", "64:ff9b::808:808"):
            self.assertTrue(grant.permits(address), address)

    def test_a_name_does_not_lead_inside(self) -> None:
        grant = self.grant("https://example.com/")
        for address in INSIDE:
            self.assertFalse(grant.permits(address), address)

    def test_what_is_no_address_is_not_permitted(self) -> None:
        grant = self.grant("https://example.com/", private=True)
        for text in ("", "example.com", "2130706433", "127.1", "fe80::1%eth0", "[::1]", "10.0.0.1/8"):
            self.assertFalse(grant.permits(text), text)

    def test_private_adds_private_networks_only(self) -> None:
        grant = self.grant("https://intranet.example/", private=True)
        for address in ("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd12::1"):
            self.assertTrue(grant.permits(address), address)
        for address in (
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "::ffff:10.1.2.3",
            "fd00:ec2::254",
            "100.100.100.200",
            "172.32.0.1.",
        ):
            self.assertFalse(grant.permits(address), address)

    def test_a_rule_for_an_address_is_for_that_one_alone(self) -> None:
        for url, address in (
            ("http://127.0.0.1:8080/", "127.0.0.1"),
            ("http://[::1]/", "::1"),
            ("http://10.0.0.5/", "10.0.0.5"),
            ("http://169.254.169.254/", "169.254.169.254"),
            ("http://[::ffff:127.0.0.1]/", "::ffff:127.0.0.1"),
        ):
            grant = self.grant(url)
            self.assertTrue(grant.permits(address), address)
            for other in {"127.0.0.2", "8.8.8.8", "::2", "127.0.0.1", "::ffff:127.0.0.1"} - {address}:
                self.assertFalse(grant.permits(other), f"{url} {other}")

    def test_localhost_is_this_machine_alone(self) -> None:
        grant = self.grant("http://localhost:8000/")
        self.assertTrue(grant.permits("127.0.0.1"))
        self.assertTrue(grant.permits("::1"))
        for address in ("8.8.8.8", "10.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"):
            self.assertFalse(grant.permits(address), address)

    def test_a_mapped_loopback_is_not_loopback(self) -> None:
        policy = Policy([Rule.parse("http://127.0.0.1/")])
        for host in ("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "localhost"):
            self.assertRaises(Refused, call, policy, f"http://{host}/")

    def test_private_holds_only_for_the_rule_that_says_so(self) -> None:
        rules = [Rule.parse("http://h/a", private=True), Rule.parse("http://h/b")]
        policy = Policy(rules)
        self.assertTrue(call(policy, "http://h/a/x").permits("10.0.0.1"))
        self.assertFalse(call(policy, "http://h/b/x").permits("10.0.0.1"))

    def test_the_grant_names_the_host_as_it_is_to_be_resolved(self) -> None:
        grant = call(Policy([Rule.parse("https://example.com")]), "https://EXAMPLE.com.:443/x")
        self.assertEqual((grant.scheme, grant.host, grant.port), ("https", "example.com", 443))

    def test_every_inside_address_is_told_from_the_public_ones(self) -> None:
        for address in INSIDE:
            self.assertFalse(is_global(ip_address(address)), address)


INSIDE = (
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.0.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001::1",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
)


class ChoosePeerTests(SynchronousTestCase):
    def test_the_only_peer_takes_all(self) -> None:
        self.assertEqual(choose_peer("anything", ["beta"]), "beta")

    def test_the_default_peer_takes_all(self) -> None:
        self.assertEqual(choose_peer("anything", ["beta", "gamma"], default="gamma"), "gamma")

    def test_a_forward_goes_before_the_default_and_the_first_counts(self) -> None:
        forwards = [("a.example", "alpha"), ("*.example", "beta"), ("*", "gamma")]
        peers = ["alpha", "beta", "gamma", "delta"]
        for host, peer in (
            ("a.example", "alpha"),
            ("A.EXAMPLE.", "alpha"),
            ("b.a.example", "beta"),
            ("example", "gamma"),
            ("badexample", "gamma"),
            ("::1", "gamma"),
        ):
            self.assertEqual(choose_peer(host, peers, forwards, "delta"), peer, host)

    def test_an_address_can_be_forwarded(self) -> None:
        forwards = [("[2001:DB8:0::1]", "alpha"), ("10.0.0.1", "beta")]
        self.assertEqual(choose_peer("2001:db8::1", ["alpha", "beta"], forwards), "alpha")
        self.assertEqual(choose_peer("10.0.0.1", ["alpha", "beta"], forwards), "beta")

    def test_otherwise_the_choices_are_named(self) -> None:
        error = self.assertRaises(Refused, choose_peer, "h", ["beta", "alpha"], [("x", "alpha")])
        self.assertEqual(error.problem.status, 502)
        self.assertIn("alpha, beta", error.problem.detail)

    def test_without_peers_that_is_said(self) -> None:
        error = self.assertRaises(Refused, choose_peer, "h", [])
        self.assertEqual(error.problem.status, 502)
        self.assertIn("trusts no peer", error.problem.detail)

    def test_a_host_that_is_none_is_refused(self) -> None:
        error = self.assertRaises(Refused, choose_peer, "127.1", ["beta"])
        self.assertEqual(error.problem.status, 400)


class AuthorityTests(SynchronousTestCase):
    def test_credentials_are_not_shown(self) -> None:
        where = authority(b"user:secret@example.com:81", credentials=True)
        self.assertEqual(str(where), "example.com:81")
        self.assertNotIn("secret", repr(where))
