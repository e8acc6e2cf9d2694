"""
What changes a node, one after another: its start, and whatever its file says afterwards.

All is called on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from hoft import config
from hoft.config import Config
from hoft.errors import LocalError
from hoft.interfaces import IWorker

Change = Callable[[], Coroutine[Deferred[Any], Any, None]]


class Changes:
    """Those of one node."""

    _log = Logger()

    def __init__(
        self,
        path: Path | None,
        worker: IWorker,
        reload: Callable[[Config], Coroutine[Deferred[Any], Any, None]],
    ) -> None:
        """
        @param path: the node's file, if it has one.
        @param worker: reads it.
        @param reload: has the node take up what is in it.
        """
        self._path = path
        self._worker = worker
        self._reload = reload
        self._lock = DeferredLock()

    def next(self, change: Change) -> Deferred[None]:
        """Do this, once all is done that was to be done before."""
        done: Deferred[None] = self._lock.run(lambda: Deferred.fromCoroutine(change()))
        return done

    def reread(self) -> Deferred[None]:
        """
        Take up what the file says by the time its turn comes.  Who does not wait for the end of it
        does not stop it.

        @raise LocalError: (as failure) there is no file, or a mistake in it, or the node does not take it up.
        """
        told: Deferred[None] = Deferred()
        path = self._path
        if path is None:
            told.errback(LocalError("this node was told by options, there is no file to read again"))
            return told
        self.next(partial(self._reread, path)).addBoth(
            lambda result: None if told.called else told.callback(result)
        )
        return told

    async def _reread(self, path: Path) -> None:
        await self._reload(await self._worker.call(_read_runnable, path))
        self._log.info("configuration taken up from {path}", path=path)


def _read_runnable(path: Path) -> Config:
    found = config.read(path)
    config.check_runnable(found)
    return found
