"""
The system calls of the folder carrier, in forms that a hostile folder cannot abuse.

Whoever else may write to the folder can put symbolic links, FIFOs, devices and
directories where a packet or a subfolder should be.  So all is opened relative
to a directory's descriptor, never through a link, and only regular files are
read.  Descriptors are held for one operation only: a folder can be unmounted,
and comes back by itself.

All of this blocks, and is called on worker threads.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from stat import S_IMODE, S_ISREG

from hoft.errors import CarrierDown, CarrierError

_NAME_ONLY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_LISTABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotAFile(CarrierError):
    """An entry named like a packet is a link, a directory, a FIFO or a device."""


class Root:
    """
    A folder that somebody else provides: it is never made, only found to be there or not.

    @param path: absolute.
    @param purpose: C{"inbox"} or C{"outbox"}, for messages.
    """

    def __init__(self, path: str, purpose: str) -> None:
        self.path = path
        self.purpose = purpose
        self._mounted: bool | None = None
        self._checked: tuple[int, int] | None = None

    @contextmanager
    def opened(self, listable: bool = False) -> Iterator[int]:
        """
        The folder's descriptor, for this one operation.

        @param listable: it is to be listed, which needs the right to read it.
        @raise CarrierDown: it is not there, or what was mounted on it is not.
        """
        try:
            descriptor = os.open(self.path, _LISTABLE if listable else _NAME_ONLY)
        except OSError as error:
            raise CarrierDown(f"{self.purpose} {self.path}: {error.strerror}") from error
        try:
            self._check_mount(descriptor)
            yield descriptor
        finally:
            close(descriptor)

    def _check_mount(self, descriptor: int) -> None:
        """
        An unmounted folder leaves its mount point behind, an empty directory of
        the file system above: files written there would never be carried.
        """
        try:
            here = os.fstat(descriptor)
            if (here.st_dev, here.st_ino) == self._checked:
                return
            mounted = here.st_dev != os.stat("..", dir_fd=descriptor).st_dev
        except OSError as error:
            raise CarrierDown(f"{self.purpose} {self.path}: {error.strerror}") from error
        if self._mounted is None:
            self._mounted = mounted
        if self._mounted and not mounted:
            raise CarrierDown(f"{self.purpose} {self.path}: nothing is mounted there any more")
        self._checked = here.st_dev, here.st_ino


@contextmanager
def subfolder(root: int, name: str, listable: bool = False) -> Iterator[int]:
    """
    The descriptor of a directory in C{root}.

    @raise OSError: C{ENOENT}; C{ENOTDIR} or C{ELOOP} where it is no directory.
    """
    descriptor = open_subfolder(root, name, listable)
    try:
        yield descriptor
    finally:
        close(descriptor)


def open_subfolder(root: int, name: str, listable: bool = False) -> int:
    """
    The same, for the caller to close.

    @raise OSError: see L{subfolder}.
    """
    flags = _LISTABLE if listable else _NAME_ONLY
    return os.open(name, flags | os.O_NOFOLLOW, dir_fd=root)


def check_writable(folder: int) -> None:
    """
    May files be made in this directory?

    @raise OSError: no, and why.
    """
    effective = os.access in os.supports_effective_ids
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=effective):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number))


def close(descriptor: int) -> None:
    """
    Close what was only read, or is not wanted any more: whatever the carrier
    says to that, nothing is lost and the descriptor is free.
    """
    try:
        os.close(descriptor)
    except OSError:
        return


def make_subfolder(root: int, name: str) -> None:
    """
    Make a directory in C{root} whose mode, group and setgid bit are those of
    C{root}, as far as we have the right; one that exists is left as it is.

    @raise OSError: it could not be made.
    """
    like = os.fstat(root)
    mode = S_IMODE(like.st_mode) | 0o700
    try:
        # With all that the umask leaves of it: its reader may look there before we come to the rest.
        os.mkdir(name, mode, dir_fd=root)
    except FileExistsError:
        return
    with subfolder(root, name, listable=True) as made:
        if os.fstat(made).st_gid != like.st_gid:
            _try(os.chown, made, -1, like.st_gid)
        os.chmod(made, mode)


def packet_mode(folder: int) -> int:
    """The mode for packets: whoever may list the folder may read them, nobody else may write them."""
    return 0o600 | (os.fstat(folder).st_mode & 0o044)


def open_regular(folder: int, name: str) -> int:
    """
    Open a regular file for reading, without waiting for anything.

    @raise NotAFile: it is something else.
    @raise OSError: C{ENOENT}, or whatever the carrier has in store.
    """
    # Looked at before it is opened: opening a FIFO or a device already does something.
    if not S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        raise NotAFile(f"{name!r} is not a regular file")
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotAFile(f"{name!r} is not a regular file") from error
        raise
    try:
        if not S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAFile(f"{name!r} is not a regular file")
    except BaseException:
        close(descriptor)
        raise
    return descriptor


def create_regular(folder: int, name: str, mode: int) -> int:
    """
    Create a file that did not exist, for writing, with exactly this mode.

    @raise OSError: among others, something of that name exists; otherwise the
        file may be there all the same.
    """
    descriptor = os.open(name, _CREATE, mode, dir_fd=folder)
    try:
        made, like = os.fstat(descriptor), os.fstat(folder)
        if S_IMODE(made.st_mode) != mode:
            os.fchmod(descriptor, mode)  # the umask has taken from it
        if made.st_gid != like.st_gid:
            _try(os.fchown, descriptor, -1, like.st_gid)
    except BaseException:
        close(descriptor)
        raise
    return descriptor


def unlink(folder: int, name: str) -> bool:
    """Delete a file if it is there; tells whether it is gone now."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def publish(folder: int, temporary: str, name: str) -> None:
    """
    Rename within C{folder}, without replacing.  Mirrors wait for a rename, not
    for a link, so it is one wherever that can be had.

    @raise OSError: C{EEXIST} if C{name} exists.
    """
    if _renameat2 is not None:
        try:
            _renameat2(folder, temporary, name)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise
        else:
            return
    # Names are never used twice, so between this look and the rename nothing comes.
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _try(change: Callable[..., None], *arguments: int) -> None:
    """A change that only the folder's group or owner may make, and that is not needed."""
    try:
        change(*arguments)
    except PermissionError:
        pass


def _load_renameat2() -> Callable[[int, str, str], None] | None:
    """renameat2(2) with RENAME_NOREPLACE, where the C library has it."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int

    def renameat2(folder: int, old: str, new: str) -> None:
        if function(folder, os.fsencode(old), folder, os.fsencode(new), 1) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), new)

    return renameat2


_renameat2 = _load_renameat2()
