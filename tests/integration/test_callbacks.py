"""Callbacks through real processes: what was accepted is delivered, whoever is killed."""

from __future__ import annotations

import contextlib
import hmac
import io
import json
import socket
import threading
import time
from base64 import b64decode, b64encode
from http.server import BaseHTTPRequestHandler
from typing import Any

from hoft import cli
from tests.processes import PATIENCE

from .gateway import GatewayCase, Node
from .processes import wait_until
from .services import HandlerServer, SocketService, respond


class Hook(BaseHTTPRequestHandler):
    """Takes callbacks, and answers as its server says, once that lets it."""

    protocol_version = "HTTP/1.1"
    server: Hooks

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, dict(self.headers.items()), body))
        self.server.answering.wait(PATIENCE)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


class Hooks(HandlerServer):
    """
    A receiver in threads of the test.

    @ivar taken: path, fields and body of each callback.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[str, dict[str, str], bytes]] = []
        self.answering = threading.Event()
        self.status = 204
        super().__init__(Hook)


class CallbackTests(GatewayCase):
    def callbacks(self, node: Node, *arguments: str) -> tuple[int, Any]:
        """Exit code and JSON of C{hoft callbacks}."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = cli.main(["callbacks", str(node.folder), "--json", *arguments])
        return code, json.loads(out.getvalue())

    def verify(self, secret: str, fields: dict[str, str], body: bytes) -> None:
        """As the specification says it."""
        self.assertLess(abs(time.time() - int(fields["webhook-timestamp"])), PATIENCE)
        signed = f"{fields['webhook-id']}.{fields['webhook-timestamp']}.".encode() + body
        mac = hmac.digest(b64decode(secret.removeprefix("whsec_")), signed, "sha256")
        self.assertEqual(fields["webhook-signature"], f"v1,{b64encode(mac).decode()}")

    def test_a_callback_survives_the_death_of_its_node_and_can_be_sent_again(self) -> None:
        hooks = Hooks()
        self.addCleanup(hooks.close)
        self.addCleanup(hooks.answering.set)

        def work(connection: socket.socket, head: bytes) -> None:
            if b"/slow" in head:
                hooks.answering.wait(PATIENCE)
            respond(connection, b"\x00done", "201 Made")

        service = SocketService(work)
        self.addCleanup(service.close)
        gateway = self.pair()
        near = gateway.near
        gateway.route("order", service.url)
        secret = near.hoft("callback", "add", "shop", "--url", f"{hooks.url}hooks").strip()
        gateway.start()
        elsewhere = near.call("POST", "/svc/order/1", b"", headers={"Hoft-Callback": f"{hooks.url}other"})
        self.assertEqual((elsewhere.status, elsewhere.kind), (403, "callback-refused"))
        headers = {"Authorization": "Basic canary"}
        for name in ("quick", "slow"):
            headers["Hoft-Callback"] = f"{hooks.url}hooks/{name}?canary"
            answer = near.call("POST", f"/svc/order/{name}", b"order", headers=headers)
            self.assertEqual(answer.status, 202, answer)
        wait_until(lambda: hooks.taken and len(service.heads) == 2, "one is sent, one is worked on")
        near.kill()
        hooks.answering.set()
        near.start()
        near.await_status(lambda now: now["callbacks"]["delivered"] == 2, "both are delivered")
        quick, slow = "/hooks/quick?canary", "/hooks/slow?canary"
        self.assertEqual(sorted(path for path, _, _ in hooks.taken), [quick, quick, slow])
        self.assertNotIn("Basic", str(hooks.taken))
        ids = {(path, fields["webhook-id"]) for path, fields, _ in hooks.taken}
        self.assertEqual(len(ids), 2, "what is sent again has its id")
        for _, fields, body in hooks.taken:
            self.verify(secret, fields, body)
            self.assertEqual((fields["Hoft-Status"], body), ("201", b"\x00done"))

        hooks.status = 410
        near.call("POST", "/svc/order/gone", b"", headers={"Hoft-Callback": f"{hooks.url}hooks/gone"})
        near.await_status(lambda now: now["callbacks"]["dead"] == 1, "it is dead")
        code, listed = self.callbacks(near)
        self.assertEqual((code, listed["count"]), (1, 1))
        self.assertIn("answered 410", listed["callbacks"][0]["reason"])
        hooks.status = 200
        self.assertEqual(self.callbacks(near, "--resend", listed["callbacks"][0]["id"]), (0, {"resent": 1}))
        near.await_status(lambda now: now["callbacks"]["delivered"] == 3, "it is delivered")
        self.assertEqual(self.callbacks(near), (0, {"count": 0, "callbacks": []}))
        self.assertEqual(len(service.heads), 3, "each call was made once")
        self.assertNotIn("canary", near.log + gateway.far.log)
        near.stop()
        for path in near.folder.rglob("*"):
            if path.is_file() and path.name != "callback-shop.secret":
                self.assertNotIn(secret.removeprefix("whsec_").encode(), path.read_bytes(), path)
