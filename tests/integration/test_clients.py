"""
The clients that people have: what each does by itself (bodies, redirects, cookies, codings,
errors) works through a route, and through the node as a proxy where the client knows proxies.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import aiohttp.web
import httpx
import requests
from attrs import frozen

from tests.processes import PATIENCE

from .gateway import Gateway, GatewayCase
from .services import HandlerServer

BODY = Random(7).randbytes(300_000)
TEXT = b"hello " * 1000


class ShopHandler(BaseHTTPRequestHandler):
    """C{/base/...}: what the tests ask of a service."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind = self.path.removeprefix("/base/")
        if kind.startswith("go-"):
            here = self.headers["Host"]
            where = {"go-absolute": f"http://{here}/base/there", "go-path": "/base/there", "go-on": "there"}
            self.say(302, b"", ("Location", where[kind]))
        elif kind == "there":
            self.say(200, (self.headers["Cookie"] or "").encode())
        elif kind == "cookies":
            self.say(200, b"", ("Set-Cookie", "a=1; Path=/base"), ("Set-Cookie", "b=2; Path=/base; HttpOnly"))
        elif kind == "packed":
            self.say(200, gzip.compress(TEXT), ("Content-Encoding", "gzip"))
        elif kind == "chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(10):
                self.wfile.write(b"5\r\n%04d\n\r\n" % number)
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.say(404, b"nothing here")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.say(201, body, ("Content-Type", self.headers["Content-Type"] or "none"))

    do_PUT = do_POST

    def say(self, status: int, body: bytes, *fields: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@frozen
class Got:
    """What a client made of its call."""

    status: int
    url: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


def pieces() -> Iterator[bytes]:
    """L{BODY} without its length being known."""
    for start in range(0, len(BODY), 70_000):
        yield BODY[start : start + 70_000]


class Client:
    """One session of a client; redirects are followed, cookies kept if it does that."""

    cookies = True

    def call(self, method: str, url: str, body: bytes | None = None, stream: bool = False) -> Got:
        """@param stream: send L{pieces} as they come."""
        raise NotImplementedError

    def close(self) -> None:
        """End it."""


# --- Python ------------------------------------------------------------------------------


class Requests(Client):
    def __init__(self, proxy: str | None) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        if proxy:
            self.session.proxies = {"http": proxy}

    def call(self, method: str, url: str, body: bytes | None = None, stream: bool = False) -> Got:
        got = self.session.request(method, url, data=pieces() if stream else body, timeout=PATIENCE)
        headers = {name.lower(): value for name, value in got.headers.items()}
        return Got(got.status_code, got.url, headers, got.content)

    def close(self) -> None:
        self.session.close()


class Httpx(Client):
    def __init__(self, proxy: str | None) -> None:
        self.client = httpx.Client(proxy=proxy, follow_redirects=True, timeout=PATIENCE, trust_env=False)

    def call(self, method: str, url: str, body: bytes | None = None, stream: bool = False) -> Got:
        got = self.client.request(method, url, content=pieces() if stream else body)
        return Got(got.status_code, str(got.url), dict(got.headers), got.content)

    def close(self) -> None:
        self.client.close()


class Aiohttp(Client):
    def __init__(self, proxy: str | None) -> None:
        self.proxy = proxy
        self.runner = asyncio.Runner()
        self.session = self.runner.run(self._session())

    async def _session(self) -> aiohttp.ClientSession:
        # Without this it keeps no cookies of hosts that are addresses.
        jar = aiohttp.CookieJar(unsafe=True)
        return aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=PATIENCE))

    async def _call(self, method: str, url: str, body: bytes | None, stream: bool) -> Got:
        async def sent() -> Any:
            for piece in pieces():
                yield piece

        data = sent() if stream else body
        async with self.session.request(method, url, data=data, proxy=self.proxy) as got:
            headers = {name.lower(): value for name, value in got.headers.items()}
            return Got(got.status, str(got.url), headers, await got.read())

    def call(self, method: str, url: str, body: bytes | None = None, stream: bool = False) -> Got:
        return self.runner.run(self._call(method, url, body, stream))

    def close(self) -> None:
        self.runner.run(self.session.close())
        self.runner.close()


# --- Node ---------------------------------------------------------------------------------

_LOOP = """
const lines = require('readline').createInterface({input: process.stdin});
lines.on('line', async line => {
  const asked = JSON.parse(line);
  const body = asked.body === null ? undefined : Buffer.from(asked.body, 'base64');
  try {
    const got = await call(asked.method, asked.url, body, asked.stream);
    got.body = Buffer.from(got.body).toString('base64');
    console.log(JSON.stringify(got));
  } catch (error) {
    console.log(JSON.stringify({error: String(error.cause ?? error)}));
  }
});
function* pieces(body) {
  for (let start = 0; start < body.length; start += 70000) yield body.subarray(start, start + 70000);
}
"""

_FETCH = """
async function call(method, url, body, stream) {
  const sent = stream ? {body: ReadableStream.from(pieces(body)), duplex: 'half'} : {body};
  const got = await fetch(url, {method, ...sent});
  return {status: got.status, url: got.url, headers: Object.fromEntries(got.headers),
          body: await got.arrayBuffer()};
}
"""

_AXIOS = """
const axios = require('axios');
const {Readable} = require('stream');
const gateway = process.argv[1] ? new URL(process.argv[1]) : null;
const proxy = gateway && {protocol: 'http', host: gateway.hostname, port: Number(gateway.port)};
async function call(method, url, body, stream) {
  const got = await axios({
    method, url, data: stream ? Readable.from(pieces(body)) : body, responseType: 'arraybuffer',
    proxy: proxy ?? false, validateStatus: () => true, headers: {'Content-Type': 'x/y'},
  });
  return {status: got.status, url: got.request.res.responseUrl, headers: {...got.headers},
          body: got.data};
}
"""


@cache
def modules() -> str:
    """Where Node's global modules are."""
    npm = shutil.which("npm")
    if npm is None:
        return ""
    found = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, timeout=PATIENCE)
    return os.pathsep.join(filter(None, (os.environ.get("NODE_PATH"), found.stdout.strip())))


class Node(Client):
    """A process that makes the calls it reads of, with the script's C{call}."""

    cookies = False

    def __init__(self, script: str, proxy: str | None) -> None:
        self.process = subprocess.Popen(
            ["node", "-e", script + _LOOP, proxy or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "NODE_PATH": modules()},
        )

    def call(self, method: str, url: str, body: bytes | None = None, stream: bool = False) -> Got:
        assert self.process.stdin is not None and self.process.stdout is not None
        sent = BODY if stream else body
        encoded = None if sent is None else base64.b64encode(sent).decode()
        asked = {"method": method, "url": url, "body": encoded, "stream": stream}
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        self.process.stdin.flush()
        got = json.loads(self.process.stdout.readline())
        assert "error" not in got, got
        return Got(got["status"], got["url"], got["headers"], base64.b64decode(got["body"]))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


# --- Tests ----------------------------------------------------------------------------------


class ClientTests(GatewayCase):
    """Each client does all of it, in each way."""

    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.shared_pair()
        service = HandlerServer(ShopHandler)
        self.addCleanup(service.close)
        self.there = f"{service.url}base"
        self.node = f"http://127.0.0.1:{self.gateway.near.port}"
        self.gateway.route("shop", self.there)

    def through_a_route(self, client: Client) -> None:
        self.addCleanup(client.close)
        self.check(client, f"{self.node}/svc/shop")

    def through_a_proxy(self, client: Client) -> None:
        self.addCleanup(client.close)
        self.check(client, self.there)

    def check(self, client: Client, base: str) -> None:
        """All that the service offers, below C{base}."""
        for sent, body in ((BODY, BODY), (b"", b"")):
            got = client.call("POST", f"{base}/echo", sent)
            self.assertEqual((got.status, len(got.body), got.body == body), (201, len(body), True))
        got = client.call("PUT", f"{base}/echo", stream=True)
        self.assertEqual((got.status, got.body == BODY), (201, True))
        self.assertIn("hoft/1 near", got.headers["via"])
        for kind in ("absolute", "path", "on"):
            got = client.call("GET", f"{base}/go-{kind}")
            self.assertEqual((got.status, got.url), (200, f"{base}/there"), kind)
        self.assertEqual(client.call("GET", f"{base}/packed").body, TEXT)
        self.assertEqual(len(client.call("GET", f"{base}/chunks").body), 50)
        got = client.call("GET", f"{base}/missing")
        self.assertEqual((got.status, got.body), (404, b"nothing here"))
        if client.cookies:
            client.call("GET", f"{base}/cookies")
            got = client.call("GET", f"{base}/go-path")
            self.assertEqual(sorted(got.body.split(b"; ")), [b"a=1", b"b=2"])

    def test_requests(self) -> None:
        self.through_a_route(Requests(None))
        self.through_a_proxy(Requests(self.node))

    def test_httpx(self) -> None:
        self.through_a_route(Httpx(None))
        self.through_a_proxy(Httpx(self.node))

    def test_aiohttp(self) -> None:
        self.through_a_route(Aiohttp(None))
        self.through_a_proxy(Aiohttp(self.node))

    def test_fetch_of_node(self) -> None:
        """It knows no proxies by itself."""
        self.need(shutil.which("node"), "node is not there")
        self.through_a_route(Node(_FETCH, None))

    def test_axios(self) -> None:
        self.need(shutil.which("node"), "node is not there")
        installed = any((Path(place) / "axios").is_dir() for place in modules().split(os.pathsep))
        self.need(installed, "axios is not there (npm install -g axios)")
        self.through_a_route(Node(_AXIOS, None))
        self.through_a_proxy(Node(_AXIOS, self.node))

    def test_websocket_of_aiohttp(self) -> None:
        asyncio.run(self.talk(self.gateway))
        self.assertEqual(self.gateway.near.status()["ingress"]["websockets"], 1)

    async def talk(self, gateway: Gateway) -> None:
        server = aiohttp.web.AppRunner(aiohttp.web.Application())
        server.app.router.add_get("/base/echo", self.echo)
        await server.setup()
        site = aiohttp.web.TCPSite(server, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/base"  # type: ignore[attr-defined]  # asyncio's own
        gateway.route("chat", url, "--websocket")
        here = f"ws://127.0.0.1:{gateway.near.port}/svc/chat/echo"
        async with aiohttp.ClientSession() as session:
            connecting = session.ws_connect(here, protocols=("b", "a"), compress=15, max_msg_size=0)
            async with connecting as client:
                self.assertEqual((client.protocol, bool(client.compress)), ("a", True))
                self.assertEqual(await client.receive_str(), "welcome")
                await client.send_str("h\u00e9llo")
                self.assertEqual(await client.receive_str(), "h\u00e9llo")
                for data in (BODY, b"", BODY * 10):
                    await client.send_bytes(data)
                    self.assertTrue(await client.receive_bytes() == data)
                await client.send_str("leave")
                self.assertEqual((await client.receive()).type, aiohttp.WSMsgType.CLOSE)
                self.assertEqual(client.close_code, 4001)
        await server.cleanup()

    async def echo(self, request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        """Says what it hears, until it is to leave."""
        server = aiohttp.web.WebSocketResponse(protocols=("a",), max_msg_size=0)
        await server.prepare(request)
        await server.send_str("welcome")
        async for message in server:
            if message.data == "leave":
                await server.close(code=4001)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await server.send_str(message.data)
            else:
                await server.send_bytes(message.data)
        return server
