"""
For C{twistd --python}: L{hoft.tap.Gateway} around a small service that prints
what it is asked to do.  The environment says which file is to be read again,
C{HOFT_FILE}, and how the service behaves, C{HOFT_BEHAVIOUR}: C{well}, C{raises}
or C{fails} at its start (the latter a moment later), or C{picky}: it takes
nothing up.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.application.service import Application, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from hoft.config import read
from hoft.errors import ConfigurationError, JournalInUse
from hoft.tap import Gateway

BEHAVIOUR = os.environ["HOFT_BEHAVIOUR"]


class Reporting(Service):
    """Prints what happens to it."""

    def startService(self) -> Deferred[None] | None:
        def refuse() -> None:
            raise JournalInUse("somebody was here before")

        if BEHAVIOUR == "raises":
            refuse()
        if BEHAVIOUR == "fails":
            return deferLater(reactor, 0.05, refuse)
        print("started", flush=True)
        return None

    def stopService(self) -> None:
        print("stopped", flush=True)

    def reread(self) -> None:
        if BEHAVIOUR == "picky":
            raise ConfigurationError("hoft.toml", "name", "changed", "a restart")
        print(f"took up {read(Path(os.environ['HOFT_FILE'])).name}", flush=True)


application = Application("gateway")
_gateway = Gateway(Reporting(), reactor)
_gateway.setServiceParent(application)
_gateway.watchHangup()
