"""
A file system in memory that stands in for C{os} beneath the folder carrier, and the
carrier in virtual time on top of it: faults that a real one cannot show on demand.
"""

from __future__ import annotations

import errno
import os
import pkgutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

import hoft.transports
from hoft.testing.clock import HeapClock
from hoft.testing.harness import RecordingReceiver
from hoft.testing.worker import InlineWorker
from hoft.transports import directories
from hoft.transports.folder import FolderCarrier
from hoft.transports.locations import FolderLocation

ROOT = "/exchange"


@define(eq=False)
class Node:
    """A file or, where it has C{entries}, a directory."""

    ino: int
    mode: int
    modified: int = 0
    data: bytearray = field(factory=bytearray)
    entries: dict[str, Node] | None = None
    listed: tuple[float, list[tuple[str, Node]]] | None = None


@define
class _Entry:
    """What C{scandir} gives."""

    name: str
    _node: Node

    def inode(self) -> int:
        return self._node.ino

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._node.entries is None


class FileSystem:
    """
    What the folder carrier needs of C{os}; all else is C{os}'s own.

    @ivar fault: told of each call by its name, says how it fails, if it does.
    @ivar calls: how many were made, by name.
    @ivar room: bytes that may be written in all.
    @ivar stale: seconds for which a listing is shown again as it was.
    @ivar root: the directory that is exchanged.
    @ivar open_files: by descriptor.
    @ivar created: when files were made.
    @ivar listed: how many entries were shown.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.fault: Callable[[str], int | None] = lambda name: None
        self.calls: Counter[str] = Counter()
        self.room = 1 << 40
        self.stale = 0.0
        self.open_files: dict[int, Node] = {}
        self.created: list[float] = []
        self.listed = 0
        self._now = now
        self._inodes = 1
        self._descriptors = 100
        self.root = self._make(stat.S_IFDIR | 0o755, {})

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def install(self, case: SynchronousTestCase) -> None:
        """Put it in the place of C{os} in all modules of the carrier, until the test ends."""
        for found in pkgutil.iter_modules(hoft.transports.__path__, "hoft.transports."):
            module = import_module(found.name)
            if getattr(module, "os", None) is os or isinstance(getattr(module, "os", None), FileSystem):
                case.patch(module, "os", self)
        case.patch(directories, "_renameat2", self.renameat2)

    # -- for tests

    def folder(self, node: UUID | str) -> dict[str, Node]:
        """What lies in a subfolder of the root."""
        found = self.root.entries or {}
        return (found[str(node)].entries or {}) if str(node) in found else {}

    def put(self, node: UUID | None, name: str, content: bytes) -> Node:
        """What a mirror does: a file is there, in the root or a node's subfolder, or has other content."""
        entries = self.root.entries
        assert entries is not None
        folder = self.root
        if node is not None:
            if str(node) not in entries:
                entries[str(node)] = self._make(stat.S_IFDIR | 0o755, {})
                self._changed(self.root)
            folder = entries[str(node)]
        assert folder.entries is not None
        if name not in folder.entries:
            folder.entries[name] = self._make(stat.S_IFREG | 0o644)
            self._changed(folder)
        file = folder.entries[name]
        file.data[:] = content
        self._changed(file)
        return file

    def cut_power(self, random: Random) -> None:
        """
        Nothing here was synced: of each file any beginning is left, filled up
        with zeros or not, all of it or nothing, or not even its name.
        """
        self.open_files.clear()
        for directory in (self.root.entries or {}).values():
            for name, file in list((directory.entries or {}).items()):
                size = len(file.data)
                match random.randrange(5):
                    case 0:
                        del (directory.entries or {})[name]
                    case 1:
                        del file.data[random.randrange(size + 1) :]
                    case 2:
                        kept = random.randrange(size + 1)
                        file.data[kept:] = bytes(size - kept)
                    case 3:
                        file.data.clear()

    # -- calls of os

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        self._enter("open")
        if dir_fd is None:
            if path != ROOT:
                raise _error(errno.ENOENT)
            return self._opened(self.root)
        entries = self._entries(dir_fd)
        node = entries.get(path)
        if flags & os.O_CREAT:
            if node is not None:
                raise _error(errno.EEXIST)
            node = entries[path] = self._make(stat.S_IFREG | mode)
            self._changed(self.open_files[dir_fd])
            self.created.append(self._now())
        elif node is None:
            raise _error(errno.ENOENT)
        elif flags & os.O_DIRECTORY and node.entries is None:
            raise _error(errno.ENOTDIR)
        return self._opened(node)

    def close(self, descriptor: int) -> None:
        del self.open_files[descriptor]  # whatever is told, it is free
        self._enter("close")

    def stat(self, path: str, *, dir_fd: int, follow_symlinks: bool = True) -> Any:
        self._enter("stat")
        return self._status(self.root if path == ".." else self._find(dir_fd, path))

    def fstat(self, descriptor: int) -> Any:
        self._enter("fstat")
        return self._status(self.open_files[descriptor])

    @contextmanager
    def scandir(self, descriptor: int) -> Iterator[Iterator[_Entry]]:
        self._enter("scandir")
        directory = self.open_files[descriptor]
        if directory.listed is None or self._now() >= directory.listed[0] + self.stale:
            directory.listed = (self._now(), list((directory.entries or {}).items()))
        self.listed += len(directory.listed[1])
        yield (_Entry(name, node) for name, node in directory.listed[1])

    def listdir(self, descriptor: int) -> list[str]:
        self._enter("listdir")
        return list(self._entries(descriptor))

    def mkdir(self, path: str, mode: int, *, dir_fd: int) -> None:
        self._enter("mkdir")
        if path in self._entries(dir_fd):
            raise _error(errno.EEXIST)
        self._entries(dir_fd)[path] = self._make(stat.S_IFDIR | mode, {})
        self._changed(self.open_files[dir_fd])

    def unlink(self, path: str, *, dir_fd: int) -> None:
        self._enter("unlink")
        self._find(dir_fd, path)
        del self._entries(dir_fd)[path]
        self._changed(self.open_files[dir_fd])

    def renameat2(self, folder: int, old: str, new: str) -> None:
        self._enter("rename")
        if new in self._entries(folder):
            raise _error(errno.EEXIST)
        self.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def rename(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._enter("rename")
        node = self._find(src_dir_fd, old)
        del self._entries(src_dir_fd)[old]
        self._entries(dst_dir_fd)[new] = node
        self._changed(self.open_files[dst_dir_fd])

    def write(self, descriptor: int, data: bytes) -> int:
        self._enter("write")
        room = self.room - self._used()
        if room <= 0:
            raise _error(errno.ENOSPC)
        file = self.open_files[descriptor]
        file.data += data[:room]
        self._changed(file)
        return min(len(data), room)

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        self._enter("pread")
        if offset < 0:
            raise _error(errno.EINVAL)
        return bytes(self.open_files[descriptor].data[offset : offset + size])

    def access(self, path: str, mode: int, **_: Any) -> bool:
        self._enter("access")
        return True

    def chmod(self, descriptor: int, mode: int) -> None:
        self._enter("chmod")
        node = self.open_files[descriptor]
        node.mode = stat.S_IFMT(node.mode) | mode

    fchmod = chmod

    # -- within

    def _enter(self, name: str) -> None:
        self.calls[name] += 1
        number = self.fault(name)
        if number is not None:
            raise _error(number)

    def _make(self, mode: int, entries: dict[str, Node] | None = None) -> Node:
        self._inodes += 1
        node = Node(self._inodes, mode, entries=entries)
        self._changed(node)
        return node

    def _changed(self, node: Node) -> None:
        node.modified = int(self._now() * 1e9)

    def _opened(self, node: Node) -> int:
        self._descriptors += 1
        self.open_files[self._descriptors] = node
        return self._descriptors

    def _entries(self, descriptor: int) -> dict[str, Node]:
        entries = self.open_files[descriptor].entries
        if entries is None:
            raise _error(errno.ENOTDIR)
        return entries

    def _find(self, folder: int, name: str) -> Node:
        node = self._entries(folder).get(name)
        if node is None:
            raise _error(errno.ENOENT)
        return node

    def _status(self, node: Node) -> Any:
        return SimpleNamespace(
            st_mode=node.mode,
            st_ino=node.ino,
            st_dev=1,
            st_gid=0,
            st_size=len(node.data),
            st_mtime_ns=node.modified,
        )

    def _used(self) -> int:
        subfolders = (self.root.entries or {}).values()
        return sum(len(file.data) for each in subfolders for file in (each.entries or {}).values())


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Reactor(HeapClock):
    """Virtual time for what takes itself to be on a thread."""

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call it in an event of its own."""
        self.callLater(0, function, *arguments)


class VirtualFolderTestCase(SynchronousTestCase):
    """
    The folder carrier over a L{FileSystem}, where seconds cost nothing.

    @cvar options: what is appended to the transport's URL.
    """

    options = "?poll=1"

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A new folder, and a new time."""
        self.clock = Reactor()
        self.files = FileSystem(self.clock.seconds)
        self.files.install(self)

    def node(self, uuid: UUID, boot: int = 1) -> tuple[FolderCarrier, RecordingReceiver]:
        """A carrier that has been asked to start; without threads and without inotify."""
        receiver = RecordingReceiver()
        carrier = FolderCarrier(
            self.clock,
            FolderLocation.parse(f"folder:{ROOT}{self.options}"),
            uuid,
            boot,
            self.clock.seconds,
            watch=False,
            workers=lambda name: InlineWorker(self.clock, 0.0001),
        )
        carrier.start(receiver)
        return carrier, receiver

    def until(self, true: Callable[[], object], within: float, what: str) -> None:
        """Let time pass until it is so."""
        limit = self.clock.seconds() + within
        while not true():
            if not self.clock.step(limit):
                self.fail(f"not within {within} s: {what}")
