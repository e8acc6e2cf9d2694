"""Calls of all kinds through mirrors that lose and cut files: every answer is right."""

from __future__ import annotations

import base64
import gzip
import json
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from string import ascii_lowercase
from typing import Any
from urllib.parse import quote

import requests

from tests.integration.gateway import Gateway, GatewayCase
from tests.integration.services import digest, start_service

CALLS = 200
CALLERS = 12
SEED = 2026
DEADLINE = 120.0

Check = Callable[[str, Random], None]
"""Makes one call below this base URL and judges the answer."""


def equal(given: object, wanted: object) -> None:
    """They are, or the call failed."""
    if given != wanted:
        raise AssertionError(f"{repr(given)[:300]} is not {repr(wanted)[:300]}")


def request(method: str, url: str, **options: Any) -> requests.Response:
    """A call by C{requests} as it comes."""
    return requests.request(method, url, timeout=DEADLINE, **options)


def json_get(base: str, chance: Random) -> None:
    token = f"{chance.random()}"
    answer = request("GET", f"{base}/get", params={"token": token}, headers={"X-Token": token})
    equal((answer.status_code, answer.json()["args"]), (200, {"token": token}))
    equal(answer.json()["headers"]["X-Token"], token)


def random_post(base: str, chance: Random) -> None:
    body = chance.randbytes(chance.choice((0, 1, 1000, 65535, 300_000, 1 << 20)))
    headers = {"Content-Type": "application/octet-stream"}
    answer = request("POST", f"{base}/post", data=body, headers=headers)
    equal(answer.status_code, 200)
    echoed = answer.json()["data"]
    came = base64.b64decode(echoed.partition(",")[2]) if echoed.startswith("data:") else echoed.encode()
    equal(digest(came), digest(body))


def gzipped(base: str, chance: Random) -> None:
    # Not decoded on the way: what comes is what the service compressed.
    answer = request("GET", f"{base}/gzip", stream=True)
    equal((answer.status_code, answer.headers["Content-Encoding"]), (200, "gzip"))
    body = answer.raw.read(decode_content=False)
    equal(answer.headers["Content-Length"], str(len(body)))
    equal(json.loads(gzip.decompress(body))["gzipped"], True)


def deflated(base: str, chance: Random) -> None:
    answer = request("GET", f"{base}/deflate", stream=True)
    equal(json.loads(zlib.decompress(answer.raw.read(decode_content=False)))["deflated"], True)


def status_code(base: str, chance: Random) -> None:
    code = chance.choice((201, 202, 204, 206, 304, 400, 401, 404, 409, 418, 429, 500, 502, 503, 504))
    answer = request("GET", f"{base}/status/{code}", allow_redirects=False)
    equal(answer.status_code, code)
    # It is the service's own, not a problem of the gateway.
    equal("Proxy-Status" in answer.headers, False)


def head(base: str, chance: Random) -> None:
    size = chance.randrange(1, 5000)
    answer = request("HEAD", f"{base}/bytes/{size}")
    equal((answer.status_code, answer.headers["Content-Length"], answer.content), (200, str(size), b""))


def cookies(base: str, chance: Random) -> None:
    value = f"v{chance.randrange(10**6)}"
    session = requests.Session()
    answer = session.get(f"{base}/cookies/set", params={"one": value, "two": "2"}, timeout=DEADLINE)
    # The redirect led back through the route, and both cookies came apart.
    equal(answer.json(), {"cookies": {"one": value, "two": "2"}})
    equal(answer.url, f"{base}/cookies")


def multipart(base: str, chance: Random) -> None:
    text = "".join(chance.choices("abc\n \u00e4\u20ac", k=2000))
    answer = request("POST", f"{base}/post", files={"file": ("\u00fcber.txt", text)}, data={"field": "value"})
    equal((answer.json()["files"], answer.json()["form"]), ({"file": text}, {"field": "value"}))


def drip(base: str, chance: Random) -> None:
    answer = request("GET", f"{base}/drip", params={"duration": 0.5, "numbytes": 20, "delay": 0})
    equal((answer.status_code, answer.content), (200, b"*" * 20))


def stream(base: str, chance: Random) -> None:
    lines = request("GET", f"{base}/stream/7").content.splitlines()
    equal([json.loads(line)["id"] for line in lines], list(range(7)))


def long_range(base: str, chance: Random) -> None:
    size = chance.randrange(1, 100_000)
    answer = request("GET", f"{base}/range/{size}")
    wanted = (ascii_lowercase * (size // 26 + 1))[:size].encode()
    equal((len(answer.content), digest(answer.content)), (size, digest(wanted)))


def unicode_query(base: str, chance: Random) -> None:
    text = "".join(chance.choices("\u00e4\u20ac\U0001f4e6 &=%+/?#", k=20))
    path = quote("\u00fc\u00df")
    answer = request("GET", f"{base}/anything/{path}", params={"q": text})
    equal(answer.json()["args"], {"q": text})


def changes(base: str, chance: Random) -> None:
    method, number = chance.choice(("PUT", "PATCH", "DELETE")), chance.random()
    answer = request(method, f"{base}/{method.lower()}", json={"number": number})
    equal((answer.status_code, answer.json()["json"]), (200, {"number": number}))


def basic_auth(base: str, chance: Random) -> None:
    equal(request("GET", f"{base}/basic-auth/me/secret").status_code, 401)
    equal(request("GET", f"{base}/basic-auth/me/secret", auth=("me", "secret")).json()["user"], "me")


CHECKS: tuple[Check, ...] = (
    json_get, random_post, gzipped, deflated, status_code, head, cookies, multipart, drip, stream,
    long_range, unicode_query, changes, basic_auth,
)  # fmt: skip


class MixedTests(GatewayCase):
    def test_every_answer_is_right_though_three_files_of_ten_are_cut_and_one_is_lost(self) -> None:
        gateway = self.keep(
            Gateway.with_mirrors(
                self.new_folder(), "--truncate", 0.3, "--lose", 0.1, "--every", 0.02, seed=SEED
            )
        )
        gateway.route("httpbin", f"http://127.0.0.1:{start_service(gateway, 'httpbin')}/")
        for node in gateway.nodes:
            node.configure(deadline=DEADLINE)
        gateway.start()
        base = f"http://127.0.0.1:{gateway.near.port}/svc/httpbin"
        chance = Random(SEED)
        plan = [(CHECKS[number % len(CHECKS)], chance.randrange(1 << 32)) for number in range(CALLS)]
        chance.shuffle(plan)
        wrong: list[str] = []
        slowest: Counter[str] = Counter()

        def one(check: Check, seed: int) -> None:
            begun = time.monotonic()
            try:
                check(base, Random(seed))
            except Exception as error:
                wrong.append(f"{check.__name__} (seed {seed}): {type(error).__name__}: {error}")
            slowest[check.__name__] = max(slowest[check.__name__], round(1000 * (time.monotonic() - begun)))

        begun = time.monotonic()
        with ThreadPoolExecutor(CALLERS) as callers:
            list(callers.map(lambda task: one(*task), plan))
        seconds = time.monotonic() - begun
        self.assertEqual(wrong, [])
        gateway.await_quiet()
        status = {node.name: node.status() for node in gateway.nodes}
        counts = gateway.stop_mirrors()
        print(
            f"{CALLS} calls in {seconds:.1f} s through {counts}; slowest, in ms: {dict(slowest)}",
            file=sys.stderr,
        )
        # It was no fair weather, and nobody noticed but the nodes.
        self.assertGreater(counts["cut"], counts["files"] / 5)
        self.assertGreater(counts["lost"], counts["files"] / 20)
        self.assertEqual(status["near"]["ingress"]["problems"], 0)
        self.assertEqual(status["near"]["ingress"]["cut"], 0)
