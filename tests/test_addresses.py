"""Addresses: what is taken as an endpoint, a URL prefix or a host pattern, and what is refused."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.trial.unittest import SynchronousTestCase

from hoft.addresses import (
    check_allowed,
    check_endpoint,
    check_host_pattern,
    check_tcp_target,
    check_url,
    endpoint_in,
    local_endpoint,
)
from hoft.errors import ConfigurationError


class UrlTests(SynchronousTestCase):
    def test_prefixes_are_taken_as_they_are(self) -> None:
        for url in (
            "http://h", "https://stock.example/", "http://127.0.0.1:8000/a/b", "http://[::1]:1/x",
            "HTTP://H.EXAMPLE./a%20b;c=d", "http://xn--bcher-kva.example", "http://h/a:b@c", "http://my_host:65535",
        ):  # fmt: skip
            self.assertEqual(check_url("w", "k", url), url)

    def test_what_could_be_read_in_two_ways_is_refused(self) -> None:
        for url in (
            "", "h", "//h", "/a", "h:80", "ftp://h", "file:///etc/passwd", "http:h", "http:///a", "http://", "http://:80",
            "http://h:", "http://h:0", "http://h:65536", "http://h:x", "http://u@h", "http://u:p@h", "http://h?q",
            "http://h/?q=1", "http://h#f", "http://h/a b", "http://h/\n", "http://h\\@evil", "http://h/a\\b", "http://é",
            "http://h/%", "http://h/%zz", "http://h/..", "http://h/a/../b", "http://h/./a", "http://h/%2e%2E/a",
            "http://h/a%2fb", "http://h/a%5Cb", "http://[::1", "http://[fe80::1%25eth0]", "http://[1.2.3.4]", "http://a..b",
            "http://h%41", "http://" + "a" * 64, "http://h|x", "http://2130706433/", "http://127.1", "http://0x7f.1:80",
            "http://a.example.1", "http://127.0.0.1.", "http://127.0.0.01",
            "http://a[::1]", "http://[::1]b", "http://h/..;a", "http://h/.;", "http://h/%00",
            "http://h/%252e", "http://h/%c0%ae",
        ):  # fmt: skip
            with self.assertRaises(ConfigurationError, msg=url) as caught:
                check_url("w", "k", url)
            self.assertNotIn("\n", str(caught.exception))
            self.assertTrue(str(caught.exception).startswith("w: k: "))

    def test_a_password_is_not_repeated(self) -> None:
        for url in ("http://u:canary@h", "https://u:canary/x@h", "http://u:canary?x@h", "u:canary@h"):
            refusal = self.assertRaises(ConfigurationError, check_url, "w", "k", url)
            self.assertNotIn("canary", str(refusal))


class EndpointTests(SynchronousTestCase):
    def test_endpoints_that_only_this_machine_reaches_are_taken_and_twisted_knows_them(self) -> None:
        for description in (
            "tcp:8080:interface=127.0.0.1", "tcp:port=0:interface=127.1.2.3:backlog=5", "tcp:0:127.0.0.1",
            r"tcp6:8080:interface=\:\:1", r"tcp6:8080:5:\:\:1", "unix:/run/x.sock",
            "unix:/run/x.sock:mode=660",
            r"unix:address=/run/a\:b\=c:lockfile=0", "unix:/run/x.sock:600:5",
        ):  # fmt: skip
            self.assertEqual(check_endpoint("w", "k", description), description)
            serverFromString(reactor, description)

    def test_endpoints_that_others_reach_are_refused_while_callers_are_not_asked_who_they_are(self) -> None:
        for description in (
            "tcp:8080", "tcp:8080:interface=", "tcp:8080:interface=0.0.0.0", "tcp:8080:interface=192.0.2.1",
            "tcp:8080:interface=localhost", "tcp6:8080", r"tcp6:8080:interface=\:\:",
            "tcp:8080:interface=127.0.0.1.x",
        ):  # fmt: skip
            with self.assertRaisesRegex(
                ConfigurationError, "callers are not asked who they are", msg=description
            ):
                check_endpoint("w", "k", description)

    def test_the_relative_path_of_a_socket_starts_in_a_folder(self) -> None:
        folder = Path("/srv/a:b=c\\d")
        for description in ("unix:x.sock:mode=660", "unix:mode=660:x.sock", "unix:mode=660:address=x.sock"):
            self.assertEqual(endpoint_in(folder, description), "unix:/srv/a\\:b\\=c\\\\d/x.sock:mode=660")
        self.assertEqual(
            serverFromString(reactor, endpoint_in(folder, "unix:x.sock"))._address, f"{folder}/x.sock"
        )
        for description in ("unix:/run/x.sock", "tcp:1:interface=127.0.0.1"):
            self.assertEqual(endpoint_in(folder, description), description)

    def test_whatever_else_is_no_endpoint_of_ours(self) -> None:
        for description in (
            "", "8080", "127.0.0.1:8080", "tcp", "tcp:", "tcp:x:interface=127.0.0.1",
            "tcp:65536:interface=127.0.0.1",
            "tcp:-1:interface=127.0.0.1", "tcp:1:interface=127.0.0.1:colour=red", "tcp:1:127.0.0.1:5:6",
            "unix", "unix:", "unix:/x:mode=999", "unix:/x:mode=abc", "unix:/x:mode=", "unix:/x:lockfile=yes",
            "unix:/x:colour=red", "unix:/x:address=/y", "unix:/" + 107 * "x", "unix:/x\0", "unix:mode=660",
            "tcp:1:interface=127.0.0.1:port=2", "tcp:1:interface=127.0.0.1:backlog=\u0663",
            "tcp:1:interface=127.0.0.1:backlog=9999999999", r"tcp6:8080:\:\:1",
            "tcp:1:interface=127.0.0.1:backlog=x", "systemd:domain=INET:index=0", "ssl:443", "fd:3", "stdio:",
        ):  # fmt: skip
            with self.assertRaises(ConfigurationError, msg=description):
                check_endpoint("w", "k", description)


class TcpTests(SynchronousTestCase):
    def test_targets_are_a_host_and_a_port(self) -> None:
        for target in ("h:1", "db.plant.lan:5432", "127.0.0.1:22", "[::1]:65535"):
            self.assertEqual(check_tcp_target("w", "k", target), target)
            self.assertEqual(check_allowed("w", "k", f"tcp://{target}/"), f"tcp://{target}")
        self.assertEqual(check_allowed("w", "k", "http://h/a"), "http://h/a")

    def test_other_targets_are_refused(self) -> None:
        for target in (
            "",
            "h",
            "h:",
            ":22",
            "h:0",
            "h:65536",
            "h:x",
            "::1:22",
            "[h]:22",
            "u@h:22",
            "h/a:22",
            "h:22/a",
            "127.1:22",
            "2130706433:22",
        ):
            for check, text in ((check_tcp_target, target), (check_allowed, f"tcp://{target}")):
                with self.assertRaises(ConfigurationError, msg=text) as caught:
                    check("w", "k", text)
                self.assertNotIn("\n", str(caught.exception))

    def test_where_to_listen_may_be_said_in_short(self) -> None:
        for text, endpoint in (
            ("2222", "tcp:2222:interface=127.0.0.1"),
            ("localhost:2222", "tcp:2222:interface=127.0.0.1"),
            ("127.0.0.5:2222", "tcp:2222:interface=127.0.0.5"),
            ("[::1]:2222", r"tcp6:2222:interface=\:\:1"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("tcp:1:interface=127.0.0.1", "tcp:1:interface=127.0.0.1"),
        ):
            self.assertEqual(local_endpoint("w", "k", text), endpoint)
            serverFromString(reactor, endpoint)

    def test_a_port_out_of_range_is_named_as_such(self) -> None:
        for text in ("99999", "70000", "-1", "80a", "", "127.0.0.1:65536", "[::1]:-1"):
            error = self.assertRaises(ConfigurationError, local_endpoint, "w", "k", text)
            self.assertEqual(error.given, f"{text!r} has no port from 1 to 65535")
        error = self.assertRaises(ConfigurationError, local_endpoint, "w", "k", "systemd:domain=INET:index=0")
        self.assertIn("of a kind", error.given)

    def test_others_never_reach_it(self) -> None:
        for text in (
            "0.0.0.0:2222",
            "*:2222",
            ":65536",
            "192.0.2.1:22",
            "[::]:22",
            "host:22",
            "tcp:2222",
            "",
        ):
            with self.assertRaises(ConfigurationError, msg=text):
                local_endpoint("w", "k", text)


class HostPatternTests(SynchronousTestCase):
    def test_hosts_and_suffixes_are_taken(self) -> None:
        for pattern in ("*", "h", "stock.example", "*.example", "127.0.0.1", "[::1]"):
            self.assertEqual(check_host_pattern("w", "k", pattern), pattern)

    def test_other_patterns_are_refused(self) -> None:
        for pattern in ("", "*.", "*x", "a.*", "**", "http://h", "h:80", "h/a", "::1", "[h]"):
            with self.assertRaises(ConfigurationError, msg=pattern):
                check_host_pattern("w", "k", pattern)
