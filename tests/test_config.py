"""hoft.toml and the command line: what is right is understood, what is wrong is named in one line."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from hoft import command_line, config
from hoft.config import Allow, Config, Forward, Peer, Route, TcpForward
from hoft.errors import ConfigurationError, IdentityError
from hoft.identity import Identity

FAR = Identity.generate(Random(1).randbytes).card("far")
_third = Identity.generate(Random(2).randbytes)
THIRD = _third.card("third")
THIRD_ANEW = _third.rotated(Random(3).randbytes).card("third")
FILE = Path("/srv/near/hoft.toml")
SECRET = b64encode(Random(4).randbytes(32)).decode()

WHOLE = f"""
name = "near"
state = "var"
transport = "folder:/srv/exchange?poll=0.5"
listen = ["tcp:8080:interface=127.0.0.1", "unix:/run/hoft.sock"]
default_peer = "far"
deadline = 12
max_request_body = "2 GiB"
max_response_header = "128 KiB"
spool = 1000
heartbeat = 0
log_calls = "all"
compress = false

[peers.far]
card = "{FAR}"

[peers.plant]
card = "{THIRD_ANEW}"
older_card = "{THIRD}"
suite = "authenticated"
psk_file = "secrets/plant.psk"

[routes.stock]
peer = "plant"
url = "https://stock.example:8443/api"
retry = "never"

[[allow]]
url = "http://127.0.0.1:8000/v1"
peer = "far"

[[allow]]
url = "https://stock.example"

[[allow]]
url = "http://wiki.lan"
private = true
retry = "always"

[[allow]]
url = "tcp://[::1]:22/"

[[forward]]
match = "*.example"
peer = "plant"

[[tcp]]
listen = "unix:/run/ssh.sock"
peer = "plant"
to = "ssh.lan:22"
"""


class FileTests(SynchronousTestCase):
    def test_a_whole_file_is_understood(self) -> None:
        self.assertEqual(
            config.parse(WHOLE, FILE),
            Config(
                path=FILE,
                name="near",
                state=Path("/srv/near/var"),
                transport="folder:/srv/exchange?poll=0.5",
                listen=("tcp:8080:interface=127.0.0.1", "unix:/run/hoft.sock"),
                default_peer="far",
                deadline=12.0,
                max_request_body=2 << 30,
                max_response_header=128 << 10,
                spool=1000,
                heartbeat=0.0,
                log_calls="all",
                compress=False,
                peers=(
                    Peer("far", FAR),
                    Peer("plant", THIRD_ANEW, THIRD, "authenticated", Path("/srv/near/secrets/plant.psk")),
                ),
                routes=(Route("stock", "plant", "https://stock.example:8443/api", retry="never"),),
                allowed=(
                    Allow("http://127.0.0.1:8000/v1", "far"),
                    Allow("https://stock.example"),
                    Allow("http://wiki.lan", private=True, retry="always"),
                    Allow("tcp://[::1]:22"),
                ),
                forwards=(Forward("*.example", "plant"),),
                tcp=(TcpForward("unix:/run/ssh.sock", "plant", "ssh.lan:22"),),
            ),
        )

    def test_a_name_is_all_that_must_be_there(self) -> None:
        self.assertEqual(
            config.parse('name = "near"', FILE), Config(name="near", state=Path("/srv/near"), path=FILE)
        )

    def test_a_single_endpoint_needs_no_brackets_and_there_may_be_none(self) -> None:
        one = config.parse('name = "n"\nlisten = "tcp:1:interface=127.0.0.2"', FILE)
        self.assertEqual(one.listen, ("tcp:1:interface=127.0.0.2",))
        self.assertEqual(config.parse('name = "n"\nlisten = []', FILE).listen, ())

    def test_a_file_is_read_from_the_disk(self) -> None:
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('name = "near"')
        self.assertEqual(config.read(path).state, path.absolute().parent)

    def test_every_mistake_is_one_line_that_names_file_key_given_and_wanted(self) -> None:
        for text, key, given, wanted in (
            ("", "name", "is missing", "a text"),
            ("name = 3", "name", "3", "a text in quotes"),
            ('name = "a/b"', "name", "'a/b'", "letters"),
            ('name = "n"\nnam = "m"', "nam", "no such key", "did you mean name?"),
            ('name = "n"\n[route.x]', "route", "no such key", "did you mean routes?"),
            ('name = "n"\ntransport = "/srv/x"', "transport", "'/srv/x'", "a URL"),
            ('name = "n"\ntransport = "folder:/a b"', "transport", "'folder:/a b'", "percent-encoded"),
            ('name = "n"\nlisten = [8080]', "listen", "8080", "a text in quotes"),
            ('name = "n"\nlisten = "tcp:80"', "listen", "every interface", "interface=127.0.0.1"),
            ('name = "n"\ndeadline = "60"', "deadline", "'60'", "seconds"),
            ('name = "n"\ndeadline = true', "deadline", "True", "seconds"),
            ('name = "n"\ndeadline = 0', "deadline", "0", "from 0.1"),
            ('name = "n"\nheartbeat = nan', "heartbeat", "nan", "seconds"),
            ('name = "n"\nheartbeat = 0.001', "heartbeat", "0.001", "from 0.1 to 31536000, or 0"),
            ('name = "n"\nspool = "many"', "spool", "'many'", "512 MiB"),
            ('name = "n"\nspool = -1', "spool", "-1", "bytes"),
            ('name = "n"\nspool = true', "spool", "True", "bytes"),
            ('name = "n"\ndefault_peer = "x"', "default_peer", "no peer is called 'x'", "hoft trust"),
            ('name = "n"\npeers = 3', "peers", "3", "[peers.NAME]"),
            ('name = "n"\n[peers]\nfar = 3', "peers.far", "3", "[peers.far]"),
            ('name = "n"\n[peers."a/b"]\ncard=""', "peers", "'a/b'", "letters"),
            ('name = "n"\n[peers.far]', "peers.far.card", "is missing", "a text"),
            ('name = "n"\n[peers.far]\ncrad = "x"', "peers.far.card", "there is 'crad'", "a text"),
            ('name = "n"\n[peers.far]\ncard = "x"', "peers.far.card", "no card in 'x'", "hoft card"),
            (
                f'name = "n"\n[peers.far]\ncard = "{str(FAR)[:-1]}x"',
                "peers.far.card", "card is damaged", "hoft card",
            ),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\nsuite = "boxed"',
                "peers.far.suite", "'boxed'", "one of box, authenticated, checksum (did you mean box?)",
            ),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\nsuite = "checksum"\npsk_file = "x"',
                "peers.far.psk_file", "beside suite 'checksum'", "a suite that uses secrets",
            ),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\npsk_file = "{SECRET}"',
                "peers.far.psk_file", "a secret in place", "a path",
            ),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\npsk = "{SECRET}"',
                "peers.far.psk", "no such key", "psk_file",
            ),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\nolder_card = "{THIRD}"',
                "peers.far.older_card", "of another node", "the peer's card of before",
            ),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\nolder_card = "{FAR}"',
                "peers.far.older_card", "of the same key", "the peer's card of before",
            ),
            (
                f'name = "n"\n[peers.a]\ncard = "{FAR}"\n[peers.b]\ncard = "{FAR}"',
                "peers", "a and b are the same node", "once",
            ),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\n[routes.x]\npeer = "fra"\nurl = "http://h"',
                "routes.x.peer", "no peer is called 'fra'", "did you mean far?",
            ),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\n[routes.x]\npeer = "far"\nurl = "ftp://h"',
                "routes.x.url", "'ftp://h' is not http or https", "http://HOST",
            ),
            ('name = "n"\nallow = "http://h"', "allow", "'http://h'", "[[allow]]"),
            (
                'name = "n"\n[[allow]]\nurl = "http://h"\nask = 1',
                "allow[1].ask", "no such key", "peer, private, retry, url",
            ),
            (
                'name = "n"\n[[allow]]\nurl = "http://h"\nprivate = "yes"',
                "allow[1].private", "'yes'", "true or false",
            ),
            ('name = "n"\n[[allow]]\nurl = "http://h"\n[[allow]]', "allow[2].url", "is missing", "a text"),
            ('name = "n"\nstate = "a\\u0000b"', "state", r"'a\x00b'", "control characters"),
            ('name = "n"\nstate = ""', "state", "''", "a path"),
            ('name = "n"\nstate = "~nobody-of-this-name/x"', "state", "'~nobody", "no home"),
            ('name = "n"\nspool = "\u0663"', "spool", "'\u0663'", "bytes"),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\nolder_card = ""',
                "peers.far.older_card", "no card", "hoft card",
            ),
            (
                f'name = "n"\n[peers.far]\ncard = "{FAR}"\npsk_file = ""',
                "peers.far.psk_file", "'' is no path", "a path",
            ),
            ('name = "n"\n[credentials.c]\nheaders_file = ""', "credentials.c.headers_file", "''", "a path"),
            (
                'name = "n"\n[callbacks.c]\nurl = "https://h"\nsecret_file = ""',
                "callbacks.c.secret_file", "''", "a path",
            ),
            ('name = "n"\n[[allow]]\nurl = "http://h"\nretry = ""', "allow[1].retry", "''", "idempotent"),
            ("name = n", "", "line 1", "TOML"),
        ):  # fmt: skip
            with self.assertRaises(ConfigurationError, msg=text) as caught:
                config.parse(text, FILE)
            error = caught.exception
            self.assertEqual((error.where, error.key), (str(FILE), key), text)
            self.assertIn(given, error.given)
            self.assertIn(wanted, error.wanted)
            line = str(error)
            self.assertNotIn("\n", line)
            self.assertNotIn(SECRET, line)
            self.assertTrue(line.startswith(f"{FILE}: {key}"), line)

    def test_a_file_that_cannot_be_read_or_is_not_text_is_named(self) -> None:
        path = Path(self.mktemp())
        with self.assertRaisesRegex(ConfigurationError, "cannot be read.*'hoft init'"):
            config.read(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'name = "\xff"')
        with self.assertRaisesRegex(ConfigurationError, "byte 8 is not UTF-8"):
            config.read(path)
        path.write_bytes(b'\xef\xbb\xbfname = "near"')
        with self.assertRaisesRegex(ConfigurationError, "byte order mark.*wanted: UTF-8 without one"):
            config.read(path)

    def test_a_password_in_a_url_is_not_repeated_wherever_it_stands(self) -> None:
        url = '"http://user:canary/x@host/path"'
        for text in (
            f"default_peer = {url}",
            f"transport = {url}\ncolour = 1",
            f"listen = {url}",
            f"metrics = {url}",
            f'[[tcp]]\nlisten = "unix:x"\npeer = "a"\nto = {url}',
            f"[routes.a]\npeer = {url}\nurl = {url}",
        ):
            error = self.assertRaises(ConfigurationError, config.parse, f'name = "n"\n{text}', FILE)
            self.assertNotIn("canary", f"{error} {error.given}")

    def test_a_line_is_short_whatever_was_given(self) -> None:
        long = "x" * 5000
        for text in (f'{long} = 1\nname = "n"', f'name = "n"\nlisten = "{long}"', f'name = "{long}"'):
            error = self.assertRaises(ConfigurationError, config.parse, text, FILE)
            self.assertLess(len(str(error)), 2000)

    def test_what_has_no_end_or_is_too_much_is_one_line_and_nobody_waits_for_it(self) -> None:
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        for text, pattern in (
            ("deadline = " + "9" * 5000, "too long"),
            ("deadline = " + "9" * 4000, "deadline.*seconds"),
            ('spool = "' + "9" * 5000 + '"', "spool"),
            ("a = " + "[" * 5000, "too deeply nested"),
            ("a" * (config.LONGEST_FILE + 1), "File too large"),
        ):
            path.write_text('name = "near"\n' + text)
            self.wrong_in(path, pattern)
        path.unlink()
        os.mkfifo(path)
        self.wrong_in(path, "no regular file")
        path.unlink()
        path.symlink_to("/dev/zero")
        self.wrong_in(path, "no regular file")

    def wrong_in(self, path: Path, pattern: str) -> None:
        with self.assertRaisesRegex(ConfigurationError, pattern) as caught:
            config.read(path)
        self.assertLess(len(str(caught.exception)), 600)
        self.assertNotIn("\n", str(caught.exception))

    def test_sockets_are_beside_the_file(self) -> None:
        found = config.parse('name = "near"\nlisten = "unix:x.sock"\n', Path("/srv/near/hoft.toml"))
        self.assertEqual(found.listen, ("unix:/srv/near/x.sock",))

    def test_a_transport_may_be_missing_until_the_node_runs(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, r"hoft\.toml: transport: not given"):
            config.check_runnable(config.parse('name = "n"', FILE))
        config.check_runnable(config.parse('name = "n"\ntransport = "memory:"', FILE))

    def test_sizes_are_numbers_or_carry_a_unit(self) -> None:
        for written, size in (
            ("0", 0), ("7", 7), ('"7"', 7), ('"7 B"', 7), ('"2k"', 2000), ('"2 KB"', 2000), ('"2 KiB"', 2048),
            ('"3 MiB"', 3 << 20), ('"1 GB"', 10**9), ('"1TiB"', 1 << 40),
        ):  # fmt: skip
            self.assertEqual(config.parse(f'name = "n"\nspool = {written}', FILE).spool, size, written)


class TrafficTests(SynchronousTestCase):
    """How much may be under way."""

    CARD = '[peers.far]\ncard = "hoft-card:far:f976ca22-a976-4b00-a215-f62e3b9438ac:' + (
        'vJXrKYzootqcMn2xqg-doGA7FpaXbJ0JOWb6kaOAFzE:fd8d15cb7e"\n'
    )

    def traffic(self, node: str = "", peer: str = "") -> config.Traffic:
        [found] = config.parse(f'name = "n"\n{node}\n{self.CARD}{peer}', FILE).peers
        return found.traffic

    def test_defaults(self) -> None:
        """No limits but those that keep a folder and a disk in order."""
        self.assertEqual(self.traffic(), config.Traffic())

    def test_for_all_and_for_one(self) -> None:
        """What a peer's table does not say is as at the top."""
        traffic = self.traffic(
            'bytes_per_second = "1 MB"\nlargest_file = "10 MB"',
            'largest_file = "1 MB"\nfiles_in_transit = 20',
        )
        self.assertEqual(traffic.bytes_per_second, 1_000_000)
        self.assertEqual((traffic.largest_file, traffic.files_in_transit), (1_000_000, 20))

    def test_out_of_range(self) -> None:
        """One clear line."""
        for line, wanted in (
            ('largest_file = "1 GB"', "500000000"),
            ("largest_file = 1000", "131072"),
            ('padding = "1 MiB"', "65536"),
            ("files_in_transit = 0", "from 1 to 1000000000000000"),
            ("files_in_transit = 2.5", "a whole number"),
            ("files_in_transit = 10000000000000000", "from 1 to 1000000000000000"),
        ):
            error = self.assertRaises(ConfigurationError, self.traffic, peer=line)
            self.assertIn(wanted, str(error))


class CommandLineTests(SynchronousTestCase):
    def wrong(self, key: str, pattern: str, **options: object) -> None:
        with self.assertRaisesRegex(ConfigurationError, pattern) as caught:
            command_line.from_command_line(**options)  # type: ignore[arg-type]  # any of its options
        self.assertEqual((caught.exception.where, caught.exception.key), ("command line", key))

    def test_options_say_all_that_a_first_try_needs(self) -> None:
        made = command_line.from_command_line(
            folder="/srv/a b",
            name="near",
            state="/var/lib/near",
            listen=["tcp:0:interface=127.0.0.1"],
            peers=[str(FAR)],
            allow=["http://127.0.0.1:8000"],
            routes=["stock=far=https://stock.example/a=b"],
        )
        self.assertEqual(
            made,
            Config(
                name="near",
                state=Path("/var/lib/near"),
                transport="folder:/srv/a%20b",
                listen=("tcp:0:interface=127.0.0.1",),
                peers=(Peer("far", FAR),),
                routes=(Route("stock", "far", "https://stock.example/a=b"),),
                allowed=(Allow("http://127.0.0.1:8000"),),
            ),
        )

    def test_state_is_where_the_xdg_specification_has_it(self) -> None:
        for environment, state in (
            ({"XDG_STATE_HOME": "/x"}, Path("/x/hoft/near")),
            ({"XDG_STATE_HOME": "relative"}, Path.home() / ".local/state/hoft/near"),
            ({}, Path.home() / ".local/state/hoft/near"),
        ):
            made = command_line.from_command_line(folder="/f", name="near", environment=environment)
            self.assertEqual(made.state, state)

    def test_a_node_without_a_name_is_called_like_its_host_where_that_is_a_name(self) -> None:
        self.assertRegex(command_line.from_command_line(folder="/f").name, r"\A[A-Za-z0-9._-]+\Z")
        self.assertEqual(command_line.default_name("box"), "box")
        self.assertEqual(command_line.default_name("not a name"), "hoft")

    def test_relative_folders_start_at_the_working_directory(self) -> None:
        here = os.getcwd()
        self.assertEqual(command_line.transport_url(folder="x"), f"folder:{here}/x".replace(" ", "%20"))

    def test_two_folders_make_one_url_whatever_is_in_their_names(self) -> None:
        self.assertEqual(
            command_line.transport_url(inbox="/a&b=c", outbox="/d?é%"),
            "folder:?inbox=/a%26b%3Dc&outbox=/d%3F%C3%A9%25",
        )

    def test_a_peer_may_be_a_file_with_a_card(self) -> None:
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{FAR}\n")
        self.assertEqual(
            command_line.from_command_line(folder="/f", peers=[str(path)]).peers, (Peer("far", FAR),)
        )

    def test_a_card_may_come_through_a_pipe_if_somebody_sends_it(self) -> None:
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        self.patch(command_line, "PATIENCE", 0.1)
        with self.assertRaisesRegex(IdentityError, "nothing more has come for 0.1 s"):
            command_line.read_card(str(path))
        reader, writer = os.pipe()
        os.write(writer, f"{FAR}\n".encode())
        os.close(writer)
        self.addCleanup(os.close, reader)
        self.assertEqual(command_line.read_card(f"/dev/fd/{reader}"), FAR)
        with self.assertRaisesRegex(IdentityError, "File too large"):
            command_line.read_card("/dev/zero")

    def test_mistakes_name_their_option(self) -> None:
        self.wrong("--inbox", "given alone; wanted: --outbox", inbox="/a")
        self.wrong("--outbox", "given alone; wanted: --inbox", outbox="/a")
        self.wrong("--transport", "beside --folder", folder="/a", transport="memory:")
        self.wrong("--inbox", "beside --folder", folder="/a", inbox="/a", outbox="/b")
        self.wrong("--folder", "wanted: a path", folder="")
        self.wrong("--transport", "a URL", transport="nonsense")
        self.wrong("--name", "'a b'", folder="/f", name="a b")
        self.wrong("--listen", "'tcp:x' has no port", folder="/f", listen=["tcp:x"])
        self.wrong("--peer", "neither a card", folder="/f", peers=["/nowhere/card"])
        self.wrong("--peer", "two peers called far", folder="/f", peers=[str(FAR), str(FAR)])
        self.wrong("--allow", "not http", folder="/f", allow=["file:///etc"])
        self.wrong("--route", "NAME=PEER=URL", folder="/f", routes=["a=b"])
        self.wrong("--route", "no peer is called 'b'", folder="/f", routes=["a=b=http://h"])
        self.wrong("--route", "'a/b'", folder="/f", peers=[str(FAR)], routes=["a/b=far=http://h"])
        self.wrong("--route", "is not http", folder="/f", peers=[str(FAR)], routes=["a=far=gopher://h"])
        self.wrong(
            "--route", "'a' twice", folder="/f", peers=[str(FAR)], routes=["a=far=http://h", "a=far=http://i"]
        )

    def test_no_carrier_is_a_mistake_once_the_node_is_to_run(self) -> None:
        with self.assertRaisesRegex(
            ConfigurationError, "command line: --folder: not given; wanted: --folder PATH"
        ):
            config.check_runnable(command_line.from_command_line(name="x"))
