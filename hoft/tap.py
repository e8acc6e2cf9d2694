"""
C{twistd hoft}: options, and the service they describe.

Mistakes in options or in the file are one line on standard error and exit code
2; so is whatever keeps the node from starting, such as another process on the
same state.
"""

from __future__ import annotations

import atexit
import gc
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn, Protocol

from attrs import define
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure
from zope.interface import implementer

from hoft import command_line, config, exposure
from hoft.config import Config
from hoft.errors import ConfigurationError, IdentityError, LocalError
from hoft.identity import IDENTITY_FILE, Identity

OPEN_FILES = 16_384
"""That a node may want to have open: twice L{hoft.web.ingress.server_factory.MAX_CONNECTIONS}."""

FEW_FILES = 4_096
"""With fewer the log says how many callers there can be."""

_SINGLE = ("folder", "inbox", "outbox", "transport", "name", "state", "config")
_SEVERAL = ("listen", "peer", "allow", "route")


class Options(usage.Options):
    """What C{twistd hoft} takes."""

    synopsis = "[--config FILE | --folder PATH | --inbox PATH --outbox PATH | --transport URL] [options]"

    longdesc = (
        "Runs a node: from a file that 'hoft init' made, or by options only, for a first try or in a "
        "container.  A node without peers prints its card and waits.  Example: "
        "twistd -n hoft --folder /srv/exchange --name near --peer far.card "
        "--route stock=far=https://stock.example/api"
    )

    optParameters = [
        ["config", None, None, "hoft.toml; no other option goes with it."],
        ["folder", None, None, "One folder that all nodes see."],
        ["inbox", None, None, "Folder in which files for this node arrive; with --outbox."],
        ["outbox", None, None, "Folder in which this node leaves files for others."],
        ["transport", None, None, "URL of any other carrier."],
        ["name", None, None, "What this node's card calls it (default: this machine's name)."],
        ["state", None, None, "Folder for key and journal (default: $XDG_STATE_HOME/hoft/NAME)."],
    ]

    compData = usage.Completions(
        optActions={
            "config": usage.CompleteFiles("*.toml"),
            "folder": usage.CompleteDirs(),
            "inbox": usage.CompleteDirs(),
            "outbox": usage.CompleteDirs(),
            "state": usage.CompleteDirs(),
        }
    )

    def __init__(self) -> None:
        usage.Options.__init__(self)
        for option in _SEVERAL:
            self[option] = []

    def opt_listen(self, endpoint: str) -> None:
        """Where callers connect: PORT, or an endpoint; may be given several times (default: 8080)."""
        self["listen"].append(endpoint)

    def opt_peer(self, card: str) -> None:
        """A peer's card, or a file with one; may be given several times."""
        self["peer"].append(card)

    def opt_allow(self, prefix: str) -> None:
        """URL prefix that peers may reach through this node; may be given several times."""
        self["allow"].append(prefix)

    def opt_route(self, route: str) -> None:
        """NAME=PEER=URL: /svc/NAME/... leads to URL behind PEER; may be given several times."""
        self["route"].append(route)

    def parseOptions(self, options: Any = None) -> None:
        """As inherited, but a mistake is one line and exit code 2."""
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as error:
            refuse(f"{error} (see 'twistd hoft --help')")

    def parseArgs(self, *arguments: str) -> None:
        """There are none beside options."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not an option")

    def described(self) -> Config:
        """
        The configuration that these options are or name.

        @raise ConfigurationError: the first mistake.
        """
        if self["config"] is not None:
            for option in (*_SINGLE[:-1], *_SEVERAL):
                if self[option]:
                    raise ConfigurationError(
                        config.COMMAND_LINE, f"--{option}", "given beside --config", "it said in the file"
                    )
            return config.read(Path(self["config"]))
        return command_line.from_command_line(
            **{option: self[option] for option in _SINGLE[:-1]},
            listen=self["listen"],
            peers=self["peer"],
            allow=self["allow"],
            routes=self["route"],
        )


class INode(Protocol):
    """What L{hoft.node.makeNode} returns, beside being an L{IService}."""

    def reread(self) -> Any:
        """
        Take up what has changed in its file, without harm to what is under way.

        @return: C{None}, or a Deferred that fires once it is done.
        @raise LocalError: (also as failure) there is no file, or something in it is a mistake or
            cannot be changed while the node runs; nothing was.
        """


def makeService(options: Options) -> IService:
    """
    The node that the options describe.  On a mistake the process ends, with one
    line on standard error and exit code 2.
    """
    try:
        configuration = options.described()
        config.check_runnable(configuration)
        identity = _identity(configuration)
        if not configuration.peers:
            print(identity.card(configuration.name), flush=True)
        _allow_open_files()
        # What a node consists of stays as long as it runs.  Looked through while it is made, it takes a
        # tenth longer; looked through again and again afterwards, the reactor's thread would stop for that.
        gc.disable()
        from twisted.internet import reactor

        from hoft.node import makeNode

        gc.freeze()
        gc.enable()
        gateway = Gateway(makeNode(configuration, reactor), reactor)
    except LocalError as error:
        refuse(str(error))
    gateway.watchHangup()
    return gateway


def _allow_open_files() -> None:
    """What a shell or a supervisor lets a process open by default is less than the callers there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < FEW_FILES:
        Logger().warn(
            "This process may open {most} files, so {callers} callers may be connected at once; wanted: a"
            " hard limit of {wanted}, by LimitNOFILE= of systemd or 'ulimit -Hn'",
            most=most,
            callers=most // 2,
            wanted=OPEN_FILES,
        )


def _identity(configuration: Config) -> Identity:
    """
    The node's key.  A node that is told by options only has none at its first
    start, and gets one.

    @raise LocalError: it has none, or it could not be kept to itself.
    """
    path = configuration.state / IDENTITY_FILE
    if configuration.path is None and not path.exists():
        exposure.check(configuration)
        try:
            configuration.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise IdentityError(f"{configuration.state}: cannot be made ({error.strerror})") from error
        Identity.generate(os.urandom).save(path)
    return Identity.load(path)


@implementer(IService)
@define(eq=False, slots=False)
class Gateway(Service):
    """
    A node as twistd runs it: it re-reads its file on SIGHUP, and if it cannot
    start the process says why in one line and exits with code 2.

    @param node: an L{IService} and L{INode}; its C{startService} may return a
        Deferred, and may raise or fail with a L{LocalError}.
    @param reactor: the reactor.
    """

    node: Any
    reactor: Any
    _log = Logger()

    def privilegedStartService(self) -> None:
        """Let the node bind what needs privileges."""
        try:
            self.node.privilegedStartService()
        except LocalError as error:
            refuse(str(error))

    def startService(self) -> None:
        """Start the node; a failure ends the process."""
        super().startService()
        # Once it runs, for the reactor installs a handler of its own when it starts.
        self.reactor.callWhenRunning(self._watchTermination)
        maybeDeferred(self.node.startService).addErrback(self._start_failed)

    def stopService(self) -> Deferred[None]:
        """Stop the node."""
        super().stopService()
        return maybeDeferred(self.node.stopService)

    def watchHangup(self) -> None:
        """
        From now on SIGHUP means L{reload}.  Called before the node takes the lock
        that tells others whom to signal: the default is to die of it.
        """
        signal.signal(signal.SIGHUP, lambda *_: self.reactor.callFromThread(self.reload))

    def _watchTermination(self) -> None:
        """SIGTERM and SIGINT end it with code 0; by the handlers of the reactor, it would die of them."""

        def stop(number: int) -> None:
            try:
                self.reactor.stop()
            except ReactorNotRunning:
                return  # it is stopping already
            self._log.info("{signal}: stopping", signal=signal.Signals(number).name)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self.reactor.callFromThread(stop, number))

    def reload(self) -> Deferred[None]:
        """
        Have the node take up its file.  A file with mistakes changes nothing; the log
        says what they are.

        @return: fires once the node has taken it up or refused.
        """
        rereading: Deferred[None] = maybeDeferred(self.node.reread)
        return rereading.addErrback(self._reload_failed)

    def _reload_failed(self, failure: Failure) -> None:
        if failure.check(LocalError):
            self._log.error("configuration unchanged: {error}", error=failure.value)
        else:
            self._log.failure("configuration unchanged", failure)

    def _start_failed(self, failure: Failure) -> None:
        if failure.check(LocalError):
            end(self.reactor, f"hoft: {failure.value}", 2)
        else:
            self._log.failure("the node could not start", failure)
            end(self.reactor, f"hoft: the node could not start: {failure.getErrorMessage()}", 1)


def refuse(message: str) -> NoReturn:
    """End the process now, with one line and exit code 2."""
    # Not sys.stderr: twistd has it lead to the log once that is open.
    print(f"hoft: {message}", file=sys.__stderr__, flush=True)
    raise SystemExit(2)


def end(reactor: Any, line: str, code: int) -> None:
    """Stop the reactor, and have the process exit with C{code}, which twistd itself cannot."""
    print(line, file=sys.__stderr__, flush=True)

    def leave() -> None:
        sys.stdout.flush()
        os._exit(code)

    atexit.register(leave)

    def stop() -> None:
        if reactor.running:
            reactor.stop()

    # startService runs before the reactor does, and that could not be stopped yet.
    reactor.callWhenRunning(stop)
