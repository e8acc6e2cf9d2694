"""
The folder that holds a node's state: who may use it, where it may lie, and what is kept back for hard times.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from hoft.durable import sync_folder
from hoft.errors import JournalError, JournalInUse

NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"}
    | {
        "smb3",
        "smbfs",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.smbnetfs",
        "fuse.sshfs",
    }
)
"""
Types, as in C{/proc/self/mountinfo}, on which locks and syncs cannot be trusted
to mean what SQLite needs them to mean.
"""

RESERVE = 8 << 20
"""
Bytes kept back.  Acknowledgements free room, but writing them down takes some
first: at most one filling of SQLite's log, and as much again for copying it into
the database, after which the log is used anew.
"""

LOOKERS = 8
"""How often in a row somebody may hold the lock to look, before it counts as held by a node."""


@frozen
class Footprint:
    """What a node's state takes of its disk, in bytes."""

    size: int
    """Of the journal: database, its log and its copy from before an upgrade, segments."""
    free: int
    """What this user may still write there."""


class StateFolder:
    """
    One node's state folder.  Used on the journal's thread.

    @param path: made by L{lock} if it does not exist.
    @param reserve: bytes to keep back in the file C{reserve}; 0 for none.
    """

    def __init__(self, path: Path, reserve: int = RESERVE) -> None:
        self.path = path
        self._reserve = reserve
        self._lock: int | None = None
        self._kept = False

    # --- one process ---

    def lock(self) -> None:
        """
        Make this process the folder's only user, and nobody else its reader.

        @raise JournalInUse: another process is.
        @raise JournalError: it cannot be made, or lies on a network file system.
        """
        try:
            if not self.path.exists():
                self.path.mkdir(mode=0o700, parents=True)
                sync_folder(self.path.parent)
            status = self.path.stat()
            if status.st_mode & 0o077:
                self.path.chmod(0o700)
        except OSError as error:
            raise JournalError(f"cannot use {self.path} for the node's state: {error.strerror}") from error
        refuse_network_file_system(self.path)
        path = self.path / "lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise JournalError(f"cannot open {path}: {error.strerror}") from error
        try:
            _lock(lock)
        except OSError as error:
            holder = ""
            with suppress(OSError):
                holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            os.close(lock)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise JournalError(f"cannot lock {path}: {error.strerror}") from error
            raise JournalInUse(
                f"{self.path} is in use by process {holder or 'unknown'}: stop that one first"
            ) from None
        self._lock = lock
        self._sign(lock, b"%d\n" % os.getpid())

    def unlock(self) -> None:
        """Let the next process in."""
        if self._lock is not None:
            self._sign(self._lock, b"")
            os.close(self._lock)
            self._lock = None

    def _sign(self, lock: int, holder: bytes) -> None:
        """Write who holds the lock, for others to read.  It may fail: the lock itself is what counts."""
        with suppress(OSError):
            os.ftruncate(lock, 0)
            os.pwrite(lock, holder, 0)

    # --- the reserve ---

    def keep_reserve(self) -> bool:
        """Keep room back, if there is enough left beside it; whether it is kept now."""
        if self._kept or not self._reserve:
            return True
        path = self.path / "reserve"
        try:
            room = os.statvfs(self.path)
            if path.exists() and path.stat().st_size == self._reserve:
                self._kept = True
            elif room.f_bavail * room.f_frsize >= 2 * self._reserve:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    os.posix_fallocate(descriptor, 0, self._reserve)
                finally:
                    os.close(descriptor)
                self._kept = True
        except OSError:  # no room after all, by a quota for instance
            self.release_reserve()
        return self._kept

    def spares(self) -> bool:
        """Whether there is enough left, of what was kept back, for a little more."""
        try:
            room = os.statvfs(self.path)
        except OSError:
            return False
        return 2 * room.f_bavail * room.f_frsize >= self._reserve

    def release_reserve(self) -> None:
        """The disk is full: give the room kept back to those who free more."""
        self._kept = False
        (self.path / "reserve").unlink(missing_ok=True)


def _lock(lock: int) -> None:
    """
    Lock a file for this process alone.  Whoever only looks whether a node runs
    (L{hoft.running}) holds the lock for a moment, and is waited for.
    """
    for tries_left in reversed(range(LOOKERS)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK or not tries_left:
                raise
        time.sleep(0.01)


def footprint(state: Path) -> Footprint:
    """
    May take a millisecond for each thousand segments.

    @raise OSError: there is no such folder.
    """
    size = 0
    for folder, suffixes in ((state, (".sqlite", ".sqlite-wal")), (state / "segments", (".segment",))):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(suffixes):
                        size += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            pass  # no segments yet, or one that went meanwhile
    return Footprint(size, free(state))


def free(state: Path) -> int:
    """
    Bytes that may still be written to the disk of this folder; takes microseconds.

    @raise OSError: there is no such folder.
    """
    room = os.statvfs(state)
    return room.f_bavail * room.f_frsize


def refuse_network_file_system(path: Path) -> None:
    """
    @raise JournalError: C{path} lies on one.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return  # not Linux: nothing to go by
    found = file_system(mounts, path.stat().st_dev)
    if found in NETWORK_FILE_SYSTEMS:
        raise JournalError(
            f"{path} lies on a network file system ({found}), where a journal is not safe;"
            " give the node a state folder on a local disk (only the packets' folder may be shared)"
        )


def file_system(mounts: str, device: int) -> str:
    """
    The type of the file system with this device number.

    @param mounts: what C{/proc/self/mountinfo} says (proc(5)).
    @return: C{""} if it is not listed.
    """
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split(" ")[2:3] == [wanted]:
            return kind.split(" ")[0]
    return ""


def kernel_boot() -> str:
    """What names this run of the operating system; C{"unknown"} where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"
