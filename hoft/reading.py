"""Files that may be anything, read without waiting for ever and without end.  Blocks."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from pathlib import Path

_PIECE = 1 << 16


def read(path: str | Path, most: int, patience: float | None = None) -> bytes:
    """
    What is in a file.

    @param most: bytes.
    @param patience: seconds for a pipe, or whatever else it is, to bring it all; C{None}: it is to be a
        regular file.
    @raise OSError: there is none, it is of another kind, it has more, or it takes longer.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if patience is None and not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        late = time.monotonic() + (patience or 0.0)
        ready = select.poll()
        ready.register(handle, select.POLLIN)
        found = b""
        while len(found) <= most:
            if patience is not None and not ready.poll(1000 * max(0.0, late - time.monotonic())):
                raise OSError(errno.ETIMEDOUT, f"nothing more has come for {patience:g} s")
            piece = os.read(handle, _PIECE)
            if not piece:
                return found
            found += piece
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    finally:
        os.close(handle)
