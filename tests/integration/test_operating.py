"""What those who look after nodes see of real ones."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from select import select
from threading import Event

from hoft.cli import main
from hoft.completing import call_ids
from tests.processes import command, environment, hoft

from .gateway import GatewayCase
from .processes import wait_until
from .services import SocketService, respond


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


class StatusTests(GatewayCase):
    def test_the_life_of_a_pair_as_scripts_and_people_see_it(self) -> None:
        gateway = self.pair()
        near = gateway.near
        code, out, err = run("status", near.folder)
        self.assertEqual(
            (code, err),
            (2, f"hoft: no node runs on {near.folder}; start it with 'hoft run' or its service\n"),
        )
        self.assertIn("near  not running", out)

        gateway.start()
        code, out, err = run("status", near.folder)
        self.assertEqual((code, err), (0, ""), out)
        self.assertRegex(out, r"\nfar +up ")
        code, out, _ = run("status", near.folder, "--json")
        told = json.loads(out)
        self.assertEqual((code, told["running"], told["problems"]), (0, True, []))
        # One and the same source.
        self.assertEqual(set(told["node"]), set(near.status()))
        self.assertEqual(set(told["node"]["peers"]["far"]), set(near.status()["peers"]["far"]))

        id = str(near.call("GET", "/svc/none/?token=canary")["Hoft-Request-Id"])
        code, out, _ = run("requests", near.folder, id[:6])
        self.assertEqual((code, out.splitlines()[0]), (0, f"{id}  GET /svc/none/?..."))
        self.assertIn("unknown-route", out)
        self.assertEqual(run("requests", near.folder, "--json", "--side", "egress")[:1], (0,))
        self.assertIn("no call whose id begins with", run("requests", near.folder, "f" * 32)[2])
        self.assertEqual(call_ids(parsed_args=Namespace(folder=near.folder), prefix=id[0]), [id])

        away = gateway.folder / "away"
        (gateway.folder / "exchange").rename(away)
        near.await_status(lambda now: now["carrier_down"], "the carrier is down")
        code, out, err = run("status", near.folder)
        self.assertEqual(code, 1, out)
        self.assertIn("hoft: the carrier is down: ", err)
        code, out, err = run("doctor", near.folder)
        self.assertEqual((code, err), (2, ""))
        self.assertRegex(out, "\nfail: the carrier is down: .* what its folders lack stands above")
        self.assertIn("\nwarn: no peer was asked for a sign of life: ", out)
        away.rename(gateway.folder / "exchange")

        good = near.file.read_text()
        near.file.write_text("nonsense")
        code, out, err = run("status", near.folder)
        self.assertEqual(code, 1)
        self.assertRegex(err, "\\Ahoft: .*hoft.toml: .*'hoft reload' takes nothing up")
        self.assertRegex(out, r"\nfar +")
        near.file.write_text(good)

        near.kill()
        self.assertTrue((near.folder / "socket").exists())
        code, out, err = run("status", near.folder, "--json")
        told = json.loads(out)
        self.assertEqual((code, told["running"]), (2, False))
        self.assertEqual(told["journal"]["peers"]["far"]["records"], 0)

    def test_watching_redraws_in_place_and_ends_with_what_it_saw_last(self) -> None:
        near = self.pair().near
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        process = subprocess.Popen(
            command("status", near.folder, "--watch", "0.05"),
            env=environment(COLUMNS="80", LINES="24", TERM="xterm"), stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        seen = b""

        def redrawn() -> bool:
            nonlocal seen
            seen += os.read(master, 65536)
            return seen.count(b"\x1b[H") >= 3

        wait_until(redrawn, "it is drawn three times")
        self.assertIn(b"\x1b[31mno node runs on ", seen)
        process.send_signal(signal.SIGINT)

        def ended() -> bool:
            # A terminal that nobody reads any more holds up who writes to it.
            if select([master], [], [], 0.01)[0]:
                with contextlib.suppress(OSError):
                    os.read(master, 65536)
            return process.poll() is not None

        wait_until(ended, "it ends")
        self.assertEqual(process.returncode, 2)


class DoctorTests(GatewayCase):
    def examine(self, folder: object, *options: object) -> tuple[int, list[str]]:
        done = hoft("doctor", folder, *options)
        self.assertEqual(done.stderr, "")
        return done.returncode, done.stdout.splitlines()

    def test_peers_are_asked_through_the_node_and_without_it(self) -> None:
        gateway = self.pair()
        near, far = gateway.nodes
        code, lines = self.examine(near.folder, "--wait", "0.2")
        self.assertEqual(code, 2)
        self.assertIn("fail: far has not answered within 200 ms", lines[-1])
        left = [path for path in (gateway.folder / "exchange").rglob("*") if path.is_file()]
        self.assertEqual(left, [])

        far.start()
        code, lines = self.examine(near.folder)
        self.assertEqual(code, 1, lines)
        self.assertRegex(lines[-1], r"\Aok: far answers after ")
        self.assertTrue(any(line.startswith("warn: no node runs: ") for line in lines), lines)

        near.start()
        gateway.await_up()
        code, out, _ = run("doctor", near.folder)
        self.assertEqual(code, 0, out)
        self.assertRegex(out.splitlines()[-1], r"\Aok: far was heard .* after it was asked")
        # Neither question has made either side believe that the other was restored, or is two.
        for node in gateway.nodes:
            [peer] = node.status()["peers"].values()
            self.assertEqual((peer["state"], peer["rollbacks"]), ("up", 0))


class RestoredTests(GatewayCase):
    def test_both_nodes_are_restored_from_a_backup_made_amid_a_call(self) -> None:
        gateway = self.pair()
        near = gateway.near
        made: list[bytes] = []
        gate = Event()

        def pay(connection: socket.socket, head: bytes) -> None:
            made.append(head.split(b"\r\n")[0])
            gate.wait(20)
            respond(connection)

        service = SocketService(pay)
        self.addCleanup(service.close)
        self.addCleanup(gate.set)
        gateway.route("pay", service.url)
        gateway.start()
        with ThreadPoolExecutor(1) as callers:
            calling = callers.submit(near.call, "POST", "/svc/pay/", b"12 crowns")
            wait_until(lambda: made, "the service is called")
            for node in gateway.nodes:
                shutil.copytree(node.folder, gateway.folder / f"{node.name} backup", ignore=_sockets)
            code, _, err = run("restored", near.folder)
            self.assertEqual(code, 2)
            self.assertIn("stop it first", err)
            gate.set()
            self.assertEqual(calling.result(20).status, 200)
        for node in gateway.nodes:
            node.stop()
            shutil.rmtree(node.folder)
            (gateway.folder / f"{node.name} backup").rename(node.folder)
            code, out, err = run("restored", node.folder)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("the journal has a new incarnation", out)
        gateway.start()
        self.assertEqual(near.call("GET", "/svc/pay/again").status, 200)
        gateway.await_quiet()
        # The call of before, which the backup knows as begun, was not made once more.
        self.assertEqual(made, [b"POST / HTTP/1.1", b"GET /again HTTP/1.1"])
        for node in gateway.nodes:
            self.assertNotIn("Traceback", node.log)


def _sockets(folder: str, names: list[str]) -> list[str]:
    """What L{shutil.copytree} cannot copy."""
    return [name for name in names if (Path(folder) / name).is_socket()]
