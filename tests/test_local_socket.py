"""A command asks, a node answers: over a Unix socket in the state folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from hoft import local_server
from hoft.errors import LocalError, NodeNotRunning, NodeSilent
from hoft.local_server import LocalServer
from hoft.local_socket import LONGEST_QUESTION, SOCKET_FILE, SocketAddress, ask

Waiting = Generator[Deferred[Any], Any, None]


class LocalSocketTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.state = Path(self.mktemp()).absolute()
        self.state.mkdir(parents=True, mode=0o700)

    def serve(self, answer: Callable[[Mapping[str, Any]], Any], state: Path | None = None) -> LocalServer:
        server = LocalServer(reactor, state or self.state, answer)
        server.start()
        self.addCleanup(server.stop)
        return server

    def asking(self, *arguments: Any, **details: Any) -> Deferred[Any]:
        return deferToThread(ask, *arguments, **details)

    def sending(self, data: bytes, ends: bool = False) -> Deferred[bytes]:
        """
        What comes back after exactly these bytes.

        @param ends: nothing will follow them, which breaks off what was asked.
        """

        def talk() -> bytes:
            address = SocketAddress(self.state)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(address.path)
                address.close()
                connection.sendall(data)
                if ends:
                    connection.shutdown(socket.SHUT_WR)
                received = b""
                while piece := connection.recv(65536):
                    received += piece
                return received

        return deferToThread(talk)

    @inlineCallbacks
    def test_a_question_and_its_details_arrive_and_the_answer_comes_back(self) -> Waiting:
        self.serve(lambda question: {"you asked": question})
        answer = yield self.asking(self.state, "status", peer="far")
        self.assertEqual(answer, {"you asked": {"ask": "status", "peer": "far"}})

    @inlineCallbacks
    def test_an_answer_may_be_large_and_may_come_later(self) -> Waiting:
        self.serve(lambda question: succeed("x" * 3_000_000))
        answer = yield self.asking(self.state, "status")
        self.assertEqual(len(answer), 3_000_000)

    @inlineCallbacks
    def test_why_there_is_no_answer_is_said(self) -> Waiting:
        def refuse(question: Mapping[str, Any]) -> Any:
            raise LocalError("not at this hour")

        self.serve(refuse)
        error = yield self.assertFailure(self.asking(self.state, "status"), LocalError)
        self.assertEqual(str(error), "not at this hour")

    @inlineCallbacks
    def test_rubbish_is_answered_with_one_line_and_harms_nobody(self) -> Waiting:
        self.serve(lambda question: "well")
        rubbish = (b"\n", b"[]\n", b"{\n", b"\xff\xfe\n", b"[" * 4000 + b"\n", b"x" * (LONGEST_QUESTION + 1))
        for data in rubbish:
            received = yield self.sending(data)
            self.assertEqual(list(json.loads(received)), ["error"], data[:20])
        received = yield self.sending(b'{"ask": "it"}\n{"ask": "again"}\n')
        self.assertEqual(received, b'{"answer": "well"}\n')
        received = yield self.sending(b'{"ask": "it"}', ends=True)
        self.assertEqual(received, b"")

    @inlineCallbacks
    def test_too_many_at_once_are_turned_away(self) -> Waiting:
        self.patch(local_server, "CONNECTIONS", 2)
        held: list[Deferred[str]] = []

        def hold(question: Mapping[str, Any]) -> Deferred[str]:
            held.append(Deferred())
            return held[-1]

        self.serve(hold)
        first = [self.asking(self.state, "status") for _ in range(2)]
        while len(held) < 2:
            yield deferToThread(int)
        error = yield self.assertFailure(self.asking(self.state, "status"), LocalError)
        self.assertIn("2 others are asking already", str(error))
        for deferred in held:
            deferred.callback("well")
        answers = yield gatherResults(first)
        self.assertEqual(answers, ["well", "well"])

    @inlineCallbacks
    def test_who_does_not_answer_in_time_is_named(self) -> Waiting:
        self.serve(lambda question: Deferred())
        error = yield self.assertFailure(self.asking(self.state, "status", 0.1), NodeSilent)
        self.assertIn(f"the node on {self.state} does not answer within 0.1 s", str(error))

    @inlineCallbacks
    def test_only_the_owner_may_ask_and_the_socket_goes_with_the_node(self) -> Waiting:
        server = self.serve(lambda question: "well")
        mode = (self.state / SOCKET_FILE).stat().st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o600)
        yield server.stop()
        self.assertEqual(os.listdir(self.state), [])
        yield self.assertFailure(self.asking(self.state, "status"), NodeNotRunning)

    @inlineCallbacks
    def test_the_socket_of_a_process_that_was_killed_is_nobodys_and_is_replaced(self) -> Waiting:
        with socket.socket(socket.AF_UNIX) as dead:
            address = SocketAddress(self.state)
            dead.bind(address.path)
            address.close()
        yield self.assertFailure(self.asking(self.state, "status"), NodeNotRunning)
        self.serve(lambda question: "well")
        answer = yield self.asking(self.state, "status")
        self.assertEqual(answer, "well")

    @inlineCallbacks
    def test_a_path_too_long_for_a_socket_address_does_as_well(self) -> Waiting:
        state = self.state / ("d" * 120)
        state.mkdir()
        server = self.serve(lambda question: "well", state)
        answer = yield self.asking(state, "status")
        self.assertEqual(answer, "well")
        self.assertTrue(stat.S_ISSOCK((state / SOCKET_FILE).stat().st_mode))
        yield server.stop()
        self.assertEqual(os.listdir(state), [])
        held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        self.assertNotIn(str(state), held)

    @inlineCallbacks
    def test_a_process_that_holds_the_folder_and_takes_no_questions_is_named(self) -> Waiting:
        with open(self.state / "lock", "wb") as lock:
            lock.write(b"4711\n")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            error = yield self.assertFailure(self.asking(self.state, "status"), NodeSilent)
        self.assertIn("process 4711 holds", str(error))
        yield self.assertFailure(self.asking(self.state / "none", "status"), NodeNotRunning)
