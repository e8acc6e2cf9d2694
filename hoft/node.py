"""
The layers put together: one running gateway.

A node owns one journal, one carrier, one link for each peer, one ingress and
one egress, and what carries messages and streams.  All methods are called on the reactor thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from hoft import __version__, durable, exposure
from hoft.changes import Changes
from hoft.channels import Channels
from hoft.config import Config
from hoft.configured import limits_of, metrics_of, policy_of, where_of
from hoft.errors import ConfigurationError, IdentityError, LocalError, UnknownPeer
from hoft.identity import IDENTITY_FILE, Identity
from hoft.interfaces import ICarrier, IMessageLink, IMessageReceiver, ITransaction
from hoft.listening import Place, Ports, shown
from hoft.local_server import LocalServer
from hoft.messages import ledger
from hoft.messages.links import MessageLinks
from hoft.messages.pieces import MESSAGES
from hoft.node_links import NodeLinks
from hoft.protocols import log as link_log
from hoft.protocols.compression import Compressor
from hoft.protocols.journal import Journal
from hoft.protocols.link import Link
from hoft.protocols.node_parts import NodeParts
from hoft.protocols.quarantine import Quarantine
from hoft.protocols.router import LinkRouter
from hoft.protocols.schema import Schema
from hoft.protocols.sealing import ChecksumSuite
from hoft.protocols.statefolder import Footprint, footprint, free
from hoft.protocols.synchronisation import random64
from hoft.questions import Questions, carrier_status
from hoft.streams import epochs, registry
from hoft.streams.forwards import TcpForwards
from hoft.streams.node_streams import NodeStreams
from hoft.streams.parts import STREAMS
from hoft.streams.reaching import TcpPolicy
from hoft.suites import suites_of
from hoft.ticking import Ticker
from hoft.timers import turn
from hoft.transports.schemes import maker_for
from hoft.web.crossing.exchange import REQUESTS, RESPONSES
from hoft.web.egress import executions, secret_store
from hoft.web.egress.credentials import Credentials
from hoft.web.egress.egress import Egress
from hoft.web.egress.secret_store import SecretStore
from hoft.web.ingress import kept_rows, limiting
from hoft.web.ingress.caching import rows as cache_rows
from hoft.web.ingress.callbacks import rows as callback_rows
from hoft.web.ingress.ingress import Ingress
from hoft.web.ingress.limiting import Meters
from hoft.web.ingress.room import Room
from hoft.web.ingress.routing import Routing
from hoft.web.listing import Listing
from hoft.web.measuring import Metrics
from hoft.web.slices import Slices
from hoft.worker import Worker

if TYPE_CHECKING:
    from hoft.web.ingress.callbacks.registrations import Registrations

T = TypeVar("T")

LOADED = 250
"""Rows that are taken up in a turn of the reactor."""

SAVE_USAGE = 5.0
"""Seconds between writes of what callers and routes have used of their day."""


def makeNode(
    config: Config, reactor: Any, program: IMessageReceiver | None = None, schemas: Sequence[Schema] = ()
) -> Node:
    """
    The service that C{twistd hoft} runs, for any program: to be started and stopped
    as any service of Twisted's.

    @param config: L{hoft.config.read} makes one.
    @param program: whom messages from peers are for; without one they wait.
    @param schemas: the program's own tables in the journal, for what it writes in the
        transactions in which it sends and consumes messages.
    """
    return Node(config, reactor, program, schemas)


_WORKERS = ("journal", "sync", "load", "write", "open", "quarantine")


class Node(Service):
    """
    One gateway, as its configuration says.

    @ivar links: by the names of the peers.
    @ivar streams: those of all links.
    @ivar forwards: ports that lead to targets behind peers.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Any,
        program: IMessageReceiver | None = None,
        schemas: Sequence[Schema] = (),
    ) -> None:
        """See L{makeNode}."""
        self.links: dict[str, Link] = {}
        self._config = config
        self._reactor = reactor
        self._boot = random64(os.urandom)
        self._workers = {name: Worker(reactor, name) for name in _WORKERS}
        self._journal = Journal(
            config.state,
            self._workers["journal"],
            self._workers["sync"],
            [
                link_log.SCHEMA,
                executions.SCHEMA,
                limiting.SCHEMA,
                kept_rows.SCHEMA,
                cache_rows.SCHEMA,
                callback_rows.SCHEMA,
                secret_store.SCHEMA,
                ledger.SCHEMA,
                epochs.SCHEMA,
                *schemas,
            ],
            clock=time.monotonic,
            next_turn=reactor.callFromThread,
            entropy=os.urandom,
            read_worker=self._workers["load"],
        )
        clock = time.monotonic
        room = Room(partial(free, config.state))
        self._egress = Egress(
            reactor, clock, policy_of(config), config.name, limits_of(config), left=lambda: room.left
        )
        self._meters = Meters(time.time, clock)
        self._saved_at = clock()
        tcp_policy = TcpPolicy(config.allowed)
        self.streams = NodeStreams(config.name, reactor, clock, os.urandom, tcp_policy, self._egress)
        self._ingress = Ingress(
            reactor,
            clock,
            os.urandom,
            self.links,
            Routing.of(config),
            config.name,
            self.look,
            self._meters,
            metrics_of(config, self.look),
            self.streams,
            room,
        )
        self._messages = MessageLinks(program, clock, os.urandom)
        self.forwards = TcpForwards(self.streams.open)
        self._channels = Channels(
            {
                MESSAGES: self._messages,
                REQUESTS: self._egress,
                RESPONSES: self._ingress,
                STREAMS: self.streams,
            }
        )
        layers = (self._egress, self._messages, self.streams)
        self._node_links = NodeLinks(reactor, self.links, self._channels, layers)
        self._ports = Ports(reactor)
        self._changes = Changes(config.path, self._workers["open"], self._reload)
        self.reread = self._changes.reread  # as SIGHUP and 'hoft reload' have it
        self._carrier: ICarrier | None = None
        self._ticker: Ticker | None = None
        self._listing = Listing(reactor, clock, (self._ingress, self._egress, self.streams))
        self._listing.log(config.log_calls)
        questions = Questions(reactor, self.look, self.reread, self._listing, self._ingress, self.links)
        self._server = LocalServer(reactor, config.state, questions.answer)
        self._started_at = clock()
        self._slices = Slices(reactor)
        self._identity: Identity
        self._router: LinkRouter
        self._quarantine: Quarantine

    # --- life

    def startService(self) -> Deferred[None]:
        """
        Open the journal, the links, the carrier, and then the doors.

        @raise LocalError: (as failure) what keeps the node from starting.
        """
        super().startService()
        return self._changes.next(self._start)

    async def _start(self) -> None:
        config = self._config
        await self._workers["open"].call(exposure.check, config)
        await self._workers["open"].call(durable.clear, config.state)
        self._identity = Identity.load(config.state / IDENTITY_FILE)
        await self._journal.open(self._identity.uuid)
        self._meters.load(await self._journal.transact(limiting.load))
        await self._load(kept_rows.load, self._ingress.keeper.load)
        await self._load(cache_rows.load, self._ingress.cache.load)
        await self._load(callback_rows.load, self._ingress.callbacks.load)
        self._ingress.callbacks.reconfigure(await self._registrations(config))
        parts = NodeParts(
            node=self._identity.uuid,
            boot=self._boot,
            journal=self._journal,
            writing=self._workers["write"],
            reactor=self._reactor,
            clock=time.monotonic,
            entropy=os.urandom,
            wall_clock=time.time,
            compressor=Compressor(),
            outboxes_at_start=await self._journal.transact(link_log.last_outbox_ids),
        )
        carrier = maker_for(config.transport).carrier(
            self._reactor, config.transport, self._identity.uuid, self._boot, time.monotonic
        )
        self._carrier = carrier
        self._quarantine = Quarantine(
            config.state / "quarantine",
            config.quarantine,
            self._workers["quarantine"],
            time.monotonic,
            time.time,
        )
        self._router = LinkRouter(parts, self._workers["open"], carrier.wake, self._quarantine)
        if self._journal.lost:
            await self._router.begin_anew(
                f"{self._journal.lost} files in {config.state / 'segments'} are missing, too short or"
                " damaged, as after a power cut or an incomplete copy"
            )
        suites = await self._workers["open"].call(suites_of, config.peers, self._identity)
        self._egress.reconfigure(policy_of(config), await self._credentials(config, self._identity))
        self._node_links.start(parts, self._router, carrier)
        await self._node_links.open(config, suites)
        self._warn_of_forgeries(config)
        # Before what may take its time: a folder that hangs is something to be asked about.
        try:
            self._server.start()
        except LocalError as error:
            self._log.warn("'hoft status' cannot ask this node: {error}", error=error)
        await carrier.start(self._router)
        await self._node_links.connect()
        self._ticker = Ticker(self._reactor, self._tick)
        await self._listen(config)
        registry.started(self.streams)
        self._announce()

    async def _load(self, read: Callable[[ITransaction], list[T]], take: Callable[[list[T]], None]) -> None:
        """What an earlier process has left in a table; there may be a hundred thousand rows."""
        rows = await self._journal.transact(read)
        for start in range(0, len(rows), LOADED):
            take(rows[start : start + LOADED])
            await turn(self._reactor)

    async def _listen(self, config: Config) -> None:
        """
        Where callers connect, and where TCP connections are made that lead to peers.

        @raise ConfigurationError: it cannot be listened at one of these; then it is where it was.
        """
        forwards = self.forwards.factories(config.tcp, config.deadline)
        places: dict[Place, IProtocolFactory] = {
            **{Place("listen", one): self._ingress.factory for one in config.listen},
            **{Place("tcp.listen", one): factory for one, factory in forwards.items()},
        }
        await self._ports.change(places, where_of(config))
        self.forwards.reconfigure(config.tcp, config.deadline, forwards)

    def _announce(self) -> None:
        """One line: who we are, where we listen, whom we know."""
        config = self._config
        where = ", ".join(map(shown, self._ports.addresses("listen")))
        self._log.info(
            "{name} takes {where} (peers: {peers}; routes: {routes})",
            name=config.name,
            where=f"calls at {where}" if where else "no calls",
            peers=", ".join(peer.name for peer in config.peers) or "none",
            routes=", ".join(route.name for route in config.routes) or "none",
        )

    def stopService(self) -> Deferred[None]:
        """Answer who waits, let what is under way come to a rest, close the journal."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await maybeDeferred(super().stopService)
        await self._server.stop()
        self._listing.stop()
        self._slices.stop()
        await self._ports.close()
        registry.stopped(self.streams)
        await gatherResults([self._ingress.stop(), self._egress.stop(), self.streams.stop()])
        self._messages.stop()
        if self._ticker is not None:
            self._ticker.stop()
        self._node_links.close()
        if self._carrier is not None:
            await self._carrier.stop()
        self._save_usage()
        await self._journal.close()
        await gatherResults([worker.stop() for worker in self._workers.values()])
        self._log.info(
            "{name} has stopped; what its journal holds goes on at the next start", name=self._config.name
        )

    async def _credentials(self, config: Config, identity: Identity) -> Mapping[str, Credentials]:
        """
        @raise LocalError: a secret cannot be read or used.
        """
        if not config.credentials:
            return {}
        # Imported here: it brings treq, and with it a third of a node's start.
        from hoft.credentials import credentials_of, secrets_of

        secrets = await self._workers["open"].call(secrets_of, config.credentials)
        store = SecretStore(self._journal.transact, identity.secret_keys)
        return credentials_of(config.credentials, secrets, self._reactor, time.monotonic, store)

    async def _registrations(self, config: Config) -> Registrations | None:
        """
        @raise LocalError: a secret cannot be read or used.
        """
        if not config.callbacks:
            return None
        # Imported here: most nodes have none, and start sooner.
        from hoft.web.ingress.callbacks.registrations import Registrations

        return await self._workers["open"].call(Registrations.read, config.callbacks)

    async def _measures(self, config: Config) -> Metrics | None:
        """
        Those that go on, or new ones.

        @raise ConfigurationError: the library for them is missing.
        """
        if config.metrics and self._ingress.accounts.metrics is not None:
            return self._ingress.accounts.metrics
        return await self._workers["open"].call(metrics_of, config, self.look)

    def _warn_of_forgeries(self, config: Config) -> None:
        for peer in config.peers:
            if peer.suite == ChecksumSuite.name:
                self._log.warn(
                    "Packets of {peer} have a checksum only (suite = 'checksum'): whoever can write to the"
                    " folder can make them up, and calls with them.",
                    peer=peer.name,
                )

    def _tick(self) -> None:
        self._router.tick()
        self._ingress.tick()
        self._egress.tick()
        self._messages.tick()
        self.streams.tick()
        self._node_links.tick()
        if time.monotonic() - self._saved_at >= SAVE_USAGE:
            self._save_usage()

    def _save_usage(self) -> None:
        """What callers and routes have used of their day."""
        self._saved_at = time.monotonic()
        usages = self._meters.unsaved()
        if usages:
            saving = self._journal.transact(partial(limiting.save, usages=usages))
            saving.addErrback(lambda failure: self._log.failure("Usage was not kept", failure))

    # --- while it runs

    def link(self, name: str) -> IMessageLink:
        """
        Messages to and from a peer.

        @param name: what the configuration calls it.
        @raise UnknownPeer: there is none of that name, or the node does not run.
        """
        link = self.links.get(name)
        if link is None:
            known = ", ".join(self.links) or "none"
            raise UnknownPeer(f"{name!r} is no peer of {self._config.name}; there are: {known}")
        return self._messages.of(link)

    def reload(self, config: Config) -> Deferred[None]:
        """
        Take up peers, routes, what is allowed and where to listen; calls under
        way go on as they began.

        @raise LocalError: (as failure) something that cannot change while the
            node runs has changed, or cannot be taken up; then nothing was.
        """
        return self._changes.next(partial(self._reload, config))

    async def _reload(self, config: Config) -> None:
        for key in ("name", "state", "transport"):
            if getattr(config, key) != getattr(self._config, key):
                raise ConfigurationError(
                    str(config.path), key, "cannot change while the node runs", "a restart of the node"
                )
        await self._workers["open"].call(exposure.check, config)
        policy, routing, tcp_policy = policy_of(config), Routing.of(config), TcpPolicy(config.allowed)
        identity = Identity.load(config.state / IDENTITY_FILE)
        if identity.uuid != self._identity.uuid:
            raise IdentityError("the key file is now another node's; wanted: a restart, or the former file")
        suites = await self._workers["open"].call(suites_of, config.peers, identity)
        credentials = await self._credentials(config, identity)
        registrations = await self._registrations(config)
        metrics = await self._measures(config)
        await self._listen(config)
        self._identity = identity
        await self._node_links.reconfigure(config, suites)
        self._warn_of_forgeries(config)
        self._egress.reconfigure(policy, credentials, limits_of(config))
        self.streams.targets.policy = tcp_policy
        self._ingress.reconfigure(routing)
        self._ingress.accounts.measure(metrics)
        self._quarantine.most = config.quarantine
        self._listing.log(config.log_calls)
        self._ingress.callbacks.reconfigure(registrations)
        self._config = config
        self._announce()

    def status(self) -> dict[str, Any]:
        """What there is to know of the node, ready for JSON, see C{docs/reference-status.rst}.  May block."""
        links = {name: link.status() for name, link in self.links.items()}
        return self._status(footprint(self._config.state), links)

    def look(self) -> Deferred[dict[str, Any]]:
        """L{status}, for C{GET /_hoft/status} and C{hoft status}, without harm to what is under way."""
        return Deferred.fromCoroutine(self._look())

    async def _look(self) -> dict[str, Any]:
        disk = await self._workers["open"].call(footprint, self._config.state)
        links = dict(self.links)
        statuses = await self._slices.gather(link.status for link in links.values())
        return self._status(disk, dict(zip(links, statuses, strict=True)))

    def _status(self, disk: Footprint, links: dict[str, Any]) -> dict[str, Any]:
        router = self._router
        return {
            "name": self._config.name,
            "node": str(self._identity.uuid),
            "version": __version__,
            "process": os.getpid(),
            "uptime": round(time.monotonic() - self._started_at, 3),
            "carrier_down": router.trouble,
            "journal_bytes": disk.size,
            "journal_free": disk.free,
            "peers": links,
            "carrier": {} if self._carrier is None else carrier_status(self._carrier),
            "refused": dict(router.refusals.counts),
            "refused_last": router.refusals.last(),
            "unknown_channel": self._channels.unknown,
            "ingress": self._ingress.counters(),
            "callbacks": self._ingress.callbacks.counters(),
            "egress": self._egress.counters(),
            "messages": self._messages.counters(),
            "streams": self.streams.counters(),
            "forwards": self.forwards.counters(),
        }
