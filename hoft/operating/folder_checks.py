"""
What C{hoft doctor} looks at in the folders that files are exchanged through.

Whatever it makes there has the name of a file that is still being written, which
nobody reads, and is gone when it is done; should it be killed, the node's next
start clears that away like its own.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import frozen
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from hoft.errors import CarrierDown, ConfigurationError
from hoft.operating.finding import Finding, Level, fail, ok, warn
from hoft.operating.wording import counted, duration, printable, size
from hoft.protocols.statefolder import NETWORK_FILE_SYSTEMS, file_system
from hoft.transports.directories import (
    Root,
    check_writable,
    create_regular,
    packet_mode,
    publish,
    subfolder,
    unlink,
)
from hoft.transports.filenames import FileName
from hoft.transports.locations import FolderLocation, check

SEEN_WITHIN = 5.0
"""Seconds in which a new file must show up in a listing."""

_SKEW = 5.0
_ROOM = 64 << 20
_INODES = 1000
_STALE = 600.0
_MOST = 100_000
_SHOWN = 3


@frozen
class Folders:
    """
    The folders of one node.

    @ivar peers: what the peers are called.
    @ivar entropy: random bytes, for names.
    """

    location: FolderLocation
    node: UUID
    peers: dict[UUID, str]
    entropy: Callable[[int], bytes]

    def examine(self) -> Iterator[Finding]:
        """All there is to find.  Blocks, on a folder that hangs without end."""
        location = self.location
        inbox, outbox = Root(location.inbox, "inbox"), Root(location.outbox, "outbox")
        try:
            check(inbox, outbox)
        except ConfigurationError as error:
            yield fail(f"{error.key} {error.given}", f"have it be {error.wanted}")
            return
        shared = location.inbox == location.outbox
        barred = [(peer, finding) for peer in self.peers for finding in self._barred(outbox, peer)]
        yield from (finding for _, finding in barred)
        reached = [peer for peer in self.peers if peer not in dict(barred)]
        if reached or not self.peers:
            cannot = "the node cannot send: give its user the right to do so"
            yield from self._probe(outbox, next(iter(reached), self.node), cannot)
        if not shared:
            yield from self._probe(inbox, self.node, "")
        yield from _room(outbox)
        yield self._wake_up(inbox)
        yield from _looked_through(inbox, location.naming.folder(self.node), self._inbound(inbox))
        for peer in reached:
            subfolder = location.naming.folder(peer)
            yield from _looked_through(outbox, subfolder, self._outbound(outbox, peer, self.peers[peer]))

    def _name(self, recipient: UUID) -> str:
        """That of a file which is still being written."""
        naming = self.location.naming
        boot = int.from_bytes(self.entropy(8), "big")
        return naming.temporary(naming.text(FileName(self.node, recipient, boot, 1)))

    def _barred(self, outbox: Root, peer: UUID) -> Iterator[Finding]:
        """One, if there is no way into the subfolder of that peer: anything may be in its place."""
        name = self.location.naming.folder(peer)
        try:
            with outbox.opened() as root, subfolder(root, name) as folder:
                check_writable(folder)
        except FileNotFoundError:
            pass  # before the first file for it there is none
        except OSError as error:
            yield fail(
                f"outbox {outbox.path}/{name}: no file for {self.peers[peer]} can be made ({error.strerror})",
                "move away what is there, the node makes a folder in its place"
                if error.errno in (errno.ENOTDIR, errno.ELOOP)
                else "give the node's user the right to do so",
            )

    def _probe(self, root: Root, recipient: UUID, cannot: str) -> Iterator[Finding]:
        """Make a file where those for C{recipient} lie, rename it, see it, delete it."""
        location, first, second = self.location, self._name(recipient), self._name(recipient)
        where = f"{root.purpose} {root.path}"
        try:
            with ExitStack() as stack:
                folder = stack.enter_context(root.opened())
                try:
                    name = location.naming.folder(recipient)
                    folder = stack.enter_context(subfolder(folder, name))
                except FileNotFoundError:
                    pass  # before the first file for it there is none
                stack.callback(unlink, folder, first)
                stack.callback(unlink, folder, second)
                file = create_regular(folder, first, packet_mode(folder))
                try:
                    os.write(file, b"hoft doctor")
                    skew = os.fstat(file).st_mtime - time.time()
                finally:
                    os.close(file)
                refused = self._rename(folder, first, second) if location.rename else None
                seen, listed = None, True
                try:
                    seen = _seen(folder, second if location.rename and refused is None else first)
                except PermissionError:
                    listed = False
                deleted = unlink(folder, first) and unlink(folder, second)
        except (OSError, CarrierDown) as error:
            yield self._cannot(root, where, error, cannot)
            return
        if refused is not None:
            yield self._no_rename(where, refused)
        if not deleted:
            yield warn(f"{where}: files can be made, and not deleted", "clear away what piles up by hand")
        elif refused is None:
            which = f"made{', renamed' if location.rename else ''} and deleted"
            yield ok(f"{where}: files can be {which}{'' if listed else ', and not be listed'}")
        if seen is None and listed:
            yield warn(
                f"{where}: a new file does not show up in listings for {duration(SEEN_WITHIN)}",
                "mount it with shorter caching of directories, if there is a choice",
            )
        elif seen is not None and seen > 1:
            yield warn(f"{where}: a new file shows up after {duration(seen)}", "calls take twice as long")
        if abs(skew) > _SKEW:
            ahead = "ahead of" if skew > 0 else "behind"
            yield warn(
                f"{where}: the clock of its file system is {duration(abs(skew))} {ahead} this machine's",
                "nothing rests on it, but ages of files are off by as much",
            )

    def _rename(self, folder: int, first: str, second: str) -> OSError | None:
        try:
            publish(folder, first, second)
        except OSError as error:
            return error
        return None

    def _no_rename(self, where: str, error: OSError) -> Finding:
        return fail(
            f"{where}: files cannot be renamed ({error.strerror})", "add rename=no to the transport's URL"
        )

    def _cannot(self, root: Root, where: str, error: Exception, then: str) -> Finding:
        why = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return fail(f"{where}: names of files may not be as long as ours", "add names=short to the URL")
        if root.purpose == "outbox":
            return fail(f"{where}: no file can be made ({why})", then)
        return warn(
            f"{where}: this user may not write there ({why})",
            "what was read cannot be deleted: have whoever carries the files clear them away",
        )

    def _wake_up(self, inbox: Root) -> Finding:
        """Whether the system tells of new files."""
        polled = f"it is looked at every {duration(self.location.poll)}"
        try:
            kind = file_system(
                Path("/proc/self/mountinfo").read_text("utf-8", "replace"), os.stat(inbox.path).st_dev
            )
            from twisted.internet.inotify import IN_CREATE, INotify, INotifyError
        except (OSError, ImportError):
            return ok(f"inbox {inbox.path}: this system does not tell of new files, {polled}")
        if kind in NETWORK_FILE_SYSTEMS:
            return ok(f"inbox {inbox.path} lies on {kind}, which does not tell of others' files: {polled}")
        told: list[Any] = []
        try:
            notifier = INotify()
        except INotifyError as error:
            return warn(
                f"the system does not tell of new files ({error}), {polled}", "raise fs.inotify limits"
            )
        try:
            notifier.watch(FilePath(inbox.path), IN_CREATE, callbacks=[lambda *event: told.append(event)])
            name = self._name(self.node)
            with inbox.opened() as folder:
                os.close(create_regular(folder, name, 0o600))
                unlink(folder, name)
            if select.select([notifier.fileno()], [], [], 1.0)[0]:
                notifier.doRead()
        except (INotifyError, OSError, CarrierDown) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            return warn(f"whether the system tells of new files cannot be tried ({why})", polled)
        finally:
            notifier.connectionLost(Failure(ConnectionDone()))
        if told:
            return ok(f"inbox {inbox.path}: the system tells of new files")
        return warn(f"inbox {inbox.path}: the system does not tell of new files", polled)

    def _inbound(self, inbox: Root) -> Iterator[Finding]:
        """What lies there for us."""
        waiting: list[float] = []
        strange: list[str] = []
        strangers: set[UUID] = set()
        naming = self.location.naming
        with inbox.opened(listable=True) as root:
            for flat, entry in _entries(root, naming.folder(self.node)):
                name = naming.parse(entry.name)
                ours = name is not None and (
                    name.recipient == self.node or (name.recipient is None and not flat)
                )
                if name is not None and ours:
                    waiting.append(_age(entry))
                    if name.sender is not None and name.sender not in self.peers:
                        strangers.add(name.sender)
                elif not flat and not naming.is_temporary(entry.name):
                    strange.append(entry.name)
        if not waiting:
            yield ok("no files wait to be read")
        else:
            oldest = max(waiting)
            said = f"{counted(len(waiting), 'file')} to be read, the oldest of them for {duration(oldest)}"
            if oldest < _STALE:
                yield ok(said)
            else:
                why = "why it does not take them with 'hoft packet FILE --config DIR'"
                yield warn(said, f"see that the node runs, and {why}")
        for stranger in sorted(strangers, key=str)[:_SHOWN]:
            yield warn(
                f"there are files from {stranger}, which is not trusted here",
                "'hoft trust DIR CARD', if it is to be",
            )
        if strange:
            shown = ", ".join(printable(repr(one)) for one in sorted(strange)[:_SHOWN])
            yield warn(
                f"no packets, but in the inbox: {shown}{', ...' if len(strange) > _SHOWN else ''}",
                "find out who puts them there; they are left alone",
            )

    def _outbound(self, outbox: Root, peer: UUID, name: str) -> Iterator[Finding]:
        """What lies there of ours for one peer."""
        naming = self.location.naming
        waiting = []
        with outbox.opened() as root:
            for entry in _within(root, naming.folder(peer)):
                parsed = naming.parse(entry.name)
                if parsed is not None and parsed.sender in (self.node, None):
                    waiting.append(_age(entry))
        oldest = max(waiting, default=0.0)
        if oldest >= _STALE:
            files = counted(len(waiting), "file")
            yield warn(
                f"{files} for {name} still in the outbox, the oldest for {duration(oldest)}",
                f"nobody takes them away: does whatever carries them run, and does {name}?",
            )


def _looked_through(root: Root, name: str, found: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from found
    except (OSError, CarrierDown) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        level = Level.FAIL if root.purpose == "inbox" else Level.WARN
        yield Finding(
            level,
            f"{root.purpose} {root.path}/{name} cannot be looked through ({why})",
            "see that it is a folder, which the node's user has the right to list",
        )


def _seen(folder: int, name: str) -> float | None:
    """
    After how many seconds a file shows up in a listing of its folder; C{None} if it does not in time.

    @raise PermissionError: the folder must not be listed.
    """
    began = time.monotonic()
    with subfolder(folder, ".", listable=True) as listable:
        while True:
            if name in os.listdir(listable):
                return time.monotonic() - began
            if time.monotonic() - began > SEEN_WITHIN:
                return None
            time.sleep(0.05)


def _room(outbox: Root) -> Iterator[Finding]:
    with outbox.opened() as folder:
        room = (
            os.statvfs(f"/proc/self/fd/{folder}")
            if os.path.isdir("/proc/self/fd")
            else os.statvfs(outbox.path)
        )
    free = room.f_bavail * room.f_frsize
    if free < _ROOM:
        yield fail(f"outbox {outbox.path}: {size(free)} are free", "make room there")
    else:
        yield ok(f"outbox {outbox.path}: {size(free)} are free")
    if room.f_files and room.f_favail < _INODES:
        yield fail(f"outbox {outbox.path}: room for {counted(room.f_favail, 'file')}", "delete files there")


def _entries(root: int, name: str) -> Iterator[tuple[bool, os.DirEntry[str]]]:
    """Whether it lies flat in the root, and the entry; of each folder L{_MOST} at most."""
    for entry in _within(root, name):
        yield False, entry
    with os.scandir(root) as entries:
        for _, entry in zip(range(_MOST), entries, strict=False):
            yield True, entry


def _within(root: int, name: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a subfolder, L{_MOST} at most."""
    try:
        with subfolder(root, name, listable=True) as folder, os.scandir(folder) as entries:
            for _, entry in zip(range(_MOST), entries, strict=False):
                yield entry
    except FileNotFoundError:
        return


def _age(entry: os.DirEntry[str]) -> float:
    try:
        return max(0.0, time.time() - entry.stat(follow_symlinks=False).st_mtime)
    except OSError:
        return 0.0  # it went meanwhile
