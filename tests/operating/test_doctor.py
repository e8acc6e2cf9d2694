"""What keeps a node from its peers is found, and nothing is disturbed by looking."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from threading import Event
from typing import Any
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from hoft.cli import main
from hoft.config import Allow, parse
from hoft.identity import IDENTITY_FILE, Identity
from hoft.operating import doctor, folder_checks, local_checks
from hoft.operating.finding import Finding, Level, ok
from hoft.operating.folder_checks import Folders
from hoft.operating.greeting import Greeting
from hoft.operating.places import Place
from hoft.protocols.sealing import BoxSuite
from hoft.transports.filenames import FileName
from hoft.transports.locations import FolderLocation
from tests.mounting import mount
from tests.operating.test_screen import changed
from tests.protocols.nodes import Pair, lost

NODE, PEER, OTHER = (UUID(bytes=bytes([number]) * 16) for number in (1, 2, 3))


def told(findings: Iterable[Finding]) -> list[str]:
    return [str(one) for one in findings]


class LocalChecksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True, mode=0o700)

    def test_a_state_folder_that_is_as_it_should_be(self) -> None:
        [line] = told(local_checks.state(self.folder))
        self.assertRegex(line, r"\Aok: .* are free for the journal, which takes 0 B\Z")

    def test_one_that_is_not(self) -> None:
        self.folder.chmod(0o755)
        self.assertIn(
            f"warn: state {self.folder} is open to others: 'chmod 700",
            told(local_checks.state(self.folder))[0],
        )
        [line] = told(local_checks.state(self.folder / "none"))
        self.assertIn("No such file or directory", line)
        self.patch(local_checks, "LOW", 1 << 60)
        self.assertIn("make room on that disk", told(local_checks.state(self.folder))[-1])
        self.patch(os, "geteuid", lambda: 12345)
        self.assertIn("warn: the state belongs to ", told(local_checks.state(self.folder))[0])

    def test_a_journal_that_is_none(self) -> None:
        self.assertIn("is not there", told(local_checks.journal(self.folder))[0])
        (self.folder / "journal.sqlite").write_bytes(Random(1).randbytes(8192))
        [line] = told(local_checks.journal(self.folder))
        self.assertRegex(line, "fail: cannot read .*journal.sqlite: file is not a database: .*backup")

    def test_a_key_that_others_may_read(self) -> None:
        identity = Identity.generate(Random(1).randbytes)
        identity.save(self.folder / IDENTITY_FILE)
        config = parse('name = "near"', self.folder / "hoft.toml")
        [line] = told(local_checks.keys(config))
        self.assertEqual(line, f"ok: key of {identity.card('near').fingerprint}")
        (self.folder / IDENTITY_FILE).chmod(0o644)
        [line] = told(local_checks.keys(config))
        self.assertRegex(line, r"\Afail: key: .*others may read this key")

    def test_a_configuration_in_which_nothing_leads_anywhere(self) -> None:
        lines = told(local_checks.configuration(parse('name = "near"', self.folder / "hoft.toml")))
        self.assertRegex(lines[0], r"\Afail: configuration: .*transport: not given")
        self.assertRegex(lines[1], r"\Afail: no peer is trusted: 'hoft trust DIR CARD'")

    def test_an_entry_that_adds_nothing(self) -> None:
        card = Identity.generate(Random(1).randbytes).card("far")
        text = (
            'name = "near"\ntransport = "folder:/srv"\n[[allow]]\nurl = "http://a"\n[[allow]]\nurl = "http://a"\n'
            f'peer = "far"\n[peers.far]\ncard = "{card}"\n'
        )
        [line] = told(local_checks.configuration(parse(text, self.folder / "hoft.toml")))
        self.assertIn("warn: allow http://a --peer far adds nothing", line)

    def test_an_entry_that_lets_nobody_through(self) -> None:
        where = {"wiki.lan": "192.168.1.5", "loop.lan": "127.0.0.1", "stock.example": "93.184.216.34"}

        def resolve(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            if host not in where:
                raise socket.gaierror(-2, "Name or service not known")
            return [(2, 1, 6, "", (where[host], port))]

        self.patch(socket, "getaddrinfo", resolve)
        for entry, words in (
            (Allow("http://stock.example/a"), "ok: allow http://stock.example/a, at 93.184.216.34"),
            (Allow("http://wiki.lan", private=True), "ok: "),
            (
                Allow("http://wiki.lan"),
                "warn: allow http://wiki.lan lets nobody through: wiki.lan leads to 192.168.1.5 only:"
                " 'hoft allow --private'",
            ),
            (
                Allow("http://loop.lan"),
                "warn: allow http://loop.lan lets nobody through: loop.lan leads to 127.0.0.1 only:"
                " allow the address",
            ),
            (Allow("http://none.example"), "warn: allow http://none.example: none.example has no address"),
        ):
            [line] = told(local_checks.allowed(entry))
            self.assertTrue(line.startswith(words), line)

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            text = f'name = "near"\nlisten = ["tcp:{port}:interface=127.0.0.1", "unix:/run/x"]'
            [line] = told(local_checks.listening(parse(text, self.folder / "hoft.toml")))
        self.assertIn(f"fail: listen tcp:{port}:interface=127.0.0.1: Address already in use", line)


class FolderChecksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        for name in ("in", "out"):
            (self.folder / name).mkdir(parents=True)

    def examine(self, query: str = "", inbox: str = "in", outbox: str = "out") -> list[str]:
        url = f"folder:?inbox={self.folder / inbox}&outbox={self.folder / outbox}{query}"
        before = sorted(map(str, self.folder.rglob("*")))
        folders = Folders(FolderLocation.parse(url), NODE, {PEER: "far"}, Random(1).randbytes)
        lines = told(folders.examine())
        self.assertEqual(sorted(map(str, self.folder.rglob("*"))), before, "something was left")
        return lines

    def file(self, box: str, folder: object, name: object, age: float = 0.0) -> None:
        path = self.folder / box / str(folder) / str(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))

    def test_a_peer_whose_subfolder_is_none_is_named_and_the_others_are_looked_at(self) -> None:
        for name in (PEER, OTHER):
            (self.folder / "out" / str(name)).write_text("")
        (self.folder / "out" / str(OTHER)).unlink()
        self.file("out", OTHER, FileName(NODE, OTHER, 1, 1), age=700)
        url = f"folder:?inbox={self.folder}/in&outbox={self.folder}/out"
        folders = Folders(FolderLocation.parse(url), NODE, {PEER: "far", OTHER: "third"}, Random(1).randbytes)
        lines = told(folders.examine())
        self.assertEqual(
            lines[:2],
            [
                f"fail: outbox {self.folder}/out/{PEER}: no file for far can be made (Not a directory):"
                " move away what is there, the node makes a folder in its place",
                f"ok: outbox {self.folder}/out: files can be made, renamed and deleted",
            ],
        )
        self.assertIn("warn: 1 file for third still in the outbox", lines[-1])
        self.assertNotIn("Errno", str(lines))

    def test_an_inbox_that_cannot_be_looked_through(self) -> None:
        (self.folder / "in" / str(NODE)).write_text("")
        lines = [line for line in self.examine() if not line.startswith("ok: ")]
        self.assertEqual(
            lines[-1],
            f"fail: inbox {self.folder}/in/{NODE} cannot be looked through (Not a directory):"
            " see that it is a folder, which the node's user has the right to list",
        )

    def test_two_folders_that_are_as_they_should_be(self) -> None:
        lines = self.examine()
        self.assertEqual([line for line in lines if not line.startswith("ok: ")], [])
        for words in (
            f"ok: outbox {self.folder}/out: files can be made, renamed and deleted",
            f"ok: inbox {self.folder}/in: files can be made, renamed and deleted",
            f"ok: inbox {self.folder}/in: the system tells of new files",
            "ok: no files wait to be read",
        ):
            self.assertIn(words, lines)

    def test_one_folder_is_probed_once(self) -> None:
        self.assertEqual(sum("can be made" in line for line in self.examine(inbox="in", outbox="in")), 1)

    def test_a_folder_that_is_not_there(self) -> None:
        [line] = self.examine(outbox="none")
        self.assertIn(
            f"fail: outbox {self.folder}/none: No such file or directory: have it be a directory", line
        )

    def test_a_folder_that_is_mounted_read_only(self) -> None:
        (self.folder / "disk").mkdir()
        mount(self, self.folder / "disk", "1m")
        subprocess.run(["mount", "-o", "remount,ro", self.folder / "disk"], check=True)
        [line] = self.examine(outbox="disk")
        self.assertTrue(line.startswith(f"fail: outbox {self.folder}/disk: Read-only file system: "), line)

    def test_folders_that_may_not_be_written_to(self) -> None:
        """In /proc/sys nobody may, not even root."""
        [line] = self.examine(outbox="../../../../../../../../../../../../../proc/sys")
        self.assertRegex(
            line, r"\Afail: outbox /proc/sys: (Permission denied|Read-only file system): have it be "
        )
        lines = self.examine(inbox="../../../../../../../../../../../../../proc/sys")
        self.assertRegex(
            lines[1], r"\Awarn: inbox /proc/sys: this user may not write there \(.*\): what was read"
        )

    def test_a_drop_box_which_must_not_be_listed_is_one_where_files_can_be_made(self) -> None:
        """As root may do anything, the system's answer is made up."""
        opened = os.open

        def refuse(path: str, flags: int, *arguments: object, **named: Any) -> int:
            if (path == "." or "out" in path) and not flags & (os.O_PATH | os.O_CREAT):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return opened(path, flags, *arguments, **named)  # type: ignore[arg-type]

        self.patch(os, "open", refuse)
        lines = self.examine()
        self.assertIn(
            f"ok: outbox {self.folder}/out: files can be made, renamed and deleted, and not be listed", lines
        )
        self.assertEqual([line for line in lines if not line.startswith("ok: ")], [])

    def test_a_folder_whose_listings_are_stale_and_whose_clock_is_off(self) -> None:
        self.patch(folder_checks, "SEEN_WITHIN", 0.0)
        listing = os.listdir
        self.patch(os, "listdir", lambda folder: [] if isinstance(folder, int) else listing(folder))
        self.patch(folder_checks, "_SKEW", -1.0)
        lines = self.examine()
        self.assertTrue(any("does not show up in listings" in line for line in lines), lines)
        self.assertTrue(any("the clock of its file system is 0 ms" in line for line in lines), lines)

    def test_a_folder_that_cannot_rename_or_takes_short_names_only(self) -> None:
        def refuse(number: int) -> Callable[..., None]:
            def call(*_: object) -> None:
                raise OSError(number, os.strerror(number))

            return call

        self.patch(folder_checks, "publish", refuse(errno.EPERM))
        line = next(line for line in self.examine() if line.startswith("fail: outbox"))
        self.assertIn("files cannot be renamed (Operation not permitted): add rename=no", line)
        lines = self.examine("&rename=no")
        self.assertIn(f"ok: outbox {self.folder}/out: files can be made and deleted", lines)
        self.assertEqual([line for line in lines if not line.startswith("ok: ")], [])
        self.patch(folder_checks, "create_regular", refuse(errno.ENAMETOOLONG))
        line = next(line for line in self.examine() if line.startswith("fail: outbox"))
        self.assertIn("names of files may not be as long as ours: add names=short", line)

    def test_no_room(self) -> None:
        self.patch(folder_checks, "_ROOM", 1 << 60)
        self.assertTrue(
            any(line.startswith("fail: outbox") and "make room there" in line for line in self.examine())
        )

    def test_what_lies_about(self) -> None:
        self.file("in", NODE, FileName(PEER, NODE, 1, 1), age=7200.5)
        self.file("in", "", FileName(OTHER, NODE, 1, 2))
        self.file("in", "", FileName(OTHER, PEER, 1, 3))
        self.file("in", NODE, "notes\x1b.txt")
        self.file("in", NODE, ".hidden")
        self.file("out", PEER, FileName(NODE, PEER, 1, 1), age=700)
        self.file("out", PEER, FileName(OTHER, PEER, 1, 1), age=9000)
        lines = [line for line in self.examine() if not line.startswith("ok: ")]
        self.assertEqual(
            [line.partition(": ")[2].partition(":")[0] for line in lines],
            [
                "2 files to be read, the oldest of them for 2 h",
                f"there are files from {OTHER}, which is not trusted here",
                "no packets, but in the inbox",
                "1 file for far still in the outbox, the oldest for 12 min",
            ],
        )
        self.assertIn("'notes\\x1b.txt'", lines[2])


class GreetingTests(SynchronousTestCase):
    """Near's process is gone, far's is there."""

    def setUp(self) -> None:
        self.pair = Pair(self)
        self.pair.start()
        self.near, self.far = self.pair.near, self.pair.far
        self.far.program.keep = True
        self.near.send(b"before")
        self.pair.advance(10)
        self.near.crash()

    def greet(self, patience: float = 20.0) -> dict[UUID, float | None]:
        carrier = self.pair.folder.carrier(self.near.uuid, 0x1234, self.pair.clock.seconds)
        suites = {self.far.uuid: [BoxSuite(bytes(self.near.key), bytes(self.far.key.public_key))]}
        greeting = Greeting(
            self.pair.clock,
            self.pair.clock.seconds,
            self.pair.random.randbytes,
            carrier,
            self.near.uuid,
            suites,
        )
        asked = greeting.ask(patience)
        answers: list[Mapping[UUID, float | None]] = []
        asked.addCallback(answers.append)
        self.pair.advance(patience + 1)
        [answered] = answers
        return dict(answered)

    def test_a_peer_that_is_there_answers_and_is_not_disturbed(self) -> None:
        engine = self.far.link.engine
        adopted = engine.synchronisation.adopted
        seconds = self.greet()[self.far.uuid]
        assert seconds is not None
        self.assertLess(seconds, 0.5)
        self.assertEqual(engine.synchronisation.adopted, adopted)
        self.assertFalse(engine.synchronisation.in_doubt)
        self.assertEqual(self.far.router.refusals.counts, {})
        self.near.start()
        self.near.send(b"after")
        self.pair.advance(10)
        self.assertEqual(self.far.program.payloads, [b"before", b"after"])
        self.assertEqual(self.far.program.rollbacks, [])

    def test_files_with_records_are_left_for_the_node(self) -> None:
        self.far.send(b"for near")
        self.assertIsNotNone(self.greet()[self.far.uuid])
        self.assertEqual(self.near.program.payloads, [])
        self.near.start()
        self.pair.advance(60)
        self.assertEqual(self.near.program.payloads, [b"for near"])

    def test_a_peer_that_is_not_there_does_not_answer_and_no_file_is_left(self) -> None:
        self.far.crash()
        before = dict(self.pair.folder.inbox(self.far.uuid))
        self.assertEqual(self.greet(), {self.far.uuid: None})
        self.assertEqual(self.pair.folder.inbox(self.far.uuid), before)

    def test_old_files_of_a_peer_are_no_answer(self) -> None:
        self.far.send(b"for near")
        self.pair.advance(60)
        self.assertTrue(self.pair.folder.inbox(self.near.uuid))
        self.pair.deliver = lost
        self.assertEqual(self.greet(), {self.far.uuid: None})
        self.assertTrue(self.pair.folder.inbox(self.near.uuid))


class DoctorCommandTests(SynchronousTestCase):
    def test_each_finding_is_a_line_and_the_worst_is_the_exit_code(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(main(["doctor", str(folder)]), 2)
            self.assertEqual(main(["doctor", str(folder), "--json"]), 2)
        line, json_line = out.getvalue().splitlines()
        self.assertTrue(line.startswith(f"fail: configuration: {folder}/hoft.toml: cannot be read"), line)
        self.assertEqual(json.loads(json_line)["level"], "fail")

    def test_a_route_to_an_unknown_peer(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        (folder / "hoft.toml").write_text('name = "near"\n[routes.stock]\npeer = "fra"\nurl = "http://a"\n')
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(main(["doctor", str(folder)]), 2)
        self.assertRegex(
            out.getvalue(), r"\Afail: configuration: .*routes.stock.peer: no peer is called 'fra'"
        )

    def test_what_was_not_looked_at_is_not_said_to_be_well(self) -> None:
        why = "maildir:/x: Not a directory"
        self.patch(doctor, "ask", lambda *question, **_: changed(state="down", write_error=why))
        for transport, words in (
            ("maildir:/x", "what it says was not looked at here; once that is mended"),
            ("folder:/x", "the folders were well when they were looked at here"),
        ):
            config = parse(f'name = "near"\ntransport = "{transport}"', Path("hoft.toml").absolute())
            line = told(doctor._running(Place(Path(), config), False))[0]
            self.assertIn(f"fail: far is down: no files can be written for it: {why}: {words}", line)

    def test_what_is_heard_of_a_peer_that_cannot_be_written_to_is_no_answer(self) -> None:
        self.patch(doctor, "ask", lambda *question, **_: {"far": 0.2, "third": 0.1})
        peers: dict[str, dict[str, Any]] = {
            "far": {"heard": 3.0, "write_error": None},
            "third": {"heard": 3.0, "write_error": "no"},
        }
        node = {"peers": peers, "carrier_down": None}
        lines = told(doctor._asked(Place(Path(), None), node, 20.0))
        self.assertEqual(
            lines,
            [
                "warn: third could not be asked for a sign of life: it will be once that is mended",
                "ok: far was heard 200 ms after it was asked",
            ],
        )

    def test_what_hangs_is_said_and_not_waited_for(self) -> None:
        self.patch(doctor, "PATIENCE", 0.05)
        hung = Event()
        self.addCleanup(hung.set)

        def look() -> Iterator[Finding]:
            yield ok("the first")
            hung.wait(60)

        lines = told(doctor.patiently("inbox /mnt", look()))
        self.assertEqual(lines[0], "ok: the first")
        self.assertIn("fail: inbox /mnt does not answer for 50 ms", lines[1])

    def test_what_the_system_refuses_is_a_finding(self) -> None:
        def look() -> Iterator[Finding]:
            yield ok("the first")
            raise PermissionError(errno.EACCES, "Permission denied", "/state")

        lines = told(doctor.patiently("the state folder", look()))
        self.assertEqual(lines[0], "ok: the first")
        self.assertRegex(
            lines[1], r"\Afail: the state folder cannot be looked at \(.*Permission denied: '/state'\)"
        )

    def test_levels_are_exit_codes(self) -> None:
        self.assertEqual([int(one) for one in (Level.OK, Level.WARN, Level.FAIL)], [0, 1, 2])
