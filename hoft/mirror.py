"""
A careless mirror: carries files between folders as real ones do, faults included.

L{Chance} decides, from a seed, what becomes of the first, second, third ...
file; L{Mirror} finds files and does to them what was decided; L{carry} is the
program.  It needs nothing of hoft and knows nothing of what is in the files.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from pathlib import Path
from random import Random

from attrs import Factory, asdict, define, frozen

from hoft.errors import ConfigurationError

PIECE = 256 << 10
"""How much is written at a time: readers see a file grow."""

_RETRY = 1.0
"""Seconds until what failed is tried again."""

_MOST_HELD = 200
"""Files held open for being brought a second time."""


@frozen
class Faults:
    """How likely each is, 0 to 1; C{delay} is in seconds."""

    truncate: float = 0.0
    lose: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.0


@frozen
class Fate:
    """What becomes of one file; places are fractions of its length, decided before that is known."""

    wait: float
    lost: bool
    cut: float | None
    """The part of it that arrives."""
    flip: float | None
    """Where a bit is flipped."""
    bit: int
    again: float | None
    """After how many seconds it is brought a second time, whole."""


_WHOLE = Fate(wait=0.0, lost=False, cut=None, flip=None, bit=0, again=None)


class Chance:
    """
    Decides the fates of files in the order in which they are found.

    The same seed and faults give the same fates; each fault's draws do not
    depend on whether the others struck.
    """

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._random = Random(seed)

    def next(self) -> Fate:
        """The next file's fate."""
        faults, draw = self._faults, self._random.random
        lost, cut, flip, again = (
            draw() < probability
            for probability in (faults.lose, faults.truncate, faults.corrupt, faults.duplicate)
        )
        wait, part, place, later, bit = draw(), draw(), draw(), draw(), self._random.randrange(8)
        return Fate(
            wait=faults.delay * (0.5 + wait),
            lost=lost,
            cut=part if cut else None,
            flip=place if flip else None,
            bit=bit,
            again=(faults.delay or 0.5) * (0.5 + later) if again else None,
        )


@define
class Counts:
    """What a mirror did; C{files} and C{bytes} are all that was written, damaged or not."""

    files: int = 0
    bytes: int = 0
    cut: int = 0
    lost: int = 0
    duplicated: int = 0
    corrupted: int = 0


_Mark = tuple[int, int, int]
"""Inode, size and modification time: whether a file is the one we have seen."""


@define
class _Side:
    """One direction: from a folder to another."""

    source: Path
    target: Path
    seen: dict[str, _Mark] = Factory(dict)
    """Files of C{source} that wait for their time or, when copying, have been carried."""
    waiting: set[str] = Factory(set)
    brought: dict[str, _Mark] = Factory(dict)
    """Files of C{source} that we wrote there ourselves, for the other direction."""


class Mirror:
    """
    Carries files from C{source} to C{target}.

    Names that start with a dot are left alone: by custom they are not ready.
    Files appear under their final name and grow; what cannot be read or
    written now is tried again.

    @param both: carry the other way too, but nothing that was brought.
    @param copy: leave the originals.
    @param now: monotonic seconds.
    @param say: takes lines about each file.
    @param stopping: whether to leave off, asked between pieces of a file.
    @raise ConfigurationError: the folders are not two, or not there.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        faults: Faults,
        seed: int,
        both: bool = False,
        copy: bool = False,
        now: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda line: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        _check_folders(source, target, writes_both=both or not copy)
        self.seed = seed
        self.counts = Counts()
        self.say = say
        self.stopping = stopping
        self._copy = copy
        self._now = now
        self._chance = Chance(faults, seed)
        there = _Side(source, target)
        self._sides = [there, _Side(target, source)] if both else [there]
        self._due: list[tuple[float, int, _Side, str, Fate, int | None]] = []
        """A heap; the last is an open file for what comes a second time."""
        self._order = 0
        self._held = 0

    def look(self) -> float | None:
        """
        Find files, and carry those whose time has come.

        @return: when the next is due, by C{now}; C{None} if none waits.
        """
        for side in self._sides:
            self._find(side)
        while self._due and self._due[0][0] <= self._now() and not self.stopping():
            _, _, side, name, fate, handle = heappop(self._due)
            if handle is None:
                self._carry_first(side, name, fate)
            else:
                self._carry_again(side, name, handle)
        return self._due[0][0] if self._due else None

    def close(self) -> None:
        """Let go of files held for a second time."""
        for *_, handle in self._due:
            if handle is not None:
                os.close(handle)
        self._due.clear()

    def _find(self, side: _Side) -> None:
        found = dict(_files(side.source, self.say))
        for known in (side.seen, side.brought):
            for name in known.keys() - found.keys():
                del known[name]
        for name in sorted(found):
            if side.brought.get(name) == found[name] or name in side.waiting:
                continue
            if side.seen.get(name) != found[name]:
                side.seen[name] = found[name]
                side.waiting.add(name)
                fate = self._chance.next()
                self._wait(fate.wait, side, name, fate)

    def _wait(self, seconds: float, side: _Side, name: str, fate: Fate, handle: int | None = None) -> None:
        self._order += 1
        heappush(self._due, (self._now() + seconds, self._order, side, name, fate, handle))

    def _carry_first(self, side: _Side, name: str, fate: Fate) -> None:
        side.waiting.discard(name)
        path = side.source / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            self.say(f"vanished  {name}")
            return
        except OSError as error:
            self._try_again(side, name, fate, error)
            return
        try:
            before = _mark(os.fstat(handle))
            if fate.lost:
                self.counts.lost += 1
                self.say(f"lost      {name} ({before[1]} bytes)")
            elif not self._write(side, name, handle, fate):
                return
            if fate.again is not None and not fate.lost and self._held < _MOST_HELD:
                self._held += 1
                self._wait(fate.again, side, name, fate, os.dup(handle))
            if _mark(os.fstat(handle)) != before:
                # It has grown meanwhile: as a mirror does, carry it anew next time.
                side.seen.pop(name, None)
                return
            side.seen[name] = before
            if not self._copy:
                path.unlink(missing_ok=True)
        except OSError as error:
            self._try_again(side, name, fate, error)
        finally:
            os.close(handle)

    def _carry_again(self, side: _Side, name: str, handle: int) -> None:
        self._held -= 1
        try:
            if self._write(side, name, handle, _WHOLE):
                self.counts.duplicated += 1
        finally:
            os.close(handle)

    def _try_again(self, side: _Side, name: str, fate: Fate, error: OSError) -> None:
        self.say(f"failed    {name} ({error.strerror})")
        side.waiting.add(name)
        self._wait(_RETRY, side, name, fate)

    def _write(self, side: _Side, name: str, handle: int, fate: Fate) -> bool:
        """
        Write what is to arrive of an open file.

        @return: whether that was done; if not, it was put off or left off.
        """
        target = side.target / name
        size = os.fstat(handle).st_size
        length = size if fate.cut is None else int(fate.cut * size)
        flipped = None if fate.flip is None or not size else int(fate.flip * size)
        offset = 0
        try:
            if not side.target.is_dir():
                raise FileNotFoundError(2, f"{side.target} is not there")
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = os.open(
                target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
            )
            try:
                while offset < length:
                    if self.stopping():
                        return False
                    piece = bytearray(os.pread(handle, min(PIECE, length - offset), offset))
                    if not piece:
                        break
                    if flipped is not None and offset <= flipped < offset + len(piece):
                        piece[flipped - offset] ^= 1 << fate.bit
                    _write_all(copy, piece)
                    offset += len(piece)
            finally:
                self._remember(side, name, copy)
                os.close(copy)
        except OSError as error:
            self._try_again(side, name, fate, error)
            return False
        self.counts.files += 1
        self.counts.bytes += offset
        cut, corrupted = length < size, flipped is not None and flipped < length
        self.counts.cut += cut
        self.counts.corrupted += corrupted
        what = "cut" if cut else "corrupted" if corrupted else "carried"
        self.say(f"{what:<9} {name} ({offset} of {size} bytes)")
        return True

    def _remember(self, side: _Side, name: str, copy: int) -> None:
        for other in self._sides:
            if other is not side:
                other.brought[name] = _mark(os.fstat(copy))


def carry(mirror: Mirror, every: float) -> int:
    """
    Mirror until SIGTERM or SIGINT; then print what was done, as JSON, on standard output.

    @param every: seconds from one look at the folders to the next.
    @return: the exit code.
    """
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    # Not an Event: its lock may be held by what the signal interrupts.
    waking, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    mirror.say = lambda line: print(line, file=sys.stderr)
    mirror.stopping = lambda: stopping
    print(f"hoft mirror: seed {mirror.seed}", file=sys.stderr, flush=True)
    while not stopping:
        due = mirror.look()
        pause = every if due is None else min(every, max(0.0, due - time.monotonic()))
        select.select([waking], [], [], max(pause, 0.001))
    mirror.close()
    print(json.dumps({"seed": mirror.seed, **asdict(mirror.counts)}), flush=True)
    return 0


def _check_folders(source: Path, target: Path, writes_both: bool) -> None:
    for word, folder in (("SRC", source), ("DST", target)):
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "is not there"
            raise ConfigurationError("command line", word, f"{str(folder)!r} {what}", "a folder that exists")
        writes = os.W_OK if writes_both or folder is target else 0
        if not os.access(folder, os.R_OK | os.X_OK | writes):
            raise ConfigurationError(
                "command line",
                word,
                f"{str(folder)!r} is closed to us",
                f"one to read{' and write' * bool(writes)}",
            )
    first, second = source.resolve(), target.resolve()
    if first == second or first in second.parents or second in first.parents:
        raise ConfigurationError(
            "command line",
            "DST",
            f"{str(target)!r} is, holds or lies in SRC",
            "two folders beside each other",
        )


def _files(root: Path, say: Callable[[str], None], below: str = "") -> Iterator[tuple[str, _Mark]]:
    """Regular files, by their path below C{root}; no links are followed."""
    try:
        entries = list(os.scandir(root / below))
    except OSError as error:
        if not below:
            say(f"failed    {root} ({error.strerror})")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = f"{below}{entry.name}"
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(root, say, name + "/")
            elif entry.is_file(follow_symlinks=False):
                yield name, _mark(entry.stat(follow_symlinks=False))
        except OSError:
            # It vanished meanwhile.
            continue


def _mark(status: os.stat_result) -> _Mark:
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _write_all(handle: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
