"""
Credentials that the egress adds, against services and token endpoints with real
sockets; C{tests.integration.test_oauth} has an OAuth server that we did not write.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, succeed
from twisted.trial.unittest import SynchronousTestCase

from hoft.config import Credential
from hoft.credentials import credentials_of, secrets_of
from hoft.errors import IdentityError
from hoft.web.client.agent import ExactAgent
from hoft.web.client.policy import Policy, Rule
from hoft.web.egress import fetching, login, oauth
from hoft.web.egress.credentials import PAUSE, Credentials, Headers
from hoft.web.egress.secret_store import SCHEMA, SecretStore
from tests.protocols.journals import InlineJournal
from tests.web.services import REACTOR, Call, EgressCase, RawService, Received, Service, Test, until


def answer(service: Service, status: int, body: bytes = b"", *fields: bytes) -> None:
    lines = [b"HTTP/1.1 %d X" % status, b"Content-Length: %d" % len(body), *fields]
    service.answer(b"".join(line + b"\r\n" for line in lines) + b"\r\n", body)


class MemoryStore:
    """What a process keeps for the next."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def load(self, name: str) -> Deferred[bytes | None]:
        return succeed(self.kept.get(name))

    def keep(self, name: str, secret: bytes) -> Deferred[None]:
        self.kept[name] = secret
        return succeed(None)


class CredentialCase(EgressCase):
    """
    The service at C{/} wants credentials; C{self.endpoint} gives some.

    @ivar good: whether the service takes a request.
    """

    def setUp(self) -> None:
        super().setUp()
        self.endpoint = RawService()
        self.endpoint_url = f"http://127.0.0.1:{self.endpoint.listen(self)}/token"
        self.good: Callable[[Received], bool] = lambda request: True
        self.service.script = self.serve
        self.now = 1000.0
        self.store = MemoryStore()
        self.agent = ExactAgent(REACTOR, permit=lambda address: True)
        self.addCleanup(self.agent.stop)

    def serve(self, service: Service, request: Received) -> None:
        good = self.good(request)
        answer(service, 200 if good else 401, b"fine" if good else b"who?", b"Set-Cookie: own=1")

    def use(self, credentials: Credentials) -> None:
        rule = evolve(Rule.parse(f"http://127.0.0.1:{self.port}/"), credentials="c")
        self.egress.reconfigure(Policy([rule]), {"c": credentials})

    def oauth(self, **settings: Any) -> oauth.OAuth:
        given = oauth.Settings(self.endpoint_url, "me", "hush", **settings)
        return oauth.OAuth("api", given, REACTOR, self.agent, self.store, lambda: self.now, lambda: self.now)

    def gives_tokens(self, expires: int = 3600, **more: object) -> None:
        """The endpoint gives token-1, token-2, ..., and the service takes the last only."""
        given: list[bytes] = []

        def script(service: Service, request: Received) -> None:
            given.append(b"Bearer token-%d" % (len(given) + 1))
            token = {"access_token": given[-1][7:].decode(), "token_type": "Bearer", "expires_in": expires}
            answer(service, 200, json.dumps(token | more).encode())

        self.endpoint.script = script
        self.good = lambda request: request.values(b"authorization") == given[-1:]

    def forms(self) -> list[dict[str, list[str]]]:
        return [parse_qs(request.body.decode()) for request in self.endpoint.requests]


class HeadersTests(CredentialCase):
    @inlineCallbacks
    def test_they_take_the_place_of_what_the_caller_sent(self) -> Test:
        self.use(Headers([(b"X-Key", b"k"), (b"Authorization", b"Basic eA==")]))
        sent = [(b"authorization", b"Bearer of-the-caller"), (b"x-key", b"guess"), (b"X-Other", b"1")]
        call = yield self.near.call(self.head(headers=sent)).done
        self.assertEqual(call.status, 200)
        request = self.service.requests[0]
        self.assertEqual(request.values(b"authorization"), [b"Basic eA=="])
        self.assertEqual((request.values(b"x-key"), request.values(b"x-other")), ([b"k"], [b"1"]))

    @inlineCallbacks
    def test_others_than_those_of_the_rule_get_none(self) -> Test:
        rules = [
            evolve(Rule.parse(f"http://127.0.0.1:{self.port}/a"), credentials="c"),
            Rule.parse(f"http://127.0.0.1:{self.port}/b"),
            evolve(Rule.parse(f"http://127.0.0.1:{self.port}/a/d"), credentials="d"),
        ]
        both = {"c": Headers([(b"X-Key", b"c")]), "d": Headers([(b"X-Key", b"d")])}
        self.egress.reconfigure(Policy(rules), both)
        for target in (b"/a/x", b"/b/x", b"/a/d"):
            yield self.near.call(self.head(target=target)).done
        keys = [request.values(b"x-key") for request in self.service.requests]
        self.assertEqual(keys, [[b"c"], [], [b"d"]])


class OAuthTests(CredentialCase):
    @inlineCallbacks
    def test_one_token_for_many_calls_and_those_that_wait_for_it(self) -> Test:
        self.gives_tokens()
        self.use(self.oauth(scope="read write"))
        calls = yield gatherResults([self.near.call(self.head()).done for _ in range(10)])
        self.assertEqual({call.status for call in calls}, {200})
        call = yield self.near.call(self.head(b"POST"), b"body").done
        self.assertEqual((call.status, len(self.endpoint.requests)), (200, 1))
        self.assertEqual(self.forms()[0], {"grant_type": ["client_credentials"], "scope": ["read write"]})
        self.assertEqual(self.endpoint.requests[0].values(b"authorization"), [b"Basic bWU6aHVzaA=="])

    @inlineCallbacks
    def test_a_client_that_sends_its_secret_in_the_form(self) -> Test:
        self.gives_tokens()
        self.use(self.oauth(post=True))
        yield self.near.call(self.head()).done
        form = {"grant_type": ["client_credentials"], "client_id": ["me"], "client_secret": ["hush"]}
        self.assertEqual(self.forms()[0], form)
        self.assertEqual(self.endpoint.requests[0].values(b"authorization"), [])

    @inlineCallbacks
    def test_a_token_is_renewed_before_its_end(self) -> Test:
        self.gives_tokens(expires=100)
        self.use(self.oauth())
        for seconds, asked in ((0, 1), (80, 1), (11, 2)):
            self.now += seconds
            call = yield self.near.call(self.head()).done
            self.assertEqual((call.status, len(self.endpoint.requests)), (200, asked))

    @inlineCallbacks
    def test_a_token_that_is_not_taken_is_replaced_and_the_call_made_again(self) -> Test:
        self.gives_tokens()
        self.use(self.oauth())
        yield self.near.call(self.head()).done
        self.good = lambda request: request.values(b"authorization") == [b"Bearer token-2"]
        call = yield self.near.call(self.head(b"POST"), b"once").done
        self.assertEqual((call.status, call.body), (200, b"fine"))
        self.assertEqual([request.body for request in self.service.requests[1:]], [b"once", b"once"])
        self.good = lambda request: False
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.status, len(self.endpoint.requests)), (401, 3))

    @inlineCallbacks
    def test_a_body_that_was_streamed_is_not_sent_twice(self) -> Test:
        """The 401 is the answer; the next call has another token."""
        self.gives_tokens()
        self.use(self.oauth())
        yield self.near.call(self.head()).done
        self.good = lambda request: request.values(b"authorization") == [b"Bearer token-2"]
        call = yield self.near.call(self.head(b"PUT"), bytes(200_000)).done
        self.assertEqual(call.status, 401)
        call = yield self.near.call(self.head(b"PUT"), bytes(200_000)).done
        self.assertEqual(call.status, 200)

    @inlineCallbacks
    def test_after_a_restart_the_token_goes_on(self) -> Test:
        self.gives_tokens()
        self.use(self.oauth())
        yield self.near.call(self.head()).done
        self.use(self.oauth())
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.status, len(self.endpoint.requests)), (200, 1))

    @inlineCallbacks
    def test_refresh_tokens_are_passed_on_from_answer_to_answer(self) -> Test:
        self.gives_tokens(expires=100, refresh_token="second")
        self.use(self.oauth(refresh_token="first"))
        yield self.near.call(self.head()).done
        self.now += 1000
        self.use(self.oauth(refresh_token="first"))
        call = yield self.near.call(self.head()).done
        self.assertEqual(call.status, 200)
        self.assertEqual([form["refresh_token"] for form in self.forms()], [["first"], ["second"]])
        self.assertEqual(self.forms()[0]["grant_type"], ["refresh_token"])

    @inlineCallbacks
    def test_a_configured_refresh_token_helps_where_the_kept_one_is_not_taken(self) -> Test:
        self.gives_tokens(expires=100, refresh_token="kept")
        self.use(self.oauth(refresh_token="old"))
        yield self.near.call(self.head()).done
        gives = self.endpoint.script

        def script(service: Service, request: Received) -> None:
            if b"kept" in request.body:
                answer(service, 400, b'{"error": "invalid_grant"}')
            else:
                gives(service, request)

        self.endpoint.script = script
        self.now += 1000
        self.use(self.oauth(refresh_token="new"))
        call = yield self.near.call(self.head()).done
        self.assertEqual(call.status, 200)

    @inlineCallbacks
    def test_an_endpoint_that_gives_none_is_not_asked_again_at_once(self) -> Test:
        for status, body, why in (
            (401, b'{"error": "invalid_client"}', "invalid_client"),
            (200, b'{"access_token": "x", "token_type": "mac"}', "not a bearer token"),
            (200, b"<html>", "answered 200 and nothing that is a token"),
            (500, b"", "answered 500"),
        ):
            self.endpoint.says(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)), body)
            self.use(self.oauth())
            before = len(self.endpoint.requests)
            for _ in range(3):
                call = yield self.near.call(self.head(b"POST"), b"x").done
                problem = json.loads(call.body)
                self.assertEqual(
                    (call.status, problem["type"].rpartition("/")[2]), (503, "credentials-unavailable")
                )
                self.assertIn(why, problem["detail"])
                self.assertNotIn("hush", problem["detail"])
            self.assertEqual(len(self.endpoint.requests), before + 1)
            self.assertEqual(self.service.requests, [])
        self.now += PAUSE
        self.gives_tokens()
        call = yield self.near.call(self.head()).done
        self.assertEqual(call.status, 200)

    @inlineCallbacks
    def test_an_endpoint_that_does_not_answer_in_time(self) -> Test:
        """The service has seen nothing, and the callers are told who was silent."""
        self.patch(fetching, "TIMEOUT", 0.02)
        self.use(self.oauth())
        for begins in ((), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",)):
            self.endpoint.says(*begins)
            call = yield self.near.call(self.head(b"POST"), b"x").done
            self.assertIn("did not answer within 0.02 s", self.unavailable(call))
            self.now += PAUSE
        self.patch(fetching, "TIMEOUT", 30.0)
        late = self.near.call(self.head(b"POST", deadline=10.0), b"x")
        yield until(lambda: len(self.endpoint.requests) == 3)
        self.skew = 9.5  # the near node still waits
        self.egress.tick()
        yield late.done
        self.assertIn("before the call had to end", self.unavailable(late))
        self.assertEqual(self.service.requests, [])

    def unavailable(self, call: Call) -> str:
        """What the call was told, which did not have credentials."""
        problem = json.loads(call.body)
        self.assertEqual((call.status, problem["type"].rpartition("/")[2]), (503, "credentials-unavailable"))
        return str(problem["detail"])

    @inlineCallbacks
    def test_answers_that_nobody_expects(self) -> Test:
        """Each is said in words, and none is a mistake of ours: trial fails a test that logs one."""
        self.use(self.oauth())
        token = b'{"access_token": "canary", "token_type": "bearer", '
        for body in (
            b"[1, 2]", b"7", b"null", b'"canary"', b"\xff\x00", b'{"a":' * 20_000, b"[" * 20_000, b"1" * 5000,
            token + b'"expires_in": ' + b"1" * 5000 + b"}", token + b'"refresh_token": 7}',
            token + b'"refresh_token": "\\ud800"}', token + b'"error": "slow\\n"}', token + b'"error": [1]}',
            b'{"access_token": ["canary"]}', b'{"access_token": "a\\r\\nX: canary"}', b'{"access_token": ""}',
            b'{"access_token": "canary\xff"}', b'{"access_token": "%b"}' % (b"a" * 70_000),
            b'{"access_token": "canary", "token_type": 7}', b'{"access_token": "canary", "token_type": {}}',
        ):  # fmt: skip
            self.endpoint.says(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % len(body), body)
            call = yield self.near.call(self.head()).done
            told = self.unavailable(call)
            self.assertIn("the token endpoint ", told, body[:80])
            self.assertNotIn("canary", told)
            self.now += PAUSE
        self.assertEqual(self.service.requests, [])

    @inlineCallbacks
    def test_answers_that_are_compressed_or_have_odd_cookies(self) -> Test:
        """The endpoint was asked for neither."""
        self.use(self.oauth())
        body = gzip.compress(b'{"access_token": "canary"}')
        odd = b"Set-Cookie: a\xff=\xfe; domain=\x80; expires=x\r\n"
        for field in (b"Content-Encoding: gzip\r\n", b"Content-Encoding: br\r\n", odd):
            self.endpoint.says(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n%b\r\n" % (len(body), field), body)
            call = yield self.near.call(self.head()).done
            self.unavailable(call)
            self.now += PAUSE
        self.assertEqual(self.endpoint.requests[0].values(b"accept-encoding"), [])

    def test_how_long_a_token_lives(self) -> None:
        for said, life in (
            (3600, 3540), ("3600", 3540), (10, 9), (0.5, 0.45), (float("inf"), oauth.LONGEST - 60),
            (10**400, oauth.LONGEST - 60), (None, None), (0, None), (-5, None), (True, None), ("x", None),
            ("1" * 5000, None), (float("nan"), None), ([3600], None), ("\u0663", None),
        ):  # fmt: skip
            token = oauth.Token.of(200, {"access_token": "a", "expires_in": said}, 1000.0)
            self.assertEqual(token.renew, None if life is None else 1000.0 + life, said)

    @inlineCallbacks
    def test_a_token_in_a_form_as_some_endpoints_still_answer(self) -> Test:
        body = b"access_token=token-1&token_type=bearer&expires_in=100"
        self.endpoint.says(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % len(body), body)
        self.use(self.oauth())
        call = yield self.near.call(self.head()).done
        self.assertEqual(
            (call.status, self.service.requests[0].values(b"authorization")), (200, [b"Bearer token-1"])
        )

    @inlineCallbacks
    def test_an_answer_without_end_is_not_taken_in(self) -> Test:
        self.endpoint.says(b"HTTP/1.1 200 X\r\nContent-Length: 9000000\r\n\r\n", bytes(4_000_000))
        self.use(self.oauth())
        call = yield self.near.call(self.head()).done
        self.assertEqual(call.status, 503)
        self.assertIn("answered more than", json.loads(call.body)["detail"])
        yield until(lambda: self.endpoint.connections[0].lost)

    @inlineCallbacks
    def test_an_endpoint_that_is_not_there(self) -> Test:
        settings = oauth.Settings("http://127.0.0.1:1/token", "me", "hush")
        self.use(oauth.OAuth("api", settings, REACTOR, self.agent, self.store, lambda: self.now))
        call = yield self.near.call(self.head()).done
        self.assertIn("127.0.0.1:1", json.loads(call.body)["detail"])


class LoginTests(CredentialCase):
    def setUp(self) -> None:
        super().setUp()
        self.sessions = 0

        def script(service: Service, request: Received) -> None:
            self.sessions += 1
            good = request.body == b"user=me&password=hush"
            cookie = b"Set-Cookie: session=s%d; Path=/; HttpOnly" % self.sessions
            answer(service, 303 if good else 200, b"", *([cookie, b"Location: /"] if good else []))

        self.endpoint.script = script
        self.good = lambda request: request.values(b"cookie") == [b"session=s%d" % self.sessions]
        self.use(self.login(b"user=me&password=hush"))

    def login(self, form: bytes) -> login.Login:
        settings = login.Settings(self.endpoint_url, form.decode())
        return login.Login("intranet", settings, REACTOR, self.agent, lambda: self.now)

    @inlineCallbacks
    def test_one_session_for_all_and_its_cookies_stay_here(self) -> Test:
        for _ in range(3):
            call = yield self.near.call(self.head(headers=[(b"Cookie", b"session=guess")])).done
            self.assertEqual((call.status, call.values(b"set-cookie")), (200, []))
        self.assertEqual(self.sessions, 1)

    @inlineCallbacks
    def test_a_session_that_ended_is_begun_anew(self) -> Test:
        yield self.near.call(self.head()).done
        self.good = lambda request: request.values(b"cookie") == [b"session=s2"]
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.status, self.sessions), (200, 2))

    @inlineCallbacks
    def test_where_the_service_leads_to_its_form(self) -> Test:
        yield self.near.call(self.head()).done

        def script(service: Service, request: Received) -> None:
            if request.values(b"cookie") == [b"session=s2"]:
                answer(service, 200, b"fine")
            else:
                answer(service, 302, b"", b"Location: " + self.endpoint_url.encode() + b"?next=%2F")

        self.service.script = script
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.status, self.sessions), (200, 2))

    @inlineCallbacks
    def test_where_the_service_leads_nowhere(self) -> Test:
        self.service.script = lambda service, request: answer(service, 302, b"", b"Location: http://[")
        call = yield self.near.call(self.head()).done
        self.assertEqual((call.status, self.sessions), (302, 1))

    @inlineCallbacks
    def test_a_form_that_gives_no_cookie(self) -> Test:
        self.use(self.login(b"user=me&password=wrong"))
        call = yield self.near.call(self.head()).done
        self.assertEqual(call.status, 503)
        self.assertIn("gave no cookie", json.loads(call.body)["detail"])


class StoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(mode=0o700)
        self.made = InlineJournal(folder, [SCHEMA])
        self.made.result(self.made.journal.open())
        self.addCleanup(self.made.crash)

    def store(self, *keys: bytes) -> SecretStore:
        return SecretStore(self.made.journal.transact, keys)

    def test_what_is_kept_can_be_read_with_either_key_and_by_nobody_else(self) -> None:
        old, new = b"o" * 32, b"n" * 32
        self.made.result(self.store(old).keep("api", b"token"))
        self.assertEqual(self.made.result(self.store(new, old).load("api")), b"token")
        self.made.result(self.store(new, old).keep("api", b"another"))
        self.assertEqual(self.made.result(self.store(new).load("api")), b"another")
        self.assertIsNone(self.made.result(self.store(old).load("api")))
        self.assertIsNone(self.made.result(self.store(new).load("other")))
        rows = self.made.do(lambda t: t.execute("SELECT sealed FROM secret").fetchall())
        self.assertNotIn(b"another", rows[0][0])

    def test_a_secret_is_of_one_name_only(self) -> None:
        self.made.result(self.store(b"k" * 32).keep("a", b"token"))
        self.made.do(lambda t: t.execute("UPDATE secret SET name = 'b'"))
        self.assertIsNone(self.made.result(self.store(b"k" * 32).load("b")))


class ConfiguredTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def file(self, text: str, mode: int = 0o600) -> Path:
        path = self.folder / "secret"
        path.write_text(text)
        path.chmod(mode)
        return path

    def made(self, one: Credential) -> Credentials:
        return credentials_of([one], secrets_of([one]), REACTOR, lambda: 0.0, MemoryStore())["c"]

    def test_each_kind(self) -> None:
        path = self.file("X-Key: a: b\nX-Other: 2\n")
        made = self.made(Credential("c", "headers", secret_file=path))
        self.assertEqual(self.successResultOf(made.fields("")), [(b"X-Key", b"a: b"), (b"X-Other", b"2")])
        self.file("hush\n")
        one = Credential("c", "client_credentials", "http://a/", "me", secret_file=path)
        self.assertIsInstance(self.made(one), oauth.OAuth)
        self.assertIsInstance(
            self.made(evolve(one, kind="refresh_token", refresh_token_file=path)), oauth.OAuth
        )
        self.assertIsInstance(self.made(evolve(one, kind="login")), login.Login)

    def test_files_that_others_may_read_or_that_make_no_sense(self) -> None:
        for path, why in (
            (self.folder / "missing", "no key there"),
            (self.file("X: 1", 0o644), "others may read"),
        ):
            with self.assertRaisesRegex(IdentityError, why):
                secrets_of([Credential("c", "headers", secret_file=path)])
        with self.assertRaisesRegex(IdentityError, "70003 bytes; wanted: at most 65536"):
            secrets_of([Credential("c", "headers", secret_file=self.file("X: " + "a" * 70_000))])
        for text in (
            "no colon",
            "Bad Name: 1",
            "X: \x00",
            "X: a\nno colon",
            "X: a\n\nY: b",
            "X: a\rY: b",
            ": a",
        ):
            with self.assertRaisesRegex(IdentityError, "no header field"):
                self.made(Credential("c", "headers", secret_file=self.file(text)))
        for text in ("", "\n", " \r\n"):
            with self.assertRaisesRegex(IdentityError, "nothing in it"):
                self.made(Credential("c", "headers", secret_file=self.file(text)))

    def test_fields_that_are_the_nodes_own_to_send(self) -> None:
        """One that says where a body ends would let a caller put a second request into the first."""
        for name in (
            "Transfer-Encoding", "content-length", "CONNECTION", "Host", "Expect", "Upgrade", "Via", "TE",
            "Trailer", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection",
        ):  # fmt: skip
            with self.assertRaisesRegex(IdentityError, f"{name} is for the node alone to say"):
                self.made(
                    Credential("c", "headers", secret_file=self.file(f"X-Key: canary\n{name}: canary\n"))
                )

    def test_the_bytes_of_a_field_stay_as_they_are(self) -> None:
        for value in (b"p\xc3\xa4ss\xc2\x85word", b"p\xe4ss\xa0", b"a\tb", b""):
            path = self.file("")
            path.write_bytes(b"X-Key: " + value + b"\r\nX-Other:1\n")
            made = self.made(Credential("c", "headers", secret_file=path))
            given = self.successResultOf(made.fields(""))
            self.assertEqual(given, [(b"X-Key", value), (b"X-Other", b"1")])

    def test_other_secrets_that_make_no_sense(self) -> None:
        oauth2 = Credential("c", "refresh_token", "http://a/", "me")
        good = self.folder / "good"
        good.write_text("good")
        good.chmod(0o600)
        for text, why in (
            ("", "nothing in it"), ("\n", "nothing in it"), ("canary\ncanary", "what belongs there"),
            ("canary\0", "what belongs there"), ("canary\x1b[m", "what belongs there"),
        ):  # fmt: skip
            for one in (
                evolve(oauth2, secret_file=self.file(text), refresh_token_file=good),
                evolve(oauth2, secret_file=good, refresh_token_file=self.file(text)),
                evolve(oauth2, kind="login", secret_file=self.file(text)),
            ):
                refusal = self.assertRaises(IdentityError, self.made, one)
                self.assertIn(why, str(refusal))
                self.assertNotIn("canary", str(refusal))
        with self.assertRaisesRegex(IdentityError, "percent-encoded"):
            self.made(evolve(oauth2, kind="login", secret_file=self.file("password=p\xe4ss")))
        self.made(evolve(oauth2, secret_file=self.file("p\xe4ss\n"), refresh_token_file=good))
