"""
Reads the examples out of the documentation and does what they tell.

In C{docs/*.rst} and C{README.md} every C{console} block is run and every C{toml}
block is read as a configuration.  What a block needs beyond its text stands in a
comment right before it, C{.. example: WORDS} (in Markdown C{<!-- example: WORDS -->}):

 - C{in NAME}: the terminal; without it all blocks of a page share one;
 - C{stays}: the block's only command goes on until C{^C} or the page's end, and
   the example goes on when the output shown has appeared;
 - C{exits N}: the exit code of the block's commands, in place of 0;
 - C{file PATH}: the block is the content of that file, which is written;
 - C{where PROGRAM}: only on a machine that has this program;
 - C{fragment}: a C{toml} block that C{hoft init}'s file would have to be added to;
 - C{not run: REASON}: it is for the reader only.

Output that is shown must be what comes, by the rules of L{doctest} with C{...} for
any text; where none is shown it does not matter.  Ports are those of the text, or
others where these are taken.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

from attrs import Factory, define, frozen

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0
"""Seconds after which what should have been printed counts as missing."""

_PORT = re.compile(r"\b(80[0-9]0)\b")
_DEFAULT_PORT = "8080"
_INIT = re.compile(r"^hoft init \S+(?= )")
_RST = re.compile(r"^( *)\.\. code-block:: *(\S+)\n(?:\1   +:.*\n)*\n((?:(?:\1   +.*)?\n)+)", re.MULTILINE)
_RST_COMMENT = re.compile(r"\.\. example: *(.*)\n\n?\Z")
_MARKDOWN = re.compile(r"^```(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARKDOWN_COMMENT = re.compile(r"<!-- example: *(.*) -->\n\Z")


@frozen
class Block:
    """One literal block of a page."""

    page: str
    line: int
    language: str
    text: str
    words: str

    @property
    def not_run(self) -> bool:
        """It is for the reader only."""
        return self.words.startswith("not run: ")

    def word(self, word: str) -> str | None:
        """What follows C{word} in the comment before the block, C{None} if it is not there."""
        found = re.search(rf"\b{word}\b(?: ([^, ]+))?", self.words)
        return (found[1] or "") if found and not self.not_run else None

    def steps(self) -> Iterator[tuple[str, str]]:
        """Each command and the output shown."""
        command, output = "", ""
        for line in self.text.splitlines():
            if line.startswith("$ ") or line == "^C":
                if command:
                    yield command, output
                command, output = line.removeprefix("$ "), ""
            elif line.startswith("> ") and not output:
                command += "\n" + line[2:]
            else:
                output += line + "\n"
        yield command, output

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """The literal blocks of a page, in order."""
    text = path.read_text("utf-8")
    markdown = path.suffix == ".md"
    found = []
    for match in (_MARKDOWN if markdown else _RST).finditer(text):
        language, body = (match[1], match[2]) if markdown else (match[2], textwrap.dedent(match[3]))
        comment = (_MARKDOWN_COMMENT if markdown else _RST_COMMENT).search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(path.name, line, language, body.strip("\n") + "\n", comment[1] if comment else ""))
    return found


def pages() -> list[Path]:
    """All pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.rst"))]


class ExampleFailed(AssertionError):
    """An example does not do what its page says."""


@define(eq=False)
class _Process:
    """A process whose output is gathered."""

    process: subprocess.Popen[str]
    output: str = ""
    _thread: threading.Thread = Factory(threading.Thread)

    @classmethod
    def start(cls, arguments: list[str], folder: Path, environment: dict[str, str]) -> _Process:
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        one = cls(process)
        one._thread = threading.Thread(target=one._gather, daemon=True)
        one._thread.start()
        return one

    def _gather(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def end(self, number: int) -> int:
        """Signal it, and wait until it has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self._thread.join(1.0)
            self.process.stdin.close()
            if not self._thread.is_alive():
                self.process.stdout.close()


class Session:
    """
    What a reader of one page has before them: a folder and some terminals.

    @param folder: empty, where the commands run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "work"
        self._folder.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        for name, code in {
            "hoft": "from hoft.cli import main; sys.exit(main())",
            "twistd": "from twisted.scripts.twistd import run; run()",
        }.items():
            program = programs / name
            program.write_text(f"#!{sys.executable}\nimport sys\nsys.argv[0] = {name!r}\n{code}\n")
            program.chmod(0o755)
        python = programs / "python3"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        self._environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "98",
            "HOME": str(folder),
        }
        for name in ("XDG_STATE_HOME", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy"):
            self._environment.pop(name, None)
        self._shells: dict[str, _Process] = {}
        self._staying: dict[str, _Process] = {}
        self._stayed: list[_Process] = []
        self._ports: dict[str, str] = {}
        self._steps = 0

    def run(self, block: Block) -> None:
        """
        Do what the block says.

        @raise ExampleFailed: that is not what came of it.
        """
        path = block.word("file")
        if path:
            (self._folder / path).write_text(self._with_ports(block.text))
            return
        terminal = block.word("in") or "terminal"
        for command, shown in block.steps():
            if not command.endswith("--help"):
                command, shown = self._with_ports(command), self._with_ports(shown)
            if self.port(_DEFAULT_PORT) != _DEFAULT_PORT and "--listen" not in command:
                listen = f"--listen tcp:{self.port(_DEFAULT_PORT)}:interface=127.0.0.1"
                command = _INIT.sub(rf"\g<0> {listen}", command)
            self._steps += 1
            if command == "^C":
                self._staying.pop(terminal).end(signal.SIGINT)
            elif block.word("stays") is not None:
                self._stay(block, terminal, command, shown)
            else:
                self._do(block, terminal, command, shown)

    def close(self) -> None:
        """End all that runs."""
        for one in (*self._stayed, *self._shells.values()):
            one.end(signal.SIGTERM)

    def _with_ports(self, text: str) -> str:
        return _PORT.sub(lambda match: self.port(match[1]), text)

    def port(self, wanted: str) -> str:
        """The port in place of that one of the text: the same, if it was free."""
        if wanted not in self._ports:
            with socket.socket() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    one.bind(("127.0.0.1", int(wanted)))
                except OSError:
                    one.bind(("127.0.0.1", 0))
                self._ports[wanted] = str(one.getsockname()[1])
        return self._ports[wanted]

    def _do(self, block: Block, terminal: str, command: str, shown: str) -> None:
        shell = self._shells.get(terminal)
        if shell is None:
            shell = _Process.start(["bash", "--norc", "--noprofile"], self._folder, self._environment)
            self._shells[terminal] = shell
        assert shell.process.stdin is not None
        shell.output = ""
        over = f"=== {self._steps} "
        shell.process.stdin.write(f"{command}\nprintf '\\n{over}%s ===\\n' $?\n")
        shell.process.stdin.flush()
        pattern = re.compile(rf"\n{over}(\d+) ===\n")
        self._wait(block, command, shell, lambda: pattern.search(shell.output) is not None)
        found = pattern.search(shell.output)
        assert found is not None
        came = shell.output[: found.start()]
        code = int(block.word("exits") or 0)
        if int(found[1]) != code:
            raise ExampleFailed(f"{block}: {command}\nexit code {found[1]}, not {code}; it printed\n{came}")
        if shown.strip() and not _matches(shown, came):
            raise ExampleFailed(f"{block}: {command}\nthe page shows\n{shown}\nbut what came is\n{came}")

    def _stay(self, block: Block, terminal: str, command: str, shown: str) -> None:
        one = _Process.start(["bash", "-c", f"exec {command}"], self._folder, self._environment)
        self._stayed.append(one)
        self._staying[terminal] = one
        self._wait(block, command, one, lambda: not shown.strip() or _matches(shown, one.output))

    def _wait(self, block: Block, command: str, one: _Process, done: object) -> None:
        assert callable(done)
        until = time.monotonic() + PATIENCE
        while not done():
            if one.process.poll() is not None or time.monotonic() > until:
                time.sleep(0.2)
                if done():
                    return
                raise ExampleFailed(f"{block}: {command}\nended or took too long; it printed\n{one.output}")
            time.sleep(0.02)


def _matches(shown: str, came: str) -> bool:
    return OutputChecker().check_output(shown, came, ELLIPSIS | NORMALIZE_WHITESPACE)
