"""
hoft, shown: real HTTP calls across a folder that cuts and loses files.

Starts two nodes (near and far), each in a zone of its own, that is a folder;
C{hoft mirror}, which carries files between the two zones as carelessly as told;
and httpbin, a service that hoft did not write, behind the far node.  Calls the
service through the near node, checks every answer, and says what crossed.
Leaves nothing running and nothing behind.  Exits 0 only if every answer was
right although at least five files were cut and two lost.

Run it with C{make demo}.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import requests

CUT_AT_LEAST, LOST_AT_LEAST = 5, 2
UPLOAD = 20_000_000


class Failed(Exception):
    """Something did not go as promised; the message says what."""


class Processes:
    """What the demonstration has started, and ends whatever happens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen[str]]] = []

    def start(self, name: str, *command: str) -> subprocess.Popen[str]:
        """Start a process; what it says on standard error goes to a log of that name."""
        with (self._folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self._running.append((name, process))
        return process

    def check(self) -> None:
        """Nothing has ended by itself."""
        for name, process in self._running:
            if process.poll() is not None:
                log = (self._folder / f"{name}.log").read_text().strip().splitlines()
                raise Failed(f"{name} ended with code {process.returncode}: {(log or ['no word'])[-1]}")

    def stop(self) -> None:
        """End all, the last one first."""
        for _, process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
        for _, process in reversed(self._running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module of this environment."""
    return (sys.executable, "-m", module, *arguments)


def hoft(*arguments: str) -> str:
    """Run one C{hoft} command to its end; what it printed."""
    done = subprocess.run(python("hoft.cli", *arguments), capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"hoft {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def free_port() -> int:
    """A TCP port that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(url: str, processes: Processes, seconds: float = 30.0) -> None:
    """Until something answers there."""
    give_up = time.monotonic() + seconds
    while True:
        processes.check()
        try:
            requests.get(url, timeout=5)
            return
        except requests.ConnectionError:
            if time.monotonic() > give_up:
                raise Failed(f"nothing answers at {url}") from None
            time.sleep(0.1)


def say(line: str = "") -> None:
    """To the person who watches."""
    print(line, flush=True)


def show(what: str, call: Callable[[], str]) -> None:
    """Make a call, time it, and print what came of it."""
    begun = time.monotonic()
    outcome = call()
    say(f"  {what:<58} {outcome}  ({time.monotonic() - begun:.1f} s)")


def expect(holds: bool, what: str) -> None:
    """@raise Failed: it does not hold."""
    if not holds:
        raise Failed(what)


# --- the calls ------------------------------------------------------------------


def get_json(base: str) -> str:
    """A JSON GET with a query."""
    answer = requests.get(f"{base}/get", params={"zone": "far & wide"}, timeout=60)
    expect(answer.status_code == 200, f"GET /get: {answer.status_code} {answer.text[:200]}")
    expect(answer.json()["args"] == {"zone": "far & wide"}, "GET /get: another query arrived")
    return f"{answer.status_code} JSON"


def post_bytes(base: str) -> str:
    """A large upload, echoed by the service: the digests must be equal."""
    body = os.urandom(UPLOAD)
    headers = {"Content-Type": "application/octet-stream"}
    answer = requests.post(f"{base}/post", data=body, headers=headers, timeout=60)
    expect(answer.status_code == 200, f"POST /post: {answer.status_code} {answer.text[:200]}")
    echoed = b64decode(answer.json()["data"].partition("base64,")[2])
    sent, got = hashlib.sha256(body).hexdigest(), hashlib.sha256(echoed).hexdigest()
    expect(sent == got, f"POST /post: sent {sent}, came back {got}")
    return f"{answer.status_code} sha256 {got[:12]}... equal"


def stream(base: str) -> str:
    """The first byte arrives before the service sends its last."""
    query = {"duration": "4", "numbytes": "8", "delay": "0"}
    begun = time.monotonic()
    answer = requests.get(f"{base}/drip", params=query, stream=True, timeout=60)
    expect(answer.status_code == 200, f"GET /drip: {answer.status_code}")
    arrivals = [time.monotonic() - begun for _ in answer.iter_content(1)]
    expect(len(arrivals) == 8, f"GET /drip: {len(arrivals)} bytes of 8")
    expect(arrivals[0] < arrivals[-1] - 1, f"GET /drip: not streamed, bytes came at {arrivals}")
    return f"first byte after {arrivals[0]:.1f} s, last after {arrivals[-1]:.1f} s"


def not_found(base: str) -> str:
    """The service's own 404."""
    answer = requests.get(f"{base}/status/404", timeout=60)
    expect(answer.status_code == 404, f"GET /status/404: {answer.status_code}")
    return "404 of the service"


def with_curl(base: str) -> str:
    """The same through curl, as a forward proxy need not know hoft."""
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "60", f"{base}/uuid"]
    done = subprocess.run(command, capture_output=True, text=True)
    expect(done.returncode == 0, f"curl: {done.stderr.strip()}")
    return f"uuid {json.loads(done.stdout)['uuid']}"


def many(base: str) -> str:
    """Small calls, one after the other."""
    with requests.Session() as session:
        for number in range(10):
            answer = session.get(f"{base}/anything/{number}", timeout=60)
            expect(answer.status_code == 200, f"GET /anything/{number}: {answer.status_code}")
            expect(answer.json()["url"].endswith(f"/anything/{number}"), "another call's answer")
    return "10 of 10 right"


# --- the stage ------------------------------------------------------------------


def set_up(folder: Path, processes: Processes, arguments: argparse.Namespace) -> tuple[str, str, Any]:
    """Start everything; the near node's address, the far node's, and the mirror."""
    ports = {name: free_port() for name in ("near", "far", "service")}
    service = f"http://127.0.0.1:{ports['service']}"
    for name in ("near", "far"):
        zone = folder / f"{name}-zone"
        zone.mkdir()
        listen = f"tcp:{ports[name]}:interface=127.0.0.1"
        hoft("init", str(folder / name), "--name", name, "--folder", str(zone), "--listen", listen)
    for name, other in (("near", "far"), ("far", "near")):
        hoft("trust", str(folder / name), hoft("card", str(folder / other)).strip())
    hoft("route", str(folder / "near"), "httpbin", "--peer", "far", "--url", f"{service}/")
    hoft("allow", str(folder / "far"), f"{service}/")

    listen = f"tcp:{ports['service']}:interface=127.0.0.1"
    processes.start("service", *python("twisted", "web", "--listen", listen, "--wsgi", "httpbin.app"))
    mirror = processes.start(
        "mirror",
        *python("hoft.cli", "mirror", str(folder / "near-zone"), str(folder / "far-zone"), "--both"),
        *("--every", "0.05", "--delay", str(arguments.delay), "--seed", str(arguments.seed)),
        *("--truncate", str(arguments.truncate), "--lose", str(arguments.lose)),
    )
    for name in ("near", "far"):
        processes.start(name, *python("hoft.cli", "run", str(folder / name)))
    near, far = (f"http://127.0.0.1:{ports[name]}" for name in ("near", "far"))
    for url in (f"{service}/get", f"{near}/_hoft/status", f"{far}/_hoft/status"):
        wait_for(url, processes)
    return near, far, mirror


def report(near: dict[str, Any], far: dict[str, Any], mirrored: dict[str, Any]) -> None:
    """What crossed, by the nodes' own counters and the mirror's."""
    say()
    say("What crossed (counted by the nodes):")
    for status, peer in ((near, "far"), (far, "near")):
        link, carrier = status["peers"][peer], status["carrier"]
        again = link["retransmitted_records"]
        say(
            f"  {status['name']:>4} to {peer:<4}  {carrier['files_written']:>4} files,"
            f" {carrier['bytes_written'] / 1e6:6.1f} MB; of these {link['cut_packets']} known cut,"
            f" {link['lost_packets']} taken for lost;"
        )
        say(
            f"                {link['records_sent']} records, sent again {sum(again.values())}"
            f" ({', '.join(f'{why} {count}' for why, count in again.items())});"
            f" round trip {link['round_trip'] or 0:.2f} s"
        )
    say(
        f"The mirror carried {mirrored['files']} files, cut {mirrored['cut']} and lost {mirrored['lost']}"
        " of them."
    )


def play(folder: Path, processes: Processes, arguments: argparse.Namespace) -> None:
    """The whole demonstration."""
    say(
        f"A folder in each zone; a mirror carries files between them, {arguments.delay:g} s late,"
        f" cutting {arguments.truncate:.0%} of them short and losing {arguments.lose:.0%}"
        f" (seed {arguments.seed})."
    )
    near, far, mirror = set_up(folder, processes, arguments)
    base = f"{near}/svc/httpbin"
    say("Two nodes run, and httpbin behind the far one. Calls through the near one:")
    show("GET /get", lambda: get_json(base))
    show(f"POST /post, {UPLOAD / 1e6:.0f} MB of random bytes, echoed", lambda: post_bytes(base))
    show("GET /drip, a streamed response", lambda: stream(base))
    show("GET /status/404", lambda: not_found(base))
    if shutil.which("curl"):
        show("curl .../uuid", lambda: with_curl(base))
    show("10 small calls in a row", lambda: many(base))
    processes.check()
    states = [requests.get(f"{node}/_hoft/status", timeout=10).json() for node in (near, far)]
    mirror.send_signal(signal.SIGTERM)
    mirrored = json.loads(mirror.communicate(timeout=10)[0])
    report(states[0], states[1], mirrored)
    expect(mirrored["cut"] >= CUT_AT_LEAST, f"only {mirrored['cut']} files were cut")
    expect(mirrored["lost"] >= LOST_AT_LEAST, f"only {mirrored['lost']} files were lost")
    say()
    say("Every answer was right. To go on: README.md, 'In ten minutes', or docs/tutorial.rst.")


def fail(why: str) -> NoReturn:
    """One line, then the end."""
    print(f"demo: {why}", file=sys.stderr)
    sys.exit(1)


def main() -> None:
    """Parse options, play, clean up."""
    parser = argparse.ArgumentParser(
        description="Shows HTTP calls crossing a folder that cuts and loses files."
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="of all chance in the mirror (default: %(default)s)"
    )
    parser.add_argument("--truncate", type=float, default=0.2, metavar="P", help="cut files (%(default)s)")
    parser.add_argument("--lose", type=float, default=0.1, metavar="P", help="lose files (%(default)s)")
    parser.add_argument("--delay", type=float, default=0.05, metavar="S", help="seconds each (%(default)s)")
    parser.add_argument(
        "--keep", action="store_true", help="keep the folder with nodes and logs, and say where"
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hoft-demo-"))
    processes = Processes(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        play(folder, processes, arguments)
    except Failed as failed:
        arguments.keep = True
        fail(str(failed))
    except requests.RequestException as error:
        arguments.keep = True
        fail(f"a call was not answered: {error}")
    except KeyboardInterrupt:
        fail("interrupted")
    finally:
        processes.stop()
        if arguments.keep:
            say(f"Logs and state are in {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
