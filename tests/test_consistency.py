"""What a file says in one place has to go with what it says in another."""

from __future__ import annotations

from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from hoft import config
from hoft.errors import ConfigurationError
from hoft.identity import Identity
from hoft.tokens import hash_token

FILE = Path("/srv/near/hoft.toml")

CARDS = {name: Identity.generate(Random(name).randbytes).card(name) for name in ("far", "farther")}

PEERS = "".join(f'[peers.{name}]\ncard = "{card}"\n' for name, card in CARDS.items())

TOKENS = {name: hash_token(name.encode()) for name in ("ann", "bob")}


def caller(name: str, more: str = "") -> str:
    return f'[callers.{name}]\ntoken = "{TOKENS[name]}"\n{more}\n'


def callback(name: str, more: str = "", url: str = "https://shop.example/hooks") -> str:
    return f'[callbacks.{name}]\nurl = "{url}"\nsecret_file = "shop.secret"\n{more}\n'


def allow(*entries: str) -> str:
    return "".join(f"[[allow]]\n{entry}\n" for entry in entries)


def forward(*matches: str, peers: tuple[str, ...] = ("far", "farther")) -> str:
    entries = zip(matches, peers, strict=False)
    return PEERS + "".join(f'[[forward]]\nmatch = "{match}"\npeer = "{peer}"\n' for match, peer in entries)


ROUTE = PEERS + '[routes.a]\npeer = "far"\nurl = "https://a.example"\n'
SSH = 'url = "tcp://127.0.0.1:22"'
WIKI = 'url = "http://wiki.lan/a"'

CONTRADICTIONS = (
    (allow(SSH + "\nwebsocket = true"), "allow[1].websocket", "tcp://127.0.0.1:22"),
    (allow(WIKI, SSH + '\nretry = "always"'), "allow[2].retry", "no HTTP"),
    (
        '[credentials.api]\nkind = "headers"\nheaders_file = "f"\n' + allow(SSH + '\ncredentials = "api"'),
        "allow[1].credentials",
        "no HTTP",
    ),
    (allow('url = "http://10.1.2.3"\nprivate = true'), "allow[1].private", "10.1.2.3"),
    (allow('url = "http://localhost:8000"\nprivate = true'), "allow[1].private", "localhost"),
    (allow('url = "tcp://[fd00::1]:22"\nprivate = true'), "allow[1].private", "fd00::1"),
    (allow(WIKI, SSH, WIKI), "allow[3]", "the same as allow[1]"),
    (
        allow(WIKI + '\nretry = "never"', 'url = "http://WIKI.lan:80/a/"\nretry = "always"'),
        "allow[2]",
        "another retry than allow[1]",
    ),
    ('result_ttl = 0\nresults = "1 GB"', "results", "result_ttl = 0"),
    ("result_ttl = 0\n" + caller("ann", "results = 5"), "callers.ann.results", "result_ttl = 0"),
    ("result_ttl = 0\n" + callback("shop"), "callbacks.shop", "'hoft callback DIR remove NAME'"),
    ("cache = 0\n" + ROUTE + "[routes.a.cache]\n", "routes.a.cache", "cache = 0"),
    ("results = 5\n" + caller("ann", "results = 6"), "callers.ann.results", "5 for all callers"),
    ("cache = 5\n" + caller("ann", "cache = 6"), "callers.ann.cache", "5 for all callers"),
    ("listen = []\n" + ROUTE, "routes", "listen = []"),
    ('listen = []\ndefault_peer = "far"\n' + PEERS, "default_peer", "listen = []"),
    ("listen = []\n" + caller("ann"), "callers", "listen = []"),
    ("listen = []\nmetrics = true", "metrics", "listen = []"),
    ("metrics = true\n" + caller("ann"), "metrics", "operator = true"),
    (
        'listen = ["tcp:8080:interface=127.0.0.1", "tcp:interface=127.0.0.1:port=8080"]',
        "listen[2]",
        "listen[1]",
    ),
    (
        PEERS + '[[tcp]]\nlisten = "tcp:8080:interface=127.0.0.1"\npeer = "far"\nto = "db:5432"\n',
        "tcp[1].listen",
        "listen[1]",
    ),
    (
        PEERS + 2 * '[[tcp]]\nlisten = "unix:/run/db"\npeer = "far"\nto = "db:5432"\n',
        "tcp[2]",
        "where tcp[1] does",
    ),
    (
        PEERS
        + '[[forward]]\nmatch = "*.lan"\npeer = "far"\n[[forward]]\nmatch = "Wiki.lan"\npeer = "farther"\n',
        "forward[2].match",
        "forward[1]",
    ),
    (
        forward("*", "*.lan"),
        "forward[2].match",
        "forward[1]",
    ),
    (
        'default_peer = "farther"\n' + forward("*"),
        "default_peer",
        "'*'",
    ),
    (
        caller("ann") + f'[callers.bob]\ntoken = ["{TOKENS["bob"]}", "{TOKENS["ann"]}"]\n',
        "callers.bob.token",
        "ann",
    ),
    (callback("shop") + callback("store"), "callbacks.store.url", "shop"),
    (
        callback("plant", "private = true", "http://192.168.1.5/hooks"),
        "callbacks.plant.private",
        "192.168.1.5",
    ),
)

HARMONIES = (
    allow(WIKI, WIKI + "\nprivate = true", SSH, 'url = "tcp://db.lan:5432"\nprivate = true'),
    PEERS + allow(WIKI + '\npeer = "far"\nretry = "never"', WIKI + '\npeer = "farther"\nretry = "always"'),
    allow('url = "http://wiki.lan"\nretry = "never"', WIKI + '\nretry = "always"'),
    "result_ttl = 0\nasync_deadline = 60",
    'cache = "2 GiB"\nmetrics = true\n' + caller("ann", "operator = true\ncache = 5\nresults = 6"),
    'listen = ["tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1", "tcp:1:interface=127.0.0.1",'
    ' "tcp:1:interface=127.0.0.2"]',
    forward("wiki.lan", "*.lan"),
    forward("*.lan", "lan"),
    caller("ann")
    + caller("bob")
    + callback("shop", 'callers = "ann"')
    + callback("store", 'callers = "bob"'),
    callback("shop") + callback("store", url="https://shop.example/hooks/more"),
    ROUTE + "[routes.a.cache]\nshared = true\n",
)


class ConsistencyTests(SynchronousTestCase):
    def test_what_has_no_effect_or_contradicts_is_refused(self) -> None:
        for text, key, word in CONTRADICTIONS:
            error = self.assertRaises(ConfigurationError, config.parse, f'name = "near"\n{text}', FILE)
            self.assertEqual(error.key, key, text)
            self.assertEqual(error.where, str(FILE))
            self.assertIn(word, error.given + error.wanted)
            self.assertNotIn("\n", str(error))

    def test_what_goes_together_does(self) -> None:
        for text in HARMONIES:
            config.parse(f'name = "near"\n{text}', FILE)
