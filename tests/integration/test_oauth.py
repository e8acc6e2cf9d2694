"""Credentials of the far node, from an OAuth server that others wrote."""

from __future__ import annotations

import shutil
import subprocess

from .gateway import GatewayCase
from .processes import free_port, spawn, wait_until
from .services import start_service

SERVER = "oauth2-mock-server"
SECRET = "canary-of-the-client"


class OAuthTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.need(shutil.which(SERVER), f"there is no {SERVER} (npm install -g {SERVER})")
        self.gateway = gateway = self.pair()
        self.port = free_port()
        self.log = gateway.folder / "oauth.log"
        with self.log.open("wb") as log:
            arguments = [SERVER, "-a", "127.0.0.1", "-p", str(self.port)]
            gateway.others.append(spawn(arguments, stdout=log, stderr=subprocess.STDOUT))
        wait_until(lambda: "listening" in self.log.read_text(), "the OAuth server listens")
        self.url = f"http://127.0.0.1:{start_service(gateway, 'httpbin')}/"
        for file, secret in (("api.secret", SECRET), ("api.refresh", "first-refresh")):
            (gateway.far.folder / file).write_text(secret)
            (gateway.far.folder / file).chmod(0o600)

    def begin(self, kind: str, more: str = "") -> None:
        far, near = self.gateway.far, self.gateway.near
        near.hoft("route", "api", "--peer", "far", "--url", self.url)
        with far.file.open("a") as file:
            file.write(
                f'[[allow]]\nurl = "{self.url}"\ncredentials = "api"\n\n'
                f'[credentials.api]\nkind = "{kind}"\ntoken_url = "http://127.0.0.1:{self.port}/token"\n'
                f'client_id = "hoft"\nclient_secret_file = "api.secret"\nscope = "stock"\n{more}'
            )
        self.gateway.start()

    def token(self, **headers: str) -> str:
        """What httpbin was shown."""
        answer = self.gateway.near.call("GET", "/svc/api/bearer", headers=headers)
        self.assertEqual(answer.status, 200, answer)
        shown: str = answer.json()["token"]
        return shown

    def test_client_credentials(self) -> None:
        """One token for all calls, whatever callers send, and after a restart; the secret is seen nowhere."""
        self.begin("client_credentials")
        tokens = {self.token(Authorization="Bearer guess") for _ in range(5)}
        self.gateway.far.stop()
        self.gateway.far.start()
        self.gateway.await_up()
        tokens.add(self.token())
        self.assertEqual(len(tokens), 1)
        self.assertEqual(tokens.pop().count("."), 2)
        self.gateway.far.stop()
        for path in self.gateway.folder.rglob("*"):
            if path.is_file() and path.name != "api.secret":
                self.assertNotIn(SECRET.encode(), path.read_bytes(), path)

    def test_refresh_token(self) -> None:
        """What is configured is the first of many."""
        self.begin("refresh_token", 'refresh_token_file = "api.refresh"\n')
        self.assertEqual(self.token(), self.token())

    def test_no_token(self) -> None:
        """The caller is told by whose fault, without the secret."""
        self.begin("client_credentials")
        self.gateway.others[0].kill()
        self.gateway.others[0].wait()
        answer = self.gateway.near.call("GET", "/svc/api/bearer")
        self.assertEqual(
            (answer.status, answer.json()["type"].rpartition("/")[2]), (503, "credentials-unavailable")
        )
        self.assertIn(f"127.0.0.1:{self.port}", answer.json()["detail"])
        self.assertNotIn(SECRET, answer.json()["detail"])
