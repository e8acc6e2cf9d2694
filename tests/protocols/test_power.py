"""
What a power cut leaves of the journal: worked out from the system calls of a real run.

A child works under strace; its writes and syncs are then replayed on model
files.  A power cut, at any moment, keeps of each file what was synced and any
part of what was not; of each folder the names that were synced, and any of the
later ones.  In every such state the journal must open and hold all that was
answered as durable.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from attrs import Factory, define, frozen
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from hoft.errors import PayloadLost
from hoft.protocols import database

from .journals import InlineJournal, notes, payload_of

ROOT = Path(__file__).parent.parent.parent
CALLS = (
    "pwrite64,pwritev,pwritev2,write,writev,ftruncate,truncate,fdatasync,fsync,unlink,unlinkat,rename,openat"
)
SECTOR = 512
SUCCESS = re.compile(r"\) += \d+(<[^>]*>)?$")


@frozen
class Call:
    """One system call of the trace; its beginning and its end are two events."""

    name: str
    path: str
    """Of the descriptor it works on, or its first string."""
    strings: list[bytes]
    numbers: list[int]
    """What follows its last string or path."""
    flags: str


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def parse(line: str) -> Call:
    name, _, rest = line.partition("(")
    arguments, _, _ = re.sub(r"\) +=", ") =", rest).rpartition(") = ")
    strings = [unhex(found) for found in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', arguments)]
    descriptor = re.match(r"(?:\d+|AT_FDCWD)<([^>]*)>", arguments)
    path = os.fsdecode(unhex(descriptor[1])) if descriptor and descriptor[1].startswith("\\x") else ""
    if name in ("openat", "unlink", "unlinkat", "truncate", "rename"):
        path = os.fsdecode(strings[0])
    tail = re.sub(r'"[^"]*"|<[^>]*>', "", arguments)
    return Call(name, path, strings, [int(n) for n in re.findall(r", (-?\d+)(?=,|$)", tail)], tail)


def events(log: Path) -> Iterator[tuple[bool, Call, int]]:
    """(whether it ends, call, thread) in the order of time, for calls that succeeded."""
    begun: dict[int, str] = {}
    for line in log.read_text("ascii").splitlines():
        thread, _, text = line.partition(" ")
        text = text.lstrip()
        number = int(thread)
        if text.endswith("<unfinished ...>"):
            begun[number] = text.removesuffix("<unfinished ...>").rstrip()
            name = text.partition("(")[0]
            if name in ("fdatasync", "fsync", "write"):
                yield False, parse(begun[number] + ") = ?"), number
        elif text.startswith("<..."):
            _, _, end = text.partition(" resumed>")
            whole = begun.pop(number, "") + end
            if whole and SUCCESS.search(whole):
                yield True, parse(whole), number
        elif SUCCESS.search(text):
            call = parse(text)
            yield False, call, number
            yield True, call, number


@define
class ModelFile:
    """A file: what is on disk, and what was asked for since, in order."""

    disk: bytearray = Factory(bytearray)
    pending: list[tuple[int, bytes | None]] = Factory(list)
    """(offset, data), or (size, None) for a truncation."""
    named: bool = False
    """Whether its folder was synced after it appeared."""
    syncing: dict[int, int] = Factory(dict)
    """How much of what is pending the syncs under way will cover, by thread."""

    @staticmethod
    def change(content: bytearray, offset: int, data: bytes | None) -> None:
        if data is None:
            del content[offset:]
            content.extend(bytes(offset - len(content)))
        else:
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data

    def sync(self, thread: int) -> None:
        covered = self.syncing.pop(thread)
        for offset, data in self.pending[:covered]:
            self.change(self.disk, offset, data)
        del self.pending[:covered]
        self.syncing = {other: max(0, count - covered) for other, count in self.syncing.items()}

    def after_the_cut(self, chance: random.Random) -> bytes:
        """Any part of what was pending, in sectors."""
        content = bytearray(self.disk)
        law = chance.choice(["none", "all", "some", "torn", "first"])
        for offset, data in self.pending:
            if law == "none" or (law == "some" and chance.random() < 0.5):
                continue
            if law == "first" and chance.random() < 0.1:
                break
            if law == "torn" and data is not None:
                for start in range(0, len(data), SECTOR):
                    if chance.random() < 0.7:
                        self.change(content, offset + start, data[start : start + SECTOR])
            else:
                self.change(content, offset, data)
        return bytes(content)


class PowerCutTests(SynchronousTestCase):
    def setUp(self) -> None:
        if shutil.which("strace") is None:
            if os.environ.get("CI"):
                self.fail("strace is missing")
            raise SkipTest("needs strace")
        self.base = Path(self.mktemp()).absolute()
        self.base.mkdir()
        self.live = self.base / "live"
        self.files: dict[str, ModelFile] = {}
        self.answered: list[str] = []

    def record(self) -> Path:
        log = self.base / "log"
        command = ["strace", "-f", "-y", "-xx", "-s", "200000", "-e", f"trace={CALLS}", "-o", str(log)]
        work = [sys.executable, "-m", "tests.protocols.journals", str(self.live), "0", "250", "3", "25"]
        done = subprocess.run(
            command + work, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        if "ptrace" in done.stderr:
            raise SkipTest(f"strace may not trace here: {done.stderr.strip()}")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("*249", done.stdout)
        return log

    def apply(self, ends: bool, call: Call, thread: int) -> None:
        """One event of the recorded run."""
        if call.name == "write" and not ends and call.strings and re.match(rb"[*+-]\d+\n$", call.strings[0]):
            self.answered.append(call.strings[0].decode().strip())
        if not call.path.startswith(f"{self.live}"):
            return
        file = self.files.get(call.path)
        if call.name in ("fdatasync", "fsync"):
            if file is None:  # a folder
                if ends:
                    for path, other in self.files.items():
                        other.named = other.named or os.path.dirname(path) == call.path
            elif ends:
                file.sync(thread)
            else:
                file.syncing[thread] = len(file.pending)
        elif not ends:
            return
        elif call.name == "openat":
            if "O_CREAT" in call.flags and file is None:
                self.files[call.path] = ModelFile()
        elif call.name == "unlink":
            del self.files[call.path]  # at once: the worse case, since nothing may need it any more
        elif file is None:
            raise AssertionError(f"{call.name} of unknown {call.path}")
        elif call.name in ("ftruncate", "truncate"):
            file.pending.append((call.numbers[-1], None))
        elif call.name == "pwrite64":
            file.pending.append((call.numbers[-1], call.strings[0]))
        elif call.name in ("pwritev", "pwritev2"):
            offset = [number for number in call.numbers if number != len(call.strings)]
            file.pending.append((offset[0] if offset else len(call.strings), b"".join(call.strings)))
        else:
            raise AssertionError(f"{call.name} is not understood")

    def cut(self, chance: random.Random, number: int) -> None:
        """The power fails now; then the journal is opened."""
        folder = self.base / f"cut{number}"
        for path, file in self.files.items():
            if not file.named and chance.random() < 0.5:
                continue
            there = folder / os.path.relpath(path, self.live)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(file.after_the_cut(chance))
        durable = [int(answer[1:]) for answer in self.answered if answer[0] == "*"]
        if not durable:
            shutil.rmtree(folder, ignore_errors=True)
            return
        inline = InlineJournal(folder)
        inline.result(inline.journal.open())
        places = inline.do(notes)
        last = max(places)
        self.assertEqual(list(places), list(range(min(places), last + 1)))
        for note in durable:
            if note in places:
                self.assertEqual(inline.journal.segments.read(places[note]), payload_of(note))
            else:
                self.assertLessEqual(note + 40, last)
        for note, place in places.items():
            try:
                self.assertEqual(inline.journal.segments.read(place), payload_of(note))
            except PayloadLost:
                self.assertGreater(inline.journal.lost, 0)
        self.checked += 1
        inline.crash()
        shutil.rmtree(folder)

    def test_power_cuts(self) -> None:
        """100 cuts (times HOFT_SOAK), a quarter of them right after a durable answer."""
        self.patch(database, "kernel_boot", lambda: "the next run of the kernel")
        recorded = list(events(self.record()))
        self.checked = 0
        chance = random.Random(12)
        moments = [n for n, (ends, call, _) in enumerate(recorded) if call.path.startswith(f"{self.live}")]
        answers = [
            n
            for n, (ends, call, _) in enumerate(recorded)
            if not ends and call.name == "write" and call.strings and call.strings[0].startswith(b"*")
        ]
        cuts = 100 * int(os.environ.get("HOFT_SOAK", "1"))
        chosen = set(chance.choices(moments, k=cuts * 3 // 4) + chance.choices(answers, k=cuts // 4))
        restarts = 0
        for number, (ends, call, thread) in enumerate(recorded):
            if call.path.endswith("-wal") and ends and call.name == "pwrite64" and call.numbers[-1] == 0:
                restarts += 1
            self.apply(ends, call, thread)
            if number in chosen:
                self.cut(chance, number)
        self.assertGreater(restarts, 5, "the log never began anew: the hard case was not tried")
        self.assertGreater(self.checked, len(chosen) * 3 // 4)
