"""A node that runs: how it ends, and how it takes up changes."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from .callers import Answer
from .gateway import GatewayCase
from .services import SocketService, respond


class Gate:
    """A behaviour of services: a request waits until it is let through."""

    def __init__(self) -> None:
        self.here = threading.Event()
        self.opened = threading.Event()

    def __call__(self, connection: socket.socket, head: bytes) -> None:
        self.here.set()
        self.opened.wait(20)
        respond(connection)


class StopTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.pair()
        self.gate = Gate()
        self.service = SocketService(self.gate)
        self.addCleanup(self.service.close)
        self.addCleanup(self.gate.opened.set)
        self.gateway.route("gate", self.service.url)
        self.gateway.start()
        self.callers = ThreadPoolExecutor(4)
        self.addCleanup(self.callers.shutdown)

    def begin(self, method: str = "POST") -> Future[Answer]:
        """A call that is under way, held up by its service."""
        calling = self.callers.submit(self.gateway.near.call, method, "/svc/gate/", b"x")
        self.assertTrue(self.gate.here.wait(20))
        return calling

    def test_sigterm_ends_an_idle_node_with_code_0_and_it_starts_again(self) -> None:
        begun = time.monotonic()
        for node in self.gateway.nodes:
            self.assertEqual(node.stop(), 0)
        self.assertLess(time.monotonic() - begun, 30.0)
        self.gateway.start()
        for node in self.gateway.nodes:
            self.assertNotIn("Traceback", node.log)

    def test_who_waits_at_a_node_that_is_stopped_is_told(self) -> None:
        calling = self.begin()
        self.assertEqual(self.gateway.near.stop(), 0)
        answer = calling.result(20)
        self.assertEqual((answer.status, answer.kind), (503, "outcome-unknown"))
        self.assertNotIn("Traceback", self.gateway.near.log)

    def test_an_answer_that_was_in_the_journal_arrives_after_the_next_start(self) -> None:
        near, far = self.gateway.nodes
        calling = self.begin()
        assert near.process is not None
        # The near node takes nothing while the answer is made and the far one stopped and started.
        os.kill(near.process.pid, signal.SIGSTOP)
        try:
            self.gate.opened.set()
            far.await_status(lambda now: now["peers"]["near"]["unacknowledged_records"] > 0, "it answers")
            far.await_status(lambda now: now["egress"]["running"] == 0, "it is done")
            self.assertEqual(far.stop(), 0)
            far.start()
            self.assertFalse(calling.done())
        finally:
            os.kill(near.process.pid, signal.SIGCONT)
        answer = calling.result(20)
        self.assertEqual((answer.status, answer.body), (200, b"hello"))
        self.assertEqual(len(self.service.heads), 1)

    def test_a_request_that_was_in_the_journal_is_performed_after_the_next_start(self) -> None:
        near, far = self.gateway.nodes
        far.kill()
        calling = self.callers.submit(near.call, "POST", "/svc/gate/", b"x")
        near.await_status(lambda now: now["peers"]["far"]["unacknowledged_records"] > 0, "it is committed")
        near.kill()
        with self.assertRaises(OSError):
            calling.result(20)
        # The caller is gone, and nobody cancelled: that is for the far node to find out.
        near.start()
        far.start()
        self.assertTrue(self.gate.here.wait(20))
        self.gate.opened.set()
        self.gateway.await_quiet()
        self.assertEqual(len(self.service.heads), 1)

    def test_a_post_that_was_under_way_when_the_far_node_was_stopped_is_not_made_again(self) -> None:
        calling = self.begin()
        self.assertEqual(self.gateway.far.stop(), 0)
        self.gateway.far.start()
        answer = calling.result(30)
        self.assertEqual((answer.status, answer.kind), (502, "outcome-unknown"))
        self.assertEqual(len(self.service.heads), 1)

    def test_a_get_that_was_under_way_when_the_far_node_was_stopped_is_made_again(self) -> None:
        calling = self.begin("GET")
        self.assertEqual(self.gateway.far.stop(), 0)
        self.gate.opened.set()
        self.gateway.far.start()
        self.assertEqual(calling.result(30).status, 200)
        self.assertEqual(len(self.service.heads), 2)


class ReloadTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.gateway = self.shared_pair()
        self.near, self.far = self.gateway.nodes
        self.service = SocketService(lambda connection, head: respond(connection))
        self.addCleanup(self.service.close)

    def status(self, name: str = "new") -> int:
        return self.near.call("GET", f"/svc/{name}/").status

    def test_routes_and_allowances_take_effect_at_once_and_so_does_taking_them_back(self) -> None:
        self.assertEqual(self.status("now"), 404)
        self.near.hoft("route", "now", "--peer", "far", "--url", self.service.url)
        self.assertEqual(self.status("now"), 403)
        self.far.hoft("allow", self.service.url)
        self.assertEqual(self.status("now"), 200)
        self.far.hoft("disallow", self.service.url)
        self.assertEqual(self.status("now"), 403)
        self.far.hoft("allow", self.service.url, "--peer", "near")
        self.assertEqual(self.status("now"), 200)
        self.near.hoft("unroute", "now")
        self.assertEqual(self.status("now"), 404)

    def test_a_peer_that_is_not_trusted_any_more_gets_nothing_until_it_is_again(self) -> None:
        self.gateway.route("new", self.service.url)
        self.assertEqual(self.status(), 200)
        self.far.hoft("untrust", "near")
        answer = self.near.call("GET", "/svc/new/", headers={"Hoft-Deadline": "1"})
        self.assertEqual((answer.status, answer.kind), (504, "peer-silent"))
        self.assertEqual(len(self.service.heads), 1)
        self.far.await_status(lambda status: "stranger" in status["refused"], "a stranger is refused")
        self.far.hoft("trust", self.near.card)
        self.gateway.await_up()
        self.assertEqual(self.status(), 200)

    def test_a_file_changed_by_hand_is_taken_up_by_hoft_reload(self) -> None:
        self.gateway.route("new", self.service.url)
        self.near.file.write_text(self.near.file.read_text().replace("[routes.new]", "[routes.newer]"))
        self.near.await_reload()
        self.assertEqual(self.status(), 404)
        self.assertEqual(self.near.call("GET", "/svc/newer/").status, 200)

    def test_a_bad_file_changes_nothing_and_the_log_says_why(self) -> None:
        self.gateway.route("new", self.service.url)
        good = self.near.file.read_text()
        self.addCleanup(self.near.file.write_text, good)
        assert self.near.process is not None
        for bad, why in (
            ("nonsense", "Expected '=' after a key"),
            (good.replace('peer = "far"', 'peer = "fra"'), "no peer is called 'fra'"),
            ('state = "elsewhere"\n' + good, "state: cannot change while the node runs"),
        ):
            self.near.file.write_text(bad)
            self.near.process.send_signal(signal.SIGHUP)
            line = self.near.await_log(why)
            self.assertIn("configuration unchanged", line)
            self.assertEqual(self.status(), 200)

    def test_a_call_under_way_is_not_harmed_by_a_reload(self) -> None:
        gate = Gate()
        service = SocketService(gate)
        self.addCleanup(service.close)
        self.gateway.route("slow", service.url)
        with ThreadPoolExecutor(1) as callers:
            calling = callers.submit(self.near.call, "POST", "/svc/slow/", b"x")
            self.assertTrue(gate.here.wait(20))
            self.near.hoft("unroute", "slow")
            self.far.hoft("disallow", service.url)
            gate.opened.set()
            self.assertEqual(calling.result(20).status, 200)
